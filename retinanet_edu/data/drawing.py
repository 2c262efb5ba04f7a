"""Drawing: shapes on cluttered backgrounds, from a seed and an index alone.

Six kinds that no single feature tells apart: disc, ring and crescent share an outline, square,
cross and triangle have straight edges as the clutter has, and colour, pattern and size say nothing
of the kind. Objects overlap, hide one another, leave the picture, and lie on textures and
among things that are no objects.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

# A square this wide, wherever it lies, overlaps an anchor of the demo's model by IoU 0.5 or more.
# Its smallest anchors are squares of 24 pixels every 8; one of 20 between four of them reaches
# 0.497. What is smaller in either direction is difficult: no anchor need answer for it.
MIN_SIDE = 21

# An object of which less than this is seen, behind others or beyond the border, is difficult.
MIN_SEEN = 0.7

# So much of the longer side the shorter one has at least, or the object is difficult: the anchors
# have ratios from ½ to 2, and of a long sliver they overlap too little.
MIN_ASPECT = 0.4

Grid = np.ndarray


def _polygon(*corners: tuple[float, float]) -> Callable[[Grid, Grid], Grid]:
    """Distance to a convex polygon, negative inside; corners clockwise as seen (y points down)."""
    edges = []
    for (x0, y0), (x1, y1) in zip(corners, (*corners[1:], corners[0]), strict=True):
        length = math.hypot(x1 - x0, y1 - y0)
        edges.append(((y1 - y0) / length, (x0 - x1) / length, x0, y0))
    return lambda x, y: np.maximum.reduce([(x - a) * n + (y - b) * m for n, m, a, b in edges])


def _disc(x: Grid, y: Grid) -> Grid:
    return np.hypot(x, y) - 0.9


def _ring(x: Grid, y: Grid) -> Grid:
    return np.abs(np.hypot(x, y) - 0.7) - 0.2


def _square(x: Grid, y: Grid) -> Grid:
    return np.maximum(np.abs(x), np.abs(y)) - 0.8


def _cross(x: Grid, y: Grid) -> Grid:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.minimum(x, y) - 0.28, np.maximum(x, y) - 0.9)


def _crescent(x: Grid, y: Grid) -> Grid:
    return np.maximum(np.hypot(x, y) - 0.92, 0.68 - np.hypot(x - 0.42, y))


# Distance to the outline, negative inside, on a plane where every shape fits into |x|, |y| ≤ 1.
SHAPES: dict[str, Callable[[Grid, Grid], Grid]] = {
    "crescent": _crescent,
    "cross": _cross,
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "triangle": _polygon((0.0, -0.92), (0.85, 0.56), (-0.85, 0.56)),
}


class Shape(NamedTuple):
    """One object of a picture.

    Attributes:
        name: its class.
        box: x1 y1 x2 y2 in whole pixels around what is seen of it.
        difficult: too small, too narrow or too much hidden to be demanded.
        truncated: part of it lies beyond the border.
    """

    name: str
    box: tuple[int, int, int, int]
    difficult: bool
    truncated: bool


def draw_picture(seed: int, index: int, size: int = 128) -> tuple[np.ndarray, list[Shape]]:
    """One picture and what is on it.

    Args:
        seed: of the dataset.
        index: of the picture.
        size: its height and width, in pixels.

    Returns:
        (H, W, 3) uint8, and the objects from back to front, those of which nothing is seen left
        out.

    Law:
        Equal arguments give equal pictures, whatever was drawn before.
    """
    rng = np.random.default_rng([seed, index])
    canvas = _background(rng, size)
    for _ in range(rng.integers(0, 4)):
        _paint(canvas, _clutter(rng, size), _near(rng, canvas, 50), rng)

    names = list(SHAPES)
    masks: list[tuple[str, np.ndarray, float]] = []  # name, what is seen, whole area
    for _ in range(rng.integers(1, 5)):
        name = names[rng.integers(len(names))]
        # From a seventh of the picture to most of it; large ones are drawn more often, since a
        # part of the small ones is difficult.
        span = size * 0.15 * (0.9 / 0.15) ** (rng.random() ** 0.6)
        x, y = rng.uniform(0.12, 0.88, 2) * size
        coverage, area = _draw_shape(SHAPES[name], x, y, span, rng.uniform(-0.3, 0.3), size)
        visible = coverage >= 0.5
        crowds = rng.random() < 0.05  # now and then an object hides another one
        if not visible.any() or (_hides(visible, masks) and not crowds):
            continue
        _paint(canvas, coverage, _contrasting(rng, canvas, visible), rng)
        masks = [(n, m & ~visible, a) for n, m, a in masks]
        masks.append((name, visible, area))
    for _ in range(rng.integers(0, 2)):  # thin things in front
        _paint(canvas, _line(rng, size), _near(rng, canvas, 70), rng)
    canvas += rng.normal(0, rng.uniform(0, 5), canvas.shape)
    picture = canvas.clip(0, 255).round().astype(np.uint8)
    return picture, [_shape(*found, size) for found in masks if found[1].any()]


def _shape(name: str, visible: np.ndarray, area: float, size: int) -> Shape:
    rows, columns = (np.flatnonzero(visible.any(axis=axis)) for axis in (1, 0))
    x1, y1, x2, y2 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    short, long = sorted((x2 - x1, y2 - y1))
    is_hidden = visible.sum() < MIN_SEEN * area
    is_difficult = short < MIN_SIDE or short < MIN_ASPECT * long or is_hidden
    at_border = min(x1, y1) == 0 or max(x2, y2) == size
    box = (int(x1), int(y1), int(x2), int(y2))
    return Shape(name, box, bool(is_difficult), bool(at_border))


def _hides(visible: np.ndarray, masks: list[tuple[str, np.ndarray, float]]) -> bool:
    """Whether a new object would hide too much of another."""
    return any((mask & ~visible).sum() < 0.6 * mask.sum() for _, mask, _ in masks)


def _plane(centre: tuple[float, float], angle: float, size: int) -> tuple[Grid, Grid]:
    """Coordinates of all pixel centres, seen from `centre`, which is x and y, and turned."""
    centres = np.arange(size) + 0.5
    across, down = centres[None, :] - centre[0], centres[:, None] - centre[1]
    cos, sin = math.cos(angle), math.sin(angle)
    return across * cos + down * sin, down * cos - across * sin


def _draw_shape(
    shape: Callable[[Grid, Grid], Grid], x: float, y: float, span: float, angle: float, size: int
) -> tuple[np.ndarray, float]:
    """Coverage (H, W) in 0…1 of a shape in the picture, and its whole area in pixels."""
    half = span / 2
    reach = math.ceil(half * 1.2)  # no shape leaves this square, however it is turned
    left, top = math.floor(x) - reach, math.floor(y) - reach
    across, down = _plane((x - left, y - top), angle, 2 * reach + 1)
    patch = (0.5 - half * shape(across / half, down / half)).clip(0, 1)  # soft over a pixel
    rows, columns = (slice(max(0, o), max(0, o + len(patch))) for o in (top, left))
    inside = patch[max(0, -top) : size - top, max(0, -left) : size - left]
    coverage = np.zeros((size, size))
    coverage[rows, columns] = inside
    return coverage, float((patch >= 0.5).sum())


def _colour(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0, 255, 3)


def _near(rng: np.random.Generator, canvas: np.ndarray, distance: float) -> np.ndarray:
    """A colour not far from the middle of the picture's."""
    return (canvas.mean(axis=(0, 1)) + rng.uniform(-distance, distance, 3)).clip(0, 255)


def _contrasting(rng: np.random.Generator, canvas: np.ndarray, where: np.ndarray) -> np.ndarray:
    """A colour that differs from what is there, though sometimes not by much."""
    behind = canvas[where].mean(axis=0)
    best = _colour(rng)
    for _ in range(20):
        if np.abs(best - behind).max() > 150:
            break
        best = _colour(rng)
    return best


def _paint(
    canvas: np.ndarray, coverage: np.ndarray, colour: np.ndarray, rng: np.random.Generator
) -> None:
    """Lay a patterned colour over the canvas (H, W, 3) where `coverage` says so."""
    size = len(canvas)
    pattern = rng.integers(4)
    across, _ = _plane((size / 2, size / 2), rng.uniform(0, 2 * math.pi), size)
    if pattern == 0:  # plain
        shade = np.zeros((1, 1))
    elif pattern == 1:  # from light to dark
        shade = across / size * rng.uniform(30, 80)
    elif pattern == 2:  # stripes
        shade = rng.uniform(8, 25) * np.sign(np.sin(across * rng.uniform(0.4, 1.5)))
    else:  # speckles
        shade = rng.normal(0, rng.uniform(5, 18), (size, size))
    paint = colour + shade[..., None]
    canvas += coverage[..., None] * (paint - canvas)


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A texture (H, W, 3) float: soft clouds of colour, and one of three patterns on them."""
    spread = rng.uniform(-45, 45, (*rng.integers(2, 6, 2), 3))
    coarse = (_colour(rng) + spread).clip(0, 255).astype(np.uint8)
    clouds = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    canvas = np.asarray(clouds, dtype=np.float64).copy()
    across, down = _plane((0, 0), rng.uniform(0, 2 * math.pi), size)
    step = rng.uniform(6, 24)
    pattern = rng.integers(3)
    if pattern == 0:
        checks = np.sign(np.sin(math.pi * across / step) * np.sin(math.pi * down / step))
        canvas += (rng.uniform(0, 20) * checks)[..., None]
    elif pattern == 1:
        canvas += (rng.uniform(0, 25) * np.sin(2 * math.pi * across / step))[..., None]
    return canvas


def _clutter(rng: np.random.Generator, size: int) -> np.ndarray:
    """Coverage of something that is no object: a line, an arc, a bar or a shapeless blob."""
    kind = rng.integers(4)
    if kind == 0:
        return _line(rng, size)
    across, down = _plane(_anywhere(rng, size), rng.uniform(0, 2 * math.pi), size)
    radius, turn = np.hypot(across, down), np.arctan2(down, across)
    if kind == 1:  # an arc of less than half a circle
        distance = np.abs(radius - rng.uniform(10, 60)) - rng.uniform(1, 4)
        return (0.5 - distance).clip(0, 1) * (np.abs(turn) < rng.uniform(0.3, 1.4))
    if kind == 2:  # a bar, at least four times as long as wide
        width = rng.uniform(2, 10)
        distance = np.maximum(np.abs(across) - 4 * width, np.abs(down) - width)
        return (0.5 - distance).clip(0, 1)
    waves = sum(
        rng.uniform(-0.25, 0.25) * np.cos(k * turn + rng.uniform(0, 6.3)) for k in range(2, 6)
    )
    return (0.5 - (radius - rng.uniform(6, 30) * (1 + waves))).clip(0, 1)


def _anywhere(rng: np.random.Generator, size: int) -> tuple[float, float]:
    return rng.uniform(0, size), rng.uniform(0, size)


def _line(rng: np.random.Generator, size: int) -> np.ndarray:
    """Coverage of a thin line right across."""
    _, down = _plane(_anywhere(rng, size), rng.uniform(0, math.pi), size)
    return (0.5 - (np.abs(down) - rng.uniform(0.5, 1.5))).clip(0, 1)
