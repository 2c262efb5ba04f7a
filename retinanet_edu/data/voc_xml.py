"""PASCAL VOC's XML: the objects of one annotation, or what is wrong with it.

Annotations come from strangers and from tools of all kinds. So each is read without entities,
and each fault is told with its file, its object and its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import parse

from retinanet_edu.data.images import image_size
from retinanet_edu.errors import DataError

_FAULTS_SHOWN = 10


class VOCObject(NamedTuple):
    """An `<object>` of an annotation.

    Attributes:
        name: its class.
        box: x1 y1 x2 y2 in pixels, continuous: width = x2 − x1.
        difficult: marked as such.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


class Annotation(NamedTuple):
    """What an annotation says.

    Attributes:
        objects: those without fault, in the order of the file.
        size: (H, W) of the picture as annotated, else as measured, else infinite.
        faults: a line for each, with the file's name.
    """

    objects: list[VOCObject]
    size: tuple[float, float]
    faults: list[str]


def parse_voc_xml(path: str | Path, picture: str | Path | None = None) -> list[VOCObject]:
    """The objects of one annotation.

    VOC counts pixels from 1 and includes the last: the box (1, 1, 1, 1) is the first pixel, which
    in continuous coordinates is 0 0 1 1. So 1 is subtracted from the minima and not from the
    maxima. The `<part>`s of a person, with boxes of their own, are passed over.

    Args:
        path: of the XML file.
        picture: asked for its size where the annotation does not give one. Boxes that reach up to
            one pixel over its edge are clipped.

    Returns:
        one `VOCObject` for each `<object>`, in the order of the file.

    Raises:
        DataError: the file is missing, is not well-formed, declares entities, or has an object
            without name or with a box that is inverted, empty or outside; a line for each fault.

    Law:
        x2 − x1 = xmax − xmin + 1, as many pixels as the box has columns.

    Source:
        Everingham and Winn, "The PASCAL VOC 2007 Development Kit".
    """
    annotation = read_annotation(path, picture)
    refuse(annotation.faults)
    return annotation.objects


def read_annotation(path: str | Path, picture: str | Path | None = None) -> Annotation:
    """As `parse_voc_xml`, but faults are returned, so that those of many files can be listed.

    Args:
        path, picture: as in `parse_voc_xml`.

    Returns:
        `Annotation`: the objects, the size, and a line for each fault.
    """
    path = Path(path)
    nothing: tuple[list[VOCObject], tuple[float, float]] = ([], (math.inf, math.inf))
    try:
        root = parse(str(path)).getroot()
    except FileNotFoundError:
        return Annotation(*nothing, [f"{path}: no such annotation; add it or take it off the list"])
    except (ParseError, OSError, ValueError, LookupError) as error:  # ValueError: also entities
        fault = f"{path}: not plain, well-formed XML ({error}); mend or remove it"
        return Annotation(*nothing, [fault])
    if root is None or root.tag != "annotation":
        fault = f"{path}: not a VOC annotation, its root is not <annotation>; remove it"
        return Annotation(*nothing, [fault])
    size = _size(root, picture)
    objects, faults = [], []
    for i, element in enumerate(root.findall("object"), start=1):
        try:
            objects.append(_object(element, size))
        except ValueError as error:
            name = text_of(element, "name") or "unnamed"
            faults.append(f"{path}: object {i} ({name}): {error}")
    return Annotation(objects, size, faults)


def refuse(faults: Sequence[str]) -> None:
    """Raise one error that lists the first faults and says how many there are, if there are any.

    Args:
        faults: a line each.

    Raises:
        DataError: with a line for each.
    """
    if faults:
        total = [f"{len(faults)} faults in all"] if len(faults) > 1 else []
        raise DataError("\n".join([*faults[:_FAULTS_SHOWN], *total]))


def _size(root: Element, picture: str | Path | None) -> tuple[float, float]:
    """(H, W) as the annotation says, else as the picture does, else without limit."""
    said = annotated_size(root)
    if said is not None:
        return said
    if picture is not None:
        with suppress(DataError):  # told when the picture is asked for
            return image_size(picture)
    return math.inf, math.inf


def annotated_size(root: Element) -> tuple[float, float] | None:
    """What an annotation says of its picture's size.

    Args:
        root: of the annotation.

    Returns:
        (H, W), or None where it says nothing that can be.
    """
    with suppress(ValueError):
        height, width = (float(text_of(root, f"size/{side}")) for side in ("height", "width"))
        if 0 < height < math.inf and 0 < width < math.inf:  # some tools write 0
            return height, width
    return None


def texts_of_object(element: Element) -> tuple[str, dict[str, str], bool]:
    """What an `<object>` says, box and all as text.

    Args:
        element: the object.

    Returns:
        its name, the four texts of its box by tag, and whether it is difficult.

    Raises:
        ValueError: it has no name or no box.
    """
    # Children of the object itself: its <part>s have names and boxes too.
    name = text_of(element, "name")
    if not name:
        raise ValueError("it has no <name>; add one or remove the object")
    bounds = element.find("bndbox")
    if bounds is None:
        raise ValueError("it has no <bndbox>; add one or remove the object")
    texts = {key: text_of(bounds, key) for key in ("xmin", "ymin", "xmax", "ymax")}
    return name, texts, text_of(element, "difficult").lower() in ("1", "true")


def _object(element: Element, size: tuple[float, float]) -> VOCObject:
    name, texts, is_difficult = texts_of_object(element)
    says = ", ".join(f"{key} {text or 'missing'}" for key, text in texts.items())
    try:
        xmin, ymin, xmax, ymax = (float(text) for text in texts.values())
    except ValueError:
        xmin = ymin = xmax = ymax = math.nan
    if not all(map(math.isfinite, (xmin, ymin, xmax, ymax))):
        raise ValueError(f"its box is not four finite numbers ({says}); correct or remove it")
    # One pixel over the edge is rounding; more is another picture or another format.
    height, width = size
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
    return VOCObject(name, (x1, y1, x2, y2), is_difficult)


def text_of(element: Element, name: str) -> str:
    """The text of a child, without the space around it.

    Args:
        element: whose child it is.
        name: of its tag, or a path of tags.

    Returns:
        the text, "" where there is none.
    """
    return (element.findtext(name) or "").strip()
