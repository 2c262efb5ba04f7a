"""Checks of `training`: the factor on the learning rate over a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from retinanet_edu.checks.harness import Case, Mistake, Piece

FIRST = "the first step has a rate too: with 3 of warm-up the factors are ¼, ½, ¾, and then 1"
TOP = "the factor is 1 at the step `warmup_steps`, and there alone"
AFTER = "the cosine begins where the warm-up ends: count the steps from there, of those left"
FALL = "half a cosine leads from 1 to 0: (1 + cos(π · done)) / 2"
LAST = "0 is reached after the last step, so that this one still moves something"


def annealed(steps: int) -> list[float]:
    """The factors of PyTorch's cosine, for a fall over so many steps."""
    descent = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    witness = CosineAnnealingLR(descent, T_max=steps)
    factors = []
    for _ in range(steps):
        factors.append(float(witness.get_last_lr()[0]))
        descent.step()
        witness.step()
    return factors


def _cases() -> Iterator[Case]:
    def at(name: str, arguments: tuple[int, int, int], factor: float, why: str) -> Case:
        return Case(name, arguments, factor, why=why)

    yield at("the first of 3 steps of warm-up", (0, 9, 3), 0.25, FIRST)
    yield at("the last of 3 steps of warm-up", (2, 9, 3), 0.75, FIRST)
    yield at("the highest", (3, 9, 3), 1.0, TOP)
    yield at("a third of the fall", (5, 9, 3), 0.75, f"{FALL}; {AFTER}")
    yield at("half of the fall", (6, 9, 3), 0.5, f"{FALL}; {AFTER}")
    yield at("two thirds of the fall", (7, 9, 3), 0.25, FALL)
    yield at("the last step", (8, 9, 3), (1 - math.sqrt(0.75)) / 2, LAST)
    yield at("no warm-up, the first step", (0, 8, 0), 1.0, "no warm-up: the run begins at 1")
    yield at("no warm-up, half of the run", (4, 8, 0), 0.5, FALL)
    yield at("a run of one step", (0, 1, 0), 1.0, "one step, no warm-up: mind 0/0")
    yield at("warm-up to the end", (4, 5, 5), 5 / 6, FIRST)
    fall = annealed(80)
    for step in (21, 47, 99):
        yield at(f"step {step} of 100, warm-up of 20", (step, 100, 20), fall[step - 20], FALL)


def _factor(
    step: int,
    total_steps: int,
    warmup_steps: int,
    *,
    rise: Callable[[int, int], float] = lambda step, warmup: (step + 1) / (warmup + 1),
    done: Callable[[int, int, int], float] = lambda s, total, warmup: (
        (s - warmup) / (total - warmup)
    ),
    fall: Callable[[float], float] = lambda done: (1 + math.cos(math.pi * done)) / 2,
) -> float:
    """The factor; the keywords make it wrong in known ways."""
    if step < warmup_steps:
        return rise(step, warmup_steps)
    return fall(done(step, total_steps, warmup_steps))


_SCHEDULE = Piece(
    "schedule(step, total_steps, warmup_steps)",
    _cases,
    "a table by hand, and torch.optim.lr_scheduler.CosineAnnealingLR",
    (
        Mistake("the first step has a factor of 0 and does nothing: count from 1",
                partial(_factor, rise=lambda step, warmup: step / warmup)),
        Mistake("the first step has a factor of 0 and does nothing: count from 1",
                partial(_factor, rise=lambda step, warmup: step / (warmup + 1))),
        Mistake(TOP, partial(_factor, rise=lambda step, warmup: (step + 1) / warmup)),
        Mistake("the warm-up is missing: the rate rises first",
                partial(_factor, rise=lambda step, warmup: 1.0)),
        Mistake(AFTER, partial(_factor, done=lambda step, total, warmup: step / total)),
        Mistake(AFTER, partial(_factor, done=lambda step, total, warmup: (step - warmup) / total)),
        Mistake(LAST, partial(
            _factor, done=lambda step, total, warmup: (step - warmup) / (total - warmup - 1))),
        Mistake("that ends at −1: raise the cosine by 1, and halve it",
                partial(_factor, fall=lambda done: math.cos(math.pi * done))),
        Mistake("that begins at 2: halve it",
                partial(_factor, fall=lambda done: 1 + math.cos(math.pi * done))),
        Mistake("that is a quarter of a cosine's wave: the fall takes half of one",
                partial(_factor, fall=lambda done: math.cos(math.pi / 2 * done))),
        Mistake("that is a straight line; a cosine is asked for",
                partial(_factor, fall=lambda done: 1 - done)),
        Mistake("that rises: the factor falls from 1 to 0",
                partial(_factor, fall=lambda done: (1 - math.cos(math.pi * done)) / 2)),
        Mistake("math.cos takes radians: half a wave is π, not 180",
                partial(_factor, fall=lambda done: (1 + math.cos(180 * done)) / 2)),
    ),
)  # fmt: skip

PIECES = {_SCHEDULE.name: _SCHEDULE}
