"""COCO's numbers, by COCO's own code."""

from __future__ import annotations

import contextlib
import io
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retinanet_edu.boxes import box_area
from retinanet_edu.errors import RetinaNetError
from retinanet_edu.evaluation.voc import Found, Truths, read_truth

# In pycocotools' order. s, m, l: small, medium and large objects.
# AR1, AR10, AR100: with so many detections a class in each image.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

# COCO's bounds between small, medium and large objects, in square pixels.
AREAS = (32.0**2, 96.0**2)


def coco_metrics(
    detections: Found, truths: Truths, num_classes: int, areas: tuple[float, float] = AREAS
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """COCO's twelve numbers by pycocotools, which is taught what a difficult object is.

    The only objects that it leaves uncounted are crowds, and with those it asks how much of the
    detection they cover. A difficult object too may absorb many detections, but by its true IoU.
    Each still fills a place among the 1, 10 or 100 that count.

    Args:
        detections, truths: one an image, see `read_truth`.
        num_classes: K, how many there are.
        areas: bounds between small, medium and large objects, in square pixels.

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
    small, large, most = *areas, 1e10  # pycocotools' own word for no limit
    run.params.areaRng = [[0, most], [0, small], [small, large], [large, most]]
    for i, (found, truth) in enumerate(zip(detections, truths)):
        boxes, labels, difficult, crowd = read_truth(truth)
        _add_rows(run._gts, i, boxes, labels, difficult=difficult, iscrowd=crowd)
        _add_rows(run._dts, i, found.boxes, found.labels, score=found.scores)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints at every step
        run.evaluate()
        run.accumulate()
        run.summarize()
    precision = run.eval["precision"][..., 0, -1]  # (10 IoUs, 101 recalls, K), any size, best 100
    numbers = (run.stats, precision.mean(axis=(0, 1)), precision[0].mean(axis=0))  # (12,) (K,) (K,)
    stats, ap, ap50 = (np.where(x < 0, math.nan, x) for x in numbers)  # −1: nothing to find
    return dict(zip(METRICS, stats.tolist())), ap, ap50


def _add_rows(table: dict, image: int, boxes: Tensor, labels: Tensor, **more: Tensor) -> None:
    boxes = boxes.double()
    xywh = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)
    columns = {"bbox": xywh, "area": box_area(boxes), **more}
    values = zip(*(column.tolist() for column in columns.values()))
    for label, row in zip(labels.tolist(), values):
        number = len(table[image, label]) + 1  # from 1: pycocotools takes number 0 for no match
        table[image, label].append({"id": number, **dict(zip(columns, row))})
