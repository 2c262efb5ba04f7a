"""12. Deeper networks and larger pictures are more accurate, and slower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from retinanet_edu.experiments.arms import BASELINE
from retinanet_edu.experiments.claim import Claim, costs
from retinanet_edu.experiments.runner import Bench, judge
from retinanet_edu.experiments.verdict import Finding, Table

_SIZES = (0.75, 1.0, 1.25, 1.5)  # of the bench's pictures


def _measure(bench: Bench, seeds: Sequence[int]) -> dict[str, Any]:
    """The baseline, trained at one size, on pictures that are scaled to others."""
    sizes = [round(bench.image_size * factor) for factor in _SIZES]
    models = [bench.trained(BASELINE, seed) for seed in seeds]
    return {
        "sizes": {
            str(size): {
                "AP": [judge(bench, model, image_size=size)["AP"] for model in models],
                **costs(bench, [BASELINE], size)[BASELINE],
            }
            for size in sizes
        },
        "depths": costs(bench, [BASELINE, "resnet34"]),
    }


def _judge(table: Table, measured: dict[str, Any]) -> list[Finding]:
    depths = measured["depths"]
    times = depths["resnet34"]["milliseconds"] / depths[BASELINE]["milliseconds"]
    rows = {int(size): row for size, row in measured["sizes"].items()}
    means = {size: 100 * sum(row["AP"]) / len(row["AP"]) for size, row in rows.items()}
    trained = sorted(rows)[_SIZES.index(1.0)]
    largest = max(rows)
    return [
        table.greater("resnet34", BASELINE, "a deeper backbone is more accurate"),
        Finding("a deeper backbone is slower", times > 1, f"{times:.2f} times the milliseconds"),
        Finding(
            "larger pictures are more accurate",
            means[largest] - means[trained] > table.margin(),
            f"AP: {largest} px {means[largest]:.1f}, {trained} px {means[trained]:.1f}, margin "
            f"{table.margin():.1f}",
        ),
    ]


CLAIM = Claim(
    "scaling",
    "Deeper backbones and larger pictures are more accurate, and slower.",
    "RetinaNet paper (arXiv 1708.02002), section 5.3, figure 2 and table 1e",
    ("resnet34",),
    _judge,
    _measure,
)
