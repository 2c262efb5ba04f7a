"""Other ways to build and to train a RetinaNet, which the claims compare it with."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retinanet_edu.heads import Subnet
from retinanet_edu.losses import Losses, criterion
from retinanet_edu.matching import BACKGROUND, match_targets
from retinanet_edu.model import RetinaNet
from retinanet_edu.structures import Predictions, Targets

# A score of e⁻³⁰ is below every threshold.
_NEVER = -30.0


class LevelSubnets(nn.Module):
    """A subnet of its own for each level, instead of one for all.

    Args:
        shared: the subnet that all of them begin as.
        levels: how many there are.
    """

    def __init__(self, shared: Subnet, levels: int = 5) -> None:
        super().__init__()
        self.subnets = nn.ModuleList(deepcopy(shared) for _ in range(levels))

    @property
    def output(self) -> nn.Module:
        """The last layer of the first."""
        return cast("Subnet", self.subnets[0]).output

    def forward(self, levels: list[Tensor]) -> Tensor:
        """As `Subnet`: levels (B, C, H', W') each to (B, N, outputs)."""
        pairs = zip(self.subnets, levels, strict=True)
        return torch.cat([subnet([level]) for subnet, level in pairs], dim=1)


def with_level_subnets(model: RetinaNet) -> RetinaNet:
    """The same model whose levels share no subnet.

    Args:
        model: it is changed.

    Returns:
        that model.

    Law:
        Before any training its predictions are those of the shared subnets.
    """
    model.classification_head = LevelSubnets(model.classification_head)  # type: ignore[assignment]
    model.box_head = LevelSubnets(model.box_head)  # type: ignore[assignment]
    return model


class ClasswiseRetinaNet(RetinaNet):
    """A RetinaNet that moves each anchor once for each class, 4K numbers instead of 4.

    In training its `box_deltas` are (B, N, 4K), which `classwise_criterion` reads. In evaluation
    it has N·K anchors, each of which speaks for one class alone, so that `postprocess` needs to
    know nothing of all this.

    Args:
        like: the model whose backbone it takes, and whose settings it shares.
    """

    def __init__(self, like: RetinaNet) -> None:
        settings: dict[str, Any] = like.settings
        super().__init__(
            like.backbone,
            anchors=like.anchor_generator,
            classes=like.classes,
            image_size=like.image_size,
            **settings,
        )
        self.box_head = Subnet(
            like.fpn.channels,
            like.anchor_generator.anchors_per_cell,
            4 * like.num_classes,
            num_convs=settings["head_convs"],
            group_norm=settings["group_norm"],
        )

    def forward(self, images: Tensor) -> Predictions:
        """As `RetinaNet`, with other shapes: see the class."""
        found = super().forward(images)
        if self.training:
            return found
        logits, k = found.class_logits, self.num_classes  # (B, N, K)
        own = logits.new_full((*logits.shape, k), _NEVER)  # (B, N, K, K)
        own.diagonal(dim1=-2, dim2=-1).copy_(logits)
        return Predictions(
            own.flatten(1, 2),  # (B, N·K, K)
            found.box_deltas.unflatten(-1, (k, 4)).flatten(1, 2),  # (B, N·K, 4)
            tuple(n * k for n in found.anchors_per_level),
        )

    def anchors(self, image_size: tuple[int, int]) -> Tensor:
        """(N, 4), in evaluation (N·K, 4)."""
        anchors = super().anchors(image_size)
        return anchors if self.training else anchors.repeat_interleave(self.num_classes, dim=0)


def classwise_criterion(
    predictions: Predictions, anchors: Tensor, targets: Targets, **settings: Any
) -> Losses:
    """`criterion` for `ClasswiseRetinaNet`: of each anchor, the deltas of its object's class.

    Args:
        predictions: with `box_deltas` (B, N, 4K).
        anchors, targets, settings: as in `criterion`; thresholds are the default ones.

    Returns:
        `Losses`.
    """
    match = match_targets(anchors, targets.boxes, targets.difficult)  # (B, N)
    labels = targets.labels.gather(1, match.clamp(min=0))  # (B, N)
    deltas = predictions.box_deltas.unflatten(-1, (-1, 4))  # (B, N, K, 4)
    own = deltas.take_along_dim(labels[..., None, None], dim=2).squeeze(2)  # (B, N, 4)
    one = Predictions(predictions.class_logits, own, predictions.anchors_per_level)
    return criterion(one, anchors, targets, **settings)


def ohem_criterion(
    predictions: Predictions,
    anchors: Tensor,
    targets: Targets,
    *,
    negatives: int = 3,
    box_loss_weight: float = 1.0,
) -> Losses:
    """Cross entropy of the positive anchors and of the hardest background ones, a few for each.

    Args:
        predictions, anchors, targets, box_loss_weight: as in `criterion`.
        negatives: background anchors for each positive one of an image, at least so many in all.

    Returns:
        `Losses`; the classification is divided by the positive anchors of each image.

    Source:
        Shrivastava et al., "OHEM" (arXiv 1604.03540); three for one as in Liu et al., "SSD"
        (arXiv 1512.02325), section 2.2.
    """
    logits = predictions.class_logits  # (B, N, K)
    match = match_targets(anchors, targets.boxes, targets.difficult)  # (B, N)
    labels = targets.labels.gather(1, match.clamp(min=0)).masked_fill(match < 0, -1)  # (B, N)
    truth = labels[..., None] == torch.arange(logits.shape[2], device=logits.device)  # (B, N, K)
    cost = F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype), reduction="none").sum(
        dim=2
    )  # (B, N)
    count = (match >= 0).sum(dim=1).clamp(min=1)  # (B,)
    hardness = cost.detach().masked_fill(match != BACKGROUND, -1)
    rank = hardness.argsort(dim=1, descending=True).argsort(dim=1)  # (B, N)
    is_kept = (match >= 0) | ((match == BACKGROUND) & (rank < negatives * count[:, None]))
    classification = ((cost * is_kept).sum(dim=1) / count).mean()
    box = criterion(predictions, anchors, targets).box
    return Losses(classification + box_loss_weight * box, classification, box)


def criterion_per_anchor(
    predictions: Predictions, anchors: Tensor, targets: Targets, **settings: Any
) -> Losses:
    """`criterion`, divided by the number of all anchors instead of the positive ones.

    Args:
        predictions, anchors, targets, settings: as in `criterion`.

    Returns:
        `Losses`.
    """
    losses = criterion(predictions, anchors, targets, normaliser="batch", **settings)
    match = match_targets(anchors, targets.boxes, targets.difficult)  # (B, N)
    share = (match >= 0).sum().clamp(min=1) / match.numel()
    return Losses(*(part * share for part in losses))


class CorruptedBoxes:
    """A dataset of which some boxes are wrong.

    Each of a wrong box's sides gets another length, ½ to 2 of its own, and its centre moves by up
    to half of it.

    Args:
        data: the dataset.
        share: of the boxes, 0…1.

    Law:
        Which boxes are wrong, and how, depends on the picture's index alone.
    """

    def __init__(self, data: Any, share: float) -> None:
        self.data, self.share = data, share
        self.classes = data.classes

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, dict]:
        """The picture as it is, and its target with some other boxes."""
        image, target = self.data[index]
        boxes, source = target["boxes"], torch.Generator().manual_seed(index)
        chance, move, stretch = (
            torch.rand(len(boxes), n, generator=source) for n in (1, 2, 2)
        )  # (M, 1), (M, 2), (M, 2)
        sides = boxes[:, 2:] - boxes[:, :2]
        centres = boxes[:, :2] + sides / 2 + (move - 0.5) * sides
        half = sides * 4 ** (stretch - 0.5) / 2
        limit = boxes.new_tensor([image.shape[-1], image.shape[-2]] * 2)
        wrong = torch.cat([centres - half, centres + half], dim=1).clamp(min=0).minimum(limit)
        is_wrong = (chance < self.share) & ((wrong[:, 2:] - wrong[:, :2]).amin(1, True) >= 1)
        return image, target | {"boxes": torch.where(is_wrong, wrong, boxes)}
