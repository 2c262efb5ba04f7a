"""One's own pictures: a folder in VOC's XML, COCO's JSON or YOLO's text as a dataset.

From a folder to numbers and pictures::

    from retinanet_edu import FolderDataset, evaluate, predict, retinanet_resnet50, train
    from retinanet_edu.plotting import plot_gallery

    learn, judge = FolderDataset("my-data", "train"), FolderDataset("my-data", "val")
    model = retinanet_resnet50(len(learn.classes), backbone_weights="imagenet", image_size=512)
    train(model, learn, judge, output="runs/mine", epochs=20)
    print(evaluate(model, judge).table())
    pictures, truths = zip(*(judge[i] for i in range(min(len(judge), 9))))
    found = predict(model, list(pictures))
    plot_gallery(pictures, truths, found, model.classes).savefig("runs/mine/gallery.png")
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from retinanet_edu.data.images import image_size
from retinanet_edu.data.pictures import PictureDataset
from retinanet_edu.data.records import Record, RecordObject, Records, read_records
from retinanet_edu.data.records.files import one_line, short
from retinanet_edu.data.splitting import split_records
from retinanet_edu.data.voc import did_you_mean
from retinanet_edu.data.voc_xml import refuse
from retinanet_edu.errors import DataError

# What a box outside of its picture most often is.
_GUESS = {
    "voc": "was the picture scaled or turned after it was annotated?",
    "coco": "are these x1 y1 x2 y2, where COCO has x y width height?",
    "yolo": "are these pixels, where YOLO has shares of the picture's sides?",
}


class FolderDataset(PictureDataset):
    """Pictures and boxes of a folder, whatever its format and layout.

    Annotations are read and checked at once, and the sizes of pictures with them; pictures are
    read when they are asked for. A folder that does not say which pictures are to be judged by is
    parted, see `split_records`.

    Args:
        source: the folder, see `read_records`, or what was read from it.
        split: "train", "val" or "test"; default all pictures.
        format: "voc", "coco" or "yolo"; default the one that is there.
        classes: names in the order of their labels; objects of others are left out. Default: the
            folder's own list, else the names that occur, sorted.
        keep_empty: keep images that have no object of these classes; they train as background.
        val_share: of the pictures, where the folder has no "val" of its own.
        seed: of that parting.

    Attributes:
        classes: K names, label k is `classes[k]`; the same for each split.
        image_ids: one an image.
        records: what was read, with the split of each picture.

    Raises:
        DataError: something is missing or wrong; the message names the file, the object and what
            to do. Up to ten faults are listed at once.

    Law:
        Boxes are those of `read_records`; what reaches up to one pixel over the edge is clipped.
    """

    def __init__(
        self,
        source: str | Path | Records,
        split: str | None = None,
        *,
        format: str | None = None,
        classes: Sequence[str] | None = None,
        keep_empty: bool = True,
        val_share: float = 0.2,
        seed: int = 0,
    ) -> None:
        records = source if isinstance(source, Records) else read_records(source, format)
        if split in ("train", "val"):
            records = split_records(records, val_share, seed)
        self.records = records
        members = [r for r in records.records if split is None or r.split == split]
        if not members:
            there = sorted({r.split or "none" for r in records.records})
            raise DataError(
                f"{records.root}: no picture is of the split {split!r}; there are: "
                f"{', '.join(there) or 'none'}"
            )
        checked = [check_record(record, records.format) for record in members]
        refuse([*records.faults, *(fault for one in checked for fault in one.faults)])
        names = choose_classes(records, classes)
        wanted = set(names)
        objects = [[o for o in one.objects if o.name in wanted] for one in checked]
        kept = [i for i, found in enumerate(objects) if found or keep_empty]
        super().__init__(
            names,
            [members[i].image_id for i in kept],
            [members[i].picture for i in kept],
            [checked[i].size for i in kept],
            [objects[i] for i in kept],
        )


class Checked(NamedTuple):
    """What of a record can be used.

    Attributes:
        objects: those without fault, clipped to the picture.
        size: (H, W) of the picture, as `read_image` gives it.
        faults: a line for each thing that is wrong.
    """

    objects: list[RecordObject]
    size: tuple[float, float]
    faults: list[str]


def check_record(record: Record, format: str) -> Checked:
    """The objects of a record, and what is wrong with it.

    Args:
        record: of one picture.
        format: "voc", "coco" or "yolo".

    Returns:
        `Checked`. A box must be finite, not empty, and within the picture up to one pixel; the
        picture must be there, and as large as its annotation says.
    """
    if record.faults:
        return Checked([], (math.inf, math.inf), record.faults)
    try:
        height, width = image_size(record.picture)
    except DataError as error:
        return Checked([], (math.inf, math.inf), [str(error)])
    says = record.size or (height, width)
    # One pixel is rounding. More is another picture, and then the boxes lie elsewhere too.
    if abs(says[0] - height) > 1 or abs(says[1] - width) > 1:
        fault = (
            f"{record.picture}: the picture is {width} × {height} pixels, but {record.annotation} "
            f"says {says[1]:g} × {says[0]:g}; was it scaled or turned afterwards?"
        )
        return Checked([], (height, width), [fault])
    objects, faults = [], []
    for i, o in enumerate(record.objects, start=1):
        try:
            objects.append(o._replace(box=_check_box(o.box, height, width, format)))
        except ValueError as error:
            where = f"object {i} ({one_line(o.name)}) of {record.picture.name}"
            faults.append(f"{record.annotation}: {where}: {error}")
    return Checked(objects, (height, width), faults)


def _check_box(
    box: tuple[float, float, float, float], height: int, width: int, format: str
) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box
    says = "its box, x1 y1 x2 y2 = " + " ".join(f"{value:g}" for value in box) + " pixels,"
    if not all(map(math.isfinite, box)):
        raise ValueError(f"{says} is not four finite numbers; correct or remove it")
    if min(x1, y1) < -1 or x2 > width + 1 or y2 > height + 1:
        raise ValueError(
            f"{says} reaches outside of the picture of {width} × {height}; {_GUESS[format]}"
        )
    clipped = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if x2 <= x1 or y2 <= y1 or clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        raise ValueError(f"{says} is inverted or empty; correct or remove it")
    return clipped


def choose_classes(records: Records, chosen: Sequence[str] | None = None) -> tuple[str, ...]:
    """The names of the classes, in the order of their labels.

    Args:
        records: of a folder, all of its splits.
        chosen: names that count; default all.

    Returns:
        K names, at least one.

    Raises:
        DataError: there is no object, one is of a class that is not in the folder's list, two
            names are spellings of one, or one that is chosen is nowhere while others are.
    """
    counts = Counter(o.name for record in records.records for o in record.objects)
    known = set(records.classes or ()) | set(counts)
    if chosen is not None:
        if not chosen or len(set(chosen)) < len(chosen):
            raise DataError(f"classes must be different names, at least one, got {list(chosen)}")
        others = sorted(known - set(chosen))
        for name in chosen:
            if name not in known and others:
                raise DataError(
                    f"{records.root}: no object is of class {name!r}{did_you_mean(name, others)}; "
                    f"there are also: {', '.join(map(one_line, others[:30]))}"
                )
        return tuple(chosen)
    spellings: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(counts):
        spellings[re.sub(r"[\s_-]+", "", name).casefold()].append(name)
    refuse(
        [
            f"{records.root}: one class in several spellings, with so many objects: "
            + ", ".join(f"{short(name)} ({counts[name]})" for name in names)
            + "; write it in one way, or name all classes that count"
            for names in spellings.values()
            if len(names) > 1
        ]
    )
    if not counts:
        raise DataError(f"{records.root}: no picture has an object; label some first")
    classes = records.classes or tuple(sorted(counts))
    refuse(
        [
            f"{records.root}: class {short(name)} is not in the list of classes"
            f"{did_you_mean(name, classes)}, but of objects ({counts[name]}); add or correct it"
            for name in sorted(counts.keys() - set(classes))
        ]
    )
    return classes
