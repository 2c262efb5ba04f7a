"""Losses: focal loss over all anchors, smooth L1 over the positive ones, and their sum."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from retinanet_edu.boxes import at_least_float32
from retinanet_edu.coding import decode_boxes, encode_boxes
from retinanet_edu.matching import IGNORED, NEGATIVE_IOU, POSITIVE_IOU, match_targets
from retinanet_edu.structures import Predictions, Targets

# RetinaNet paper (arXiv 1708.02002), section 5.1: the best pair found.
ALPHA = 0.25
GAMMA = 2.0

BoxLoss = Literal["smooth_l1", "l1", "giou"]
Normaliser = Literal["image", "batch"]


class Losses(NamedTuple):
    """What a batch costs: scalars.

    Attributes:
        total: classification + λ · box, eq. 1 of the article; call `backward` on this one.
        classification: focal loss over all anchors that are not ignored, normalised.
        box: box loss over the positive anchors, normalised, before λ.
    """

    total: Tensor
    classification: Tensor
    box: Tensor


def _focal_terms(logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    """Focal loss of each logit, before any sum: same shape as `logits`."""
    logits, targets = at_least_float32(logits), at_least_float32(targets)
    # z is the logit of the true answer, so p_t = sigmoid(z). Both logarithms come from one
    # softplus, and nothing over- or underflows however sure the network is:
    # −log p_t = softplus(−z), and −log(1 − p_t) = softplus(−z) + z.
    z = logits * (2 * targets - 1)
    cross_entropy = F.softplus(-z)
    modulation = torch.exp(-gamma * (cross_entropy + z))  # (1 − p_t)^γ
    weight = alpha * targets + (1 - alpha) * (1 - targets)  # α_t
    return weight * modulation * cross_entropy


def focal_loss(
    logits: Tensor, targets: Tensor, alpha: float = ALPHA, gamma: float = GAMMA
) -> Tensor:
    """Cross entropy that fades where the answer is already right: −α_t (1 − p_t)^γ log p_t.

    Args:
        logits: (N, K) or any shape, before the sigmoid; half precision is computed in float32.
        targets: same shape, 1 for the object's class and 0 elsewhere.
        alpha: weight of the ones; zeros get 1 − alpha. It balances foreground against
            background, not class against class.
        gamma: how fast easy answers fade; 0 is weighted cross entropy.

    Returns:
        the sum, a float32 scalar (float64 of float64). Nothing is normalised here, see
        `criterion`.

    Raises:
        ValueError: logits and targets of different shapes.

    Law:
        focal_loss(z, t, alpha=0.5, gamma=0) is half the binary cross entropy.

    Source:
        RetinaNet paper (arXiv 1708.02002), eq. 5; the article's eq. 8.
    """
    if logits.shape != targets.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ in shape"
        )
    return _focal_terms(logits, targets, alpha, gamma).sum()


def _smooth_l1_terms(predicted: Tensor, target: Tensor, beta: float) -> Tensor:
    """Smooth L1 of each number, before any sum: same shape."""
    if beta < 0:
        raise ValueError(f"beta of smooth L1 must be at least 0, got {beta}")
    error = (at_least_float32(predicted) - at_least_float32(target)).abs()
    if beta == 0:
        return error
    return torch.where(error < beta, error**2 / (2 * beta), error - beta / 2)


def smooth_l1_loss(predicted: Tensor, target: Tensor, beta: float = 1.0) -> Tensor:
    """Squared error near zero, absolute error from `beta` on.

    Args:
        predicted: (N, 4) or any shape; half precision is computed in float32.
        target: same shape.
        beta: where the parabola meets the line, at least 0; 0 is the absolute error.

    Returns:
        the sum, a float32 scalar (float64 of float64).

    Raises:
        ValueError: arguments of different shapes, or a negative beta.

    Law:
        The slope never exceeds 1, and value and slope are continuous at `beta`.

    Source:
        Girshick, "Fast R-CNN" (arXiv 1504.08083), eq. 3; the article's eqs. 6 and 7.
    """
    if predicted.shape != target.shape:
        raise ValueError(
            f"predicted {tuple(predicted.shape)} and target {tuple(target.shape)} differ in shape"
        )
    return _smooth_l1_terms(predicted, target, beta).sum()


def criterion(
    predictions: Predictions,
    anchors: Tensor,
    targets: Targets,
    *,
    positive: float = POSITIVE_IOU,
    negative: float = NEGATIVE_IOU,
    force_match: bool = False,
    train_difficult: bool = False,
    alpha: float = ALPHA,
    gamma: float = GAMMA,
    box_loss: BoxLoss = "smooth_l1",
    beta: float = 1.0,
    box_loss_weight: float = 1.0,
    normaliser: Normaliser = "image",
) -> Losses:
    """The loss of RetinaNet for a batch.

    Args:
        predictions: of the network, B images and N anchors.
        anchors: (N, 4) of the padded image, `model.anchors((H, W))`.
        targets: of the same B images.
        positive, negative, force_match: see `match_anchors`.
        train_difficult: learn difficult objects like all others, instead of ignoring them.
        alpha, gamma: see `focal_loss`.
        box_loss: "smooth_l1" or "l1" of the four offsets, or "giou" of the decoded boxes.
        beta: of smooth L1.
        box_loss_weight: λ of the article's eq. 1.
        normaliser: "image" divides each image's sums by its number of positive anchors, at least
            1, and averages over the batch; "batch" divides by the batch's.

    Returns:
        `Losses`; they are finite for images without objects too, which cost pure background.

    Raises:
        ValueError: shapes that do not fit each other, or an unknown keyword value.
        IndexError: a label outside 0…K−1, of any object, whether an anchor matches it or not.

    Law:
        With normaliser "image", a batch costs the mean of what its images cost one by one.
        Ignored anchors have no gradient, and only positive ones have one of their deltas.

    Source:
        RetinaNet paper (arXiv 1708.02002), sections 4 and 5; the article's eq. 1.
    """
    logits, deltas = predictions.class_logits, predictions.box_deltas
    batch, num_anchors, num_classes = logits.shape
    if len(anchors) != num_anchors or len(targets.boxes) != batch:
        raise ValueError(
            f"predictions are of {batch} images and {num_anchors} anchors, but targets are of "
            f"{len(targets.boxes)} images and there are {len(anchors)} anchors"
        )
    if deltas.shape != (batch, num_anchors, 4):
        raise ValueError(
            f"class logits {tuple(logits.shape)} need box deltas {(batch, num_anchors, 4)}, "
            f"got {tuple(deltas.shape)}"
        )
    _check_labels(targets, num_classes)
    difficult = torch.zeros_like(targets.difficult) if train_difficult else targets.difficult
    match = match_targets(
        anchors, targets.boxes, difficult, positive, negative, force_match=force_match
    )  # (B, N)
    positives = match >= 0  # (B, N)

    image, anchor = positives.nonzero(as_tuple=True)  # (P,) each, P positives of the batch
    objects = match[image, anchor]
    one_hot = torch.zeros_like(logits, dtype=torch.float32)
    one_hot[image, anchor, targets.labels[image, objects]] = 1
    terms = _focal_terms(logits, one_hot, alpha, gamma)  # (B, N, K)
    asked = (match != IGNORED)[..., None]
    classification = (terms * asked).sum(dim=(1, 2))  # (B,)

    per_positive = _box_terms(
        deltas[image, anchor], targets.boxes[image, objects], anchors[anchor], box_loss, beta
    )
    box = classification.new_zeros(batch).index_add(0, image, per_positive)  # (B,)

    if normaliser == "image":
        count = positives.sum(dim=1).clamp(min=1)  # (B,)
        classification, box = (classification / count).mean(), (box / count).mean()
    elif normaliser == "batch":
        total = positives.sum().clamp(min=1)
        classification, box = classification.sum() / total, box.sum() / total
    else:
        raise ValueError(f"normaliser is 'image' or 'batch', not {normaliser!r}")
    return Losses(classification + box_loss_weight * box, classification, box)


def _check_labels(targets: Targets, num_classes: int) -> None:
    """All labels, or one that few anchors match would do its harm only now and then."""
    rows = torch.arange(targets.labels.shape[1], device=targets.count.device)  # (M,)
    labels = targets.labels[rows < targets.count[:, None]]  # one an object of the batch
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise IndexError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, but the model has "
            f"{num_classes} classes: labels are 0…{num_classes - 1}, without a background class"
        )


def _box_terms(
    deltas: Tensor, boxes: Tensor, anchors: Tensor, box_loss: BoxLoss, beta: float
) -> Tensor:
    """Box loss of each positive anchor: (P, 4) three times to (P,)."""
    if box_loss == "giou":
        decoded = decode_boxes(deltas, anchors)
        return generalized_box_iou_loss(decoded, boxes, reduction="none")
    if box_loss not in ("smooth_l1", "l1"):
        raise ValueError(f"box_loss is 'smooth_l1', 'l1' or 'giou', not {box_loss!r}")
    offsets = encode_boxes(boxes, anchors)
    return _smooth_l1_terms(deltas, offsets, beta if box_loss == "smooth_l1" else 0).sum(dim=1)
