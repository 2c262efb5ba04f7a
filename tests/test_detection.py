"""detection: answers worked out by hand, a naive loop beside it, and pictures of every kind."""

from __future__ import annotations

import inspect
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import count_operations
from PIL import Image
from torch import Tensor, nn

from retinanet_edu import detection
from retinanet_edu.anchors import AnchorGenerator
from retinanet_edu.detection import Picture, list_candidates, postprocess, predict, rescale
from retinanet_edu.errors import DataError
from retinanet_edu.model import RetinaNet, retinanet_resnet18
from retinanet_edu.structures import Detections, Predictions

pytestmark = pytest.mark.filterwarnings("error")
in_both_forms = pytest.mark.usefixtures("form")

NEVER = -50.0  # the logit of a score that is 0 for all purposes


def predictions(
    scores: Sequence[Sequence[float]],
    levels: Sequence[int] | None = None,
    deltas: Sequence[Sequence[float]] | None = None,
) -> Predictions:
    """Of one image, from scores (N, K) and, where boxes are not the anchors, offsets (N, 4)."""
    probabilities = torch.tensor(scores, dtype=torch.float64)
    logits = probabilities.logit().clamp(min=NEVER).float()[None]  # (1, N, K)
    offsets = torch.zeros(1, len(scores), 4) if deltas is None else torch.tensor(deltas)[None]
    return Predictions(logits, offsets, tuple(levels or [len(scores)]))


def rows(found: Detections) -> list[tuple[int, float, tuple[float, ...]]]:
    """(label, score, box) of each, rounded."""
    return [
        (label, round(score, 4), tuple(round(c, 2) for c in box))
        for label, score, box in zip(
            found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True
        )
    ]


def boxes(*rows: Sequence[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)


# --- by hand --------------------------------------------------------------------------------------

LEFT, NEAR_LEFT, RIGHT = (0, 0, 10, 10), (0, 0, 9, 10), (20, 0, 30, 10)  # IoU of the first two: 0.9


@in_both_forms
def test_what_overlaps_a_better_box_of_its_own_class_goes_and_all_else_stays() -> None:
    anchors = boxes(LEFT, NEAR_LEFT, RIGHT)
    found = postprocess(predictions([[0.9, 0.2], [0.8, 0.3], [0.06, 0.04]]), anchors, [(50, 50)])
    assert [rows(one) for one in found] == [[(0, 0.9, LEFT), (1, 0.3, NEAR_LEFT), (0, 0.06, RIGHT)]]


@in_both_forms
def test_a_score_must_be_greater_than_the_threshold() -> None:
    at = Predictions(torch.zeros(1, 1, 1), torch.zeros(1, 1, 4), (1,))  # the score is ½, exactly
    assert at.class_logits.sigmoid().item() == 0.5
    assert len(postprocess(at, boxes(LEFT), [(50, 50)], score_threshold=0.5)[0]) == 0
    assert len(postprocess(at, boxes(LEFT), [(50, 50)], score_threshold=0.49999)[0]) == 1
    above = at._replace(class_logits=at.class_logits + 1e-6)
    assert len(postprocess(above, boxes(LEFT), [(50, 50)], score_threshold=0.5)[0]) == 1


@in_both_forms
def test_boxes_at_exactly_the_iou_threshold_both_stay() -> None:
    half = (0, 0, 5, 10)  # IoU ½ with LEFT
    given = predictions([[0.9], [0.8]])
    assert len(postprocess(given, boxes(LEFT, half), [(50, 50)], iou_threshold=0.5)[0]) == 2
    assert len(postprocess(given, boxes(LEFT, half), [(50, 50)], iou_threshold=0.49)[0]) == 1


@in_both_forms
def test_the_best_pairs_of_each_level_go_on_not_the_best_of_all() -> None:
    anchors = boxes(*((30 * i, 0, 30 * i + 10, 10) for i in range(6)))
    given = predictions(
        [[0.9, 0.8], [0.7, 0.6], [0.85, 0.1], [0.3, 0.2], [0.25, 0.4], [0.1, 0.06]], levels=[3, 3]
    )
    size = [(200, 200)]
    assert [row[:2] for row in rows(postprocess(given, anchors, size, top_k=2)[0])] == [
        (0, 0.9), (0, 0.85), (1, 0.4), (0, 0.3),
    ]  # fmt: skip
    # With three, one anchor sends two of its classes on.
    three = rows(postprocess(given, anchors, size, top_k=3)[0])
    assert [row[:2] for row in three] == [
        (0, 0.9), (0, 0.85), (1, 0.8), (1, 0.4), (0, 0.3), (0, 0.25),
    ]  # fmt: skip
    assert three[2][2] == three[0][2] == tuple(anchors[0].tolist())
    assert len(postprocess(given, anchors, size, top_k=100)[0]) == 12


@in_both_forms
@pytest.mark.parametrize("step", [3, 100])  # in one place, and everywhere
def test_top_k_holds_where_little_of_a_picture_is_busy(step: int) -> None:
    """Ten scores among a thousand anchors, of which three may go on."""
    scores = [[0.0, 0.0]] * 1000
    for number in range(10):
        scores[step * number] = [0.0, 0.3 + 0.05 * number]
    side = torch.arange(1000.0)[:, None] * 20
    anchors = torch.cat([side, side, side + 10, side + 10], dim=1)  # apart: none is suppressed
    size = [(30_000, 30_000)]
    (found,) = postprocess(predictions(scores), anchors, size, top_k=3)
    assert [round(float(s), 2) for s in found.scores] == [0.75, 0.7, 0.65]
    (found,) = postprocess(predictions(scores), anchors, size, top_k=10)
    assert len(found) == 10


@in_both_forms
def test_top_k_comes_before_suppression() -> None:
    given = predictions([[0.9], [0.8], [0.7]])
    anchors = boxes(LEFT, NEAR_LEFT, RIGHT)
    assert [row[1] for row in rows(postprocess(given, anchors, [(50, 50)], top_k=2)[0])] == [0.9]


@in_both_forms
def test_boxes_are_decoded_before_suppression() -> None:
    # Side by side as anchors, one on top of the other as boxes: dx of 2 is two widths.
    given = predictions([[0.9], [0.8]], deltas=[[0.0, 0, 0, 0], [-2.0, 0, 0, 0]])
    assert rows(postprocess(given, boxes(LEFT, RIGHT), [(50, 50)])[0]) == [(0, 0.9, LEFT)]
    # And the other way round. dw = ln 2 makes twice the width about the same centre.
    given = predictions([[0.9], [0.8]], deltas=[[0.0, 0, 0, 0], [2.0, 0.5, math.log(2), 0]])
    assert rows(postprocess(given, boxes(LEFT, LEFT), [(50, 50)])[0]) == [
        (0, 0.9, LEFT),
        (0, 0.8, (15.0, 5.0, 35.0, 15.0)),
    ]


@in_both_forms
def test_boxes_are_clipped_to_each_images_own_size_before_suppression() -> None:
    anchors = boxes((-10, -5, 12, 8), (30, 20, 60, 45))
    one = predictions([[0.9], [0.8]])
    both = Predictions(*(t.repeat(2, 1, 1) for t in one[:2]), one.anchors_per_level)
    first, second = postprocess(both, anchors, [(40, 50), (25, 80)])  # (H, W)
    assert rows(first) == [(0, 0.9, (0, 0, 12, 8)), (0, 0.8, (30, 20, 50, 40))]
    assert rows(second) == [(0, 0.9, (0, 0, 12, 8)), (0, 0.8, (30, 20, 60, 25))]
    # Two boxes that differ only outside are the same box inside.
    anchors = boxes((-40, 0, 10, 10), (0, 0, 10, 10))
    assert rows(postprocess(one, anchors, [(40, 50)])[0]) == [(0, 0.9, LEFT)]


@in_both_forms
def test_classes_do_not_suppress_each_other_at_negative_coordinates() -> None:
    # Widely known code moves class k by k times the largest coordinate, which fails here.
    anchors = boxes((-101, -101, -1, -1), (-101, -101, -1, -1))
    found = postprocess(predictions([[0.9, 0.0], [0.0, 0.8]]), anchors, [(50, 50)])[0]
    assert found.labels.tolist() == [0, 1]


@in_both_forms
def test_at_most_so_many_and_the_best() -> None:
    anchors = boxes(*((30 * i, 0, 30 * i + 10, 10) for i in range(5)))
    given = predictions([[0.3], [0.9], [0.5], [0.7], [0.4]])
    found = postprocess(given, anchors, [(200, 200)], max_detections=3)[0]
    assert [row[1] for row in rows(found)] == [0.9, 0.7, 0.5]
    assert found.boxes[:, 0].tolist() == [30, 90, 60]
    assert len(postprocess(given, anchors, [(200, 200)])[0]) == 5


def test_the_defaults_are_the_papers_and_cocos() -> None:
    defaults = {
        name: p.default
        for name, p in inspect.signature(postprocess).parameters.items()
        if p.kind is p.KEYWORD_ONLY
    }
    assert defaults == {
        "score_threshold": 0.05,
        "top_k": 1000,
        "iou_threshold": 0.5,
        "max_detections": 100,
    }


@in_both_forms
def test_a_hundred_are_kept_by_default_and_a_thousand_pairs_a_level_go_on() -> None:
    anchors = boxes(*((20 * i, 0, 20 * i + 10, 10) for i in range(1200)))
    scores = [[0.9 - i / 10_000] for i in range(1200)]
    size = [(20, 30_000)]
    assert len(postprocess(predictions(scores), anchors, size)[0]) == 100
    many = postprocess(predictions(scores), anchors, size, max_detections=5000)[0]
    assert len(many) == 1000
    two_levels = postprocess(predictions(scores, [600, 600]), anchors, size, max_detections=5000)
    assert len(two_levels[0]) == 1200


@pytest.mark.parametrize("levels", [[2, 1], [3, 0]])
@in_both_forms
def test_nothing_found_is_a_value_like_any_other(levels: list[int]) -> None:
    nothing = predictions([[0.01, 0.02], [0.05 - 1e-6, 0.0], [0.03, 0.0]], levels=levels)
    found = postprocess(nothing, boxes(LEFT, NEAR_LEFT, RIGHT), [(50, 50)])
    assert len(found) == 1
    assert len(found[0]) == 0
    assert found[0].boxes.shape == (0, 4)
    assert found[0].scores.shape == found[0].labels.shape == (0,)
    dtypes = (found[0].boxes.dtype, found[0].scores.dtype, found[0].labels.dtype)
    assert dtypes == (torch.float32, torch.float32, torch.int64)


@in_both_forms
def test_no_images_have_no_detections() -> None:
    none = Predictions(torch.zeros(0, 2, 3), torch.zeros(0, 2, 4), (2,))
    assert postprocess(none, boxes(LEFT, RIGHT), []) == []


@in_both_forms
def test_a_score_of_0_counts_where_the_threshold_is_below_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(detection, "_FIRST", 1)  # what is left then has a score of 0
    given = Predictions(torch.tensor([[[0.0, -120.0, -120.0]]]), torch.zeros(1, 1, 4), (1,))
    (found,) = postprocess(given, boxes(LEFT), [(50, 50)], score_threshold=-1.0)
    assert found.scores.tolist() == [0.5, 0, 0]
    candidates, _ = list_candidates(given, boxes(LEFT), (50, 50), score_threshold=-1.0)
    assert candidates.scores.tolist() == [0.5, 0, 0]


@in_both_forms
def test_candidates_come_once_each_with_their_anchor_and_clipped() -> None:
    """Three of 400 anchors say something, one of them twice; two levels, the better first."""
    scores = [[0.0, 0.0, 0.0]] * 400
    scores[7], scores[8], scores[390] = [0.6, 0.0, 0.8], [0.0, 0.05, 0.0], [0.04, 0.7, 0.0]
    anchors = boxes(*((i, 0, i + 10, 20) for i in range(400)))
    deltas = [[0.0, 0.0, 0.0, 0.0] for _ in scores]
    deltas[390] = [-1.0, 0.5, math.log(2), 0.0]  # a width to the left, half a height down, wider
    given = predictions(scores, levels=[300, 100], deltas=deltas)
    found, origins = list_candidates(given, anchors, (25, 399))
    assert rows(found) == [
        (2, 0.8, (7, 0, 17, 20)),
        (1, 0.7, (375, 10, 395, 25)),
        (0, 0.6, (7, 0, 17, 20)),
    ]
    assert origins.tolist() == [7, 390, 7]
    best, origins = list_candidates(given, anchors, (25, 399), score_threshold=0.65, top_k=1)
    assert rows(best) == rows(found)[:2]
    assert origins.tolist() == [7, 390]


@in_both_forms
def test_sizes_and_anchors_must_fit() -> None:
    given = predictions([[0.9], [0.8]])
    with pytest.raises(ValueError, match="2 image sizes for 1 images"):
        postprocess(given, boxes(LEFT, RIGHT), [(50, 50), (50, 50)])
    with pytest.raises(ValueError, match="3 anchors, but predictions are of 2"):
        postprocess(given, boxes(LEFT, RIGHT, RIGHT), [(50, 50)])


# --- against a naive loop -------------------------------------------------------------------------


def naive(
    logits: list[list[float]],
    deltas: list[list[float]],
    anchors: list[list[float]],
    levels: Sequence[int],
    size: tuple[int, int],
    score_threshold: float,
    top_k: int,
    iou_threshold: float,
    max_detections: int,
) -> list[tuple[int, float, list[float]]]:
    """One image, one pair at a time, in Python's floats."""

    def iou(a: list[float], b: list[float]) -> float:
        width = min(a[2], b[2]) - max(a[0], b[0])
        height = min(a[3], b[3]) - max(a[1], b[1])
        common = max(width, 0) * max(height, 0)
        both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
        return common / both if both > 0 else 0.0

    candidates = []
    start = 0
    for count in levels:
        level = []
        for n in range(start, start + count):
            for label, logit in enumerate(logits[n]):
                score = 1 / (1 + math.exp(-logit))
                if score > score_threshold:
                    level.append((score, n, label))
        start += count
        candidates += sorted(level, reverse=True)[:top_k]

    decoded = []
    for score, n, label in candidates:
        x1, y1, x2, y2 = anchors[n]
        dx, dy, dw, dh = deltas[n]
        x, y = (x1 + x2) / 2 + dx * (x2 - x1), (y1 + y2) / 2 + dy * (y2 - y1)
        width = (x2 - x1) * math.exp(min(dw, math.log(1000 / 16)))
        height = (y2 - y1) * math.exp(min(dh, math.log(1000 / 16)))
        corners = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        limits = (size[1], size[0], size[1], size[0])
        decoded.append((score, label, [min(max(c, 0), m) for c, m in zip(corners, limits)]))

    kept: list[tuple[float, int, list[float]]] = []
    for score, label, box in sorted(decoded, key=lambda d: -d[0]):
        if all(other != label or iou(box, b) <= iou_threshold for _, other, b in kept):
            kept.append((score, label, box))
    return [(label, score, box) for score, label, box in kept[:max_detections]]


def random_case(seed: int) -> tuple[Predictions, Tensor, list[tuple[int, int]]]:
    """Three images, two levels, four classes; boxes that crowd and reach outside."""
    g = torch.Generator().manual_seed(seed)
    levels = (90, 30)
    corner = torch.rand(sum(levels), 2, generator=g) * 80 - 10
    anchors = torch.cat([corner, corner + 5 + 40 * torch.rand(len(corner), 2, generator=g)], dim=1)
    logits = 2 * torch.randn(3, sum(levels), 4, generator=g) - 2
    deltas = torch.randn(3, sum(levels), 4, generator=g) * torch.tensor([0.2, 0.2, 0.5, 0.5])
    deltas[:, ::17, 2:] += 6  # beyond the clamp
    return Predictions(logits, deltas, levels), anchors, [(64, 80), (80, 64), (30, 90)]


def assert_naive(given: Predictions, anchors: Tensor, sizes: list, **settings: float) -> int:
    found = postprocess(given, anchors, sizes, **settings)
    assert len(found) == len(sizes)
    for b, (one, size) in enumerate(zip(found, sizes, strict=True)):
        expected = naive(
            given.class_logits[b].double().tolist(),
            given.box_deltas[b].double().tolist(),
            anchors.double().tolist(),
            given.anchors_per_level,
            size,
            **settings,
        )
        assert one.labels.tolist() == [label for label, _, _ in expected]
        scores = torch.tensor([score for _, score, _ in expected])
        torch.testing.assert_close(one.scores, scores, rtol=1e-5, atol=1e-6)
        corners = torch.tensor([box for _, _, box in expected]).reshape(-1, 4)
        torch.testing.assert_close(one.boxes, corners, rtol=1e-4, atol=1e-3)
        assert one.boxes.dtype == one.scores.dtype == torch.float32
        assert one.labels.dtype == torch.int64
    return sum(len(one) for one in found)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("settings", "at_least"),
    [
        ({}, 100),
        ({"score_threshold": 0.3}, 50),
        ({"top_k": 15}, 30),
        ({"iou_threshold": 0.2}, 50),
        ({"iou_threshold": 1.0, "max_detections": 10_000}, 300),
        ({"max_detections": 7}, 21),
        ({"score_threshold": 0.999}, 0),
    ],
)
@in_both_forms
def test_a_loop_over_single_pairs_finds_the_same(seed: int, settings: dict, at_least: int) -> None:
    defaults = {"score_threshold": 0.05, "top_k": 1000, "iou_threshold": 0.5, "max_detections": 100}
    assert assert_naive(*random_case(seed), **(defaults | settings)) >= at_least


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@in_both_forms
def test_half_precision_is_read_as_it_is_and_reckoned_in_float32(dtype: torch.dtype) -> None:
    given, anchors, sizes = random_case(7)
    # Rounded to 8 bits many scores would tie, and then any order is right: take distinct ones.
    distinct = torch.linspace(-7, 4, 20_000).to(dtype).unique()
    order = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(0))
    logits = distinct[order[: given.class_logits[0].numel()]].view(120, 4).expand(3, 120, 4)
    given = Predictions(logits, given.box_deltas.to(dtype), (90, 30))
    settings = {"score_threshold": 0.05, "top_k": 100, "iou_threshold": 0.5, "max_detections": 100}
    assert assert_naive(given, anchors, sizes, **settings) > 100


@in_both_forms
def test_predictions_and_anchors_are_left_as_they_were() -> None:
    given, anchors, sizes = random_case(1)
    before = [t.clone() for t in (*given[:2], anchors)]
    postprocess(given, anchors, sizes)
    assert all(torch.equal(a, b) for a, b in zip(before, (*given[:2], anchors), strict=True))


def crowd(batch: int, spread: float, mean: float) -> tuple[Predictions, Tensor, list]:
    """Images of 1,500 anchors in three levels and 5 classes; many boxes, most apart."""
    g = torch.Generator().manual_seed(batch)
    levels = (1000, 396, 104)
    corner = torch.rand(sum(levels), 2, generator=g) * 900
    anchors = torch.cat([corner, corner + 10 + 30 * torch.rand(len(corner), 2, generator=g)], dim=1)
    logits = spread * torch.randn(batch, sum(levels), 5, generator=g) + mean
    deltas = 0.1 * torch.randn(batch, sum(levels), 4, generator=g)
    return Predictions(logits, deltas, levels), anchors, [(900, 950)] * batch


@in_both_forms
@pytest.mark.parametrize(("mean", "at_least"), [(-6.0, 10), (-4.0, 100), (0.0, 400)])
@pytest.mark.parametrize("first", [1, 60, 500])
def test_few_candidates_and_many_and_however_many_are_suppressed_first(
    mean: float, at_least: int, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two images with 8, 300 and 7,000 pairs above the threshold, about."""
    monkeypatch.setattr(detection, "_FIRST", first)
    settings = {"score_threshold": 0.05, "top_k": 400, "iou_threshold": 0.5, "max_detections": 200}
    assert assert_naive(*crowd(2, 1.3, mean), **settings) >= at_least


@in_both_forms
@pytest.mark.parametrize("threshold", [-1.0, 0.0, 1e-7, 0.5, 1 - 1e-6, 1.0, 2.0])
def test_no_threshold_is_too_low_or_too_high(threshold: float) -> None:
    logits = torch.tensor([[[-120.0, -16.2, -16.0], [0.0, 1e-6, 13.0], [14.0, 17.0, 90.0]]])
    given = Predictions(logits, torch.zeros(1, 3, 4), (3,))
    anchors = boxes((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10))
    (found,) = postprocess(given, anchors, [(60, 60)], score_threshold=threshold)
    expected = sorted((logits.sigmoid()[logits.sigmoid() > threshold]).tolist(), reverse=True)
    assert found.scores.tolist() == expected


@pytest.mark.parametrize("mean", [-6.0, 0.0])
def test_a_gpu_has_few_operations_to_do_for_a_batch_of_8(
    mean: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "is_on_cpu", lambda values: False)
    generator = AnchorGenerator()
    levels = tuple(9 * rows * columns for rows, columns in generator.grid_sizes((256, 256)))
    g = torch.Generator().manual_seed(0)
    given = Predictions(
        1.3 * torch.randn(8, sum(levels), 20, generator=g) + mean,
        0.1 * torch.randn(8, sum(levels), 4, generator=g),
        levels,
    )
    anchors, sizes = generator((256, 256)), [(256, 256)] * 8
    counted = count_operations(lambda: postprocess(given, anchors, sizes))
    assert 50 < counted.total() <= 120


# --- predict --------------------------------------------------------------------------------------

COLOURS = ("red", "green", "blue")


class Finder(RetinaNet):
    """Finds by counting pixels what is brighter than the rest: one box an image, by its colour."""

    def __init__(self, image_size: int = 128) -> None:
        backbone = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
        backbone.out_channels = (2, 2, 2)
        super().__init__(
            backbone, 3, channels=8, head_convs=1, classes=COLOURS, image_size=image_size
        )
        self.seen: list[tuple[int, ...]] = []
        self.modes: list[bool] = []

    def forward(self, images: Tensor) -> Predictions:
        self.seen.append(tuple(images.shape))
        self.modes.append(any(m.training for m in self.modules()))
        anchors = self.anchors((images.shape[-2], images.shape[-1]))
        centre = (anchors[:, :2] + anchors[:, 2:]) / 2
        logits = torch.full((len(images), len(anchors), 3), NEVER)
        deltas = torch.zeros(len(images), len(anchors), 4)
        for b, image in enumerate(images):
            channel, y, x = (image > 1).nonzero(as_tuple=True)
            if len(x) == 0:
                continue
            low = torch.stack([x.min(), y.min()]).float()
            high = torch.stack([x.max(), y.max()]).float() + 1
            n = (centre - (low + high) / 2).square().sum(dim=1).argmin()  # any would do
            side = anchors[n, 2:] - anchors[n, :2]
            deltas[b, n] = torch.cat(
                [((low + high) / 2 - centre[n]) / side, ((high - low) / side).log()]
            )
            logits[b, n, channel.mode().values] = 4 + b / 8
        levels = tuple(9 * h * w for h, w in self.anchor_generator.grid_sizes(images.shape[-2:]))
        return Predictions(logits, deltas, levels)


def picture(
    size: tuple[int, int], box: tuple[int, int, int, int] | None, colour: str = "red"
) -> Tensor:
    """A rectangle of one colour on black, uint8 (3, H, W)."""
    image = torch.zeros(3, *size, dtype=torch.uint8)
    if box is not None:
        x1, y1, x2, y2 = box
        image[COLOURS.index(colour), y1:y2, x1:x2] = 255
    return image


def as_array(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


CASES = [
    ((200, 300), (30, 120, 90, 180), "red"),
    ((300, 200), (110, 20, 180, 260), "green"),
    ((64, 512), (400, 8, 480, 60), "blue"),
    ((50, 40), (10, 20, 30, 40), "green"),  # is enlarged
    ((333, 251), (0, 0, 251, 333), "blue"),  # fills the picture
]


def assert_found(found: Detections, case: tuple, image_size: int = 128) -> None:
    size, box, colour = case
    assert found.labels.tolist() == [COLOURS.index(colour)]
    scale = max(size) / image_size  # a pixel that the network saw, in pixels of the picture
    torch.testing.assert_close(found.boxes, boxes(box), rtol=0, atol=max(scale, 1) + 0.01)
    assert found.boxes.min() >= 0
    assert (found.boxes <= boxes((size[1], size[0], size[1], size[0]))).all()


@pytest.mark.parametrize("case", CASES)
def test_boxes_are_in_pixels_of_the_picture_as_it_was_given(case: tuple) -> None:
    model = Finder()
    found = predict(model, picture(*case))
    assert isinstance(found, Detections)
    assert_found(found, case)


def test_a_path_a_picture_an_array_and_a_tensor_are_the_same(tmp_path: Path) -> None:
    case = CASES[0]
    image = picture(*case)
    array = as_array(image)
    path = tmp_path / "one.png"
    Image.fromarray(array).save(path)
    kinds: list[Picture] = [
        image,
        array,
        array[:, ::-1][:, ::-1],  # a view with strides of its own
        Image.fromarray(array),
        Image.fromarray(array).convert("RGBA"),
        Image.open(path),
        path,
        str(path),
    ]
    found = predict(Finder(), kinds)
    assert len(found) == len(kinds)
    for one in found:
        assert_found(one, case)
        assert torch.equal(one.boxes, found[0].boxes)
    for kind in kinds:
        alone = predict(Finder(), kind)
        assert torch.equal(alone.boxes, found[0].boxes)
        assert torch.equal(alone.labels, found[0].labels)


def test_a_grey_picture_is_seen_in_all_three_channels() -> None:
    model = Finder()
    grey = Image.fromarray(as_array(picture((60, 80), (10, 10, 40, 50)))[..., 0])
    assert grey.mode == "L"
    torch.testing.assert_close(
        predict(model, grey).boxes, boxes((10, 10, 40, 50)), rtol=0, atol=1.01
    )


def test_one_picture_gives_one_value_and_a_list_gives_a_list() -> None:
    model, image = Finder(), picture(*CASES[0])
    assert isinstance(predict(model, image), Detections)
    for several in ([image], (image,), [image, image]):
        found = predict(model, several)
        assert isinstance(found, list)
        assert len(found) == len(several)
    assert predict(model, []) == []


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_pictures_of_all_sizes_keep_their_order_in_batches_of_any_size(batch_size: int) -> None:
    model = Finder(image_size=256)  # pads to several sizes, which cannot share a batch
    cases = [*CASES, ((200, 300), None, "red"), *CASES[::-1], CASES[0], CASES[0]]
    found = predict(model, [picture(*case) for case in cases], batch_size=batch_size)
    assert len(found) == len(cases)
    for one, case in zip(found, cases, strict=True):
        if case[1] is None:
            assert len(one) == 0
        else:
            assert_found(one, case, 256)
    assert len({shape[2:] for shape in model.seen}) > 1
    assert max(shape[0] for shape in model.seen) <= batch_size
    assert sum(shape[0] for shape in model.seen) == len(cases)


def random_model() -> RetinaNet:
    """Of random weights, that finds something everywhere."""
    torch.manual_seed(0)
    model = retinanet_resnet18(
        2, width=0.25, channels=16, head_convs=2, group_norm=True, prior=0.1, image_size=128
    )
    with torch.no_grad():
        for layer in (*model.backbone.modules(), model.classification_head.output):
            if isinstance(layer, nn.BatchNorm2d):
                layer.bias.uniform_(0.1, 0.5)  # so that padding is not black after the first layer
        model.classification_head.output.weight.mul_(10)
        model.box_head.output.weight.mul_(3)
    return model.eval()


@pytest.mark.parametrize("batch_size", [2, 8])
def test_what_is_found_in_a_picture_does_not_depend_on_the_others(batch_size: int) -> None:
    model = random_model()
    g = torch.Generator().manual_seed(0)
    sizes = [(128, 100), (60, 128), (128, 128), (40, 40), (100, 300), (128, 100)]
    pictures = [torch.randint(256, (3, *s), generator=g, dtype=torch.uint8) for s in sizes]
    settings = {"max_detections": 1000, "image_size": 256}
    together = predict(model, pictures, batch_size=batch_size, **settings)
    for image, one in zip(pictures, together, strict=True):
        alone = predict(model, image, **settings)
        assert len(one) > 20
        torch.testing.assert_close(one.scores, alone.scores, rtol=1e-3, atol=1e-5)
        # Rounding may exchange neighbours with nearly equal scores: look for each anywhere.
        near = torch.cdist(one.boxes, alone.boxes, p=float("inf")) < 0.05  # (D, D')
        same = near & (one.labels[:, None] == alone.labels)
        assert same.any(dim=1).float().mean() > 0.99


def test_pictures_are_scaled_to_the_models_size_or_to_the_given_one_and_padded() -> None:
    model = Finder(image_size=200)
    image = picture((100, 300), (30, 20, 90, 80))
    predict(model, image)
    assert model.seen == [(1, 3, 96, 224)]  # 67 × 200, to multiples of 32
    assert_found(predict(model, image, image_size=600), ((100, 300), (30, 20, 90, 80), "red"), 600)
    assert model.seen[1] == (1, 3, 224, 608)
    predict(model, [image], image_size=120)
    assert model.seen[2] == (1, 3, 64, 128)
    assert model.image_size == 200


@in_both_forms
def test_settings_go_to_postprocess() -> None:
    model = random_model()
    image = torch.randint(256, (3, 64, 64), dtype=torch.uint8)
    everything = predict(model, image)
    few = predict(model, image, max_detections=3)
    assert len(everything) > len(few) == 3
    assert torch.equal(few.scores, everything.scores[:3])
    middle = everything.scores[len(everything) // 2].item()
    sure = predict(model, [image], score_threshold=middle)[0]
    assert 0 < len(sure) < len(everything)
    assert sure.scores.min() > middle
    with pytest.raises(TypeError, match="treshold"):
        predict(model, image, score_treshold=0.5)


def test_every_part_of_the_model_gets_its_mode_back() -> None:
    model = Finder()
    image = picture(*CASES[0])
    for mode in (True, False):
        model.train(mode)
        predict(model, [image, image], batch_size=1)
        assert all(m.training == mode for m in model.modules())
    model.train()
    model.backbone.eval()  # as somebody does who keeps a norm's statistics
    predict(model, image)
    assert model.training
    assert model.fpn.training
    assert not any(m.training for m in model.backbone.modules())
    with pytest.raises(DataError):
        predict(model, "nowhere.jpg")
    assert model.training
    assert not any(m.training for m in model.backbone.modules())
    assert model.modes
    assert not any(model.modes)  # while it predicts, all of it is in evaluation mode


def test_nothing_is_learned_and_what_comes_out_is_an_ordinary_tensor() -> None:
    model = random_model().train()
    state = {n: t.clone() for n, t in model.state_dict().items()}
    found = predict(model, torch.randint(256, (3, 64, 64), dtype=torch.uint8))
    assert all(torch.equal(t, state[n]) for n, t in model.state_dict().items())
    assert len(found) > 0
    for tensor in (found.boxes, found.scores):
        assert not tensor.requires_grad
        assert not tensor.is_inference()
        assert tensor.device.type == "cpu"
    found.boxes[:, 0] += 1  # as a reader does
    # The model trains on as if nothing had been.
    anchors = model.anchors((128, 128))
    loss = (model(torch.randn(2, 3, 128, 128)).box_deltas * anchors[:, :1]).sum()
    loss.backward()
    assert model.box_head.output.bias.grad is not None


def _missing(folder: Path) -> Picture:
    return folder / "missing.jpg"


def _cut_short(folder: Path) -> Path:
    path = folder / "short.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    return path


def _cut_short_but_open(folder: Path) -> Picture:
    return Image.open(io.BytesIO(_cut_short(folder).read_bytes()))


def _text(folder: Path) -> Picture:
    (folder / "text.png").write_text("no picture")
    return str(folder / "text.png")


def _floats(folder: Path) -> Picture:
    return np.zeros((20, 30, 3))


def _grey_array(folder: Path) -> Picture:
    return np.zeros((20, 30), np.uint8)


def _four_channels(folder: Path) -> Picture:
    return np.zeros((20, 30, 4), np.uint8)


def _channels_last(folder: Path) -> Picture:
    return torch.zeros(20, 30, 3, dtype=torch.uint8)


def _batch(folder: Path) -> Picture:
    return torch.zeros(2, 3, 20, 30, dtype=torch.uint8)


def _no_pixels(folder: Path) -> Picture:
    return torch.zeros(3, 0, 30, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_missing, r"missing\.jpg"),
        (_cut_short, r"short\.jpg"),
        (_cut_short_but_open, r"picture 2: cannot be read"),
        (_text, r"text\.png"),
        (_floats, r"picture 2: .*ndarray of torch\.float64 and shape \(20, 30, 3\)"),
        (_grey_array, r"picture 2: .*shape \(20, 30\)"),
        (_four_channels, r"picture 2: .*shape \(20, 30, 4\)"),
        (_channels_last, r"picture 2: .*Tensor of torch\.uint8 and shape \(20, 30, 3\)"),
        (_batch, r"picture 2: .*shape \(2, 3, 20, 30\)"),
        (_no_pixels, r"picture 2: .*shape \(3, 0, 30\)"),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_picture_that_cannot_be_used_is_named(
    tmp_path: Path, make: Callable[[Path], Picture], message: str, batch_size: int
) -> None:
    good = picture(*CASES[0])
    with pytest.raises(DataError, match=message):
        predict(Finder(), [good, good, make(tmp_path)], batch_size=batch_size)
    with pytest.raises(DataError, match=message.replace("2:", "0:")):
        predict(Finder(), make(tmp_path))


def test_detections_are_rescaled_by_hand() -> None:
    seen = Detections(boxes((10, 20, 30, 40)), torch.tensor([0.5]), torch.tensor([2]))
    found = rescale(seen, (100, 50), (200, 25))  # (H, W): twice as high, half as wide
    assert found.boxes.tolist() == [[5, 40, 15, 80]]
    assert found.scores is seen.scores
    assert found.labels is seen.labels


def test_a_box_that_fills_the_picture_does_not_reach_over_its_edge_by_rounding() -> None:
    for side in range(300, 400):
        seen = Detections(boxes((0, 0, 128, 128)), torch.ones(1), torch.zeros(1).long())
        assert rescale(seen, (128, 128), (side, side)).boxes.max() == side


def test_a_picture_of_16_bits_is_the_same_as_from_its_file(tmp_path: Path) -> None:
    model = random_model()
    values = np.random.default_rng(0).integers(0, 65536, (96, 80), dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    from_file = predict(model, tmp_path / "deep.png", score_threshold=0)
    from_picture = predict(model, Image.fromarray(values), score_threshold=0)
    assert len(from_file) > 0
    assert torch.equal(from_file.boxes, from_picture.boxes)
    assert torch.equal(from_file.scores, from_picture.scores)


@pytest.mark.parametrize(
    ("dtype", "logit", "threshold"),
    [(torch.bfloat16, -2.9375, 0.05), (torch.float16, -0.8472, 0.3)],
)
def test_half_precision_loses_nothing_at_the_threshold(
    dtype: torch.dtype, logit: float, threshold: float
) -> None:
    logits = torch.full((1, 64, 1), -9.0)
    logits[0, 5] = logit
    logits = logits.to(dtype)
    assert logits[0, 5].float().sigmoid() > threshold
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).expand(64, 4)
    predictions = Predictions(logits, torch.zeros(1, 64, 4), (64,))
    found = postprocess(predictions, anchors, [(20, 20)], score_threshold=threshold)
    assert len(found[0]) == 1


def test_a_batch_of_less_than_one_is_refused() -> None:
    model = retinanet_resnet18(1, width=0.125, channels=8, head_convs=0)
    with pytest.raises(ValueError, match="at least 1"):
        predict(model, [np.zeros((32, 32, 3), np.uint8)], batch_size=-1)
