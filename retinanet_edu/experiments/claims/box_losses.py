"""9. Smooth L1 bears boxes that are wrong."""

from __future__ import annotations

from typing import Any

from retinanet_edu.experiments.arms import BASELINE
from retinanet_edu.experiments.claim import Claim
from retinanet_edu.experiments.verdict import Finding, Table


def _judge(table: Table, measured: dict[str, Any]) -> list[Finding]:
    return [
        table.greater(
            "smooth-l1-wrong", "l2-wrong", "with wrong boxes, smooth L1 is better than L2"
        ),
        table.greater("l1-wrong", "l2-wrong", "with wrong boxes, L1 is better than L2"),
        table.no_worse(BASELINE, "l1", "smooth L1 is as good as L1"),
        table.no_worse(BASELINE, "giou", "smooth L1 is as good as GIoU"),
        table.no_worse(BASELINE, "l2", "without wrong boxes, smooth L1 is as good as L2"),
    ]


CLAIM = Claim(
    "box-losses",
    "Smooth L1 is the loss for boxes: as good as others on clean boxes, and less upset by wrong "
    "ones than L2.",
    "Girshick, “Fast R-CNN” (arXiv 1504.08083), section 2.3; the article, equations 6 and 7",
    ("l1", "l2", "giou", "smooth-l1-wrong", "l1-wrong", "l2-wrong", "giou-wrong"),
    _judge,
)
