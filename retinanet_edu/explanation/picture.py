"""One picture, from the pyramid's maps to each detection's mistakes: values, nothing drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from retinanet_edu.boxes import clip_boxes, pairwise_iou
from retinanet_edu.coding import decode_boxes
from retinanet_edu.data.loading import pad_images
from retinanet_edu.data.transforms import EvalTransform, picture_size, scale_boxes
from retinanet_edu.detection import (
    IOU_THRESHOLD,
    MAX_DETECTIONS,
    SCORE_THRESHOLD,
    TOP_K,
    evaluation_mode,
    list_candidates,
    rescale,
)
from retinanet_edu.evaluation.voc import read_truth
from retinanet_edu.explanation.mistakes import Answers, Miss, Verdict, find_misses, judge
from retinanet_edu.losses import Losses, criterion
from retinanet_edu.matching import BACKGROUND, IGNORED, match_targets
from retinanet_edu.model import RetinaNet
from retinanet_edu.structures import Detections, Predictions, Targets
from retinanet_edu.suppression import nms_per_class


@dataclass(frozen=True)
class Judgement:
    """What the truth says about an explanation.

    Attributes:
        boxes: (M, 4) of the objects, in pixels of the picture.
        labels: (M,) int64.
        difficult: (M,) bool.
        match: (N,) the object that each anchor answers for, −1 background, −2 ignored.
        anchor_iou: (M,) the greatest IoU of each object with any anchor.
        verdicts: one a detection.
        misses: one an object that was missed.
        losses: what the picture would cost in training, with the defaults of `criterion`.
    """

    boxes: Tensor
    labels: Tensor
    difficult: Tensor
    match: Tensor
    anchor_iou: Tensor
    verdicts: list[Verdict]
    misses: list[Miss]
    losses: Losses

    def count_levels(self, anchors_per_level: Sequence[int]) -> list[tuple[int, int, int]]:
        """Positive, ignored and background anchors of each level."""
        return [
            (int((m >= 0).sum()), int((m == IGNORED).sum()), int((m == BACKGROUND).sum()))
            for m in self.match.split(list(anchors_per_level))
        ]


@dataclass(frozen=True)
class Explanation:
    """How detections came about. Boxes are in pixels of the picture, all is on the CPU.

    Attributes:
        image: uint8 (3, H, W).
        classes: K names.
        settings: keywords of `postprocess` that were used.
        seen: (H', W') of the picture as the network saw it, before padding.
        maps: one a level, (h, w): the length of the vector that the pyramid has in each cell.
        strides: of the levels, in pixels of the picture as seen.
        anchors_per_level: they sum to N.
        anchors: (N, 4).
        boxes: (N, 4) decoded and clipped.
        scores: (N, K), of every anchor for every class.
        logits: (N, K).
        candidates: C pairs of an anchor and a class, best score first.
        origins: (C,) the anchor of each.
        suppressed_by: (C,) place of the kept candidate that suppressed each, −1 for the kept.
        overlap: (C,) IoU with that one, nan for the kept.
        places: (D,) of the detections among the candidates.
        judgement: None without a truth.
    """

    image: Tensor
    classes: tuple[str, ...]
    settings: Mapping[str, Any]
    seen: tuple[int, int]
    maps: list[Tensor]
    strides: tuple[int, ...]
    anchors_per_level: tuple[int, ...]
    anchors: Tensor
    boxes: Tensor
    scores: Tensor
    logits: Tensor = field(repr=False)
    candidates: Detections
    origins: Tensor
    suppressed_by: Tensor
    overlap: Tensor
    places: Tensor
    judgement: Judgement | None

    @cached_property
    def detections(self) -> Detections:
        """What `predict` finds, best score first."""
        return _pick(self.candidates, self.places)

    def level_of(self, anchors: Tensor) -> Tensor:
        """The level of each of these anchors, from 0."""
        ends = torch.tensor(self.anchors_per_level).cumsum(0)
        return torch.bucketize(anchors, ends, right=True)

    def suppressed(self, place: int) -> Tensor:
        """Places of the candidates that the one at this place suppressed, best score first."""
        return (self.suppressed_by == place).nonzero()[:, 0]


@torch.no_grad()
def explain(
    model: RetinaNet,
    image: Tensor,
    target: Mapping[str, Any] | None = None,
    *,
    image_size: int | None = None,
    score_threshold: float = SCORE_THRESHOLD,
    top_k: int = TOP_K,
    iou_threshold: float = IOU_THRESHOLD,
    max_detections: int = MAX_DETECTIONS,
) -> Explanation:
    """See through the model: how it came to its detections in a picture.

    Args:
        model: its weights, its device and its `image_size` are used; its mode is left as it was.
        image: uint8 (3, H, W).
        target: what is true of it: `boxes` (M, 4) in its pixels, `labels` (M,) and, where there
            are any, `difficult` (M,).
        image_size: the longer side to scale to, instead of `model.image_size`.
        score_threshold, top_k, iou_threshold, max_detections: see `postprocess`.

    Returns:
        `Explanation`, with a `Judgement` if there is a target.

    Law:
        explain(model, image).detections = predict(model, image). Each candidate is kept, or
        suppressed by a kept one of its class that is at least as sure and overlaps it by more than
        `iou_threshold`.
    """
    original = picture_size(image)
    scaled = EvalTransform(image_size or model.image_size).image(image)  # (3, H', W')
    seen, batch = picture_size(scaled), pad_images([scaled])
    predictions, maps = _look(model, batch.to(model.device))
    anchors = model.anchors(picture_size(batch))
    found, origins = list_candidates(
        predictions, anchors, seen, score_threshold=score_threshold, top_k=top_k
    )
    kept = nms_per_class(found.boxes, found.scores, found.labels, iou_threshold).cpu()
    found, origins = found.to("cpu"), origins.cpu()
    suppressed_by, overlap = _suppressors(found, kept, iou_threshold)
    decoded = clip_boxes(decode_boxes(predictions.box_deltas[0].float(), anchors), seen)
    logits = predictions.class_logits[0].float().cpu()

    def to_original(boxes: Tensor) -> Tensor:
        return clip_boxes(scale_boxes(boxes.cpu(), seen, original), original)

    answers = Answers(
        boxes=to_original(decoded),
        scores=logits.sigmoid(),
        candidates=origins,
        labels=found.labels,
        suppressed_by=suppressed_by,
        places=kept[:max_detections],
    )
    candidates = rescale(found, seen, original)
    judgement = None
    if target is not None:
        detections = _pick(candidates, answers.places)
        judgement = _judge(
            detections, answers, predictions, anchors, target, seen, original, score_threshold
        )
    return Explanation(
        image=image,
        classes=model.classes,
        settings={
            "score_threshold": score_threshold,
            "top_k": top_k,
            "iou_threshold": iou_threshold,
            "max_detections": max_detections,
        },
        seen=seen,
        maps=maps,
        strides=model.anchor_generator.strides,
        anchors_per_level=predictions.anchors_per_level,
        anchors=scale_boxes(anchors.cpu(), seen, original),
        boxes=answers.boxes,
        scores=answers.scores,
        logits=logits,
        candidates=candidates,
        origins=origins,
        suppressed_by=suppressed_by,
        overlap=overlap,
        places=answers.places,
        judgement=judgement,
    )


def _pick(detections: Detections, places: Tensor) -> Detections:
    return Detections(
        detections.boxes[places], detections.scores[places], detections.labels[places]
    )


def _look(model: RetinaNet, images: Tensor) -> tuple[Predictions, list[Tensor]]:
    """Predictions, and on the way the length of the pyramid's vectors, (h, w) of each level."""
    maps: list[Tensor] = []

    def keep(module: Any, given: Any, levels: Sequence[Tensor]) -> None:
        maps.extend(level[0].float().norm(dim=0).cpu() for level in levels)

    hook = model.fpn.register_forward_hook(keep)
    try:
        with evaluation_mode(model):
            return model(images), maps
    finally:
        hook.remove()


def _suppressors(
    candidates: Detections, kept: Tensor, iou_threshold: float
) -> tuple[Tensor, Tensor]:
    """Who suppressed each candidate, −1 for the kept, and their IoU, nan for the kept: (C,)."""
    boxes, labels = candidates.boxes, candidates.labels
    by = torch.full((len(boxes),), -1)
    overlap = torch.full((len(boxes),), torch.nan, dtype=torch.float64)
    gone = torch.ones(len(boxes), dtype=torch.bool)
    gone[kept] = False
    # Greedy: the surest comes first, and takes all that are left and overlap it too much.
    for place in kept.tolist():
        rest = (gone & (by < 0) & (labels == labels[place])).nonzero()[:, 0]
        rest = rest[rest > place]  # equal scores stand in the order in which they are taken
        iou = pairwise_iou(boxes[rest].double(), boxes[[place]].double())[:, 0]
        taken = iou > iou_threshold
        by[rest[taken]], overlap[rest[taken]] = place, iou[taken]
    return by, overlap


def _judge(
    detections: Detections,
    answers: Answers,
    predictions: Predictions,
    anchors: Tensor,
    target: Mapping[str, Any],
    seen: tuple[int, int],
    original: tuple[int, int],
    score_threshold: float,
) -> Judgement:
    boxes, labels, difficult, crowd = read_truth(target)
    difficult = difficult | crowd
    on_seen = scale_boxes(boxes.float(), original, seen)  # (M, 4)
    truth = Targets.from_list([on_seen], [labels], [difficult]).to(anchors.device)
    match = match_targets(anchors, truth.boxes[0], truth.difficult[0]).cpu()  # (N,)
    verdicts = judge(detections, target)
    iou = pairwise_iou(anchors.cpu(), on_seen)  # (N, M)
    return Judgement(
        boxes=boxes.float(),
        labels=labels,
        difficult=difficult,
        match=match,
        anchor_iou=iou.amax(dim=0) if len(iou) else iou.new_zeros(len(boxes)),
        verdicts=verdicts,
        misses=find_misses(answers, verdicts, target, match, score_threshold=score_threshold),
        losses=Losses(*(loss.cpu() for loss in criterion(predictions, anchors, truth))),
    )
