"""Clusters of box shapes: k-means by IoU, so that small boxes count as much as large ones."""

from __future__ import annotations

import torch
from torch import Tensor

from retinanet_edu.boxes import pairwise_iou

_ROUNDS = 50
_MOST = 20_000  # objects; more tell nothing new


def cluster_shapes(sides: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Typical widths and heights.

    Each round gives an object to the shape that it overlaps most, both centred at one point, and
    moves each shape to the median of its objects. The first shapes are spread over the areas and
    ratios there are: each next one is the object that those so far overlap least. Nothing is
    drawn at random.

    Args:
        sides: (O, 2) width and height, positive.
        k: how many shapes, at least 1.

    Returns:
        shapes (k', 2) and which share of the objects each has (k',); k' is less than k where
        there are not as many different objects.

    Source:
        Redmon and Farhadi, "YOLO9000" (arXiv 1612.08242), section 2, "Dimension Clusters".
    """
    if len(sides) > _MOST:
        sides = sides[:: -(-len(sides) // _MOST)]
    shapes = sides.median(dim=0).values[None]  # (1, 2)
    while len(shapes) < k:
        worst = shape_iou(sides, shapes).amax(dim=1).argmin()
        if bool((shape_iou(sides[worst][None], shapes) > 1 - 1e-6).any()):
            break
        shapes = torch.cat([shapes, sides[worst][None]])
    owner = torch.full((len(sides),), -1)
    for _ in range(_ROUNDS):
        before, owner = owner, shape_iou(sides, shapes).argmax(dim=1)
        if torch.equal(before, owner):
            break
        present = owner.unique()
        shapes = torch.stack([sides[owner == i].median(dim=0).values for i in present])
        owner = torch.searchsorted(present, owner)
    share = torch.bincount(owner, minlength=len(shapes)) / len(sides)
    return shapes, share


def shape_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes that share their centre.

    Args:
        a: (N, 2) width and height.
        b: (M, 2).

    Returns:
        (N, M).
    """
    return pairwise_iou(torch.cat([-a, a], dim=1) / 2, torch.cat([-b, b], dim=1) / 2)
