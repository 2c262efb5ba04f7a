"""How a failed check speaks: values printed short, and hints from what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from textwrap import wrap
from typing import Any

import numpy as np
import torch
from torch import Tensor

WIDTH = 66  # of a value in characters: with the first column, a line of the book
ROWS = 4  # of a tensor that is too long for a line
LABEL = 12  # width of the first column


def leaves(name: str, value: Any) -> list[tuple[str, Any]]:
    """The tensors, numbers and texts inside a value, each with its path, as "truths[0].boxes"."""
    if isinstance(value, Mapping) and value:
        inside = [(f"{name}[{key!r}]" if name else key, part) for key, part in value.items()]
    elif is_dataclass(value) and not isinstance(value, type):
        inside = [(f"{name}.{f.name}", getattr(value, f.name)) for f in fields(value)]
    elif hasattr(value, "_fields"):
        inside = [(f"{name}.{part}", getattr(value, part)) for part in value._fields]
    elif isinstance(value, list | tuple) and not all(isinstance(v, int | float) for v in value):
        inside = [(f"{name}[{i}]", part) for i, part in enumerate(value)]
    else:
        return [(name, value)]
    return [leaf for path, part in inside for leaf in leaves(path, part)]


def number(value: Any) -> str:
    """Six digits, and no zeros behind them."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def nested(value: Any) -> str:
    """A number or lists of them in a line."""
    if isinstance(value, list):
        return f"[{', '.join(map(nested, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(nested, value))}{',' * (len(value) == 1)})"
    return number(value)


def kind(value: Any) -> str:
    """Shape and dtype of a tensor, type of anything else."""
    if isinstance(value, np.ndarray):
        return f"{value.shape} array of {value.dtype}"
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__


def short(value: Any, first: int = 0) -> list[str]:
    """A value in one line if it fits, else a few of its rows, from the `first` on."""
    kind_of_it = kind(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "bif":
        value = torch.from_numpy(value)
    if not isinstance(value, Tensor):
        lines = [part for line in nested(value).splitlines() for part in wrap(line, WIDTH)] or [
            "''"
        ]
        return [*lines[: 3 * ROWS], "…"] if len(lines) > 3 * ROWS else lines
    value = value.detach().cpu()
    line = f"{nested(value.tolist())}  {kind_of_it}" if value.numel() <= WIDTH else ""
    if 0 < len(line) <= WIDTH:
        return [line]
    rows = value.flatten(0, -2) if value.ndim > 1 else value[:, None]
    first = min(first, len(rows) - 1)
    shown = [nested(row.tolist()) for row in rows[first : first + ROWS, :16]]
    if value.ndim == 1:  # its numbers stand in a line
        shown = [nested(value[first : first + 16].tolist())]
    lines = [line if len(line) <= WIDTH else line[:WIDTH] + " …" for line in shown]
    if lines == [nested(row.tolist()) for row in rows]:
        return [*lines, kind_of_it]
    start = f"from row {first} on" if first else "the first rows"
    return [*lines, f"… {start} of {kind_of_it}"]


def block(label: str, named: list[tuple[str, Any]], first: int = 0) -> list[str]:
    """Lines with a label before the first; a value without a name stands alone."""
    lines = []
    for name, value in named:
        head, *rest = short(value, first)
        lines += [f"{name} = {head}" if name else head, *rest]
    return [f"  {label if i == 0 else '':{LABEL}}{line}" for i, line in enumerate(lines)]


# --- hints ----------------------------------------------------------------------------------------


def is_finite(got: Any) -> bool:
    """Whether it is a tensor without inf and nan."""
    return isinstance(got, Tensor) and bool(got.isfinite().all())


def explain_shape(got: Any, expected: Any) -> str:
    """What is wrong with the shape of a result; empty if nothing is."""
    if not isinstance(got, Tensor) or not isinstance(expected, Tensor):
        return ""
    if got.shape == expected.shape:
        return ""
    if expected.ndim == 0:
        return "one number is asked for: add all terms up with .sum()"
    if got.ndim == expected.ndim == 2 and got.shape == expected.shape[::-1]:
        return "it is transposed: rows and columns are exchanged"
    if got.numel() == expected.numel() == 0:
        return f"nothing has a shape too: {tuple(expected.shape)} is asked for, see reshape"
    if got.numel() == expected.numel():
        return "the number of values is right, their arrangement is not: see reshape and permute"
    if got.ndim != expected.ndim:
        return f"the result has {got.ndim} axes, {expected.ndim} are asked for: broadcasting?"
    return ""


def explain_type(got: Any, expected: Any) -> str:
    """What is wrong with the dtype of a result of the right shape; empty if nothing is."""
    if not isinstance(expected, Tensor) or got is None:  # None is what a forgotten return gives
        return ""
    if not isinstance(got, Tensor):
        return "a tensor is asked for: .item(), .tolist() and .numpy() make something else of it"
    any_float = expected.dtype == torch.float64 and got.is_floating_point()
    if got.shape != expected.shape or got.dtype == expected.dtype or any_float:
        return ""
    asked, have = (str(t.dtype).removeprefix("torch.") for t in (expected, got))
    hint = f"the numbers must be {asked}, they are {have}"
    if expected.dtype == torch.float32 and got.dtype in (torch.float16, torch.bfloat16):
        return f"{hint}: compute with .float(), half precision is too coarse and overflows"
    return f"{hint}: where do they change their type?"


def explain_numbers(got: Any, expected: Any) -> str:
    """What is wrong with the numbers of a result; empty if nothing can be told."""
    if not isinstance(got, Tensor) or not isinstance(expected, Tensor):
        return ""
    if got.shape != expected.shape or got.numel() == 0 or expected.dtype == torch.bool:
        return ""
    got, expected = got.detach().cpu().double(), expected.double()
    if (got.isnan() & ~expected.isnan()).any():
        return "nan comes from 0/0, inf − inf, 0 · inf, or the logarithm of a negative number"
    if (got.isinf() & ~expected.isinf()).any():
        return "inf comes from a division by 0, exp or log of an extreme number, or float16"

    def equal(a: Tensor, b: Tensor) -> bool:
        return torch.allclose(a, b, rtol=1e-3, atol=1e-6, equal_nan=True)

    if equal(got, -expected):
        return "every number has the wrong sign"
    if got.ndim and got.shape[-1] == 4 and equal(got[..., [1, 0, 3, 2]], expected):
        return "x and y are exchanged: a box is x1 y1 x2 y2, but a size is (height, width)"
    if got.ndim == 2 and got.shape[0] == got.shape[1] and equal(got.T, expected):
        return "it is transposed: rows and columns are exchanged"
    if got.numel() < 3:
        return ""
    if equal(got.flatten().sort()[0], expected.flatten().sort()[0]):
        return "the numbers are right, their order is not"
    ratio = got[expected != 0] / expected[expected != 0]
    if len(ratio) and not equal(ratio[:1], torch.ones(1).double()):
        same = equal(ratio, ratio[:1].expand_as(ratio)) and equal(got, expected * ratio[0])
        if same and ratio[0] != 0:
            return f"it is {number(float(ratio[0]))} times what it should be: a factor, or a mean?"
    return ""
