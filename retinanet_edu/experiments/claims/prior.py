"""6. The prior π keeps the first steps from being all background."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from retinanet_edu.experiments.arms import BASELINE
from retinanet_edu.experiments.claim import Claim
from retinanet_edu.experiments.runner import Bench, first_losses
from retinanet_edu.experiments.verdict import Finding, Table

_STEPS = 100


def _measure(bench: Bench, seeds: Sequence[int]) -> dict[str, Any]:
    return {
        "steps": _STEPS,
        "losses": {
            arm: [first_losses(bench, arm, seed, _STEPS) for seed in seeds]
            for arm in (BASELINE, "even")
        },
    }


def _judge(table: Table, measured: dict[str, Any]) -> list[Finding]:
    losses = measured["losses"]
    first, last = (
        {arm: fmean(fmean(run[part]) for run in runs) for arm, runs in losses.items()}
        for part in (slice(0, 1), slice(-10, None))
    )
    words = "with the prior {:.2f}, without {:.2f}".format
    return [
        Finding(
            "the first loss is many times smaller with the prior",
            first["even"] > 5 * first[BASELINE],
            words(first[BASELINE], first["even"]),
        ),
        Finding(
            "after a hundred steps, training with the prior is still ahead",
            min(fmean(r[-10:]) for r in losses["even"])
            > max(fmean(r[-10:]) for r in losses[BASELINE]),
            words(last[BASELINE], last["even"]) + ", mean of the last ten steps",
        ),
        table.greater(BASELINE, "even", "in the end the prior makes a better detector"),
    ]


CLAIM = Claim(
    "prior",
    "Without the prior π, the background's loss rules the first steps, and training becomes "
    "unstable or fails.",
    "RetinaNet paper (arXiv 1708.02002), sections 3.3, 4.1 and 5.1",
    ("even",),
    _judge,
    _measure,
)
