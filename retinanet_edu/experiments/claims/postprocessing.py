"""10. A threshold, the best of each level, and suppression class by class after decoding."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from retinanet_edu.data.loading import pad_images
from retinanet_edu.data.transforms import EvalTransform, picture_size
from retinanet_edu.detection import list_candidates, postprocess, rescale
from retinanet_edu.evaluation import coco_metrics
from retinanet_edu.experiments.arms import BASELINE
from retinanet_edu.experiments.claim import Claim
from retinanet_edu.experiments.runner import Bench
from retinanet_edu.experiments.verdict import Finding, Table
from retinanet_edu.model import RetinaNet
from retinanet_edu.structures import Detections, Predictions
from retinanet_edu.suppression import nms, nms_per_class

_IOU, _MOST = 0.5, 100  # `postprocess`'s own
_ALL = 10**9  # more than there are


@dataclass(frozen=True)
class _Seen:
    """What the network said about one picture."""

    predictions: Predictions
    anchors: Tensor
    size: tuple[int, int]

    def candidates(self) -> tuple[Detections, Tensor]:
        return list_candidates(self.predictions, self.anchors, self.size)


def _usual(**settings: Any) -> Callable[[_Seen], Detections]:
    def detect(seen: _Seen) -> Detections:
        return postprocess(seen.predictions, seen.anchors, [seen.size], **settings)[0]

    return detect


def _over_all_classes(seen: _Seen) -> Detections:
    found, _ = seen.candidates()
    kept = nms(found.boxes, found.scores, _IOU)[:_MOST]
    return Detections(found.boxes[kept], found.scores[kept], found.labels[kept])


def _anchors_first(seen: _Seen) -> Detections:
    """The article's order: suppress the anchors, and decode those that are left."""
    found, anchor = seen.candidates()
    kept = nms_per_class(seen.anchors[anchor], found.scores, found.labels, _IOU)[:_MOST]
    return Detections(found.boxes[kept], found.scores[kept], found.labels[kept])


_USUAL = "threshold 0.05, top 1000, NMS 0.5"
_WAYS: dict[str, Callable[[_Seen], Detections]] = {
    _USUAL: _usual(),
    "no threshold": _usual(score_threshold=0.0),
    "threshold 0.3": _usual(score_threshold=0.3),
    "top 100": _usual(top_k=100),
    "no top": _usual(top_k=_ALL),
    "no threshold, no top": _usual(score_threshold=0.0, top_k=_ALL),
    **{f"NMS {iou:g}": _usual(iou_threshold=iou) for iou in (0.3, 0.4, 0.6, 0.7)},
    "NMS over all classes": _over_all_classes,
    "NMS of anchors, then decoding": _anchors_first,
}


@torch.inference_mode()
def _measure(bench: Bench, seeds: Sequence[int]) -> dict[str, Any]:
    ways: dict[str, Any] = {way: {"AP": [], "milliseconds": []} for way in _WAYS}
    data, transform = bench.data("val"), EvalTransform(bench.image_size)
    pictures, truths = zip(*(data[i] for i in range(len(data))), strict=True)
    sizes = [picture_size(picture) for picture in pictures]
    for seed in seeds:
        model = bench.trained(BASELINE, seed)
        seen = [_look(model, transform.image(picture)) for picture in pictures]
        for way, detect in _WAYS.items():
            start = time.perf_counter()
            found = [detect(one) for one in seen]
            taken = time.perf_counter() - start
            pairs = zip(found, seen, sizes, strict=True)
            detections = [rescale(one, known.size, size) for one, known, size in pairs]
            numbers, _, _ = coco_metrics(detections, truths, model.num_classes, bench.areas())
            ways[way]["AP"].append(round(numbers["AP"], 5))
            ways[way]["milliseconds"].append(round(1000 * taken / len(pictures), 3))
    return {"ways": ways}


def _look(model: RetinaNet, image: Tensor) -> _Seen:
    padded = pad_images([image])
    return _Seen(model(padded), model.anchors(picture_size(padded)), picture_size(image))


def _judge(table: Table, measured: dict[str, Any]) -> list[Finding]:
    ways = Table({way: [{"AP": ap} for ap in row["AP"]] for way, row in measured["ways"].items()})
    times = {way: min(row["milliseconds"]) for way, row in measured["ways"].items()}
    without = "no threshold, no top"
    saved = times[without] / times[_USUAL]
    # Each way is compared with another on the same trained models, so seeds are no chance here:
    # what counts as a difference is a tenth of a point.
    lost = {way: ways.mean(way) - ways.mean(_USUAL) for way in ways.runs}
    others = [way for way in lost if way.startswith("NMS 0.")]
    best = max(others, key=lambda way: lost[way])

    def loses(way: str, says: str) -> Finding:
        return Finding(says, lost[way] < -0.1, f"AP {lost[way]:+.2f}")

    return [
        Finding(
            "threshold and top 1000 cost nothing",
            lost[without] < 0.1,
            f"AP {lost[without]:+.2f} without both",
        ),
        Finding(
            "they save time",
            saved > 1.5,
            f"{saved:.1f} times the milliseconds without both",
        ),
        loses("threshold 0.3", "a threshold that cleans pictures costs accuracy"),
        loses("NMS over all classes", "NMS is better class by class"),
        loses("NMS of anchors, then decoding", "NMS is better after decoding than before"),
        Finding(
            "0.5 is the best threshold of NMS",
            lost[best] < 0.1,
            f"the best other is {best}: AP {lost[best]:+.2f}",
        ),
    ]


CLAIM = Claim(
    "postprocessing",
    "Scores above 0.05 and the best thousand of each level are enough. NMS at 0.5 is done class "
    "by class, and on decoded boxes.",
    "RetinaNet paper (arXiv 1708.02002), section 4; the article suppresses first and decodes then",
    (),
    _judge,
    _measure,
)
