"""Finding files: what lies in a folder, which picture a name means, which split a path tells."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath

from retinanet_edu.data.records.record import Record
from retinanet_edu.errors import DataError

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".jfif"}
# VOC's own masks have the names of its pictures; the other is a Mac's.
_NO_PICTURES = {"SegmentationClass", "SegmentationObject", "__MACOSX"}
_HOMES = {"images", "jpegimages", "imgs"}
MOST_BYTES = 64 * 2**20  # of a text file; COCO's JSON may have more
_SPLIT = re.compile(r"(?<![a-z])(train|val|test)(?:id|idation|ing)?(?![a-z])", re.IGNORECASE)
_BOTH = re.compile(r"(?<![a-z])trainval(?![a-z])", re.IGNORECASE)


class Files:
    """The files below a folder, hidden ones apart; links to folders are followed once.

    Args:
        root: the folder.

    Attributes:
        root: the folder.
        paths: of all files, sorted.
        pictures: those with a picture's suffix.

    Raises:
        DataError: there is no such folder, or it is a file.
    """

    def __init__(self, root: Path) -> None:
        if root.is_file():
            raise DataError(f"{root}: a file; give the folder of pictures and labels, or a .json")
        if not root.is_dir():
            raise DataError(f"{root}: no such folder; check the path")
        self.root = root
        self.paths: list[Path] = []
        seen: set[str] = set()
        for folder, folders, names in os.walk(root, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(f for f in folders if f[0] != "." and f not in _NO_PICTURES)
            self.paths += [Path(folder, name) for name in names if not name.startswith(".")]
        self.paths.sort()
        self.pictures = [path for path in self.paths if path.suffix.lower() in PICTURES]
        self._all = set(self.paths)
        self._by_name: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}
        for path in self.pictures:
            self._by_name.setdefault(path.name, []).append(path)
            self._by_stem.setdefault(path.stem, []).append(path)

    def __contains__(self, path: Path) -> bool:
        return path in self._all

    def with_suffix(self, *suffixes: str) -> list[Path]:
        """The files of these suffixes, in small letters."""
        return [path for path in self.paths if path.suffix.lower() in suffixes]

    def named(self, name: str, near: Path, split: str | None = None) -> Path:
        """The picture that a file of annotations calls by a name with some of its folders.

        Args:
            name: as written, with either slash.
            near: the file that calls it; of several pictures the nearest to it is meant.
            split: as in `nearest`.

        Returns:
            its path; one where it should be, if there is none.

        Raises:
            ValueError: the name is no relative path below the folder, or several are as near.
        """
        parts = relative_parts(name)
        there = [p for p in self._by_name.get(parts[-1], []) if p.parts[-len(parts) :] == parts]
        # A folder that was renamed or flattened since: the picture's own name may do.
        there = there or (self._by_name.get(parts[-1], []) if len(parts) > 1 else [])
        return self.nearest(there, near, split) or near.parent.joinpath(*parts)

    def with_stem(self, stem: str, near: Path) -> Path | None:
        """The picture of this name without suffix that is nearest to `near`, or None."""
        return self.nearest(self._by_stem.get(stem, []), near)

    def nearest(self, there: Iterable[Path], near: Path, split: str | None = None) -> Path | None:
        """The one of several paths with the fewest steps from another, first of its own split.

        Args:
            there: the paths, none or more.
            near: from where.
            split: of `near`, where its folders do not tell it.

        Returns:
            a path, or None where there is none of this split or of none.

        Raises:
            ValueError: two are as near.
        """
        told = split or split_of(near, self.root)
        splits = {path: split_of(path, self.root) for path in there}
        own = [p for p in splits if splits[p] == told]
        there = own or [p for p in splits if not (told and splits[p])]
        if len(there) < 2:
            return there[0] if there else None

        def steps(path: Path) -> tuple[int, bool]:
            """How far it is; of two as far, as pictures and their masks, the one in `images`."""
            folders = path.relative_to(self.root).parts[:-1]
            way = os.path.relpath(path.parent, near.parent)
            return len(Path(way).parts), not any(f.lower() in _HOMES for f in folders)

        first, *others = sorted(there, key=lambda p: (steps(p), str(p)))
        if others and steps(first) == steps(others[0]):
            raise ValueError(f"it may be {first} or {others[0]}; rename or remove one")
        return first


def relative_parts(name: str) -> tuple[str, ...]:
    """The folders and the name of a relative path that may be trusted.

    Args:
        name: with either slash.

    Returns:
        its parts, at least one.

    Raises:
        ValueError: it is absolute, climbs by "..", or is no name at all.
    """
    path = PureWindowsPath(name)
    if path.anchor or ".." in path.parts or not path.parts or "\0" in name:
        raise ValueError(
            f"{short(name)} is no path inside of the folder of data; write the picture's name, "
            "with its folder at most"
        )
    return path.parts


def split_of(path: Path, root: Path) -> str | None:
    """The split that the folders of a path, or else its name, tell.

    Args:
        path: of a picture or of a file of annotations.
        root: only the folders below it count.

    Returns:
        "train", "val" or "test", from words such as "valid" and "train2017"; else None.
    """
    for part in reversed(path.relative_to(root).parts[:-1]):
        word = _SPLIT.fullmatch(part.strip("0123456789_- "))
        if word:
            return word[1].lower()
    return None


def split_of_name(name: str) -> str | None:
    """The split that a file's `name` tells, as "instances_train2017" does; "trainval" is both."""
    word = _BOTH.search(name) or _SPLIT.search(name)
    return word[0].lower() if word and word.re is _BOTH else word[1].lower() if word else None


def read_text(path: Path) -> str:
    """A small text file, with what is no UTF-8 replaced.

    Args:
        path: of the file.

    Returns:
        its text.

    Raises:
        ValueError: it cannot be read or is larger than any such file.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError("larger than 64 MB; is this really a file of labels?")
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror}); mend or remove it") from error


def read_names(paths: Sequence[Path], faults: list[str]) -> tuple[str, ...] | None:
    """The names of classes in a text file, one a line.

    Args:
        paths: of all such files; if there are several they must agree.
        faults: gains a line for what is wrong.

    Returns:
        the names; None where there is no file, or a wrong one.
    """
    lists = []
    for path in paths:
        try:
            names = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
        except ValueError as error:
            faults.append(f"{path}: {error}")
            continue
        if not names or len(set(names)) < len(names):
            faults.append(f"{path}: the names must be different, at least one; correct them")
            continue
        lists.append(names)
        if names != lists[0]:
            faults.append(f"{path}: other names than in {paths[0]}; keep one of the two")
    return lists[0] if lists else None


def short(value: object) -> str:
    """A value for a message: one line, 60 characters at most."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def one_line(text: str) -> str:
    """A text for a message as it is, but on one line and 60 characters at most."""
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "…"


def name_images(records: Iterable[Record], root: Path) -> list[Record]:
    """Records sorted by picture, each with an identifier of its own.

    Args:
        records: with any.
        root: of the folder.

    Returns:
        the records, named by stems; by paths below `root`, where stems repeat.
    """
    records = sorted(records, key=lambda r: str(r.picture))
    stems = Counter(r.picture.stem for r in records)
    if max(stems.values(), default=1) == 1:
        return [r._replace(image_id=r.picture.stem) for r in records]
    return [r._replace(image_id=_below(r.picture, root)) for r in records]


def _below(path: Path, root: Path) -> str:
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
