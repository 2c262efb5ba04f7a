"""COCO JSON: one file or several, with pictures anywhere in the folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from retinanet_edu.data.records.files import Files, name_images, short, split_of, split_of_name
from retinanet_edu.data.records.record import Record, RecordObject, Records

MOST_BYTES = 512 * 2**20  # the largest of COCO's own has 450 MB
_KEYS = ("images", "annotations", "categories")


def find_coco(files: Files) -> list[Path]:
    """The JSON files that hold objects, by a look for COCO's three keys.

    Args:
        files: of the folder.

    Returns:
        the paths; of a folder with COCO's own names only those that begin with "instances".
    """
    found = []
    for path in files.with_suffix(".json"):
        with suppress(OSError):
            text = path.read_bytes() if path.stat().st_size <= MOST_BYTES else b""
            if all(f'"{key}"'.encode() in text for key in _KEYS):
                found.append(path)
    return [path for path in found if path.name.startswith("instances")] or found


def read_coco(files: Files, paths: list[Path]) -> Records:
    """The pictures and boxes of COCO's JSON.

    A box is x y width height, 0-based and continuous. A crowd counts as difficult. The split is
    told by a folder around the file, else by a word in its name.

    Args:
        files: of the folder.
        paths: of the JSON files.

    Returns:
        the records; `classes` in the order of the category's ids.
    """
    splits = {p: split_of(p, files.root) or split_of_name(p.stem) for p in paths}
    if {"train", "val"} & set(splits.values()):  # the same pictures once more
        paths = [path for path in paths if splits[path] != "trainval"]
    names: dict[int | str, str] = {}
    records: dict[Path, Record] = {}
    faults: list[str] = []
    for path in paths:
        split = splits[path] if splits[path] != "trainval" else None
        try:
            content = _load(path)
            faults += [f"{path}: {fault}" for fault in _read_categories(content, names)]
            found, lost = _read_images(content, path, files, names, split)
        except ValueError as error:
            faults.append(f"{path}: {error}")
            continue
        faults += lost
        for record in found:
            if record.picture in records:
                other = records[record.picture].annotation
                faults.append(f"{path}: {record.picture} is told of twice, also in {other}")
            else:
                records[record.picture] = record
    classes = [names[i] for i in sorted(names, key=lambda i: (isinstance(i, str), i))]
    unlabelled = [picture for picture in files.pictures if picture not in records]
    return Records(
        files.root,
        "coco",
        tuple(classes),
        name_images(records.values(), files.root),
        faults,
        unlabelled,
    )


def _load(path: Path) -> dict[str, list]:
    """The three lists of a file; outlines of objects are dropped as it is read."""

    def without_outline(value: dict) -> dict:
        value.pop("segmentation", None)
        return value

    try:
        content = json.loads(path.read_bytes(), object_hook=without_outline)
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        why = str(error) or type(error).__name__
        raise ValueError(f"not well-formed JSON ({why}); mend or remove it") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in _KEYS):
        raise ValueError(
            "not COCO's JSON, which is an object with the lists images, annotations and categories"
        )
    return content


def _read_categories(content: dict[str, list], names: dict[int | str, str]) -> Iterator[str]:
    """Add a file's categories to `names`; a line for each that cannot be read."""
    # Some tools write the project itself as a category that is above all others and has no object.
    above = {c.get("supercategory") for c in content["categories"] if isinstance(c, dict)}
    used = {short(a.get("category_id")) for a in content["annotations"] if isinstance(a, dict)}
    ids = {name: key for key, name in names.items()}
    for i, category in enumerate(content["categories"]):
        try:
            key, name = _id(category, "id"), _get(category, "name")
        except ValueError as error:
            yield f"category {i}: {error}"
            continue
        if not isinstance(name, str) or not name.strip():
            yield f"category {short(key)}: its name is {short(name)}; write a text"
        elif name in above and short(key) not in used and category.get("supercategory") != name:
            continue
        elif names.setdefault(key, name) != name:
            yield (
                f"category {short(key)} is {short(name)}, and elsewhere {short(names[key])}; give "
                "each class one id in all files"
            )
        elif ids.setdefault(name, key) != key:
            yield f"category {short(key)}: {short(name)} has another id too; give it one"


def _read_images(
    content: dict[str, list],
    path: Path,
    files: Files,
    names: dict[int | str, str],
    split: str | None,
) -> tuple[list[Record], list[str]]:
    """The images of a file with their objects, and a line for what is of none of them."""
    records: dict[int | str, Record] = {}
    faults: list[str] = []
    refused: set[int | str | None] = set()  # nothing is wrong with their annotations
    for i, image in enumerate(content["images"]):
        key = None
        try:
            key = _id(image, "id")
            name = _get(image, "file_name")
            if not isinstance(name, str):
                raise ValueError(f"its file_name is {short(name)}; write a text")
            if key in records:
                raise ValueError(f"another image has the id {short(key)}; give each its own")
            picture = files.named(name, path, split)
        except ValueError as error:
            faults.append(f"{path}: image {i}: {error}")
            refused.add(key)
            continue
        lacking = [] if picture.is_file() else [f"{path}: {picture}: no such picture; add it"]
        records[key] = Record(name, picture, path, _size(image), [], lacking, split)
    for i, annotation in enumerate(content["annotations"]):
        try:
            key = _id(annotation, "image_id")
            record = records.get(key)
            if record is None and key in refused:
                continue
            if record is None:
                raise ValueError(f"no image has the id {short(key)}; remove it")
        except ValueError as error:
            faults.append(f"{path}: annotation {i}: {error}")
            continue
        try:
            record.objects.append(_object(annotation, names))
        except ValueError as error:
            record.faults.append(f"{path}: annotation {i} ({record.picture.name}): {error}")
    return list(records.values()), faults


def _object(annotation: dict, names: dict[int | str, str]) -> RecordObject:
    category = _id(annotation, "category_id")
    if category not in names:
        raise ValueError(f"no category has the id {short(category)}; add it or remove the object")
    box = _get(annotation, "bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"its bbox is {short(box)}, not four numbers x y width height")
    x, y, width, height = map(_number, box)
    crowd = annotation.get("iscrowd", 0) in (1, True)
    return RecordObject(names[category], (x, y, x + width, y + height), crowd)


def _size(image: dict) -> tuple[float, float] | None:
    with suppress(ValueError):
        height, width = _number(image.get("height")), _number(image.get("width"))
        if 0 < height < float("inf") and 0 < width < float("inf"):
            return height, width
    return None


def _number(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with suppress(OverflowError):  # an integer of hundreds of digits
            return float(value)
    raise ValueError(f"{short(value)} is not a number of pixels; correct or remove it")


def _get(entry: Any, key: str) -> Any:
    if not isinstance(entry, dict):
        raise ValueError(f"it is {short(entry)}, not an object with names; correct or remove it")
    if key not in entry:
        raise ValueError(f"it has no {key}; add it or remove the entry")
    return entry[key]


def _id(entry: Any, key: str) -> int | str:
    value = _get(entry, key)
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        return value
    raise ValueError(f"its {key} is {short(value)}, not a whole number; correct it")
