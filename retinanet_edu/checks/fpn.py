"""Checks of `fpn`: the top-down pathway."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from retinanet_edu.checks.harness import Case, Mistake, Piece
from retinanet_edu.checks.slopes import measured_slope

Maps = Sequence[Tensor]

CHAIN = "each sum is handed on: m3 gets the sum m4, not the lateral l4"
NEAREST = "enlarge by the nearest neighbour: each number is repeated, nothing is mixed"
SIZE = "a map of 5 stands over one of 3, not 2.5: enlarge to the finer map's size, not by 2"


def enlarge_by_loop(coarse: Tensor, height: int, width: int) -> Tensor:
    """Each cell of the fine grid takes the coarse cell that it lies in."""
    rows, columns = coarse.shape[-2:]
    fine = coarse.new_zeros(*coarse.shape[:-2], height, width)
    for y in range(height):
        for x in range(width):
            fine[..., y, x] = coarse[..., y * rows // height, x * columns // width]
    return fine


def top_down_by_loop(laterals: Maps) -> list[Tensor]:
    """From the coarsest map down: enlarge what there is, add the next lateral."""
    *finer, top = laterals
    maps = [top]
    for lateral in reversed(finer):
        maps.insert(0, lateral + enlarge_by_loop(maps[0], *lateral.shape[-2:]))
    return maps


def _maps(
    *sizes: tuple[int, int], channels: int = 1, batch: int = 1, seed: int = 0
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, channels, *size) for size in sizes]
    return [torch.randint(-5, 6, shape, generator=generator).float() for shape in shapes]


def _cases() -> Iterator[Case]:
    ones, tens = torch.ones(1, 1, 4, 4), 10 * torch.ones(1, 1, 2, 2)
    top = torch.full((1, 1, 1, 1), 100.0)
    yield Case("ones, tens and a hundred", ([ones, tens, top],), [ones + 110, tens + 100, top])
    quarters = torch.tensor([[[[1.0, 2], [3, 4]]]])
    rows = [[1.0, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    yield Case(
        "a map of 1 2 3 4 over zeros", ([0 * ones, quarters, 0 * top],),
        [torch.tensor([[rows]]), quarters, 0 * top], why=NEAREST,
    )  # fmt: skip

    def by_loop(name: str, maps: list[Tensor], why: str = "") -> Case:
        return Case(name, (maps,), top_down_by_loop(maps), why=why)

    yield by_loop("odd sides: 5, 3 and 2", _maps((5, 5), (3, 3), (2, 2)), why=SIZE)
    yield by_loop("higher than wide", _maps((8, 3), (4, 2), (2, 1), seed=1), why=SIZE)
    two = _maps((4, 6), (2, 3), (1, 2), channels=3, batch=2)
    yield by_loop("two images, three channels", two)
    half = [m.half() for m in _maps((4, 4), (2, 2), (1, 1), seed=2)]
    yield by_loop("half precision", half)
    few = _maps((3, 4), (2, 2), (1, 1), seed=3)
    for i, name in enumerate(("l3", "l4", "l5")):
        slope = measured_slope(partial(_flat_with, few, i), few[i])
        yield Case(f"slopes by {name}", (few,), slope, slope=(0, i), atol=1e-4)


def _flat_with(maps: Maps, i: int, moved: Tensor) -> Tensor:
    """All numbers of the three sums, where map i has moved."""
    maps = [m.double() for m in [*maps[:i], moved, *maps[i + 1 :]]]
    return torch.cat([m.flatten() for m in top_down_by_loop(maps)])


def _three_maps(value: Any) -> list[Tensor]:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError("a list of three maps is asked for: m3, m4, m5")
    return list(value)


def _with(enlarge: Callable[[Tensor, Tensor], Tensor], chain: bool = True) -> Callable:
    def version(laterals: Maps) -> list[Tensor]:
        l3, l4, l5 = laterals
        m4 = l4 + enlarge(l5, l4)
        return [l3 + enlarge(m4 if chain else l4, l3), m4, l5]

    return version


def _nearest(coarse: Tensor, like: Tensor) -> Tensor:
    return enlarge_by_loop(coarse, *like.shape[-2:])


def _resized(mode: str, **more: bool) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda coarse, like: F.interpolate(coarse, like.shape[-2:], mode=mode, **more)


_TOP_DOWN = Piece(
    "top_down(laterals)",
    _cases,
    "a loop over the cells",
    (
        Mistake(CHAIN, _with(_nearest, chain=False)),
        Mistake(NEAREST, _with(_resized("bilinear"))),
        Mistake(NEAREST, _with(_resized("bilinear", align_corners=True))),
        Mistake(NEAREST, _with(_resized("bicubic"))),
        Mistake(
            "the finer map gets the coarser one added, not in its place",
            lambda m: [_nearest(_nearest(m[2], m[1]), m[0]), _nearest(m[2], m[1]), m[2]],
        ),
        Mistake("the laterals come as l3, l4, l5, the finest first: so must the result",
                lambda m: top_down_by_loop(m)[::-1]),
        Mistake(
            "the maps are added, not averaged",
            lambda m: [(m[0] + _nearest((m[1] + _nearest(m[2], m[1])) / 2, m[0])) / 2,
                       (m[1] + _nearest(m[2], m[1])) / 2, m[2]],
        ),
    ),
    read=_three_maps,
)  # fmt: skip

PIECES = {_TOP_DOWN.name: _TOP_DOWN}
