"""evaluation: tables counted by hand, and pycocotools' own numbers from the same boxes."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from retinanet_edu.data.loading import pad_images
from retinanet_edu.data.transforms import EvalTransform
from retinanet_edu.detection import predict
from retinanet_edu.errors import DataError, RetinaNetError
from retinanet_edu.evaluation import (
    METRICS,
    Ledger,
    average_precision,
    check_classes,
    coco_metrics,
    evaluate,
    evaluate_detections,
    match_detections,
    precision_recall,
)
from retinanet_edu.losses import criterion
from retinanet_edu.model import RetinaNet, retinanet_resnet18
from retinanet_edu.structures import Detections, Targets

pytestmark = pytest.mark.filterwarnings("error")

SEEDS = range(3)
# Difficult objects fill places among the best 1 and the best 10, so these two may change.
NOT_OF_BEST_FEW = [name for name in METRICS if name not in ("AR1", "AR10")]

# Two objects side by side. Their union overlaps each by 0.5.
LEFT, RIGHT = (0, 0, 10, 10), (10, 0, 20, 10)
BOTH = (0, 0, 20, 10)
# These overlap LEFT by 0.9 and 0.8 and RIGHT by 0.
LEFT_90, LEFT_80 = (0, 0, 9, 10), (0, 0, 8, 10)
FAR = (50, 50, 60, 60)


def found(*rows: tuple[tuple[float, ...], float], label: int = 0) -> Detections:
    """Detections from rows of (box, score)."""
    return Detections(
        torch.tensor([box for box, _ in rows], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([score for _, score in rows], dtype=torch.float32),
        torch.full((len(rows),), label),
    )


def truth(*boxes: tuple[float, ...], label: int = 0, **flags: list[bool]) -> dict[str, Any]:
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.full((len(boxes),), label),
        **{name: torch.tensor(flag) for name, flag in flags.items()},
    }


def fates(ledger: Ledger) -> str:
    """T, F or I (true, false, ignored) of each detection, the best first."""
    assert not (ledger.true_positive & ledger.ignored).any()
    return "".join(
        "T" if true else "I" if ignored else "F"
        for true, ignored in zip(ledger.true_positive, ledger.ignored, strict=True)
    )


def crowded(
    seed: int, images: int = 15, classes: int = 3, ties: bool = False
) -> tuple[list[Detections], list[dict[str, Any]]]:
    """Objects that overlap one another, each found about twice and not well."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    detections, truths = [], []
    for _ in range(images):
        objects = int(torch.randint(0, 25, (), generator=generator))
        corner = 60 + 15 * noise(objects, 2)
        size = (25 + 40 * torch.rand(objects, 2, generator=generator)).maximum(torch.tensor(8.0))
        boxes = torch.cat([corner, corner + size], dim=1)
        labels = torch.randint(0, classes, (objects,), generator=generator)
        truths.append({"boxes": boxes, "labels": labels})
        jittered = boxes.repeat(2, 1) + 5 * noise(2 * objects, 4)
        jittered[:, 2:] = torch.maximum(jittered[:, 2:], jittered[:, :2] + 1)
        scores = torch.rand(2 * objects, generator=generator)
        scores = (scores * 10).round() / 10 if ties else scores
        detections.append(Detections(jittered, scores, labels.repeat(2)))
    return detections, truths


def plain_pycocotools(
    detections: list[Detections], truths: list[dict[str, Any]], classes: int
) -> COCOeval:
    """pycocotools as everybody uses it: annotations in one index, results loaded into it."""

    def rows(image: int, boxes: torch.Tensor, labels: torch.Tensor) -> list[dict[str, Any]]:
        return [
            {
                "image_id": image,
                "category_id": label,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
            }
            for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels.tolist(), strict=True)
        ]

    annotations, results = [], []
    for i, (detected, true) in enumerate(zip(detections, truths, strict=True)):
        objects = rows(i, true["boxes"], true["labels"])
        for row, crowd in zip(objects, true.get("iscrowd", [False] * len(objects)), strict=True):
            row["iscrowd"] = int(crowd)
        annotations += objects
        for row, score in zip(
            rows(i, detected.boxes, detected.labels), detected.scores.tolist(), strict=True
        ):
            results.append({**row, "score": score})
    index = COCO()
    index.dataset = {
        "info": {},
        "images": [{"id": i} for i in range(len(truths))],
        "categories": [{"id": k} for k in range(classes)],
        "annotations": [{**row, "id": n} for n, row in enumerate(annotations, start=1)],
    }
    index.createIndex()
    run = COCOeval(index, index.loadRes(results), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run


# --- ledgers, counted by hand ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("detections", "truths", "voc", "coco"),
    [
        pytest.param(
            [found((LEFT, 0.9), (FAR, 0.8), (RIGHT, 0.7))], [truth(LEFT, RIGHT)], "TFT", "TFT",
            id="two found, one invented",
        ),
        pytest.param(
            [found((LEFT, 0.9), (LEFT_90, 0.8), (LEFT_80, 0.7))], [truth(LEFT)], "TFF", "TFF",
            id="the second and third time are false",
        ),
        pytest.param(
            # LEFT_80 is nearest to LEFT (0.8), which is taken; of LEFT_90 it has 8/9.
            [found((LEFT_90, 0.9), (LEFT_90, 0.8))], [truth(LEFT, LEFT_90)], "TF", "TT",
            id="COCO falls back to a free object, VOC does not",
        ),
        pytest.param(
            [found((LEFT_90, 0.9), (LEFT_90, 0.8))],
            [truth(LEFT, LEFT_90, difficult=[False, True])], "II", "TI",
            id="VOC looks at the nearest though it is difficult, COCO prefers what counts",
        ),
        pytest.param(
            [found((LEFT_90, 0.9), (LEFT_90, 0.8), (LEFT, 0.7))],
            [truth(LEFT, LEFT_90, difficult=[True, False])], "TFI", "TII",
            id="what VOC calls a duplicate COCO lets fall to a difficult object",
        ),
        pytest.param(
            [found((LEFT, 0.9), (LEFT, 0.8), (LEFT_90, 0.7), (FAR, 0.6))],
            [truth(LEFT, difficult=[True])], "IIIF", "IIIF",
            id="a difficult object absorbs any number",
        ),
        pytest.param(
            [found((LEFT, 0.9), (LEFT_90, 0.8))], [truth(LEFT, iscrowd=[True])], "II", "II",
            id="for want of crowds in VOC a crowd is a difficult object",
        ),
        pytest.param(
            [found((LEFT, 0.9), label=1)], [truth(LEFT)], "", "", id="another class is no matter"
        ),
        pytest.param(
            [found((LEFT, 0.9))], [truth(LEFT, label=1)], "F", "F", id="nor is its object a match"
        ),
        pytest.param(
            [found((LEFT, 0.5), (FAR, 0.5)), found((FAR, 0.5), (LEFT, 0.5))],
            [truth(LEFT), truth(LEFT)], "TFFT", "TFFT",
            id="equal scores stay in the order of images and rows",
        ),
        pytest.param(
            [found((FAR, 0.2), (LEFT, 0.9)), found((LEFT, 0.5))],
            [truth(LEFT), truth()], "TFF", "TFF",
            id="unsorted detections are sorted, over images too",
        ),
        pytest.param(
            [found((LEFT, 0.9)), found()], [truth(), truth(LEFT)], "F", "F",
            id="images do not share objects",
        ),
    ],
)  # fmt: skip
def test_a_ledger_is_as_counted_by_hand(
    detections: list[Detections], truths: list[dict[str, Any]], voc: str, coco: str
) -> None:
    assert fates(match_detections(detections, truths, 0, rule="voc")) == voc
    assert fates(match_detections(detections, truths, 0, rule="coco")) == coco


def test_a_ledger_cannot_be_written_into() -> None:
    ledger = match_detections([found((LEFT, 0.9))], [truth(LEFT)], 0)
    with pytest.raises(FrozenInstanceError):
        ledger.objects = 2  # type: ignore[misc]


def test_a_ledger_has_descending_scores_and_counts_what_was_there() -> None:
    detections = [found((FAR, 0.25), (LEFT, 0.75)), found((LEFT, 0.5))]
    truths = [truth(LEFT, RIGHT, FAR, difficult=[False, False, True]), truth(LEFT)]
    ledger = match_detections(detections, truths, 0)
    assert ledger.scores.tolist() == [0.75, 0.5, 0.25]
    assert (ledger.objects, ledger.difficult) == (3, 1)


@pytest.mark.parametrize("rule", ["voc", "coco"])
def test_an_overlap_of_exactly_the_threshold_is_enough(rule: Any) -> None:
    half = [found((BOTH, 0.9))], [truth(LEFT)]
    assert fates(match_detections(*half, 0, 0.5, rule)) == "T"
    assert fates(match_detections(*half, 0, 0.5 + 1e-9, rule)) == "F"
    assert coco_metrics(*half, 1)[0]["AP50"] == pytest.approx(1)
    seven_tenths = [found(((0, 0, 7, 1), 0.9))], [truth((0, 0, 10, 1))]
    assert fates(match_detections(*seven_tenths, 0, 0.7, rule)) == "T"


@pytest.mark.parametrize("rule", ["voc", "coco"])
def test_each_object_is_found_at_most_once(rule: Any) -> None:
    detections, truths = crowded(0)
    for threshold in (0.1, 0.5, 0.9):
        ledger = match_detections(detections, truths, 1, threshold, rule)
        assert (
            ledger.true_positive.sum()
            <= ledger.objects
            == sum(int((true["labels"] == 1).sum()) for true in truths)
        )
        assert len(ledger.scores) == sum(int((d.labels == 1).sum()) for d in detections)


# --- from ledger to curve to number ---------------------------------------------------------------


def ledger_of(text: str, objects: int) -> Ledger:
    true, ignored = (np.array([fate == letter for fate in text], bool) for letter in "TI")
    return Ledger(np.linspace(1, 0, len(text)), true, ignored, objects, 0)


def test_precision_and_recall_are_as_counted_by_hand() -> None:
    recall, precision = precision_recall(ledger_of("TFITIF", objects=4))
    assert recall.tolist() == [1 / 4, 1 / 4, 2 / 4, 2 / 4]
    assert precision.tolist() == [1, 1 / 2, 2 / 3, 2 / 4]


@pytest.mark.parametrize(
    ("text", "objects", "area", "eleven"),
    [
        # Monotone precision where an object is found: 1, 2/3, and 2 objects never.
        ("TFT", 4, (1 + 2 / 3) / 4, (3 * 1 + 3 * 2 / 3) / 11),
        # The dip to 1/2 is lifted to the 3/4 that follows.
        ("FTTT", 3, 3 / 4, 3 / 4),
        ("TTT", 3, 1, 1),
        ("FFF", 3, 0, 0),
        ("III", 3, 0, 0),
        ("", 3, 0, 0),
        ("ITIFI", 1, 1, 1),
    ],
)
def test_average_precision_is_as_computed_by_hand(
    text: str, objects: int, area: float, eleven: float
) -> None:
    curve = precision_recall(ledger_of(text, objects))
    assert average_precision(*curve) == pytest.approx(area, abs=1e-12)
    assert average_precision(*curve, method="11-point") == pytest.approx(eleven, abs=1e-12)


@pytest.mark.parametrize("objects", [10, 20, 30, 70, 110, 1230])
@pytest.mark.parametrize("tenths", range(1, 11))
def test_a_recall_of_exactly_so_many_tenths_reaches_its_point(objects: int, tenths: int) -> None:
    """TP of the first k/10 objects, no false ones: k + 1 of the 11 points have precision 1."""
    curve = precision_recall(ledger_of("T" * (objects * tenths // 10), objects))
    assert average_precision(*curve, method="11-point") == pytest.approx((tenths + 1) / 11)
    short = precision_recall(ledger_of("T" * (objects * tenths // 10 - 1), objects))
    expected = tenths / 11 if objects * tenths > 10 else 0
    assert average_precision(*short, method="11-point") == pytest.approx(expected)


def test_steps_of_a_tenth_would_miss_three_points() -> None:
    """The trap that the test above is about is there: 0.3, 0.6 and 0.7 as float steps."""
    missed = [k for k, step in enumerate(np.arange(0, 1.1, 0.1)) if k / 10 < step]
    assert missed == [3, 6, 7]


@pytest.mark.parametrize("seed", SEEDS)
def test_area_is_the_mean_over_objects_and_the_points_are_near_it(seed: int) -> None:
    generator = np.random.default_rng(seed)
    for objects in (1, 7, 40, 200):
        text = "".join(generator.choice(list("TFI"), size=objects))
        recall, precision = precision_recall(ledger_of(text, objects))
        area = average_precision(recall, precision)
        at_objects = [
            max(precision[recall >= found_so_far / objects], default=0.0)
            for found_so_far in range(1, objects + 1)
        ]
        assert area == pytest.approx(np.mean(at_objects), abs=1e-12)
        assert abs(area - average_precision(recall, precision, method="11-point")) <= 0.1
        assert abs(area - hundred_and_one_points(recall, precision)) <= 0.01


def hundred_and_one_points(recall: np.ndarray, precision: np.ndarray) -> float:
    """COCO's interpolation, its recall steps included: they are those of np.linspace."""
    return float(
        np.mean([max(precision[recall >= r], default=0.0) for r in np.linspace(0, 1, 101)])
    )


def test_a_class_without_objects_has_no_ap() -> None:
    for text in ("", "F", "I"):
        recall, precision = precision_recall(ledger_of(text, objects=0))
        assert np.isnan(recall).all()
        for method in ("area", "11-point"):
            assert math.isnan(average_precision(recall, precision, method=method))


# --- against pycocotools --------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_our_ap_with_cocos_rule_and_points_is_pycocotools(seed: int, ties: bool) -> None:
    detections, truths = crowded(seed, ties=ties)
    precision = plain_pycocotools(detections, truths, 3).eval["precision"]
    for label in range(3):
        for index, threshold in ((0, 0.5), (3, 0.65), (5, 0.75)):
            ledger = match_detections(detections, truths, label, threshold, rule="coco")
            curve = precision_recall(ledger)
            theirs = precision[index, :, label, 0, -1].mean()
            assert hundred_and_one_points(*curve) == pytest.approx(theirs, abs=1e-6)
            # Left and right sums of a falling function enclose its area.
            first, mean = precision[index, 0, label, 0, -1], theirs
            last = precision[index, -1, label, 0, -1]
            difference = theirs - average_precision(*curve)
            assert -(mean - last) / 100 - 1e-9 <= difference <= (first - mean) / 100 + 1e-9


@pytest.mark.parametrize("seed", SEEDS)
def test_difficult_objects_in_the_crowd_are_the_same_in_our_ledger_and_in_pycocotools(
    seed: int,
) -> None:
    detections, truths = crowded(seed)
    for i, true in enumerate(truths):
        true["difficult"] = (torch.arange(len(true["labels"])) + i) % 3 == 0
    _, _, ap50 = coco_metrics(detections, truths, 3)
    for label in range(3):
        ledger = match_detections(detections, truths, label, rule="coco")
        assert ledger.ignored.any()
        expected = hundred_and_one_points(*precision_recall(ledger))
        assert ap50[label] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_on_crowded_boxes_the_rules_differ_by_more_than_interpolation_can(seed: int) -> None:
    detections, truths = crowded(seed, classes=1)
    voc, coco = (
        average_precision(*precision_recall(match_detections(detections, truths, 0, rule=rule)))
        for rule in ("voc", "coco")
    )
    theirs = plain_pycocotools(detections, truths, 1).stats[METRICS.index("AP50")]
    assert coco - voc > 0.03
    assert abs(theirs - coco) < 0.01


@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_all_twelve_numbers_and_each_class_are_plain_pycocotools(seed: int, crowds: bool) -> None:
    detections, truths = crowded(seed)
    if crowds:
        for i, true in enumerate(truths):
            true["iscrowd"] = (torch.arange(len(true["labels"])) + i) % 3 == 0
    run = plain_pycocotools(detections, truths, 4)  # no object is of class 3
    numbers, ap, ap50 = coco_metrics(detections, truths, 4)
    theirs = [x if x > -1 else math.nan for x in run.stats]
    assert tuple(numbers) == METRICS
    np.testing.assert_allclose(list(numbers.values()), theirs, atol=1e-12)
    precision = run.eval["precision"][..., 0, -1]
    np.testing.assert_allclose(ap[:3], precision.mean(axis=(0, 1))[:3], atol=1e-12)
    np.testing.assert_allclose(ap50[:3], precision[0].mean(axis=0)[:3], atol=1e-12)
    assert math.isnan(ap[3])
    assert math.isnan(ap50[3])


@pytest.mark.parametrize(
    ("areas", "side", "sizes"),
    [
        ({}, 0.5, "s"), ({}, 31, "s"), ({}, 32, "sm"), ({}, 33, "m"),
        ({}, 95, "m"), ({}, 96, "ml"), ({}, 97, "l"), ({}, 5000, "l"),
        ({"areas": (100, 400)}, 9, "s"), ({"areas": (100, 400)}, 15, "m"),
        ({"areas": (100, 400)}, 30, "l"),
    ],
)  # fmt: skip
def test_sizes_are_by_area_and_one_on_a_bound_is_of_both(
    areas: dict[str, Any], side: float, sizes: str
) -> None:
    truths = [truth((0, 0, side, side))]
    numbers = coco_metrics(perfect(truths), truths, 1, **areas)[0]
    for name in ("AP", "AR100", *(number + size for number in ("AP", "AR") for size in sizes)):
        assert numbers[name] == pytest.approx(1)
    assert sum(math.isnan(value) for value in numbers.values()) == 2 * (3 - len(sizes))


def test_a_crowd_is_measured_by_the_detection_but_a_difficult_object_by_iou() -> None:
    """A quarter of the box lies wholly inside it: IoU 0.25, and 1 of its own area."""
    detections = [found(((0, 0, 5, 5), 0.9), (FAR, 0.8))]
    crowd = [truth(LEFT, FAR, iscrowd=[True, False])]
    difficult = [truth(LEFT, FAR, difficult=[True, False])]
    assert coco_metrics(detections, crowd, 1)[0]["AP"] == pytest.approx(1)
    # Difficult does not excuse it: one false positive comes before the true one.
    assert coco_metrics(detections, difficult, 1)[0]["AP"] == pytest.approx(0.5)
    as_crowd = {**difficult[0], "iscrowd": difficult[0]["difficult"]}
    assert plain_pycocotools(detections, [as_crowd], 1).stats[0] == pytest.approx(
        1
    )  # what one must not do


@pytest.mark.parametrize("seed", SEEDS)
def test_difficult_objects_and_all_that_finds_them_change_nothing(seed: int) -> None:
    detections, truths = crowded(seed)
    generator = torch.Generator().manual_seed(seed)
    more_detections, more_truths = [], []
    for detected, true in zip(detections, truths, strict=True):
        # Far from everything else; two are found three times, with any score, one never.
        far = torch.tensor([[300.0, 0, 340, 40], [300, 100, 420, 220], [300, 300, 310, 310]])
        labels = torch.tensor([0, 1, 2])
        more_truths.append(
            {
                "boxes": torch.cat([far, true["boxes"]]),
                "labels": torch.cat([labels, true["labels"]]),
                "difficult": torch.arange(3 + len(true["labels"])) < 3,
            }
        )
        more_detections.append(
            Detections(
                torch.cat([detected.boxes, far[:2].repeat(3, 1)]),
                torch.cat([detected.scores, torch.rand(6, generator=generator)]),
                torch.cat([detected.labels, labels[:2].repeat(3)]),
            )
        )
    classes = ["a", "b", "c"]
    plain = evaluate_detections(detections, truths, classes)
    more = evaluate_detections(more_detections, more_truths, classes)
    theirs = dict(zip(METRICS, plain_pycocotools(detections, truths, 3).stats, strict=True))
    for name in NOT_OF_BEST_FEW:
        if theirs[name] > -1:
            assert more.coco[name] == pytest.approx(theirs[name], abs=1e-12)
        else:
            assert math.isnan(more.coco[name])
    for name in classes:
        assert more.per_class[name] == {**plain.per_class[name], "difficult": len(truths)}
        for ours, expected in zip(more.curves[name], plain.curves[name], strict=True):
            np.testing.assert_array_equal(ours, expected)


# --- the whole ------------------------------------------------------------------------------------


def perfect(truths: list[dict[str, Any]]) -> list[Detections]:
    return [Detections(t["boxes"], torch.ones(len(t["labels"])), t["labels"]) for t in truths]


def test_perfect_detections_give_one_and_a_class_without_objects_is_left_out() -> None:
    _, truths = crowded(0)
    evaluation = evaluate_detections(perfect(truths), truths, ["a", "b", "c", "never"])
    assert evaluation.mAP == pytest.approx(1)
    assert evaluation.mAP50 == pytest.approx(1)
    assert evaluation.voc07 == pytest.approx(1)
    assert evaluation.voc10 == pytest.approx(1)
    never = evaluation.per_class["never"]
    assert never["objects"] == never["difficult"] == 0
    assert all(math.isnan(never[name]) for name in ("AP", "AP50", "voc07", "voc10"))


def test_a_false_alarm_in_a_class_without_objects_changes_no_mean() -> None:
    truths = [truth(LEFT)]
    detections = [Detections(torch.tensor([LEFT, FAR]), torch.tensor([0.5, 0.9]), torch.arange(2))]
    evaluation = evaluate_detections(detections, truths, ["a", "never"])
    assert evaluation.voc07 == evaluation.voc10 == pytest.approx(evaluation.mAP) == 1
    assert math.isnan(evaluation.per_class["never"]["voc10"])


def test_a_class_that_is_never_found_counts_as_zero() -> None:
    evaluation = evaluate_detections([found((LEFT, 0.9))], [truth(LEFT)], ["a", "b"])
    assert evaluation.voc10 == 1
    missed = {"boxes": torch.tensor([LEFT, RIGHT]), "labels": torch.arange(2)}
    evaluation = evaluate_detections([found((LEFT, 0.9))], [missed], ["a", "b"])
    assert evaluation.voc07 == evaluation.voc10 == pytest.approx(evaluation.mAP) == 0.5
    assert evaluation.per_class["b"]["voc10"] == 0


def test_no_detections_give_zero() -> None:
    _, truths = crowded(0)
    evaluation = evaluate_detections([found()] * len(truths), truths, ["a", "b", "c"])
    assert evaluation.mAP == evaluation.mAP50 == evaluation.voc07 == evaluation.voc10 == 0
    assert evaluation.coco["AR100"] == 0


@pytest.mark.parametrize("images", [0, 2])
def test_nothing_to_find_gives_nan_everywhere(images: int) -> None:
    evaluation = evaluate_detections([found()] * images, [truth()] * images, ["a", "b"])
    numbers = [*evaluation.coco.values(), evaluation.voc07, evaluation.voc10]
    assert len(numbers) == 14
    assert all(math.isnan(number) for number in numbers)
    assert evaluation.as_dict()["coco"] == dict.fromkeys(METRICS)


def test_per_class_numbers_average_to_the_means_and_follow_the_curves() -> None:
    detections, truths = crowded(1)
    evaluation = evaluate_detections(detections, truths, ["a", "b", "c", "never"])
    rows = [evaluation.per_class[name] for name in "abc"]
    for mean, name in (
        (evaluation.mAP, "AP"),
        (evaluation.mAP50, "AP50"),
        (evaluation.voc07, "voc07"),
        (evaluation.voc10, "voc10"),
    ):
        assert mean == pytest.approx(sum(row[name] for row in rows) / 3)
    for label, name in enumerate("abc"):
        expected = precision_recall(match_detections(detections, truths, label))
        np.testing.assert_array_equal(evaluation.curves[name], expected)
        recall, precision = evaluation.curves[name]
        assert evaluation.per_class[name]["voc10"] == average_precision(recall, precision)
        assert recall[-1] <= 1
        assert recall[-1] * evaluation.per_class[name]["objects"] == pytest.approx(
            precision[-1] * len(precision)
        )


def test_as_dict_survives_strict_json_and_has_none_for_nan() -> None:
    evaluation = evaluate_detections([found((LEFT, 0.9))], [truth(LEFT)], ["a", "never"])
    values = evaluation.as_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["classes"] == ["a", "never"]
    assert values["coco"]["AP"] == pytest.approx(1)
    assert values["coco"]["APl"] is None
    assert values["per_class"]["never"]["AP"] is None
    assert set(values) == {"classes", "coco", "voc07", "voc10", "per_class"}


def test_the_table_is_aligned_and_ends_with_the_mean() -> None:
    detections = [found((LEFT, 0.9), (FAR, 0.8))]
    truths = [truth(LEFT, RIGHT, FAR, difficult=[False, False, True])]
    lines = evaluate_detections(detections, truths, ["a", "a longer name"]).table().splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["class", "objects", "difficult", "AP", "AP50", "voc07", "voc10"]
    # One of two objects found: half the area, 51 of 101 points, 6 of 11.
    assert lines[1].split() == ["a", "2", "1", "0.505", "0.505", "0.545", "0.500"]
    assert lines[2].split() == ["a", "longer", "name", "0", "0", "nan", "nan", "nan", "nan"]
    assert lines[3].split() == ["mean", "0.505", "0.505", "0.545", "0.500"]


def test_evaluation_is_silent_and_leaves_its_input_alone(capfd: Any) -> None:
    detections, truths = crowded(2, images=3)
    truths[0]["difficult"] = torch.ones(len(truths[0]["labels"]), dtype=torch.bool)
    before = [{name: value.clone() for name, value in true.items()} for true in truths]
    first = evaluate_detections(detections, truths, ["a", "b", "c"]).as_dict()
    assert capfd.readouterr() == ("", "")
    for true, old in zip(truths, before, strict=True):
        assert true.keys() == old.keys()
        assert all(torch.equal(true[name], old[name]) for name in old)
    assert evaluate_detections(detections, truths, ["a", "b", "c"]).as_dict() == first


# --- what it refuses ------------------------------------------------------------------------------


def spoil(field: str, value: float) -> Callable[[], Any]:
    def call() -> Any:
        detected = found((LEFT, 0.9))
        getattr(detected, field)[0] = value
        return evaluate_detections([detected], [{**truth(LEFT), "image_id": "000007"}], ["a", "b"])

    return call


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evaluate_detections([found()], [], ["a"]), "1 images have detections, but 0"),
        (lambda: evaluate_detections([found()], [truth()], ["a", "a"]), "different names"),
        (lambda: evaluate_detections([found()], [truth()], []), "at least one"),
        (
            lambda: evaluate_detections([found()], [truth(LEFT, label=2)], ["a", "b"]),
            r"image 0: truth labels must be 0…1, not \[2\]",
        ),
        (spoil("labels", -1), r"image 000007: detection labels must be 0…1, not \[-1\]"),
        (spoil("labels", 2), r"image 000007: detection labels must be 0…1, not \[2\]"),
        (spoil("scores", math.nan), "image 000007: a detection is nan"),
        (spoil("boxes", math.inf), "image 000007: a detection is nan or infinite"),
    ],
)
def test_input_that_does_not_fit_is_refused_by_name(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()


def test_an_unknown_rule_or_method_is_refused() -> None:
    with pytest.raises(ValueError, match="'voc' or 'coco'"):
        match_detections([], [], 0, rule="COCO")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'area' or '11-point'"):
        average_precision(np.ones(1), np.ones(1), method="voc07")  # type: ignore[arg-type]


def test_a_missing_pycocotools_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    with pytest.raises(RetinaNetError, match="pip install pycocotools"):
        coco_metrics([found()], [truth()], 1)


# --- a model on a dataset -------------------------------------------------------------------------


class Pictures:
    """Three pictures of two sizes, of which the second has nothing on it."""

    classes = ("a", "b")
    sizes = ((96, 96), (96, 200), (96, 96))
    boxes = ([[10.0, 10, 60, 60], [30, 30, 90, 80]], [], [[5.0, 5, 90, 90]])

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict]:
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(256, (3, *self.sizes[index]), generator=generator, dtype=torch.uint8)
        boxes = self.boxes[index]
        return image, {"boxes": boxes, "labels": [0, 1][: len(boxes)], "image_id": f"p{index}"}


@pytest.fixture(scope="module")
def model() -> RetinaNet:
    torch.manual_seed(0)
    made = retinanet_resnet18(
        2, width=0.125, channels=8, head_convs=1, classes=("a", "b"), image_size=200, prior=0.2
    )
    torch.nn.init.normal_(made.classification_head.output.weight, std=0.3)
    return made


def test_a_model_is_evaluated_by_what_predict_finds_and_criterion_says(model: RetinaNet) -> None:
    data = Pictures()
    evaluation = evaluate(model, data)
    pictures, truths = zip(*(data[i] for i in range(3)), strict=True)
    expected = evaluate_detections(predict(model, list(pictures)), truths, data.classes)
    np.testing.assert_allclose(
        list(evaluation.coco.values()), list(expected.coco.values()), atol=1e-6
    )
    costs = []
    for picture, truth_ in zip(pictures, truths, strict=True):
        scaled, target = EvalTransform(200)(
            picture, {"boxes": torch.tensor(truth_["boxes"]).reshape(-1, 4)}
        )
        batch = pad_images([scaled])
        labels = torch.tensor(truth_["labels"], dtype=torch.int64)
        with torch.no_grad():
            predictions = model.eval()(batch)
        targets = Targets.from_list([target["boxes"]], [labels])
        costs.append(float(criterion(predictions, model.anchors(batch.shape[-2:]), targets).total))
    assert evaluation.loss == pytest.approx(np.mean(costs), rel=1e-5)
    assert evaluation.as_dict()["loss"] == evaluation.loss


def test_a_group_of_one_process_gives_the_same_numbers(model: RetinaNet) -> None:
    alone = evaluate(model, Pictures())
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        shared = evaluate(model, Pictures(), distributed=True)
    finally:
        dist.destroy_process_group()
    assert shared.as_dict() == alone.as_dict()


def test_a_bar_is_shown_to_those_who_ask(model: RetinaNet, capfd: Any) -> None:
    evaluate(model, Pictures())
    assert capfd.readouterr() == ("", "")
    evaluate(model, Pictures(), progress=True)
    assert "1/1" in capfd.readouterr().err


def test_numbers_do_not_depend_on_the_batch_and_the_mode_comes_back(model: RetinaNet) -> None:
    model.train()
    model.backbone.bn1.eval()
    one, all_ = (evaluate(model, Pictures(), batch_size=n) for n in (1, 3))
    assert model.training
    assert model.backbone.layer1.training
    assert not model.backbone.bn1.training
    assert one.loss == pytest.approx(all_.loss, rel=1e-5)
    np.testing.assert_allclose(list(one.coco.values()), list(all_.coco.values()), atol=1e-6)


def test_a_dataset_of_other_classes_or_without_pictures_is_refused(model: RetinaNet) -> None:
    class Others(Pictures):
        classes = ("b", "a")

    class Empty(Pictures):
        def __len__(self) -> int:
            return 0

    with pytest.raises(DataError, match=r"\(b, a\).*\(a, b\), in this order"):
        evaluate(model, Others())
    with pytest.raises(DataError, match="no pictures"):
        evaluate(model, Empty())


def test_a_model_without_names_takes_any_as_many_and_one_with_names_only_its_own() -> None:
    def model(*classes: str) -> Any:
        return SimpleNamespace(classes=classes, num_classes=len(classes))

    def data(*classes: str) -> Any:
        return SimpleNamespace(classes=classes)

    check_classes(model("0", "1"), data("cat", "dog"))
    check_classes(model("cat", "dog"), data("cat", "dog"))
    check_classes(model("cat", "dog"), object())  # a dataset that does not say
    for own, theirs in (
        (("0", "1"), ("cat", "dog", "owl")),
        (("0", "1"), ("cat",)),
        (("cat", "dog"), ("dog", "cat")),
        (("cat", "dog"), ("0", "1")),
    ):
        with pytest.raises(DataError, match=f"has {len(theirs)} classes .* made for {len(own)}"):
            check_classes(model(*own), data(*theirs))


def test_an_evaluation_is_a_value_of_one_class_or_more() -> None:
    truths = [truth((0, 0, 10, 10), (20, 0, 30, 10))]
    one, other = (evaluate_detections(perfect(truths), truths, ["thing"]) for _ in range(2))
    assert one.mAP50 == pytest.approx(1)
    sizes = {"APs", "APm", "APl", "ARs", "ARm", "ARl"}  # nan where there are no such objects
    known = {name: value for name, value in one.coco.items() if name not in sizes}
    assert replace(one, coco=known) == replace(other, coco=known)  # arrays of curves do not matter
    assert "array" not in repr(one)
    with pytest.raises(FrozenInstanceError):
        one.voc07 = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("truth", "found", "says"),
    [
        ({"difficult": torch.tensor([True])}, {}, "of a truth are 2, 2, 1, 2"),
        ({"labels": torch.tensor([0, 0, 0])}, {}, "of a truth are 2, 3, 3, 3"),
        ({"boxes": torch.tensor([[0, 0, 9, math.nan]] * 2)}, {}, "box of the truth is nan"),
        ({}, {"scores": torch.tensor([0.9, 0.8])}, "of a detection are 1, 2, 1"),
    ],
)
def test_entries_that_do_not_belong_together_are_refused(
    truth: dict, found: dict, says: str
) -> None:
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [9.0, 9.0, 20.0, 20.0]])
    truth = {"boxes": boxes, "labels": torch.tensor([0, 0])} | truth
    parts = {"boxes": boxes[:1], "scores": torch.tensor([0.9]), "labels": torch.tensor([0])} | found
    with pytest.raises(DataError, match=says):
        evaluate_detections([Detections(**parts)], [truth], ["cat"])
