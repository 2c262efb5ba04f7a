"""Checks of `heads`: from channels to anchors, and the prior."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from retinanet_edu.checks.harness import Case, Mistake, Piece
from retinanet_edu.checks.slopes import measured_slope

# --- the outputs of a level, one row an anchor ----------------------------------------------------

PERMUTE = "reshape alone mixes the cells: bring the channels to the end first, permute(0, 2, 3, 1)"
OUTER = "of the channels, the anchor is the outer loop and its outputs the inner one: A, then K"
ROWS = "cells come row by row: the row is the outer loop, the column the inner"


def flatten_by_loop(out: Tensor, outputs: int) -> Tensor:
    """Row by row, cell by cell, anchor by anchor: (B, H·W·A, outputs)."""
    batch, channels, height, width = out.shape
    flat = out.new_zeros(batch, height * width * (channels // outputs), outputs)
    place = 0
    for row in range(height):
        for column in range(width):
            for first in range(0, channels, outputs):
                flat[:, place] = out[:, first : first + outputs, row, column]
                place += 1
    return flat


def _counted(*shape: int) -> Tensor:
    """0, 1, 2, …: every number tells where it came from."""
    return torch.arange(float(math.prod(shape))).reshape(shape)


def _flatten_cases() -> Iterator[Case]:
    def by_hand(name: str, out: Tensor, rows: list, why: str = "") -> Case:
        outputs = len(rows[0])
        return Case(name, (out, outputs), torch.tensor([rows], dtype=torch.float32), why=why)

    yield by_hand("one cell, three anchors, two outputs", _counted(1, 6, 1, 1),
                  [[0, 1], [2, 3], [4, 5]], why=OUTER)  # fmt: skip
    yield by_hand("two cells in a row, two outputs", _counted(1, 2, 1, 2), [[0, 2], [1, 3]],
                  why=PERMUTE)  # fmt: skip
    yield by_hand("2 by 3 cells, one output", _counted(1, 1, 2, 3), [[0], [1], [2], [3], [4], [5]],
                  why=ROWS)  # fmt: skip

    def by_loop(name: str, out: Tensor, outputs: int, why: str = "") -> Case:
        return Case(name, (out, outputs), flatten_by_loop(out, outputs), why=why)

    yield by_loop("2 by 3 cells, two anchors, two outputs", _counted(1, 4, 2, 3), 2, why=PERMUTE)
    yield by_loop("two images", _counted(2, 4, 2, 1), 2, why="the images stay apart: (B, N, K)")
    yield by_loop("nine anchors, four offsets", _counted(1, 36, 3, 2), 4)
    half = _counted(1, 4, 2, 2).half()
    yield by_loop("half precision", half, 2)
    few = _counted(1, 4, 1, 2)
    slope = measured_slope(lambda x: flatten_by_loop(x, 2), few)
    yield Case("slopes", (few, 2), slope, slope=(0,), atol=1e-4)


_FLATTEN = Piece(
    "flatten_level(out, outputs)",
    _flatten_cases,
    "a loop over rows, columns and anchors",
    (
        Mistake(PERMUTE, lambda out, k: out.reshape(len(out), -1, k)),
        Mistake(ROWS, lambda out, k: flatten_by_loop(out.transpose(2, 3), k)),
        Mistake(
            OUTER, lambda out, k: out.permute(0, 2, 3, 1).unflatten(-1, (k, -1)).mT.flatten(1, 3)
        ),
        Mistake(
            "the anchors of a cell stand together: cells outside, anchors inside",
            lambda out, k: out.unflatten(1, (-1, k)).permute(0, 1, 3, 4, 2).flatten(1, 3),
        ),
    ),
)

# --- the prior ------------------------------------------------------------------------------------


def _prior_cases() -> Iterator[Case]:
    why = "the sigmoid of the bias must be π: b = −ln((1 − π) / π)"
    for pi, bias in ((0.01, -4.59511985), (0.5, 0.0), (0.1, -2.19722458), (0.9, 2.19722458)):
        yield Case(f"π = {pi}", (pi,), bias, why=why)
    for pi in (1e-6, 0.2, 0.73):
        expected = float(torch.logit(torch.tensor(pi, dtype=torch.float64)))
        yield Case(f"π = {pi:g}", (pi,), expected, why=why)


def _log(sign: int, base: float, pi: float) -> float:
    return sign * math.log((1 - pi) / pi) / math.log(base)


_PRIOR = Piece(
    "prior_bias(pi)",
    _prior_cases,
    "torch.logit",
    (
        Mistake("the sign: rare objects need a negative bias", lambda pi: _log(1, math.e, pi)),
        Mistake("the natural logarithm is asked for, math.log", lambda pi: _log(-1, 10, pi)),
        Mistake("the natural logarithm is asked for, math.log", lambda pi: _log(-1, 2, pi)),
        Mistake("ln π alone is near, but its sigmoid is not π", lambda pi: math.log(pi)),
        Mistake("ln π alone is near, but its sigmoid is not π", lambda pi: -math.log(1 / pi - 0)),
        Mistake("(1 − π) is missing", lambda pi: -math.log(1 - pi)),
        Mistake("that is π itself: the bias is a logit", lambda pi: pi),
        Mistake("that is the score; the bias is what the sigmoid turns into it",
                lambda pi: 1 / (1 + math.exp(-pi))),
    ),
)  # fmt: skip

PIECES = {piece.name: piece for piece in (_FLATTEN, _PRIOR)}
