"""The explorable `matching` computes what `match_anchors` computes."""

from __future__ import annotations

import random
import re

import pytest
import torch
from explorables import Figure
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from retinanet_edu import AnchorGenerator, match_anchors, pairwise_iou

NAME = "matching"
A, B = "Object A", "Object B"
ROOM = (280, 176)  # the picture's 192 × 144 and what is outside
PER_LEVEL = (24 * 18, 12 * 9, 6 * 5)
OUTSIDE = [250, 60, 266, 80]
# An anchor of P4 lies exactly on the first, and the second in its middle.
NESTED = {"a": [40, 40, 104, 104], "b": [40, 52, 104, 92]}


@pytest.fixture(scope="module")
def anchors() -> torch.Tensor:
    make = AnchorGenerator((32, 64, 128), (1,), (1,), (8, 16, 32))
    return make((144, 192)).double()


def boxes_of(state: dict) -> torch.Tensor:
    return torch.tensor([state["a"], state["b"]], dtype=torch.float64)


def matched(anchors: torch.Tensor, state: dict) -> torch.Tensor:
    return match_anchors(
        anchors,
        boxes_of(state),
        state["positive"],
        state["negative"],
        force_match=state["force"],
    )


def random_box(rng: random.Random) -> list[int]:
    """Of all sizes from 8 to 128 px."""
    w, h = (round(8 * 16 ** rng.random()) for _ in range(2))
    x, y = (rng.randint(0, room - side) for room, side in zip(ROOM, (w, h), strict=True))
    return [x, y, x + w, y + h]


def verdict(figure: Figure) -> str:
    return figure.root.locator(".verdict").text_content() or ""


def test_the_package_computes_the_same(figure, anchors):
    rng = random.Random(0)
    states = []
    for i in range(150):
        negative, positive = sorted(rng.choices(range(1, 21), k=2))
        usual = i % 3 == 0
        states.append(
            {
                "a": random_box(rng),
                "b": random_box(rng),
                "positive": 0.5 if usual else positive / 20,
                "negative": 0.4 if usual else negative / 20,
                "force": rng.random() < 0.5,
            }
        )
    states += [{**s, "b": s["a"]} for s in states[:10]]  # ties
    states += [{**s, "b": OUTSIDE, "force": f} for s in states[:10] for f in (False, True)]
    states += [{**s, **NESTED} for s in states[:10]]
    kinds = set()
    for state, seen in zip(states, figure.states(states), strict=True):
        right = matched(anchors, state)
        assert seen["match"] == right.tolist()
        counts = [int((right == answer).sum()) for answer in (0, 1, -2, -1)]
        assert [seen[key] for key in ("a", "b", "ignored", "background")] == counts
        assert seen["best"] == pairwise_iou(anchors, boxes_of(state)).amax(dim=0).tolist()
        kinds |= set(seen["match"])
    assert kinds == {0, 1, -1, -2}


def test_the_table_counts_each_level(figure, anchors):
    state = {"positive": 0.3, "negative": 0.2, "force": True, "a": [20, 20, 130, 120]}
    state["b"] = [100, 60, 140, 90]
    figure.states([state])
    parts = matched(anchors, state).split(PER_LEVEL)
    right = [[int((part == answer).sum()) for answer in (0, 1, -2, -1)] for part in parts]
    assert sum(map(bool, right[0])) > 1
    rows = figure.root.locator("tbody tr").all()
    cells = [[td.text_content() for td in row.locator("td").all()] for row in rows]
    assert cells == [[f"P{3 + i}", *map(str, row)] for i, row in enumerate(right)]


def test_marks_stand_at_the_anchors_centres(figure, anchors):
    state = {"positive": 0.3, "negative": 0.2, "force": False, "a": [20, 20, 130, 120]}
    state["b"] = [100, 60, 140, 90]
    figure.states([state])
    right = matched(anchors, state)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    paths = figure.root.locator(".scene > path")
    drawn = [
        {(float(x), float(y)) for x, y in re.findall(r"M([\d.]+) ([\d.]+)", d or "")}
        for d in (path.get_attribute("d") for path in paths.all())
    ]
    wanted = [{tuple(c) for c in centres[right == k].tolist()} for k in (-1, -2, 0, 1)]
    assert drawn == wanted
    assert min(map(len, drawn)) > 0


def test_at_least_the_threshold_is_enough(figure):
    """64 × 32 px in an anchor of 64 px: exactly one half."""
    half = {"a": [40, 40, 104, 72], "b": OUTSIDE}
    states = [{**half, "positive": p, "negative": n} for p, n in ((0.5, 0.4), (0.55, 0.5))]
    states.append({**half, "positive": 0.6, "negative": 0.55})
    at, between, below = figure.states(states)
    assert at["best"][0] == 0.5
    assert (at["a"] > 0, at["ignored"] > 0) == (True, True)
    assert (between["a"], between["ignored"] > 0) == (0, True)
    assert (below["a"], below["ignored"]) == (0, 0)


def test_an_object_outside_claims_nothing(figure, anchors):
    """Even by force; torchvision's rule would make every anchor positive."""
    for force in (False, True):
        (seen,) = figure.states([{"a": OUTSIDE, "b": OUTSIDE, "force": force}])
        assert seen["background"] == len(anchors) == len(seen["match"])
        assert "B overlaps no anchor and gets none" in verdict(figure)
        assert ("would make all anchors positive" in verdict(figure)) == force
    theirs = Matcher(0.5, 0.4, allow_low_quality_matches=True)
    outside = torch.tensor([OUTSIDE], dtype=torch.float64)
    assert (theirs(box_iou(outside, anchors)) >= 0).all()


def test_force_gives_a_small_object_its_best_anchors(figure):
    assert figure.read()["b"] == 0
    assert "Nobody claims B" in verdict(figure)
    figure.press("Force-match: each object claims its best anchors", "Space")
    seen = figure.read()
    assert seen["b"] > 1  # B lies inside all of them, so they are equally good
    assert seen["best"][1] == 160 / 1024
    assert f"B has {seen['b']} anchors, by force" in verdict(figure)


def test_a_claimed_anchor_answers_for_its_own_best_object(figure):
    (seen,) = figure.states([{**NESTED, "positive": 0.7, "negative": 0.4, "force": True}])
    assert seen["best"] == [1, 0.625]
    assert seen["b"] == 0
    assert seen["a"] > 0
    assert "B has none" in verdict(figure)


def test_the_thresholds_push_each_other(figure):
    figure.root.get_by_label("Positive from IoU").focus()
    for _ in range(6):
        figure.page.keyboard.press("ArrowLeft")
    assert (figure.state()["positive"], figure.state()["negative"]) == (0.2, 0.2)
    figure.slide("Background below IoU", 0.9)
    assert (figure.state()["positive"], figure.state()["negative"]) == (0.9, 0.9)
    shown = [figure.root.get_by_label(label) for label in ("Positive from", "Background below")]
    assert [slider.input_value() for slider in shown] == ["0.9", "0.9"]
    assert figure.read()["ignored"] == 0


@pytest.mark.parametrize("touch", [False, True], ids=["mouse", "finger"])
def test_dragging_moves_and_a_corner_resizes(figure, anchors, touch):
    figure.drag(A, 30, -20, touch=touch)
    figure.drag(A, -10, 20, corner=3, touch=touch)
    figure.drag(B, -20, 10, touch=touch)
    state = figure.state()
    assert state["a"] == [66, 10, 124, 90]
    assert state["b"] == [124, 108, 140, 118]
    assert figure.read()["match"] == matched(anchors, state).tolist()


def test_what_the_reader_is_asked_to_find(figure):
    """A square that an anchor of 32 px takes has at least 32 · √½ = 22.6 px."""
    figure.press(B, "Shift+ArrowRight", 6)
    figure.press(B, "Shift+ArrowDown", 12)
    assert figure.state()["b"] == [144, 98, 166, 120]
    assert figure.read()["b"] == 0
    figure.press(B, "Shift+ArrowRight")
    figure.press(B, "Shift+ArrowDown")
    assert figure.read()["b"] > 0
    figure.press("Force-match: each object claims its best anchors", "Space")
    figure.press(B, "ArrowRight", 96)  # out of the picture, and of all anchors
    assert figure.state()["b"][0] == 240
    assert figure.read()["best"][1] == 0
    assert figure.read()["b"] == 0
