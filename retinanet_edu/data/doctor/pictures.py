"""Pictures: missing, broken, twice, or not the ones that were annotated."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from retinanet_edu.data.doctor.findings import Finding, Place
from retinanet_edu.data.doctor.survey import ROUNDING, Look, Survey, relative

_MANY_EMPTY = 0.5  # of the images
# Lines of `read_records` that have a finding of their own here.
_NO_PICTURE = re.compile(r"no (such )?picture")
_NO_CLASS = re.compile(r"no category has the id|class \d+, but there are")


def check_files(survey: Survey) -> Iterator[Finding]:
    """Annotations and pictures that cannot be read.

    Args:
        survey: of the data set.

    Returns:
        findings "unreadable", "unknown-class", "missing", "broken" and "unlabelled".
    """
    records = survey.records
    faults = [_place_of(fault, survey) for fault in records.faults]
    for i, record in enumerate(records.records):
        for fault in record.faults:
            # What is wrong with the picture itself is told below.
            is_told = survey.looks[i].size is None and (
                fault.startswith(f"{record.picture}:") or _NO_PICTURE.search(fault)
            )
            if not is_told:
                faults.append(_place_of(fault, survey, i))
    strangers = [place for place in faults if _NO_CLASS.search(place.says)]
    faults = [place for place in faults if not _NO_CLASS.search(place.says)]
    if faults:
        yield Finding(
            "error", "unreadable",
            f"{_count(faults, 'thing')} in the annotations cannot be read at all",
            "correct or remove each; training would stop there.",
            len(faults), faults, harm=0.9,
        )  # fmt: skip
    if strangers:
        yield Finding(
            "error", "unknown-class",
            f"{_count(strangers, 'label')} of a class that the list of classes does not have",
            "add the class to the list, or correct the label; classes are counted from 0.",
            len(strangers), strangers, harm=0.9,
        )  # fmt: skip
    missing: list[Place] = []
    broken: list[Place] = []
    for i, look in enumerate(survey.looks):
        record = survey.record(i)
        if look.size is not None:
            continue
        if record.picture.is_file():
            broken.append(survey.place(i, look.fault, picture=True))
        elif not record.faults or any(map(_NO_PICTURE.search, record.faults)):
            said = f"named by {relative(record.annotation, records.root)}"
            missing.append(survey.place(i, said, picture=True))
    if missing:
        yield Finding(
            "error", "missing",
            f"{_count(missing, 'picture')} cannot be found",
            "add them, or remove their annotations; look at the suffix and the case of the name.",
            len(missing), missing, harm=0.8,
        )  # fmt: skip
    if broken:
        yield Finding(
            "error", "broken",
            f"{_count(broken, 'picture')} cannot be read: empty, cut short, or no picture at all",
            "copy them again from where they came from, or remove them.",
            len(broken), broken, harm=0.8,
        )  # fmt: skip
    spare = records.unlabelled
    if spare:
        yield Finding(
            "note", "unlabelled",
            f"of {_count(spare, 'picture')} in the folder nothing is said",
            "nothing, if they are not meant; else annotate them, with an empty annotation where "
            "nothing is on them.",
            len(spare), [Place(relative(path, records.root)) for path in spare],
        )  # fmt: skip


def _place_of(fault: str, survey: Survey, record: int = -1) -> Place:
    """A line "file: what is wrong with it" as a place."""
    file, _, says = fault.removeprefix(f"{survey.records.root}{os.sep}").partition(": ")
    return Place(file, says, (), record)


def check_sizes(survey: Survey) -> Iterator[Finding]:
    """Pictures that were turned or scaled after they were annotated.

    Args:
        survey: of the data set.

    Returns:
        findings "turned", "size" and "orientation".
    """
    turned, scaled, tagged = [], [], []
    for i, look in enumerate(survey.looks):
        size = survey.record(i).size
        if look.size is None:
            continue
        if size is None or _agree(size, look.size):
            # Half a turn and mirror images leave the sides as they are. Where the annotation
            # gives no size, or a square one, nothing tells.
            swaps = look.orientation >= 5
            if look.orientation > 1 and (not swaps or size is None or size[0] == size[1]):
                tagged.append(survey.place(i, f"orientation {look.orientation}", picture=True))
        elif look.orientation >= 5 and _agree(size, look.size[::-1]):
            turned.append(survey.place(i, _sizes(size, look)))
        else:
            scaled.append(survey.place(i, _sizes(size, look)))
    if turned:
        yield Finding(
            "error", "turned",
            f"the boxes of {_count(turned, 'picture')} belong to it as the camera stored it; "
            "its EXIF orientation tag turns it, and the boxes stay behind",
            "turn the boxes, or save the picture without the tag as it was annotated "
            "(exiftool -Orientation= FILE).",
            len(turned), turned, harm=0.7,
        )  # fmt: skip
    if scaled:
        yield Finding(
            "error", "size",
            f"{_count(scaled, 'picture')} of another size than the annotation says, so the boxes "
            "lie elsewhere",
            "scale the boxes by the factor that is given and correct the size, or take the "
            "picture that was annotated.",
            len(scaled), scaled, harm=0.7,
        )  # fmt: skip
    if tagged:
        yield Finding(
            "warning", "orientation",
            f"{_count(tagged, 'picture')} with an EXIF orientation tag, and nothing tells whether "
            "the boxes were drawn before or after it was applied",
            "look at them below: if the boxes are off their objects, save the pictures without "
            "the tag.",
            len(tagged), tagged, harm=0.3,
        )  # fmt: skip


def _count(things: Sequence | int, word: str) -> str:
    number = things if isinstance(things, int) else len(things)
    return f"{number} {word}{'' if number == 1 else 's'}"


def _agree(a: tuple[float, float], b: tuple[float, ...]) -> bool:
    return max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= ROUNDING


def _sizes(said: tuple[float, float], look: Look) -> str:
    assert look.size is not None
    vertical, horizontal = look.size[0] / said[0], look.size[1] / said[1]
    factor = f", {horizontal:.3g} times" if abs(vertical / horizontal - 1) < 0.02 else ""
    return (
        f"annotated as {said[1]:g} × {said[0]:g} pixels, is {look.size[1]} × {look.size[0]}{factor}"
    )


def check_copies(survey: Survey) -> Iterator[Finding]:
    """Pictures that are there twice.

    Args:
        survey: of the data set.

    Returns:
        findings "leak", across training and validation, and "copies", within one of them.
    """
    same: dict[str, list[int]] = defaultdict(list)
    for i, look in enumerate(survey.looks):
        if look.pixels:
            same[look.pixels].append(i)
    leaks: list[Place] = []
    copies: list[Place] = []
    leaked = spare = 0
    for group in same.values():
        paths = {survey.record(i).picture for i in group}
        sides = {bool(survey.is_validation[i]) for i in group}
        if len(group) < 2 or (len(paths) < 2 and len(sides) < 2):
            continue
        first, *others = sorted(group, key=lambda i: bool(survey.is_validation[i]))
        places = [survey.place(first, f"one of {len(group)} alike", picture=True)]
        content = survey.looks[first].content
        for i in others:
            how = "bytes" if survey.looks[i].content == content else "pixels"
            twin = survey.file_of(first, picture=True)
            places.append(survey.place(i, f"the same {how} as {twin}", picture=True))
        if len(sides) > 1:
            leaks += places
            leaked += sum(bool(survey.is_validation[i]) for i in group)
        else:
            copies += places
            spare += len(others)
    for i, lists in _listed_twice(survey):
        leaks.append(survey.place(i, f"listed in {lists}", picture=True))
        leaked += 1
    if leaks:
        yield Finding(
            "error", "leak",
            f"{_count(leaked, 'picture')} to validate on can also be seen in training, so the AP "
            "would be better than the model",
            "remove each from one of the two; where pictures are frames of a film or a series, "
            "split by the series.",
            leaked, leaks, harm=0.6,
        )  # fmt: skip
    if copies:
        yield Finding(
            "warning", "copies",
            f"{_count(spare, 'picture')} too many: copies of others in the same data",
            "keep one of each; if their boxes differ, keep the better ones. A split by chance "
            "would put some into training and validation.",
            spare, copies, harm=0.3,
        )  # fmt: skip


def _listed_twice(survey: Survey) -> Iterator[tuple[int, str]]:
    """Images that VOC's list of training and another one both name, and these lists."""
    records = survey.records.records if survey.records.format == "voc" else []
    names: dict[Path, dict[str, set[str]]] = {}
    for i, record in enumerate(records):
        folder = record.annotation.parent.parent / "ImageSets" / "Main"
        if folder not in names:
            paths = [folder / f"{split}.txt" for split in ("train", "val", "test")]
            names[folder] = {
                path.name: set(map(str.strip, path.read_text("utf-8-sig", "replace").splitlines()))
                for path in paths
                if path.is_file()
            }
        lists = [name for name, listed in names[folder].items() if record.annotation.stem in listed]
        if len(lists) > 1 and "train.txt" in lists:  # one list to validate and to test is no leak
            yield i, " and ".join(lists)


def check_empty_images(survey: Survey) -> Iterator[Finding]:
    """Images without objects.

    Args:
        survey: of the data set.

    Returns:
        a finding "no-objects".
    """
    counts = np.bincount(survey.image, minlength=len(survey.looks))
    unread = np.array([bool(record.faults) for record in survey.records.records], dtype=bool)
    empty = np.flatnonzero((counts == 0) & ~unread)
    if not len(empty):
        return
    share = len(empty) / len(counts)
    yield Finding(
        "warning" if share > _MANY_EMPTY else "note", "no-objects",
        f"{len(empty)} of {len(counts)} images have no object",
        "nothing, if nothing is on them: they train as background. Else annotate them; whatever "
        "is on them is learned as background.",
        len(empty), [survey.place(int(i)) for i in empty], harm=0.4 * share,
    )  # fmt: skip
