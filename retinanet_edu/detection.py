"""From predictions to detections: which of a hundred thousand boxes are true?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from retinanet_edu.boxes import clip_boxes, is_on_cpu
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
# So many of the best candidates are suppressed first: mostly 100 detections are among them.
_FIRST = 500

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

    Raises:
        ValueError: `image_sizes` or `anchors` are not as many as the predictions'.

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
    # A CPU takes one image at a time, whose numbers stay in its cache; a GPU all in a few launches.
    step = 1 if is_on_cpu(predictions.class_logits) else max(1, batch)
    detections: list[Detections] = []
    for start in range(0, batch, step):
        part = slice(start, start + step)
        candidates = _candidates(
            predictions.class_logits[part], predictions.anchors_per_level, score_threshold, top_k
        )
        detections += _suppress(
            candidates,
            predictions.box_deltas[part],
            anchors,
            image_sizes[part],
            iou_threshold,
            max_detections,
        )
    return detections


class _Candidates(NamedTuple):
    """Pairs of an anchor and a class, (B, C) each, best first; those of score −1 are filling."""

    scores: Tensor
    anchors: Tensor
    labels: Tensor


def _candidates(
    logits: Tensor, anchors_per_level: Sequence[int], score_threshold: float, top_k: int
) -> _Candidates:
    """The best pairs of each level, above the threshold: logits (B, N, K)."""
    if is_on_cpu(logits) and len(logits) == 1:
        few = _few_candidates(logits, anchors_per_level, score_threshold, top_k)
        if few is not None:
            return few
    levels = list(anchors_per_level)
    best_class = logits.amax(dim=2)  # (B, N)
    found, start = [], 0
    for best, level in zip(best_class.split(levels, 1), logits.split(levels, 1)):
        # The best pairs are of the anchors with the best classes: a thousand of these hold a
        # thousand pairs that no other anchor's beats. So few pairs are left to be compared.
        anchor = best.topk(min(top_k, best.shape[1]), sorted=False).indices  # (B, k)
        index = anchor[..., None].expand(-1, -1, level.shape[2])
        pairs = level.gather(1, index).flatten(1)  # (B, k·K)
        chosen, pair = pairs.topk(min(top_k, pairs.shape[1]), sorted=False)  # (B, C of the level)
        row, label = pair // level.shape[2], pair % level.shape[2]
        found.append((chosen, start + anchor.gather(1, row), label))
        start += level.shape[1]
    chosen, anchor, label = (torch.cat(parts, dim=1) for parts in zip(*found))
    return _best_first(chosen, anchor, label, score_threshold)


def _few_candidates(
    logits: Tensor, anchors_per_level: Sequence[int], score_threshold: float, top_k: int
) -> _Candidates | None:
    """The same for one image, where at most `top_k` pairs are above the threshold; else None.

    Most of a picture is empty. Blocks of anchors are asked for their maximum, in one quick pass
    over memory, and only those that have something are read again.
    """
    # A little below the threshold's own logit; the scores themselves decide in the end.
    lowest = torch.tensor(score_threshold - 1e-6, dtype=torch.float64).clamp(0, 1).logit()
    blocks = logits.reshape(-1, _block(sum(anchors_per_level), logits.shape[2]), logits.shape[2])
    # In half precision the threshold itself would be rounded, and could be rounded up.
    busy = (blocks.flatten(1).amax(dim=1).float() > lowest).nonzero()[:, 0]
    if 2 * len(busy) > len(blocks):
        return None
    pairs = blocks[busy].float()  # (blocks, anchors, K)
    block, anchor, label = (pairs > lowest).nonzero(as_tuple=True)  # (C,) each
    if len(label) > top_k:
        return None
    chosen = pairs[block, anchor, label]
    anchor = busy[block] * blocks.shape[1] + anchor
    return _best_first(chosen[None], anchor[None], label[None], score_threshold)


@cache  # asked for each image, and there may be no small divisor
def _block(anchors: int, num_classes: int) -> int:
    """A divisor of `anchors` that makes blocks long enough for a maximum at full speed."""
    return next(
        size
        for size in range(1, anchors + 1)
        if anchors % size == 0 and (size * num_classes >= 128 or size == anchors)
    )


def _best_first(
    logits: Tensor, anchors: Tensor, labels: Tensor, score_threshold: float
) -> _Candidates:
    logits, order = logits.float().sort(dim=1, descending=True, stable=True)
    scores = logits.sigmoid()
    scores = scores.masked_fill(~(scores > score_threshold), -1)
    return _Candidates(scores, anchors.gather(1, order), labels.gather(1, order))


def _suppress(
    candidates: _Candidates,
    deltas: Tensor,
    anchors: Tensor,
    image_sizes: Sequence[tuple[int, int]],
    iou_threshold: float,
    max_detections: int,
) -> list[Detections]:
    """Decode, clip, suppress within each class of each image: deltas (B, N, 4)."""
    batch, available = candidates.scores.shape
    limits = anchors.new_tensor([(width, height) * 2 for height, width in image_sizes])  # (B, 4)
    first = _FIRST
    while True:
        # Suppression goes by score, so what survives of the first does not depend on the rest.
        scores, anchor, label = (numbers[:, :first] for numbers in candidates)
        image, place = (scores >= 0).nonzero(as_tuple=True)  # (C,) each
        scores, anchor, label = scores[image, place], anchor[image, place], label[image, place]
        boxes = decode_boxes(deltas[image, anchor].float(), anchors[anchor])  # (C, 4)
        boxes = boxes.clamp(min=0).minimum(limits[image])
        group = image * (label.max() + 1 if len(label) else 1) + label
        kept = nms_per_class(boxes, scores, group, iou_threshold)
        kept = kept[image[kept].sort(stable=True).indices]  # by image, and by score within
        found = image[kept].bincount(minlength=batch)  # (B,)
        is_short = (found < max_detections) & (candidates.scores[:, first:] >= 0).any(dim=1)
        if first >= available or not is_short.any():
            break
        first *= 4
    of_image = (numbers[kept].split(found.tolist()) for numbers in (boxes, scores, label))
    return [Detections(*(n[:max_detections] for n in one)) for one in zip(*of_image)]


def list_candidates(
    predictions: Predictions,
    anchors: Tensor,
    image_size: tuple[int, int],
    *,
    score_threshold: float = SCORE_THRESHOLD,
    top_k: int = TOP_K,
) -> tuple[Detections, Tensor]:
    """What `postprocess` suppresses, and where each comes from.

    Args:
        predictions: of one image.
        anchors, score_threshold, top_k: as in `postprocess`.
        image_size: (H, W) of the image before padding.

    Returns:
        the candidates, before any is suppressed, and (C,) the anchor of each; an anchor may speak
        for several classes.

    Law:
        What `nms_per_class` keeps of them, cut to `max_detections`, is what `postprocess` finds.
    """
    found = _candidates(
        predictions.class_logits, predictions.anchors_per_level, score_threshold, top_k
    )
    scores, anchor, label = (numbers[found.scores >= 0] for numbers in found)  # (C,) each
    boxes = decode_boxes(predictions.box_deltas[0, anchor].float(), anchors[anchor])  # (C, 4)
    return Detections(clip_boxes(boxes, image_size), scores, label), anchor


@overload
def predict(
    model: RetinaNet,
    pictures: Picture,
    *,
    batch_size: int = 8,
    image_size: int | None = None,
    **settings: Any,
) -> Detections: ...
@overload
def predict(
    model: RetinaNet,
    pictures: Sequence[Picture],
    *,
    batch_size: int = 8,
    image_size: int | None = None,
    **settings: Any,
) -> list[Detections]: ...
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
        model: its weights in float32, its device and its `image_size` are used; its mode is left as
            it was. For half precision, call this under `torch.autocast`. What it sees in a picture
            does not depend on the others.
        pictures: one or several, each a path, a PIL image, an RGB array (H, W, 3) of uint8 or a
            tensor (3, H, W) of uint8.
        batch_size: pictures that go through the network together, at most.
        image_size: the longer side to scale to, instead of `model.image_size`.
        settings: keywords of `postprocess`, such as `score_threshold=0.5` for clean pictures.

    Returns:
        `Detections` for one picture, a list of them for several; boxes in pixels of the original.

    Raises:
        ValueError: `batch_size` below 1.
        DataError: a picture is missing, damaged or of another kind; the message names it.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is at least 1, got {batch_size}")
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
            for image, original, one in zip(images, originals, found):
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
        found |= {i: one.to("cpu") for i, one in zip(members, some)}
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
