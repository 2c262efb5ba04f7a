"""suppression: a plain loop in exact arithmetic, and torchvision's nms and batched_nms."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou
from torchvision.ops import nms as torchvision_nms

from retinanet_edu.suppression import nms, nms_per_class

pytestmark = pytest.mark.filterwarnings("error")

# The first 10 × 1, the others strips of it: their IoU with it is their length / 10.
STRIPS = torch.tensor([[0.0, 0, length, 1] for length in (10, 9, 6, 5, 4)])


def random_boxes(count: int, seed: int, span: float = 100) -> tuple[Tensor, Tensor]:
    """Crowded float boxes around the origin and their scores, no two equal."""
    g = torch.Generator().manual_seed(seed)
    corner = span * (torch.rand(count, 2, generator=g) - 0.7)
    boxes = torch.cat([corner, corner + span * (0.2 + torch.rand(count, 2, generator=g))], dim=1)
    return boxes, torch.randperm(count, generator=g) / count


def whole_boxes(count: int, seed: int, classes: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Whole numbers, negative ones too, and few scores: overlaps and scores tie often."""
    g = torch.Generator().manual_seed(seed)
    corner = torch.randint(-5, 1, (count, 2), generator=g)
    boxes = torch.cat([corner, corner + torch.randint(2, 6, (count, 2), generator=g)], dim=1)
    scores = torch.randint(1, 8, (count,), generator=g) / 8
    return boxes.float(), scores, torch.randint(0, classes, (count,), generator=g)


def fraction_iou(a: list[float], b: list[float]) -> Fraction:
    def area(x1: float, y1: float, x2: float, y2: float) -> int:
        return max(int(x2 - x1), 0) * max(int(y2 - y1), 0)

    shared = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    return Fraction(shared, area(*a) + area(*b) - shared)


def suppress_by_loop(
    boxes: Tensor, scores: Tensor, threshold: Fraction, labels: Tensor | None = None
) -> list[int]:
    rows, classes = boxes.tolist(), [0] * len(boxes) if labels is None else labels.tolist()
    kept: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: (-scores[i].item(), i)):
        if all(
            classes[i] != classes[k] or fraction_iou(rows[i], rows[k]) <= threshold for k in kept
        ):
            kept.append(i)
    return kept


# --- one class ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("threshold", "kept"),
    [
        (0.5, [0, 3]),  # exactly half is not more than half
        (0.4999, [0, 4]),
        (0.6, [0, 2]),  # nor is 6/10 more than 0.6, though in float32 it is
        (0.4, [0, 4]),
        (0.3999, [0]),
        (0.8, [0, 2, 4]),  # 5/6 of the third is more
        (0.9, [0, 1, 2, 3, 4]),
    ],
)
def test_by_hand_with_the_threshold_met_exactly(threshold: float, kept: list[int]) -> None:
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    assert nms(STRIPS, scores, threshold).tolist() == kept
    assert nms_per_class(STRIPS, scores, torch.zeros(5).long(), threshold).tolist() == kept


def test_by_hand_a_chain() -> None:
    """The second goes because of the first; the third would only have gone because of it."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10], [4, 0, 14, 10]])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 2]
    # With the middle one the best, both others go.
    assert nms(boxes, torch.tensor([0.7, 0.9, 0.8]), 0.5).tolist() == [1]
    assert nms(boxes, torch.tensor([0.7, 0.8, 0.9]), 0.5).tolist() == [2, 0]


def test_of_equal_scores_the_first_box_goes_first() -> None:
    box = torch.tensor([[0.0, 0, 10, 10]])
    assert nms(box.repeat(4, 1), torch.tensor([0.5, 0.7, 0.7, 0.7]), 0.5).tolist() == [1]
    apart = torch.tensor([[20.0 * i, 0, 20 * i + 10, 10] for i in range(50)])
    assert nms(apart, torch.full((50,), 0.5), 0.5).tolist() == list(range(50))


@pytest.mark.parametrize("threshold", ["0.5", "0.4", "0.6", "0.25", "0.3", "0", "1"])
@pytest.mark.parametrize("seed", range(3))
def test_kept_are_those_of_a_plain_loop_in_exact_arithmetic(seed: int, threshold: str) -> None:
    boxes, scores, _ = whole_boxes(80, seed)
    expected = suppress_by_loop(boxes, scores, Fraction(threshold))
    assert (len(expected) < 70) == (threshold != "1")
    assert nms(boxes, scores, float(threshold)).tolist() == expected


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.7])
@pytest.mark.parametrize("seed", range(3))
def test_kept_are_torchvisions(seed: int, threshold: float) -> None:
    boxes, scores = random_boxes(200, seed)
    expected = torchvision_nms(boxes, scores, threshold)
    assert 5 < len(expected) < 190
    kept = nms(boxes, scores, threshold)
    assert torch.equal(kept, expected)
    assert kept.dtype == torch.int64


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.7])
@pytest.mark.parametrize("seed", range(3))
def test_laws_of_suppression(seed: int, threshold: float) -> None:
    boxes, scores = random_boxes(200, seed)
    kept = nms(boxes, scores, threshold)
    assert (scores[kept].diff() < 0).all()
    iou = box_iou(boxes.double(), boxes.double())
    among = iou[kept][:, kept].fill_diagonal_(0)
    assert among.max() <= threshold
    dropped = torch.ones(200, dtype=torch.bool)
    dropped[kept] = False
    assert dropped.any()
    better = scores[kept] > scores[dropped][:, None]  # (dropped, kept)
    assert ((iou[dropped][:, kept] > threshold) & better).any(dim=1).all()


def test_no_boxes_and_one_box() -> None:
    none, no_scores, no_labels = torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long()
    for kept in (nms(none, no_scores, 0.5), nms_per_class(none, no_scores, no_labels, 0.5)):
        assert kept.shape == (0,)
        assert kept.dtype == torch.int64
    assert nms(STRIPS[:1], torch.tensor([0.1]), 0.5).tolist() == [0]
    assert nms_per_class(STRIPS[:1], torch.tensor([0.1]), torch.tensor([7]), 0.5).tolist() == [0]


def test_boxes_without_area_overlap_nothing() -> None:
    point = torch.tensor([[3.0, 3, 3, 3]] * 3)
    scores = torch.tensor([0.5, 0.9, 0.7])
    assert nms(point, scores, 0.5).tolist() == [1, 2, 0]
    assert nms_per_class(point, scores, torch.zeros(3).long(), 0.5).tolist() == [1, 2, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types(dtype: torch.dtype) -> None:
    boxes, scores, labels = whole_boxes(60, 0, classes=3)
    boxes = 64 * boxes  # areas beyond float16
    expected = suppress_by_loop(boxes, scores, Fraction(1, 2))
    assert nms(boxes.to(dtype), scores.to(dtype), 0.5).tolist() == expected
    expected = suppress_by_loop(boxes, scores, Fraction(1, 2), labels)
    assert nms_per_class(boxes.to(dtype), scores.to(dtype), labels, 0.5).tolist() == expected


def test_scores_that_only_float64_tells_apart_keep_their_order() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 2).double()
    scores = torch.tensor([0.5, 0.5 + 1e-12], dtype=torch.float64)
    assert nms(boxes, scores, 0.5).tolist() == [1]
    assert nms_per_class(boxes, scores, torch.zeros(2).long(), 0.5).tolist() == [1]


# --- per class ------------------------------------------------------------------------------------


def test_a_cat_does_not_suppress_its_sofa() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 4)
    scores, labels = torch.tensor([0.6, 0.9, 0.8, 0.7]), torch.tensor([1, 0, 1, 0])
    assert nms_per_class(boxes, scores, labels, 0.5).tolist() == [1, 2]
    assert nms(boxes, scores, 0.5).tolist() == [1]


def test_a_box_at_negative_coordinates_survives_a_box_of_another_class() -> None:
    """Class 1 moved by the largest coordinate + 1 = 102 would meet class 0."""
    boxes = torch.tensor([[1.0, 1, 101, 101], [-101, -101, -1, -1], [-101, -101, -1, -1]])
    scores, labels = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 1])
    meets = boxes[1] + (boxes.max() + 1)
    assert torchvision_nms(torch.stack([boxes[0], meets]), scores[:2], 0.5).tolist() == [0]
    assert nms_per_class(boxes, scores, labels, 0.5).tolist() == [0, 1]
    # And with all coordinates negative, where the largest shows nothing of the span.
    below = boxes - 500
    assert nms_per_class(below, scores, labels, 0.5).tolist() == [0, 1]


@pytest.mark.parametrize("threshold", ["0.5", "0.4", "0.6", "0.3", "0"])
@pytest.mark.parametrize("seed", range(3))
def test_classes_are_kept_apart_as_a_plain_loop_does(seed: int, threshold: str) -> None:
    boxes, scores, labels = whole_boxes(150, seed, classes=5)
    assert boxes.min() < 0
    expected = suppress_by_loop(boxes, scores, Fraction(threshold), labels)
    assert len(expected) < 140
    assert nms_per_class(boxes, scores, labels, float(threshold)).tolist() == expected
    shifted = nms_per_class(boxes - 1000, scores, labels, float(threshold))
    assert shifted.tolist() == expected


@pytest.mark.parametrize("classes", [1, 3, 80])
@pytest.mark.parametrize("seed", range(3))
def test_kept_are_those_of_batched_nms_where_no_coordinate_is_negative(
    seed: int, classes: int
) -> None:
    boxes, scores = random_boxes(300, seed)
    boxes = boxes + 80
    assert boxes.min() > 0
    labels = torch.randint(0, classes, (300,), generator=torch.Generator().manual_seed(seed))
    expected = batched_nms(boxes, scores, labels, 0.5)
    assert 20 < len(expected) < 300
    assert torch.equal(nms_per_class(boxes, scores, labels, 0.5), expected)


@pytest.mark.parametrize("scale", [1, 1e-3, 1e5])
@pytest.mark.parametrize("seed", range(3))
def test_law_each_class_alone_and_merged_by_score(seed: int, scale: float) -> None:
    boxes, scores = random_boxes(400, seed)
    boxes = scale * boxes
    labels = torch.randint(0, 90, (400,), generator=torch.Generator().manual_seed(seed)) * 50
    alone = []
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        alone.append(
            members[torchvision_nms(boxes[members].double(), scores[members].double(), 0.3)]
        )
    expected = torch.cat(alone)
    expected = expected[scores[expected].argsort(descending=True)]
    assert 90 < len(expected) < 390
    assert torch.equal(nms_per_class(boxes, scores, labels, 0.3), expected)


def test_a_batch_at_once_is_image_by_image() -> None:
    images, classes = 3, 4
    boxes, scores, labels = whole_boxes(200, 0, classes)
    image = torch.arange(200) % images
    expected = []
    for i in range(images):
        rows = (image == i).nonzero()[:, 0]
        kept = suppress_by_loop(boxes[rows], scores[rows], Fraction(1, 2), labels[rows])
        expected += rows[kept].tolist()
    together = nms_per_class(boxes, scores, image * classes + labels, 0.5)
    assert sorted(together.tolist()) == sorted(expected)
    assert (scores[together].diff() <= 0).all()


def test_arguments_are_left_alone() -> None:
    boxes, scores, labels = whole_boxes(30, 0, classes=2)
    boxes = boxes.double()  # the type it computes in, which it might write into
    before = boxes.clone()
    nms_per_class(boxes, scores, labels, 0.5)
    nms(boxes, scores, 0.5)
    assert torch.equal(boxes, before)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 4), (5, 3), (5,), (5, 4, 1)])
def test_boxes_that_do_not_fit_their_scores_are_refused(shape: tuple[int, ...]) -> None:
    message = rf"5 scores need boxes \(5, 4\), got \({shape[0]},"
    with pytest.raises(ValueError, match=message):
        nms(torch.zeros(shape), torch.zeros(5), 0.5)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_labels_that_do_not_fit_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=rf"5 boxes need 5 labels, got \({count},\)"):
        nms_per_class(STRIPS, torch.rand(5), torch.zeros(count).long(), 0.5)
    with pytest.raises(ValueError, match=r"4 scores need boxes \(4, 4\)"):
        nms_per_class(STRIPS, torch.rand(4), torch.zeros(5).long(), 0.5)


def test_classes_do_not_meet_however_small_their_boxes_are() -> None:
    """In shares of the picture, all of which lie within one unit."""
    boxes = torch.tensor([[0.1, 0.1, 0.9, 0.9], [0.1, 0.1, 0.9, 0.9], [0.0, 0.0, 1.0, 1.0]])
    kept = nms_per_class(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 2]), 0.5)
    assert kept.tolist() == [0, 1, 2]
