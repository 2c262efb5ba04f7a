"""Losses: focal loss over all anchors, smooth L1 over the positive ones, and their sum."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torchvision.ops import generalized_box_iou_loss

from retinanet_edu.boxes import at_least_float32, is_on_cpu
from retinanet_edu.coding import decode_boxes, encode_boxes
from retinanet_edu.matching import IGNORED, NEGATIVE_IOU, POSITIVE_IOU, match_targets
from retinanet_edu.structures import Predictions, Targets

# RetinaNet paper (arXiv 1708.02002), section 5.1: the best pair found.
ALPHA = 0.25
GAMMA = 2.0
# Logits whose loss a CPU computes at a time: their float32 numbers fit in its cache.
_PIECE = 1 << 17

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


def _focal_terms(logits: Tensor, is_object: Tensor, alpha: float, gamma: float) -> Tensor:
    """Focal loss of each logit, before any sum: same shape as `logits`; `is_object` is bool."""
    logits = at_least_float32(logits)
    # y is the logit of the wrong answer, so 1 − p_t = sigmoid(y). Both logarithms come from one
    # softplus, and nothing over- or underflows however sure the network is:
    # −log p_t = softplus(y), and log(1 − p_t) = y − softplus(y).
    y = torch.where(is_object, -logits, logits)
    cross_entropy = F.softplus(y)
    modulation = torch.exp(gamma * (y - cross_entropy))  # (1 − p_t)^γ
    # Of the logits' own precision: numbers of Python's would become float32 here.
    alpha_t = torch.where(is_object, y.new_full((), alpha), y.new_full((), 1 - alpha))
    return alpha_t * modulation * cross_entropy


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
    return _focal_terms(logits, targets > 0.5, alpha, gamma).sum()


def _smooth_l1_terms(predicted: Tensor, target: Tensor, beta: float) -> Tensor:
    """Smooth L1 of each number, before any sum: same shape."""
    if beta < 0:
        raise ValueError(f"beta of smooth L1 must be at least 0, got {beta}")
    predicted, target = at_least_float32(predicted), at_least_float32(target)
    return F.smooth_l1_loss(predicted, target, beta=beta, reduction="none")


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
        IndexError: a label outside 0…K−1, of any object, whether an anchor matches it or not; on
            a GPU, which is not waited for, a CUDA assertion fails later.

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
    count = positives.sum(dim=1)  # (B,)
    if normaliser == "image":
        share = 1 / (batch * count.clamp(min=1))  # (B,)
    elif normaliser == "batch":
        share = (1 / count.sum().clamp(min=1)).expand(batch)
    else:
        raise ValueError(f"normaliser is 'image' or 'batch', not {normaliser!r}")
    weights = (match != IGNORED) * share[:, None].to(at_least_float32(logits).dtype)  # (B, N)

    sums = _sums_on_cpu if is_on_cpu(logits) else _sums
    classification, box = sums(
        predictions, anchors, targets, match, weights, alpha, gamma, box_loss, beta
    )
    return Losses(classification + box_loss_weight * box, classification, box)


def _sums(
    predictions: Predictions,
    anchors: Tensor,
    targets: Targets,
    match: Tensor,
    weights: Tensor,
    alpha: float,
    gamma: float,
    box_loss: BoxLoss,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """Both losses, each anchor with its weight: match and weights (B, N).

    Every anchor goes through all of it, and what is not asked for weighs nothing. So a GPU needs
    few operations, and never stops to tell how many anchors are positive.
    """
    logits, deltas = predictions.class_logits, predictions.box_deltas
    boxes, labels = targets.boxes, targets.labels
    if boxes.shape[1] == 0:  # one of no size, so that there is something to gather
        boxes, labels = F.pad(boxes, (0, 0, 0, 1)), F.pad(labels, (0, 1))
    positives, objects = match >= 0, match.clamp(min=0)  # (B, N)
    label = labels.gather(1, objects).masked_fill(~positives, -1)  # (B, N)
    is_object = label[..., None] == torch.arange(logits.shape[2], device=label.device)  # (B, N, K)
    terms = _focal_terms(logits, is_object, alpha, gamma)
    classification = (terms * weights[..., None]).sum()

    own = boxes.gather(1, objects[..., None].expand(-1, -1, 4))  # (B, N, 4)
    own = torch.where(positives[..., None], own, anchors)  # else the logarithm of nothing
    terms = _box_terms(deltas, own, anchors, box_loss, beta)  # (B, N)
    return classification, (terms * (weights * positives)).sum()


def _sums_on_cpu(
    predictions: Predictions,
    anchors: Tensor,
    targets: Targets,
    match: Tensor,
    weights: Tensor,
    alpha: float,
    gamma: float,
    box_loss: BoxLoss,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """The same: boxes of the P positive anchors alone, and logits in pieces."""
    logits, deltas = predictions.class_logits, predictions.box_deltas
    image, anchor = (match >= 0).nonzero(as_tuple=True)  # (P,) each
    objects = match[image, anchor]
    weight = weights[image, anchor]
    truth = (image * len(anchors) + anchor) * logits.shape[2] + targets.labels[image, objects]
    classification = _FocalSum.apply(logits, weights, truth, weight, alpha, gamma)
    boxes = targets.boxes[image, objects]
    terms = _box_terms(deltas[image, anchor], boxes, anchors[anchor], box_loss, beta)  # (P,)
    return classification, (terms * weight).sum()


class _FocalSum(torch.autograd.Function):
    """`focal_loss` of a batch, each anchor with its own weight, quick and in little memory.

    Nearly all logits are background. So all are taken as such first, piece by piece in a CPU's
    cache, and then that one of each positive anchor is put right which is not. The slope comes
    with the loss, from the same powers, so that nothing is kept for it but the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        weights: Tensor,
        truth: Tensor,
        weight_of_object: Tensor,
        alpha: float,
        gamma: float,
    ) -> Tensor:
        """Logits (B, N, K) and weights (B, N); of the positive anchors, where among all logits
        that of their class lies, `truth` (P,), and their weights (P,) once more.
        """
        rows = logits.reshape(-1, logits.shape[-1])  # (B·N, K)
        background = (1 - alpha) * weights.reshape(-1, 1)  # (B·N, 1)
        # Contiguous, or `flatten` below would give a copy.
        gradient = torch.empty_like(rows, memory_format=torch.contiguous_format)
        size = max(1, _PIECE // rows.shape[1])
        parts = zip(rows.split(size), background.split(size), gradient.split(size))
        total = background.new_zeros(())
        for z, weight, out in parts:
            loss, slope = _fading(z, gamma)
            total += (loss * weight).sum()
            torch.mul(slope, weight, out=out)

        z = rows.flatten()[truth]  # (P,)
        as_background, slope_background = _fading(z, gamma)
        as_object, slope_object = _fading(-z, gamma)
        off, on = (1 - alpha) * weight_of_object, alpha * weight_of_object
        total += (on * as_object - off * as_background).sum()
        change = -on * slope_object - off * slope_background
        gradient.flatten().index_add_(0, truth, change.to(gradient.dtype))
        ctx.save_for_backward(gradient.reshape(logits.shape))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None, None, None, None, None


def _fading(z: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """sigmoid(z)^γ · softplus(z), the focal loss of a background's logit, and its derivative."""
    z = at_least_float32(z)
    p, q = z.sigmoid(), (-z).sigmoid()
    # −log(1 − p) is softplus, but log1p is ten times as slow as log on some processors. Where
    # q = 1 − p was rounded, p / (1 − q) undoes that (Kahan); where nothing is left of p, or of
    # q, it is p, or z.
    tiny = torch.finfo(z.dtype).tiny
    cross_entropy = q.clamp(min=tiny).log().mul_(p).div_((q - 1).clamp_(max=-tiny))
    cross_entropy = torch.maximum(cross_entropy, torch.maximum(p, z))
    modulation = p**gamma
    slope = (1 - p).mul_(cross_entropy).mul_(gamma).add_(p).mul_(modulation)
    return modulation.mul_(cross_entropy), slope


def _check_labels(targets: Targets, num_classes: int) -> None:
    """All labels, or one that few anchors match would do its harm only now and then."""
    rows = torch.arange(targets.labels.shape[1], device=targets.count.device)  # (M,)
    is_object = rows < targets.count[:, None]  # (B, M)
    is_wrong = is_object & ((targets.labels < 0) | (targets.labels >= num_classes))
    if not is_on_cpu(is_wrong):
        torch._assert_async(~is_wrong.any())  # does not wait for the answer
    elif is_wrong.any():
        labels = targets.labels[is_object]
        raise IndexError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, but the model has "
            f"{num_classes} classes: labels are 0…{num_classes - 1}, without a background class"
        )


def _box_terms(
    deltas: Tensor, boxes: Tensor, anchors: Tensor, box_loss: BoxLoss, beta: float
) -> Tensor:
    """Box loss of each anchor: (..., 4) three times to (...)."""
    if box_loss == "giou":
        decoded = decode_boxes(deltas, anchors)
        return generalized_box_iou_loss(decoded, boxes, reduction="none")
    if box_loss not in ("smooth_l1", "l1"):
        raise ValueError(f"box_loss is 'smooth_l1', 'l1' or 'giou', not {box_loss!r}")
    offsets = encode_boxes(boxes, anchors)
    return _smooth_l1_terms(deltas, offsets, beta if box_loss == "smooth_l1" else 0).sum(dim=-1)
