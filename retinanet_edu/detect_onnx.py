"""Detect objects with a model that `retinanet-edu export` wrote, without PyTorch.

In a terminal::

    python detect_onnx.py model.onnx picture.jpg another.png --score 0.5

This file stands alone: it needs numpy, pillow and onnxruntime, nothing of `retinanet_edu`. It may
be copied and changed. What it has to know of the model, it reads from the model's own metadata.
"""

from __future__ import annotations

import argparse
import json
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps


class Model(NamedTuple):
    """A model ready to run.

    Attributes:
        session: of onnxruntime.
        settings: the model's metadata: classes, size, colours, thresholds.
    """

    session: Any
    settings: dict[str, Any]


def load_model(path: str) -> Model:
    """Open an exported model.

    Args:
        path: of the .onnx file.

    Returns:
        the model, on CUDA where onnxruntime has it.
    """
    import onnxruntime

    there = onnxruntime.get_available_providers()
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    session = onnxruntime.InferenceSession(path, providers=[p for p in wanted if p in there])
    settings = session.get_modelmeta().custom_metadata_map.get("retinanet_edu")
    if settings is None:
        raise ValueError(f"{path}: not a model that retinanet-edu exported")
    return Model(session, json.loads(settings))


def read_rgb(path: str) -> Image.Image:
    """A picture of any mode as RGB, upright, transparency laid on white.

    Args:
        path: of any file that Pillow reads.

    Returns:
        the picture in mode RGB.
    """
    picture = ImageOps.exif_transpose(Image.open(path))
    if picture.mode.startswith("I"):  # 16 bits
        array = np.asarray(picture).clip(0, 65535)
        picture = Image.fromarray((array / 257).round().astype(np.uint8))
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert("RGB")


def detect(
    model: Model, picture: Image.Image, score_threshold: float | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Objects in a picture.

    Args:
        model: from `load_model`.
        picture: in mode RGB.
        score_threshold: a score must be greater; default the model's own, 0.05.

    Returns:
        boxes (D, 4) x1 y1 x2 y2 in pixels of the picture, scores (D,) and labels (D,), best first.
    """
    settings = model.settings
    lowest = settings["score_threshold"] if score_threshold is None else score_threshold
    factor = settings["image_size"] / max(picture.size)
    width, height = (max(1, round(side * factor)) for side in picture.size)
    images = prepare(picture.resize((width, height), Image.Resampling.BILINEAR), settings)
    names = ["class_logits", "boxes", "anchors_per_level"]
    logits, boxes, counts = model.session.run(names, {"images": images})

    scores, anchors, labels = candidates(logits[0], counts, lowest, settings["top_k"])
    boxes = boxes[0, anchors].astype(np.float64).clip(0, [width, height, width, height])  # (C, 4)
    kept = [np.zeros(0, dtype=np.int64)]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        kept.append(members[suppress(boxes[members], settings["iou_threshold"])])
    best = np.sort(np.concatenate(kept))[: settings["max_detections"]]  # candidates are sorted
    scale = np.array(picture.size * 2) / [width, height, width, height]
    return boxes[best] * scale, scores[best], labels[best]


def prepare(picture: Image.Image, settings: dict[str, Any]) -> np.ndarray:
    """A scaled picture as the network wants it: normalised, and padded at the right and below.

    Args:
        picture: in mode RGB.
        settings: of the model.

    Returns:
        (1, 3, H, W) float32.
    """
    pixels = np.asarray(picture, dtype=np.float32) / 255  # (H, W, 3)
    mean, std = np.float32(settings["mean"]), np.float32(settings["std"])
    rows, columns = (-side % settings["pad_multiple"] for side in pixels.shape[:2])
    padded = np.pad((pixels - mean) / std, ((0, rows), (0, columns), (0, 0)))
    return np.ascontiguousarray(padded.transpose(2, 0, 1)[None])


def candidates(
    logits: np.ndarray, counts: np.ndarray, lowest: float, top_k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of an anchor and a class whose score is high enough, at most `top_k` of each level.

    Args:
        logits: (N, K).
        counts: (5,) anchors of each level.
        lowest: a score must be greater.
        top_k: so many of each level.

    Returns:
        scores (C,), anchors (C,) and labels (C,), best first.
    """
    found, start = [], 0
    for count in counts:
        level = logits[start : start + count].ravel()  # (count · K,)
        with np.errstate(over="ignore"):
            scores = 1 / (1 + np.exp(-level))
        pairs = np.flatnonzero(scores > lowest)
        pairs = pairs[np.argsort(-level[pairs], kind="stable")[:top_k]]
        found.append((level[pairs], scores[pairs], start * logits.shape[1] + pairs))
        start += count
    level, scores, pairs = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(-level, kind="stable")
    anchors, labels = np.divmod(pairs[order], logits.shape[1])
    return scores[order], anchors, labels


def suppress(boxes: np.ndarray, threshold: float) -> np.ndarray:
    """Greedy suppression within one class.

    Args:
        boxes: (D, 4), best first.
        threshold: a box goes if its IoU with a better kept one is greater.

    Returns:
        indices of the kept ones.
    """
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    kept, rest = [], np.arange(len(boxes))
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = (high - low).clip(0).prod(axis=1)
        union = np.maximum(area[best] + area[rest] - shared, np.finfo(np.float32).tiny)
        rest = rest[shared / union <= threshold]
    return np.array(kept, dtype=np.int64)


def main() -> None:
    """The command line: a line for each object."""
    parser = argparse.ArgumentParser(description="Detect objects with an exported model.")
    parser.add_argument("model", help="file that retinanet-edu export wrote, .onnx")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE")
    parser.add_argument("--score", type=float, default=0.5, help="show detections above it")
    options = parser.parse_args()
    model = load_model(options.model)
    for path in options.pictures:
        for box, score, label in zip(*detect(model, read_rgb(path), options.score), strict=True):
            corners = " ".join(f"{side:.1f}" for side in box)
            print(f"{path}\t{model.settings['classes'][label]}\t{score:.3f}\t{corners}")


if __name__ == "__main__":
    main()
