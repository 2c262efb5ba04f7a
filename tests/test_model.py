"""model: images of any size in, predictions for its anchors out, and nothing else happens."""

from __future__ import annotations

import inspect
import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights
from torchvision.models.feature_extraction import create_feature_extractor

import retinanet_edu
from retinanet_edu.anchors import AnchorGenerator
from retinanet_edu.backbone import ResNet
from retinanet_edu.model import RetinaNet, retinanet_resnet, retinanet_resnet18

pytestmark = pytest.mark.filterwarnings("error")

SIZES = [(65, 190), (128, 128), (96, 250), (33, 8), (1, 1), (257, 129)]
STRIDES = (8, 16, 32, 64, 128)


def small(num_classes: int = 3, **settings: object) -> RetinaNet:
    torch.manual_seed(0)
    settings = {"width": 0.125, "channels": 16, "head_convs": 1} | settings
    return retinanet_resnet18(num_classes, **settings).eval()


def loud(model: RetinaNet) -> RetinaNet:
    """With outputs that depend on the picture: at the start they hardly do."""
    with torch.no_grad():
        for head in (model.classification_head, model.box_head):
            for conv in head.modules():
                if isinstance(conv, nn.Conv2d):
                    nn.init.kaiming_normal_(conv.weight)
    return model


def images(*size: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(sum(size)))


class Stairs(nn.Module):
    """A backbone of one's own: C3, C4, C5 by pooling and a convolution each."""

    def __init__(self, channels: tuple[int, int, int] = (4, 6, 10)) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, c, 3, padding=1) for c in channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        pooled = [F.max_pool2d(x, s, ceil_mode=True) for s in (8, 16, 32)]
        return [conv(p) for conv, p in zip(self.convs, pooled, strict=True)]


# --- shapes ---------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("num_classes", [1, 7])
def test_any_size_goes_and_every_anchor_gets_its_numbers(
    size: tuple[int, int], num_classes: int
) -> None:
    model = small(num_classes)
    predictions = model(images(*size))
    cells = [math.ceil(size[0] / s) * math.ceil(size[1] / s) for s in STRIDES]
    assert predictions.anchors_per_level == tuple(9 * n for n in cells)
    assert all(type(n) is int for n in predictions.anchors_per_level)
    total = 9 * sum(cells)
    assert predictions.class_logits.shape == (2, total, num_classes)
    assert predictions.box_deltas.shape == (2, total, 4)
    assert model.anchors(size).shape == (total, 4)
    assert torch.equal(model.anchors(size), AnchorGenerator()(size))


@torch.no_grad()
def test_other_anchors_a_cell_change_both_heads_and_the_anchors() -> None:
    generator = AnchorGenerator(sizes=(24, 48, 96, 192, 384), scales=(1.0, 1.5), ratios=(1.0, 3.0))
    model = small(5, anchors=generator)
    assert model.classification_head.output.out_channels == 4 * 5
    assert model.box_head.output.out_channels == 4 * 4
    predictions = model(images(64, 96))
    anchors = model.anchors((64, 96))
    assert predictions.box_deltas.shape[1] == len(anchors) == sum(predictions.anchors_per_level)
    assert torch.equal(anchors, generator((64, 96)))


@torch.no_grad()
def test_at_the_start_every_score_is_the_prior() -> None:
    for prior in (0.01, 0.2):
        scores = small(4, prior=prior, head_convs=4)(images(65, 190)).class_logits.sigmoid()
        assert (scores - prior).abs().max() < 0.01 * prior


def test_the_defaults_are_the_papers() -> None:
    settings = inspect.signature(RetinaNet).parameters
    assert settings["channels"].default == 256
    assert settings["head_convs"].default == 4
    assert settings["prior"].default == 0.01
    assert settings["p6_from"].default == "C5"
    model = RetinaNet(ResNet(18, 0.125), 3)
    for head in (model.classification_head, model.box_head):
        convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
        assert [c.in_channels for c in convs] == [256] * 5
    assert model.classification_head.output.out_channels == 9 * 3
    assert model.classes == ("0", "1", "2")
    assert model.image_size == 512


# --- purity ---------------------------------------------------------------------------------------


def attributes(model: nn.Module) -> dict[str, str]:
    """All that is not a tensor: what a forward pass could leave behind."""
    return {
        f"{name}.{key}": repr(value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if not key.startswith("_")
    }


@torch.no_grad()
def test_a_forward_pass_changes_neither_the_model_nor_the_images() -> None:
    model = loud(small())
    x = images(65, 190)
    state = {n: t.clone() for n, t in model.state_dict().items()}
    left, before = attributes(model), x.clone()
    first, second = model(x), model(x)
    assert torch.equal(x, before)
    assert attributes(model) == left
    assert all(torch.equal(t, state[n]) for n, t in model.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(first[:2], second[:2], strict=True))
    assert not model.training


@torch.no_grad()
def test_what_an_image_gets_does_not_depend_on_the_others_of_its_batch() -> None:
    model = loud(small())
    x = images(65, 190, batch=3)
    together = model(x)
    assert together.class_logits.std() > 0.05
    for i in range(3):
        alone = model(x[i : i + 1])
        close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)
        close(alone.class_logits[0], together.class_logits[i])
        close(alone.box_deltas[0], together.box_deltas[i])


@torch.no_grad()
def test_the_maps_of_ones_own_backbone_are_not_written_into() -> None:
    class Keeping(Stairs):
        def forward(self, x: Tensor) -> list[Tensor]:
            self.kept = super().forward(x)
            self.copies = [m.clone() for m in self.kept]
            return self.kept

    backbone = Keeping()
    RetinaNet(backbone, 3, backbone_channels=(4, 6, 10), channels=16)(images(64, 96))
    assert all(torch.equal(a, b) for a, b in zip(backbone.kept, backbone.copies, strict=True))


def test_the_loss_reaches_every_parameter() -> None:
    model = small(group_norm=True).train()
    predictions = model(images(64, 64))
    (predictions.class_logits.square().mean() + predictions.box_deltas.square().mean()).backward()
    assert all(p.grad is not None for p in model.parameters())


# --- a plain tensor program -----------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.filterwarnings("default")  # of torch.compile itself
@pytest.mark.parametrize("size", [(65, 190), (64, 64)])
def test_a_compiled_model_is_one_graph_and_says_the_same(size: tuple[int, int]) -> None:
    model = loud(small(group_norm=True))
    x = images(*size)
    expected = model(x)
    torch.compiler.reset()
    found = torch.compile(model, backend="eager", fullgraph=True)(x)
    assert expected.class_logits.std() > 0.05
    torch.testing.assert_close(found.class_logits, expected.class_logits)
    torch.testing.assert_close(found.box_deltas, expected.box_deltas)
    assert found.anchors_per_level == expected.anchors_per_level


@torch.no_grad()
@pytest.mark.filterwarnings("default")  # of torch.export itself
def test_an_exported_model_says_the_same() -> None:
    model = loud(small())
    x = images(65, 190)
    program = torch.export.export(model, (x,))
    expected, found = model(x), program.module()(x)
    torch.testing.assert_close(found[0], expected.class_logits)
    torch.testing.assert_close(found[1], expected.box_deltas)


@torch.no_grad()
def test_half_precision_and_channels_last_go_through() -> None:
    model, x = loud(small()), images(65, 190)
    expected = model(x)
    last = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last.class_logits, expected.class_logits, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(x)
    assert found.class_logits.dtype == torch.bfloat16
    error = (found.class_logits.float() - expected.class_logits).abs().mean()
    assert error < 0.05 * expected.class_logits.std()


# --- for inference --------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("group_norm", [False, True])
def test_a_model_for_inference_says_the_same(
    depth: int, size: tuple[int, int], group_norm: bool
) -> None:
    torch.manual_seed(0)
    model = loud(
        retinanet_resnet(depth, 3, width=0.125, channels=16, head_convs=1, group_norm=group_norm)
    ).double()
    for _ in range(3):
        model(images(96, 96).double() + 1)  # norms with statistics of their own
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fast = model.for_inference()
    assert model.training
    assert not fast.training
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    for ours, theirs in zip(fast(images(*size).double()), model.eval()(images(*size).double())):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_model_for_inference_has_no_norms_and_nothing_in_common_with_the_other() -> None:
    model = small()
    fast = model.for_inference()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    assert not any(p.requires_grad for p in fast.parameters())
    assert fast.backbone.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    expected = fast(images(64, 64))
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.zero_()
    assert torch.equal(fast(images(64, 64)).class_logits, expected.class_logits)


@torch.no_grad()
def test_a_model_for_inference_leaves_other_backbones_as_they_are() -> None:
    model = loud(RetinaNet(Stairs(), 3, backbone_channels=(4, 6, 10), channels=16)).eval()
    ours, theirs = model.for_inference()(images(65, 190)), model(images(65, 190))
    torch.testing.assert_close(ours.class_logits, theirs.class_logits)


# --- backbones ------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_any_module_that_gives_c3_c4_c5_is_a_backbone(size: tuple[int, int]) -> None:
    backbone = Stairs()
    model = loud(RetinaNet(backbone, 3, backbone_channels=(4, 6, 10), channels=16, head_convs=1))
    assert model.backbone is backbone
    x = images(*size)
    predictions = model(x)
    assert predictions.class_logits.shape == (2, len(model.anchors(size)), 3)
    levels = model.fpn(backbone(x))
    assert torch.equal(predictions.box_deltas, model.box_head(levels))


@torch.no_grad()
def test_a_backbone_that_tells_its_channels_needs_no_more() -> None:
    backbone = Stairs((3, 5, 7))
    backbone.out_channels = (3, 5, 7)
    model = RetinaNet(backbone, 2, channels=8)
    assert [lateral.in_channels for lateral in model.fpn.laterals] == [3, 5, 7]
    model(images(40, 40))


@torch.no_grad()
def test_another_network_of_torchvision_is_a_backbone_after_a_few_lines() -> None:
    net = get_model("mobilenet_v3_small", weights=None).eval()
    taps = {"features.3": "C3", "features.8": "C4", "features.12": "C5"}

    class Mobile(nn.Module):
        out_channels = (24, 48, 576)

        def __init__(self) -> None:
            super().__init__()
            self.body = create_feature_extractor(net, taps)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return tuple(self.body(x).values())

    model = RetinaNet(Mobile(), 3, channels=16, head_convs=1).eval()
    predictions = model(images(65, 190))
    assert predictions.class_logits.shape[1] == len(model.anchors((65, 190)))


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_each_builder_builds_its_depth(depth: int) -> None:
    build = getattr(retinanet_edu, f"retinanet_resnet{depth}")
    with torch.device("meta"):
        model = build(4, channels=16, head_convs=2, width=0.25, classes="abcd", image_size=96)
    assert model.backbone.depth == depth
    assert model.backbone.width == 0.25
    blocks = {18: 8, 34: 16, 50: 16, 101: 33, 152: 50}[depth]
    layers = [getattr(model.backbone, f"layer{i}") for i in (1, 2, 3, 4)]
    assert sum(map(len, layers)) == blocks
    assert model.settings["head_convs"] == 2
    assert model.classes == ("a", "b", "c", "d")
    assert model.image_size == 96


def test_a_resnet50_has_as_many_parameters_as_torchvision_publishes() -> None:
    with torch.device("meta"):
        model = retinanet_resnet(50, 91, p6_from="P5")
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    # There, frozen norms hold buffers and no parameters.
    count = sum(p.numel() for p in model.parameters()) - sum(2 * n.num_features for n in norms)
    assert count == RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["num_params"]


# --- settings and mistakes ------------------------------------------------------------------------


@torch.no_grad()
def test_settings_rebuild_the_model() -> None:
    model = loud(small(5, head_convs=2, group_norm=True, p6_from="P5", prior=0.3))
    assert model.settings == {
        "num_classes": 5,
        "channels": 16,
        "neck": "fpn",
        "p6_from": "P5",
        "head_convs": 2,
        "group_norm": True,
    }
    again = RetinaNet(ResNet(18, 0.125), **model.settings).eval()
    again.load_state_dict(model.state_dict())
    x = images(65, 96)
    assert torch.equal(again(x).class_logits, model(x).class_logits)


def test_what_numpy_gives_becomes_plain_values() -> None:
    names = np.array(["cat", "dog"])
    model = small(np.int64(2), classes=names, image_size=np.int64(64))
    assert model.classes == ("cat", "dog")
    plain = (*model.classes, model.image_size, model.num_classes, model.settings["num_classes"])
    assert [type(value) for value in plain] == [str, str, int, int, int]


def test_the_device_is_that_of_the_weights() -> None:
    model = small()
    assert model.device == torch.device("cpu")
    assert model.to("meta").device == torch.device("meta")
    assert model.anchors((32, 32)).device == torch.device("meta")


@pytest.mark.parametrize(
    ("num_classes", "settings", "message"),
    [
        (0, {}, "num_classes is at least 1, got 0"),
        (3, {"classes": ("cat", "dog")}, "2 names for 3 classes"),
        (2, {"classes": ()}, "0 names for 2 classes"),
        (2, {"p6_from": "C4"}, "'C5' or 'P5'"),
        (2, {"prior": 1.5}, "prior"),
    ],
)
def test_a_model_that_makes_no_sense_is_refused(
    num_classes: int, settings: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        small(num_classes, **settings)


def test_a_backbone_without_three_maps_is_refused() -> None:
    with pytest.raises(ValueError, match="C3, C4 and C5, not on 2 maps"):
        RetinaNet(Stairs(), 3, backbone_channels=(4, 6))
