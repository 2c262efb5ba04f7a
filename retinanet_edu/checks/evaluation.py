"""Checks of `evaluation`: the ledger of detections."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retinanet_edu.checks.boxes import boxes, iou_of, some_boxes
from retinanet_edu.checks.harness import Case, Mistake, Piece
from retinanet_edu.structures import Detections

Found = Sequence[Detections]
Truths = Sequence[dict[str, Tensor]]

ONCE = "an object is found once: the second detection of it is a false positive"
NEAREST = "VOC looks at the object that a detection overlaps most; if it is taken, that is that"
EXCUSED = (
    "what finds a difficult object is ignored: neither true nor false, and any number of times"
)
NOT_COUNTED = "difficult objects are not among the objects to find"
AT_LEAST = "an IoU of exactly the threshold is enough: ≥"
OVER_IMAGES = "the ledger is in the order of scores over all images, not image by image"
OWN_IMAGE = "a detection can find only objects of its own image"
ONE_CLASS = "detections and objects of this label alone take part"
BEST_FIRST = "the best score chooses first: sort the detections before you match them"


# --- the ledger -----------------------------------------------------------------------------------


def ledger_by_loop(
    detections: Found,
    truths: Truths,
    label: int,
    iou_threshold: float = 0.5,
    *,
    near: Callable[[float, float], bool] = lambda iou, threshold: iou >= threshold,
    once: bool = True,
    nearest_free: bool = False,
    first_near: bool = False,
    excuse: bool = True,
    excuse_once: bool = False,
    count_difficult: bool = False,
    any_label: bool = False,
    sort_first: bool = True,
    sort_images: bool = True,
    more: float = 0.0,
) -> dict[str, Any]:
    """VOC's rule, detection by detection; the parameters from `near` on make it wrong."""
    rows, objects, difficult = [], 0, 0
    for found, truth in zip(detections, truths, strict=True):
        own = [i for i, k in enumerate(truth["labels"].tolist()) if k == label or any_label]
        there = [truth["boxes"][i].tolist() for i in own]
        flags = truth.get("difficult", torch.zeros(len(truth["labels"]), dtype=torch.bool))
        hard = [bool(flags[i]) for i in own]
        objects += len(own) if count_difficult else hard.count(False)
        difficult += hard.count(True)
        taken = [False] * len(own)
        mine = [i for i, k in enumerate(found.labels.tolist()) if k == label or any_label]
        if sort_first:
            mine.sort(key=lambda i: -float(found.scores[i]))
        for i in mine:
            ious = [iou_of(found.boxes[i].tolist(), box, more) for box in there]
            if nearest_free:
                ious = [0.0 if gone else iou for iou, gone in zip(ious, taken)]
            best = ious.index(max(ious)) if ious else -1
            if first_near:
                best = next((j for j, iou in enumerate(ious) if near(iou, iou_threshold)), best)
            hit = bool(ious) and near(ious[best], iou_threshold)
            ignored = hit and hard[best] and excuse and not (excuse_once and taken[best])
            true = hit and not (hard[best] and excuse) and not (taken[best] and once)
            if hit:
                taken[best] = True
            rows.append((float(found.scores[i]), true, ignored))
    if sort_images:
        rows.sort(key=lambda row: -row[0])
    columns = list(zip(*rows)) or [(), (), ()]
    return {
        "scores": torch.tensor(columns[0], dtype=torch.float64),
        "true_positive": torch.tensor(columns[1], dtype=torch.bool),
        "ignored": torch.tensor(columns[2], dtype=torch.bool),
        "objects": objects,
        "difficult": difficult,
    }


def ledger_by_pycocotools(detections: Found, truths: Truths, label: int) -> dict[str, Any]:
    """COCO's rule at IoU 0.5, from the rows in which pycocotools notes what it matched."""
    from pycocotools.cocoeval import COCOeval

    run = COCOeval(iouType="bbox")
    run.params.imgIds, run.params.catIds = list(range(len(truths))), [label]
    run.params.iouThrs = np.array([0.5])
    for image, (found, truth) in enumerate(zip(detections, truths, strict=True)):
        for table, value in ((run._gts, truth), (run._dts, vars(found))):
            for i, (x1, y1, x2, y2) in enumerate(value["boxes"].double().tolist()):
                row = {"id": i + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
                row |= {"area": (x2 - x1) * (y2 - y1), "iscrowd": 0, "ignore": 0}
                row |= {"score": float(value["scores"][i])} if "scores" in value else {}
                table[image, int(value["labels"][i])].append(row)
    run._prepare = lambda: None  # the rows are in place
    with contextlib.redirect_stdout(io.StringIO()):  # it prints at every step
        run.evaluate()
    images = [image for image in run.evalImgs[: len(truths)] if image]  # of all sizes
    scores = np.concatenate([image["dtScores"] for image in images])
    true = np.concatenate([image["dtMatches"][0] > 0 for image in images])
    order = np.argsort(-scores, kind="stable")
    return {
        "scores": torch.tensor(scores[order]),
        "true_positive": torch.tensor(true[order]),
        "ignored": torch.zeros(len(order), dtype=torch.bool),
        "objects": sum(int((truth["labels"] == label).sum()) for truth in truths),
        "difficult": 0,
    }


LEFT, RIGHT, FAR = (0, 0, 10, 10), (10, 0, 20, 10), (50, 50, 60, 60)
LEFT_90, LEFT_80, LEFT_50 = (0, 0, 9, 10), (0, 0, 8, 10), (0, 0, 5, 10)  # IoU with LEFT


def _found(*rows: tuple, labels: Sequence[int] = ()) -> Detections:
    scores = torch.tensor([row[1] for row in rows], dtype=torch.float32)
    return Detections(
        boxes(*(row[0] for row in rows)),
        scores,
        torch.tensor(labels or [0] * len(rows)).long(),
    )


def _truth(*rows: Sequence[float], labels: Sequence[int] = (), **flags: list[bool]) -> dict:
    there = {"boxes": boxes(*rows), "labels": torch.tensor(labels or [0] * len(rows)).long()}
    return there | {name: torch.tensor(flag, dtype=torch.bool) for name, flag in flags.items()}


def fates_of(text: str) -> dict[str, Tensor]:
    """T, F or I for true, false and ignored, the best score first."""
    return {
        name: torch.tensor([fate == letter for fate in text], dtype=torch.bool)
        for name, letter in (("true_positive", "T"), ("ignored", "I"))
    }


def _ledger_cases() -> Iterator[Case]:
    def by_hand(
        name: str, found: Found, truths: Truths, fates: str, objects: int, difficult: int = 0,
        label: int = 0, why: str = "", **settings: Any,
    ) -> Case:  # fmt: skip
        scores = sorted(
            (float(s) for d in found for s in d.scores[d.labels == label]), reverse=True
        )
        expected = {"scores": torch.tensor(scores, dtype=torch.float64), **fates_of(fates)}
        expected |= {"objects": objects, "difficult": difficult}  # type: ignore[dict-item]
        return Case(name, (found, truths, label), expected, settings, why=why)

    yield by_hand("two found, one invented", [_found((LEFT, 0.9), (FAR, 0.8), (RIGHT, 0.7))],
                  [_truth(LEFT, RIGHT)], "TFT", 2,
                  why="'difficult' may be missing: then none is")  # fmt: skip
    yield by_hand("one object, found three times",
                  [_found((LEFT, 0.9), (LEFT_90, 0.8), (LEFT_80, 0.7))], [_truth(LEFT)], "TFF", 1,
                  why=ONCE)  # fmt: skip
    yield by_hand("the worse score comes first in the list", [_found((LEFT_80, 0.6), (LEFT, 0.9))],
                  [_truth(LEFT)], "TF", 1, why=BEST_FIRST)  # fmt: skip
    yield by_hand("IoU exactly 0.5", [_found((LEFT_50, 0.9))], [_truth(LEFT)], "T", 1, why=AT_LEAST)
    yield by_hand("IoU 0.49", [_found(((0, 0, 4.9, 10), 0.9))], [_truth(LEFT)], "F", 1)
    yield by_hand("two near, the second is nearest", [_found((LEFT, 0.9), (LEFT_80, 0.8))],
                  [_truth(LEFT_80, LEFT)], "TT", 2, why=NEAREST)  # fmt: skip
    yield by_hand("the nearest is taken, another is free", [_found((LEFT_90, 0.9), (LEFT_90, 0.8))],
                  [_truth(LEFT, LEFT_90)], "TF", 2, why=NEAREST)  # fmt: skip
    hard = _truth(LEFT, RIGHT, difficult=[True, False])
    yield by_hand("a difficult object", [_found((LEFT, 0.9), (LEFT_90, 0.8), (RIGHT, 0.7))], [hard],
                  "IIT", 1, 1, why=EXCUSED)  # fmt: skip
    yield by_hand("a difficult object, not found", [_found((RIGHT, 0.7))], [hard], "T", 1, 1,
                  why=NOT_COUNTED)  # fmt: skip
    yield by_hand("the nearest is difficult", [_found((LEFT_90, 0.9), (LEFT_90, 0.8))],
                  [_truth(LEFT, LEFT_90, difficult=[False, True])], "II", 1, 1,
                  why=NEAREST)  # fmt: skip
    yield by_hand("the nearest is taken, another is difficult",
                  [_found((LEFT_90, 0.9), (LEFT_90, 0.8), (LEFT, 0.7))],
                  [_truth(LEFT, LEFT_90, difficult=[True, False])], "TFI", 1, 1,
                  why=NEAREST)  # fmt: skip
    yield by_hand("two classes", [_found((LEFT, 0.9), (LEFT, 0.8), labels=[1, 0])],
                  [_truth(LEFT, RIGHT, labels=[1, 0])], "T", 1, label=1, why=ONE_CLASS)  # fmt: skip
    yield by_hand("the object is of another class", [_found((LEFT, 0.9))],
                  [_truth(LEFT, labels=[1])], "F", 0, why=ONE_CLASS)  # fmt: skip
    yield by_hand("two images", [_found((LEFT, 0.5), (FAR, 0.8)), _found((FAR, 0.9), (LEFT, 0.6))],
                  [_truth(LEFT), _truth(LEFT)], "FFTT", 2, why=OVER_IMAGES)  # fmt: skip
    yield by_hand("the object is in the other image", [_found((LEFT, 0.9)), _found()],
                  [_truth(), _truth(LEFT)], "F", 1, why=OWN_IMAGE)  # fmt: skip
    yield by_hand("the same object in both images", [_found((LEFT, 0.9)), _found((LEFT, 0.8))],
                  [_truth(LEFT), _truth(LEFT)], "TT", 2, why=OWN_IMAGE)  # fmt: skip
    yield by_hand("equal scores", [_found((LEFT, 0.5), (FAR, 0.5)), _found((FAR, 0.5))],
                  [_truth(LEFT), _truth()], "TFF", 1,
                  why="equal scores stay in the order of images: sort stably")  # fmt: skip
    yield by_hand("nothing found", [_found()], [_truth(LEFT)], "", 1, why="an empty ledger")
    yield by_hand("no images", [], [], "", 0, why="an empty ledger")
    yield by_hand("IoU threshold 0.85", [_found((LEFT_80, 0.9), (LEFT_90, 0.8))], [_truth(LEFT)],
                  "FT", 1, iou_threshold=0.85, why="the threshold is an argument")  # fmt: skip
    yield by_hand("COCO: a free object nearby", [_found((LEFT_90, 0.9), (LEFT_90, 0.8))],
                  [_truth(LEFT, LEFT_90)], "TT", 2, rule="coco",
                  why="COCO lets a detection take the best object that is still free")  # fmt: skip
    why = "COCO takes a difficult object only if no other is near and free"
    yield by_hand("COCO: two near, one of them difficult",
                  [_found((LEFT_90, 0.9), (LEFT_90, 0.8), (LEFT, 0.7), (FAR, 0.6))],
                  [_truth(LEFT, LEFT_90, difficult=[True, False])], "TIIF", 1, 1, rule="coco",
                  why=why)  # fmt: skip
    for seed in range(2):
        found, truths = _crowd(seed)
        for truth in truths:
            truth["difficult"] = torch.arange(len(truth["labels"])) % 3 == 1
        expected = ledger_by_loop(found, truths, 1)
        yield Case(f"random, {seed + 1}", (found, truths, 1), expected)
    found, truths = _crowd(2)
    expected = ledger_by_pycocotools(found, truths, 1)
    yield Case("COCO, random", (found, truths, 1), expected, {"rule": "coco"})


def _crowd(seed: int) -> tuple[list[Detections], list[dict[str, Tensor]]]:
    """Objects of two classes in three images, each found about twice and not well."""
    generator = torch.Generator().manual_seed(seed)
    found, truths = [], []
    for image in range(3):
        there = some_boxes(5, 10 * seed + image)
        labels = torch.randint(0, 2, (5,), generator=generator)
        shift = torch.randint(-2, 3, (10, 2), generator=generator).repeat(1, 2)
        scores = torch.rand(10, generator=generator)
        found.append(Detections(there.repeat(2, 1) + shift, scores, labels.repeat(2)))
        truths.append({"boxes": there, "labels": labels})
    return found, truths


LEDGER = ("scores", "true_positive", "ignored", "objects", "difficult")


def _ledger(value: Any) -> dict[str, Any]:
    try:
        parts = [getattr(value, name) for name in LEDGER]
    except AttributeError:
        parts = list(value) if isinstance(value, tuple | list) else []
    try:
        scores, true, ignored, objects, difficult = parts
        columns = [torch.as_tensor(np.asarray(c)) for c in (scores, true, ignored)]
        columns = [c.reshape(0) if c.numel() == 0 else c for c in columns]
        kinds = (torch.float64, torch.bool, torch.bool)
        columns = [c.to(dtype) for c, dtype in zip(columns, kinds)]
        return dict(zip(LEDGER, [*columns, int(objects), int(difficult)]))
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"a Ledger is asked for, or a tuple of its parts: {', '.join(LEDGER)}; "
            "the first three are arrays, the last two numbers"
        ) from None


_MATCH = Piece(
    "match_detections(detections, truths, label)",
    _ledger_cases,
    "ledgers counted by hand, and pycocotools for COCO's rule",
    [
        Mistake(hint, partial(ledger_by_loop, **wrong))
        for hint, wrong in (
            (ONCE, {"once": False}),
            (NEAREST, {"nearest_free": True}),
            (NEAREST, {"first_near": True}),
            (AT_LEAST, {"near": lambda iou, threshold: iou > threshold}),
            (EXCUSED, {"excuse": False, "count_difficult": True}),
            (EXCUSED, {"excuse": False}),
            (EXCUSED, {"excuse_once": True}),
            (NOT_COUNTED, {"count_difficult": True}),
            (ONE_CLASS, {"any_label": True}),
            (BEST_FIRST, {"sort_first": False}),
            (OVER_IMAGES, {"sort_images": False}),
            ("no + 1: boxes are continuous, width = x2 − x1", {"more": 1.0}),
        )
    ],
    read=_ledger,
)

PIECES = {_MATCH.name: _MATCH}
