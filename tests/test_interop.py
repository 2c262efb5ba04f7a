"""interop: torchvision's RetinaNet and ours say the same, number for number."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import (
    RetinaNet,
    retinanet_resnet50_fpn,
    retinanet_resnet50_fpn_v2,
)
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.anchor_utils import AnchorGenerator as TorchvisionAnchors
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d, box_iou
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from retinanet_edu import interop
from retinanet_edu import model as own
from retinanet_edu.anchors import AnchorGenerator
from retinanet_edu.backbone import ResNet
from retinanet_edu.checkpoint import load_checkpoint, save_checkpoint
from retinanet_edu.cli import main
from retinanet_edu.data.shapes import ShapesDataset, write_voc
from retinanet_edu.data.transforms import normalise
from retinanet_edu.detection import postprocess, predict
from retinanet_edu.errors import CheckpointError
from retinanet_edu.losses import criterion
from retinanet_edu.matching import match_anchors
from retinanet_edu.structures import Predictions, Targets

# Square, wide, high, odd; most of them no multiples of 128 or even of 8.
SIZES = [(256, 256), (200, 333), (320, 224), (137, 251), (128, 384), (96, 96), (65, 190)]

TORCHVISION_ANCHORS = AnchorGenerator(offset=0, rounded=True, stride_from_grid=True)

pytestmark = pytest.mark.filterwarnings("error")


@torch.no_grad()
def randomise(model: RetinaNet, seed: int = 0) -> RetinaNet:
    """Weights, biases and statistics that no default hides, with outputs of ordinary size.

    About a sixth of all scores pass 0.05, deltas are some tenths. Larger outputs would hide what
    they are to show: scores of exactly 1 tie, and rounding grows with the numbers.
    """
    g = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d | FrozenBatchNorm2d):
            layer.weight.uniform_(0.5, 1.5, generator=g)
            layer.bias.normal_(0, 0.2, generator=g)
            layer.running_mean.normal_(0, 0.2, generator=g)
            layer.running_var.uniform_(1, 3, generator=g)
        elif isinstance(layer, nn.GroupNorm):
            layer.weight.uniform_(0.5, 1.5, generator=g)
            layer.bias.normal_(0, 0.2, generator=g)
        elif isinstance(layer, nn.Conv2d):
            fan_in = layer.weight[0].numel()
            layer.weight.normal_(0, (2 / fan_in) ** 0.5, generator=g)
            if layer.bias is not None:
                layer.bias.normal_(0, 0.1, generator=g)
    model.eval()
    # A residual network of random weights grows with its depth: the last layers make up for it.
    out = model.head(list(model.backbone(torch.randn(1, 3, 128, 128, generator=g)).values()))
    last = model.head.classification_head.cls_logits
    last.weight.div_(out["cls_logits"].std())
    last.bias.add_(-4)
    model.head.regression_head.bbox_reg.weight.mul_(0.3 / out["bbox_regression"].std())
    return model


@lru_cache
def pair(num_classes: int = 20, v2: bool = False) -> tuple[RetinaNet, own.RetinaNet]:
    """torchvision's ResNet-50 RetinaNet, random, and ours made from it."""
    build = retinanet_resnet50_fpn_v2 if v2 else retinanet_resnet50_fpn
    theirs = build(weights=None, weights_backbone=None, num_classes=num_classes)
    randomise(theirs, seed=num_classes)
    return theirs, interop.from_torchvision(theirs)


def small(num_classes: int = 3, depth: int = 18, **settings: object) -> RetinaNet:
    """torchvision's RetinaNet on any ResNet, with the norms and stages of pretrained weights."""
    c5 = 512 if depth < 50 else 2048
    backbone = resnet_fpn_backbone(
        backbone_name=f"resnet{depth}",
        weights=None,
        trainable_layers=3,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(c5, 256),
    )
    generator = TorchvisionAnchors(
        tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (32, 64, 128, 256, 512)),
        ((0.5, 1.0, 2.0),) * 5,
    )
    return randomise(RetinaNet(backbone, num_classes, **{"anchor_generator": generator} | settings))


@torch.no_grad()
def outputs_of_torchvision(model: RetinaNet, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Head outputs and anchors, of images that are normalised already."""
    features = list(model.backbone(images).values())
    sizes = [tuple(images.shape[-2:])] * len(images)
    return model.head(features), model.anchor_generator(ImageList(images, sizes), features)[0]


@lru_cache
def outputs(
    size: tuple[int, int], v2: bool = False
) -> tuple[dict[str, Tensor], Tensor, Predictions, Tensor]:
    """Of two random images: torchvision's head outputs and anchors, our predictions and anchors."""
    theirs, ours = pair(v2=v2)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(sum(size)))
    with torch.no_grad():
        return *outputs_of_torchvision(theirs, images), ours(images), ours.anchors(size)


def objects(size: tuple[int, int], count: int, seed: int = 0) -> Tensor:
    """Random boxes from 3 pixels to the whole image, some of them thin."""
    g = torch.Generator().manual_seed(seed + sum(size))
    whole = torch.tensor([size[1], size[0]])
    sides = 3 * (whole / 3) ** torch.rand(count, 2, generator=g)
    corner = (whole - sides) * torch.rand(count, 2, generator=g)
    return torch.cat([corner, corner + sides], dim=1)


def assert_same_outputs(theirs: RetinaNet, ours: own.RetinaNet, size: tuple[int, int]) -> None:
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    head, anchors = outputs_of_torchvision(theirs, images)
    with torch.no_grad():
        predictions = ours(images)
    assert head["cls_logits"].std() > 0.1  # otherwise any two networks would agree
    torch.testing.assert_close(predictions.class_logits, head["cls_logits"], rtol=0, atol=1e-4)
    torch.testing.assert_close(predictions.box_deltas, head["bbox_regression"], rtol=0, atol=1e-4)
    assert torch.equal(ours.anchors(size), anchors)


@torch.no_grad()
def assert_same_detections(
    theirs: RetinaNet, ours: own.RetinaNet, pictures: list[Tensor]
) -> list[int]:
    """Through torchvision's own transform there and back; returns how many were found."""
    expected = theirs(pictures)
    batch, _ = theirs.transform(pictures)
    predictions = ours(batch.tensors)
    settings = interop.postprocess_settings(theirs)
    candidates = (predictions.class_logits.sigmoid() > settings["score_threshold"]).sum(dim=(1, 2))
    assert (candidates > 200).all()
    found = postprocess(
        predictions, ours.anchors(batch.tensors.shape[-2:]), batch.image_sizes, **settings
    )
    scaled = theirs.transform.postprocess(
        [{"boxes": one.boxes} for one in found],
        batch.image_sizes,
        [picture.shape[-2:] for picture in pictures],
    )
    for one, boxes, other in zip(found, scaled, expected, strict=True):
        assert torch.equal(one.labels, other["labels"])
        torch.testing.assert_close(one.scores, other["scores"], rtol=0, atol=1e-5)
        torch.testing.assert_close(boxes["boxes"], other["boxes"], rtol=0, atol=0.01)
    return [len(one) for one in found]


def pictures_of(*sizes: tuple[int, int]) -> list[Tensor]:
    g = torch.Generator().manual_seed(5)
    return [torch.rand(3, *size, generator=g) for size in sizes]


@pytest.mark.parametrize("size", SIZES)
def test_logits_deltas_and_anchors_are_torchvisions(size: tuple[int, int]) -> None:
    head, their_anchors, predictions, anchors = outputs(size)
    assert head["cls_logits"].std() > 0.5
    assert head["bbox_regression"].std() > 0.1
    close = partial(torch.testing.assert_close, rtol=0, atol=1e-4)
    close(predictions.class_logits, head["cls_logits"])
    close(predictions.box_deltas, head["bbox_regression"])
    assert torch.equal(anchors, their_anchors)
    assert sum(predictions.anchors_per_level) == len(anchors)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("force", [True, False])
def test_matches_are_torchvisions_with_and_without_force(
    size: tuple[int, int], force: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = pair()
    monkeypatch.setattr(theirs.proposal_matcher, "allow_low_quality_matches", force)
    settings = interop.criterion_settings(theirs)
    thresholds = {name: settings[name] for name in ("positive", "negative", "force_match")}
    boxes, anchors = objects(size, 12), ours.anchors(size)
    iou = box_iou(boxes, anchors)
    expected = theirs.proposal_matcher(iou)
    assert ((expected >= 0) & (iou.amax(dim=0) < 0.5)).any() == force  # forced, or none
    assert (iou.amax(dim=1) > 0).all()
    assert torch.equal(match_anchors(anchors, boxes, **thresholds), expected)


def test_an_object_beyond_all_anchors_claims_none_here_and_every_one_in_torchvision() -> None:
    theirs, ours = pair()
    anchors = ours.anchors((96, 96))
    boxes = torch.tensor([[10.0, 10, 50, 50], [5000, 5000, 5010, 5010]])
    iou = box_iou(boxes, anchors)
    assert iou[1].max() == 0
    assert (theirs.proposal_matcher(iou) >= 0).all()
    match = match_anchors(anchors, boxes, force_match=True)
    assert torch.equal(match, theirs.proposal_matcher(iou[:1]))
    assert (match < 0).any()


@pytest.mark.parametrize(
    ("size", "v2", "box_loss"),
    [(size, False, loss) for size in SIZES for loss in ("l1", "smooth_l1", "giou")]
    + [(size, True, None) for size in SIZES[1::2]],  # its own, which is GIoU
)
def test_both_losses_are_torchvisions(
    size: tuple[int, int], v2: bool, box_loss: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, _ = pair(v2=v2)
    if box_loss is not None:
        monkeypatch.setattr(theirs.head.regression_head, "_loss_type", box_loss)
    head, their_anchors, predictions, anchors = outputs(size, v2)
    boxes = [objects(size, 9), objects(size, 2, seed=1)]
    labels = [torch.arange(9) * 2, torch.tensor([19, 0])]
    expected = theirs.compute_loss(
        [{"boxes": b, "labels": l} for b, l in zip(boxes, labels, strict=True)],
        head,
        [their_anchors] * 2,
    )
    difficult = [torch.arange(len(b)) % 2 == 0 for b in boxes]  # torchvision does not know them
    losses = criterion(
        predictions,
        anchors,
        Targets.from_list(boxes, labels, difficult),
        **interop.criterion_settings(theirs),
    )
    assert float(losses.classification) == pytest.approx(float(expected["classification"]), 1e-4)
    assert float(losses.box) == pytest.approx(float(expected["bbox_regression"]), 1e-4)
    assert float(losses.box) > 0.01


def test_losses_and_their_gradients_are_torchvisions_with_an_image_without_objects() -> None:
    theirs, _ = pair()
    head, their_anchors, predictions, anchors = outputs((96, 96))
    boxes, labels = [objects((96, 96), 4), torch.zeros(0, 4)], [torch.arange(4), torch.arange(0)]
    leaves = [head[name].clone().requires_grad_() for name in ("cls_logits", "bbox_regression")]
    expected = theirs.compute_loss(
        [{"boxes": b, "labels": l} for b, l in zip(boxes, labels, strict=True)],
        dict(zip(head, leaves, strict=True)),
        [their_anchors] * 2,
    )
    own_leaves = [tensor.clone().requires_grad_() for tensor in predictions[:2]]
    losses = criterion(
        Predictions(*own_leaves, predictions.anchors_per_level),
        anchors,
        Targets.from_list(boxes, labels),
        **interop.criterion_settings(theirs),
    )
    total = sum(expected.values())
    assert losses.total.item() == pytest.approx(total.item(), 1e-4)
    total.backward()
    losses.total.backward()
    for leaf, own_leaf in zip(leaves, own_leaves, strict=True):
        assert leaf.grad.abs().max() > 1e-3
        torch.testing.assert_close(own_leaf.grad, leaf.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("size", SIZES)
def test_detections_are_torchvisions_at_any_size(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = pair()
    monkeypatch.setattr(theirs.transform, "min_size", (min(size),))  # leave the picture as it is
    monkeypatch.setattr(theirs.transform, "max_size", max(size))
    assert assert_same_detections(theirs, ours, pictures_of(size)) == [300]


@pytest.mark.parametrize("num_classes", [91, 80, 20, 1])
def test_detections_of_a_batch_of_two_sizes_are_torchvisions(
    num_classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = pair(num_classes)
    assert ours.num_classes == num_classes
    monkeypatch.setattr(theirs.transform, "min_size", (160,))  # both pictures are scaled
    monkeypatch.setattr(theirs.transform, "max_size", 256)
    assert_same_detections(theirs, ours, pictures_of((200, 300), (137, 251)))


def test_top_k_thresholds_and_number_of_detections_follow_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs, ours = pair()
    monkeypatch.setattr(theirs.transform, "min_size", (160,))
    monkeypatch.setattr(theirs.transform, "max_size", 256)
    counts = {}
    for name, value in (
        ("score_thresh", 0.2),
        ("topk_candidates", 50),
        ("nms_thresh", 0.3),
        ("detections_per_img", 17),
    ):
        monkeypatch.setattr(theirs, name, value)
        counts[name] = assert_same_detections(theirs, ours, pictures_of((160, 200)))[0]
    assert counts["topk_candidates"] > counts["nms_thresh"] > counts["detections_per_img"] == 17


def test_v2_with_group_norm_and_p6_from_c5_is_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = pair(v2=True)
    assert ours.fpn.p6_from == "C5"
    assert interop.criterion_settings(theirs)["box_loss"] == "giou"
    for size in [(200, 333), (96, 96)]:
        assert_same_outputs(theirs, ours, size)
    monkeypatch.setattr(theirs.transform, "min_size", (160,))
    monkeypatch.setattr(theirs.transform, "max_size", 256)
    assert_same_detections(theirs, ours, pictures_of((200, 300)))
    back = interop.to_torchvision(ours)
    assert_same_state(back, theirs)
    assert_same_outputs(back, ours, (96, 96))


def assert_same_state(model: nn.Module, other: nn.Module) -> None:
    state, expected = model.state_dict(), other.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in state)


def test_there_and_back_again_changes_neither_weights_nor_detections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs, ours = pair(80)
    monkeypatch.setattr(theirs.transform, "min_size", (160,))
    monkeypatch.setattr(theirs.transform, "max_size", 256)
    back = interop.to_torchvision(ours, min_size=160, max_size=256, size_divisible=32)
    assert_same_state(back, theirs)
    assert back.anchor_generator.sizes == theirs.anchor_generator.sizes
    assert not back.training
    pictures = pictures_of((200, 300), (137, 251))
    with torch.no_grad():
        pairs = zip(back(pictures), theirs(pictures), strict=True)
    for found, expected in pairs:
        assert len(found["scores"]) == 300
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_by_default_torchvision_detects_what_predict_does() -> None:
    ours = own.retinanet_resnet18(
        3, anchors=TORCHVISION_ANCHORS, p6_from="P5", image_size=256, prior=0.1
    ).eval()
    theirs = interop.to_torchvision(ours)
    randomise(theirs)
    ours = interop.from_torchvision(theirs)
    picture = torch.randint(256, (3, 150, 256), dtype=torch.uint8)
    found = predict(ours, picture, **interop.postprocess_settings(theirs))
    with torch.no_grad():
        expected = theirs([picture / 255])[0]
    assert len(found) > 100
    assert torch.equal(found.labels, expected["labels"])
    torch.testing.assert_close(found.boxes, expected["boxes"], rtol=0, atol=0.01)


@pytest.mark.parametrize("depth", [18, 34, 101, 152])
def test_every_depth_converts_with_frozen_norms(depth: int) -> None:
    theirs = small(depth=depth)
    ours = interop.from_torchvision(theirs)
    assert isinstance(ours.backbone, ResNet)
    assert ours.backbone.depth == depth
    assert_same_outputs(theirs, ours, (96, 130))


def test_frozen_norms_and_stages_stay_frozen_both_ways() -> None:
    theirs = small().train()
    ours = interop.from_torchvision(theirs)
    assert isinstance(ours.backbone, ResNet)
    assert ours.training
    assert ours.backbone.frozen_stages == 2
    norms = {n: m for n, m in ours.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert len(norms) == 20
    assert not any(norm.training for norm in norms.values())
    trained = {name.partition(".")[2] for name, p in theirs.backbone.body.named_parameters()}
    assert len(trained) > 0
    for name, parameter in theirs.backbone.body.named_parameters():
        own_parameter = ours.backbone.get_parameter(name)
        assert own_parameter.requires_grad == parameter.requires_grad, name
    assert not any(p.requires_grad for norm in norms.values() for p in norm.parameters())

    back = interop.to_torchvision(ours)
    assert back.training
    assert_same_state(back, theirs)
    for name, module in theirs.named_modules():
        assert type(back.get_submodule(name)) is type(module), name
    for name, parameter in theirs.named_parameters():
        assert back.get_parameter(name).requires_grad == parameter.requires_grad, name


def test_nothing_is_frozen_that_was_not() -> None:
    _, ours = pair()
    assert isinstance(ours.backbone, ResNet)
    assert ours.backbone.frozen_norms == ()
    assert ours.backbone.frozen_stages == 0
    assert all(p.requires_grad for p in ours.parameters())


def test_a_mixture_of_frozen_and_trained_norms_comes_back_as_it_was() -> None:
    theirs = small()
    norm = theirs.backbone.body.layer3[0].bn1
    trained = nn.BatchNorm2d(norm.weight.shape[0]).eval()
    trained.load_state_dict(norm.state_dict())
    theirs.backbone.body.layer3[0].bn1 = trained
    ours = interop.from_torchvision(theirs)
    assert "layer3.0.bn1" not in ours.backbone.frozen_norms
    back = interop.to_torchvision(ours)
    assert isinstance(back.backbone.body.layer3[0].bn1, nn.BatchNorm2d)
    assert isinstance(back.backbone.body.layer3[0].bn2, FrozenBatchNorm2d)
    assert_same_state(back, theirs)


def test_eps_of_the_norms_is_carried_over_as_in_torchvisions_coco_weights() -> None:
    theirs = small()
    overwrite_eps(theirs, 0.0)
    for layer in theirs.modules():
        if isinstance(layer, FrozenBatchNorm2d):  # variances at which 1e-5 would be felt
            layer.running_var.mul_(1e-6)
            layer.weight.mul_(1e-3)
    ours = interop.from_torchvision(theirs)
    assert_same_outputs(theirs, ours, (96, 96))
    back = interop.to_torchvision(ours)
    assert {m.eps for m in back.modules() if isinstance(m, FrozenBatchNorm2d)} == {0.0}


@pytest.mark.parametrize(
    ("sizes", "ratios"),
    [
        (((16,), (32,), (64,), (128,), (256,)), (0.5, 1.0, 2.0)),
        (((24, 36), (48, 72), (96, 144), (192, 288), (384, 576)), (1 / 3, 1.0, 3.0)),
        (((20, 25, 31), (40, 50, 63), (80, 100, 126), (160, 201, 253), (320, 403, 507)), (1.0,)),
    ],
)
def test_other_anchors_are_carried_over_both_ways(
    sizes: tuple[tuple[int, ...], ...], ratios: tuple[float, ...]
) -> None:
    theirs = small(anchor_generator=TorchvisionAnchors(sizes, (ratios,) * 5))
    ours = interop.from_torchvision(theirs)
    assert_same_outputs(theirs, ours, (96, 200))
    assert interop.to_torchvision(ours).anchor_generator.sizes == sizes


def test_settings_follow_the_model_and_names_and_size_can_be_given() -> None:
    theirs = small(fg_iou_thresh=0.6, bg_iou_thresh=0.3, score_thresh=0.1, max_size=640)
    settings = interop.criterion_settings(theirs)
    assert (settings["positive"], settings["negative"]) == (0.6, 0.3)
    assert interop.postprocess_settings(theirs)["score_threshold"] == 0.1
    assert interop.from_torchvision(theirs).image_size == 640
    ours = interop.from_torchvision(theirs, classes=("cat", "dog", "sofa"), image_size=320)
    assert ours.classes == ("cat", "dog", "sofa")
    assert ours.image_size == 320


def _dilate(model: RetinaNet) -> None:
    model.backbone.body.layer4[0].conv2.dilation = (2, 2)


def _other_activation(model: RetinaNet) -> None:
    model.backbone.body.layer1[0].relu = nn.GELU()


def _other_colours(model: RetinaNet) -> None:
    model.transform.image_mean = [0.5, 0.5, 0.5]


def _other_coding(model: RetinaNet) -> None:
    model.box_coder.weights = (10.0, 10.0, 5.0, 5.0)


def _pool(model: RetinaNet) -> None:
    model.backbone.fpn.extra_blocks = nn.MaxPool2d(1, 2)


def _longer_tower(model: RetinaNet) -> None:
    model.head.regression_head.conv.append(nn.Conv2d(256, 256, 3, padding=1))


def _uneven_scales(model: RetinaNet) -> None:
    sizes = ((32, 40, 50), (64, 80, 101), (128, 161, 203), (256, 300, 400), (512, 645, 812))
    model.anchor_generator = TorchvisionAnchors(sizes, ((0.5, 1.0, 2.0),) * 5)


def _uneven_ratios(model: RetinaNet) -> None:
    ratios = ((0.5, 1.0, 2.0),) * 4 + ((0.4, 1.0, 2.5),)
    model.anchor_generator = TorchvisionAnchors(model.anchor_generator.sizes, ratios)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_dilate, "dilation"),
        (_other_activation, "GELU"),
        (_other_colours, "mean"),
        (_other_coding, "box coder"),
        (_pool, "MaxPool2d"),
        (_longer_tower, "head.regression_head"),
        (_uneven_scales, "scales"),
        (_uneven_ratios, "scales"),
    ],
)
def test_what_cannot_be_represented_is_refused(
    change: Callable[[RetinaNet], None], message: str
) -> None:
    theirs = small()
    change(theirs)
    with pytest.raises(ValueError, match=message):
        interop.from_torchvision(theirs)


def test_other_backbones_and_other_models_are_refused() -> None:
    with pytest.raises(ValueError, match="Identity"):
        interop.from_torchvision(nn.Identity())
    for name, layers, message in (
        ("resnext50_32x4d", [2, 3, 4], "layer 4 of backbone.body"),
        ("resnet18", [1, 2, 3, 4], "layer1"),
    ):
        backbone = resnet_fpn_backbone(
            backbone_name=name,
            weights=None,
            returned_layers=layers,
            extra_blocks=LastLevelP6P7(256, 256),
        )
        with pytest.raises(ValueError, match=message):
            interop.from_torchvision(RetinaNet(backbone, 3))


def test_a_box_loss_that_criterion_does_not_know_is_refused() -> None:
    theirs = small()
    theirs.head.regression_head._loss_type = "ciou"
    with pytest.raises(ValueError, match="ciou"):
        interop.criterion_settings(theirs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "anchors"),
        ({"anchors": AnchorGenerator(rounded=True, stride_from_grid=True)}, "anchors"),
        ({"anchors": AnchorGenerator(offset=0, stride_from_grid=True)}, "anchors"),
        ({"anchors": AnchorGenerator(offset=0, rounded=True)}, "anchors"),
        ({"anchors": TORCHVISION_ANCHORS, "width": 0.25}, "width"),
        ({"anchors": TORCHVISION_ANCHORS, "head_convs": 2}, "classification_head"),
        ({"anchors": TORCHVISION_ANCHORS, "neck": "lateral"}, "neck"),
        ({"anchors": TORCHVISION_ANCHORS, "neck": "single"}, "neck"),
    ],
)
def test_what_torchvision_cannot_represent_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interop.to_torchvision(own.retinanet_resnet18(3, **settings))


def test_a_narrow_pyramid_with_group_norm_goes_to_torchvision_and_back() -> None:
    ours = own.retinanet_resnet18(
        3, anchors=TORCHVISION_ANCHORS, channels=64, group_norm=True, p6_from="C5"
    ).eval()
    theirs = randomise(interop.to_torchvision(ours))
    ours = interop.from_torchvision(theirs)
    assert ours.fpn.channels == 64
    assert_same_outputs(theirs, ours, (96, 96))


# --- torchvision's COCO weights -------------------------------------------------------------------


@lru_cache
def coco_file(v2: bool) -> tuple[RetinaNet, dict[str, Tensor]]:
    """torchvision's model as its COCO weights make it, but random, and what its file holds."""
    build = retinanet_resnet50_fpn_v2 if v2 else retinanet_resnet50_fpn
    theirs = randomise(build(weights=None, weights_backbone=None, num_classes=91))
    state = theirs.state_dict()
    if not v2:
        overwrite_eps(theirs, 0.0)
        for layer in theirs.modules():
            if isinstance(layer, nn.BatchNorm2d):  # variances at which 1e-5 would be felt
                layer.running_var.mul_(1e-5)
                layer.weight.data.mul_(3e-3)
        # The real file is of frozen norms, which count nothing, and of the names before 2022.
        state = {n: t for n, t in theirs.state_dict().items() if "num_batches" not in n}
        towers = r"(head\.\w+\.conv)\.(\d)\.0\."
        state = {
            re.sub(towers, lambda found: f"{found[1]}.{2 * int(found[2])}.", n): t
            for n, t in state.items()
        }
    return theirs, state


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """torchvision downloads random weights; addresses of what was asked for."""
    asked: list[str] = []

    def load(url: str, **settings: object) -> dict[str, Tensor]:
        asked.append(url)
        return dict(coco_file("_v2_" in url)[1])

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", load)
    return asked


@pytest.mark.parametrize("name", ["coco", "coco-v2"])
def test_coco_weights_come_by_torchvisions_download(name: str, fetched: list[str]) -> None:
    theirs, _ = coco_file(name == "coco-v2")
    ours = interop.retinanet_coco(name)
    assert fetched == [interop.COCO[name].url]
    assert_same_outputs(theirs, ours.eval(), (96, 130))
    assert ours.num_classes == 91
    assert (ours.classes[1], ours.classes[90]) == ("person", "toothbrush")
    assert ours.fpn.p6_from == ("C5" if name == "coco-v2" else "P5")
    assert ours.settings["group_norm"] == (name == "coco-v2")
    assert isinstance(ours.backbone, ResNet)
    assert ours.backbone.frozen_stages == 2
    assert len(ours.backbone.frozen_norms) == 53


def test_a_file_of_coco_weights_gives_the_same_and_survives_a_checkpoint(tmp_path: Path) -> None:
    theirs, state = coco_file(v2=False)
    torch.save(state, tmp_path / "coco.pth")
    ours = interop.retinanet_coco(tmp_path / "coco.pth", image_size=320).eval()
    assert ours.image_size == 320
    assert_same_outputs(theirs, ours, (96, 96))
    save_checkpoint(tmp_path / "ours.pt", ours)
    assert_same_outputs(theirs, load_checkpoint(tmp_path / "ours.pt"), (96, 96))  # eps 0 too


@pytest.mark.parametrize("name", ["coco", "coco-v2"])
def test_other_classes_get_a_new_last_layer_and_keep_all_else(
    name: str, fetched: list[str]
) -> None:
    old = interop.retinanet_coco(name)
    new = interop.retinanet_coco(name, ("disc", "ring"), image_size=128)
    assert (new.classes, new.num_classes, new.image_size) == (("disc", "ring"), 2, 128)
    assert new.training
    before, after = old.state_dict(), new.state_dict()
    assert list(before) == list(after)
    replaced = [n for n in after if not torch.equal(before[n], after[n])]
    assert replaced == [f"classification_head.output.{part}" for part in ("weight", "bias")]
    torch.testing.assert_close(after[replaced[1]].sigmoid(), torch.full((18,), 0.01))
    assert 0.005 < float(after[replaced[0]].std()) < 0.02
    with torch.no_grad():
        predictions = new.eval()(torch.zeros(1, 3, 64, 64))
    assert predictions.class_logits.shape[2] == 2


def losses_of_training(model: own.RetinaNet, length: int, steps: int, **names: int) -> list:
    """Some steps on the same shapes; `names` gives classes other labels."""
    data = ShapesDataset("train", length=length)
    images = torch.stack([normalise(data[i][0]) for i in range(length)])
    targets = [data.target(i) for i in range(length)]
    label = torch.tensor([names.get(name, i) for i, name in enumerate(data.classes)])
    batch = Targets.from_list([t["boxes"] for t in targets], [label[t["labels"]] for t in targets])
    trained = [p for p in model.parameters() if p.requires_grad]
    descent = torch.optim.SGD(trained, 0.01, momentum=0.9)
    losses = []
    for _ in range(steps):
        losses.append(criterion(model(images), model.anchors((128, 128)), batch))
        descent.zero_grad()
        losses[-1].total.backward()
        descent.step()
    return losses


def test_the_loss_of_coco_weights_on_other_classes_goes_down(fetched: list[str]) -> None:
    torch.manual_seed(0)
    model = interop.retinanet_coco("coco-v2", ShapesDataset.classes)
    losses = losses_of_training(model, 2, 6)
    assert losses[-1].total < 0.8 * losses[0].total


def test_other_classes_are_learned_from_what_is_known() -> None:
    torch.manual_seed(0)
    model = own.with_classes(load_checkpoint("shapes"), ("round", "angular")).train()
    kinds = {name: int(name not in ("disc", "ring")) for name in ShapesDataset.classes}
    losses = losses_of_training(model, 8, 12, **kinds)
    assert losses[-1].classification < 0.6 * losses[0].classification
    assert losses[0].box < 0.2  # the boxes were known from the start


def test_train_goes_on_from_coco_weights(tmp_path: Path, fetched: list[str]) -> None:
    write_voc(tmp_path / "data", train=2, val=1)
    command = ["train", "--data", tmp_path / "data", "--output", tmp_path / "run", "--weights"]
    command += ["coco-v2", "--image-size", "64", "--epochs", "1", "--device", "cpu"]
    assert main([str(word) for word in command]) == 0
    model = load_checkpoint(tmp_path / "run" / "best.pt")
    assert set(model.classes) < set(ShapesDataset.classes)  # those of two pictures
    state = coco_file(v2=True)[1]
    trained, kept = model.backbone.state_dict(), 0
    for name, tensor in trained.items():
        kept += bool(torch.equal(tensor, state[f"backbone.body.{name}"]))
    assert 0 < kept < len(trained)  # stem, layer1 and all norms are frozen, the rest is not


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file of COCO weights"),
        ({"fc.weight": torch.zeros(2)}, "not torchvision's RetinaNet of COCO"),
        ([1, 2], "not a state dict"),
        ("20 classes", "size mismatch"),
        ("cut", "cut short or damaged"),
    ],
)
def test_a_file_that_is_something_else_is_refused(
    content: object, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    if content == "20 classes":
        content = pair(v2=True)[0].state_dict()
    if content == "cut":
        path.write_bytes(b"PK\x03\x04 and no more")
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=words):
        interop.retinanet_coco(path)


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str, **settings: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(CheckpointError, match=r"_v2_coco.*no network.*give its path"):
        interop.retinanet_coco("coco-v2")


@pytest.mark.parametrize("setting", ["neck", "p6_from", "num_classes"])
def test_what_follows_torchvisions_model_cannot_be_chosen(setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting} cannot be chosen"):
        interop.from_torchvision(small(), **{setting: "lateral"})
