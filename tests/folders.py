"""Small folders of pictures and labels, written by hand: what the tests of formats share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# Photographs of VOC, where there are some: a folder with a VOCdevkit.
VOC = os.environ.get("RETINANET_EDU_VOC")
needs_voc = pytest.mark.skipif(not VOC, reason="RETINANET_EDU_VOC names no folder of VOC")

WIDTH, HEIGHT = 60, 40


def write_picture(path: Path, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """A picture of noise, another for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_text(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def voc_xml(*objects: tuple[str, tuple[Any, ...]], size: tuple[int, int] | None = None) -> str:
    """An annotation of objects: name and VOC's four numbers, and 1 for a difficult one."""
    keys = ("xmin", "ymin", "xmax", "ymax")
    rows = "".join(
        f"<object><name>{name}</name><difficult>{(*box, 0)[4]}</difficult><bndbox>"
        + "".join(f"<{k}>{v}</{k}>" for k, v in zip(keys, box))
        + "</bndbox></object>"
        for name, box in objects
    )
    width, height = size or (WIDTH, HEIGHT)
    sides = f"<size><width>{width}</width><height>{height}</height></size>"
    return f"<annotation>{sides}{rows}</annotation>"


def coco(
    images: dict[Any, str], annotations: list[tuple], categories: dict[Any, str], **more: Any
) -> dict[str, Any]:
    """COCO's content: file names by id; (image, category, bbox) each; names by id."""
    return {
        "images": [
            {"id": i, "file_name": n, "width": WIDTH, "height": HEIGHT} for i, n in images.items()
        ],
        "annotations": [
            {"id": k, "image_id": i, "category_id": c, "bbox": box, "iscrowd": (*crowd, 0)[0]}
            for k, (i, c, box, *crowd) in enumerate(annotations)
        ],
        "categories": [{"id": i, "name": n} for i, n in categories.items()],
    } | more


def write_coco(path: Path, *arguments: Any, **more: Any) -> Path:
    return write_text(path, json.dumps(coco(*arguments, **more)))
