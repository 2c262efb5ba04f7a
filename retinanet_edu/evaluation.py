"""Evaluation: how good detections are, as average precision by VOC's and by COCO's rules.

VOC's numbers are counted here, where every step can be read; COCO's come from COCO's own code.
A truth is the dict of an image: `boxes` (M, 4) x1 y1 x2 y2 in pixels, `labels` (M,) in 0…K−1 and,
where there are any, `difficult` and `iscrowd` (M,) bool, neither counted nor penalised. Difficult
is an object that need not be found; a crowd is a region in which nobody counted the objects.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from retinanet_edu.boxes import box_area, pairwise_iou
from retinanet_edu.errors import DataError, RetinaNetError
from retinanet_edu.structures import Detections

Found = Sequence[Detections]
Truths = Sequence[Mapping[str, Any]]

# In pycocotools' order. s, m, l: objects up to 32², up to 96² and above, in square pixels.
# AR1, AR10, AR100: with so many detections a class in each image.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@dataclass(frozen=True)
class Ledger:
    """What became of the D detections of one class, over all images.

    Attributes:
        scores: (D,) float64, descending; equal scores stay in the order of the images.
        true_positive, ignored: (D,) bool, never both; what is neither is a false positive.
        objects, difficult: how many there were to find, and how many that need not be found.
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
    for found, truth in zip(detections, truths, strict=True):
        boxes, labels, difficult, crowd = _objects(truth)
        optional = (difficult | crowd)[labels == label].numpy()
        objects, skipped = objects + int((~optional).sum()), skipped + int(optional.sum())
        mine = (found.labels == label).nonzero().flatten()
        if len(mine) == 0:
            continue
        mine = mine[found.scores[mine].argsort(descending=True, stable=True)]
        iou = pairwise_iou(found.boxes[mine].cpu().double(), boxes[labels == label])  # (D, M)
        taken = np.zeros(len(optional), bool)
        for score, overlap in zip(found.scores[mine].tolist(), iou.numpy(), strict=True):
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


def _objects(truth: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes (in float64, as VOC and COCO reckon), labels, difficult, crowd; all on the CPU."""
    labels = torch.as_tensor(truth["labels"]).cpu()
    none = torch.zeros(len(labels))
    difficult = torch.as_tensor(truth.get("difficult", none)).cpu().bool()
    crowd = torch.as_tensor(truth.get("iscrowd", none)).cpu().bool()
    return torch.as_tensor(truth["boxes"]).cpu().double().reshape(-1, 4), labels, difficult, crowd


def precision_recall(ledger: Ledger) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision after each detection that counts, from the best score down.

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


def coco_metrics(
    detections: Found, truths: Truths, num_classes: int
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """COCO's twelve numbers by pycocotools, which is taught what a difficult object is.

    The only objects that it leaves uncounted are crowds, and with those it asks how much of the
    detection they cover. A difficult object too may absorb many detections, but by its true IoU.
    Each still fills a place among the 1, 10 or 100 that count.

    Returns:
        the twelve by `METRICS`, then AP and AP50 of each class, (K,); nan for nothing to find.

    Law:
        Without difficult objects, pycocotools gives the same numbers of the same JSON files.
    """
    try:
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise RetinaNetError("COCO's numbers need pycocotools: pip install pycocotools") from error

    class DifficultEval(COCOeval):
        def _prepare(self) -> None:
            """Nothing to do: the rows are put in place below, without a detour by JSON."""

        def computeIoU(self, imgId: int, catId: int) -> Any:
            # All overlaps are computed before anything is matched: until then a difficult object
            # is an ordinary one, from then on it goes uncounted as a crowd does.
            overlaps = super().computeIoU(imgId, catId)
            for row in self._gts[imgId, catId]:
                row["ignore"] = row["iscrowd"] = row["iscrowd"] or row["difficult"]
            return overlaps

    run = DifficultEval(iouType="bbox")
    run.params.imgIds, run.params.catIds = range(len(truths)), range(num_classes)
    for i, (found, truth) in enumerate(zip(detections, truths, strict=True)):
        boxes, labels, difficult, crowd = _objects(truth)
        _add_rows(run._gts, i, boxes, labels, difficult=difficult, iscrowd=crowd)
        _add_rows(run._dts, i, found.boxes, found.labels, score=found.scores)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints at every step
        run.evaluate()
        run.accumulate()
        run.summarize()
    precision = run.eval["precision"][..., 0, -1]  # (10 IoUs, 101 recalls, K), any size, best 100
    numbers = (run.stats, precision.mean(axis=(0, 1)), precision[0].mean(axis=0))  # (12,) (K,) (K,)
    stats, ap, ap50 = (np.where(x < 0, math.nan, x) for x in numbers)  # −1: nothing to find
    return dict(zip(METRICS, stats.tolist(), strict=True)), ap, ap50


def _add_rows(table: dict, image: int, boxes: Tensor, labels: Tensor, **more: Tensor) -> None:
    boxes = boxes.double()
    xywh = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)
    columns = {"bbox": xywh, "area": box_area(boxes), **more}
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    for label, row in zip(labels.tolist(), values, strict=True):
        number = len(table[image, label]) + 1  # from 1: pycocotools takes number 0 for no match
        table[image, label].append({"id": number, **dict(zip(columns, row, strict=True))})


@dataclass(frozen=True)
class Evaluation:
    """The numbers of one evaluation; a class without objects has nan and is left out of means.

    Attributes:
        classes: K names.
        coco: the twelve by `METRICS`.
        voc07, voc10: means over classes of the 11-point and the area AP at IoU 0.5.
        per_class: `AP`, `AP50`, `voc07`, `voc10`, and how many `objects` and `difficult` there are.
        curves: recall and precision at IoU 0.5 by VOC's rule.
    """

    classes: tuple[str, ...]
    coco: dict[str, float]
    voc07: float
    voc10: float
    per_class: dict[str, dict[str, float]]
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = field(repr=False, compare=False)

    @property
    def mAP(self) -> float:
        """COCO's AP, the mean over classes and over the IoUs 0.5, 0.55, …, 0.95."""
        return self.coco["AP"]

    @property
    def mAP50(self) -> float:
        """COCO's AP at IoU 0.5."""
        return self.coco["AP50"]

    def as_dict(self) -> dict[str, Any]:
        """All but the curves, ready for JSON: nan becomes None."""
        values = {name: value for name, value in vars(self).items() if name != "curves"}
        return json.loads(json.dumps(values), parse_constant=lambda nan: None)

    def table(self) -> str:
        """A line a class and a last one for the mean, as plain text."""
        mean = {"AP": self.mAP, "AP50": self.mAP50, "voc07": self.voc07, "voc10": self.voc10}
        columns = ("objects", "difficult", *mean)
        width = max(len(name) for name in ("class", *self.classes))
        lines = ["class".ljust(width) + "".join(f"{column:>11}" for column in columns)]
        for name, row in [*self.per_class.items(), ("mean", mean)]:
            cells = (row.get(column, "") for column in columns)
            texts = (f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells)
            lines.append(name.ljust(width) + "".join(f"{text:>11}" for text in texts))
        return "\n".join(lines)


def evaluate_detections(detections: Found, truths: Truths, classes: Sequence[str]) -> Evaluation:
    """All the numbers of these detections, one `Detections` and one truth an image.

    Raises:
        DataError: if they do not fit together, or a score or a box is not finite.
    """
    _validate(detections, truths, classes)
    coco, ap, ap50 = coco_metrics(detections, truths, len(classes))
    per_class, curves = {}, {}
    for label, name in enumerate(classes):
        ledger = match_detections(detections, truths, label)
        curves[name] = precision_recall(ledger)
        per_class[name] = {
            "AP": float(ap[label]),
            "AP50": float(ap50[label]),
            "voc07": average_precision(*curves[name], method="11-point"),
            "voc10": average_precision(*curves[name]),
            "objects": ledger.objects,
            "difficult": ledger.difficult,
        }
    known = [row for row in per_class.values() if row["objects"]] or list(per_class.values())
    voc07, voc10 = (fmean(row[name] for row in known) for name in ("voc07", "voc10"))
    return Evaluation(tuple(classes), coco, voc07, voc10, per_class, curves)


def _validate(detections: Found, truths: Truths, classes: Sequence[str]) -> None:
    if len(detections) != len(truths):
        raise DataError(f"{len(detections)} images have detections, but {len(truths)} have truths")
    if not 0 < len(set(classes)) == len(classes):
        raise DataError(f"classes must be different names, at least one, got {list(classes)}")
    for i, (found, truth) in enumerate(zip(detections, truths, strict=True)):
        image = f"image {truth.get('image_id', i)}"
        for owner, labels in (("detection", found.labels), ("truth", _objects(truth)[1])):
            wrong = [label for label in labels.tolist() if not 0 <= label < len(classes)]
            if wrong:
                raise DataError(
                    f"{image}: {owner} labels must be 0…{len(classes) - 1}, not {wrong}"
                )
        if not (found.scores.isfinite().all() and found.boxes.isfinite().all()):
            raise DataError(f"{image}: a detection is nan or infinite: has the training diverged?")
