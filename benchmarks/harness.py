"""How two functions are compared: the same input, equal results first, then A B A B in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile


class Case(NamedTuple):
    """Two ways to the same result.

    Attributes:
        group: the row of the table that it belongs to.
        settings: what sets it apart from the other cases of its group.
        ours, theirs: without arguments.
        check: raises if the two results are not the same; None where there is nothing to compare.
        memory: whether peak memory is measured too.
        least: pairs that are timed at the very least.
    """

    group: str
    settings: dict[str, Any]
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    check: Callable[[Any, Any], None] | None = None
    memory: bool = False
    least: int = 5


def compare(case: Case, seconds: float) -> dict[str, Any]:
    """Time both in turns.

    The ratio is taken pair by pair, so that a machine that slows down for a while slows both; who
    goes first changes from pair to pair, since the second finds a warm cache.

    Args:
        case: what to compare.
        seconds: to spend, about.

    Returns:
        medians in milliseconds, the median ratio theirs / ours with its quartiles, the number of
        pairs, and peak bytes where they were asked for.

    Raises:
        AssertionError: the results differ.
    """
    start = time.perf_counter()
    ours, theirs = case.ours(), case.theirs()
    if case.check is not None:
        case.check(ours, theirs)
    del ours, theirs
    if time.perf_counter() - start < seconds:  # what is compiled and cached may not be quick yet
        case.ours(), case.theirs()
    pairs: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while len(pairs) < case.least or (time.perf_counter() < end and len(pairs) < 200):
        if len(pairs) % 2:
            b, a = seconds_of(case.theirs), seconds_of(case.ours)
        else:
            a, b = seconds_of(case.ours), seconds_of(case.theirs)
        pairs.append((a, b))
    ratios = [b / a for a, b in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4)
    result: dict[str, Any] = {
        "group": case.group,
        "settings": case.settings,
        "ours_ms": round(1e3 * statistics.median(a for a, _ in pairs), 3),
        "theirs_ms": round(1e3 * statistics.median(b for _, b in pairs), 3),
        "ratio": round(middle, 3),
        "ratio_quartiles": [round(low, 3), round(high, 3)],
        "pairs": len(pairs),
    }
    if case.memory:
        result["ours_bytes"] = peak_memory(case.ours)
        result["theirs_bytes"] = peak_memory(case.theirs)
    return result


def seconds_of(function: Callable[[], Any]) -> float:
    """Of one call, until the GPU has done it too."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_memory(function: Callable[[], Any]) -> int:
    """Most bytes that torch held at a time for a function, beyond what was there before it."""
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        function()
    # Each allocation is an event, and so is what is given back, with a minus.
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most
