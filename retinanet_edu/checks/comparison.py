"""Where two values differ first, be they tensors, numbers, texts, or lists and dicts of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from retinanet_edu.checks.words import kind, nested, number


class Difference(NamedTuple):
    """Where two values differ first: in which part of them, and of a tensor at which index."""

    path: str
    got: Any
    expected: Any
    what: str
    at: tuple[int, ...] = ()

    @property
    def row(self) -> int:
        """The row of that index, where all axes but the last are one."""
        if not self.at:
            return 0
        last = self.expected.shape[-1] if self.expected.ndim > 1 else 1
        flat = 0
        for i, side in zip(self.at, self.expected.shape, strict=True):
            flat = flat * side + i
        return flat // last


def difference(
    got: Any, expected: Any, atol: float, rtol: float, *, strict: bool = True, path: str = ""
) -> Difference | None:
    """The first difference, None if there is none; without `strict`, types of numbers are free."""
    if isinstance(expected, Tensor):
        return _tensor_difference(got, expected, atol, rtol, strict, path)
    parts: Iterable[tuple[Any, Any, str]]
    if isinstance(expected, Mapping):
        parts = [(got[key], value, f"{path} {key}".strip()) for key, value in expected.items()]
    elif isinstance(expected, list | tuple):
        if not isinstance(got, list | tuple):
            return Difference(path, got, expected, f"a {kind(got)}, not a list")
        if len(got) != len(expected):
            return Difference(path, got, expected, f"{len(got)} entries, not {len(expected)}")
        parts = [(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(zip(got, expected))]
    else:
        return _plain_difference(got, expected, atol, rtol, path)
    for one, other, where in parts:
        found = difference(one, other, atol, rtol, strict=strict, path=where)
        if found:
            return found
    return None


def _plain_difference(
    got: Any, expected: Any, atol: float, rtol: float, path: str
) -> Difference | None:
    if isinstance(expected, float):
        try:
            value = float(got if not isinstance(got, str) else "")
        except (TypeError, ValueError, RuntimeError):  # the last is torch's, of many numbers
            return Difference(path, got, expected, f"a {kind(got)}, not a number")
        if math.isnan(value) and math.isnan(expected):
            return None
        if math.isclose(value, expected, rel_tol=rtol, abs_tol=atol):
            return None
        return Difference(path, got, expected, f"by {number(abs(value - expected))}")
    try:
        equal = bool(got == expected)
    except (TypeError, ValueError, RuntimeError):  # of many numbers
        equal = False
    return None if equal else Difference(path, got, expected, "")


def _tensor_difference(
    got: Any, expected: Tensor, atol: float, rtol: float, strict: bool, path: str
) -> Difference | None:
    if not isinstance(got, Tensor):
        return Difference(path, got, expected, f"a {kind(got)}, not a tensor")
    if got.shape != expected.shape:
        what = f"shape {tuple(got.shape)}, not {tuple(expected.shape)}"
        return Difference(path, got, expected, what)
    any_float = expected.dtype == torch.float64 and got.is_floating_point()
    if strict and got.dtype != expected.dtype and not any_float:
        what = f"{kind(got)}, not {kind(expected)}"
        return Difference(path, got, expected, what)
    got = got.detach().cpu()  # before double, which not every device has
    mine, right = got.double(), expected.double()
    wrong = ~torch.isclose(mine, right, atol=atol, rtol=rtol, equal_nan=True)
    if not wrong.any():
        return None
    gap = (mine - right).abs().masked_fill(~wrong, -1).nan_to_num(nan=math.inf, posinf=math.inf)
    index, largest = (tuple(where.nonzero()[0].tolist()) for where in (wrong, gap == gap.max()))
    what = f"{int(wrong.sum())} of {wrong.numel()} numbers, by at most {number(float(gap.max()))}"
    if wrong.numel() > 1:
        what += f", at {list(largest)}"
    what += f": {nested(got[largest].tolist())}, not {nested(expected[largest].tolist())}"
    return Difference(path, got, expected, what, index)
