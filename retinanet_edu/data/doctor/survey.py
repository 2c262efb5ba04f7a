"""Survey: everything that there is, read once, as arrays that all checks share."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from retinanet_edu.data.doctor.findings import Place
from retinanet_edu.data.images import read_image
from retinanet_edu.data.records import Record, RecordObject, Records
from retinanet_edu.errors import DataError

# A box may reach this far over the edge, in pixels: that is rounding, and readers clip it.
ROUNDING = 1.0
_THREADS = 8


class Look(NamedTuple):
    """What is known of a picture's file.

    Attributes:
        size: (H, W) upright, as training sees it; None where the picture cannot be read.
        orientation: EXIF's, 1 where there is none; from 5 on the stored sides are swapped.
        pixels: a digest of size and pixels, equal for equal pictures.
        content: a digest of the file.
        fault: why it cannot be read, else empty.
    """

    size: tuple[int, int] | None
    orientation: int = 1
    pixels: str = ""
    content: str = ""
    fault: str = ""


@dataclass(frozen=True)
class Survey:
    """A data set as the checks see it: R records, O objects.

    Attributes:
        records: as they were read.
        looks: one a record.
        is_validation: (R,) bool.
        frames: (R, 2) H and W of the picture that the boxes belong to: as annotated, else as
            measured, else nan.
        image: (O,) the record of each object.
        number: (O,) its number there, from 1.
        names: (O,) classes.
        boxes: (O, 4) float64 x1 y1 x2 y2 in pixels, as written.
        difficult: (O,) bool.
    """

    records: Records
    looks: list[Look]
    is_validation: np.ndarray
    frames: np.ndarray
    image: np.ndarray
    number: np.ndarray
    names: np.ndarray
    boxes: np.ndarray
    difficult: np.ndarray

    @property
    def is_finite(self) -> np.ndarray:
        """(O,) bool: all four numbers are numbers."""
        return np.isfinite(self.boxes).all(axis=1)

    @property
    def is_sound(self) -> np.ndarray:
        """(O,) bool: finite, of positive area, and inside of the frame but for rounding."""
        return self.is_finite & is_proper(self.boxes, self.frames[self.image])

    def record(self, index: int) -> Record:
        """One record."""
        return self.records.records[index]

    def file_of(self, index: int, *, picture: bool = False) -> str:
        """The annotation of a record or its picture, from the root where it lies in it.

        One file of COCO's has all annotations, so there it is the picture too.
        """
        record = self.record(index)
        picture = picture or self.records.format == "coco"
        return relative(record.picture if picture else record.annotation, self.records.root)

    def place(self, index: int, says: str = "", *, picture: bool = False) -> Place:
        """A whole file: the annotation of a record, or its picture."""
        return Place(self.file_of(index, picture=picture), says, (), index)

    def places(self, which: np.ndarray, says: str = "") -> list[Place]:
        """The objects of a mask (O,), each with its class and its box, or what is said of it."""
        found = []
        numbers = np.flatnonzero(which)
        files = {int(record): self.file_of(record) for record in np.unique(self.image[numbers])}
        for i in numbers:
            box = ", ".join(f"{value:.6g}" for value in self.boxes[i])
            words = f"{self.names[i]}, box ({box}){f', {says}' if says else ''}"
            record = int(self.image[i])
            found.append(Place(files[record], words, (int(self.number[i]),), record))
        return found


def is_proper(boxes: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Whether boxes (O, 4) have an area, inside of frames (O, 2) H and W but for rounding.

    Args:
        boxes: x1 y1 x2 y2 in pixels.
        frames: of each box; nan is no limit.

    Returns:
        (O,) bool.
    """
    with np.errstate(invalid="ignore"):
        has_area = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return has_area & ~is_outside(boxes, frames) & ~is_gone(boxes, frames)


def is_gone(boxes: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Whether nothing of boxes (O, 4) is left when they are cut at their frames (O, 2) H and W.

    Args:
        boxes, frames: as of `is_proper`.

    Returns:
        (O,) bool; a box without area has nothing to be left.
    """
    with np.errstate(invalid="ignore"):
        limit = np.where(np.isnan(frames), np.inf, frames)[:, ::-1]
        least = np.maximum(boxes[:, :2], 0)
        return (np.minimum(boxes[:, 2:], limit) <= least).any(axis=1)


def is_outside(boxes: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Whether boxes (O, 4) reach out of their frames (O, 2) H and W by more than rounding.

    Args:
        boxes, frames: as of `is_proper`.

    Returns:
        (O,) bool; no box with nan does.
    """
    with np.errstate(invalid="ignore"):
        beyond = np.maximum(boxes[:, 2] - frames[:, 1], boxes[:, 3] - frames[:, 0])
        return (boxes.min(axis=1) < -ROUNDING) | (beyond > ROUNDING)


def relative(path: Path, root: Path) -> str:
    """A path, from the root where it lies in it."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def survey(records: Records, validation: Records | None = None) -> Survey:
    """Read every picture and lay all objects side by side.

    Args:
        records: of the data set.
        validation: records to validate on; then all others are to train on. Default: those whose
            split says so.

    Returns:
        `Survey`.
    """
    both = list(records.records)
    is_validation = [_validates(record.split) for record in both]
    if validation is not None:
        is_validation = [False] * len(both) + [True] * len(validation.records)
        both += validation.records
        faults = [*records.faults, *validation.faults]
        spare = [*records.unlabelled, *validation.unlabelled]
        records = records._replace(records=both, faults=faults, unlabelled=spare)
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        looks = list(pool.map(look_at, [record.picture for record in both]))
    frames = [
        record.size or look.size or (np.nan, np.nan)
        for record, look in zip(both, looks, strict=True)
    ]
    every: list[tuple[int, int, RecordObject]] = [
        (i, number, found)
        for i, record in enumerate(both)
        for number, found in enumerate(record.objects, start=1)
    ]
    return Survey(
        records=records,
        looks=looks,
        is_validation=np.array(is_validation, dtype=bool),
        frames=np.array(frames, dtype=np.float64).reshape(-1, 2),
        image=np.array([i for i, _, _ in every], dtype=np.int64),
        number=np.array([number for _, number, _ in every], dtype=np.int64),
        names=np.array([found.name for _, _, found in every], dtype=object),
        boxes=np.array([found.box for _, _, found in every], dtype=np.float64).reshape(-1, 4),
        difficult=np.array([found.difficult for _, _, found in every], dtype=bool),
    )


def _validates(split: str | None) -> bool:
    return (split or "").lower().startswith(("val", "test", "dev"))


def look_at(path: Path) -> Look:
    """Read a picture as training would, and say what it is.

    Args:
        path: of the picture.

    Returns:
        `Look`; nothing is raised.
    """
    try:
        content = hashlib.blake2b(path.read_bytes()).hexdigest()
    except OSError as error:
        return Look(None, fault=error.strerror or str(error))
    try:
        image = read_image(path)
    except DataError as error:
        fault = str(error).removeprefix(f"{path}: ").partition(";")[0]
        return Look(None, content=content, fault=fault)
    with Image.open(path) as picture:
        orientation = int(picture.getexif().get(ExifTags.Base.Orientation) or 1)
    digest = hashlib.blake2b(repr(tuple(image.shape)).encode())
    digest.update(image.numpy().tobytes())
    height, width = image.shape[1:]
    return Look((height, width), orientation, digest.hexdigest(), content)
