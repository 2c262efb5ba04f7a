"""Checks of `anchors`: those of a cell, of a level, of an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from retinanet_edu.checks.harness import Case, Mistake, Piece

# RetinaNet paper (arXiv 1708.02002), section 4, "Anchors".
LEVELS = ((32, 8), (64, 16), (128, 32), (256, 64), (512, 128))  # size and stride of P3…P7
RATIOS = (0.5, 1.0, 2.0)
SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))

ORDER = "of the nine, the ratio is the outer loop and the scale the inner one"
RATIO = "the ratio is height / width: with ratio 2 an anchor is higher than wide"
AREA = "the area is (size · scale)² whatever the ratio: height times √ratio, width over √ratio"
CENTRE = "the first anchor's centre is half a stride from the corner: (i + ½) · stride"
CEIL = "a level has ceil(H / stride) rows: a map is rounded up where its stride does not divide H"
ROW_BY_ROW = "cells come row by row: y is the outer loop, x the inner"
Y_AND_X = "x belongs to columns and W, y to rows and H: an image's size is (height, width)"

CELL = "a level is cell_anchors(size), moved to each cell's centre: check that one first"
LEVEL = "an image is level_anchors of P3 to P7, in this order: check that one first"

Box = list[float]


# --- plain numbers --------------------------------------------------------------------------------


def cell_by_loop(
    size: float,
    *,
    scale_outside: bool = False,
    inverse: bool = False,
    root: float = 0.5,
    scales: Sequence[float] = SCALES,
    truncated: bool = False,
) -> list[Box]:
    """The nine around the origin; the keywords make them wrong in known ways."""
    pairs = [(ratio, scale) for ratio in RATIOS for scale in scales]
    if scale_outside:
        pairs = [(ratio, scale) for scale in scales for ratio in RATIOS]
    cell = []
    for ratio, scale in pairs:
        side = float(int(size * scale)) if truncated else size * scale
        stretch = (1 / ratio if inverse else ratio) ** root
        height, width = side * stretch, side / stretch
        cell.append([-width / 2, -height / 2, width / 2, height / 2])
    return [[float(round(v)) for v in box] for box in cell] if truncated else cell


def level_by_loop(
    image_size: tuple[int, int],
    size: float,
    stride: int,
    *,
    offset: float = 0.5,
    rounding: Callable[[float], int] = math.ceil,
    columns_outside: bool = False,
    swapped: bool = False,
    anchors_outside: bool = False,
    from_grid: bool = False,
    **cell: bool | float | Sequence[float],
) -> list[Box]:
    """Row by row, cell by cell, nine in each; the keywords make them wrong in known ways."""
    height, width = image_size
    rows, columns = range(rounding(height / stride)), range(rounding(width / stride))
    step_y, step_x = stride, stride
    if from_grid:
        step_y, step_x = height // len(rows), width // len(columns)
    places = [(row, column) for row in rows for column in columns]
    if columns_outside:
        places = [(row, column) for column in columns for row in rows]
    boxes = []
    for row, column in places:
        y, x = (row + offset) * step_y, (column + offset) * step_x
        if swapped:
            x, y = y, x
        for x1, y1, x2, y2 in cell_by_loop(size, **cell):  # type: ignore[arg-type]
            boxes.append([x + x1, y + y1, x + x2, y + y2])
    return [box for i in range(9) for box in boxes[i::9]] if anchors_outside else boxes


def image_by_loop(
    image_size: tuple[int, int],
    levels: Sequence[tuple[float, int]] = LEVELS,
    **level: object,
) -> list[Box]:
    """All anchors of an image, one after the other."""
    return [
        box
        for size, stride in levels
        for box in level_by_loop(image_size, size, stride, **level)  # type: ignore[arg-type]
    ]


def _tensor(loop: Callable[..., list[Box]], *arguments: object, **wrong: object) -> Tensor:
    return torch.tensor(loop(*arguments, **wrong), dtype=torch.float32).reshape(-1, 4)


def _mistakes(loop: Callable[..., list[Box]], **known: tuple[str, object]) -> list[Mistake]:
    """One for each keyword that makes a loop wrong."""
    return [
        Mistake(hint, partial(_tensor, loop, **{keyword.rstrip("_"): value}))
        for keyword, (hint, value) in known.items()
    ]


IN_A_CELL: dict[str, tuple[str, object]] = {
    "scale_outside": (ORDER, True),
    "inverse": (RATIO, True),
    "root": (AREA, 1.0),
    "root_": (AREA, 0.25),
    "truncated": ("sizes are exact: neither truncate 40.3 nor round the corners", True),
    "scales": ("three scales to an octave: 1, 2^⅓, 2^⅔", (1.0, 1.26, 1.59)),
    "scales_": ("three scales to an octave: 1, 2^⅓, 2^⅔", (1.0, 4 / 3, 5 / 3)),
    "scales__": ("three scales to an octave: 1, 2^⅓, 2^⅔", (1.0, 2.0, 4.0)),
}
IN_A_LEVEL: dict[str, tuple[str, object]] = {
    "offset": (CENTRE, 0.0),
    "offset_": (CENTRE, 1.0),
    "rounding": (CEIL, math.floor),
    "from_grid": (
        "strides are fixed, 8 to 128; image // rows is another where they do not divide",
        True,
    ),
    "columns_outside": (ROW_BY_ROW, True),
    "swapped": (Y_AND_X, True),
    "anchors_outside": ("the nine of a cell stand together: cells outside, anchors inside", True),
}


def _place(index: Sequence[int]) -> str:
    """Which of the nine it is."""
    ratio, scale = divmod(index[0] % 9, 3)
    return f"ratio {RATIOS[ratio]:g}, scale {SCALES[scale]:.2f}"


# --- a cell ---------------------------------------------------------------------------------------

# Half the sides of the nine anchors of size 32, to four digits, from a pocket calculator:
# 16 · √2 = 22.6274, and 16 · 2^⅓ = 20.1587, 16 · 2^⅔ = 25.3984.
HALF_SIDES_OF_32 = (
    (22.6274, 11.3137), (28.5088, 14.2544), (35.9188, 17.9594),
    (16.0000, 16.0000), (20.1587, 20.1587), (25.3984, 25.3984),
    (11.3137, 22.6274), (14.2544, 28.5088), (17.9594, 35.9188),
)  # fmt: skip


def _cell_cases() -> Iterator[Case]:
    table = [[-w, -h, w, h] for w, h in HALF_SIDES_OF_32]
    why = "size · scale · √ratio high, size · scale / √ratio wide; ratio outside, scale inside"
    yield Case("size 32", (32,), torch.tensor(table), why=why, atol=1e-3)
    for size in (64, 128, 512):
        yield Case(f"size {size}", (size,), _tensor(cell_by_loop, size), why=AREA, atol=1e-3)
    yield Case("size 10.5", (10.5,), _tensor(cell_by_loop, 10.5), why=AREA, atol=1e-4)


_CELL = Piece(
    "cell_anchors(size)",
    _cell_cases,
    "a table from a pocket calculator",
    [
        *_mistakes(cell_by_loop, **IN_A_CELL),
        Mistake("from the centre it is half a side to either border",
                lambda size: 2 * _tensor(cell_by_loop, size)),
        Mistake("they lie around the origin: half a side to the left, half to the right",
                lambda size: _tensor(cell_by_loop, size)
                - _tensor(cell_by_loop, size)[:, :2].repeat(1, 2)),
    ],
    place=lambda index, size: _place(index),
)  # fmt: skip

# --- a level --------------------------------------------------------------------------------------


def _level_cases() -> Iterator[Case]:
    def by_loop(name: str, *arguments: object, why: str = "") -> Case:
        expected = _tensor(level_by_loop, *arguments)
        return Case(name, arguments, expected, why=why, atol=1e-3)

    table = [[4 - w, 4 - h, 4 + w, 4 + h] for w, h in HALF_SIDES_OF_32]
    yield Case("one cell", ((8, 8), 32, 8), torch.tensor(table), why=CELL, atol=1e-3)
    yield by_loop("two cells beside each other", (8, 16), 32, 8, why=Y_AND_X)
    yield by_loop("two rows of three", (16, 24), 32, 8, why=ROW_BY_ROW)
    yield by_loop("a size that the stride does not divide", (20, 33), 64, 16, why=CEIL)
    yield by_loop("an image smaller than the stride", (50, 3), 512, 128, why=CEIL)


def _place_in_level(
    index: Sequence[int], image_size: tuple[int, int], size: float, stride: int
) -> str:
    row, column = divmod(index[0] // 9, math.ceil(image_size[1] / stride))
    return f"row {row}, column {column}, {_place(index)}"


_LEVEL = Piece(
    "level_anchors(image_size, size, stride)",
    _level_cases,
    "a loop over rows, columns, ratios and scales",
    _mistakes(level_by_loop, **IN_A_LEVEL, **IN_A_CELL),
    place=_place_in_level,
)

# --- an image -------------------------------------------------------------------------------------

FINE_FIRST = "levels come from the finest, P3, to the coarsest, P7, each with its own stride"


def _image_cases() -> Iterator[Case]:
    for name, size, why in (
        ("five levels of one cell each", (8, 8), LEVEL),
        ("wider than high", (16, 40), Y_AND_X),
        ("128 by 128", (128, 128), ""),
        ("no multiple of any stride", (100, 75), CEIL),
        ("one pixel", (1, 1), CEIL),
        ("384 by 256", (384, 256), Y_AND_X),
    ):
        yield Case(name, (size,), _tensor(image_by_loop, size), why=why, atol=1e-3)


def _place_in_image(index: Sequence[int], image_size: tuple[int, int]) -> str:
    first = index[0]
    for number, (size, stride) in enumerate(LEVELS, start=3):
        count = 9 * math.prod(math.ceil(side / stride) for side in image_size)
        if first < count:
            return f"P{number}, {_place_in_level([first], image_size, size, stride)}"
        first -= count
    return ""


_IMAGE = Piece(
    "make_anchors(image_size)",
    _image_cases,
    "a loop over levels, rows, columns, ratios and scales",
    [
        Mistake(FINE_FIRST, partial(_tensor, image_by_loop, levels=LEVELS[::-1])),
        Mistake("an anchor is four strides wide, 32 on P3",
                partial(_tensor, image_by_loop, levels=[(s // 4, s // 4) for s, _ in LEVELS])),
        Mistake("there are five levels, P3 to P7",
                partial(_tensor, image_by_loop, levels=LEVELS[:3])),
        *_mistakes(image_by_loop, **IN_A_LEVEL, **IN_A_CELL),
    ],
    place=_place_in_image,
)  # fmt: skip

PIECES = {piece.name: piece for piece in (_CELL, _LEVEL, _IMAGE)}
