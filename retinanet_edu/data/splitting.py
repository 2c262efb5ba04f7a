"""Parting a folder's pictures into those to learn from and those to be judged by."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from retinanet_edu.data.records import Record, Records
from retinanet_edu.data.voc_xml import refuse
from retinanet_edu.errors import DataError

_FORMAT = "retinanet_edu split 1"


def split_records(records: Records, val: float = 0.2, seed: int = 0) -> Records:
    """Records of which each is of "train", "val" or "test".

    Where the folder itself has a "val", it stays as it is. Else the pictures that it calls "train"
    or nothing are parted, class by class from the rarest on, so that each class has its share in
    both parts.

    Args:
        records: of a folder.
        val: the share to be judged by, in (0, 1).
        seed: another one parts them differently.

    Returns:
        the same records with a `split` each.

    Raises:
        DataError: there are fewer than two different pictures to part.

    Law:
        It depends on `seed`, the pictures' names and their classes alone; of two or more pictures
        with a class, each part has one, unless rarer classes forbid it; pictures that are
        identical byte for byte are on the same side.

    Source:
        Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data", ECML 2011.
    """
    if not 0 < val < 1:
        raise DataError(f"the share of pictures to validate on must be in (0, 1), not {val}")
    if any(record.split == "val" for record in records.records):
        return records
    members = [r for r in records.records if r.split in (None, "train")]
    groups = _identical([record.picture for record in members])
    if len(groups) < 2:
        raise DataError(
            f"{records.root}: to set some aside for val, at least two different pictures are "
            f"needed, and there are {len(groups)}; add pictures, or name folders train and val"
        )
    classes = [_classes_of(members[i] for i in group) for group in groups]
    chosen = _choose(classes, val, np.random.default_rng(seed))
    splits = {
        members[i].picture: "val" if number in chosen else "train"
        for number, group in enumerate(groups)
        for i in group
    }
    return records._replace(
        records=[r._replace(split=splits.get(r.picture, r.split)) for r in records.records]
    )


def save_split(path: str | Path, records: Records) -> None:
    """Write which pictures are of which part, so that others use the same ones.

    Args:
        path: of the JSON file.
        records: with a `split` each, see `split_records`.
    """
    parts: defaultdict[str, list[str]] = defaultdict(list)
    for record in records.records:
        if record.split:
            parts[record.split].append(record.picture.relative_to(records.root).as_posix())
    content = {"format": _FORMAT, "splits": parts}
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")  # other processes may be reading
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def load_split(path: str | Path, records: Records, needed: Sequence[str]) -> Records | None:
    """Records parted as `save_split` wrote it.

    Args:
        path: of the JSON file.
        records: of the folder.
        needed: the splits of which all pictures must be there, as "val".

    Returns:
        the records with that `split` each, None for pictures that have come since; None where
        no picture is in the file: it is of another folder.

    Raises:
        DataError: the file is damaged, or a picture is gone.
    """
    try:
        content = json.loads(Path(path).read_bytes())
        splits = content["splits"]
        known = {name: split for split, names in splits.items() for name in names}
        if content["format"] != _FORMAT or not all(isinstance(name, str) for name in known):
            raise ValueError("another format")
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not a list of pictures by split, as `train` writes it ({error}); remove it"
        ) from error
    there = {r.picture.relative_to(records.root).as_posix(): r for r in records.records}
    if known.keys().isdisjoint(there):
        return None
    refuse(
        [
            f"{path}: {records.root / name} is of its split {split!r}, but is gone; bring it back"
            for name, split in known.items()
            if split in needed and name not in there
        ]
    )
    parted = [record._replace(split=known.get(name)) for name, record in there.items()]
    return records._replace(records=parted)


def _classes_of(records: Iterable[Record]) -> frozenset[str]:
    return frozenset(o.name for record in records for o in record.objects if not o.difficult)


def _identical(pictures: list[Path]) -> list[list[int]]:
    """Indices of the pictures, those with the same bytes together, in the order of the first."""
    sizes = [path.stat().st_size if path.is_file() else -1 for path in pictures]
    repeated = Counter(sizes)
    groups: defaultdict[object, list[int]] = defaultdict(list)
    for i, (path, size) in enumerate(zip(pictures, sizes, strict=True)):
        same: object = i
        if size >= 0 and repeated[size] > 1:  # most pictures have a size of their own
            with path.open("rb") as file:
                same = hashlib.file_digest(file, "sha256").digest()
        groups[same].append(i)
    return list(groups.values())


def _choose(classes: list[frozenset[str]], share: float, draw: np.random.Generator) -> set[int]:
    """Which pictures, of which the classes are given, are to be judged by."""
    order = [int(i) for i in draw.permutation(len(classes))]
    having: defaultdict[str, list[int]] = defaultdict(list)
    for i in order:
        for name in classes[i]:
            having[name].append(i)
    # At least one for each part of a class that has two; none of a class that has only one.
    wanted = {c: min(max(round(share * len(h)), 1), len(h) - 1) for c, h in having.items()}
    chosen: set[int] = set()
    decided: set[int] = set()
    counts: Counter[str] = Counter()

    def excess(i: int) -> int:
        """How many classes would have more than they want."""
        return sum(counts[c] >= wanted[c] for c in classes[i])

    for name in sorted(having, key=lambda c: (len(having[c]), c)):
        free = [i for i in having[name] if i not in decided]
        for pool in ([i for i in free if not excess(i)], sorted(free, key=excess)):
            for i in pool:
                if counts[name] < wanted[name] and i not in chosen:
                    chosen.add(i)
                    counts.update(classes[i])
        decided.update(free)
    _mend(classes, having, chosen)
    empty = [i for i in order if not classes[i]]
    lacking = max(round(share * len(classes)) - len(chosen), 0 if chosen else 1)
    lacking = min(lacking, len(classes) - 1 - len(chosen))  # one is left to learn from
    chosen.update((empty if chosen or empty else order)[:lacking])
    return chosen


def _mend(classes: list[frozenset[str]], having: dict[str, list[int]], chosen: set[int]) -> None:
    """Move a picture for each class that one part lacks, if no other class loses by it."""
    for name in sorted(having, key=lambda c: (len(having[c]), c)):
        for side in (True, False):
            there = [i for i in having[name] if (i in chosen) is side]
            if there or len(having[name]) < 2:
                continue
            for i in having[name]:
                left = (sum((j in chosen) is not side for j in having[c]) for c in classes[i])
                if min(left) > 1:
                    chosen.symmetric_difference_update({i})
                    break
