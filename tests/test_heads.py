"""heads: what the subnets start with, and that their outputs lie in the anchors' order."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.retinanet import (
    RetinaNetClassificationHead,
    RetinaNetRegressionHead,
)

from retinanet_edu.anchors import RATIOS, SCALES, SIZES, STRIDES, AnchorGenerator
from retinanet_edu.heads import PRIOR, Subnet

pytestmark = pytest.mark.filterwarnings("error")


def levels(size: tuple[int, int] = (65, 190), channels: int = 16, batch: int = 2) -> list[Tensor]:
    """Random P3…P7 of an image of this size."""
    g = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, channels, -(-size[0] // s), -(-size[1] // s), generator=g)
        for s in STRIDES
    ]


def convs_of(net: nn.Module) -> list[nn.Conv2d]:
    return [m for m in net.modules() if isinstance(m, nn.Conv2d)]


# --- layers and their start -----------------------------------------------------------------------


@pytest.mark.parametrize("num_convs", [0, 1, 4])
@pytest.mark.parametrize("group_norm", [False, True])
def test_so_many_convolutions_as_wide_as_the_pyramid_and_one_for_the_outputs(
    num_convs: int, group_norm: bool
) -> None:
    head = Subnet(16, 9, 20, num_convs=num_convs, group_norm=group_norm)
    shapes = [tuple(conv.weight.shape) for conv in convs_of(head)]
    assert shapes == [(16, 16, 3, 3)] * num_convs + [(180, 16, 3, 3)]
    kinds = [type(m) for m in head.tower]
    one = [nn.Conv2d, nn.GroupNorm, nn.ReLU] if group_norm else [nn.Conv2d, nn.ReLU]
    assert kinds == one * num_convs
    out = head(levels())
    assert out.shape == (2, AnchorGenerator()((65, 190)).shape[0], 20)


def test_four_convolutions_without_norm_is_the_default() -> None:
    head = Subnet(16, 9, 4)
    assert len(convs_of(head)) == 5
    assert not any(isinstance(m, nn.GroupNorm) for m in head.modules())


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (64, 8), (16, 2), (4, 1)])
def test_group_norm_has_eight_channels_a_group(channels: int, groups: int) -> None:
    head = Subnet(channels, 9, 4, num_convs=2, group_norm=True)
    assert [m.num_groups for m in head.modules() if isinstance(m, nn.GroupNorm)] == [groups] * 2


@pytest.mark.parametrize("prior", [None, PRIOR])
def test_kernels_start_at_a_deviation_of_a_hundredth_and_biases_at_zero(
    prior: float | None,
) -> None:
    torch.manual_seed(0)
    head = Subnet(64, 9, 20, prior=prior)
    for conv in convs_of(head):
        assert conv.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert abs(conv.weight.mean().item()) < 2e-4
    *tower, last = convs_of(head)
    assert not any(conv.bias.any() for conv in tower)
    assert bool(last.bias.any()) == (prior is not None)


@torch.no_grad()
@pytest.mark.parametrize("prior", [0.01, 0.1, 0.5])
def test_the_prior_is_the_score_of_every_anchor_and_class_at_the_start(prior: float) -> None:
    torch.manual_seed(0)
    head = Subnet(16, 9, 7, prior=prior)
    assert torch.allclose(head.output.bias.sigmoid(), torch.tensor(prior), atol=1e-6)
    scores = head(levels()).sigmoid()
    assert scores.shape[1:] == (len(AnchorGenerator()((65, 190))), 7)
    # Four convolutions of deviation 0.01 leave next to nothing of any input.
    assert (scores - prior).abs().max() < 1e-3 * prior


def test_the_papers_prior_is_a_hundredth() -> None:
    assert PRIOR == 0.01
    bias = Subnet(16, 9, 7, prior=PRIOR).output.bias
    assert torch.allclose(bias, torch.tensor(-math.log(99)))


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1, 2.0])
def test_a_prior_that_is_no_score_is_refused(prior: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Subnet(16, 9, 7, prior=prior)


# --- values and order -----------------------------------------------------------------------------


def trained(head: Subnet) -> Subnet:
    """With weights and biases that no default hides."""
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(0, 0.2, generator=g)
    return head


@torch.no_grad()
@pytest.mark.parametrize("size", [(65, 190), (256, 128), (1, 1)])
@pytest.mark.parametrize("group_norm", [False, True])
def test_outputs_are_those_of_torchvisions_heads(size: tuple[int, int], group_norm: bool) -> None:
    norm = (lambda channels: nn.GroupNorm(channels // 8, channels)) if group_norm else None
    for theirs, ours in (
        (
            RetinaNetClassificationHead(16, 9, 5, norm_layer=norm),
            Subnet(16, 9, 5, group_norm=group_norm),
        ),
        (RetinaNetRegressionHead(16, 9, norm_layer=norm), Subnet(16, 9, 4, group_norm=group_norm)),
    ):
        theirs.load_state_dict(
            dict(zip(theirs.state_dict(), trained(ours).state_dict().values(), strict=True))
        )
        inputs = levels(size)
        before = [level.clone() for level in inputs]
        expected = theirs(inputs)
        assert expected.std() > 0.1
        torch.testing.assert_close(ours(inputs), expected, rtol=1e-5, atol=1e-5)
        assert all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True))


@torch.no_grad()
def test_the_same_weights_look_at_every_level() -> None:
    head = trained(Subnet(16, 9, 5))
    g = torch.Generator().manual_seed(0)
    level = torch.randn(1, 16, 3, 4, generator=g)
    other = torch.randn(1, 16, 3, 4, generator=g)
    out = head([level, other, level]).chunk(3, dim=1)
    assert torch.equal(out[0], out[2])
    assert not torch.equal(out[0], out[1])
    assert torch.equal(head([level]), out[0])


@torch.no_grad()
def test_outputs_lie_in_the_order_of_the_anchors() -> None:
    """A head is built that can only say what it sees: where it is, and which of its channels.

    The five channels of its input are the centre's x and y in pixels, the level's stride and two
    constants; the last convolution turns them into the box that it believes to be its own.
    """
    size = (65, 190)
    shapes = [(h, w) for h in RATIOS for w in SCALES]  # ratio outside, scale inside
    head = Subnet(3, len(shapes), 4, num_convs=0)
    head.output.weight.zero_()
    head.output.bias.zero_()
    for a, (ratio, scale) in enumerate(shapes):
        side = SIZES[0] / STRIDES[0] * scale  # in strides
        half_height, half_width = side * math.sqrt(ratio) / 2, side / math.sqrt(ratio) / 2
        for k, (centre, sign) in enumerate(
            [(0, -half_width), (1, -half_height), (0, half_width), (1, half_height)]
        ):
            head.output.weight[4 * a + k, centre, 1, 1] = 1
            head.output.weight[4 * a + k, 2, 1, 1] = sign
    maps = []
    for stride in STRIDES:
        rows, columns = -(-size[0] // stride), -(-size[1] // stride)
        y, x = torch.meshgrid(
            (torch.arange(rows) + 0.5) * stride,
            (torch.arange(columns) + 0.5) * stride,
            indexing="ij",
        )
        maps.append(torch.stack([x, y, torch.full_like(x, stride)])[None])
    out = head(maps)[0]
    anchors = AnchorGenerator()(size)
    assert out.shape == anchors.shape
    torch.testing.assert_close(out, anchors, rtol=1e-5, atol=1e-3)
    assert len({tuple(row) for row in anchors.tolist()}) == len(anchors)  # no two could be swapped


@torch.no_grad()
def test_each_number_comes_from_its_own_channel_place_and_image() -> None:
    """Channel a·outputs + k at row i and column j is output k of anchor (i·W + j)·A + a."""
    anchors, outputs, rows, columns = 3, 2, 2, 4
    head = Subnet(1, anchors, outputs, num_convs=0)
    head.output.weight.zero_()
    head.output.weight[:, :, 1, 1] = 1
    head.output.bias.copy_(torch.arange(anchors * outputs) * 1000)
    level = torch.arange(2 * rows * columns).float().view(2, 1, rows, columns)
    out = head([level])
    for b in range(2):
        for i in range(rows):
            for j in range(columns):
                for a in range(anchors):
                    for k in range(outputs):
                        value = 1000 * (a * outputs + k) + (b * rows + i) * columns + j
                        assert out[b, (i * columns + j) * anchors + a, k] == value


@torch.no_grad()
def test_a_head_is_its_convolutions_one_after_the_other() -> None:
    head = trained(Subnet(8, 1, 3, num_convs=2))
    level = levels(channels=8)[2]
    first, second, last = convs_of(head)
    x = F.relu(F.conv2d(level, first.weight, first.bias, padding=1))
    x = F.relu(F.conv2d(x, second.weight, second.bias, padding=1))
    x = F.conv2d(x, last.weight, last.bias, padding=1)
    assert (x < 0).any()  # nothing is cut off at the end
    expected = x.flatten(2).transpose(1, 2)
    torch.testing.assert_close(head([level]), expected)
