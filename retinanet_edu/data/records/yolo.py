"""YOLO's text labels: images and labels side by side or in folders of these names."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

from retinanet_edu.data.images import image_size
from retinanet_edu.data.records.files import (
    Files,
    name_images,
    read_names,
    read_text,
    short,
    split_of,
)
from retinanet_edu.data.records.plain_yaml import read_plain_yaml
from retinanet_edu.data.records.record import Record, RecordObject, Records
from retinanet_edu.errors import DataError

NAME_LISTS = ("classes.txt", "obj.names", "_darknet.labels")
_NOT_LABELS = {"train.txt", "val.txt", "valid.txt", "test.txt", "requirements.txt"}
_FAULTS_OF_A_FILE = 10
_MOST_FOLDERS = 100  # of a split; more are a slip
_MOST_SETTINGS = 2**20  # characters


def find_labels(files: Files) -> list[Path]:
    """The text files that may be labels: in a folder `labels`, or with the name of a picture.

    Args:
        files: of the folder.

    Returns:
        the paths.
    """
    stems = {path.stem for path in files.pictures}
    return [
        path
        for path in files.with_suffix(".txt")
        if path.name not in (*NAME_LISTS, *_NOT_LABELS)
        and (path.stem in stems or "labels" in path.relative_to(files.root).parts)
    ]


def read_yolo(files: Files) -> Records:
    """All pictures, each with the boxes of its file of labels.

    A line is the number of a class and the box's centre, width and height as shares of the
    picture; or a number and the corners of an outline, of which the box is taken. A picture
    without a file shows no object, as is the custom. Names of classes are in `data.yaml`,
    `classes.txt` or `obj.names`; without any they are the numbers.

    Args:
        files: of the folder.

    Returns:
        the records. Their boxes are in pixels of the picture as `read_image` gives it.
    """
    faults: list[str] = []
    settings = _read_settings(files, faults)
    names = _names(files, settings, faults)
    splits = _splits(files, settings)
    customary = {picture: _label_path(picture, files) for picture in files.pictures}
    elsewhere: dict[str, list[Path]] = {}
    labels = find_labels(files)
    for path in set(labels) - set(customary.values()):
        elsewhere.setdefault(path.stem, []).append(path)
    records: list[Record] = []
    used: dict[Path, Path] = {}
    for picture, found in customary.items():
        objects: list[RecordObject] = []
        wrong: list[str] = []
        try:
            found = found or files.nearest(elsewhere.get(picture.stem, []), picture)
            if found in used:
                raise ValueError(f"{found} is for {used[found]} too; remove one")
        except ValueError as error:
            wrong = [f"{picture}: which file of labels is its own? {error}"]
        if found and not wrong:
            used[found] = picture
            objects, wrong = _read_objects(found, picture, names)
        split = splits.get(picture) or split_of(picture, files.root)
        path = found or picture.with_suffix(".txt")
        records.append(Record(picture.stem, picture, path, None, objects, wrong, split))
    lost = [path for path in labels if path not in used]
    faults += [f"{path}: no picture for it; add it or remove this" for path in lost]
    if names is None:
        numbers = {o.name for record in records for o in record.objects}
        names = tuple(sorted(numbers, key=int))
    return Records(files.root, "yolo", names, name_images(records, files.root), faults, [])


def _label_path(picture: Path, files: Files) -> Path | None:
    """A picture's labels in their customary place: a folder `labels` for `images`, or beside it."""
    beside = picture.with_suffix(".txt")
    parts = list(beside.relative_to(files.root).parts)
    places = [beside, beside.parent / "labels" / beside.name]
    if "images" in parts[:-1]:  # the last folder of that name
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
        places.insert(0, files.root.joinpath(*parts))
    return next((path for path in places if path in files), None)


def _read_objects(
    path: Path, picture: Path, names: tuple[str, ...] | None
) -> tuple[list[RecordObject], list[str]]:
    objects: list[RecordObject] = []
    faults: list[str] = []
    try:
        lines = read_text(path).splitlines()
        height, width = image_size(picture) if any(map(str.split, lines)) else (0, 0)
    except DataError as error:
        return [], [str(error)]
    except ValueError as error:
        return [], [f"{path}: {error}"]
    for i, line in enumerate(lines, start=1):
        if line.strip():
            try:
                objects.append(_object(line.split(), names, height, width))
            except ValueError as error:
                faults.append(f"{path}: line {i}: {error}")
    if len(faults) > _FAULTS_OF_A_FILE:
        more = len(faults) - _FAULTS_OF_A_FILE
        faults = [*faults[:_FAULTS_OF_A_FILE], f"{path}: {more} more such lines"]
    return objects, faults


def _object(
    words: list[str], names: tuple[str, ...] | None, height: int, width: int
) -> RecordObject:
    try:
        label, *numbers = map(float, words)
    except ValueError:
        raise ValueError(f"not numbers ({short(' '.join(words))}); correct or remove it") from None
    if len(words) != 5 and (len(words) < 7 or len(words) % 2 == 0):
        raise ValueError(
            f"{len(words)} numbers; a class and a box are 5, and a sixth, a score, is of "
            "predictions; correct or remove it"
        )
    if not (math.isfinite(label) and label == int(label) and 0 <= label < 10**6):
        raise ValueError(f"the class is {short(words[0])}, not a number from 0 on; correct it")
    if names is not None and label >= len(names):
        raise ValueError(
            f"class {int(label)}, but there are the names of {len(names)}, counted from 0; add "
            "its name or correct it"
        )
    name = str(int(label)) if names is None else names[int(label)]
    if len(numbers) == 4:
        x, y, w, h = numbers
        x1, y1, x2, y2 = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    else:
        xs, ys = numbers[::2], numbers[1::2]
        x1, y1, x2, y2 = min(xs), min(ys), max(xs), max(ys)
    return RecordObject(name, (x1 * width, y1 * height, x2 * width, y2 * height))


def find_settings(files: Files) -> list[Path]:
    """The YAML files with names of classes; `data.yaml` alone, where there is one."""
    found = []
    for path in files.with_suffix(".yaml", ".yml"):
        with suppress(ValueError):
            if any(line.startswith("names") for line in read_text(path).splitlines()):
                found.append(path)
    return [path for path in found if path.stem == "data"] or found


def _read_settings(files: Files, faults: list[str]) -> dict:
    paths = find_settings(files)
    if len(paths) > 1:
        faults.append(f"{paths[0]}: {paths[1]} has names too; keep one")
    for path in paths[:1]:
        try:
            text = read_text(path)
            if len(text) > _MOST_SETTINGS:
                raise ValueError("larger than 1 MB; are these really settings?")
            return read_plain_yaml(text) | {"": path}
        except ValueError as error:
            faults.append(f"{path}: {error}")
    return {}


def _names(files: Files, settings: dict, faults: list[str]) -> tuple[str, ...] | None:
    """Names of the classes by number; None where there is no list."""
    path, names = settings.get(""), settings.get("names")
    if isinstance(names, dict):
        wanted = [str(i) for i in range(len(names))]
        if set(names) != set(wanted):
            faults.append(f"{path}: the names are not numbered 0…{len(names) - 1}; correct them")
            return None
        names = [names[i] for i in wanted]
    if not isinstance(names, list):
        return read_names([p for p in files.paths if p.name in NAME_LISTS], faults)
    if not names or not all(names) or len(set(names)) < len(names):
        faults.append(f"{path}: the names must be different texts, at least one; correct them")
        return None
    return tuple(names)


def _splits(files: Files, settings: dict) -> dict[Path, str]:
    """The split of each picture that the settings or a list name; of one that two name, none."""
    found: dict[Path, set[str]] = {}
    for split in ("train", "val", "test"):
        entries = settings.get(split, "")
        entries = entries if isinstance(entries, list) else [entries]
        for entry in entries[:_MOST_FOLDERS]:
            for picture in _below(entry, files) if isinstance(entry, str) else ():
                found.setdefault(picture, set()).add(split)
        for path in (p for p in files.paths if p.name == f"{split}.txt"):
            with suppress(ValueError):
                for line in filter(str.strip, read_text(path).splitlines()):
                    # Lists are of the machine that wrote them: the end of a path counts.
                    name = "/".join(_steps(line)[-3:])
                    with suppress(ValueError):
                        found.setdefault(files.named(name, path), set()).add(split)
    return {picture: min(splits) for picture, splits in found.items() if len(splits) == 1}


def _below(entry: str, files: Files) -> list[Path]:
    """The pictures in a folder that the settings name, of which the end of the path counts."""
    steps = _steps(entry)
    for start in range(len(steps)):
        folder = files.root.joinpath(*steps[start:])
        inside = [picture for picture in files.pictures if folder in picture.parents]
        if inside:
            return inside
    return []


def _steps(path: str) -> list[str]:
    return [s for s in path.strip().replace("\\", "/").split("/") if s not in ("", ".", "..")][-9:]
