"""torchvision's RetinaNet and ours with the same weights, and the inputs that both get."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models import ResNet as TorchvisionResNet
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator as TorchvisionAnchors
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from retinanet_edu import interop
from retinanet_edu.anchors import SIZES, STRIDES, AnchorGenerator
from retinanet_edu.backbone import BLOCKS
from retinanet_edu.boxes import pairwise_iou
from retinanet_edu.demo import shapes_model
from retinanet_edu.model import RetinaNet, retinanet_resnet
from retinanet_edu.structures import Targets


class Pair(NamedTuple):
    """The two models, with equal weights and conventions."""

    ours: RetinaNet
    theirs: TorchvisionRetinaNet


def _leave(image: Tensor, target: dict | None = None) -> tuple[Tensor, dict | None]:
    """For torchvision's transform, which else resizes images that have the right size, too."""
    return image, target


def anchors_as_torchvisions(sizes: tuple[float, ...] = SIZES) -> AnchorGenerator:
    return AnchorGenerator(sizes, offset=0, rounded=True, stride_from_grid=True)


def torchvisions_anchors(ours: AnchorGenerator) -> TorchvisionAnchors:
    sides = tuple(tuple(int(size * scale) for scale in ours.scales) for size in ours.sizes)
    return TorchvisionAnchors(sides, (ours.ratios,) * len(sides))


def resnet_pair(depth: int, num_classes: int = 20) -> Pair:
    """Both on a ResNet, frozen as when it was pretrained: all norms, the stem and layer1."""
    torch.manual_seed(0)
    anchors = anchors_as_torchvisions()
    ours = retinanet_resnet(depth, num_classes, anchors=anchors, p6_from="P5")
    norms = {n: m for n, m in ours.backbone.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for norm in norms.values():
        nn.init.constant_(norm.weight, 0.7)  # else random maps grow from block to block
    ours.backbone.freeze(tuple(norms), stages=2)
    theirs = interop.to_torchvision(ours)
    theirs.transform.resize, theirs.transform.size_divisible = _leave, 32
    return Pair(ours, theirs)


def demo_pair() -> Pair:
    """The demo's model, with torchvision's anchors, and torchvision's class on equal parts."""
    ours = shapes_model()
    ours.anchor_generator = anchors_as_torchvisions(tuple(3.0 * stride for stride in STRIDES))
    resnet = TorchvisionResNet(*BLOCKS[18])  # as wide as any; its layers make room for narrow ones
    for name, layer in [*ours.backbone.named_modules()]:
        if isinstance(layer, nn.Conv2d):
            arguments = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride)
            resnet.set_submodule(name, nn.Conv2d(*arguments, layer.padding, bias=False))
        elif isinstance(layer, nn.BatchNorm2d):
            resnet.set_submodule(name, nn.BatchNorm2d(layer.num_features))
    channels, (c3, c4, c5) = ours.fpn.channels, ours.backbone.out_channels
    maps = {"layer2": "0", "layer3": "1", "layer4": "2"}
    extra = LastLevelP6P7(c5, channels)
    trunk = BackboneWithFPN(resnet, maps, [c3, c4, c5], channels, extra)
    norm = partial(nn.GroupNorm, channels // 8)
    head = RetinaNetHead(channels, 9, ours.num_classes, norm)
    for subnet in (head.classification_head, head.regression_head):
        subnet.conv = subnet.conv[:2]
    grid = torchvisions_anchors(ours.anchor_generator)
    theirs = TorchvisionRetinaNet(trunk, ours.num_classes, anchor_generator=grid, head=head)
    interop._copy(ours, theirs, to_ours=False)
    theirs.transform.resize, theirs.transform.size_divisible = _leave, 32
    return Pair(ours, theirs)


def random_boxes(batch: int, objects: int, size: int, seed: int = 0) -> Tensor:
    """Objects of 16 to 300 pixels, all of them inside the image: (B, M, 4)."""
    g = torch.Generator().manual_seed(seed)
    sides = 16 * torch.exp(torch.rand(batch, objects, 2, generator=g) * 2.9)
    sides = sides.clamp(max=size)
    corner = torch.rand(batch, objects, 2, generator=g) * (size - sides)
    return torch.cat([corner, corner + sides], dim=2)


def random_targets(
    batch: int, objects: int, size: int, num_classes: int, device: torch.device
) -> tuple[Targets, list[dict[str, Tensor]]]:
    """The same truth for us and for torchvision."""
    boxes = random_boxes(batch, objects, size)
    g = torch.Generator().manual_seed(1)
    labels = torch.randint(0, num_classes, (batch, objects), generator=g)
    ours = Targets.from_list([*boxes], [*labels]).to(device)
    theirs = [
        {"boxes": b.to(device), "labels": l.to(device)} for b, l in zip(boxes, labels, strict=True)
    ]
    return ours, theirs


def realistic_logits(
    batch: int, num_classes: int, anchors: Tensor, size: int, objects: int = 10
) -> Tensor:
    """As of a trained network: surely nothing, but for the anchors that overlap an object."""
    g = torch.Generator().manual_seed(2)
    logits = torch.randn(batch, len(anchors), num_classes, generator=g) * 0.8 - 7
    boxes = random_boxes(batch, objects, size, seed=3)
    labels = torch.randint(0, num_classes, (batch, objects), generator=g)
    for image in range(batch):
        iou, owner = pairwise_iou(anchors.cpu(), boxes[image]).max(dim=1)  # (N,)
        near = iou > 0.4
        logits[image, near, labels[image, owner[near]]] += 16 * iou[near] - 4
    return logits.to(anchors.device)
