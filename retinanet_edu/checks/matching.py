"""Checks of `matching`: which anchor answers for which object, and what it is to say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from retinanet_edu.checks.boxes import IN_FLOAT32, boxes, iou_of, some_boxes
from retinanet_edu.checks.harness import Case, Mistake, Piece

BACKGROUND, IGNORED = -1, -2

AT_LEAST = "an IoU of exactly 0.5 is positive: ≥, not >"
BELOW = "an IoU of exactly 0.4 is ignored: background is < 0.4, not ≤"
FIRST = "of objects with equal IoU the first is taken"
BAND = "between 0.4 and 0.5 an anchor is ignored, −2: neither positive nor background"
BEST = "an anchor takes the object that it overlaps most, not the first or last that is enough"
UNTOUCHED = "an object that overlaps no anchor has best IoU 0, which every anchor 'reaches'"
NO_OBJECTS = "without objects every anchor is background; max over an empty axis raises"
CODES = "−1 is background and −2 is ignored"
OWN_BEST = "a forced anchor answers for its own best object, not for the one that forced it"


# --- plain numbers --------------------------------------------------------------------------------


def match_by_loop(
    anchors: Tensor,
    gt_boxes: Tensor,
    positive: float = 0.5,
    negative: float = 0.4,
    force_match: bool = False,
    *,
    is_positive: Callable[[float, float], bool] = lambda iou, threshold: iou >= threshold,
    is_background: Callable[[float, float], bool] = lambda iou, threshold: iou < threshold,
    choose: Callable[[Sequence[float]], int] = lambda ious: ious.index(max(ious)),
    may_force: Callable[[float], bool] = lambda best: best > 0,
) -> Tensor:
    """Anchor by anchor; the last four parameters make it wrong in known ways."""
    objects = gt_boxes.tolist()
    table = [[iou_of(anchor, one) for one in objects] for anchor in anchors.tolist()]
    best_of_object = [max(column) for column in zip(*table)]
    match = []
    for ious in table:
        best = max(ious, default=0.0)
        forced = force_match and any(
            iou == most and may_force(most) for iou, most in zip(ious, best_of_object)
        )
        if objects and (is_positive(best, positive) or forced):
            match.append(choose(ious))
        elif is_background(best, negative):
            match.append(BACKGROUND)
        else:
            match.append(IGNORED)
    return torch.tensor(match, dtype=torch.int64)


def match_targets_by_loop(
    anchors: Tensor,
    gt_boxes: Tensor,
    difficult: Tensor,
    *,
    again: Sequence[int] = (BACKGROUND,),
    renumber: bool = False,
) -> Tensor:
    """Match the objects that count; then ignore background near a difficult one.

    `again` are the answers that a difficult object can change. With `renumber`, objects are
    numbered without the difficult ones, which is wrong.
    """
    counted = [i for i, hard in enumerate(difficult.tolist()) if not hard]
    match = match_by_loop(anchors, gt_boxes[counted]).tolist()
    match = [counted[m] if m >= 0 and not renumber else m for m in match]
    for i, anchor in enumerate(anchors.tolist()):
        near = [iou_of(anchor, box) >= 0.4 for box in gt_boxes[difficult].tolist()]
        if match[i] in again and any(near):
            match[i] = IGNORED
    return torch.tensor(match, dtype=torch.int64)


# --- matching -------------------------------------------------------------------------------------

SQUARE = boxes((0, 0, 10, 10))
HALF, FOUR_TENTHS = boxes((0, 0, 20, 10)), boxes((0, 0, 4, 10))  # these overlap it by so much


def _match_cases() -> Iterator[Case]:
    def by_hand(
        name: str, anchors: Tensor, objects: Tensor, *match: int, why: str = "", **settings: Any
    ) -> Case:
        expected = torch.tensor(match, dtype=torch.int64)
        return Case(name, (anchors, objects), expected, settings, why=why)

    # They overlap the object by 0.9, 0.45 and 0.3.
    three = boxes((0, 0, 9, 10), (0, 0, 4.5, 10), (0, 0, 3, 10))
    yield by_hand("IoU 0.9, 0.45 and 0.3", three, SQUARE, 0, IGNORED, BACKGROUND, why=BAND)
    two = boxes((50, 0, 60, 10), (0, 0, 10, 10))
    yield by_hand("the second object is meant", SQUARE, two, 1, why="the index is the object's")
    yield by_hand("IoU exactly 0.5", HALF, SQUARE, 0, why=AT_LEAST)
    yield by_hand("IoU exactly 0.4", FOUR_TENTHS, SQUARE, IGNORED, why=BELOW)
    growing = boxes((0, 0, 6, 10), (0, 0, 8, 10), (0, 0, 7, 10))
    yield by_hand("three objects are enough, one is best", SQUARE, growing, 1, why=BEST)
    alike = boxes((0, 0, 8, 10), (0, 0, 8.001, 10))
    yield by_hand("two objects of almost equal IoU", SQUARE, alike, 1, why=BEST)
    yield by_hand("the same object twice", SQUARE, SQUARE.repeat(2, 1), 0, why=FIRST)
    yield by_hand(
        "two anchors, one object", SQUARE.repeat(2, 1), SQUARE, 0, 0,
        why="all anchors that overlap enough are positive, not the best one alone",
    )  # fmt: skip
    apart = boxes((500, 500, 501, 501))
    yield by_hand("an object far from all anchors", three, apart, *3 * [BACKGROUND], why=UNTOUCHED)
    zeros = torch.cat([SQUARE, torch.zeros(2, 4)])
    yield by_hand("padded with zero boxes", three, zeros, 0, IGNORED, BACKGROUND, why=UNTOUCHED)
    yield by_hand("an object on a point", torch.zeros(1, 4), torch.zeros(1, 4), BACKGROUND,
                  why="two zero boxes have IoU 0, not 0/0")  # fmt: skip
    yield by_hand("no objects", three, boxes(), *3 * [BACKGROUND], why=NO_OBJECTS)
    yield by_hand("no anchors", boxes(), SQUARE, why="the result is (0,), int64")
    half = boxes((0, 0, 300, 300), dtype=torch.float16)
    yield by_hand("half precision, 300 by 300", half, half, 0, why=IN_FLOAT32)
    seven = boxes((0, 0, 7, 10))
    yield by_hand("IoU 0.7, thresholds 0.65 and 0.8", seven, SQUARE, IGNORED, positive=0.8,
                  negative=0.65, why="the thresholds are arguments")  # fmt: skip
    yield by_hand("IoU 0.3, thresholds 0.25", three[2:], SQUARE, 0, positive=0.25, negative=0.25)
    for seed in range(2):
        anchors, objects = some_boxes(9, seed), some_boxes(4, seed + 2)
        expected = match_by_loop(anchors, objects)
        yield Case(f"random, whole pixels, {seed + 1}", (anchors, objects), expected)
    anchors, objects = some_boxes(300, 4, 60, whole=False), some_boxes(20, 5, 60, whole=False)
    yield Case("random, 300 against 20", (anchors, objects), match_by_loop(anchors, objects))
    yield from _forced_cases(by_hand)


def _forced_cases(by_hand: Callable[..., Case]) -> Iterator[Case]:
    far = boxes((0, 0, 3, 10), (0, 0, 2, 10), (40, 40, 50, 50))  # IoU 0.3, 0.2 and 0 with SQUARE
    forced = {"force_match": True}
    yield by_hand("forced: the best has IoU 0.3", far, SQUARE, 0, BACKGROUND, BACKGROUND, **forced)
    twins = far[[0, 0, 2]]
    why = "every anchor with the object's best IoU is forced, not the first alone"
    yield by_hand("forced: two are best", twins, SQUARE, 0, 0, BACKGROUND, why=why, **forced)
    away = boxes((500, 500, 501, 501))
    yield by_hand("forced, but it overlaps none", far, away, *3 * [BACKGROUND], why=UNTOUCHED,
                  **forced)  # fmt: skip
    second = boxes((0, 0, 10, 10), (0, 0, 30, 10))  # IoU 0.8 and 0.27 with the anchor
    yield by_hand("forced by the second object", boxes((0, 0, 8, 10)), second, 0, why=OWN_BEST,
                  **forced)  # fmt: skip
    # So many pairs that float32 cannot number them: 170,000 · 100 > 2²⁴.
    column = torch.arange(170_000.0)
    anchors = torch.stack([column, 0 * column, column + 0.3, 0 * column + 1], dim=1)
    rows = 169_999 - 7 * torch.arange(100)
    expected = torch.full((len(anchors),), BACKGROUND)
    expected[rows] = torch.arange(100)
    objects = anchors[rows] + torch.tensor([0, 0, 0.7, 0])  # of IoU 0.3
    yield Case(
        "forced, 170,000 anchors and 100 objects", (anchors, objects), expected, forced,
        why="row and column of a flat index are i // M and i % M: i / M rounds once i is large",
    )  # fmt: skip


def _last_best(ious: Sequence[float]) -> int:
    return max(range(len(ious)), key=lambda i: (ious[i], i))


def _first_enough(ious: Sequence[float]) -> int:
    return next((i for i, iou in enumerate(ious) if iou >= 0.5), ious.index(max(ious)))


def _last_enough(ious: Sequence[float]) -> int:
    return max((i for i, iou in enumerate(ious) if iou >= 0.5), default=ious.index(max(ious)))


def _recoded(anchors: Tensor, gt_boxes: Tensor, **codes: int) -> Tensor:
    match = match_by_loop(anchors, gt_boxes)
    background, ignored = match == BACKGROUND, match == IGNORED
    match = match + codes.get("shift", 0)
    match[background], match[ignored] = codes["background"], codes["ignored"]
    return match


def _variants(of: Callable[..., Tensor]) -> list[Mistake]:
    known: list[tuple[str, dict[str, Any]]] = [
        (AT_LEAST, {"is_positive": lambda iou, threshold: iou > threshold}),
        (BELOW, {"is_background": lambda iou, threshold: iou <= threshold}),
        (BAND, {"is_background": lambda iou, threshold: True}),
        (BAND, {"is_positive": lambda iou, threshold: iou >= 0.4}),
        ("force-match is off unless it is asked for", {"force_match": True}),
        (UNTOUCHED, {"may_force": lambda best: True}),
        (FIRST, {"choose": _last_best}),
        (BEST, {"choose": _first_enough}),
        (BEST, {"choose": _last_enough}),
    ]
    return [Mistake(hint, partial(of, **wrong)) for hint, wrong in known]


_MATCH = Piece(
    "match_anchors(anchors, gt_boxes)",
    _match_cases,
    "a loop over anchors and objects",
    [
        *_variants(match_by_loop),
        Mistake(CODES, partial(_recoded, background=IGNORED, ignored=BACKGROUND)),
        Mistake("objects count from 0; −1 is background, −2 is ignored",
                partial(_recoded, background=0, ignored=-1, shift=1)),
        Mistake("the maximum goes over the objects, dim=1: each anchor asks for its best object",
                lambda a, b: torch.tensor([[iou_of(x, y) for y in b.tolist()]
                                           for x in a.tolist()]).argmax(0)),
    ],
    place=lambda index, anchors, objects: f"anchor {index[0]} is {anchors[index[0]].tolist()}",
)  # fmt: skip

# --- difficult objects ----------------------------------------------------------------------------

EXCUSED = "a background anchor whose IoU with a difficult object is ≥ 0.4 is ignored"
COUNTED_FIRST = "match the other objects first: a difficult one takes no anchor away from them"
NUMBERED = "the index counts all objects of the image, the difficult ones too"


def _targets_cases() -> Iterator[Case]:
    def by_hand(
        name: str, anchors: Tensor, objects: Tensor, hard: list[bool], *match: int, why: str = ""
    ) -> Case:
        expected = torch.tensor(match, dtype=torch.int64)
        flags = torch.tensor(hard, dtype=torch.bool)
        return Case(name, (anchors, objects, flags), expected, why=why)

    away = boxes((50, 50, 60, 60))
    both = torch.cat([SQUARE, away])
    yield by_hand("none is difficult", both, both, [False, False], 0, 1,
                  why="without difficult objects it is match_anchors")  # fmt: skip
    yield by_hand("one is difficult", both, both, [True, False], IGNORED, 1, why=EXCUSED)
    yield by_hand("IoU exactly 0.4", FOUR_TENTHS, SQUARE, [True], IGNORED, why=EXCUSED)
    yield by_hand("IoU 0.39", boxes((0, 0, 3.9, 10)), SQUARE, [True], BACKGROUND, why=EXCUSED)
    nearer = torch.cat([SQUARE, boxes((0, 0, 8, 10))])
    beside = torch.cat([boxes((0, 0, 10, 22)), SQUARE])  # the first overlaps SQUARE by 0.45
    yield by_hand("positive, near a difficult one", SQUARE, beside, [True, False], 1,
                  why="only background is excused: a positive anchor stays positive")  # fmt: skip
    yield by_hand("the difficult one is nearer", SQUARE, nearer, [True, False], 1,
                  why=COUNTED_FIRST)  # fmt: skip
    yield by_hand("in the band of another", boxes((0, 0, 4.5, 10)), nearer[:1].repeat(2, 1),
                  [True, False], IGNORED)  # fmt: skip
    yield by_hand("all are difficult", both, both, [True, True], IGNORED, IGNORED, why=EXCUSED)
    padded = torch.cat([SQUARE, torch.zeros(2, 4)])
    yield by_hand("padded with zero boxes", both, padded, [True, False, False], IGNORED, BACKGROUND)
    yield by_hand("no objects", both, boxes(), [], BACKGROUND, BACKGROUND, why=NO_OBJECTS)
    for seed in range(3):
        anchors, objects = some_boxes(12, seed), some_boxes(6, seed + 3)
        hard = torch.arange(6) % 3 != 1
        expected = match_targets_by_loop(anchors, objects, hard)
        yield Case(f"random, {seed + 1}", (anchors, objects, hard), expected)


def _together(anchors: Tensor, objects: Tensor, hard: Tensor) -> Tensor:
    match = match_by_loop(anchors, objects)
    is_hard = (match >= 0) & torch.cat([hard, hard.new_zeros(1)])[match.clamp(min=-1)]
    return match.masked_fill(is_hard, IGNORED)


_TARGETS = Piece(
    "match_targets(anchors, boxes, difficult)",
    _targets_cases,
    "a loop over anchors and objects",
    [
        Mistake("difficult objects are not learned", lambda a, b, hard: match_by_loop(a, b)),
        Mistake(NUMBERED, partial(match_targets_by_loop, renumber=True)),
        Mistake(COUNTED_FIRST, _together),
        Mistake(
            EXCUSED,
            lambda a, b, hard: match_targets_by_loop(a, b, hard, again=()),
        ),
        Mistake(
            "only background is excused: a positive anchor stays positive near a difficult object",
            partial(match_targets_by_loop, again=range(BACKGROUND, 1000)),
        ),
    ],
    place=lambda index, anchors, *rest: f"anchor {index[0]} is {anchors[index[0]].tolist()}",
)

# --- what an anchor is to say ---------------------------------------------------------------------

WRAPS = "labels[-1] is the last object's label: background (−1) and ignored (−2) need a mask first"


def class_targets_by_loop(match: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """One row an anchor: 1 at the class of its object, else 0."""
    targets = torch.zeros(len(match), num_classes)
    for i, index in enumerate(match.tolist()):
        if index >= 0:
            targets[i, int(labels[index])] = 1
    return targets


def _class_cases() -> Iterator[Case]:
    def case(name: str, match: list[int], labels: list[int], classes: int, why: str = "") -> Case:
        arguments = (torch.tensor(match).long(), torch.tensor(labels).long(), classes)
        return Case(name, arguments, class_targets_by_loop(*arguments), why=why)

    first = (torch.tensor([1, 0]), torch.tensor([2, 0]), 3)
    yield Case("two anchors, two objects", first, torch.tensor([[1.0, 0, 0], [0, 0, 1]]),
               why="row n has its 1 at the class labels[match[n]]")  # fmt: skip
    yield case("a background anchor", [0, -1], [1], 2, why=WRAPS)
    yield case("an ignored anchor", [0, -2, 1], [1, 0], 2, why=WRAPS)
    yield case("two anchors, one object", [0, 0], [1], 2)
    yield case("no objects", [-1, -1], [], 2, why="all anchors are background: zeros (N, K)")
    yield case("no anchors", [], [1], 2, why="zeros (0, K)")
    yield case("one class", [0, -1], [0], 1, why="K = 1 still has an axis: (N, 1)")
    yield case("the first and the last class", [0, 1], [0, 4], 5,
               why="labels are 0…K−1, without a background class")  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    match = torch.randint(-2, 6, (40,), generator=generator)
    labels = torch.randint(0, 4, (6,), generator=generator)
    yield Case("random", (match, labels, 4), class_targets_by_loop(match, labels, 4))


def _unmasked(match: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    return torch.eye(num_classes)[labels[match]]


def _as_class_0(match: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    return torch.eye(num_classes)[torch.where(match >= 0, labels[match.clamp(min=0)], 0)]


_CLASSES = Piece(
    "class_targets(match, labels, num_classes)",
    _class_cases,
    "a loop over anchors",
    [
        Mistake(WRAPS, _unmasked),
        Mistake("background is a row of zeros, not class 0", _as_class_0),
        Mistake(
            "the class is the object's label, not its index: labels[match]",
            lambda m, labels, k: class_targets_by_loop(m, torch.arange(k), k),
        ),
        Mistake(
            "there is no column for the background: K columns",
            lambda m, labels, k: class_targets_by_loop(m, labels, k + 1),
        ),
        Mistake(
            "there is no column for the background: K columns",
            lambda m, labels, k: class_targets_by_loop(m, labels + 1, k + 1),
        ),
    ],
    place=lambda index, match, labels, classes: f"match[{index[0]}] is {int(match[index[0]])}",
)

PIECES = {piece.name: piece for piece in (_MATCH, _TARGETS, _CLASSES)}
