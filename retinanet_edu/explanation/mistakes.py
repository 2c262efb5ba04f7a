"""Mistakes have kinds: what a false detection is, and why an object was missed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from retinanet_edu.boxes import pairwise_iou
from retinanet_edu.evaluation.voc import read_truth
from retinanet_edu.structures import Detections

# TIDE's t_f and t_b: from the first on, a detection lies on an object; up to the second, on none.
FOREGROUND_IOU = 0.5
BACKGROUND_IOU = 0.1

# Of a detection. The first two are no mistakes.
KINDS = {
    "true": "right class, IoU ≥ 0.5 with an object that no surer detection took",
    "ignored": "right class, IoU ≥ 0.5 with a difficult object: neither counted nor punished",
    "localisation": "right class, but 0.1 ≤ IoU < 0.5 with the nearest object of it",
    "class": "IoU ≥ 0.5 with an object of another class",
    "duplicate": "right class, IoU ≥ 0.5, but a surer detection took the object",
    "background": "IoU ≤ 0.1 with every object",
    "both": "wrong class and badly placed: 0.1 < IoU < 0.5 with an object of another class",
}

# Of an object that was missed, in the order in which they are asked.
REASONS = {
    "taken": "a detection of its class lies on it, but counts for another object",
    "suppressed": "a candidate of its class lay on it, and a surer one beside it suppressed it",
    "limit": "a candidate of its class lay on it, but there were too many better detections",
    "crowded out": "its score is high enough, but its level had too many better candidates",
    "wrong class": "a detection lies on it and says another class",
    "no anchor": "no anchor overlaps it by IoU 0.5 and answers for it, so it was never learned",
    "low score": "a box lies on it, but its score is not above the threshold",
    "no box": "anchors answer for it, but no decoded box has IoU ≥ 0.5 with it",
}


class Verdict(NamedTuple):
    """What became of one detection.

    Attributes:
        kind: one of `KINDS`.
        object: index of the object that decided it, −1 for none.
        iou: IoU with that object; of "background", the greatest with any.
    """

    kind: str
    object: int
    iou: float

    @property
    def is_false(self) -> bool:
        """Whether it is a false positive."""
        return self.kind not in ("true", "ignored")


def judge(
    detections: Detections,
    truth: Mapping[str, Any],
    *,
    foreground: float = FOREGROUND_IOU,
    background: float = BACKGROUND_IOU,
) -> list[Verdict]:
    """Tell of each detection what it is, and of a false one which mistake it makes.

    From the best score down, each takes the best object of its class that is still free, as in
    COCO's rule. The kinds are asked in TIDE's order: localisation, class, duplicate, background,
    and both for the rest. Unlike there, a difficult object counts as something that is there: what
    lies on it is not background.

    Args:
        detections: of one image.
        truth: of the image, see `evaluation.voc.read_truth`, in the same pixels.
        foreground: from this IoU on a detection lies on an object.
        background: up to this IoU it lies on nothing.

    Returns:
        one `Verdict` a detection, in their order.

    Law:
        Of each class as many are true, and as many ignored, as in `match_detections` by COCO's
        rule.

    Source:
        Bolya et al., "TIDE" (arXiv 2008.08115), section 2.2.
    """
    boxes, labels, difficult, crowd = read_truth(truth)
    optional = (difficult | crowd).numpy()  # (M,)
    iou = pairwise_iou(detections.boxes.cpu().double(), boxes).numpy()  # (D, M)
    same = (detections.labels.cpu()[:, None] == labels).numpy()  # (D, M)
    taken = np.zeros(len(optional), bool)
    verdicts = [Verdict("background", -1, 0.0)] * len(detections)
    if len(optional) == 0:
        return verdicts
    for i in detections.scores.cpu().argsort(descending=True, stable=True).tolist():
        own, others = np.where(same[i], iou[i], 0), np.where(same[i], 0, iou[i])
        on_own = own >= foreground
        free, spared = on_own & ~taken & ~optional, on_own & optional
        if free.any():
            kind, row = "true", np.where(free, own, 0)
            taken[row.argmax()] = True
        elif spared.any():
            kind, row = "ignored", np.where(spared, own, 0)
        elif background <= own.max() < foreground:
            kind, row = "localisation", own
        elif others.max() >= foreground:
            kind, row = "class", others
        elif on_own.any():
            kind, row = "duplicate", own
        elif iou[i].max() <= background:
            verdicts[i] = Verdict("background", -1, float(iou[i].max()))
            continue
        else:
            kind, row = "both", others
        verdicts[i] = Verdict(kind, int(row.argmax()), float(row.max()))
    return verdicts


class Miss(NamedTuple):
    """Why an object was missed.

    Attributes:
        object: its index.
        reason: one of `REASONS`.
        place: of the candidate that tells it: the one that lay on the object, or the detection
            that says another class; −1 where there is none.
        positives: anchors that answer for the object.
        box_iou: the greatest of any anchor's decoded box.
        score: the best for its class among the boxes with IoU ≥ 0.5; nan if there are none.
    """

    object: int
    reason: str
    place: int
    positives: int
    box_iou: float
    score: float


class Answers(NamedTuple):
    """What the network said of all anchors of an image, and what became of it.

    Attributes:
        boxes: (N, 4) decoded and clipped.
        scores: (N, K).
        candidates: (C,) the anchor of each candidate, best score first.
        labels: (C,) its class.
        suppressed_by: (C,) place of the candidate that suppressed it, −1 if it was kept.
        places: (D,) of the detections among the candidates.
    """

    boxes: Tensor
    scores: Tensor
    candidates: Tensor
    labels: Tensor
    suppressed_by: Tensor
    places: Tensor


def find_misses(
    answers: Answers,
    verdicts: list[Verdict],
    truth: Mapping[str, Any],
    match: Tensor,
    *,
    score_threshold: float,
    foreground: float = FOREGROUND_IOU,
) -> list[Miss]:
    """The objects that no detection found, each with the reason.

    Args:
        answers: of the image, in the pixels of the truth.
        verdicts: of its detections, from `judge`.
        truth: of the image.
        match: (N,) the object that each anchor answers for, see `match_targets`.
        score_threshold: of `postprocess`.
        foreground: from this IoU on a box lies on an object.

    Returns:
        one `Miss` an object that is neither difficult nor found, in their order.
    """
    boxes, labels, difficult, crowd = read_truth(truth)
    found = {verdict.object for verdict in verdicts if verdict.kind == "true"}
    iou = pairwise_iou(answers.boxes.double(), boxes)  # (N, M)
    misses = []
    for g, label in enumerate(labels.tolist()):
        if difficult[g] or crowd[g] or g in found:
            continue
        lies = iou[:, g] >= foreground  # (N,)
        score = float(answers.scores[lies, label].max()) if lies.any() else float("nan")
        positives = int((match == g).sum())
        on_it = lies[answers.candidates]  # (C,)
        reason, place = _candidate_reason(answers, on_it & (answers.labels == label))
        if not reason:
            wrong = [
                place
                for place, verdict in zip(answers.places.tolist(), verdicts, strict=True)
                if verdict.kind == "class" and on_it[place]
            ]
            place = wrong[0] if wrong else -1
            if score > score_threshold:
                reason, place = "crowded out", -1
            elif wrong:
                reason = "wrong class"
            elif positives == 0:
                reason = "no anchor"
            else:
                reason = "low score" if lies.any() else "no box"
        misses.append(Miss(g, reason, place, positives, float(iou[:, g].max()), score))
    return misses


def _candidate_reason(answers: Answers, on_it: Tensor) -> tuple[str, int]:
    """Why none of these candidates, all of the right class and place, found the object: (C,)."""
    detected = on_it[answers.places]  # (D,)
    if detected.any():
        return "taken", int(answers.places[detected][0])
    for place in on_it.nonzero()[:1, 0].tolist():  # the best
        is_kept = answers.suppressed_by[place] < 0
        return ("limit" if is_kept else "suppressed"), place
    return "", -1


def confusion(
    detections: Detections,
    truth: Mapping[str, Any],
    num_classes: int,
    *,
    score_threshold: float = 0.5,
    foreground: float = FOREGROUND_IOU,
) -> Tensor:
    """Who was taken for whom in one image.

    Classes play no part in who belongs to whom: pairs of an object and a detection with IoU ≥
    `foreground` are taken one after another, the greatest IoU first, each object and each
    detection once. Detections on a difficult object are left out, however many.

    Args:
        detections: of the image; those with a lower score than `score_threshold` are left out.
        truth: of the image.
        num_classes: K, how many there are.
        score_threshold: 0…1.
        foreground: from this IoU on a detection lies on an object.

    Returns:
        (K + 1, K + 1) int64: how many objects of the row's class were taken for the column's. The
        last row is background taken for objects, the last column objects taken for background.

    Law:
        The row of a class sums to the number of its objects that are not difficult. All but the
        last column sum to the detections that are not left out.
    """
    boxes, labels, difficult, crowd = read_truth(truth)
    optional = difficult | crowd
    shown = (detections.scores >= score_threshold).cpu()
    said = detections.labels.cpu()[shown]  # (D,)
    iou = pairwise_iou(boxes, detections.boxes.cpu()[shown].double())  # (M, D)
    table = torch.zeros(num_classes + 1, num_classes + 1, dtype=torch.int64)
    free_objects, free = [True] * len(labels), [True] * len(said)
    for place in iou.flatten().argsort(descending=True, stable=True).tolist():
        g, d = divmod(place, len(said))
        if iou[g, d] < foreground:
            break
        if not (free_objects[g] and free[d]):
            continue
        free[d] = False
        if not optional[g]:
            free_objects[g] = False
            table[labels[g], said[d]] += 1
    for d in (d for d, is_free in enumerate(free) if is_free):
        table[num_classes, said[d]] += 1
    for g in (g for g, is_free in enumerate(free_objects) if is_free and not optional[g]):
        table[labels[g], num_classes] += 1
    return table
