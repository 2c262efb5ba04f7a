"""From predictions to detections: which of a hundred thousand boxes are true?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from retinanet_edu.boxes import clip_boxes
from retinanet_edu.coding import decode_boxes
from retinanet_edu.data.images import read_image
from retinanet_edu.data.loading import pad_images
from retinanet_edu.data.transforms import EvalTransform, picture_size, scale_boxes
from retinanet_edu.model import RetinaNet
from retinanet_edu.structures import Detections, Predictions
from retinanet_edu.suppression import nms_per_class

# RetinaNet paper (arXiv 1708.02002), section 4, "Inference".
SCORE_THRESHOLD = 0.05
TOP_K = 1000
IOU_THRESHOLD = 0.5
# COCO counts at most 100 detections an image.
MAX_DETECTIONS = 100

Picture = str | Path | Image.Image | np.ndarray | Tensor


def postprocess(
    predictions: Predictions,
    anchors: Tensor,
    image_sizes: Sequence[tuple[int, int]],
    *,
    score_threshold: float = SCORE_THRESHOLD,
    top_k: int = TOP_K,
    iou_threshold: float = IOU_THRESHOLD,
    max_detections: int = MAX_DETECTIONS,
) -> list[Detections]:
    """Threshold, the best of each level, decode, clip, suppress within each class.

    Args:
        predictions: of B images.
        anchors: (N, 4) of the padded image, `model.anchors((H, W))`.
        image_sizes: (H, W) of each image before padding; boxes are clipped to it.
        score_threshold: a score must be greater.
        top_k: of each level at most this many pairs of anchor and class go on.
        iou_threshold: see `nms`.
        max_detections: of each image at most this many, the best, are returned.

    Returns:
        one `Detections` an image, in pixels of the images that the network saw.

    Source:
        RetinaNet paper (arXiv 1708.02002), section 4, "Inference". The article suppresses the
        anchors first and decodes the survivors; the paper and all known code do it this way round.
    """
    batch = len(predictions.class_logits)
    if len(image_sizes) != batch:
        raise ValueError(f"{len(image_sizes)} image sizes for {batch} images")
    if len(anchors) != sum(predictions.anchors_per_level):
        raise ValueError(
            f"{len(anchors)} anchors, but predictions are of {sum(predictions.anchors_per_level)}"
        )
    detections = []
    for logits, deltas, image_size in zip(
        predictions.class_logits, predictions.box_deltas, image_sizes, strict=True
    ):
        scores, anchor, labels = _candidates(
            logits, predictions.anchors_per_level, score_threshold, top_k
        )
        boxes = decode_boxes(deltas[anchor].float(), anchors[anchor])  # (C, 4), C candidates
        boxes = clip_boxes(boxes, image_size)
        kept = nms_per_class(boxes, scores, labels, iou_threshold)[:max_detections]
        detections.append(Detections(boxes[kept], scores[kept], labels[kept]))
    return detections


def _candidates(
    logits: Tensor, anchors_per_level: Sequence[int], score_threshold: float, top_k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, anchors and labels, (C,) each, of one image's best pairs: logits (N, K)."""
    num_classes = logits.shape[1]
    all_scores = logits.float().sigmoid()
    found, start = [], 0
    for level in all_scores.split(list(anchors_per_level)):
        scores = level.flatten()  # (n·K,)
        pairs = (scores > score_threshold).nonzero()[:, 0]
        best, order = scores[pairs].topk(min(top_k, len(pairs)))
        found.append((best, pairs[order] + start * num_classes))
        start += len(level)
    scores, pairs = (torch.cat(parts) for parts in zip(*found, strict=True))
    return scores, pairs // num_classes, pairs % num_classes


@overload
def predict(model: RetinaNet, pictures: Picture, **settings: Any) -> Detections: ...
@overload
def predict(model: RetinaNet, pictures: Sequence[Picture], **settings: Any) -> list[Detections]: ...
@torch.inference_mode()
def predict(
    model: RetinaNet,
    pictures: Picture | Sequence[Picture],
    *,
    batch_size: int = 8,
    image_size: int | None = None,
    **settings: Any,
) -> Detections | list[Detections]:
    """What a model sees in pictures, in their own pixels.

    Args:
        model: its weights, its device and its `image_size` are used; its mode is left as it was.
        pictures: one or several, each a path, a PIL image, an RGB array (H, W, 3) of uint8 or a
            tensor (3, H, W) of uint8.
        batch_size: pictures that go through the network together.
        image_size: the longer side to scale to, instead of `model.image_size`.
        settings: keywords of `postprocess`, such as `score_threshold=0.5` for clean pictures.

    Returns:
        `Detections` for one picture, a list of them for several; boxes in pixels of the original.

    Raises:
        DataError: a picture is missing or damaged; the message names it.
    """
    if isinstance(pictures, str | Path | Image.Image | np.ndarray | Tensor):
        return predict(model, [pictures], image_size=image_size, **settings)[0]
    transform = EvalTransform(image_size or model.image_size)
    was_training = model.training
    model.eval()
    try:
        detections: list[Detections] = []
        for start in range(0, len(pictures), batch_size):
            originals = [_as_tensor(p) for p in pictures[start : start + batch_size]]
            images = [transform.image(image) for image in originals]
            batch = pad_images(images).to(model.device)
            found = postprocess(
                model(batch),
                model.anchors(picture_size(batch)),
                [picture_size(image) for image in images],
                **settings,
            )
            for image, original, one in zip(images, originals, found, strict=True):
                detections.append(
                    rescale(one.to("cpu"), picture_size(image), picture_size(original))
                )
        return detections
    finally:
        model.train(was_training)


def rescale(detections: Detections, seen: tuple[int, int], original: tuple[int, int]) -> Detections:
    """Detections in an image of (H, W) `seen` pixels, in pixels of the `original` (H, W)."""
    boxes = scale_boxes(detections.boxes, seen, original)
    return Detections(boxes, detections.scores, detections.labels)


def _as_tensor(picture: Picture) -> Tensor:
    """A picture as uint8 (3, H, W)."""
    if isinstance(picture, str | Path):
        return read_image(picture)
    if isinstance(picture, Image.Image):
        picture = np.asarray(picture.convert("RGB"))
    if isinstance(picture, np.ndarray):
        picture = torch.from_numpy(picture.copy()).movedim(-1, 0)  # (3, H, W)
    if picture.dtype != torch.uint8 or picture.ndim != 3 or len(picture) != 3:
        raise ValueError(
            "a picture is a path, a PIL image, a uint8 array (H, W, 3) or a uint8 tensor "
            f"(3, H, W); got {picture.dtype} of shape {tuple(picture.shape)}, channels first"
        )
    return picture
