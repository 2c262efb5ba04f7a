"""boxes: areas and IoU against exact fractions, torchvision, and tables worked out by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from conftest import fraction_iou
from torch import Tensor
from torchvision.ops import box_area as torchvision_area
from torchvision.ops import box_iou, clip_boxes_to_image

from retinanet_edu.boxes import at_least_float32, box_area, clip_boxes, is_on_cpu, pairwise_iou

pytestmark = pytest.mark.filterwarnings("error")

HALF = [torch.float16, torch.bfloat16]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_boxes(count: int, seed: int, span: float = 100) -> Tensor:
    """Float boxes that often overlap, some with negative coordinates."""
    g = generator(seed)
    corner = span * torch.rand(count, 2, generator=g) - span / 4
    return torch.cat([corner, corner + span * torch.rand(count, 2, generator=g)], dim=1)


def whole_boxes(count: int, seed: int) -> Tensor:
    """Boxes of whole numbers, many equal or touching, some without area, some inverted."""
    g = generator(seed)
    corner = torch.randint(-3, 3, (count, 2), generator=g)
    return torch.cat([corner, corner + torch.randint(-1, 6, (count, 2), generator=g)], dim=1)


# --- area -----------------------------------------------------------------------------------------


def test_areas_by_hand() -> None:
    boxes = torch.tensor(
        [
            [0, 0, 1, 1],  # the first pixel
            [10, 20, 13, 24],
            [-2, -3, 2, 3],
            [5, 5, 5, 9],  # no width
            [5, 5, 9, 5],  # no height
            [9, 5, 5, 9],  # inverted in x
            [5, 9, 9, 5],  # inverted in y
            [9, 9, 5, 5],  # inverted in both: minus times minus is no area
            [0.5, 0.25, 1, 0.5],
        ]
    )
    assert box_area(boxes).tolist() == [1, 12, 24, 0, 0, 0, 0, 0, 0.125]


def test_area_keeps_leading_axes_and_agrees_with_torchvision() -> None:
    boxes = random_boxes(60, 0)
    assert torch.equal(box_area(boxes), torchvision_area(boxes))
    assert torch.equal(box_area(boxes.reshape(3, 4, 5, 4)), torchvision_area(boxes).view(3, 4, 5))
    assert box_area(boxes[7]).shape == ()
    assert box_area(torch.zeros(2, 0, 4)).shape == (2, 0)


def test_area_scales_with_the_square_and_does_not_feel_a_shift() -> None:
    boxes = random_boxes(50, 1).double()
    torch.testing.assert_close(box_area(3 * boxes), 9 * box_area(boxes))
    torch.testing.assert_close(box_area(boxes + 1000), box_area(boxes))
    whole = whole_boxes(50, 1)
    assert torch.equal(box_area(whole - 77), box_area(whole))


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_areas_do_not_overflow(dtype: torch.dtype) -> None:
    areas = box_area(torch.tensor([[0, 0, 300, 300], [0, 0, 2, 2]], dtype=dtype))
    assert areas.dtype == torch.float32
    assert areas.tolist() == [300.0**2, 4.0]


def test_types_become_float32_unless_they_are_wider() -> None:
    for dtype in (torch.uint8, torch.int32, torch.int64, *HALF, torch.float32):
        assert at_least_float32(torch.tensor([3], dtype=dtype)).dtype == torch.float32
    wide = torch.tensor([1 / 3], dtype=torch.float64)
    assert at_least_float32(wide) is wide


def test_unsigned_boxes_do_not_wrap_around() -> None:
    boxes = torch.tensor([[9, 0, 5, 4], [5, 0, 9, 4]], dtype=torch.uint8)
    assert box_area(boxes).tolist() == [0, 16]
    assert pairwise_iou(boxes, boxes).tolist() == [[0, 0], [0, 1]]


# --- IoU ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("b", "iou"),
    [
        pytest.param([0, 0, 4, 4], 1, id="the same"),
        pytest.param([2, 0, 6, 4], 8 / 24, id="half shifted"),
        pytest.param([1, 1, 3, 3], 4 / 16, id="inside"),
        pytest.param([-4, -4, 8, 8], 16 / 144, id="around"),
        pytest.param([1, -9, 2, 9], 4 / 30, id="a cross"),
        pytest.param([3, 3, 5, 5], 1 / 19, id="one corner"),
        pytest.param([4, 0, 8, 4], 0, id="touching at a side"),
        pytest.param([4, 4, 8, 8], 0, id="touching at a corner"),
        pytest.param([9, 0, 12, 4], 0, id="beside"),
        pytest.param([9, 9, 12, 12], 0, id="apart in both: minus times minus is no overlap"),
        pytest.param([2, 2, 2, 2], 0, id="a point inside"),
        pytest.param([3, 3, 1, 1], 0, id="inverted, inside"),
    ],
)
def test_iou_with_0_0_4_4_by_hand(b: list[float], iou: float) -> None:
    a = torch.tensor([[0.0, 0, 4, 4]])
    assert pairwise_iou(a, torch.tensor([b])).item() == pytest.approx(iou, rel=1e-7)
    assert pairwise_iou(torch.tensor([b]), a).item() == pytest.approx(iou, rel=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_iou_is_the_exact_fraction_correctly_rounded(seed: int) -> None:
    a, b = whole_boxes(60, seed), whole_boxes(50, seed + 10)
    exact = [[fraction_iou(x, y) for y in b.tolist()] for x in a.tolist()]
    values = {value for row in exact for value in row}
    assert len(values) > 15
    assert {Fraction(0), Fraction(1, 2), Fraction(2, 5)} <= values
    expected = torch.tensor([[float(value) for value in row] for row in exact], dtype=torch.float64)
    assert torch.equal(pairwise_iou(a.double(), b.double()), expected)
    assert torch.equal(pairwise_iou(a, b), expected.float())


@pytest.mark.parametrize("seed", range(3))
def test_iou_is_torchvisions_on_boxes_with_area(seed: int) -> None:
    a, b = random_boxes(70, seed), random_boxes(50, seed + 10)
    expected = box_iou(a, b)
    assert ((expected > 0.1) & (expected < 0.9)).sum() > 500
    torch.testing.assert_close(pairwise_iou(a, b), expected, rtol=1e-6, atol=1e-7)


def test_two_boxes_without_area_have_iou_0_where_torchvision_says_nan() -> None:
    point = torch.tensor([[3.0, 3, 3, 3], [0, 0, 0, 0]])
    assert box_iou(point, point).isnan().any()
    assert pairwise_iou(point, point).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("seed", range(3))
def test_laws_of_iou(seed: int) -> None:
    a, b = random_boxes(30, seed).double(), random_boxes(20, seed + 10).double()
    iou = pairwise_iou(a, b)
    assert iou.min() >= 0
    assert iou.max() <= 1
    assert torch.equal(iou, pairwise_iou(b, a).T)
    torch.testing.assert_close(pairwise_iou(a - 517, b - 517), iou)
    torch.testing.assert_close(pairwise_iou(0.07 * a, 0.07 * b), iou)
    assert torch.equal(pairwise_iou(a, a).diagonal(), torch.ones(30, dtype=torch.float64))


def test_iou_never_exceeds_1_by_rounding() -> None:
    a = random_boxes(200, 0, span=1e4)
    nearly = torch.nextafter(a, torch.full_like(a, 1e9))
    iou = pairwise_iou(a, nearly)
    assert iou.max() == 1
    assert (iou.diagonal() > 0.999).all()


def test_shapes_of_iou() -> None:
    a, b = random_boxes(5, 0), random_boxes(12, 1)
    iou = pairwise_iou(a, b)
    assert iou.shape == (5, 12)
    batched = pairwise_iou(a, b.reshape(2, 3, 2, 4))
    assert batched.shape == (2, 3, 5, 2)
    assert torch.equal(batched.permute(2, 0, 1, 3).reshape(5, 12), iou)
    both = pairwise_iou(torch.stack([a, a + 7]), torch.stack([b, b]))
    assert torch.equal(both, torch.stack([iou, pairwise_iou(a + 7, b)]))


def test_iou_with_no_boxes_at_all() -> None:
    a, none = random_boxes(5, 0), torch.zeros(0, 4)
    assert pairwise_iou(a, none).shape == (5, 0)
    assert pairwise_iou(none, a).shape == (0, 5)
    assert pairwise_iou(none, none).shape == (0, 0)
    assert pairwise_iou(a, torch.zeros(3, 0, 4)).shape == (3, 5, 0)


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_iou_is_computed_in_float32(dtype: torch.dtype) -> None:
    a = (random_boxes(40, 0, span=1000).round()).to(dtype)
    iou = pairwise_iou(a, a)
    assert iou.dtype == torch.float32
    torch.testing.assert_close(iou, box_iou(a.double(), a.double()).float(), rtol=1e-6, atol=1e-7)


def test_one_float64_argument_is_enough_for_float64() -> None:
    a, b = random_boxes(9, 0), random_boxes(8, 1)
    assert pairwise_iou(a, b.double()).dtype == torch.float64
    torch.testing.assert_close(pairwise_iou(a, b.double()), box_iou(a.double(), b.double()))


def test_iou_has_the_gradient_of_its_values_and_none_that_is_not_finite() -> None:
    # Sides that differ by more than the step of the finite differences.
    a = torch.tensor([[0, 0, 4, 4], [1, 2, 9, 7]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[2, 1, 6, 5], [0.5, 0.7, 3, 3]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pairwise_iou, (a, b))

    odd = torch.tensor([[0.0, 0, 0, 0], [5, 5, 5, 5], [9, 9, 1, 1], [0, 0, 4, 4]])
    odd.requires_grad_()
    pairwise_iou(odd, odd.detach()).sum().backward()
    assert odd.grad is not None
    assert odd.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(3, 5), (4, 3), (3, 1)])
def test_iou_refuses_what_are_no_boxes(shape: tuple[int, int]) -> None:
    boxes, others = random_boxes(3, 0), torch.zeros(shape)
    with pytest.raises(ValueError, match=rf"last axis of 4, got \(3, 4\) and \({shape[0]}, "):
        pairwise_iou(boxes, others)
    with pytest.raises(ValueError, match="last axis of 4"):
        pairwise_iou(others, boxes)


# --- clip -----------------------------------------------------------------------------------------


def test_clip_by_hand_in_an_image_of_10_by_20() -> None:
    boxes = torch.tensor(
        [
            [1.0, 2, 3, 4],
            [-5, -6, 3, 4],
            [15, 5, 25, 15],
            [-1, -1, 99, 99],
            [30, 2, 40, 4],  # wholly outside, to the right
            [3, -9, 4, -2],  # and above
        ]
    )
    expected = [
        [1, 2, 3, 4],
        [0, 0, 3, 4],
        [15, 5, 20, 10],
        [0, 0, 20, 10],
        [20, 2, 20, 4],
        [3, 0, 4, 0],
    ]
    clipped = clip_boxes(boxes, (10, 20))
    assert clipped.tolist() == expected
    assert box_area(clipped)[-2:].tolist() == [0, 0]


def test_clip_is_torchvisions_and_twice_is_once() -> None:
    boxes = 3 * random_boxes(100, 0)
    clipped = clip_boxes(boxes, (60, 90))
    assert torch.equal(clipped, clip_boxes_to_image(boxes, (60, 90)))
    assert not torch.equal(clipped, boxes)
    assert torch.equal(clip_boxes(clipped, (60, 90)), clipped)
    assert torch.equal(clip_boxes(boxes.view(4, 25, 4), (60, 90)), clipped.view(4, 25, 4))
    assert clip_boxes(torch.zeros(0, 4), (60, 90)).shape == (0, 4)


def test_clip_leaves_its_argument_and_its_type_alone() -> None:
    for dtype in (torch.float16, torch.float32, torch.float64, torch.int64):
        boxes = torch.tensor([[-5, 1, 30, 2]], dtype=dtype)
        clipped = clip_boxes(boxes, (10, 20))
        assert clipped.dtype == dtype
        assert clipped.tolist() == [[0, 1, 20, 2]]
        assert boxes.tolist() == [[-5, 1, 30, 2]]


def test_a_tensor_tells_where_it_is() -> None:
    assert is_on_cpu(torch.zeros(1))
    assert not is_on_cpu(torch.zeros(1, device="meta"))
