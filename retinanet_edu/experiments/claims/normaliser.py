"""11. The loss is divided by the number of positive anchors."""

from __future__ import annotations

from typing import Any

from retinanet_edu.experiments.arms import BASELINE
from retinanet_edu.experiments.claim import Claim
from retinanet_edu.experiments.verdict import Finding, Table


def _judge(table: Table, measured: dict[str, Any]) -> list[Finding]:
    return [
        table.greater(BASELINE, "per-anchor", "positives are a better divisor than all anchors"),
        table.no_worse(BASELINE, "per-batch", "each image by its own is as good as the batch's"),
    ]


CLAIM = Claim(
    "normaliser",
    "The loss must be divided by the number of positive anchors, not of all anchors, since most "
    "of those are easy and cost nothing. By image or by batch does not matter.",
    "RetinaNet paper (arXiv 1708.02002), section 4.1",
    ("per-batch", "per-anchor"),
    _judge,
)
