"""The embedded dataset: six kinds of shapes, made when they are asked for.

What is on a picture, and why no single feature tells the kinds apart, stands in `drawing`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from xml.sax.saxutils import escape

import torch
from PIL import Image
from torch import Tensor

from retinanet_edu.data.drawing import SHAPES, Shape, draw_picture

SPLITS = {"train": (0, 2400), "val": (1_000_000, 200)}  # first index, and how many


class ShapesDataset(torch.utils.data.Dataset):
    """The embedded dataset. A picture is drawn when it is first asked for, and kept.

    Args:
        split: "train" or "val"; they share no picture.
        length: how many pictures; default 2400 and 200.
        seed: another one gives another dataset of the same kind.
        size: height and width of a picture, in pixels.

    Attributes:
        classes: the six names, in the order of their labels.

    Law:
        A picture depends on (seed, split, index) alone.
    """

    classes = tuple(SHAPES)

    def __init__(
        self,
        split: Literal["train", "val"] = "train",
        *,
        length: int | None = None,
        seed: int = 0,
        size: int = 128,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split is 'train' or 'val', not {split!r}")
        self.split = split
        self.first, default = SPLITS[split]
        self.length = default if length is None else length
        self.seed = seed
        self.size = size
        self._drawn: dict[int, tuple[Tensor, list[Shape]]] = {}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, dict]:
        """The picture, uint8 (3, H, W), and its target."""
        return self._draw(index)[0].clone(), self.target(index)

    def target(self, index: int) -> dict:
        """`boxes` (M, 4), `labels` (M,), `difficult` (M,) and `image_id`."""
        shapes = self.shapes(index)
        return {
            "boxes": torch.tensor([s.box for s in shapes], dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor([self.classes.index(s.name) for s in shapes], dtype=torch.int64),
            "difficult": torch.tensor([s.difficult for s in shapes], dtype=torch.bool),
            "image_id": f"shapes_{self.split}_{index:04d}",
        }

    def shapes(self, index: int) -> list[Shape]:
        """The objects of a picture, from back to front."""
        return self._draw(index)[1]

    def _draw(self, index: int) -> tuple[Tensor, list[Shape]]:
        if not 0 <= index < self.length:
            raise IndexError(f"picture {index} of {self.length}")
        if index not in self._drawn:
            picture, shapes = draw_picture(self.seed, self.first + index, self.size)
            self._drawn[index] = torch.from_numpy(picture).movedim(-1, 0).contiguous(), shapes
        return self._drawn[index]


def write_voc(
    root: str | Path, *, train: int | None = None, val: int | None = None, seed: int = 0
) -> None:
    """Write the dataset as a VOCdevkit: pictures, annotations and the lists of both splits.

    Args:
        root: folder in which `VOCdevkit/VOC2007` is made; files of the same names are replaced.
        train, val: how many pictures of each; default as `ShapesDataset`.
        seed: of the dataset.

    Law:
        `VOCDataset(root)` has the boxes, labels and difficult flags of `ShapesDataset`, and its
        pictures within what JPEG loses.
    """
    home = Path(root) / "VOCdevkit" / "VOC2007"
    pictures, annotations, lists = (
        home / name for name in ("JPEGImages", "Annotations", "ImageSets/Main")
    )
    for folder in (pictures, annotations, lists):
        folder.mkdir(parents=True, exist_ok=True)
    names: dict[str, list[str]] = {}
    for data in (
        ShapesDataset("train", length=train, seed=seed),
        ShapesDataset("val", length=val, seed=seed),
    ):
        for index in range(len(data)):
            image, target = data[index]
            name = target["image_id"]
            array = image.movedim(0, -1).numpy()
            Image.fromarray(array).save(pictures / f"{name}.jpg", quality=95)
            xml = _voc_xml(name, data.size, data.shapes(index))
            (annotations / f"{name}.xml").write_text(xml, encoding="utf-8")
            names.setdefault(data.split, []).append(name)
    names["trainval"] = [name for split in list(names.values()) for name in split]
    for split, listed in names.items():
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in listed))


def _voc_xml(name: str, size: int, shapes: list[Shape]) -> str:
    """The annotation of a picture; VOC counts pixels from 1 and includes the last."""
    objects = "".join(
        f"  <object>\n    <name>{escape(s.name)}</name>\n    <pose>Unspecified</pose>\n"
        f"    <truncated>{int(s.truncated)}</truncated>\n"
        f"    <difficult>{int(s.difficult)}</difficult>\n"
        f"    <bndbox><xmin>{s.box[0] + 1}</xmin><ymin>{s.box[1] + 1}</ymin>"
        f"<xmax>{s.box[2]}</xmax><ymax>{s.box[3]}</ymax></bndbox>\n  </object>\n"
        for s in shapes
    )
    return (
        f"<annotation>\n  <folder>VOC2007</folder>\n  <filename>{escape(name)}.jpg</filename>\n"
        f"  <size><width>{size}</width><height>{size}</height><depth>3</depth></size>\n"
        f"  <segmented>0</segmented>\n{objects}</annotation>\n"
    )
