"""From detections to average precision by VOC's rules, every step in the open.

A truth is the dict of an image: `boxes` (M, 4) x1 y1 x2 y2 in pixels, `labels` (M,) in 0…K−1 and,
where there are any, `difficult` and `iscrowd` (M,) bool, neither counted nor penalised. Difficult
is an object that need not be found; a crowd is a region in which nobody counted the objects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from retinanet_edu.boxes import pairwise_iou
from retinanet_edu.structures import Detections

Found = Sequence[Detections]
Truths = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Ledger:
    """What became of the D detections of one class, over all images.

    Attributes:
        scores: (D,) float64, descending; equal scores stay in the order of the images.
        true_positive: (D,) bool.
        ignored: (D,) bool, never true where `true_positive` is; what is neither is false.
        objects: how many there were to find.
        difficult: how many there were that need not be found.
    """

    scores: np.ndarray
    true_positive: np.ndarray
    ignored: np.ndarray
    objects: int
    difficult: int


def match_detections(
    detections: Found,
    truths: Truths,
    label: int,
    iou_threshold: float = 0.5,
    rule: Literal["voc", "coco"] = "voc",
) -> Ledger:
    """Decide of each detection of a class whether it is true, false or ignored.

    Args:
        detections, truths: one an image. VOC has no crowds: here they are difficult objects.
        label: the class, 0…K−1.
        iou_threshold: a detection and its object overlap by at least this.
        rule: "voc": a detection looks only at the object that it overlaps most; if that one is
            taken already, it is false. "coco": it takes the best object that is still free, and
            looks at difficult ones only if there is none.

    Returns:
        the ledger of all detections of this class.

    Raises:
        ValueError: there is no such rule.

    Law:
        Each object is found at most once. A detection near none but difficult objects is ignored.

    Source:
        VOC: `VOCevaldet.m` of the development kit, which takes ≥ where the article (IJCV 2010,
        section 4.2) says "exceed". COCO: pycocotools, `evaluateImg`.
    """
    if rule not in ("voc", "coco"):
        raise ValueError(f"rule must be 'voc' or 'coco', got {rule!r}")
    rows = []
    objects = skipped = 0
    for found, truth in zip(detections, truths):
        boxes, labels, difficult, crowd = read_truth(truth)
        optional = (difficult | crowd)[labels == label].numpy()
        objects, skipped = objects + int((~optional).sum()), skipped + int(optional.sum())
        mine = (found.labels == label).nonzero().flatten()
        if len(mine) == 0:
            continue
        mine = mine[found.scores[mine].argsort(descending=True, stable=True)]
        iou = pairwise_iou(found.boxes[mine].cpu().double(), boxes[labels == label])  # (D, M)
        taken = np.zeros(len(optional), bool)
        for score, overlap in zip(found.scores[mine].tolist(), iou.numpy()):
            near = overlap >= iou_threshold
            if rule == "coco":
                free = near & ~taken & ~optional
                near = free if free.any() else near & optional
            is_true = is_ignored = False
            if near.any():
                best = np.where(near, overlap, 0).argmax()
                is_true, is_ignored = not (optional[best] or taken[best]), optional[best]
                taken[best] = True
            rows.append((score, is_true, is_ignored))
    table = np.array(sorted(rows, key=lambda row: -row[0])).reshape(-1, 3)  # a stable sort
    return Ledger(table[:, 0], table[:, 1] == 1, table[:, 2] == 1, objects, skipped)


def read_truth(truth: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The entries of a truth, those that are missing made up.

    Args:
        truth: `boxes`, `labels` and, where there are any, `difficult` and `iscrowd`.

    Returns:
        boxes (M, 4) in float64, as VOC and COCO reckon, labels (M,), difficult (M,) and crowd
        (M,); all on the CPU.
    """
    labels = torch.as_tensor(truth["labels"]).cpu()
    none = torch.zeros(len(labels))
    difficult = torch.as_tensor(truth.get("difficult", none)).cpu().bool()
    crowd = torch.as_tensor(truth.get("iscrowd", none)).cpu().bool()
    return torch.as_tensor(truth["boxes"]).cpu().double().reshape(-1, 4), labels, difficult, crowd


def precision_recall(ledger: Ledger) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision after each detection that counts, from the best score down.

    Args:
        ledger: of one class, from `match_detections`.

    Returns:
        recall and precision, (n,) float64 in 0…1, of the n detections that are not ignored. One
        point of nan for a class without objects: its recall is 0/0, whatever was detected.
    """
    if ledger.objects == 0:
        return np.array([math.nan]), np.array([math.nan])
    true = np.cumsum(ledger.true_positive[~ledger.ignored])
    return true / ledger.objects, true / np.arange(1, len(true) + 1)


def average_precision(
    recall: np.ndarray, precision: np.ndarray, method: Literal["area", "11-point"] = "area"
) -> float:
    """Average precision: the curve of one class as one number.

    Args:
        recall: (n,) ascending.
        precision: (n,). At a recall counts the best precision there *or beyond*.
        method: "area" under that monotone curve (VOC since 2010), or "11-point", its mean at the
            recalls 0, 0.1, …, 1 (VOC 2007).

    Returns:
        AP in 0…1, or nan for the nan of a class without objects.

    Raises:
        ValueError: there is no such method.

    Law:
        The area is the mean over all objects of the monotone precision at which each is found, 0
        if it never is. The mean at k + 1 even points differs from the area by at most 1/k.

    Source:
        Everingham et al., "The PASCAL VOC Challenge", IJCV 2010, section 4.2; area: `VOCap.m`.
    """
    if method not in ("area", "11-point"):
        raise ValueError(f"method must be 'area' or '11-point', got {method!r}")
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if method == "area":
        return float((np.diff(recall, prepend=0) * envelope).sum())
    # Tenths as quotients: 3 / 10 is the very float that 3 found of 10 objects give. Steps of 0.1,
    # as np.arange and np.linspace take them, reach 0.30000000000000004, which that recall misses.
    at = np.searchsorted(recall, np.arange(11) / 10)  # (11,) the first detection with that recall
    return float(np.append(envelope, 0)[at].mean())
