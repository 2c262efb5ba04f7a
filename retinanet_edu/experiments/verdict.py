"""What numbers can carry: differences that are greater than those between seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

HOLDS, IN_PART, NOT_HERE = "holds", "holds in part", "does not hold here"


@dataclass(frozen=True)
class Finding:
    """One thing that the claim says, and whether the numbers say so too.

    Attributes:
        says: the statement, in words.
        holds: whether it is seen.
        numbers: that decide it, in words.
    """

    says: str
    holds: bool
    numbers: str


def verdict(findings: Sequence[Finding]) -> str:
    """Of all that a claim says.

    Args:
        findings: at least one.

    Returns:
        `HOLDS`, `IN_PART` or `NOT_HERE`.
    """
    held = sum(finding.holds for finding in findings)
    return HOLDS if held == len(findings) else IN_PART if held else NOT_HERE


class Table:
    """The arms of a claim, with one value a seed.

    Args:
        runs: of each arm, one dict of numbers a seed.
    """

    def __init__(self, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        self.runs = runs

    def values(self, arm: str, metric: str = "AP") -> list[float]:
        """In percent, one a seed."""
        return [100 * run[metric] for run in self.runs[arm]]

    def mean(self, arm: str, metric: str = "AP") -> float:
        """In percent, over the seeds."""
        return fmean(self.values(arm, metric))

    def margin(self, metric: str = "AP") -> float:
        """The least difference of two means that is more than chance, in percent.

        All arms are taken to vary alike over their seeds, which makes of a few seeds each a fair
        number in all. Two standard errors of a difference are about its 95 % interval.
        """
        spreads = [variance(v) for arm in self.runs if len(v := self.values(arm, metric)) > 1]
        seeds = min(len(runs) for runs in self.runs.values())
        return 2 * math.sqrt(fmean(spreads) * 2 / seeds) if spreads else math.inf

    def greater(self, one: str, other: str, says: str, metric: str = "AP") -> Finding:
        """Whether one arm is better than another by more than chance."""
        difference = self.mean(one, metric) - self.mean(other, metric)
        return Finding(says, difference > self.margin(metric), self._numbers(one, other, metric))

    def no_worse(self, one: str, other: str, says: str, metric: str = "AP") -> Finding:
        """Whether one arm is not worse than another by more than chance: no proof of equality."""
        difference = self.mean(one, metric) - self.mean(other, metric)
        return Finding(says, difference >= -self.margin(metric), self._numbers(one, other, metric))

    def _numbers(self, one: str, other: str, metric: str) -> str:
        means = ", ".join(f"{arm} {self.mean(arm, metric):.1f}" for arm in (one, other))
        return f"{metric}: {means}, margin {self.margin(metric):.1f}"
