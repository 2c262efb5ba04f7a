"""7. What an anchor set covers predicts what it can reach."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch

from retinanet_edu.boxes import pairwise_iou
from retinanet_edu.data.transforms import EvalTransform, picture_size
from retinanet_edu.experiments.arms import ARMS, BASELINE
from retinanet_edu.experiments.claim import Claim
from retinanet_edu.experiments.runner import Bench
from retinanet_edu.experiments.verdict import Finding, Table
from retinanet_edu.matching import POSITIVE_IOU

_ARMS = ("anchors-1x1", "anchors-1x3", "anchors-3x1")


def _measure(bench: Bench, seeds: Sequence[int]) -> dict[str, Any]:
    """The share of the training objects that some anchor overlaps enough to be positive."""
    data, transform = bench.data("train"), EvalTransform(bench.image_size)
    covered = {}
    for arm in (BASELINE, *_ARMS):
        model, best = bench.model(ARMS[arm], 0), []
        for index in range(len(data)):
            image, target = transform(*data[index])
            if len(boxes := target["boxes"][~target["difficult"]]):
                best.append(pairwise_iou(model.anchors(picture_size(image)), boxes).amax(dim=0))
        covered[arm] = round(float((torch.cat(best) >= POSITIVE_IOU).float().mean()), 4)
    return {"covered": covered}


def _judge(table: Table, measured: dict[str, Any]) -> list[Finding]:
    covered = measured["covered"]
    apart = [
        (one, other)
        for one, other in combinations(table.runs, 2)
        if abs(table.mean(one) - table.mean(other)) > table.margin()
        and covered[one] != covered[other]
    ]
    right = sum(
        (table.mean(one) > table.mean(other)) == (covered[one] > covered[other])
        for one, other in apart
    )
    shares = ", ".join(f"{arm} {100 * share:.0f} %" for arm, share in covered.items())
    return [
        table.greater(BASELINE, "anchors-1x1", "nine anchors are better than one"),
        table.greater(BASELINE, "anchors-1x3", "three scales are better than one"),
        table.greater(BASELINE, "anchors-3x1", "three ratios are better than one"),
        Finding(
            "of two anchor sets, the one that covers more objects reaches more",
            0 < len(apart) == right,
            f"{right} of {len(apart)} pairs that differ in both; covered: {shares}",
        ),
    ]


CLAIM = Claim(
    "anchors",
    "Three scales and three ratios are better than fewer, and what an anchor set covers before "
    "any training predicts how far it gets.",
    "RetinaNet paper (arXiv 1708.02002), section 5.1, table 1c; coverage: a common belief",
    _ARMS,
    _judge,
    _measure,
)
