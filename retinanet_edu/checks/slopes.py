"""Slopes by measuring: what autograd must agree with, without using it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

NUDGE = 1e-5  # the step to either side, in float64


def reach(arguments: Any, path: Sequence[int | str]) -> Any:
    """The argument, or the part of one, to which a path leads."""
    for step in path:
        arguments = arguments[step] if isinstance(step, int) else getattr(arguments, step)
    return arguments


def weighted(output: Tensor) -> Tensor:
    """One number of an output: each of its numbers times 1, 2, 3, …, added up."""
    weights = torch.arange(1.0, output.numel() + 1, dtype=output.dtype, device=output.device)
    return (output.flatten() * weights).sum()


def measured_slope(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The slope of `weighted(function(x))`, by a small step to either side of each number of x."""
    x = x.detach().double()
    slope = torch.zeros_like(x)
    for i in range(x.numel()):
        step = torch.zeros_like(x)
        step.view(-1)[i] = NUDGE
        rise = weighted(function(x + step).double()) - weighted(function(x - step).double())
        slope.view(-1)[i] = rise / (2 * NUDGE)
    return slope
