"""3. One subnet for all levels, and four numbers for all classes, are enough."""

from __future__ import annotations

from typing import Any

from retinanet_edu.experiments.arms import BASELINE
from retinanet_edu.experiments.claim import Claim
from retinanet_edu.experiments.verdict import Finding, Table


def _judge(table: Table, measured: dict[str, Any]) -> list[Finding]:
    counts = {arm: table.runs[arm][0]["parameters"] for arm in table.runs}
    return [
        table.no_worse(BASELINE, "unshared", "sharing the subnets over levels costs nothing"),
        table.no_worse(BASELINE, "classwise", "boxes for all classes are as good as for each"),
        Finding(
            "both save parameters",
            counts[BASELINE] < min(counts["unshared"], counts["classwise"]),
            ", ".join(f"{arm} {n / 1e6:.2f} M" for arm, n in counts.items()),
        ),
    ]


CLAIM = Claim(
    "sharing",
    "Sharing the subnets over all levels costs nothing. Box offsets that do not depend on the "
    "class are as good as such that do, with fewer parameters.",
    "RetinaNet paper (arXiv 1708.02002), section 4; for sharing, Lin et al. (arXiv 1612.03144), "
    "section 4.1",
    ("unshared", "classwise"),
    _judge,
)
