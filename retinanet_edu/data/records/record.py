"""What all formats become: a record for each picture, with its boxes as they were written."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class RecordObject(NamedTuple):
    """One object, not checked: its box may be inverted, outside of the picture, or not a number.

    Attributes:
        name: its class.
        box: x1 y1 x2 y2 in pixels, continuous: width = x2 − x1.
        difficult: marked as such, or as a crowd.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool = False


class Record(NamedTuple):
    """One picture and what is said of it.

    Attributes:
        image_id: the picture's name without its suffix; its path, where names repeat.
        picture: where it lies, or should.
        annotation: the file that says what is on it.
        size: (H, W) as the annotation says, None where it says nothing.
        objects: in the order of the file.
        faults: a line for each thing that could not be read at all, with the file's name.
        split: "train", "val" or "test", where the folder says so.
    """

    image_id: str
    picture: Path
    annotation: Path
    size: tuple[float, float] | None
    objects: list[RecordObject]
    faults: list[str]
    split: str | None


class Records(NamedTuple):
    """All that a folder says.

    Attributes:
        root: the folder.
        format: "voc", "coco" or "yolo".
        classes: in the order of the folder's own list; None where it has none.
        records: one a picture, in the order of their paths.
        faults: a line for each thing that could not be read and is of no one picture.
        unlabelled: pictures of which nothing is said, not even that they show no object.
    """

    root: Path
    format: str
    classes: tuple[str, ...] | None
    records: list[Record]
    faults: list[str]
    unlabelled: list[Path]
