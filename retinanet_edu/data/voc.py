"""PASCAL VOC: pictures and XML annotations in the layout of a VOCdevkit."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

import torch
from defusedxml.ElementTree import parse
from torch import Tensor

from retinanet_edu.data.images import image_size, read_image
from retinanet_edu.errors import DataError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip

_FAULTS_SHOWN = 10
_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG")  # VOC has the first, other people's data the others


class VOCObject(NamedTuple):
    """An `<object>` of an annotation, its box x1 y1 x2 y2 continuous in pixels."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


class VOCDataset(torch.utils.data.Dataset):
    """Pictures and boxes of a VOCdevkit.

    Annotations are read and checked at once, pictures when they are asked for.

    Args:
        root: folder that contains `VOCdevkit`, or `VOCdevkit` itself, or `VOC2007` in it.
        year: "2007", or several: ("2007", "2012").
        split: name of a list in `ImageSets/Main`: "train", "val", "trainval", "test", or of one
            class, as "cat_train" (images that it marks −1 are left out).
        classes: names in the order of their labels; objects of others are left out. Default:
            VOC's 20 where all objects are of these, else the names that occur, sorted.
        images: only these, by identifier, or the first so many.
        keep_empty: keep images that have no object of these classes; they train as background.
        download: fetch VOC into `root` first, unless it is there, through torchvision, which
            knows the addresses and checksums: 2007 to 2012, "test" for 2007 alone.

    Attributes:
        classes: names, tuple.
        image_ids: one an image, as "000005", or "2007/000005" where there are several years.

    Raises:
        DataError: something is missing or wrong; the message names the file, the object and what
            to do. Up to ten faults of the annotations are listed at once.

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
        annotations = [_annotation_of(path) for path in pictures.values()]
        parsed = [_parse(*paths) for paths in zip(annotations, pictures.values(), strict=True)]
        _refuse([fault for _, faults in parsed for fault in faults])
        objects = [found for found, _ in parsed]
        self.classes = _choose_classes(annotations, objects, classes)
        label_of = {name: label for label, name in enumerate(self.classes)}
        objects = [[o for o in found if o.name in label_of] for found in objects]
        if not keep_empty:
            pictures = {i: p for (i, p), found in zip(pictures.items(), objects) if found}
            objects = [found for found in objects if found]
        self._split = split
        self.image_ids = list(pictures)
        self._pictures = list(pictures.values())
        # One tensor for all images: workers are sent a handful of tensors, not thousands.
        every = [o for found in objects for o in found]
        self._boxes = torch.tensor([o.box for o in every], dtype=torch.float32).reshape(-1, 4)
        self._labels = torch.tensor([label_of[o.name] for o in every], dtype=torch.int64)
        self._difficult = torch.tensor([o.difficult for o in every], dtype=torch.bool)
        ends = list(accumulate(len(found) for found in objects))
        self._spans = list(zip([0, *ends], ends))

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> tuple[Tensor, dict]:
        """The picture, uint8 (3, H, W), and its target."""
        path = self._pictures[index]
        if not path.is_file():
            listed = path.parents[1] / "ImageSets" / "Main" / f"{self._split}.txt"
            raise DataError(f"{path}: no such picture, but {listed} lists it; add it or its line")
        image, target = read_image(path), self.target(index)
        height, width = image.shape[1:]
        if bool((target["boxes"][:, 2:] > torch.tensor([width + 1, height + 1])).any()):
            raise DataError(
                f"{path}: a box reaches outside of the picture, which is {width} × {height} "
                "pixels, as its annotation does not say; was it scaled or turned afterwards?"
            )
        return image, target

    def target(self, index: int) -> dict:
        """`boxes` (M, 4), `labels` (M,), `difficult` (M,) and `image_id`; no picture is read."""
        start, stop = self._spans[index]
        return {
            "boxes": self._boxes[start:stop].clone(),  # (M, 4)
            "labels": self._labels[start:stop].clone(),  # (M,)
            "difficult": self._difficult[start:stop].clone(),  # (M,)
            "image_id": self.image_ids[index],
        }

    def image_path(self, index: int) -> Path:
        """Where the picture lies."""
        return self._pictures[index]


def parse_voc_xml(path: str | Path, picture: str | Path | None = None) -> list[VOCObject]:
    """The objects of one annotation.

    VOC counts pixels from 1 and includes the last: the box (1, 1, 1, 1) is the first pixel, which
    in continuous coordinates is 0 0 1 1. So 1 is subtracted from the minima and not from the
    maxima. The `<part>`s of a person, with boxes of their own, are passed over.

    Args:
        path: of the XML file.
        picture: asked for its size where the annotation does not give one. Boxes that reach up to
            one pixel over its edge are clipped.

    Raises:
        DataError: with a line for each fault.
    """
    objects, faults = _parse(Path(path), picture)
    _refuse(faults)
    return objects


def _parse(path: Path, picture: str | Path | None) -> tuple[list[VOCObject], list[str]]:
    """The objects of one annotation, and what is wrong with it."""
    try:
        root = parse(str(path)).getroot()
    except FileNotFoundError:
        return [], [f"{path}: no such annotation; add it or take it off the list"]
    except (ParseError, OSError, ValueError, LookupError) as error:  # ValueError: also entities
        return [], [f"{path}: not plain, well-formed XML ({error}); mend or remove it"]
    if root is None or root.tag != "annotation":
        return [], [f"{path}: not a VOC annotation, its root is not <annotation>; remove it"]
    width, height = _annotated_size(root, picture)
    objects, faults = [], []
    for i, element in enumerate(root.findall("object"), start=1):
        try:
            objects.append(_parse_object(element, width, height))
        except ValueError as error:
            name = _text(element, "name") or "unnamed"
            faults.append(f"{path}: object {i} ({name}): {error}")
    return objects, faults


def _annotated_size(root: Element, picture: str | Path | None) -> tuple[float, float]:
    """Width and height as the annotation says, else as the picture does, else without limit."""
    with suppress(ValueError):
        width, height = float(_text(root, "size/width")), float(_text(root, "size/height"))
        if width > 0 and height > 0:  # some tools write 0
            return width, height
    if picture is not None:
        with suppress(DataError):  # told when the picture is asked for
            rows, columns = image_size(picture)
            return columns, rows
    return math.inf, math.inf


def _parse_object(element: Element, width: float, height: float) -> VOCObject:
    # Children of the object itself: its <part>s have names and boxes too.
    name = _text(element, "name")
    if not name:
        raise ValueError("it has no <name>; add one or remove the object")
    bounds = element.find("bndbox")
    if bounds is None:
        raise ValueError("it has no <bndbox>; add one or remove the object")
    texts = {key: _text(bounds, key) for key in ("xmin", "ymin", "xmax", "ymax")}
    says = ", ".join(f"{key} {text or 'missing'}" for key, text in texts.items())
    try:
        xmin, ymin, xmax, ymax = (float(text) for text in texts.values())
    except ValueError:
        xmin = ymin = xmax = ymax = math.nan
    if not all(map(math.isfinite, (xmin, ymin, xmax, ymax))):
        raise ValueError(f"its box is not four finite numbers ({says}); correct or remove it")
    # One pixel over the edge is rounding; more is another picture or another format.
    if min(xmin, ymin) < 0 or xmax > width + 1 or ymax > height + 1:
        raise ValueError(
            f"its box ({says}) reaches outside of the picture of {width:g} × {height:g} pixels; "
            "was the picture scaled or turned after it was annotated?"
        )
    x1, y1, x2, y2 = max(xmin - 1, 0.0), max(ymin - 1, 0.0), min(xmax, width), min(ymax, height)
    if xmax < xmin or ymax < ymin or x2 <= x1 or y2 <= y1:
        raise ValueError(
            f"its box is inverted or empty ({says}); are these x, y, width and height?"
        )
    return VOCObject(name, (x1, y1, x2, y2), _text(element, "difficult").lower() in ("1", "true"))


def _text(element: Element, name: str) -> str:
    return (element.findtext(name) or "").strip()


def _refuse(faults: Sequence[str]) -> None:
    """Raise one error that lists the faults, if there are any."""
    if faults:
        total = [f"{len(faults)} faults in all"] if len(faults) > 1 else []
        raise DataError("\n".join([*faults[:_FAULTS_SHOWN], *total]))


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
    _refuse(
        [
            f"{path}: object {i} ({o.name}): none of VOC's 20 classes"
            f"{_did_you_mean(o.name, VOC_CLASSES)}; if it is meant, name all classes"
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
        guess = _did_you_mean(name, others)
        if name in found or (not guess and name in VOC_CLASSES and not found.isdisjoint(chosen)):
            continue
        # Not <part><name>, which is no class.
        tag = re.compile(rf"<object>\s*<name>\s*{re.escape(name)}\s*</name>".encode())
        if not any(tag.search(p.read_bytes()) for f in folders for p in f.glob("*.xml")):
            raise DataError(
                f"no object of the annotations in {', '.join(map(str, folders))} is of class "
                f"{name!r}{guess}; they have also: {', '.join(others)}"
            )
    return chosen


def _did_you_mean(name: str, names: Iterable[str]) -> str:
    spelled = {n.lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), spelled, 3, 0.75)
    return f" (did you mean {' or '.join(repr(spelled[n]) for n in near)}?)" if near else ""


def _pick(pictures: dict[str, Path], images: int | Iterable[str] | None) -> dict[str, Path]:
    if images is None or isinstance(images, int):
        images = list(pictures)[:images]
    images = list(images)
    for image_id in images:
        if image_id not in pictures:
            raise DataError(f"images: {image_id!r} is none of the {len(pictures)} of the split")
    return {image_id: pictures[image_id] for image_id in images}


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
    rows = [line.split() for line in text.splitlines()]
    names = [row[0] for row in rows if row and row[1:] != ["-1"]]
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
        root.mkdir(parents=True, exist_ok=True)
        # "cat_val" comes with "val".
        VOCDetection(root, year=year, image_set=split.rpartition("_")[2], download=True)
    except Exception as error:  # no network, a dead server, a wrong checksum, an unknown split
        raise DataError(
            f"VOC {year}, split {split!r}, could not be downloaded to {root} ({error}); try "
            "again, or unpack the archive from host.robots.ox.ac.uk/pascal/VOC there by hand"
        ) from error
