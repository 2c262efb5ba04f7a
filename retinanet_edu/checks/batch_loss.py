"""Checks of `losses`: the normalised sum over a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from retinanet_edu.checks.boxes import boxes
from retinanet_edu.checks.coding import encode_by_loop
from retinanet_edu.checks.harness import Case, Mistake, Piece
from retinanet_edu.checks.losses import STABLE, focal, noise, smooth_l1
from retinanet_edu.checks.matching import match_targets_by_loop
from retinanet_edu.checks.slopes import measured_slope
from retinanet_edu.structures import Predictions, Targets

PER_IMAGE = "each image is divided by its own positives, then the batch is averaged"
AT_LEAST_ONE = "an image without positives is divided by 1: its false alarms cost, and 0/0 is nan"
NOT_ANCHORS = "divide by the positives, not by all anchors or answers"
NOT_ASKED = "ignored anchors (−2) are left out of the classification loss, all their classes"
POSITIVES_ONLY = "the box loss is of positive anchors alone; others have no object to be at"
ALL_ASKED = "all classes of positive and background anchors are asked, boxes of positive ones alone"
PADDING = "rows beyond `count` are padding: zero boxes, which match nothing"


def criterion_by_loop(
    predictions: Predictions,
    anchors: Tensor,
    targets: Targets,
    box_loss_weight: float = 1.0,
    normaliser: str = "image",
    *,
    ask_ignored: bool = False,
    boxes_of_all: bool = False,
    one_class: int | None = None,
    divide: Callable[[int], float] = lambda positives: max(positives, 1),
    box_divisor: float = 1.0,
    over_batch: Callable[[Tensor], Tensor] = lambda images: images.mean(dim=0),
    weight: float = 1.0,
) -> Tensor:
    """Total, classification and box loss; the parameters from `ask_ignored` on make it wrong."""
    images, positives = [], []
    for i, count in enumerate(targets.count.tolist()):
        objects = targets.boxes[i, :count].double()
        match = match_targets_by_loop(anchors.double(), objects, targets.difficult[i, :count])
        classification = box = torch.zeros((), dtype=torch.float64)
        for n, m in enumerate(match.tolist()):
            logits, deltas = predictions.class_logits[i, n], predictions.box_deltas[i, n]
            one_hot = torch.zeros(len(logits), dtype=torch.float64)
            if m >= 0:
                one_hot[int(targets.labels[i, m]) if one_class is None else one_class] = 1
            if m >= 0 or (boxes_of_all and len(objects)):
                offsets = encode_by_loop(objects[[m]], anchors[n : n + 1])[0]
                box = box + smooth_l1(deltas.double(), offsets) / box_divisor
            if m != -2 or ask_ignored:
                classification = classification + focal(logits.double(), one_hot)
        images.append(torch.stack([classification, box]))
        positives.append(int((match >= 0).sum()))
    if normaliser == "image":
        parts = over_batch(torch.stack([one / divide(n) for one, n in zip(images, positives)]))
    else:
        parts = torch.stack(images).sum(dim=0) / divide(sum(positives))
    return torch.cat([(parts[:1] + weight * box_loss_weight * parts[1:]), parts])


def _batch(
    objects: Sequence[Tensor], labels: Sequence[Sequence[int]], hard: Sequence[Sequence[int]] = ()
) -> Targets:
    flags = [torch.tensor(flag, dtype=torch.bool) for flag in hard] or None
    return Targets.from_list(objects, [torch.tensor(l).long() for l in labels], flags)


def _criterion_cases() -> Iterator[Case]:
    far, near = boxes((50, 50, 60, 60)), boxes((0, 0, 10, 10))
    # Two are far: with one, positives + 1 would be the number of anchors.
    anchors = torch.cat([near, far, far])
    at_start = Predictions(torch.zeros(1, 3, 1), torch.zeros(1, 3, 4), (3,))
    one, zero = math.log(2) / 16, 3 * math.log(2) / 16  # at p = ½
    start = one + 2 * zero
    yield Case("one object, one anchor on it, two far", (at_start, anchors, _batch([near], [[0]])),
               torch.tensor([start, start, 0.0]), why=ALL_ASKED)  # fmt: skip
    deltas = torch.tensor([[[0.5, 0.0, 0.0, -2.0], [9.0] * 4, [9.0] * 4]])
    moved = at_start._replace(box_deltas=deltas)
    yield Case("its box is wrong by 0.5 and 2", (moved, anchors, _batch([near], [[0]])),
               torch.tensor([start + 1.625, start, 1.625]), why=POSITIVES_ONLY)  # fmt: skip
    yield Case("no objects", (moved, anchors, _batch([boxes()], [[]])),
               torch.tensor([3 * zero, 3 * zero, 0.0]), why=AT_LEAST_ONE)  # fmt: skip

    def by_loop(name: str, *arguments: Any, why: str = "", **settings: Any) -> Case:
        expected = criterion_by_loop(*arguments, **settings).float()
        return Case(name, arguments, expected, settings, why=why, rtol=1e-4)

    def noisy(batch: int, count: int, classes: int) -> Predictions:
        logits, deltas = noise(batch, count, classes), noise(batch, count, 4, seed=1)
        return Predictions(logits, deltas, (count,))

    band = boxes((0, 0, 10, 10), (0, 0, 10, 4.5))
    yield by_loop("an ignored anchor", noisy(1, 2, 2), band, _batch([near], [[1]]), why=NOT_ASKED)
    thrice = torch.cat([near, near, near, far])
    both = torch.cat([near, far])
    two = _batch([near, far], [[0], [1]])
    yield by_loop("three positives in one image, one in the other", noisy(2, 4, 2), thrice, two,
                  why=PER_IMAGE)  # fmt: skip
    one_empty = _batch([both, boxes()], [[2, 0], []])
    yield by_loop("the second image is empty", noisy(2, 4, 3), thrice, one_empty, why=PADDING)
    hard = _batch([both], [[0, 1]], [[1, 0]])
    yield by_loop("a difficult object", noisy(1, 4, 2), thrice, hard,
                  why="difficult objects are neither learned nor unlearned")  # fmt: skip
    thin = boxes((0, 0, 10, 3)).repeat(2, 1)
    yield by_loop("its best anchors have IoU 0.3", noisy(1, 2, 2), thin,
                  _batch([near], [[1]]), why="no anchor is forced to be positive")  # fmt: skip
    yield by_loop("λ = 3", noisy(2, 4, 2), thrice, two, box_loss_weight=3.0,
                  why="λ weighs the box loss in the total, and nothing else")  # fmt: skip
    yield by_loop("positives of the batch", noisy(2, 4, 2), thrice, two, normaliser="batch")
    none = _batch([boxes(), boxes()], [[], []])
    yield by_loop("positives of a batch without any", noisy(2, 4, 2), thrice, none,
                  normaliser="batch", why=AT_LEAST_ONE)  # fmt: skip
    sure = Predictions(torch.full((1, 3, 1), 1000.0), torch.zeros(1, 3, 4), (3,))
    yield by_loop("a network that is sure of everything", sure, anchors, _batch([near], [[0]]),
                  why=STABLE)  # fmt: skip
    given = noisy(2, 4, 2), thrice, two
    for part in ("class_logits", "box_deltas"):
        slope = measured_slope(partial(_with, given, part), getattr(given[0], part))
        yield Case(f"slopes by {part}", given, slope, slope=(0, part), atol=1e-4)


def _with(given: tuple, part: str, moved: Tensor) -> Tensor:
    """The losses where one part of the predictions has moved."""
    predictions, *others = given
    return criterion_by_loop(predictions._replace(**{part: moved}), *others)


def _by_anchors(predictions: Predictions, anchors: Tensor, targets: Targets, **how: Any) -> Tensor:
    return criterion_by_loop(predictions, anchors, targets, divide=lambda _: len(anchors), **how)


def _three_losses(value: Any) -> Tensor:
    try:
        parts = [getattr(value, name) for name in ("total", "classification", "box")]
    except AttributeError:
        parts = list(value) if isinstance(value, tuple | list) else []
    if len(parts) != 3 or not all(isinstance(p, Tensor) and p.numel() == 1 for p in parts):
        raise ValueError("three scalar tensors are asked for: total, classification, box")
    return torch.stack([part.reshape(()) for part in parts])


_CRITERION = Piece(
    "criterion(predictions, anchors, targets)",
    _criterion_cases,
    "a loop over images and anchors, with torchvision's focal loss and torch's smooth L1",
    [
        Mistake(NOT_ANCHORS, _by_anchors),
        *(
            Mistake(hint, partial(criterion_by_loop, **wrong))
            for hint, wrong in (
                (NOT_ASKED, {"ask_ignored": True}),
                (POSITIVES_ONLY, {"boxes_of_all": True}),
                (PER_IMAGE, {"normaliser": "batch"}),
                (PER_IMAGE, {"divide": lambda positives: 1}),
                (PER_IMAGE, {"over_batch": lambda images: images.sum(dim=0)}),
                (AT_LEAST_ONE, {"divide": lambda positives: max(positives, 1e-9)}),
                (AT_LEAST_ONE, {"divide": lambda positives: positives or math.nan}),
                (AT_LEAST_ONE, {"divide": lambda positives: positives or math.inf}),
                (AT_LEAST_ONE, {"divide": lambda positives: positives + 1}),
                ("smooth L1 is summed over the four offsets, not averaged", {"box_divisor": 4.0}),
                ("the one stands at the object's label, labels[match]", {"one_class": 0}),
                ("the total has both parts", {"weight": 0.0}),
            )
        ),
    ],
    read=_three_losses,
)

PIECES = {_CRITERION.name: _CRITERION}
