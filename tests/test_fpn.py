"""fpn: the pyramid against a few numbers added by hand, and against torchvision's.

The plainer necks: which maps a level knows, by its gradient, and how many numbers are learned.
"""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.transforms.v2.functional import resize

from retinanet_edu.fpn import FPN, NECKS, build_neck
from retinanet_edu.model import RetinaNet

pytestmark = pytest.mark.filterwarnings("error")

# (H, W) of images: even, odd, smaller than a stride, one of them a single pixel.
SIZES = [(256, 256), (65, 190), (137, 251), (200, 333), (96, 40), (33, 7), (1, 1)]


def maps(size: tuple[int, int], channels: tuple[int, ...] = (8, 12, 20)) -> list[Tensor]:
    """Random C3, C4, C5 of an image of this size."""
    g = torch.Generator().manual_seed(sum(size))
    return [
        torch.randn(2, c, -(-size[0] // s), -(-size[1] // s), generator=g)
        for c, s in zip(channels, (8, 16, 32), strict=True)
    ]


def through(**settings: object) -> FPN:
    """One channel, in which every convolution but P6's and P7's passes its input on."""
    fpn = FPN((1, 1, 1), 1, **settings)
    with torch.no_grad():
        for conv in [*fpn.laterals, *fpn.smooth, fpn.p6, fpn.p7]:
            conv.weight.zero_()
            conv.weight[..., conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = 1
            conv.bias.zero_()
    return fpn


def one_channel(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)[None, None]


@torch.no_grad()
def test_a_pyramid_added_by_hand() -> None:
    c5 = one_channel([1000.0, 2000.0])
    c4 = one_channel([100.0, 200.0, 300.0], [400.0, 500.0, 600.0])
    c3 = one_channel(
        [1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0], [11.0, 12.0, 13.0, 14.0, 15.0]
    )
    p3, p4, p5, p6, p7 = through()([c3, c4, c5])
    assert torch.equal(p5, c5)
    # Two columns become three: places 0, 1, 2 look at 0, ⅔, 4⁄3, that is at columns 0, 0, 1.
    m4 = one_channel([1100.0, 1200.0, 2300.0], [1400.0, 1500.0, 2600.0])
    assert torch.equal(p4, m4)
    # Three columns become five: 0, 0, 1, 1, 2; two rows become three: 0, 0, 1.
    assert torch.equal(
        p3,
        one_channel(
            [1101.0, 1102.0, 1203.0, 1204.0, 2305.0],
            [1106.0, 1107.0, 1208.0, 1209.0, 2310.0],
            [1411.0, 1412.0, 1513.0, 1514.0, 2615.0],
        ),
    )
    assert torch.equal(p6, one_channel([1000.0]))  # every second column of C5
    assert torch.equal(p7, one_channel([1000.0]))


@torch.no_grad()
def test_p6_passes_on_what_is_negative_and_p7_does_not_see_it() -> None:
    c5 = one_channel([-7.0, 0.0, 5.0, 0.0, 3.0])
    zeros = [torch.zeros(1, 1, 1, n) for n in (20, 10)]
    *_, p6, p7 = through()([*zeros, c5])
    assert torch.equal(p6, one_channel([-7.0, 5.0, 3.0]))
    assert torch.equal(p7, one_channel([0.0, 3.0]))


@torch.no_grad()
@pytest.mark.parametrize(("p6_from", "expected"), [("C5", 4.0), ("P5", 40.0)])
def test_p6_looks_at_c5_unless_told_otherwise(p6_from: str, expected: float) -> None:
    fpn = through(p6_from=p6_from)
    fpn.smooth[2].weight.mul_(10)  # from here on P5 is ten times C5
    *_, p5, p6, _ = fpn([torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 2, 2), one_channel([4.0])])
    assert p5.item() == 40
    assert p6.item() == expected


def copied(p6_from: str, channels: int = 16) -> tuple[FPN, FeaturePyramidNetwork]:
    """Ours, and torchvision's with the same random weights and biases."""
    ours = FPN((8, 12, 20), channels, p6_from=p6_from)
    extra = LastLevelP6P7(20 if p6_from == "C5" else channels, channels)
    theirs = FeaturePyramidNetwork([8, 12, 20], channels, extra_blocks=extra)
    pairs = [
        *zip(ours.laterals, [block[0] for block in theirs.inner_blocks], strict=True),
        *zip(ours.smooth, [block[0] for block in theirs.layer_blocks], strict=True),
        (ours.p6, extra.p6),
        (ours.p7, extra.p7),
    ]
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for mine, other in pairs:
            mine.bias.normal_(generator=g)
            other.load_state_dict(mine.state_dict())
    assert len(pairs) == sum(isinstance(m, nn.Conv2d) for m in ours.modules())
    return ours, theirs


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("p6_from", ["C5", "P5"])
def test_the_pyramid_is_torchvisions_at_any_size(size: tuple[int, int], p6_from: str) -> None:
    ours, theirs = copied(p6_from)
    inputs = maps(size)
    before = [m.clone() for m in inputs]
    found = ours(inputs)
    expected = theirs(OrderedDict(zip(("C3", "C4", "C5"), inputs, strict=True)))
    assert len(found) == 5
    for level, (other, stride) in zip(
        found, zip(expected.values(), (8, 16, 32, 64, 128), strict=True), strict=True
    ):
        assert level.shape == (2, 16, -(-size[0] // stride), -(-size[1] // stride))
        torch.testing.assert_close(level, other, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True))


def test_kernels_start_even_at_the_variance_of_their_input_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    fpn = FPN((64, 128, 256), 64)
    convs = [m for m in fpn.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 8
    for conv in convs:
        bound = (3 / conv.weight[0].numel()) ** 0.5  # of a uniform draw with variance 1 / fan-in
        assert 0.95 * bound < conv.weight.abs().max().item() <= bound
        assert conv.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        assert not conv.bias.any()


def test_every_map_is_reached_by_the_gradient_of_the_finest_level() -> None:
    fpn = FPN((8, 12, 20), 16)
    inputs = [m.requires_grad_() for m in maps((64, 64))]
    fpn(inputs)[0].sum().backward()
    assert all(m.grad.abs().sum() > 0 for m in inputs)
    fpn(inputs)[2].sum().backward()  # and P5 knows nothing of C3 and C4
    grads = [m.grad.clone() for m in inputs]
    fpn(inputs)[2].sum().backward()
    assert torch.equal(inputs[0].grad, grads[0])
    assert torch.equal(inputs[1].grad, grads[1])


def test_what_is_no_pyramid_is_refused() -> None:
    with pytest.raises(ValueError, match="C3, C4 and C5, not on 4 maps"):
        FPN((64, 128, 256, 512))
    with pytest.raises(ValueError, match="'C5' or 'P5', not 'P4'"):
        FPN((64, 128, 256), p6_from="P4")


# --- the plainer necks ----------------------------------------------------------------------------


class Pooled(nn.Module):
    """A backbone whose C3, C4, C5 are the means of the pixels of each cell."""

    out_channels = (3, 3, 3)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [F.avg_pool2d(x, s, ceil_mode=True) for s in (8, 16, 32)]


# What each of P3…P7 knows. Those of the image pyramid are five runs' C5, the largest picture first.
KNOWN = {
    "fpn": ["C3 C4 C5", "C4 C5", "C5", "C5", "C5"],
    "lateral": ["C3", "C4", "C5", "C5", "C5"],
    "top-down": ["C5", "C5", "C5", "C5", "C5"],
    "single": ["C5", "C5", "C5", "C5", "C5"],
    "ssd": ["C3", "C4", "C5", "C5", "C5"],
    "image-pyramid": ["C5×4", "C5×2", "C5", "C5×½", "C5×¼"],
}


def test_the_necks_are_those_that_are_documented() -> None:
    assert list(NECKS) == list(KNOWN)
    assert all(neck in build_neck.__doc__ for neck in NECKS)


@pytest.mark.parametrize("p6_from", ["C5", "P5"])
@pytest.mark.parametrize("neck", KNOWN)
def test_what_each_level_knows(neck: str, p6_from: str) -> None:
    torch.manual_seed(0)
    if neck == "image-pyramid":
        names = KNOWN[neck]
        inputs = [torch.randn(1, 20, n, n, requires_grad=True) for n in (16, 8, 4, 2, 1)]
    else:
        names = ["C3", "C4", "C5"]
        inputs = [m.requires_grad_() for m in maps((128, 128))]
    levels = build_neck(neck, (8, 12, 20), 16, p6_from=p6_from)(inputs)
    assert len(levels) == 5
    for level, known in zip(levels, KNOWN[neck], strict=True):
        slopes = torch.autograd.grad(level.sum(), inputs, retain_graph=True, allow_unused=True)
        reached = zip(names, slopes, strict=True)
        assert [name for name, s in reached if s is not None and s.any()] == known.split()


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("neck", KNOWN)
def test_every_neck_has_the_same_grids_and_channels(neck: str, size: tuple[int, int]) -> None:
    model = RetinaNet(Pooled(), 1, channels=4, head_convs=0, neck=neck)
    images = torch.randn(2, 3, *size)
    levels = model.fpn(model.fpn.read(model.backbone, images))
    grids = [(2, 4, -(-size[0] // s), -(-size[1] // s)) for s in (8, 16, 32, 64, 128)]
    assert [tuple(level.shape) for level in levels] == grids
    assert model(images).box_deltas.shape[1] == len(model.anchors(size))


# Kernels 1×1 from 8, 12 and 20 channels to 16 (+ 16 biases each); 3×3 from 16 and from 20 to 16.
LATERALS, SMOOTH, P6, P7 = 3 * 16 + 40 * 16, 3 * (2304 + 16), 2880 + 16, 2304 + 16


@pytest.mark.parametrize(
    ("neck", "count"),
    [
        ("fpn", LATERALS + SMOOTH + P6 + P7),
        ("lateral", LATERALS + SMOOTH + P6 + P7),
        ("top-down", 20 * 16 + 16 + SMOOTH + P6 + P7),
        ("single", 20 * 16 + 16),
        ("ssd", LATERALS + P6 + P7),
        ("image-pyramid", 20 * 16 + 16),
    ],
)
def test_a_neck_learns_what_it_uses_and_nothing_else(neck: str, count: int) -> None:
    module = build_neck(neck, (8, 12, 20), 16)
    assert sum(p.numel() for p in module.parameters()) == count
    inputs = maps((128, 128)) if neck != "image-pyramid" else 5 * [maps((128, 128))[-1]]
    sum(level.square().sum() for level in module(inputs)).backward()
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())


@torch.no_grad()
def test_the_levels_of_a_single_map_are_its_own_numbers() -> None:
    neck = build_neck("single", (1, 1, 1), 1)
    neck.laterals[0].weight.fill_(1)
    c5 = one_channel([1.0, 2.0, 3.0, 4.0, 5.0])
    p3, p4, p5, p6, p7 = neck([torch.randn(1, 1, 1, 20), torch.randn(1, 1, 1, 10), c5])
    assert torch.equal(p5, c5)
    assert torch.equal(p4, one_channel([1.0, 1, 2, 2, 3, 3, 4, 4, 5, 5]))
    assert torch.equal(p3, p4.repeat_interleave(2, dim=-1))
    assert torch.equal(p6, one_channel([1.0, 3.0, 5.0]))
    assert torch.equal(p7, one_channel([1.0, 5.0]))


@torch.no_grad()
def test_an_image_pyramid_is_its_backbone_on_pictures_that_were_scaled_before() -> None:
    model = RetinaNet(Pooled(), 1, channels=3, head_convs=0, neck="image-pyramid")
    model.fpn.laterals[0].weight.copy_(torch.eye(3)[..., None, None])
    # 300 × 451, as the book's photograph: its halves and quarters are rounded up.
    x = torch.rand(1, 3, 300, 451)
    levels = model.fpn(model.fpn.read(model.backbone, x))
    for level, side in zip(
        levels, [(1200, 1804), (600, 902), (300, 451), (150, 226), (75, 113)], strict=True
    ):
        scaled = resize(x, list(side), antialias=True)
        torch.testing.assert_close(level, model.backbone(scaled)[2])


def test_a_neck_that_is_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match=r"neck is one of fpn, .*image-pyramid, not 'bifpn'"):
        build_neck("bifpn", (8, 12, 20))
    with pytest.raises(ValueError, match="not 'bifpn'"):
        RetinaNet(Pooled(), 1, neck="bifpn")
    with pytest.raises(ValueError, match="'C5' or 'P5', not 'P4'"):
        build_neck("single", (8, 12, 20), p6_from="P4")
