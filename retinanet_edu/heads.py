"""The two subnets: what is here, and where exactly. The same weights look at every level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

# RetinaNet paper (arXiv 1708.02002), section 4.1: the score of every anchor at the start.
PRIOR = 0.01


class Subnet(nn.Module):
    """A small fully convolutional network, shared by all levels, with some outputs an anchor.

    The classification subnet has K outputs, the box subnet 4, whatever the class.

    Args:
        channels: of the pyramid.
        anchors_per_cell: A, how many there are.
        outputs: numbers that each anchor gets.
        num_convs: 3×3 convolutions with ReLU before the last one.
        group_norm: normalise after each of them, 8 channels a group (32 groups of 256).
        prior: score at which the last bias starts, π in 0…1; None starts it at 0.

    Raises:
        ValueError: `prior` is not between 0 and 1.

    Source:
        RetinaNet paper (arXiv 1708.02002), section 4, "Classification Subnet" and "Box
        Regression Subnet"; initialisation: section 4.1.
    """

    def __init__(
        self,
        channels: int,
        anchors_per_cell: int,
        outputs: int,
        *,
        num_convs: int = 4,
        group_norm: bool = False,
        prior: float | None = None,
    ) -> None:
        super().__init__()
        if prior is not None and not 0 < prior < 1:
            raise ValueError(f"prior is a score between 0 and 1, not {prior}")
        self.outputs = outputs
        layers: list[nn.Module] = []
        for _ in range(num_convs):
            layers.append(nn.Conv2d(channels, channels, 3, padding=1, bias=not group_norm))
            if group_norm:
                layers.append(nn.GroupNorm(max(1, channels // 8), channels))
            layers.append(nn.ReLU(inplace=True))
        self.tower = nn.Sequential(*layers)
        self.output = nn.Conv2d(channels, anchors_per_cell * outputs, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if prior is not None and self.output.bias is not None:
            nn.init.constant_(self.output.bias, -math.log((1 - prior) / prior))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels (B, C, H', W') each to (B, N, outputs), anchors in `AnchorGenerator`'s order."""
        return torch.cat([self._one_level(level) for level in levels], dim=1)

    def _one_level(self, level: Tensor) -> Tensor:
        out = self.output(self.tower(level))  # (B, A·outputs, H', W')
        out = out.permute(0, 2, 3, 1)  # (B, H', W', A·outputs)
        return out.reshape(out.shape[0], -1, self.outputs)  # (B, H'·W'·A, outputs)
