"""4. One-stage training drowns in easy negatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Subset

from retinanet_edu.experiments.arms import BASELINE
from retinanet_edu.experiments.claim import Claim
from retinanet_edu.experiments.runner import Bench
from retinanet_edu.experiments.verdict import Finding, Table
from retinanet_edu.explanation.run import GAMMAS, examine

_PICTURES = 100
# Shares of the answers at which the curves are kept: most of them where the hard ones are.
_POINTS = np.unique(np.concatenate([np.linspace(0, 1, 21), 1 - np.logspace(-4, -0.5, 30)]))


def _measure(bench: Bench, seeds: Sequence[int]) -> dict[str, Any]:
    """The paper's figure 4 of the baseline: which share of the loss the easiest answers hold."""
    model = bench.trained(BASELINE, seeds[0])
    data = Subset(bench.data("val"), range(_PICTURES))
    data.classes = model.classes  # type: ignore[attr-defined]
    seen = examine(model, data)
    curves = {
        f"{gamma:g}": {
            name: np.interp(_POINTS, *answers.shares(gamma)).round(5).tolist()
            for name, answers in (("foreground", seen.foreground), ("background", seen.background))
        }
        for gamma in GAMMAS
    }
    hardest = {f"{gamma:g}": round(seen.background.hardest(gamma, 0.01), 5) for gamma in GAMMAS}
    return {"answers": _POINTS.round(6).tolist(), "loss": curves, "hardest_percent": hardest}


def _judge(table: Table, measured: dict[str, Any]) -> list[Finding]:
    share = measured["hardest_percent"]
    return [
        table.greater("ce-alpha", "ce", "α-balanced cross entropy is better than plain"),
        table.greater("ohem", "ce-alpha", "hard examples alone are better than α-balancing"),
        table.greater(BASELINE, "ohem", "focal loss is better than hard examples alone"),
        table.greater(BASELINE, "ce", "focal loss is better than cross entropy"),
        Finding(
            "with γ = 2 the hardest hundredth of the background holds nearly all of its loss",
            share["2"] > 0.9,
            f"{100 * share['2']:.0f} % with γ = 2, {100 * share['0']:.0f} % with γ = 0",
        ),
    ]


CLAIM = Claim(
    "imbalance",
    "One-stage training drowns in easy negatives. α-balanced cross entropy helps a little, hard "
    "examples alone (OHEM) some, focal loss most.",
    "RetinaNet paper (arXiv 1708.02002), sections 3 and 5.1, tables 1a, 1b and 1d, figure 4",
    ("ce", "ce-alpha", "ohem"),
    _judge,
    _measure,
)
