"""Anchors: nine guesses at every cell of every level.

Order of the N anchors: level, row, column, ratio (outer), scale (inner). The heads' channels
follow it, so another order makes trained weights useless without any error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

STRIDES = (8, 16, 32, 64, 128)  # of P3…P7 (RetinaNet paper, section 4)
SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)  # four strides wide, as in the paper
SCALES = (2.0**0, 2 ** (1 / 3), 2 ** (2 / 3))  # three to an octave
RATIOS = (0.5, 1.0, 2.0)  # height / width

_CACHED_SIZES = 16  # image sizes whose anchors are kept; 800 × 1344 has 4 MB of them


class AnchorGenerator:
    """The anchors of an image, from its size alone.

    Args:
        sizes: side of the square anchor at scale 1 on each level, in pixels.
        scales: factors on that side.
        ratios: height / width at constant area.
        strides: pixels between neighbouring cells of each level.
        offset: centre of the first anchor, in strides: 0.5 is the centre of its cell.
        rounded: round the corners of the anchors to whole pixels, and truncate their sizes
            first, as torchvision does.
        stride_from_grid: take the stride as image // grid, as torchvision does; it differs from
            `strides` wherever 128 does not divide the image.

    Raises:
        ValueError: not one size a level, an empty argument, or one that is not positive.

    Law:
        Areas are (size · scale)², whatever the ratio, unless `rounded`;
        N = A · Σ ceil(H/stride) · ceil(W/stride).

    Source:
        RetinaNet paper (arXiv 1708.02002), section 4, "Anchors".
    """

    def __init__(
        self,
        sizes: Sequence[float] = SIZES,
        scales: Sequence[float] = SCALES,
        ratios: Sequence[float] = RATIOS,
        strides: Sequence[int] = STRIDES,
        *,
        offset: float = 0.5,
        rounded: bool = False,
        stride_from_grid: bool = False,
    ) -> None:
        if len(sizes) != len(strides):
            raise ValueError(f"{len(sizes)} anchor sizes for {len(strides)} strides: one a level")
        given = (sizes, scales, ratios, strides)
        if any(len(numbers) == 0 or min(numbers) <= 0 for numbers in given):
            raise ValueError("anchor sizes, scales, ratios, strides: at least one each, positive")
        self.sizes = tuple(float(s) for s in sizes)
        self.scales = tuple(float(s) for s in scales)
        self.ratios = tuple(float(r) for r in ratios)
        self.strides = tuple(int(s) for s in strides)
        self.offset = offset
        self.rounded = rounded
        self.stride_from_grid = stride_from_grid
        self._cache: dict[tuple[tuple[int, int], torch.device], Tensor] = {}

    @property
    def anchors_per_cell(self) -> int:
        """A, nine by default."""
        return len(self.ratios) * len(self.scales)

    @property
    def settings(self) -> dict:
        """The arguments that make an equal generator; a checkpoint stores them."""
        names = ("sizes", "scales", "ratios", "strides", "offset", "rounded", "stride_from_grid")
        return {name: getattr(self, name) for name in names}

    def grid_sizes(self, image_size: tuple[int, int]) -> list[tuple[int, int]]:
        """The cells of each level.

        Args:
            image_size: (H, W) in pixels.

        Returns:
            (rows, columns) of each level: ceil(H / stride), ceil(W / stride).
        """
        height, width = image_size
        return [(math.ceil(height / s), math.ceil(width / s)) for s in self.strides]

    def cell_anchors(self, size: float) -> Tensor:
        """The anchors of one cell, as if its centre were the origin.

        Args:
            size: side of the square anchor at scale 1, in pixels.

        Returns:
            (A, 4) float32 x1 y1 x2 y2 in pixels: ratio outer, scale inner.
        """
        ratios = torch.tensor(self.ratios)
        sides = torch.tensor([size * scale for scale in self.scales])
        if self.rounded:
            sides = sides.trunc()
        heights = (ratios.sqrt()[:, None] * sides).flatten()  # (ratios · scales,)
        widths = ((1 / ratios.sqrt())[:, None] * sides).flatten()
        cell = torch.stack([-widths, -heights, widths, heights], dim=1) / 2  # (A, 4)
        return cell.round() if self.rounded else cell

    def __call__(self, image_size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
        """All anchors of an image.

        Args:
            image_size: (H, W) in pixels.
            device: where the anchors are wanted.

        Returns:
            (N, 4) float32 x1 y1 x2 y2 in pixels. Shared between calls: do not write into it.
        """
        height, width = (int(side) for side in image_size)
        key = ((height, width), torch.device(device))
        anchors = self._cache.get(key)  # threads that predict may share the cache
        if anchors is None:
            if len(self._cache) >= _CACHED_SIZES:
                self._cache.pop(next(iter(self._cache)), None)  # the oldest
            # Never an inference tensor: the same anchors may next serve a loss's gradient.
            with torch.inference_mode(False):
                anchors = self._cache[key] = self._generate(height, width).to(device)
        return anchors

    def _generate(self, height: int, width: int) -> Tensor:
        levels = []
        grids = self.grid_sizes((height, width))
        for size, stride, (rows, columns) in zip(self.sizes, self.strides, grids):
            step_y, step_x = stride, stride
            if self.stride_from_grid:
                step_y, step_x = height // rows, width // columns
            y = (torch.arange(rows) + self.offset) * step_y
            x = (torch.arange(columns) + self.offset) * step_x
            centre_y, centre_x = torch.meshgrid(y, x, indexing="ij")
            centres = torch.stack([centre_x, centre_y, centre_x, centre_y], dim=-1)  # (H', W', 4)
            anchors = centres[:, :, None] + self.cell_anchors(size)  # (H', W', A, 4)
            levels.append(anchors.reshape(-1, 4))
        return torch.cat(levels)  # (N, 4)
