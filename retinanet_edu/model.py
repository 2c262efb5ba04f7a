"""RetinaNet: backbone, pyramid and two subnets. Images in, predictions out, nothing else.

Losses and detections are two readers of the same predictions: see `losses` and `detection`.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from retinanet_edu.anchors import AnchorGenerator
from retinanet_edu.backbone import ResNet, freeze_pretrained, load_backbone_weights
from retinanet_edu.fpn import build_neck
from retinanet_edu.heads import PRIOR, Subnet
from retinanet_edu.structures import Predictions

# The longer side to which pictures are scaled when nothing else is said, in pixels.
IMAGE_SIZE = 512


class RetinaNet(nn.Module):
    """A one-stage detector.

    Args:
        backbone: any module that gives C3, C4, C5 at strides 8, 16, 32 for images (B, 3, H, W).
        num_classes: K; labels are 0…K−1, there is no background class.
        backbone_channels: channels of C3, C4, C5; default `backbone.out_channels`.
        anchors: the generator; default nine a cell, 32 to 813 pixels.
        channels: of the pyramid and the subnets.
        head_convs: 3×3 convolutions of each subnet before its last.
        group_norm: in the subnets.
        neck: what makes P3…P7 of the backbone's maps, "fpn" or a plainer one of `build_neck`.
        p6_from: "C5" or "P5", see `FPN`.
        prior: π, the score of every anchor at the start.
        classes: names of the K classes, for people; default "0", "1", …
        image_size: the longer side of a picture for this model, in pixels. `forward` takes any
            size; `predict`, `evaluate` and `train` scale to this one.

    Raises:
        ValueError: `num_classes` is not positive, or is not the number of `classes`; there is no
            such `neck` or `p6_from`.

    Source:
        Lin et al., "Focal Loss for Dense Object Detection" (arXiv 1708.02002), section 4.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        backbone_channels: Sequence[int] | None = None,
        anchors: AnchorGenerator | None = None,
        channels: int = 256,
        head_convs: int = 4,
        group_norm: bool = False,
        neck: str = "fpn",
        p6_from: Literal["C5", "P5"] = "C5",
        prior: float = PRIOR,
        classes: Sequence[str] | None = None,
        image_size: int = IMAGE_SIZE,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes is at least 1, got {num_classes}")
        # Plain values, since numpy's would make a checkpoint that cannot be read back.
        num_classes, image_size = int(num_classes), int(image_size)
        self.classes = tuple(map(str, range(num_classes) if classes is None else classes))
        if len(self.classes) != num_classes:
            raise ValueError(f"{len(self.classes)} names for {num_classes} classes")
        self.num_classes = num_classes
        self.image_size = image_size
        self.anchor_generator = anchors or AnchorGenerator()
        in_channels = cast("Sequence[int]", backbone_channels or backbone.out_channels)
        subnet = partial(
            Subnet,
            channels,
            self.anchor_generator.anchors_per_cell,
            num_convs=head_convs,
            group_norm=group_norm,
        )

        self.backbone = backbone
        self.fpn = build_neck(neck, in_channels, channels, p6_from=p6_from)
        self.classification_head = subnet(num_classes, prior=prior)
        self.box_head = subnet(4)
        # What a checkpoint needs to build this model again, backbone and anchors apart.
        self.settings = {
            "num_classes": num_classes,
            "channels": channels,
            "neck": neck,
            "p6_from": p6_from,
            "head_convs": head_convs,
            "group_norm": group_norm,
        }

    def forward(self, images: Tensor) -> Predictions:
        """What the network says about every anchor.

        Args:
            images: (B, 3, H, W) float, normalised; any H and W, nothing is padded.

        Returns:
            `Predictions` for the N anchors of `self.anchors((H, W))`, in their order.
        """
        levels = self.fpn(self.fpn.read(self.backbone, images))
        return Predictions(
            class_logits=self.classification_head(levels),
            box_deltas=self.box_head(levels),
            anchors_per_level=tuple(
                p.shape[-2] * p.shape[-1] * self.anchor_generator.anchors_per_cell for p in levels
            ),
        )

    def for_inference(self) -> RetinaNet:
        """A faster copy that gives the same predictions, and can neither be trained nor saved.

        Batch norms of a `ResNet` are folded into its convolutions, and maps lie in memory with
        the channels of a pixel side by side, as the convolutions of CPUs and GPUs like them best.

        Returns:
            a model of its own, in evaluation mode; `predict` and `evaluate` take it as any other.

        Law:
            m.for_inference()(images) = m.eval()(images), but for the last digits.
        """
        copy = deepcopy(self).eval().requires_grad_(False)
        if isinstance(copy.backbone, ResNet):
            copy.backbone.fold_norms()
        return copy.to(memory_format=torch.channels_last)

    def anchors(self, image_size: tuple[int, int]) -> Tensor:
        """(N, 4) anchors of an image of (H, W) pixels, on the model's device."""
        return self.anchor_generator(image_size, self.device)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.box_head.output.weight.device


def retinanet_resnet(
    depth: int,
    num_classes: int,
    *,
    backbone_weights: str | Path | None = None,
    partial_backbone: bool = False,
    frozen_stages: int = 2,
    width: float = 1.0,
    **settings: Any,
) -> RetinaNet:
    """RetinaNet on a ResNet of the given depth.

    Args:
        depth: 18, 34, 50, 101 or 152.
        num_classes: K, how many there are.
        backbone_weights: None for random ones, "imagenet" to download torchvision's, or the path
            of a state dict with torchvision's names. The batch norms that come with it are frozen.
        partial_backbone: accept a file that lacks some of the backbone.
        frozen_stages: of a pretrained backbone, from the bottom: 0 none, 1 the stem, 2 also
            layer1 (C2). Without `backbone_weights` nothing is frozen.
        width: factor on the backbone's channels.
        settings: keywords of `RetinaNet`: anchors, channels, head_convs, group_norm, neck,
            p6_from, prior, classes, image_size.

    Returns:
        the model, in training mode.

    Raises:
        CheckpointError: `backbone_weights` does not fit.
    """
    backbone = ResNet(depth, width)
    if backbone_weights is not None:
        loaded = load_backbone_weights(backbone, backbone_weights, partial=partial_backbone)
        freeze_pretrained(backbone, loaded, frozen_stages)
    return RetinaNet(backbone, num_classes, **settings)


def with_classes(model: RetinaNet, classes: Sequence[str], prior: float = PRIOR) -> RetinaNet:
    """A copy that is to learn other classes and keeps all that it can.

    Args:
        model: trained on any classes; it is left as it was.
        classes: names of the new ones.
        prior: π, see `RetinaNet`.

    Returns:
        a model with a new last classification layer, random and with the bias of the prior; all
        other weights are the old ones.

    Law:
        Box deltas are those of `model`.
    """
    copy, old = deepcopy(model), model.classification_head.output
    channels, per_cell = model.fpn.channels, model.anchor_generator.anchors_per_cell
    fresh = Subnet(channels, per_cell, len(classes), num_convs=0, prior=prior)
    copy.classification_head.output = fresh.output.to(old.weight)
    copy.classification_head.outputs = copy.num_classes = len(classes)
    copy.classes = tuple(map(str, classes))
    copy.settings = model.settings | {"num_classes": len(classes)}
    return copy


def retinanet_resnet18(num_classes: int, **settings: Any) -> RetinaNet:
    """RetinaNet on ResNet-18; errors as `retinanet_resnet`.

    Args:
        num_classes: K, how many there are.
        settings: keywords of `retinanet_resnet`.

    Returns:
        the model, in training mode.
    """
    return retinanet_resnet(18, num_classes, **settings)


def retinanet_resnet34(num_classes: int, **settings: Any) -> RetinaNet:
    """RetinaNet on ResNet-34; errors as `retinanet_resnet`.

    Args:
        num_classes: K, how many there are.
        settings: keywords of `retinanet_resnet`.

    Returns:
        the model, in training mode.
    """
    return retinanet_resnet(34, num_classes, **settings)


def retinanet_resnet50(num_classes: int, **settings: Any) -> RetinaNet:
    """RetinaNet on ResNet-50, the paper's default; errors as `retinanet_resnet`.

    Args:
        num_classes: K, how many there are.
        settings: keywords of `retinanet_resnet`.

    Returns:
        the model, in training mode.
    """
    return retinanet_resnet(50, num_classes, **settings)


def retinanet_resnet101(num_classes: int, **settings: Any) -> RetinaNet:
    """RetinaNet on ResNet-101; errors as `retinanet_resnet`.

    Args:
        num_classes: K, how many there are.
        settings: keywords of `retinanet_resnet`.

    Returns:
        the model, in training mode.
    """
    return retinanet_resnet(101, num_classes, **settings)


def retinanet_resnet152(num_classes: int, **settings: Any) -> RetinaNet:
    """RetinaNet on ResNet-152; errors as `retinanet_resnet`.

    Args:
        num_classes: K, how many there are.
        settings: keywords of `retinanet_resnet`.

    Returns:
        the model, in training mode.
    """
    return retinanet_resnet(152, num_classes, **settings)
