"""The feature pyramid: maps that are fine and also know what they see.

C3 is fine but shallow, C5 is deep but coarse. The top-down pathway carries what C5 knows down to
the finer maps, and the lateral connections give it back their exact places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


class FPN(nn.Module):
    """P3…P7 from C3, C4, C5.

    Args:
        in_channels: channels of C3, C4, C5.
        channels: channels of every level of the pyramid.
        p6_from: the map that P6 is computed from, "C5" as in the paper, or "P5".

    Source:
        Lin et al., "Feature Pyramid Networks" (arXiv 1612.03144), section 3; P6 and P7 from the
        RetinaNet paper (arXiv 1708.02002), section 4, footnote 2.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        *,
        p6_from: Literal["C5", "P5"] = "C5",
    ) -> None:
        super().__init__()
        if len(in_channels) != 3:
            raise ValueError(f"the pyramid stands on C3, C4 and C5, not on {len(in_channels)} maps")
        if p6_from not in ("C5", "P5"):
            raise ValueError(f"p6_from is 'C5' or 'P5', not {p6_from!r}")
        self.channels = channels
        self.p6_from = p6_from
        self.laterals = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3))
        p6_channels = in_channels[-1] if p6_from == "C5" else channels
        self.p6 = nn.Conv2d(p6_channels, channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """C3, C4, C5 at strides 8, 16, 32 to P3…P7 at strides 8…128, each (B, C, H/s, W/s)."""
        c3, c4, c5 = maps
        m5 = self.laterals[2](c5)
        m4 = self.laterals[1](c4) + _upsample(m5, c4)
        m3 = self.laterals[0](c3) + _upsample(m4, c3)
        p3, p4, p5 = (smooth(m) for smooth, m in zip(self.smooth, (m3, m4, m5), strict=True))
        p6 = self.p6(c5 if self.p6_from == "C5" else p5)
        p7 = self.p7(F.relu(p6))
        return [p3, p4, p5, p6, p7]


def _upsample(coarse: Tensor, like: Tensor) -> Tensor:
    """Nearest neighbour to the size of `like`, which is odd where the image's side is."""
    return F.interpolate(coarse, size=like.shape[-2:], mode="nearest")
