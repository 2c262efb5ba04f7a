"""The feature pyramid: maps that are fine and also know what they see.

C3 is fine but shallow, C5 is deep but coarse. The top-down pathway carries what C5 knows down to
the finer maps, and the lateral connections give it back their exact places. The plainer necks
below are the same network with parts taken out, so that one can see what each part is for.
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

    Raises:
        ValueError: not three `in_channels`, or no such `p6_from`.

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
        self._take_out()

    def _take_out(self) -> None:
        """Remove what a plainer neck does without; the FPN keeps all."""

    def read(self, backbone: nn.Module, images: Tensor) -> Sequence[Tensor]:
        """The maps that `forward` takes: those of one run of the backbone, C3, C4, C5."""
        return backbone(images)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """C3, C4, C5 at strides 8, 16, 32 to P3…P7 at strides 8…128, each (B, C, H/s, W/s)."""
        c3, c4, c5 = maps
        m5 = self.laterals[2](c5)
        m4 = self.laterals[1](c4) + _upsample(m5, c4)
        m3 = self.laterals[0](c3) + _upsample(m4, c3)
        p3, p4, p5 = (smooth(m) for smooth, m in zip(self.smooth, (m3, m4, m5), strict=True))
        return [p3, p4, p5, *self.coarser(c5, p5)]

    def coarser(self, c5: Tensor, p5: Tensor) -> list[Tensor]:
        """P6 and P7."""
        p6 = self.p6(c5 if self.p6_from == "C5" else p5)
        return [p6, self.p7(F.relu(p6))]


class LateralNeck(FPN):
    """The FPN without its top-down pathway: a 1×1 and a 3×3 convolution on each of C3, C4, C5.

    Source:
        Lin et al. (arXiv 1612.03144), section 5: "How important is top-down enrichment?".
    """

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """C3, C4, C5 to P3…P7; P3 knows only C3, and P4 only C4."""
        pairs = zip(self.laterals, self.smooth, maps, strict=True)
        p3, p4, p5 = (smooth(lateral(c)) for lateral, smooth, c in pairs)
        return [p3, p4, p5, *self.coarser(maps[-1], p5)]


class TopDownNeck(FPN):
    """The FPN without the laterals of C3 and C4: C5 is enlarged, and no finer map is added.

    Source:
        Lin et al. (arXiv 1612.03144), section 5: "How important are lateral connections?".
    """

    def _take_out(self) -> None:
        del self.laterals[:2]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """C3, C4, C5 to P3…P7; of C3 and C4 only the sizes are used."""
        c3, c4, c5 = maps
        m5 = self.laterals[0](c5)
        m4 = _upsample(m5, c4)
        m3 = _upsample(m4, c3)
        p3, p4, p5 = (smooth(m) for smooth, m in zip(self.smooth, (m3, m4, m5), strict=True))
        return [p3, p4, p5, *self.coarser(c5, p5)]


class SSDNeck(FPN):
    """SSD's hierarchy: the backbone's own maps, and two smaller ones by strided convolutions.

    The 1×1 convolutions only make the channels equal, since our subnets serve all levels. SSD has
    none: each of its maps keeps its channels and has a predictor of its own.

    Source:
        Liu et al., "SSD" (arXiv 1512.02325), section 2.1.
    """

    def _take_out(self) -> None:
        del self.smooth

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """C3, C4, C5 to P3…P7; P3 knows only C3, and P4 only C4."""
        p3, p4, p5 = (lateral(c) for lateral, c in zip(self.laterals, maps, strict=True))
        return [p3, p4, p5, *self.coarser(maps[-1], p5)]


class SingleNeck(FPN):
    """One map for all levels: C5 after a 1×1 convolution.

    It is repeated to the grids of P3 and P4 by the nearest neighbour, and thinned to those of P6
    and P7 by leaving out every second row and column. So the anchors stay where they are, and those
    of all five levels read the same numbers. In the paper's variant the anchors of all five scales
    stand on the grid of the one map itself, which has fewer places.

    Source:
        Lin et al. (arXiv 1612.03144), section 5, the single-scale baseline on C5.
    """

    def _take_out(self) -> None:
        del self.laterals[:2], self.smooth, self.p6, self.p7

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """C3, C4, C5 to P3…P7; of C3 and C4 only the sizes are used."""
        c3, c4, c5 = maps
        p5 = self.laterals[0](c5)
        p6 = p5[..., ::2, ::2]
        return [_upsample(p5, c3), _upsample(p5, c4), p5, p6, p6[..., ::2, ::2]]


class ImagePyramidNeck(SingleNeck):
    """A featurised image pyramid: the backbone runs on the picture at five scales.

    At 4, 2, 1, ½ and ¼ of the picture's sides, C5 has the grids of P3…P7. One 1×1 convolution
    serves all five. That costs 16 + 4 + 1 + ¼ + 1/16 ≈ 21 runs on the picture as it is. A side
    that does not divide is stretched by less than a pixel.

    Source:
        Lin et al. (arXiv 1612.03144), figure 1a.
    """

    def read(self, backbone: nn.Module, images: Tensor) -> Sequence[Tensor]:
        """C5 of five runs of the backbone, that of the largest picture first."""
        maps = []
        for stride in (8, 16, 32, 64, 128):
            # C5 has a cell for each 32 pixels of the picture that the backbone is given.
            size = [-(-side * 32 // stride) for side in images.shape[-2:]]
            scaled = F.interpolate(images, size=size, mode="bilinear", antialias=True)
            maps.append(backbone(scaled)[-1])
        return maps

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Five times C5, from `read`, to P3…P7; each level knows its own run alone."""
        return [self.laterals[0](c5) for c5 in maps]


NECKS: dict[str, type[FPN]] = {
    "fpn": FPN,
    "lateral": LateralNeck,
    "top-down": TopDownNeck,
    "single": SingleNeck,
    "ssd": SSDNeck,
    "image-pyramid": ImagePyramidNeck,
}


def build_neck(
    neck: str,
    in_channels: Sequence[int],
    channels: int = 256,
    *,
    p6_from: Literal["C5", "P5"] = "C5",
) -> FPN:
    """The FPN, or a plainer neck with the same levels, grids and channels.

    Args:
        neck: "fpn"; "lateral", without the top-down pathway; "top-down", without the laterals of
            C3 and C4; "single", all levels from C5; "ssd", each map by itself; "image-pyramid",
            the backbone runs once a level.
        in_channels: channels of C3, C4, C5.
        channels: of every level.
        p6_from: as in `FPN`; "single" and "image-pyramid" have no convolution for P6.

    Returns:
        a module for which `neck(neck.read(backbone, images))` is P3…P7.

    Raises:
        ValueError: there is no such neck.

    Law:
        A level with stride s has ceil(H/s) × ceil(W/s) cells, whichever neck it is.
    """
    if neck not in NECKS:
        raise ValueError(f"neck is one of {', '.join(NECKS)}, not {neck!r}")
    return NECKS[neck](in_channels, channels, p6_from=p6_from)


def _upsample(coarse: Tensor, like: Tensor) -> Tensor:
    """Nearest neighbour to the size of `like`, which is odd where the image's side is."""
    return F.interpolate(coarse, size=like.shape[-2:], mode="nearest")
