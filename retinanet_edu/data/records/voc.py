"""VOC XML: a VOCdevkit, one year of it, or any folder of pictures and XML files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import parse

from retinanet_edu.data.records.files import (
    MOST_BYTES,
    Files,
    name_images,
    one_line,
    read_names,
    read_text,
    short,
    split_of,
)
from retinanet_edu.data.records.record import Record, RecordObject, Records
from retinanet_edu.data.voc_xml import annotated_size, text_of, texts_of_object


def read_voc(files: Files) -> Records:
    """All annotations in VOC's XML, each with the picture of its name.

    A picture's split is told by the lists in `ImageSets/Main` beside the annotation's folder, else
    by a folder such as "train" around it. A `classes.txt` gives the classes an order.

    Args:
        files: of the folder.

    Returns:
        the records; `classes` is None without that list.
    """
    annotations = files.with_suffix(".xml")
    listed = {path.parent: _read_lists(path.parent, files) for path in annotations}
    records, faults = [], []
    for path in annotations:
        split, _ = listed[path.parent].pop(path.stem, (None, None))
        records.append(_read_one(path, files, split or split_of(path, files.root)))
    for folder, lost in listed.items():
        if folder.name == "Annotations":
            faults += [
                f"{path}: {short(name)} has no annotation in {folder}; add it or take it off"
                for name, (_, path) in lost.items()
            ]
    used: dict[Path, Path] = {}
    for record in records:
        other = used.setdefault(record.picture, record.annotation)
        if other != record.annotation:
            faults.append(f"{record.annotation}: {other} is for the same picture; remove one")
    names = read_names([path for path in files.paths if path.name == "classes.txt"], faults)
    unlabelled = [picture for picture in files.pictures if picture not in used]
    records = name_images(records, files.root)
    return Records(files.root, "voc", names, records, faults, unlabelled)


def _read_lists(folder: Path, files: Files) -> dict[str, tuple[str | None, Path | None]]:
    """The split of each image that the lists beside a folder of annotations name, and the list."""
    splits: dict[str, tuple[str | None, Path | None]] = {}
    for split in ("test", "val", "train"):
        path = folder.parent / "ImageSets" / "Main" / f"{split}.txt"
        if path in files:
            with suppress(ValueError):
                for line in read_text(path).splitlines():
                    if name := line.strip():
                        splits[name] = split, path
    return splits


def _read_one(path: Path, files: Files, split: str | None) -> Record:
    picture = path.with_suffix(".jpg")
    faults: list[str] = []
    objects: list[RecordObject] = []
    size = None
    try:
        root = _parse(path)
        picture = _find_picture(root, path, files)
        size = annotated_size(root)
        if not picture.is_file():
            faults.append(f"{path}: no picture for it, such as {picture}; add it or remove this")
        for i, element in enumerate(root.findall("object"), start=1):
            try:
                objects.append(_object(element))
            except ValueError as error:
                name = one_line(text_of(element, "name") or "unnamed")
                faults.append(f"{path}: object {i} ({name}): {error}")
    except ValueError as error:
        faults.append(f"{path}: {error}")
    return Record(path.stem, picture, path, size, objects, faults, split)


def _parse(path: Path) -> Element:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError("larger than 64 MB")
        root = parse(str(path)).getroot()
    except (ParseError, OSError, ValueError, LookupError) as error:  # ValueError: also entities
        raise ValueError(f"not plain, well-formed XML ({error}); mend or remove it") from error
    if root is None or root.tag != "annotation":
        raise ValueError("not a VOC annotation, its root is not <annotation>; remove it")
    return root


def _find_picture(root: Element, path: Path, files: Files) -> Path:
    """The picture beside or near, by the annotation's own name, else by its <filename>."""
    found = files.with_stem(path.stem, path)
    if found is None and (name := text_of(root, "filename")):
        found = files.named(name, path)
    return found or path.with_suffix(".jpg")


def _object(element: Element) -> RecordObject:
    name, texts, is_difficult = texts_of_object(element)
    try:
        xmin, ymin, xmax, ymax = (float(text) for text in texts.values())
    except ValueError:
        says = ", ".join(f"{key} {one_line(text[:20]) or 'missing'}" for key, text in texts.items())
        raise ValueError(f"its box is not four numbers ({says}); correct or remove it") from None
    return RecordObject(name, (xmin - 1, ymin - 1, xmax, ymax), is_difficult)
