"""2. Laterals and the top-down path each matter."""

from __future__ import annotations

from typing import Any

from retinanet_edu.experiments.arms import BASELINE
from retinanet_edu.experiments.claim import Claim
from retinanet_edu.experiments.verdict import Finding, Table


def _judge(table: Table, measured: dict[str, Any]) -> list[Finding]:
    return [
        table.greater(BASELINE, "lateral", "the top-down path matters"),
        table.greater(BASELINE, "top-down", "the lateral connections matter"),
    ]


CLAIM = Claim(
    "connections",
    "The top-down path and the lateral connections each matter: without either, accuracy falls.",
    "Lin et al., “Feature Pyramid Networks” (arXiv 1612.03144), section 5.1, table 1",
    ("lateral", "top-down"),
    _judge,
)
