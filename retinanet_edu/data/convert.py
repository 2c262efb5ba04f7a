"""From any of the three formats to any other: VOC XML, COCO JSON, YOLO text."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from retinanet_edu.data.folder import check_record, choose_classes
from retinanet_edu.data.records import FORMATS, RecordObject, Records, read_records
from retinanet_edu.data.records.files import short
from retinanet_edu.data.voc_xml import refuse
from retinanet_edu.errors import DataError

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


class Entry(NamedTuple):
    """A picture on its way.

    Attributes:
        name: of its files in the new folder, without suffix.
        picture: where it lies now.
        size: (H, W).
        objects: checked.
        split: or None.
    """

    name: str
    picture: Path
    size: tuple[float, float]
    objects: list[RecordObject]
    split: str | None

    @property
    def file(self) -> str:
        """Name of the picture in the new folder."""
        return self.name + self.picture.suffix.lower()


def convert(
    source: str | Path | Records,
    destination: str | Path,
    to: str,
    *,
    format: str | None = None,
    link: bool = False,
) -> Records:
    """Write a folder of pictures and labels anew, in another format.

    The new folder appears when it is complete. In VOC's format it is a VOCdevkit of 2007; in
    COCO's it has a file of `annotations` for each split; in YOLO's `images`, `labels` and
    `data.yaml`. COCO's crowd stands for difficult; YOLO has no such mark, and difficult objects
    are left out there, as is the custom.

    Args:
        source: the folder, or what `read_records` gave.
        destination: a folder that is not there yet, or is empty.
        to: "voc", "coco" or "yolo".
        format: of the source; default the one that is there.
        link: link to the pictures instead of copying them.

    Returns:
        the records of the new folder.

    Raises:
        DataError: the source has faults, as `FolderDataset` finds them; the destination has files
            already, or lies in the source; a class's name cannot be written in the format.

    Law:
        The result has the same pictures, classes and splits, and the same boxes up to 1e-4 pixel.
    """
    destination = Path(destination).expanduser().resolve()  # "." has no name
    if to not in FORMATS:
        raise DataError(f"the new format is one of {', '.join(FORMATS)}, not {to!r}")
    records = source if isinstance(source, Records) else read_records(source, format)
    if destination.exists() and not (destination.is_dir() and not any(destination.iterdir())):
        raise DataError(f"{destination}: there is something already; choose a new folder")
    if destination.resolve().is_relative_to(records.root.resolve()):
        raise DataError(
            f"{destination}: lies in {records.root}, which would then have files of two formats; "
            "choose a folder outside of it"
        )
    classes = _writable(choose_classes(records), to)
    entries = _entries(records)
    write = {"voc": _write_voc, "coco": _write_coco, "yolo": _write_yolo}[to]
    part = destination.with_name(f".{destination.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)  # of a conversion that was killed
        part.mkdir(parents=True)
        for entry, path in zip(entries, write(part, entries, classes), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            if link:
                path.symlink_to(entry.picture.resolve())
            else:
                shutil.copyfile(entry.picture, path)
        if destination.exists():  # it stays the same folder: someone may stand in it
            for path in part.iterdir():
                path.rename(destination / path.name)
        else:
            part.rename(destination)
    except OSError as error:
        raise DataError(f"{destination}: could not be written ({error})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return read_records(destination, to)


def _entries(records: Records) -> list[Entry]:
    """Each record checked, with a name that is a plain file's name everywhere, and its own."""
    entries, faults, taken = [], list(records.faults), set()
    for record in records.records:
        checked = check_record(record, records.format)
        faults += checked.faults
        # Nothing of a name leads out of the folder, or means something in a list or in YAML.
        stem = re.sub(r"[^\w.+=,@()-]+", "_", record.image_id).lstrip(".-")[:120] or "picture"
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.casefold())
        entries.append(Entry(name, record.picture, checked.size, checked.objects, record.split))
    refuse(faults)
    return entries


def _writable(classes: Sequence[str], to: str) -> Sequence[str]:
    for name in classes:
        if _CONTROL.search(name) or (name != name.strip() and to == "voc"):
            raise DataError(
                f"class {short(name)}: a name with control characters, or spaces around it, "
                f"cannot be written in the format {to}; rename it"
            )
    return classes


def _digits(value: float) -> str:
    """Up to nine decimals, whole numbers without any."""
    return f"{value:.9f}".rstrip("0").rstrip(".")


def _splits(entries: Sequence[Entry]) -> Iterator[tuple[str | None, list[Entry]]]:
    for split in dict.fromkeys(entry.split for entry in entries):
        yield split, [entry for entry in entries if entry.split == split]


def _write_voc(root: Path, entries: Sequence[Entry], classes: Sequence[str]) -> list[Path]:
    home = root / "VOCdevkit" / "VOC2007"
    annotations, lists = home / "Annotations", home / "ImageSets" / "Main"
    annotations.mkdir(parents=True)
    # VOC itself has no list of classes; without one their order, and those without objects, go.
    _write(root / "classes.txt", "".join(f"{name}\n" for name in classes))
    for entry in entries:
        _write(annotations / f"{entry.name}.xml", _voc_xml(entry))
    names = {split: [e.name for e in members] for split, members in _splits(entries)}
    if names.keys() & {"train", "val"}:
        names["trainval"] = [*names.get("train", []), *names.get("val", [])]
    for split, listed in names.items():
        if split is not None:
            lists.mkdir(parents=True, exist_ok=True)
            _write(lists / f"{split}.txt", "".join(f"{name}\n" for name in listed))
    return [home / "JPEGImages" / entry.file for entry in entries]


def _voc_xml(entry: Entry) -> str:
    """VOC counts pixels from 1 and includes the last."""
    height, width = entry.size
    objects = "".join(
        f"  <object>\n    <name>{escape(o.name)}</name>\n"
        f"    <difficult>{int(o.difficult)}</difficult>\n"
        f"    <bndbox><xmin>{_digits(o.box[0] + 1)}</xmin><ymin>{_digits(o.box[1] + 1)}</ymin>"
        f"<xmax>{_digits(o.box[2])}</xmax><ymax>{_digits(o.box[3])}</ymax></bndbox>\n"
        "  </object>\n"
        for o in entry.objects
    )
    return (
        f"<annotation>\n  <folder>VOC2007</folder>\n  <filename>{escape(entry.file)}</filename>\n"
        f"  <size><width>{width:g}</width><height>{height:g}</height><depth>3</depth></size>\n"
        f"  <segmented>0</segmented>\n{objects}</annotation>\n"
    )


def _write_coco(root: Path, entries: Sequence[Entry], classes: Sequence[str]) -> list[Path]:
    ids = {name: i for i, name in enumerate(classes, start=1)}  # COCO's own begin with 1
    categories = [{"id": i, "name": name, "supercategory": ""} for name, i in ids.items()]
    (root / "annotations").mkdir()
    first = 1
    for split, members in _splits(entries):
        images: list[dict] = []
        annotations: list[dict] = []
        for number, entry in enumerate(members, start=1):
            height, width = map(int, entry.size)
            images.append({"id": number, "file_name": entry.file, "width": width, "height": height})
            for o in entry.objects:
                x1, y1, x2, y2 = o.box
                annotations.append(
                    {
                        "id": first + len(annotations),
                        "image_id": number,
                        "category_id": ids[o.name],
                        "bbox": [round(value, 9) for value in (x1, y1, x2 - x1, y2 - y1)],
                        "area": round((x2 - x1) * (y2 - y1), 6),
                        "iscrowd": int(o.difficult),
                        "segmentation": [],
                    }
                )
        first += len(annotations)
        content = {"images": images, "annotations": annotations, "categories": categories}
        text = json.dumps(content, ensure_ascii=False)
        _write(root / "annotations" / f"instances_{split or 'all'}.json", text + "\n")
    return [root / "images" / entry.file for entry in entries]


def _write_yolo(root: Path, entries: Sequence[Entry], classes: Sequence[str]) -> list[Path]:
    number = {name: i for i, name in enumerate(classes)}
    pictures = []
    for entry in entries:
        height, width = entry.size
        lines = []
        for o in entry.objects:
            x1, y1, x2, y2 = o.box
            centre, sides = ((x1 + x2) / 2, (y1 + y2) / 2), (x2 - x1, y2 - y1)
            shares = [a / b for a, b in zip((*centre, *sides), (width, height) * 2, strict=True)]
            if not o.difficult:
                lines.append(" ".join([str(number[o.name]), *map(_digits, shares)]) + "\n")
        place = Path(entry.split or "")
        (root / "labels" / place).mkdir(parents=True, exist_ok=True)
        _write(root / "labels" / place / f"{entry.name}.txt", "".join(lines))
        pictures.append(root / "images" / place / entry.file)
    settings = [f"{split}: images/{split}\n" for split, _ in _splits(entries) if split is not None]
    # A text in JSON is a text in YAML.
    settings += ["names:\n"]
    settings += [f"  {i}: {json.dumps(name, ensure_ascii=False)}\n" for name, i in number.items()]
    _write(root / "data.yaml", "path: .\n" + "".join(settings))
    return pictures


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
