"""Checks of `detection`: from predictions to detections."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from retinanet_edu.checks.boxes import boxes, some_boxes
from retinanet_edu.checks.coding import decode_one
from retinanet_edu.checks.harness import Case, Mistake, Piece
from retinanet_edu.checks.suppression import nms_by_loop
from retinanet_edu.structures import Predictions

Sizes = Sequence[tuple[int, int]]
Candidate = tuple[float, int, int]  # score, anchor, label

ABOVE = "a score must be greater than the threshold, 0.05"
EVERY_CLASS = "every class of an anchor is a candidate of its own, not its best class alone"
PER_CLASS = "suppress within each class: another class never suppresses"
PER_LEVEL = "the best 1000 are taken of each level, not of all levels together"
DECODE_FIRST = "decode first, then suppress: boxes have moved away from their anchors"
CLIP_FIRST = "clip to the picture first, then suppress: outside of it boxes do not overlap"
OWN_SIZE = "each image is clipped to its own (height, width), before padding"
PAIRS = "the best 1000 are pairs of anchor and class, not anchors"
AT_MOST = "at most 100 detections an image, the best ones over all classes"


def postprocess_by_loop(
    predictions: Predictions,
    anchors: Tensor,
    image_sizes: Sizes,
    score_threshold: float = 0.05,
    top_k: int = 1000,
    iou_threshold: float = 0.5,
    max_detections: int = 100,
    *,
    above: Callable[[float, float], bool] = lambda score, threshold: score > threshold,
    one_level: bool = False,
    best_class: bool = False,
    decode: bool = True,
    decode_first: bool = True,
    clip: str = "before",
    size_of: Callable[[Sizes, int], tuple[int, int]] = lambda sizes, i: sizes[i],
    across_classes: bool = False,
    score: Callable[[float], float] = lambda z: 1 / (1 + math.exp(-z)),
) -> list[dict[str, Tensor]]:
    """Image by image, level by level; the parameters from `above` on make it wrong."""
    found = []
    for i, (logits, deltas) in enumerate(
        zip(predictions.class_logits.tolist(), predictions.box_deltas.tolist(), strict=True)
    ):
        candidates: list[Candidate] = []
        start = 0
        for count in [len(anchors)] if one_level else predictions.anchors_per_level:
            level = [
                (score(z), n, k)
                for n in range(start, start + count)
                for k, z in enumerate(logits[n])
                if above(score(z), score_threshold) and (not best_class or z == max(logits[n]))
            ]
            candidates += sorted(level, reverse=True)[:top_k]
            start += count
        size = size_of(image_sizes, i)
        coded = [
            decode_one(deltas[n], anchors[n].tolist()) if decode else anchors[n].tolist()
            for _, n, _ in candidates
        ]
        decoded = torch.tensor(coded, dtype=torch.float64).reshape(-1, 4)
        if clip == "before":
            decoded = _clip(decoded, size)
        scores = torch.tensor([s for s, _, _ in candidates], dtype=torch.float64)
        labels = torch.tensor([k for _, _, k in candidates], dtype=torch.int64)
        rivals = decoded if decode_first else anchors[[n for _, n, _ in candidates]]
        kept = nms_by_loop(rivals, scores, iou_threshold, None if across_classes else labels)
        kept = kept[:max_detections]
        decoded = _clip(decoded, size) if clip == "after" else decoded
        rows = {"boxes": decoded[kept].float(), "scores": scores[kept].float()}
        found.append({**rows, "labels": labels[kept]})
    return found


def _clip(given: Tensor, size: tuple[int, int]) -> Tensor:
    limit = torch.tensor([size[1], size[0], size[1], size[0]])
    return given.maximum(torch.tensor(0.0)).minimum(limit)


def _logit(score: float) -> float:
    return math.log(score / (1 - score))


def _predictions(
    scores: Sequence[Sequence[float]], *levels: int, deltas: Any = None
) -> Predictions:
    """Of one image, from the scores of each anchor."""
    logits = torch.tensor([[[_logit(s) for s in row] for row in scores]])
    offsets = torch.zeros(len(scores), 4) if deltas is None else torch.tensor(deltas)
    return Predictions(logits, offsets[None], levels or (len(scores),))


def _cases() -> Iterator[Case]:
    size = [(100, 100)]
    near, nine, far = (0.0, 0, 10, 10), (0.0, 0, 9, 10), (50.0, 0, 60, 10)

    def by_hand(
        name: str, predictions: Predictions, anchors: Sequence, rows: Sequence[tuple],
        why: str = "", sizes: Sizes = size, **settings: Any,
    ) -> Case:  # fmt: skip
        found = {
            "boxes": boxes(*(row[0] for row in rows)),
            "scores": torch.tensor([row[1] for row in rows], dtype=torch.float32),
            "labels": torch.tensor([row[2] for row in rows], dtype=torch.int64),
        }
        arguments = predictions, boxes(*anchors), sizes
        return Case(name, arguments, [found], settings, why=why, atol=1e-4)

    two = _predictions([[0.2, 0.04], [0.01, 0.9]])
    yield by_hand("two anchors, two classes", two, [near, far], [(far, 0.9, 1), (near, 0.2, 0)],
                  why="sigmoid, > 0.05, decode, clip, suppress, the best first")  # fmt: skip
    quiet = _predictions([[0.04, 0.01]])
    yield by_hand("no score is high enough", quiet, [near], [],
                  why="boxes (0, 4), scores (0,), labels (0,) int64")  # fmt: skip
    both = _predictions([[0.8, 0.01], [0.01, 0.9]])
    yield by_hand("two anchors, two classes, one place", both, [near, nine],
                  [(nine, 0.9, 1), (near, 0.8, 0)], why=PER_CLASS)  # fmt: skip
    yield by_hand("one anchor, two classes", _predictions([[0.3, 0.6]]), [near],
                  [(near, 0.6, 1), (near, 0.3, 0)], why=EVERY_CLASS)  # fmt: skip
    yield by_hand("two anchors, one object", _predictions([[0.8], [0.9]]), [near, nine],
                  [(nine, 0.9, 0)], why="suppress at IoU > 0.5")  # fmt: skip
    apart = _predictions([[0.8], [0.9]], deltas=[[0.0] * 4, [2.0, 0, 0, 0]])
    yield by_hand("one anchor twice, moved apart", apart, [near, near],
                  [((20.0, 0, 30, 10), 0.9, 0), (near, 0.8, 0)], why=DECODE_FIRST)  # fmt: skip
    outside = _predictions([[0.8], [0.9]])
    wide = [(-30.0, 0, 10, 10), near]
    yield by_hand("one reaches far out of the picture", outside, wide, [(near, 0.9, 0)],
                  why=CLIP_FIRST)  # fmt: skip
    yield by_hand("over the lower right corner", _predictions([[0.9]]), [(40.0, 10, 90, 70)],
                  [((40.0, 10, 80, 60), 0.9, 0)], sizes=[(60, 80)], why=OWN_SIZE)  # fmt: skip
    half = Predictions(torch.zeros(1, 1, 1), torch.zeros(1, 1, 4), (1,))
    yield by_hand("a score exactly at the threshold", half, [near], [], score_threshold=0.5,
                  why=ABOVE)  # fmt: skip
    row = [(20.0 * i, 0.0, 20.0 * i + 10, 10.0) for i in range(4)]
    levels = _predictions([[0.9], [0.8], [0.7], [0.6]], 3, 1)
    yield by_hand("the best of each level", levels, row, [(row[0], 0.9, 0), (row[3], 0.6, 0)],
                  top_k=1, why=PER_LEVEL)  # fmt: skip
    yield by_hand("the best two of all", levels, row, [(row[0], 0.9, 0), (row[1], 0.8, 0)],
                  max_detections=2, why=AT_MOST)  # fmt: skip
    yield by_hand("one anchor, two classes, the best pair", _predictions([[0.9, 0.8]]), [near],
                  [(near, 0.9, 0)], top_k=1, why=PAIRS)  # fmt: skip
    yield by_hand("IoU threshold 0.95", _predictions([[0.8], [0.9]]), [near, nine],
                  [(nine, 0.9, 0), (near, 0.8, 0)], iou_threshold=0.95)  # fmt: skip
    yield from _larger_cases()


def _larger_cases() -> Iterator[Case]:
    def by_loop(name: str, *arguments: Any, why: str = "") -> Case:
        expected = postprocess_by_loop(*arguments)
        return Case(name, arguments, expected, why=why, atol=1e-3, rtol=1e-4)

    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    sizes = [(60, 80), (90, 40)]
    anchors = some_boxes(6, 0, 100)
    few = Predictions(noise(2, 6, 2), 0.3 * noise(2, 6, 4), (4, 2))
    yield by_loop("two images of two sizes", few, anchors, sizes, why=OWN_SIZE)
    half = Predictions(few.class_logits.half(), few.box_deltas.half(), (4, 2))
    yield by_loop("half precision", half, anchors, sizes, why="compute with .float()")
    grid = torch.arange(144)
    corner = torch.stack([grid % 12, grid // 12], dim=1) * 20.0
    places = torch.cat([corner, corner + 10], dim=1)
    many = Predictions(noise(1, 144, 1) + 2, torch.zeros(1, 144, 4), (144,))
    yield by_loop("144 objects", many, places, [(300, 300)], why=AT_MOST)
    crowd = Predictions(noise(1, 30, 40) + 3, 0.1 * noise(1, 30, 4), (24, 6))
    anchors = some_boxes(30, 1, 100)
    yield by_loop("1200 candidates on two levels", crowd, anchors, [(100, 100)],
                  why="suppress first, then keep the best 100")  # fmt: skip
    for copies, others in ((150, 20), (999, 2)):
        # The copies have the better scores; of 1001 candidates the last does not go on.
        pile = boxes((0, 0, 5, 5)).repeat(copies, 1)
        scores = torch.linspace(4, 2, copies + others).reshape(1, -1, 1)
        heap = Predictions(scores, torch.zeros(1, copies + others, 4), (copies + others,))
        yield by_loop(f"{copies} copies of a box, then {others} others", heap,
                      torch.cat([pile, places[-others:]]), [(300, 300)],
                      why="the best 1000 of a level go on, before suppression")  # fmt: skip
    spread = Predictions(noise(2, 40, 3), noise(2, 40, 4), (30, 8, 2))
    yield by_loop("random", spread, some_boxes(40, 2, 100), sizes)


def _one_an_image(value: Any) -> list[dict[str, Any]]:
    try:
        return [{k: getattr(one, k) for k in ("boxes", "scores", "labels")} for one in value]
    except (AttributeError, TypeError):
        raise ValueError(
            "a list is asked for, of one Detections(boxes, scores, labels) an image"
        ) from None


_POSTPROCESS = Piece(
    "postprocess(predictions, anchors, image_sizes)",
    _cases,
    "a loop over images, levels, anchors and classes",
    [
        Mistake(hint, partial(postprocess_by_loop, **wrong))
        for hint, wrong in (
            (ABOVE, {"above": lambda score, threshold: score >= threshold}),
            (ABOVE, {"above": lambda score, threshold: score > 0.0}),
            (EVERY_CLASS, {"best_class": True}),
            (PER_CLASS, {"across_classes": True}),
            ("suppress what overlaps by more than 0.5", {"iou_threshold": 1.0}),
            (PER_LEVEL, {"one_level": True}),
            (DECODE_FIRST, {"decode_first": False}),
            ("anchors are not boxes yet: decode the offsets", {"decode": False}),
            (CLIP_FIRST, {"clip": "after"}),
            ("clip the boxes to the picture", {"clip": "never"}),
            (OWN_SIZE, {"size_of": lambda sizes, i: sizes[0]}),
            (OWN_SIZE, {"size_of": lambda sizes, i: sizes[i][::-1]}),
            (OWN_SIZE, {"size_of": lambda sizes, i: (max(s[0] for s in sizes),
                                                     max(s[1] for s in sizes))}),
            (AT_MOST, {"max_detections": 10**9}),
            ("a score is the sigmoid of its logit", {"score": lambda z: z}),
        )
    ],
    read=_one_an_image,
)  # fmt: skip

PIECES = {_POSTPROCESS.name: _POSTPROCESS}
