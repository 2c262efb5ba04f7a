"""explanation.run: the sums are those of the pictures, the evaluation that of `evaluate`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from retinanet_edu import ShapesDataset, evaluate, load_checkpoint, predict
from retinanet_edu.errors import DataError
from retinanet_edu.explanation import KINDS, explain
from retinanet_edu.explanation.run import AnswerCounts, Examination, Judged, examine, gains
from retinanet_edu.losses import focal_loss

pytestmark = pytest.mark.filterwarnings("error")
DATA = ShapesDataset("val", length=32)


@pytest.fixture(scope="module")
def model() -> Any:
    return load_checkpoint("shapes")


@pytest.fixture(scope="module")
def examined(model: Any) -> Examination:
    return examine(model, DATA)


# --- the focal loss, by share ---------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 5])
def test_shares_are_those_of_all_answers_sorted(gamma: float) -> None:
    y = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) * 3 - 4
    counts = AnswerCounts()
    for part in y.split(6_000):
        counts.add(part)
    assert counts.total == len(y)
    sure = y.double().sort().values  # the easiest first; of α only a factor is left
    loss = torch.stack([focal_loss(z, torch.zeros(()), alpha=0.5, gamma=gamma) for z in sure[::50]])
    exact = (loss.cumsum(0) / loss.sum()).numpy()
    answers, share = counts.shares(gamma)
    at = (np.arange(len(exact)) + 1) / len(exact)
    np.testing.assert_allclose(np.interp(at, answers, share), exact, atol=0.02)
    assert answers[0] == share[0] == 0
    assert answers[-1] == share[-1] == pytest.approx(1)
    assert (np.diff(answers) > 0).all()
    assert (np.diff(share) >= 0).all()
    assert counts.hardest(gamma, 0.2) == pytest.approx(1 - np.interp(0.8, at, exact), abs=0.02)
    assert counts.hardest(gamma, 1) == pytest.approx(1)


def test_equal_answers_share_the_loss_equally_and_the_extremes_are_counted() -> None:
    counts = AnswerCounts()
    counts.add(torch.full((3, 5), -2.0))
    assert counts.hardest(2, 0.3) == pytest.approx(0.3)
    counts.add(torch.tensor([-1e4, 1e4, 39.999]))
    assert counts.total == 18
    assert counts.hardest(2, 2 / 18) == pytest.approx(1, abs=1e-3)


# --- what a kind of mistake costs -----------------------------------------------------------------


def test_gains_by_hand() -> None:
    """AP is 1 and 0 as it is. The comments are the detections of class 1, best first, of two."""
    pictures = [
        Judged([0.9, 0.8], [0, 0], ["true", "class"], [0, 1], [0, 1]),
        Judged(
            [0.7, 0.6, 0.5],
            [1, 1, 1],
            ["background", "localisation", "ignored"],
            [-1, 0, 1],
            [1, -1],
        ),
    ]
    assert gains(pictures, 3) == pytest.approx(
        {
            "class": 0.25,  # true, false, false: AP ½
            "localisation": 0.125,  # false, true: AP ¼
            "background": 0,
            "duplicate": 0,
            "both": 0,
            "missed": 0.5,  # nothing left to find: the mean is that of class 0
        }
    )


def test_an_object_is_won_once_and_a_difficult_one_never() -> None:
    kinds = ["class", "class", "class"]
    picture = Judged([0.9, 0.8, 0.7], [1, 1, 1], kinds, [0, 0, 1], [0, -1])
    assert gains([picture], 2)["class"] == 1
    found = Judged([0.9, 0.8], [0, 0], ["true", "localisation"], [0, 0], [0])
    assert gains([found], 1)["localisation"] == 0
    assert set(gains([], 2).values()) == {0.0}


# --- a dataset ------------------------------------------------------------------------------------


def test_the_evaluation_is_that_of_evaluate(model: Any, examined: Examination) -> None:
    expected = evaluate(model, DATA)
    assert examined.evaluation.coco == pytest.approx(expected.coco, nan_ok=True)
    assert examined.evaluation.voc10 == pytest.approx(expected.voc10)
    assert examined.evaluation.loss == pytest.approx(expected.loss, rel=1e-4)


def test_the_sums_are_those_of_the_pictures(model: Any, examined: Examination) -> None:
    found = [predict(model, DATA[i][0]) for i in range(len(DATA))]
    sure = sum(int((one.scores >= 0.5).sum()) for one in found)
    assert list(examined.kinds) == list(KINDS)
    assert sum(count for count, _ in examined.kinds.values()) == sure
    assert sum(count for _, count in examined.kinds.values()) == sum(map(len, found))
    rows = examined.images
    assert sorted(row.number for row in rows) == list(range(len(DATA)))
    false = sum(s for kind, (s, _) in examined.kinds.items() if kind not in ("true", "ignored"))
    assert sum(row.false for row in rows) == false > 0
    missed = sum(row.missed for row in rows)
    assert missed == examined.unsure + sum(examined.reasons.values()) > 0
    objects = sum(int((~DATA.target(i)["difficult"]).sum()) for i in range(len(DATA)))
    assert sum(row.objects for row in rows) == objects
    assert examined.kinds["true"][0] == objects - missed
    assert int(examined.confusion[:-1].sum()) == objects
    assert set(examined.gains) == {*KINDS, "missed"} - {"true", "ignored"}


def test_the_worst_pictures_come_first(model: Any, examined: Examination) -> None:
    badness = [(row.false + row.missed, row.loss) for row in examined.images]
    assert badness == sorted(badness, reverse=True)
    worst = examined.images[0]
    assert worst.image_id == DATA.target(worst.number)["image_id"]
    judgement = explain(model, *DATA[worst.number]).judgement
    assert judgement is not None
    assert worst.loss == pytest.approx(float(judgement.losses.total))


def test_the_loss_lies_where_chapter_10_finds_it(examined: Examination) -> None:
    """There all answers on the same 32 pictures are kept and sorted, by a loop of its own."""
    yes, no = examined.foreground, examined.background
    assert (yes.total, no.total) == (1180, 572930)
    told = {0: ("76%", "49%"), 0.5: ("85%", "85%"), 1: ("90%", "97%"), 2: ("96%", "100%")}
    for gamma, shares in told.items():
        mine = yes.hardest(gamma, 0.2), no.hardest(gamma, 0.01)
        # A histogram's bins stand between two answers, so that a percent may be rounded off.
        for share, text in zip(mine, shares, strict=True):
            assert abs(100 * share - float(text.rstrip("%"))) < 1.2, gamma
    assert 100 * no.hardest(2, 0.001) == pytest.approx(96, abs=1.2)


def test_another_score_moves_objects_from_found_to_unsure(model: Any) -> None:
    strict = examine(model, ShapesDataset("val", length=4), score=0.9)
    loose = examine(model, ShapesDataset("val", length=4), score=0.0)
    assert strict.unsure > loose.unsure == 0
    assert all(s == every for s, every in loose.kinds.values())


def test_what_cannot_be_examined_is_refused(model: Any) -> None:
    with pytest.raises(DataError, match="no pictures"):
        examine(model, ShapesDataset("val", length=0))
    other = ShapesDataset("val", length=2)
    other.classes = tuple("abcdef")  # type: ignore[misc]
    with pytest.raises(DataError, match="classes"):
        examine(model, other)
