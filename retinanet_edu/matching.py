"""Matching: which anchor answers for which object.

Each anchor takes the object that it overlaps most. From IoU 0.5 on it must find that object,
below 0.4 it must say "background", and in between it is asked nothing at all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from retinanet_edu.boxes import pairwise_iou

BACKGROUND = -1
IGNORED = -2

# RetinaNet paper (arXiv 1708.02002), section 4: "IoU threshold of 0.5; and to background if
# their IoU is in [0, 0.4)".
POSITIVE_IOU = 0.5
NEGATIVE_IOU = 0.4


def match_anchors(
    anchors: Tensor,
    gt_boxes: Tensor,
    positive: float = POSITIVE_IOU,
    negative: float = NEGATIVE_IOU,
    *,
    force_match: bool = False,
) -> Tensor:
    """The object that each anchor answers for.

    Args:
        anchors: (N, 4) x1 y1 x2 y2 in pixels.
        gt_boxes: (..., M, 4), of one image or of a batch. A zero box matches nothing, so padding
            needs no mask.
        positive: an anchor whose best IoU is at least this is positive.
        negative: one whose best IoU is below this is background; in between it is ignored.
        force_match: give each object the anchors that overlap it most, however little. Such an
            anchor still answers for its own best object, as in torchvision. Unlike there, an
            object that overlaps no anchor claims none (there it claims every one).

    Returns:
        (..., N) int64: index of the object, −1 background, −2 ignored. Of objects with equal IoU
        the first is taken.

    Raises:
        ValueError: unless 0 < negative ≤ positive ≤ 1.

    Law:
        An anchor's index is never that of an object which another object beats, nor, without
        `force_match`, of one whose IoU is below `positive`.

    Source:
        RetinaNet paper (arXiv 1708.02002), section 4, "Anchors"; Faster R-CNN (arXiv 1506.01497),
        section 3.1.2, for the forced match.
    """
    if not 0 < negative <= positive <= 1:
        raise ValueError(f"need 0 < negative ≤ positive ≤ 1, got {negative} and {positive}")
    if gt_boxes.shape[-2] == 0:
        shape = (*gt_boxes.shape[:-2], len(anchors))
        return torch.full(shape, BACKGROUND, dtype=torch.int64, device=anchors.device)
    iou = pairwise_iou(anchors, gt_boxes)  # (..., N, M)
    best_iou, match = iou.max(dim=-1)  # (..., N)
    is_positive = best_iou >= positive
    if force_match:
        best_of_object = iou.amax(dim=-2, keepdim=True)  # (..., 1, M)
        claimed = (iou == best_of_object) & (best_of_object > 0)
        is_positive = is_positive | claimed.any(dim=-1)
    not_positive = torch.where(best_iou < negative, BACKGROUND, IGNORED)
    return torch.where(is_positive, match, not_positive)


def match_targets(
    anchors: Tensor,
    boxes: Tensor,
    difficult: Tensor,
    positive: float = POSITIVE_IOU,
    negative: float = NEGATIVE_IOU,
    *,
    force_match: bool = False,
) -> Tensor:
    """`match_anchors` for training: difficult objects are neither learned nor unlearned.

    The other objects are matched first. Then a background anchor that overlaps a difficult
    object by at least `negative` is ignored.

    Args:
        anchors: (N, 4) x1 y1 x2 y2 in pixels.
        boxes: (..., M, 4) in pixels, padded with zero boxes.
        difficult: (..., M) bool.
        positive, negative, force_match: as in `match_anchors`.

    Returns:
        (..., N) int64, as `match_anchors`; never the index of a difficult object.

    Raises:
        ValueError: as `match_anchors`.

    Law:
        Equal to `match_anchors` with the difficult boxes set to zero, except where that says
        background and a difficult object overlaps by `negative` or more.
    """
    without = boxes.masked_fill(difficult[..., None], 0)
    match = match_anchors(anchors, without, positive, negative, force_match=force_match)
    if boxes.shape[-2] == 0:
        return match
    # A background anchor near any object is near a difficult one: of the others none is near.
    near = pairwise_iou(anchors, boxes).amax(dim=-1) >= negative  # (..., N)
    return match.masked_fill((match == BACKGROUND) & near, IGNORED)
