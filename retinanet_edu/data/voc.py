"""PASCAL VOC: pictures and annotations in the layout of a VOCdevkit."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import compress
from pathlib import Path

from retinanet_edu.data.pictures import PictureDataset
from retinanet_edu.data.voc_xml import VOCObject, read_annotation, refuse
from retinanet_edu.errors import DataError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip

_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG")  # VOC has the first, other people's data the others


class VOCDataset(PictureDataset):
    """Pictures and boxes of a VOCdevkit.

    Annotations are read and checked at once, pictures when they are asked for. Boxes are
    continuous: VOC's (xmin, ymin, xmax, ymax) becomes (xmin − 1, ymin − 1, xmax, ymax), see
    `parse_voc_xml`.

    Args:
        root: folder that contains `VOCdevkit`, or `VOCdevkit` itself, or `VOC2007` in it.
        year: "2007", or several: ("2007", "2012").
        split: name of a list in `ImageSets/Main`: "train", "val", "trainval", "test", or of one
            class, as "cat_train" (images that it marks −1 are left out).
        classes: names in the order of their labels; objects of others are left out. Default:
            VOC's 20; the names that occur, sorted, where most objects are of none of these.
        images: only these, by identifier, or the first so many, at least 1.
        keep_empty: keep images that have no object of these classes; they train as background.
        download: fetch VOC into `root` first, unless it is there, through torchvision, which
            knows the addresses and checksums: 2007 to 2012, "test" for 2007 alone.

    Attributes:
        classes: K names, label k is `classes[k]`.
        image_ids: one an image, as "000005", or "2007/000005" where there are several years.
        sizes: (H, W) of each picture in pixels, as its annotation says.

    Raises:
        DataError: something is missing or wrong; the message names the file, the object and what
            to do. Of a split's faults up to ten are listed at once.

    Law:
        An image and its boxes are what torchvision's `VOCDetection` reads, minima less by 1.

    Source:
        Everingham et al., "The PASCAL VOC Challenge", IJCV 2010.
    """

    def __init__(
        self,
        root: str | Path,
        year: str | Sequence[str] = "2007",
        split: str = "train",
        *,
        classes: Sequence[str] | None = None,
        images: int | Iterable[str] | None = None,
        keep_empty: bool = True,
        download: bool = False,
    ) -> None:
        root = Path(root).expanduser()
        years = [year] if isinstance(year, str) else list(dict.fromkeys(year))
        pictures: dict[str, Path] = {}
        for one in years:
            if download:
                _download(root, one, split)
            prefix = f"{one}/" if len(years) > 1 else ""
            listed = _list_split(_find_year(root, one), split)
            pictures |= {prefix + name: path for name, path in listed.items()}
        pictures = _pick(pictures, images)
        paths = [_annotation_of(picture) for picture in pictures.values()]
        annotations = [read_annotation(*p) for p in zip(paths, pictures.values(), strict=True)]
        missing = [
            f"{picture}: no such picture; add it or take it off the list"
            for picture in pictures.values()
            if not picture.is_file()
        ]
        refuse([*missing, *(fault for one in annotations for fault in one.faults)])
        objects = [annotation.objects for annotation in annotations]
        chosen = _choose_classes(paths, objects, classes)
        objects = [[o for o in found if o.name in chosen] for found in objects]
        kept = [keep_empty or bool(found) for found in objects]
        super().__init__(
            chosen,
            list(compress(pictures, kept)),
            list(compress(pictures.values(), kept)),
            [annotation.size for annotation in compress(annotations, kept)],
            list(compress(objects, kept)),
        )


def _choose_classes(
    annotations: list[Path], objects: list[list[VOCObject]], chosen: Sequence[str] | None
) -> tuple[str, ...]:
    counts = Counter(o.name for found in objects for o in found)
    if chosen is not None:
        return _check_chosen(tuple(chosen), set(counts), {path.parent for path in annotations})
    unknown = counts.keys() - set(VOC_CLASSES)
    if unknown and sum(counts[name] for name in unknown) >= counts.total() / 2:
        return tuple(sorted(counts))
    # All of VOC, or mostly: then the others are misspelled, and would be classes of their own.
    refuse(
        [
            f"{path}: object {i} ({o.name}): none of VOC's 20 classes"
            f"{did_you_mean(o.name, VOC_CLASSES)}; if it is meant, name all classes"
            for path, found in zip(annotations, objects, strict=True)
            for i, o in enumerate(found, start=1)
            if o.name in unknown
        ]
    )
    return VOC_CLASSES


def _check_chosen(chosen: tuple[str, ...], found: set[str], folders: set[Path]) -> tuple[str, ...]:
    """The chosen names, unless one is a slip.

    A class may well be absent from a small split. It is a slip if there are objects of other
    names, it is like one of these or not one of VOC's, and no annotation beside the split has it.
    """
    if not chosen or len(set(chosen)) < len(chosen):
        raise DataError(f"classes must be different names, at least one, got {list(chosen)}")
    others = sorted(found - set(chosen))
    for name in chosen if others else ():
        guess = did_you_mean(name, others)
        if name in found or (not guess and name in VOC_CLASSES and not found.isdisjoint(chosen)):
            continue
        beside = (path for folder in folders for path in folder.glob("*.xml"))
        if not any(o.name == name for path in beside for o in read_annotation(path).objects):
            raise DataError(
                f"no object of the annotations in {', '.join(map(str, folders))} is of class "
                f"{name!r}{guess}; they have also: {', '.join(others)}"
            )
    return chosen


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A question in brackets, where a name is like others.

    Args:
        name: as written.
        names: that it may stand for.

    Returns:
        a text to be appended, empty where nothing is like it.
    """
    spelled = {n.lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), spelled, 3, 0.75)
    return f" (did you mean {' or '.join(repr(spelled[n]) for n in near)}?)" if near else ""


def _pick(pictures: dict[str, Path], images: int | Iterable[str] | None) -> dict[str, Path]:
    if images is None or isinstance(images, int):
        images = list(pictures)[: images if images is None else max(images, 0)]
    images = list(images)
    if not images:
        raise DataError(f"images: none is chosen of the {len(pictures)} of the split")
    for image_id in images:
        if image_id not in pictures:
            raise DataError(f"images: {image_id!r} is none of the {len(pictures)} of the split")
    return {image_id: pictures[image_id] for image_id in images}


def has_lists(root: str | Path, year: str) -> bool:
    """Whether a folder is a VOCdevkit with lists of its splits.

    Args:
        root: as in `VOCDataset`.
        year: one.

    Returns:
        true if `VOCDataset` can look for a split there.
    """
    with suppress(DataError):
        folder = _find_year(Path(root).expanduser(), year)
        return any((folder / "ImageSets" / "Main").glob("*.txt"))
    return False


def _find_year(root: Path, year: str) -> Path:
    name = f"VOC{year}"
    # `root` may itself be a year's folder, this one's or another's, or be so laid out.
    own = root.with_name(name) if re.fullmatch(r"VOC\d+", root.name) else root
    # VOC 2011 is packed one folder deeper.
    tried = [root / "VOCdevkit" / name, root / name, root / "TrainVal" / "VOCdevkit" / name, own]
    for folder in tried:
        if (folder / "Annotations").is_dir():
            return folder
    raise DataError(
        f"{root}: no VOC {year} here, which is a folder with Annotations, ImageSets and "
        f"JPEGImages; looked into {', '.join(map(str, tried))}. To fetch it: download=True"
    )


def _list_split(folder: Path, split: str) -> dict[str, Path]:
    """The pictures that a list names."""
    path = folder / "ImageSets" / "Main" / f"{split}.txt"
    text = path.read_text(encoding="utf-8-sig", errors="replace") if path.is_file() else ""
    # A name, which may have spaces, and in the list of one class whether the image shows it.
    row = r"(.*?)(?:\s+(-1|0|1))?" if "_" in split else r"(.*)()"
    rows = [re.fullmatch(row, line.strip()) for line in text.splitlines()]
    names = [row[1] for row in rows if row and row[1] and row[2] != "-1"]
    if not names:
        # VOC has a list for each class too, sixty names that would hide the others.
        there = sorted(
            p.stem
            for p in path.parent.glob("*.txt")
            if p.stem.rpartition("_")[0] not in VOC_CLASSES
        )
        raise DataError(
            f"{path}: {'the split is empty' if path.is_file() else 'no such split'}; there are: "
            f"{', '.join(there) or 'none'}. To write one: an image's name a line"
        )
    return {name: _find_picture(folder / "JPEGImages", name) for name in names}


def _find_picture(folder: Path, name: str) -> Path:
    paths = [folder / f"{name}{suffix}" for suffix in _SUFFIXES]
    return next((path for path in paths if path.is_file()), paths[0])


def _annotation_of(picture: Path) -> Path:
    return picture.parents[1] / "Annotations" / f"{picture.stem}.xml"


def _download(root: Path, year: str, split: str) -> None:
    with suppress(DataError):
        pictures = _list_split(_find_year(root, year), split).values()
        if all(p.is_file() and _annotation_of(p).is_file() for p in pictures):
            return
    from torchvision.datasets import VOCDetection

    try:
        # "cat_val" comes with "val".
        VOCDetection(root, year=year, image_set=split.rpartition("_")[2], download=True)
    except Exception as error:  # no network, a dead server, a wrong checksum, an unknown split
        raise DataError(
            f"VOC {year}, split {split!r}, could not be downloaded to {root} ({error}); try "
            "again, or unpack the archive from host.robots.ox.ac.uk/pascal/VOC there by hand"
        ) from error
