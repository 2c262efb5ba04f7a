"""Checks of `backbone`: how far a cell sees."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F

from retinanet_edu.checks.harness import Case, Mistake, Piece

Layers = Sequence[tuple[int, int]]  # kernel size and stride of each

ADDED = "a layer adds kernel − 1 times the distance of neighbours: the first one is there already"
LATER = "a stride moves the neighbours of later layers apart, not those that its own layer joins"
PRODUCT = "the distances multiply: after two strides of 2 neighbours are 4 pixels apart"
ONE = "a pixel sees itself: without a layer the window is 1"
STRIDES = "after a stride of 2 neighbours are 2 pixels apart, and later kernels reach twice as far"

# The longest path through the stem and two stages of a ResNet-18, up to C3.
C3_OF_18 = [(7, 2), (3, 2), *4 * [(3, 1)], (3, 2), *3 * [(3, 1)]]


def measured_window(layers: Layers, size: int = 401) -> float:
    """How many of `size` numbers in a row have a slope in the middle cell, by autograd."""
    pixels = torch.ones(1, 1, size, dtype=torch.float64, requires_grad=True)
    x = pixels
    for kernel, stride in layers:
        x = F.conv1d(x, torch.ones(1, 1, kernel, dtype=torch.float64), stride=stride)
    (slope,) = torch.autograd.grad(x[0, 0, x.shape[-1] // 2], pixels)
    return float((slope != 0).sum())


def _cases() -> Iterator[Case]:
    yield Case("one layer of 3", ([(3, 1)],), 3.0, why=ADDED)
    yield Case("two of them", ([(3, 1), (3, 1)],), 5.0, why=ADDED)
    yield Case("strides 1, 2, 1", ([(3, 1), (3, 2), (3, 1)],), 9.0, why=STRIDES)
    yield Case("no layer", ([],), 1.0, why=ONE)
    yield Case("1 by 1 with stride 2, then 3", ([(1, 2), (3, 1)],), 5.0, why=STRIDES)
    yield Case("two strides", ([(3, 2), (3, 2), (3, 1)],), 15.0, why=PRODUCT)

    def measured(name: str, layers: Layers, why: str = "") -> Case:
        with torch.enable_grad():  # a notebook may have switched it off
            return Case(name, (layers,), measured_window(layers), why=why)

    yield measured("the stem of a ResNet", [(7, 2), (3, 2)], LATER)
    yield measured("even kernels", [(2, 2), (4, 1), (2, 2), (2, 1)], ADDED)
    yield measured("strides 3 and 2", [(3, 3), (5, 2), (2, 1)], PRODUCT)
    yield measured("C3 of a ResNet-18", C3_OF_18, STRIDES)


def _walk(
    layers: Layers,
    *,
    start: int = 1,
    less: int = 1,
    move: Callable[[int, int], int] = lambda apart, stride: apart * stride,
    at_once: bool = False,
) -> float:
    """The window, layer by layer; the keywords make it wrong in known ways."""
    window, apart = start, 1
    for kernel, stride in layers:
        later = move(apart, stride)
        window += (kernel - less) * (later if at_once else apart)
        apart = later
    return float(window)


_WINDOW = Piece(
    "receptive_field(layers)",
    _cases,
    "windows counted by hand, and the slopes of a chain of convolutions",
    (
        Mistake(STRIDES, partial(_walk, move=lambda apart, stride: 1)),
        Mistake(LATER, partial(_walk, at_once=True)),
        Mistake(PRODUCT, partial(_walk, move=lambda apart, stride: stride)),
        Mistake(PRODUCT, partial(_walk, move=lambda apart, stride: apart + stride - 1)),
        Mistake(ONE, partial(_walk, start=0)),
        Mistake(ADDED, partial(_walk, start=0, less=0)),
        Mistake(ADDED, partial(_walk, less=0)),
        Mistake("windows add up, they do not multiply",
                lambda layers: float(math.prod(kernel for kernel, _ in layers))),
    ),
)  # fmt: skip

PIECES = {_WINDOW.name: _WINDOW}
