"""Non-maximum suppression: of boxes that say the same, keep the surest."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression: take the best box, drop what overlaps it more, go on with the rest.

    Args:
        boxes: (D, 4) x1 y1 x2 y2 in pixels.
        scores: (D,), only their order counts.
        iou_threshold: 0…1; a box goes if its IoU with a kept one is *greater*.

    Returns:
        int64 indices of the kept boxes, best score first; of equal scores the first box goes
        first.

    Raises:
        ValueError: shapes that do not fit each other.

    Law:
        No two kept boxes overlap by more than the threshold, and each dropped one overlaps a
        better kept one by more.

    Source:
        RetinaNet paper (arXiv 1708.02002), section 4, "Inference"; the operator is torchvision's.
    """
    if boxes.shape != (len(scores), 4):
        raise ValueError(
            f"{len(scores)} scores need boxes ({len(scores)}, 4), got {tuple(boxes.shape)}"
        )
    # The operator compares with a float64 threshold, and in float32 3/5 is greater than 0.6.
    return torchvision.ops.nms(boxes.double(), scores.double(), iou_threshold)


def nms_per_class(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """`nms` within each class: a cat does not suppress the sofa it lies on.

    Args:
        boxes: (D, 4) x1 y1 x2 y2 in pixels, negative coordinates allowed.
        scores: (D,), only their order counts.
        labels: (D,) int64, the class of each box, or image · K + class to do a batch at once.
        iou_threshold: as in `nms`.

    Returns:
        int64 indices of the kept boxes over all classes, best score first.

    Raises:
        ValueError: shapes that do not fit each other.

    Law:
        Equal to `nms` of each class alone, merged by score.
    """
    if labels.shape != (len(boxes),):
        raise ValueError(f"{len(boxes)} boxes need {len(boxes)} labels, got {tuple(labels.shape)}")
    if len(boxes) == 0:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    # One call does all classes: boxes of different classes are moved so far apart that they
    # cannot meet. The step is the true span; the largest coordinate alone would not do where
    # some are negative. In float64, since a step times 80 classes eats float32's digits.
    boxes = boxes.double()
    step = boxes.max() - boxes.min() + 1
    moved = boxes + (labels * step)[:, None]
    return nms(moved, scores, iou_threshold)
