"""Box coding: where an object lies as seen from an anchor.

The network does not say where a box is, it says how to move and stretch an anchor. The shift is
measured in anchor sides and the stretch in logarithms, so that the same four numbers mean the
same thing for an anchor of 32 pixels and for one of 512.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from retinanet_edu.boxes import at_least_float32

# exp(dw) is the factor by which an anchor's width grows. An untrained network can say dw = 100,
# and exp(100) overflows; at most 1000 / 16 ≈ 62 times is Detectron's bound, kept by all since.
MAX_LOG_STRETCH = math.log(1000 / 16)


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    boxes = at_least_float32(boxes)
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + size / 2, size


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Offsets that lead from each anchor to its box.

    Args:
        boxes: (..., 4) x1 y1 x2 y2 in pixels, of positive width and height.
        anchors: (..., 4) x1 y1 x2 y2 in pixels, broadcast against `boxes`.

    Returns:
        (..., 4) dx dy dw dh: the centre's shift in anchor sides, the log of the size ratio;
        float32, float64 where an argument is.

    Law:
        decode_boxes(encode_boxes(b, a), a) = b while b is at most 1000/16 times as wide and high.

    Source:
        Girshick et al., "Rich feature hierarchies" (R-CNN, arXiv 1311.2524), eqs. 6–9; the
        article's eqs. 2–5. No means or standard deviations are applied.
    """
    box_centre, box_size = _centre_and_size(boxes)
    anchor_centre, anchor_size = _centre_and_size(anchors)
    shift = (box_centre - anchor_centre) / anchor_size
    return torch.cat([shift, torch.log(box_size / anchor_size)], dim=-1)


def decode_boxes(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Boxes to which the offsets lead.

    Args:
        deltas: (..., 4) dx dy dw dh; dw and dh are clamped from above at ln(1000/16).
        anchors: (..., 4) x1 y1 x2 y2 in pixels, broadcast against `deltas`.

    Returns:
        (..., 4) x1 y1 x2 y2 in pixels, not clipped to any image; float32, float64 where an
        argument is.

    Law:
        decode_boxes(0, a) = a, and encode_boxes(decode_boxes(d, a), a) = d while dw and dh are
        at most ln(1000/16).

    Source:
        Girshick et al. (R-CNN, arXiv 1311.2524), eqs. 1–4.
    """
    anchor_centre, anchor_size = _centre_and_size(anchors)
    deltas = at_least_float32(deltas)
    centre = anchor_centre + deltas[..., :2] * anchor_size
    size = anchor_size * torch.exp(deltas[..., 2:].clamp(max=MAX_LOG_STRETCH))
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)
