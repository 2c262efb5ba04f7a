"""explanation: its detections are those of predict, and each candidate and mistake is told."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from retinanet_edu import ShapesDataset, criterion, load_checkpoint, pairwise_iou, predict
from retinanet_edu.coding import decode_boxes
from retinanet_edu.data.loading import pad_images
from retinanet_edu.data.transforms import EvalTransform, picture_size
from retinanet_edu.detection import list_candidates, postprocess
from retinanet_edu.evaluation import match_detections
from retinanet_edu.explanation import (
    KINDS,
    REASONS,
    Answers,
    Explanation,
    confusion,
    explain,
    find_misses,
    judge,
)
from retinanet_edu.matching import match_targets
from retinanet_edu.structures import Detections, Targets
from retinanet_edu.suppression import nms, nms_per_class

pytestmark = pytest.mark.filterwarnings("error")
DATA = ShapesDataset("val", length=40)


@pytest.fixture(scope="module")
def model() -> Any:
    return load_checkpoint("shapes")


@pytest.fixture(scope="module")
def explanations(model: Any) -> list[Explanation]:
    return [explain(model, *DATA[i]) for i in range(20)]


# --- the same as predict --------------------------------------------------------------------------


def equal(a: Detections, b: Detections) -> bool:
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("boxes", "scores", "labels"))


def test_detections_are_those_of_predict(model: Any, explanations: list[Explanation]) -> None:
    counts = set()
    for i, explanation in enumerate(explanations):
        assert equal(explanation.detections, predict(model, DATA[i][0]))
        counts.add(len(explanation.detections))
    assert max(counts) > 10


@pytest.mark.parametrize(
    "settings",
    [
        {"score_threshold": 0.5},
        {"score_threshold": 0.999},
        {"max_detections": 2},
        {"top_k": 3},
        {"iou_threshold": 0.1},
        {"image_size": 96},
        {"image_size": 300, "score_threshold": 0.01},
    ],
)
@pytest.mark.parametrize("shape", [(128, 128), (70, 128), (128, 33)])
def test_so_they_are_with_other_settings_and_sizes(
    model: Any, settings: dict[str, Any], shape: tuple[int, int]
) -> None:
    image = DATA[3][0][:, : shape[0], : shape[1]].contiguous()
    assert equal(explain(model, image, **settings).detections, predict(model, image, **settings))


def test_candidates_suppressed_are_what_postprocess_finds(model: Any) -> None:
    images = torch.stack([EvalTransform(128).image(DATA[i][0]) for i in range(3)])
    anchors = model.anchors((128, 128))
    with torch.no_grad():
        for image in images:
            predictions = model(image[None])
            found, origins = list_candidates(predictions, anchors, (128, 128))
            kept = nms_per_class(found.boxes, found.scores, found.labels, 0.5)[:100]
            (expected,) = postprocess(predictions, anchors, [(128, 128)])
            picked = Detections(found.boxes[kept], found.scores[kept], found.labels[kept])
            assert equal(picked, expected)
            chosen = predictions.class_logits[0, origins, found.labels]
            torch.testing.assert_close(chosen.sigmoid(), found.scores)


def test_the_model_is_left_as_it_was(model: Any) -> None:
    trained = load_checkpoint("shapes").train()
    trained.backbone.bn1.eval()
    before = [module.training for module in trained.modules()]
    weights = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    explain(trained, *DATA[0])
    assert [module.training for module in trained.modules()] == before
    assert all(torch.equal(tensor, weights[name]) for name, tensor in trained.state_dict().items())
    assert not trained.fpn._forward_hooks


# --- candidates, maps, anchors --------------------------------------------------------------------


def test_each_candidate_is_kept_or_suppressed_by_a_better_one_of_its_class(
    explanations: list[Explanation],
) -> None:
    suppressed = 0
    for e in explanations:
        boxes, scores, labels = e.candidates.boxes, e.candidates.scores, e.candidates.labels
        assert (scores.diff() <= 0).all()
        for label in labels.unique().tolist():
            mine = (labels == label).nonzero()[:, 0]
            kept = mine[nms(boxes[mine], scores[mine], 0.5)]
            assert set(kept.tolist()) == set(mine[e.suppressed_by[mine] < 0].tolist())
        gone = (e.suppressed_by >= 0).nonzero()[:, 0]
        by = e.suppressed_by[gone]
        assert (e.suppressed_by[by] < 0).all()  # the suppressor was kept itself
        assert (by < gone).all()
        assert (labels[by] == labels[gone]).all()
        iou = pairwise_iou(boxes[gone].double(), boxes[by].double()).diagonal()
        assert (iou > 0.5).all()
        torch.testing.assert_close(iou, e.overlap[gone], atol=1e-6, rtol=0)
        assert e.overlap[e.suppressed_by < 0].isnan().all()
        # The surest of all that would do.
        for place, first in zip(gone.tolist(), by.tolist(), strict=True):
            others = (e.suppressed_by < 0) & (labels == labels[place])
            others[place:] = False
            near = pairwise_iou(boxes[[place]].double(), boxes.double())[0] > 0.5
            assert int((others & near).nonzero()[0]) == first
        told = sum(len(e.suppressed(place)) for place in e.places.tolist())
        assert told == len(gone)
        suppressed += told
    assert suppressed > 1000


def test_what_max_detections_cuts_off_was_kept_by_suppression(model: Any) -> None:
    whole, cut = (explain(model, DATA[3][0], max_detections=n) for n in (100, 4))
    assert len(cut.places) == 4
    assert torch.equal(cut.suppressed_by, whole.suppressed_by)
    assert torch.equal(cut.places, whole.places[:4])


def test_maps_and_anchors_are_the_networks(model: Any) -> None:
    image = DATA[0][0][:, :, :100].contiguous()
    e = explain(model, image, image_size=200)
    scaled = EvalTransform(200).image(image)
    batch = pad_images([scaled])
    with torch.no_grad():
        levels = model.fpn(model.fpn.read(model.backbone, batch))
        predictions = model(batch)
    for level, seen in zip(levels, e.maps, strict=True):
        torch.testing.assert_close(seen, level[0].square().sum(dim=0).sqrt())
    assert e.seen == picture_size(scaled) == (200, 156)
    factor = torch.tensor([100 / 156, 128 / 200] * 2)
    anchors = model.anchors(picture_size(batch))
    torch.testing.assert_close(e.anchors, anchors * factor)
    decoded = decode_boxes(predictions.box_deltas[0], anchors) * factor
    limit = torch.tensor([100.0, 128.0, 100.0, 128.0])
    torch.testing.assert_close(e.boxes, decoded.clamp(min=0).minimum(limit), atol=1e-3, rtol=0)
    torch.testing.assert_close(e.candidates.boxes, e.boxes[e.origins], atol=1e-3, rtol=0)
    torch.testing.assert_close(e.scores, predictions.class_logits[0].sigmoid())


def test_the_level_of_an_anchor(explanations: list[Explanation]) -> None:
    e = explanations[0]
    assert e.anchors_per_level == (2304, 576, 144, 36, 9)
    ends = torch.tensor([0, 2303, 2304, 2879, 2880, 3023, 3024, 3059, 3060, 3068])
    assert e.level_of(ends).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_what_anchors_are_asked_is_what_training_asks(
    model: Any, explanations: list[Explanation]
) -> None:
    for i in (0, 3, 7):
        image, target = DATA[i]
        judgement = explanations[i].judgement
        assert judgement is not None
        anchors = model.anchors((128, 128))
        match = match_targets(anchors, target["boxes"], target["difficult"])
        assert torch.equal(judgement.match, match)
        counts = judgement.count_levels(explanations[i].anchors_per_level)
        assert [sum(row) for row in counts] == [2304, 576, 144, 36, 9]
        totals = [sum(column) for column in zip(*counts, strict=True)]
        assert totals == [
            int((match >= 0).sum()),
            int((match == -2).sum()),
            int((match == -1).sum()),
        ]
        truth = Targets.from_list(*([target[n]] for n in ("boxes", "labels", "difficult")))
        with torch.no_grad():
            predictions = model(EvalTransform(128).image(image)[None])
            losses = criterion(predictions, anchors, truth)
        torch.testing.assert_close(judgement.losses, losses)
        best = pairwise_iou(anchors, target["boxes"]).amax(dim=0)
        torch.testing.assert_close(judgement.anchor_iou, best)


def test_a_picture_without_objects_or_without_truth(model: Any) -> None:
    image = DATA[0][0]
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    judgement = explain(model, image, empty).judgement
    assert judgement is not None
    assert {v.kind for v in judgement.verdicts} == {"background"}
    assert judgement.misses == []
    assert (judgement.match == -1).all()
    assert explain(model, image).judgement is None


# --- kinds of mistakes ----------------------------------------------------------------------------


def boxes_of(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


CAT, DOG = 0, 1
OBJECTS = {
    "boxes": boxes_of((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)),
    "labels": torch.tensor([CAT, DOG, CAT]),
    "difficult": torch.tensor([False, False, True]),
}
# Class and box of a detection, and by hand its kind, object and IoU; best score first.
TABLE = [
    (CAT, (0, 0, 10, 10), ("true", 0, 1.0)),
    (CAT, (0, 0, 10, 8), ("duplicate", 0, 0.8)),
    (CAT, (0, 0, 10, 3), ("localisation", 0, 0.3)),
    (CAT, (20, 0, 30, 10), ("class", 1, 1.0)),
    (CAT, (20, 0, 30, 4), ("both", 1, 0.4)),
    (CAT, (60, 0, 70, 10), ("background", -1, 0.0)),
    (DOG, (0, 0, 10, 1), ("background", -1, 0.1)),  # exactly 0.1 of another class
    (CAT, (40, 0, 50, 6), ("ignored", 2, 0.6)),
    (DOG, (40, 0, 50, 10), ("class", 2, 1.0)),  # difficult, but there
    (CAT, (40, 0, 50, 2), ("localisation", 2, 0.2)),
    (DOG, (20, 0, 30, 1), ("localisation", 1, 0.1)),  # exactly 0.1 of its own
    (DOG, (20, 0, 30, 5), ("true", 1, 0.5)),  # exactly 0.5
    (DOG, (20, 0, 30, 10), ("duplicate", 1, 1.0)),  # better placed, but less sure
]


def table_detections() -> Detections:
    return Detections(
        boxes_of(*(box for _, box, _ in TABLE)),
        torch.linspace(0.9, 0.1, len(TABLE)),
        torch.tensor([label for label, _, _ in TABLE]),
    )


def test_kinds_by_hand() -> None:
    verdicts = judge(table_detections(), OBJECTS)
    for verdict, (_, box, (kind, index, iou)) in zip(verdicts, TABLE, strict=True):
        assert (verdict.kind, verdict.object) == (kind, index), box
        assert verdict.iou == pytest.approx(iou), box
        assert verdict.is_false == (kind not in ("true", "ignored"))
    assert {verdict.kind for verdict in verdicts} == set(KINDS)


def test_the_thresholds_are_arguments() -> None:
    loose = judge(table_detections(), OBJECTS, foreground=0.3, background=0.05)
    kinds = [verdict.kind for verdict in loose]
    assert kinds[2] == "duplicate"
    assert kinds[4] == "class"
    assert kinds[6] == "both"


def test_the_order_is_that_of_the_scores_not_of_the_rows() -> None:
    found = table_detections()
    shuffle = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))
    mixed = Detections(found.boxes[shuffle], found.scores[shuffle], found.labels[shuffle])
    before, after = judge(found, OBJECTS), judge(mixed, OBJECTS)
    assert after == [before[i] for i in shuffle.tolist()]


def test_a_detection_whose_best_object_is_taken_takes_another() -> None:
    truth = {"boxes": boxes_of((0, 0, 10, 10), (0, 0, 10, 8)), "labels": torch.tensor([CAT, CAT])}
    found = Detections(
        boxes_of((0, 0, 10, 10), (0, 0, 10, 10)), torch.tensor([0.9, 0.8]), torch.tensor([0, 0])
    )
    assert [(v.kind, v.object) for v in judge(found, truth)] == [("true", 0), ("true", 1)]


def crowd_of_boxes() -> list[tuple[Detections, dict[str, Tensor]]]:
    """Three hundred pictures of up to four objects, and detections around them."""
    rng = np.random.default_rng(2)

    def around(count: int) -> np.ndarray:
        corner = rng.uniform(0, 60, (count, 2))
        return np.concatenate([corner, corner + rng.uniform(20, 60, (count, 2))], axis=1)

    pictures = []
    for _ in range(300):
        objects, count = rng.integers(0, 5), rng.integers(1, 12)
        boxes = around(objects)
        found = around(count)
        if objects:
            found = boxes[rng.integers(0, objects, count)] + rng.normal(0, 6, (count, 4))
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 4)
        scores = -np.sort(-rng.random(count))
        detections = Detections(
            torch.from_numpy(found),
            torch.from_numpy(scores),
            torch.from_numpy(rng.integers(0, 3, count)),
        )
        labels = torch.from_numpy(rng.integers(0, 3, objects))
        pictures.append((detections, {"boxes": torch.from_numpy(boxes), "labels": labels}))
    return pictures


# What TIDE's own program (tidecv 1.0.1) counts in these.
TIDE = {"class": 560, "localisation": 297, "both": 190, "duplicate": 149, "background": 345}


def test_kinds_are_those_of_tide() -> None:
    kinds = Counter(v.kind for found, truth in crowd_of_boxes() for v in judge(found, truth))
    assert kinds.pop("true") == 278  # the rest of all detections
    assert kinds == TIDE


def test_true_and_ignored_are_those_of_the_evaluation() -> None:
    pictures = crowd_of_boxes()
    for i, (_, truth) in enumerate(pictures):
        truth["difficult"] = torch.arange(len(truth["labels"])) % 3 == i % 3
    found, truths = zip(*pictures, strict=True)
    verdicts = [judge(*picture) for picture in pictures]
    for label in range(3):
        ledger = match_detections(found, truths, label, rule="coco")
        mine = Counter(
            v.kind
            for some, detections in zip(verdicts, found, strict=True)
            for v, k in zip(some, detections.labels.tolist(), strict=True)
            if k == label
        )
        assert mine["true"] == ledger.true_positive.sum() > 0
        assert mine["ignored"] == ledger.ignored.sum() > 0
        assert mine.total() == len(ledger.scores)


# --- objects that were missed ---------------------------------------------------------------------


def square(place: int, height: float = 10) -> tuple[float, ...]:
    return (100.0 * place, 0.0, 100.0 * place + 10, height)


def test_reasons_by_hand() -> None:
    """One object each hundred pixels, and what the network said there."""
    truth = {
        "boxes": boxes_of(*(square(g) for g in range(10)), square(9, 9.5), square(11)),
        "labels": torch.tensor([CAT] * 12),
        "difficult": torch.tensor([False] * 11 + [True]),
    }
    decoded = boxes_of(*(square(g, 8) for g in range(10)))
    decoded[7] = boxes_of(square(7, 4))  # IoU 0.4
    scores = torch.full((10, 2), 0.01)
    scores[[0, 1, 2, 3, 8, 9], CAT] = torch.tensor([0.9, 0.8, 0.2, 0.6, 0.5, 0.7])
    scores[4, DOG] = 0.65
    scores[8] = 0.04
    # Anchors of the candidates, best score first; that of object 3 was crowded out.
    origins = torch.tensor([0, 1, 9, 4, 2])
    labels = torch.tensor([CAT, CAT, CAT, DOG, CAT])
    by = torch.tensor([-1, 0, -1, -1, -1])
    places = torch.tensor([0, 2, 3])
    answers = Answers(decoded, scores, origins, labels, by, places)
    found = Detections(decoded[origins[places]], torch.tensor([0.9, 0.7, 0.65]), labels[places])
    verdicts = judge(found, truth)
    assert [(v.kind, v.object) for v in verdicts] == [("true", 0), ("true", 10), ("class", 4)]
    match = torch.tensor([0, 1, 2, 3, 4, -2, 6, 7, -1, 9])
    misses = find_misses(answers, verdicts, truth, match, score_threshold=0.05)
    told = {miss.object: (miss.reason, miss.place, miss.positives) for miss in misses}
    assert told == {
        1: ("suppressed", 1, 1),
        2: ("limit", 4, 1),
        3: ("crowded out", -1, 1),
        4: ("wrong class", 3, 1),
        5: ("no anchor", -1, 0),
        6: ("low score", -1, 1),
        7: ("no box", -1, 1),
        8: ("no anchor", -1, 0),
        9: ("taken", 2, 1),
    }
    numbers = {miss.object: (miss.box_iou, miss.score) for miss in misses}
    assert numbers[3] == pytest.approx((0.8, 0.6))
    assert numbers[7] == pytest.approx((0.4, float("nan")), nan_ok=True)
    assert {miss.reason for miss in misses} == set(REASONS)


def test_the_misses_of_a_model_add_up(model: Any) -> None:
    reasons: Counter[str] = Counter()
    for i in range(len(DATA)):
        image, target = DATA[i]
        e = explain(model, image, target, score_threshold=0.6, max_detections=3)
        judgement = e.judgement
        assert judgement is not None
        found = [v.object for v in judgement.verdicts if v.kind == "true"]
        missed = [miss.object for miss in judgement.misses]
        wanted = (~target["difficult"]).nonzero()[:, 0].tolist()
        assert sorted(found + missed) == wanted
        reasons.update(miss.reason for miss in judgement.misses)
        for miss in judgement.misses:
            if miss.reason == "low score":
                assert miss.score <= 0.6
    assert {"low score", "wrong class"} <= set(reasons)


# --- who was taken for whom -----------------------------------------------------------------------


def test_confusion_by_hand() -> None:
    found = Detections(
        boxes_of(
            (20, 0, 30, 9),  # the dog, taken for a cat, surer than the true one but worse placed
            (20, 0, 30, 10),  # the dog
            (60, 0, 70, 10),  # nothing
            (40, 0, 50, 10),  # the difficult cat: left out
            (0, 0, 10, 10),  # the cat, but below the threshold
        ),
        torch.tensor([0.9, 0.8, 0.7, 0.6, 0.3]),
        torch.tensor([CAT, DOG, DOG, DOG, CAT]),
    )
    assert confusion(found, OBJECTS, 2).tolist() == [[0, 0, 1], [0, 1, 0], [1, 1, 0]]
    assert confusion(found, OBJECTS, 2, score_threshold=0.3).tolist() == [
        [1, 0, 0],
        [0, 1, 0],
        [1, 1, 0],
    ]
    assert confusion(found, OBJECTS, 2, score_threshold=0.85).tolist() == [
        [0, 0, 1],
        [1, 0, 0],
        [0, 0, 0],
    ]


def test_rows_of_the_confusion_are_objects_and_columns_detections() -> None:
    empty = 0
    for found, truth in crowd_of_boxes():
        table = confusion(found, truth, 3, score_threshold=0.4)
        objects = truth["labels"].bincount(minlength=3)
        shown = found.labels[found.scores >= 0.4].bincount(minlength=3)
        assert torch.equal(table[:3].sum(dim=1), objects)
        assert torch.equal(table[:, :3].sum(dim=0), shown)
        assert table[3, 3] == 0
        empty += len(truth["labels"]) == 0
    assert empty > 10
