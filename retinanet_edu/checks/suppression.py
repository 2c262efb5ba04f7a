"""Checks of `suppression`: greedy NMS, of one class and of several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms

from retinanet_edu.checks.boxes import boxes, iou_of, some_boxes
from retinanet_edu.checks.harness import Case, Mistake, Piece

GREATER = "a box goes if its IoU is greater than the threshold: at exactly 0.5 it stays (>, not ≥)"
BY_SCORE = "the result is in the order of scores, the best first"
GREEDY = "a box that is gone suppresses nobody: compare with the kept ones only"
FIRST = "of equal scores the first box goes first: argsort(descending=True, stable=True)"
TO_INPUT = "the indices are those of the boxes as given, not as sorted"
APART = "boxes of different classes never suppress each other"


# --- plain numbers --------------------------------------------------------------------------------


def nms_by_loop(
    given: Tensor,
    scores: Tensor,
    iou_threshold: float,
    labels: Tensor | None = None,
    *,
    goes: Callable[[float, float], bool] = lambda iou, threshold: iou > threshold,
    greedy: bool = True,
    best_first: bool = True,
    later_first: bool = False,
    more: float = 0.0,
    against_best_only: bool = False,
) -> Tensor:
    """The greedy algorithm, box by box; the parameters from `goes` on make it wrong."""
    rows, score = given.double().tolist(), scores.tolist()
    classes = [0] * len(rows) if labels is None else labels.tolist()
    order = sorted(range(len(rows)), key=lambda i: (score[i], i if later_first else -i))
    kept: list[int] = []
    seen: list[int] = []
    for i in reversed(order) if best_first else order:
        rivals = [k for k in (kept if greedy else seen) if classes[k] == classes[i]]
        rivals = rivals[:1] if against_best_only else rivals
        if not any(goes(iou_of(rows[i], rows[k], more), iou_threshold) for k in rivals):
            kept.append(i)
        seen.append(i)
    return torch.tensor(kept, dtype=torch.int64)


def _in_sorted_boxes(
    given: Tensor, scores: Tensor, iou_threshold: float, *labels: Tensor
) -> Tensor:
    """The indices that the kept boxes have after sorting."""
    kept = nms_by_loop(given, scores, iou_threshold, *labels)
    place = scores.argsort(descending=True, stable=True).argsort()
    return place[kept]


def _sorted_by_index(*arguments: Any) -> Tensor:
    return nms_by_loop(*arguments).sort()[0]


def _known(arrange: Callable[..., Any]) -> list[Mistake]:
    """Mistakes in the greedy algorithm; `arrange` brings its arguments into order."""
    known: list[tuple[str, dict[str, Any]]] = [
        (GREATER, {"goes": lambda iou, threshold: iou >= threshold}),
        ("a box goes if its IoU is greater than the threshold", {"goes": lambda i, t: i < t}),
        (GREEDY, {"greedy": False}),
        ("begin with the best score: sort descending", {"best_first": False}),
        (FIRST, {"later_first": True}),
        ("no + 1: boxes are continuous, width = x2 − x1", {"more": 1.0}),
        ("compare with every box kept so far, not with the best one alone",
         {"against_best_only": True}),
    ]  # fmt: skip
    return [
        *(Mistake(hint, arrange(partial(nms_by_loop, **wrong))) for hint, wrong in known),
        Mistake(BY_SCORE, arrange(_sorted_by_index)),
        Mistake(TO_INPUT, arrange(_in_sorted_boxes)),
    ]


# --- one class ------------------------------------------------------------------------------------

SQUARE, HALF = (0, 0, 10, 10), (0, 0, 20, 10)  # their IoU is exactly 0.5


def _scores(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def _nms_cases() -> Iterator[Case]:
    def by_hand(
        name: str, rows: Sequence[Sequence[float]], scores: Sequence[float], kept: Sequence[int],
        threshold: float = 0.5, why: str = "",
    ) -> Case:  # fmt: skip
        arguments = boxes(*rows), _scores(*scores), threshold
        return Case(name, arguments, torch.tensor(kept, dtype=torch.int64), why=why)

    nine, far = (0, 0, 9, 10), (50, 0, 60, 10)
    yield by_hand(
        "two that overlap, one apart",
        [nine, SQUARE, far],
        [0.8, 0.9, 0.7],
        [1, 2],
        why="the result is the indices of the kept boxes, the best score first",
    )
    yield by_hand("best last", [far, nine, SQUARE], [0.1, 0.2, 0.3], [2, 0], why=BY_SCORE)
    yield by_hand("IoU exactly at the threshold", [SQUARE, HALF], [0.9, 0.8], [0, 1], why=GREATER)
    # Each of these overlaps its neighbour by 2/3, and the next but one by 3/7.
    chain = [(0, 0, 10, 10), (2, 0, 12, 10), (4, 0, 14, 10), (6, 0, 16, 10)]
    yield by_hand("a chain", chain, [0.9, 0.8, 0.7, 0.6], [0, 2], why=GREEDY)
    pairs = [SQUARE, nine, far, (50, 0, 59, 10)]
    yield by_hand("two pairs", pairs, [0.9, 0.8, 0.7, 0.6], [0, 2],
                  why="a box must be compared with every kept one")  # fmt: skip
    yield by_hand("equal scores", [nine, SQUARE], [0.5, 0.5], [0], why=FIRST)
    yield by_hand("equal scores, apart", [far, SQUARE], [0.5, 0.5], [0, 1], why=FIRST)
    yield by_hand("threshold 0.4", [SQUARE, HALF], [0.9, 0.8], [0], threshold=0.4,
                  why="the threshold is an argument")  # fmt: skip
    yield by_hand("threshold 1", [SQUARE, SQUARE], [0.9, 0.8], [0, 1], threshold=1.0, why=GREATER)
    yield by_hand("two points", [(5, 5, 5, 5)] * 2, [0.9, 0.8], [0, 1],
                  why="two points have IoU 0, not 0/0, so both stay")  # fmt: skip
    three_fifths = [(0, 0, 5, 1), (0, 0, 3, 1)]
    yield by_hand("IoU 3/5, threshold 0.6", three_fifths, [0.9, 0.8], [0, 1], threshold=0.6,
                  why="3/5 of float32, as a Python number, is 0.60000002")  # fmt: skip
    yield by_hand("one box", [SQUARE], [0.3], [0])
    yield by_hand("no boxes", [], [], [], why="the result is (0,), int64")
    yield by_hand("scores below 0", [SQUARE, nine, far], [-3.0, -1.0, -2.0], [1, 2])
    for seed, count in ((0, 8), (1, 8), (2, 150)):
        given = some_boxes(count, seed, whole=count < 10)
        scores = torch.rand(count, generator=torch.Generator().manual_seed(seed))
        expected = nms_by_loop(given, scores, 0.3) if seed else nms(given, scores, 0.3)
        yield Case(f"random, {count} boxes, {seed + 1}", (given, scores, 0.3), expected)


_NMS = Piece(
    "nms(boxes, scores, iou_threshold)",
    _nms_cases,
    "a loop over boxes, and torchvision.ops.nms",
    _known(lambda version: version),
)

# --- several classes ------------------------------------------------------------------------------


def _per_class_cases() -> Iterator[Case]:
    def by_hand(
        name: str, rows: Sequence[Sequence[float]], scores: Sequence[float], labels: Sequence[int],
        kept: Sequence[int], why: str = "",
    ) -> Case:  # fmt: skip
        arguments = boxes(*rows), _scores(*scores), torch.tensor(labels).long(), 0.5
        return Case(name, arguments, torch.tensor(kept, dtype=torch.int64), why=why)

    nine, far = (0, 0, 9, 10), (50, 0, 60, 10)
    yield by_hand("a cat on a sofa, seen twice", [SQUARE, SQUARE, nine], [0.9, 0.8, 0.7], [0, 1, 0],
                  [0, 1], why=APART)  # fmt: skip
    yield by_hand("one class", [SQUARE, nine, far], [0.7, 0.9, 0.8], [4, 4, 4], [1, 2])
    yield by_hand("classes take turns", [far, SQUARE, HALF], [0.7, 0.9, 0.8], [1, 0, 1], [1, 2, 0],
                  why=f"{BY_SCORE}, over all classes")  # fmt: skip
    shifted = "moving classes apart by max + 1 fails with negative coordinates: take max − min"
    yield by_hand("left of the picture", [(-101, -101, -1, -1)] * 2, [0.9, 0.8], [0, 1],
                  [0, 1], why=shifted)  # fmt: skip
    yield by_hand(
        "across the border",
        [(-300, -300, 9, 9), (-200, -200, 109, 109)],
        [0.9, 0.8],
        [1, 0],
        [0, 1],
        why=shifted,
    )
    yield by_hand("at opposite corners", [(0, 0, 1, 1), (99, 99, 100, 100)], [0.9, 0.8], [1, 0],
                  [0, 1], why=APART)  # fmt: skip
    digits = "a label times a large step eats float32's digits: move the boxes in float64"
    close = [(0, 0, 10, 10), (0, 0, 10, 19.99), (0, 0, 1300, 800)]  # IoU 0.50025
    yield by_hand("a high label, an IoU just over 0.5", close, [0.9, 0.8, 0.7], [9000, 9000, 0],
                  [0, 2], why=digits)  # fmt: skip
    yield by_hand("IoU exactly at the threshold", [SQUARE, HALF], [0.9, 0.8], [1, 1], [0, 1],
                  why=GREATER)  # fmt: skip
    yield by_hand(
        "equal scores", [nine, SQUARE, far], [0.5, 0.5, 0.4], [1, 1, 0], [0, 2], why=FIRST
    )
    yield by_hand(
        "no boxes", [], [], [], [], why="the result is (0,), int64: max of nothing raises"
    )
    for seed, count in ((0, 10), (1, 10), (2, 150)):
        generator = torch.Generator().manual_seed(seed)
        given = some_boxes(count, seed, whole=count < 20) - 15
        scores = torch.rand(count, generator=generator)
        labels = torch.randint(0, 3, (count,), generator=generator)
        expected = _class_by_class(given, scores, labels, 0.5)
        yield Case(f"random, {count} boxes, {seed + 1}", (given, scores, labels, 0.5), expected)


def _class_by_class(given: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """torchvision's NMS of each class alone, merged by score."""
    kept = []
    for label in labels.unique():
        own = (labels == label).nonzero()[:, 0]
        kept.append(own[nms(given[own], scores[own], iou_threshold)])
    merged = torch.cat(kept)
    return merged[scores[merged].argsort(descending=True)]


def _arranged(version: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """labels before the threshold, as `nms_per_class` has them."""
    return lambda given, scores, labels, threshold: version(given, scores, threshold, labels)


def _moved(given: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """By the largest coordinate, as torchvision's batched_nms does, in float32."""
    return nms(given + (labels * (given.max() + 1))[:, None], scores, threshold)


def _merged_by_class(given: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    kept = _class_by_class(given, scores, labels, threshold)
    return kept[labels[kept].argsort(stable=True)]


_PER_CLASS = Piece(
    "nms_per_class(boxes, scores, labels, iou_threshold)",
    _per_class_cases,
    "torchvision.ops.nms of each class alone",
    [
        Mistake(APART, lambda b, s, labels, threshold: nms_by_loop(b, s, threshold)),
        Mistake(f"{BY_SCORE}, over all classes", _merged_by_class),
        *_known(_arranged),
        Mistake("boxes moved by max + 1 meet again where some are negative: take max − min + 1",
                _moved),
    ],
)  # fmt: skip

PIECES = {piece.name: piece for piece in (_NMS, _PER_CLASS)}
