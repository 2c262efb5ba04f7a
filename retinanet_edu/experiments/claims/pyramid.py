"""1. The pyramid beats a single map, and costs little more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from retinanet_edu.experiments.arms import BASELINE
from retinanet_edu.experiments.claim import Claim, costs
from retinanet_edu.experiments.runner import Bench
from retinanet_edu.experiments.verdict import Finding, Table

_ARMS = ("single", "ssd", "image-pyramid")


def _measure(bench: Bench, seeds: Sequence[int]) -> dict[str, Any]:
    return {"costs": costs(bench, (BASELINE, *_ARMS))}


def _judge(table: Table, measured: dict[str, Any]) -> list[Finding]:
    gain = {
        metric: table.mean(BASELINE, metric) - table.mean("single", metric)
        for metric in ("APs", "APl")
    }
    share = {arm: cost["gflops"] for arm, cost in measured["costs"].items()}
    times = share["image-pyramid"] / share[BASELINE]
    return [
        table.greater(BASELINE, "single", "the pyramid is better than a single map"),
        Finding(
            "it gains more on small objects than on large ones",
            gain["APs"] - gain["APl"] > table.margin("APs"),
            f"gain on small {gain['APs']:.1f}, on large {gain['APl']:.1f}, "
            f"margin {table.margin('APs'):.1f}",
        ),
        table.greater(BASELINE, "ssd", "SSD's pyramid is weaker on small objects", "APs"),
        table.no_worse("image-pyramid", BASELINE, "an image pyramid is as good"),
        Finding(
            "an image pyramid costs a multiple",
            times > 2,
            f"{times:.1f} times the operations of the feature pyramid",
        ),
    ]


CLAIM = Claim(
    "pyramid",
    "A feature pyramid beats a single map, most of all on small objects. SSD's pyramid, without a "
    "top-down path, is weak there. An image pyramid is as good and costs a multiple.",
    "Lin et al., “Feature Pyramid Networks” (arXiv 1612.03144), sections 1 and 5; the article, "
    "figures 2 to 5",
    _ARMS,
    _judge,
    _measure,
)
