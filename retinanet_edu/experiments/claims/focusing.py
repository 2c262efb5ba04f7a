"""5. γ and α must be chosen together."""

from __future__ import annotations

from typing import Any

from retinanet_edu.experiments.arms import BASELINE
from retinanet_edu.experiments.claim import Claim
from retinanet_edu.experiments.verdict import Finding, Table


def _judge(table: Table, measured: dict[str, Any]) -> list[Finding]:
    return [
        table.greater("ce-alpha", "ce", "with γ = 0, α = 0.75 is better than 0.5"),
        table.greater(BASELINE, "alpha-75", "with γ = 2, α = 0.25 is better than 0.75"),
        table.greater(BASELINE, "gamma-5", "with α = 0.25, γ = 2 is better than 5"),
        table.no_worse(BASELINE, "ce-alpha", "γ = 2 with α = 0.25 is the best pair of all"),
    ]


CLAIM = Claim(
    "focusing",
    "γ and α must be chosen together. The greater γ is, the smaller α should be, and γ = 2 with "
    "α = 0.25 is best.",
    "RetinaNet paper (arXiv 1708.02002), section 5.1, table 1b",
    ("ce", "ce-alpha", "alpha-75", "gamma-5"),
    _judge,
)
