"""8. Positive from 0.5, background below 0.4, and no forced matches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from retinanet_edu.data.transforms import EvalTransform, picture_size
from retinanet_edu.experiments.arms import ARMS, BASELINE
from retinanet_edu.experiments.claim import Claim
from retinanet_edu.experiments.runner import Bench
from retinanet_edu.experiments.verdict import Finding, Table
from retinanet_edu.matching import IGNORED, match_anchors

_ARMS = ("match-50-50", "match-70-30", "match-60-50", "forced")


def _measure(bench: Bench, seeds: Sequence[int]) -> dict[str, Any]:
    """Anchors of a training picture that are positive and ignored, and objects without any."""
    data, transform = bench.data("train"), EvalTransform(bench.image_size)
    counts = {}
    for arm in (BASELINE, *_ARMS):
        model, keys = bench.model(ARMS[arm], 0), ARMS[arm].loss_settings
        positive = ignored = orphans = objects = 0
        for index in range(len(data)):
            image, target = transform(*data[index])
            boxes = target["boxes"][~target["difficult"]]
            match = match_anchors(model.anchors(picture_size(image)), boxes, **keys)
            positive += int((match >= 0).sum())
            ignored += int((match == IGNORED).sum())
            objects += len(boxes)
            orphans += len(boxes) - len(match[match >= 0].unique())
        counts[arm] = {
            "positive": round(positive / len(data), 2),
            "ignored": round(ignored / len(data), 2),
            "objects_without_anchor": round(orphans / objects, 4),
        }
    return {"anchors_a_picture": counts}


def _judge(table: Table, measured: dict[str, Any]) -> list[Finding]:
    whats = ("0.5 without an ignored band", "0.7 and 0.3", "0.6 and 0.5", "forced matches")
    return [
        table.no_worse(BASELINE, arm, f"0.5 and 0.4 are as good as {what}")
        for arm, what in zip(_ARMS, whats, strict=True)
    ]


CLAIM = Claim(
    "thresholds",
    "An anchor is best positive from IoU 0.5 on, background below 0.4, and asked nothing in "
    "between; no other pair, and no forced match, is better.",
    "RetinaNet paper (arXiv 1708.02002), section 4; 0.7 and 0.3 with forced matches: Faster R-CNN "
    "(arXiv 1506.01497), section 3.1.2",
    _ARMS,
    _judge,
    _measure,
)
