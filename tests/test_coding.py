"""coding: a table worked out by hand, torchvision's box coder, and the way there and back."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from retinanet_edu.anchors import AnchorGenerator
from retinanet_edu.coding import MAX_LOG_STRETCH, decode_boxes, encode_boxes

pytestmark = pytest.mark.filterwarnings("error")

ANCHOR = [10.0, 20, 30, 60]  # 20 wide, 40 high, centre (20, 40)
LN2 = math.log(2)

TABLE = [
    pytest.param([10, 20, 30, 60], [0, 0, 0, 0], id="the anchor itself"),
    pytest.param([20, 20, 40, 60], [0.5, 0, 0, 0], id="half a width to the right"),
    pytest.param([10, 10, 30, 50], [0, -0.25, 0, 0], id="a quarter of the height up"),
    pytest.param([0, 20, 40, 60], [0, 0, LN2, 0], id="twice as wide"),
    pytest.param([10, 30, 30, 50], [0, 0, 0, -LN2], id="half as high"),
    pytest.param([-20, 0, 20, 160], [-1, 1, LN2, 2 * LN2], id="all at once"),
]


def random_boxes(count: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    corner = 300 * torch.rand(count, 2, generator=g) - 50
    return torch.cat([corner, corner + 1 + 200 * torch.rand(count, 2, generator=g)], dim=1)


@pytest.mark.parametrize(("box", "deltas"), TABLE)
def test_encode_and_decode_by_hand(box: list[float], deltas: list[float]) -> None:
    b, a, d = torch.tensor([box]), torch.tensor([ANCHOR]), torch.tensor([deltas])
    torch.testing.assert_close(encode_boxes(b.float(), a), d.float(), rtol=0, atol=1e-6)
    torch.testing.assert_close(decode_boxes(d.float(), a), b.float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_both_ways_are_those_of_torchvisions_coder(seed: int) -> None:
    coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
    boxes, anchors = random_boxes(200, seed), random_boxes(200, seed + 10)
    expected = coder.encode_single(boxes, anchors)
    assert (expected[:, 2:] < -0.5).any()
    assert (expected[:, 2:] > 0.5).any()
    torch.testing.assert_close(encode_boxes(boxes, anchors), expected, rtol=1e-5, atol=1e-5)

    deltas = 2 * torch.randn(200, 4, generator=torch.Generator().manual_seed(seed))
    assert (deltas[:, 2:] > MAX_LOG_STRETCH).any()
    decoded = coder.decode_single(deltas, anchors)
    torch.testing.assert_close(decode_boxes(deltas, anchors), decoded, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("seed", range(3))
def test_decoding_undoes_encoding_up_to_62_times(seed: int) -> None:
    anchors = random_boxes(300, seed).double()
    g = torch.Generator().manual_seed(seed)
    size = anchors[:, 2:] - anchors[:, :2]
    # From 1/62.4 to 62.4 times the anchor's sides, anywhere near it.
    stretched = size * 62.4 ** (2 * torch.rand(300, 2, generator=g, dtype=torch.float64) - 1)
    centre = anchors[:, :2] + 3 * size * torch.randn(300, 2, generator=g, dtype=torch.float64)
    boxes = torch.cat([centre - stretched / 2, centre + stretched / 2], dim=1)
    assert (stretched / size).max() > 50
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, anchors), anchors), boxes)

    single = decode_boxes(encode_boxes(boxes.float(), anchors.float()), anchors.float())
    assert single.dtype == torch.float32
    assert ((single - boxes).abs() / size.repeat(1, 2)).max() < 1e-3


def test_encoding_undoes_decoding_below_the_clamp() -> None:
    anchors = random_boxes(300, 0).double()
    deltas = torch.randn(300, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert deltas[:, 2:].max() < MAX_LOG_STRETCH
    torch.testing.assert_close(encode_boxes(decode_boxes(deltas, anchors), anchors), deltas)


def test_zero_deltas_are_the_anchor_for_every_anchor_of_an_image() -> None:
    anchors = AnchorGenerator()((256, 320))
    torch.testing.assert_close(
        decode_boxes(torch.zeros(len(anchors), 4), anchors), anchors, rtol=0, atol=1e-4
    )


def test_the_same_deltas_mean_the_same_at_every_size() -> None:
    boxes, anchors = random_boxes(50, 0).double(), random_boxes(50, 1).double()
    expected = encode_boxes(boxes, anchors)
    torch.testing.assert_close(encode_boxes(16 * boxes, 16 * anchors), expected)
    torch.testing.assert_close(encode_boxes(boxes - 99, anchors - 99), expected)


def test_stretch_is_clamped_from_above_at_62_and_a_half_and_not_from_below() -> None:
    assert math.exp(MAX_LOG_STRETCH) == pytest.approx(62.5)
    anchor = torch.tensor([[0.0, 0, 16, 32]])
    deltas = torch.tensor([[0, 0, 5, 100], [0, 0, 1e4, -1e4], [0, 0, -6, -6]])
    decoded = decode_boxes(deltas, anchor)
    sides = decoded[:, 2:] - decoded[:, :2]
    expected = torch.tensor([[1000, 2000], [1000, 0], [16 * math.exp(-6), 32 * math.exp(-6)]])
    torch.testing.assert_close(sides, expected, rtol=1e-3, atol=1e-3)
    # The shift knows no bound.
    far = decode_boxes(torch.tensor([[1e4, -1e4, 0, 0]]), anchor)
    torch.testing.assert_close(far, torch.tensor([[160000.0, -320000, 160016, -319968]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    # 813 × 62.5 is beyond float16, and so is a corner at 2 × 62.5 × 813.
    anchors = torch.tensor([[0, 0, 813, 813], [100, 100, 132, 148]])
    deltas = torch.tensor([[2, -2, 100, 100], [0.1, -0.2, 0.3, -0.4]], dtype=dtype)
    for a in (anchors, anchors.to(dtype)):
        decoded = decode_boxes(deltas, a)
        assert decoded.dtype == torch.float32
        torch.testing.assert_close(decoded, decode_boxes(deltas.double(), a.double()).float())
    boxes = torch.tensor([[3, 5, 700, 800], [90, 90, 140, 150]])
    encoded = encode_boxes(boxes.to(dtype), anchors)
    assert encoded.dtype == torch.float32
    torch.testing.assert_close(encoded, encode_boxes(boxes.to(dtype).double(), anchors).float())


def test_whole_numbers_and_float64_are_welcome() -> None:
    box, anchor = torch.tensor([[-20, 0, 20, 160]]), torch.tensor([[10, 20, 30, 60]])
    encoded = encode_boxes(box, anchor)
    torch.testing.assert_close(encoded, torch.tensor([[-1.0, 1, LN2, 2 * LN2]]))
    assert encode_boxes(box.double(), anchor).dtype == torch.float64
    assert decode_boxes(encoded, anchor.double()).dtype == torch.float64
    assert decode_boxes(torch.tensor([[1, 0, 0, 0]]), anchor).tolist() == [[30, 20, 50, 60]]


def test_shapes_broadcast_and_may_be_empty() -> None:
    boxes, anchors = random_boxes(6, 0).view(2, 3, 4), random_boxes(3, 1)
    coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
    expected = torch.stack([coder.encode_single(b, anchors) for b in boxes])
    torch.testing.assert_close(encode_boxes(boxes, anchors), expected)
    decoded = decode_boxes(expected, anchors)
    assert decoded.shape == (2, 3, 4)
    torch.testing.assert_close(decoded, boxes, rtol=1e-4, atol=1e-3)
    none = torch.zeros(0, 4)
    assert encode_boxes(none, none).shape == (0, 4)
    assert decode_boxes(none, none).shape == (0, 4)


def test_gradients() -> None:
    anchors = random_boxes(5, 0).double()
    boxes = random_boxes(5, 1).double().requires_grad_()
    assert torch.autograd.gradcheck(encode_boxes, (boxes, anchors))
    deltas = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).double()
    deltas.requires_grad_()
    assert torch.autograd.gradcheck(decode_boxes, (deltas, anchors))


def test_an_untrained_networks_deltas_have_finite_gradients() -> None:
    deltas = torch.tensor([[1e4, -1e4, 1e4, -1e4], [0, 0, 100, 100]], requires_grad=True)
    decoded = decode_boxes(deltas, torch.tensor([ANCHOR]))
    assert decoded.isfinite().all()
    decoded[:, 2:].sum().backward()
    assert deltas.grad is not None
    assert deltas.grad.isfinite().all()
    assert deltas.grad[:, :2].tolist() == [[20, 40], [20, 40]]
    assert deltas.grad[1, 2:].tolist() == [0, 0]  # beyond the clamp nothing changes
