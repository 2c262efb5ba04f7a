"""Boxes: area, intersection over union, clipping.

A box is `x1 y1 x2 y2` in pixels of its image, continuous: its width is x2 − x1, and a box
that covers exactly the first pixel is 0 0 1 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Integers and half precision as float32: the area of 300 × 300 overflows float16.

    Args:
        values: any shape and type.

    Returns:
        the same values, float32; float64 stays what it is.
    """
    wide_enough = values.dtype in (torch.float32, torch.float64)
    return values if wide_enough else values.float()


def is_on_cpu(values: Tensor) -> bool:
    """Whether to compute as a CPU likes it: little at a time, so that all stays in its cache.

    A GPU likes the opposite, few operations on all there is, and never to be asked for a number
    on the way. Where that makes two forms of a function, they give the same numbers.

    Args:
        values: any tensor.

    Returns:
        True on a CPU.
    """
    return values.device.type == "cpu"


def box_area(boxes: Tensor) -> Tensor:
    """Area of each box.

    Args:
        boxes: (..., 4) x1 y1 x2 y2 in pixels.

    Returns:
        (...) areas in square pixels, float32 (float64 of float64); an inverted box has area 0.

    Law:
        box_area(s · b) = s² · box_area(b), and a shift of the box changes nothing.
    """
    boxes = at_least_float32(boxes)
    width = (boxes[..., 2] - boxes[..., 0]).clamp(min=0)
    height = (boxes[..., 3] - boxes[..., 1]).clamp(min=0)
    return width * height


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every box of `a` with every box of `b`.

    Two boxes without area have IoU 0, not 0/0: a zero box, such as padding, matches nothing.

    Args:
        a: (..., N, 4) x1 y1 x2 y2 in pixels.
        b: (..., M, 4); leading axes broadcast against those of `a`.

    Returns:
        (..., N, M) in 0…1, float32 (float64 where a box is float64).

    Raises:
        ValueError: a last axis that is not 4.

    Law:
        pairwise_iou(a, b) = pairwise_iou(b, a)ᵀ, unchanged if all boxes are shifted or scaled;
        1 for a box of positive area with itself.

    Source:
        Everingham et al., "The PASCAL VOC Challenge", IJCV 2010, eq. 3, without its + 1.
    """
    if a.shape[-1] != 4 or b.shape[-1] != 4:
        raise ValueError(f"boxes need a last axis of 4, got {tuple(a.shape)} and {tuple(b.shape)}")
    a, b = at_least_float32(a), at_least_float32(b)
    # One coordinate at a time: pairs of two at the end of a tensor cannot be computed side by side.
    ax1, ay1, ax2, ay2 = a[..., :, None, :].unbind(-1)  # (..., N, 1) each
    bx1, by1, bx2, by2 = b[..., None, :, :].unbind(-1)  # (..., 1, M) each
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)  # (..., N, M)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    intersection = width * height
    # The area of an inverted box may have any sign here: it shares nothing with any other.
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


def clip_boxes(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Boxes cut at the borders of their image.

    Args:
        boxes: (..., 4) x1 y1 x2 y2 in pixels.
        image_size: (H, W) in pixels.

    Returns:
        (..., 4) with 0 ≤ x ≤ W and 0 ≤ y ≤ H; a box outside the image has no area left.

    Law:
        A box inside the image is unchanged, so clipping twice is clipping once.
    """
    height, width = image_size
    limit = boxes.new_tensor([width, height, width, height])
    return boxes.clamp(min=0).minimum(limit)
