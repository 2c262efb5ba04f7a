"""Matching: which anchor answers for which object.

Each anchor takes the object that it overlaps most. From IoU 0.5 on it must find that object,
below 0.4 it must say "background", and in between it is asked nothing at all.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from retinanet_edu.boxes import at_least_float32, box_area, is_on_cpu, pairwise_iou

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
    difficult = torch.zeros(gt_boxes.shape[:-1], dtype=torch.bool, device=gt_boxes.device)
    return match_targets(anchors, gt_boxes, difficult, positive, negative, force_match=force_match)


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
    if not 0 < negative <= positive <= 1:
        raise ValueError(f"need 0 < negative ≤ positive ≤ 1, got {negative} and {positive}")
    *batch, objects = boxes.shape[:-1]
    if objects == 0:
        return torch.full((*batch, len(anchors)), BACKGROUND, device=anchors.device)
    if not is_on_cpu(anchors):
        return _match(anchors, boxes, difficult, positive, negative, force_match)
    match = _match_in_turn(
        anchors,
        boxes.reshape(-1, objects, 4),
        difficult.reshape(-1, objects),
        positive,
        negative,
        force_match,
    )
    return match.reshape(*batch, len(anchors))


def _match(
    anchors: Tensor,
    boxes: Tensor,
    difficult: Tensor,
    positive: float,
    negative: float,
    force_match: bool,
) -> Tensor:
    """All pairs at once: few operations, for a GPU."""
    iou = pairwise_iou(anchors, boxes)  # (..., N, M)
    others = iou.masked_fill(difficult[..., None, :], 0)
    best_iou, match = others.max(dim=-1)  # (..., N)
    is_positive = best_iou >= positive
    if force_match:
        best_of_object = others.amax(dim=-2, keepdim=True)  # (..., 1, M)
        claimed = (others == best_of_object) & (best_of_object > 0)
        is_positive = is_positive | claimed.any(dim=-1)
    match = match.masked_fill(~is_positive, IGNORED)
    # An anchor near any object is no background, be the object difficult or not.
    return match.masked_fill(~is_positive & (iou.amax(dim=-1) < negative), BACKGROUND)


def _match_in_turn(
    anchors: Tensor,
    boxes: Tensor,
    difficult: Tensor,
    positive: float,
    negative: float,
    force_match: bool,
) -> Tensor:
    """The same, one object after the other: boxes (B, M, 4).

    No array is larger than the N anchors, so all of it stays in the cache of a CPU.
    """
    anchors, boxes = at_least_float32(anchors), at_least_float32(boxes)
    dtype = torch.promote_types(anchors.dtype, boxes.dtype)
    anchors, boxes = anchors.to(dtype), boxes.to(dtype)
    x1, y1, x2, y2 = anchors.T.contiguous()  # (N,) each
    anchor_area = box_area(anchors)
    match = torch.full((len(boxes), len(anchors)), BACKGROUND)
    for row, some, hidden in zip(match, boxes, difficult):
        best = torch.zeros_like(x1)  # IoU, with the objects that are not difficult
        near = torch.zeros_like(x1) if hidden.any() else best  # with those that are
        # Yes and no in NumPy, which answers several times faster than torch on a CPU.
        claimed = np.zeros(len(anchors), dtype=bool)
        numbers = (some.tolist(), box_area(some).tolist(), hidden.tolist())
        for (left, top, right, bottom), area, is_difficult in zip(*numbers):
            if area == 0:
                continue
            # A width of at least 0 is enough: times a negative height it is no overlap either.
            width = x2.clamp(max=right).sub_(x1.clamp(min=left)).clamp_(min=0)
            height = y2.clamp(max=bottom).sub_(y1.clamp(min=top))
            intersection = width.mul_(height)
            iou = intersection.div_((anchor_area + area).sub_(intersection))
            if is_difficult:
                torch.maximum(near, iou, out=near)
                continue
            torch.maximum(best, iou, out=best)
            if force_match and 0 < (most := float(iou.max())) < positive:
                claimed |= iou.numpy() == most
        # Which object it is, is asked of the few anchors alone that are no background.
        touched = claimed | (torch.maximum(best, near).numpy() >= negative)
        found = torch.from_numpy(touched.nonzero()[0])
        is_positive = (best[found] >= positive) | torch.from_numpy(claimed)[found]
        candidates = some.masked_fill(hidden[:, None], 0)
        index = pairwise_iou(anchors[found], candidates).argmax(dim=1)
        row[found] = index.masked_fill(~is_positive, IGNORED)
    return match
