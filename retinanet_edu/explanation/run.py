"""A whole dataset: what a model's mistakes are, what each kind costs, and where the loss lies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from retinanet_edu.errors import DataError
from retinanet_edu.evaluation import (
    Evaluation,
    Ledger,
    average_precision,
    check_classes,
    evaluate_detections,
    precision_recall,
)
from retinanet_edu.explanation.mistakes import KINDS, confusion
from retinanet_edu.explanation.picture import Explanation, Judgement, explain
from retinanet_edu.matching import IGNORED
from retinanet_edu.model import RetinaNet

GAMMAS = (0.0, 0.5, 1.0, 2.0)  # of the paper's figure 4

# Of the histogram of logits. Within a step the loss changes by less than (1 + γ) · 2 per cent.
_STEP, _LIMIT = 0.02, 40.0


class AnswerCounts:
    """How many answers are how wrong: a histogram, since a dataset has too many to be kept.

    An answer is the logit of one anchor for one class. How wrong it is says y, the logit of the
    wrong answer: 1 − p_t = sigmoid(y).
    """

    def __init__(self) -> None:
        self.counts = np.zeros(round(2 * _LIMIT / _STEP), np.int64)

    @property
    def total(self) -> int:
        """Answers in all."""
        return int(self.counts.sum())

    def add(self, y: Tensor) -> None:
        """Count more answers.

        Args:
            y: any shape, logits of the wrong answer.
        """
        places = ((y.flatten().double() + _LIMIT) / _STEP).long().clamp(0, len(self.counts) - 1)
        self.counts += places.bincount(minlength=len(self.counts)).numpy()

    def shares(self, gamma: float) -> tuple[np.ndarray, np.ndarray]:
        """Which share of the loss the easiest answers hold.

        Args:
            gamma: of the focal loss.

        Returns:
            share of the answers and share of their loss, ascending from 0 to 1.

        Source:
            RetinaNet paper (arXiv 1708.02002), figure 4.
        """
        there = self.counts.nonzero()[0]
        y = (there + 0.5) * _STEP - _LIMIT
        cross_entropy = np.logaddexp(0, y)
        loss = np.exp(gamma * (y - cross_entropy)) * cross_entropy * self.counts[there]
        sums = (np.cumsum(self.counts[there], dtype=np.float64), np.cumsum(loss))
        answers, share = (np.concatenate([[0.0], s / s[-1] if len(s) else s]) for s in sums)
        return answers, share

    def hardest(self, gamma: float, share: float) -> float:
        """Which share of the loss the hardest answers hold.

        Args:
            gamma: of the focal loss.
            share: of the answers, 0…1.

        Returns:
            0…1.
        """
        return 1 - float(np.interp(1 - share, *self.shares(gamma)))


class ImageRow(NamedTuple):
    """One picture of a dataset.

    Attributes:
        number: in the dataset, from 0.
        image_id: its name.
        loss: what it costs, with the defaults of `criterion`.
        objects: that are not difficult.
        false: false detections with a score of at least `Examination.score`.
        missed: objects that no detection with such a score found.
    """

    number: int
    image_id: str
    loss: float
    objects: int
    false: int
    missed: int


@dataclass(frozen=True)
class Examination:
    """What a model makes of a dataset.

    Attributes:
        classes: K names.
        score: detections from this score on are sure.
        evaluation: the numbers of `evaluate`.
        confusion: (K + 1, K + 1) of the sure detections, see `mistakes.confusion`.
        kinds: how many detections are of each of `KINDS`: of the sure ones, and of all.
        gains: what AP at IoU 0.5 would gain if no detection were of a kind, and "missed" if each
            object that no detection found did not have to be.
        reasons: how many objects no detection found, by each of `REASONS`.
        unsure: objects that only detections with a lower score than `score` found.
        images: one row a picture, the worst first: by mistakes, and then by loss.
        foreground: answers that should be yes.
        background: answers that should be no.
    """

    classes: tuple[str, ...]
    score: float
    evaluation: Evaluation
    confusion: Tensor
    kinds: dict[str, tuple[int, int]]
    gains: dict[str, float]
    reasons: dict[str, int]
    unsure: int
    images: list[ImageRow]
    foreground: AnswerCounts
    background: AnswerCounts


def examine(
    model: RetinaNet, data: Any, *, score: float = 0.5, progress: bool = False
) -> Examination:
    """Explain every picture of a dataset, and sum up.

    Args:
        model: used at its `image_size`, on its device; its mode is left as it was.
        data: dataset with the model's classes.
        score: detections from this score on are sure.
        progress: show a bar.

    Returns:
        `Examination`.

    Raises:
        DataError: as `evaluate`.

    Law:
        Its evaluation is that of `evaluate`, but by rounding.
    """
    check_classes(model, data)
    if len(data) == 0:
        raise DataError("there are no pictures to report on")
    table = torch.zeros(model.num_classes + 1, model.num_classes + 1, dtype=torch.int64)
    foreground, background = AnswerCounts(), AnswerCounts()
    everything, truths, rows, judged = [], [], [], []
    kinds, sure_kinds, reasons = Counter[str](), Counter[str](), Counter[str]()
    unsure = 0
    for index in tqdm(range(len(data)), disable=not progress, unit="image", dynamic_ncols=True):
        image, target = data[index]
        e = explain(model, image, target)
        found, judgement = e.detections, e.judgement
        assert judgement is not None
        everything.append(found)
        truths.append(target)
        table += confusion(found, target, model.num_classes, score_threshold=score)
        is_sure = (found.scores >= score).tolist()
        verdicts = judgement.verdicts
        kinds.update(v.kind for v in verdicts)
        sure_kinds.update(v.kind for v, s in zip(verdicts, is_sure, strict=True) if s)
        reasons.update(miss.reason for miss in judgement.misses)
        doubtful = sum(v.kind == "true" and not s for v, s in zip(verdicts, is_sure, strict=True))
        unsure += doubtful
        rows.append(
            ImageRow(
                index,
                str(target.get("image_id", index)),
                float(judgement.losses.total),
                int((~judgement.difficult).sum()),
                sum(v.is_false and s for v, s in zip(verdicts, is_sure, strict=True)),
                len(judgement.misses) + doubtful,
            )
        )
        judged.append(_judged(e, judgement))
        _count_answers(e, judgement, foreground, background)
    evaluation = evaluate_detections(everything, truths, model.classes)
    loss = fmean(row.loss for row in rows)
    rows.sort(key=lambda row: (-row.false - row.missed, -row.loss))
    return Examination(
        classes=model.classes,
        score=score,
        evaluation=replace(evaluation, loss=loss),
        confusion=table,
        kinds={kind: (sure_kinds[kind], kinds[kind]) for kind in KINDS},
        gains=gains(judged, model.num_classes),
        reasons=dict(reasons.most_common()),
        unsure=unsure,
        images=rows,
        foreground=foreground,
        background=background,
    )


def _count_answers(
    e: Explanation, judgement: Judgement, foreground: AnswerCounts, background: AnswerCounts
) -> None:
    """Sort the answers that training asks for into those that should be yes, and no."""
    asked = judgement.match != IGNORED  # (N,)
    match, logits = judgement.match[asked], e.logits[asked]  # (n,), (n, K)
    should = torch.zeros_like(logits, dtype=torch.bool)
    positive = (match >= 0).nonzero()[:, 0]
    should[positive, judgement.labels[match[positive]]] = True
    foreground.add(-logits[should])
    background.add(logits[~should])


class Judged(NamedTuple):
    """The verdicts on one picture, by themselves.

    Attributes:
        scores: of the detections, descending.
        labels: their classes.
        kinds: of `KINDS`.
        objects: index of the object of each, −1 for none.
        wanted: class of each object, −1 if it need not be found.
    """

    scores: list[float]
    labels: list[int]
    kinds: list[str]
    objects: list[int]
    wanted: list[int]


def _judged(e: Explanation, judgement: Judgement) -> Judged:
    return Judged(
        e.detections.scores.tolist(),
        e.detections.labels.tolist(),
        [verdict.kind for verdict in judgement.verdicts],
        [verdict.object for verdict in judgement.verdicts],
        judgement.labels.masked_fill(judgement.difficult, -1).tolist(),
    )


def gains(pictures: Sequence[Judged], num_classes: int) -> dict[str, float]:
    """What average precision would gain without each kind of mistake.

    A detection of "class" or "localisation" becomes a true one of its object, if no detection
    found that yet; else it is removed, as are those of the other kinds. For "missed" the objects
    that no detection found need not be found. Each kind is mended by itself, so that an object may
    count for several; TIDE lets an object count for its surest mistake alone.

    Args:
        pictures: the verdicts on each.
        num_classes: K, how many there are.

    Returns:
        by kind, and for "missed", AP with that mended less AP as it is: both at IoU 0.5, the area
        under the curve, by COCO's rule, mean over the classes that have objects.

    Source:
        Bolya et al., "TIDE" (arXiv 2008.08115), section 2.3.
    """
    as_it_is = _mean_ap(pictures, num_classes, "")
    kinds = [kind for kind in KINDS if kind not in ("true", "ignored")]
    return {kind: _mean_ap(pictures, num_classes, kind) - as_it_is for kind in (*kinds, "missed")}


def _mean_ap(pictures: Sequence[Judged], num_classes: int, mended: str) -> float:
    rows: list[list[tuple[float, bool]]] = [[] for _ in range(num_classes)]
    objects: Counter[int] = Counter()
    for one in pictures:
        found = {g for g, kind in zip(one.objects, one.kinds, strict=True) if kind == "true"}
        objects.update(k for g, k in enumerate(one.wanted) if mended != "missed" or g in found)
        for score, label, kind, g in zip(one.scores, one.labels, one.kinds, one.objects):
            if kind == mended:
                if kind not in ("class", "localisation") or g in found or one.wanted[g] < 0:
                    continue
                found.add(g)
                rows[one.wanted[g]].append((score, True))
            elif kind != "ignored":
                rows[label].append((score, kind == "true"))
    values = []
    for label, mine in enumerate(rows):
        if objects[label] == 0:
            continue
        mine.sort(key=lambda row: -row[0])
        scores, true = (np.array([row[i] for row in mine]) for i in (0, 1))
        nothing = np.zeros(len(mine), bool)
        ledger = Ledger(scores, true.astype(bool), nothing, objects[label], 0)
        values.append(average_precision(*precision_recall(ledger)))
    return fmean(values) if values else 0.0
