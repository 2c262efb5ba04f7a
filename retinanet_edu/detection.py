"""From predictions to detections: which of a hundred thousand boxes are true?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from retinanet_edu.boxes import clip_boxes
from retinanet_edu.coding import decode_boxes
from retinanet_edu.data.images import as_rgb, read_image
from retinanet_edu.data.loading import pad_images
from retinanet_edu.data.transforms import EvalTransform, picture_size, scale_boxes
from retinanet_edu.errors import DataError
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
@torch.no_grad()
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
            What it sees in a picture does not depend on the others.
        pictures: one or several, each a path, a PIL image, an RGB array (H, W, 3) of uint8 or a
            tensor (3, H, W) of uint8.
        batch_size: pictures that go through the network together, at most.
        image_size: the longer side to scale to, instead of `model.image_size`.
        settings: keywords of `postprocess`, such as `score_threshold=0.5` for clean pictures.

    Returns:
        `Detections` for one picture, a list of them for several; boxes in pixels of the original.

    Raises:
        DataError: a picture is missing, damaged or of another kind; the message names it.
    """
    if isinstance(pictures, str | Path | Image.Image | np.ndarray | Tensor):
        return predict(model, [pictures], image_size=image_size, **settings)[0]
    transform = EvalTransform(image_size or model.image_size)
    detections: list[Detections] = []
    with evaluation_mode(model):
        for start in range(0, len(pictures), batch_size):
            chunk = enumerate(pictures[start : start + batch_size], start)
            originals = [_as_tensor(picture, number) for number, picture in chunk]
            images = [transform.image(image) for image in originals]
            found = _detect(model, images, **settings)
            for image, original, one in zip(images, originals, found, strict=True):
                detections.append(rescale(one, picture_size(image), picture_size(original)))
    return detections


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """A model in evaluation mode for a while; afterwards each of its parts is as it was.

    Args:
        model: some of its parts, such as frozen norms, may have another mode than the whole.

    Returns:
        a context, for `with`.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training


def _detect(model: RetinaNet, images: Sequence[Tensor], **settings: Any) -> list[Detections]:
    """Detections on the CPU in images (3, H_i, W_i), normalised, in their pixels.

    Only images that pad to the same size share a batch: padding beyond that would be seen.
    """
    padded = [pad_images([image]) for image in images]  # (1, 3, H, W) each
    found: dict[int, Detections] = {}
    for size in {picture_size(image) for image in padded}:
        members = [i for i, image in enumerate(padded) if picture_size(image) == size]
        batch = torch.cat([padded[i] for i in members]).to(model.device)
        sizes = [picture_size(images[i]) for i in members]
        some = postprocess(model(batch), model.anchors(size), sizes, **settings)
        found |= {i: one.to("cpu") for i, one in zip(members, some, strict=True)}
    return [found[i] for i in range(len(images))]


def rescale(detections: Detections, seen: tuple[int, int], original: tuple[int, int]) -> Detections:
    """Detections of a scaled image, in pixels of the original.

    Args:
        detections: boxes in pixels of the image that the network saw.
        seen: (H, W) of that image, before padding.
        original: (H, W) of the picture that it was made from.

    Returns:
        the same with other boxes, none of which reaches over the edge.
    """
    boxes = clip_boxes(scale_boxes(detections.boxes, seen, original), original)
    return Detections(boxes, detections.scores, detections.labels)


def _as_tensor(picture: Picture, number: int) -> Tensor:
    """A picture as uint8 (3, H, W); `number` is its place among the pictures, for messages."""
    if isinstance(picture, str | Path):
        return read_image(picture)
    if isinstance(picture, Image.Image):
        try:
            picture = np.asarray(as_rgb(picture))  # (H, W, 3)
        except (OSError, ValueError) as error:  # Pillow reads a file only now
            raise DataError(f"picture {number}: cannot be read ({error})") from error
    kind, axis = type(picture).__name__, 0
    if isinstance(picture, np.ndarray):
        picture, axis = torch.from_numpy(picture.copy()), -1
    shape = tuple(picture.shape)
    if picture.dtype != torch.uint8 or len(shape) != 3 or shape[axis] != 3 or 0 in shape:
        raise DataError(
            f"picture {number}: a picture is a path, a PIL image, a uint8 array (H, W, 3) or a "
            f"uint8 tensor (3, H, W), got {kind} of {picture.dtype} and shape {shape}"
        )
    return picture.movedim(axis, 0)  # (3, H, W)
