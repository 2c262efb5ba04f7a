"""All numbers of a set of detections, and of a model on a dataset."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

from retinanet_edu.data.loading import PAD_MULTIPLE, Batch, EpochBatches, make_loader
from retinanet_edu.data.transforms import EvalTransform
from retinanet_edu.detection import evaluation_mode, postprocess, rescale
from retinanet_edu.errors import DataError
from retinanet_edu.evaluation.coco import coco_metrics
from retinanet_edu.evaluation.voc import (
    Found,
    Truths,
    average_precision,
    match_detections,
    precision_recall,
    read_truth,
)
from retinanet_edu.losses import Losses, criterion
from retinanet_edu.model import RetinaNet
from retinanet_edu.structures import Detections, Predictions


@dataclass(frozen=True)
class Evaluation:
    """The numbers of one evaluation; a class without objects has nan and is left out of means.

    Attributes:
        classes: K names.
        coco: the twelve by `METRICS`.
        voc07: mean over classes of the 11-point AP at IoU 0.5.
        voc10: the same of the area under the curve.
        per_class: `AP`, `AP50`, `voc07`, `voc10`, and how many `objects` and `difficult` there are.
        curves: recall and precision at IoU 0.5 by VOC's rule.
        loss: mean over the images, where a model was evaluated.
    """

    classes: tuple[str, ...]
    coco: dict[str, float]
    voc07: float
    voc10: float
    per_class: dict[str, dict[str, float]]
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = field(repr=False, compare=False)
    loss: float | None = None

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
        values = {n: v for n, v in vars(self).items() if n != "curves" and v is not None}
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
    """All the numbers of these detections.

    Args:
        detections: one `Detections` an image.
        truths: one an image, see `read_truth`.
        classes: names of the K classes.

    Returns:
        `Evaluation`, without a loss.

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
    for i, (found, truth) in enumerate(zip(detections, truths)):
        image = f"image {truth.get('image_id', i)}"
        own = read_truth(truth)
        detected = (found.boxes, found.scores, found.labels)
        for owner, parts in (("detection", detected), ("truth", own)):
            if len({len(part) for part in parts}) > 1:
                counts = ", ".join(str(len(part)) for part in parts)
                raise DataError(f"{image}: boxes, labels and the rest of a {owner} are {counts}")
        for owner, labels in (("detection", found.labels), ("truth", own[1])):
            wrong = [label for label in labels.tolist() if not 0 <= label < len(classes)]
            if wrong:
                raise DataError(
                    f"{image}: {owner} labels must be 0…{len(classes) - 1}, not {wrong}"
                )
        if not (found.scores.isfinite().all() and found.boxes.isfinite().all()):
            raise DataError(f"{image}: a detection is nan or infinite: has the training diverged?")
        if not own[0].isfinite().all():
            raise DataError(f"{image}: a box of the truth is nan or infinite")


@torch.inference_mode()
def evaluate(
    model: RetinaNet,
    data: Any,
    *,
    batch_size: int = 8,
    workers: int = 0,
    loss: Callable[..., Losses] = criterion,
    criterion_settings: Mapping[str, Any] | None = None,
    distributed: bool = False,
    progress: bool = False,
    **settings: Any,
) -> Evaluation:
    """All the numbers of a model on a dataset; loss and detections come from one forward pass.

    Args:
        model: used at its `image_size`, on its device; its mode is left as it was.
        data: dataset with the model's classes, see `retinanet_edu.data`.
        batch_size: pictures that go through the network together.
        workers: processes that load pictures.
        loss: what an image costs; called as `criterion` is, which it is by default.
        criterion_settings: keywords of it.
        distributed: all processes of the group call this, each takes its share of the pictures,
            and each returns the same numbers.
        progress: show a bar.
        settings: keywords of `postprocess`. Precision and recall need the low scores too, so
            leave `score_threshold` alone.

    Returns:
        `Evaluation`, with boxes compared in pixels of the original pictures. It does not depend
        on `batch_size` but by rounding.

    Raises:
        DataError: no pictures, classes that are not the model's, or a picture or box that cannot
            be used.
    """
    check_classes(model, data)
    if len(data) == 0:
        raise DataError("there are no pictures to evaluate on")
    cost = partial(loss, **(criterion_settings or {}))
    share: dict[str, Any] = (
        {"rank": dist.get_rank(), "world_size": dist.get_world_size()} if distributed else {}
    )
    batches = EpochBatches(len(data), batch_size, shuffle=False, **share)
    loader = make_loader(data, EvalTransform(model.image_size), batches, workers=workers)
    rows: dict[int, tuple[Detections, dict, float]] = {}  # by index of the picture
    bar = tqdm(loader, disable=not progress, unit="batch", dynamic_ncols=True)
    with evaluation_mode(model):
        for batch, keys in zip(bar, batches):  # in this order, so that the bar reaches its end
            for (_, index), one in zip(keys, _judge(model, batch, settings, cost)):
                rows[index] = one
    if distributed:
        shares: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(shares, rows)
        rows = {index: row for part in shares for index, row in part.items()}
    detections, truths, costs = zip(*(rows[i] for i in range(len(data))))
    return replace(evaluate_detections(detections, truths, model.classes), loss=fmean(costs))


def _judge(
    model: RetinaNet, batch: Batch, settings: Mapping[str, Any], loss: Callable
) -> list[tuple[Detections, dict, float]]:
    """Detections, truth and loss of each image of a batch, in pixels of the pictures as read.

    Only images that pad to the same size go through the network together, as in `predict`:
    padding beyond that would be seen, and numbers would depend on the batch.
    """
    padded = [(h + -h % PAD_MULTIPLE, w + -w % PAD_MULTIPLE) for h, w in batch.image_sizes]
    judged: dict[int, tuple[Detections, dict, float]] = {}
    for height, width in dict.fromkeys(padded):
        members = [i for i, size in enumerate(padded) if size == (height, width)]
        images = batch.images[members, :, :height, :width].to(model.device)
        anchors, predictions = model.anchors((height, width)), model(images)
        sizes = [batch.image_sizes[i] for i in members]
        found = postprocess(predictions, anchors, sizes, **settings)
        for row, (i, one) in enumerate(zip(members, found)):
            alone = Predictions(
                predictions.class_logits[row : row + 1],
                predictions.box_deltas[row : row + 1],
                predictions.anchors_per_level,
            )
            cost = loss(alone, anchors, batch.targets[[i]].to(model.device)).total
            original = batch.originals[i]
            one = rescale(one.to("cpu"), batch.image_sizes[i], original["size"])
            judged[i] = (one, original, float(cost))
    return [judged[i] for i in range(len(padded))]


def check_classes(model: RetinaNet, data: Any) -> None:
    """Refuse a dataset whose classes are not the model's, in the model's order.

    Args:
        model: whose `classes` count; one with numbers for names is trusted, if K fits.
        data: a dataset; one without `classes` is trusted.

    Raises:
        DataError: naming both.
    """
    theirs = tuple(getattr(data, "classes", model.classes))
    unnamed = model.classes == tuple(map(str, range(model.num_classes)))
    if theirs != model.classes and not (unnamed and len(theirs) == model.num_classes):
        raise DataError(
            f"the data has {len(theirs)} classes ({', '.join(theirs)}), but the model was made "
            f"for {model.num_classes} ({', '.join(model.classes)}), in this order"
        )
