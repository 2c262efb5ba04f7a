"""Checks of `data`: VOC's boxes and annotations, and the mirror image."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import horizontal_flip_bounding_boxes
from torchvision.tv_tensors import BoundingBoxFormat

from retinanet_edu.checks.boxes import boxes, some_boxes
from retinanet_edu.checks.harness import Case, Mistake, Piece
from retinanet_edu.checks.slopes import measured_slope

# --- VOC's four numbers ---------------------------------------------------------------------------

ONE_BASED = "VOC counts pixels from 1 and includes the last: take 1 from the minima only"


def _voc_box_cases() -> Iterator[Case]:
    table = {
        "the first pixel": ((1, 1, 1, 1), [0.0, 0.0, 1.0, 1.0]),
        "a box of ten pixels": ((11, 21, 20, 30), [10.0, 20.0, 20.0, 30.0]),
        "VOC's first object, a chair": ((263, 211, 324, 339), [262.0, 210.0, 324.0, 339.0]),
        "a whole picture of 500 by 375": ((1, 1, 500, 375), [0.0, 0.0, 500.0, 375.0]),
        "a column of pixels": ((7, 1, 7, 40), [6.0, 0.0, 7.0, 40.0]),
        "fractions, which VOC 2011 has": ((45.7, 2.2, 90.7, 8.2), [44.7, 1.2, 90.7, 8.2]),
    }
    for name, (given, expected) in table.items():
        why = "nothing is rounded" if name.startswith("fractions") else ONE_BASED
        yield Case(name, given, expected, why=why)


def _four_numbers(value: Any) -> list[float]:
    try:
        numbers = [float(v) for v in value]
    except (TypeError, ValueError, RuntimeError):
        numbers = []
    if len(numbers) != 4:
        raise ValueError("four numbers are asked for: x1, y1, x2, y2")
    return numbers


_VOC_BOX = Piece(
    "voc_box(xmin, ymin, xmax, ymax)",
    _voc_box_cases,
    "the pixels that VOC's text means, counted by hand",
    (
        Mistake(
            "a box of 10 pixels became one of 9: take 1 from the minima only",
            lambda *xyxy: [v - 1 for v in xyxy],
        ),
        Mistake(ONE_BASED, lambda *xyxy: [*xyxy]),
        Mistake(
            "the maxima stay as they are: the last pixel is included, it ends one further",
            lambda x1, y1, x2, y2: [x1 - 1, y1 - 1, x2 + 1, y2 + 1],
        ),
        Mistake(
            "the last pixel is included already by taking 1 from the minima",
            lambda x1, y1, x2, y2: [x1, y1, x2 + 1, y2 + 1],
        ),
        Mistake(
            "the order is x1 y1 x2 y2",
            lambda x1, y1, x2, y2: [x1 - 1, x2, y1 - 1, y2],
        ),
        Mistake(
            "the far corner is asked for, not width and height",
            lambda x1, y1, x2, y2: [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1],
        ),
    ),
    read=_four_numbers,
)

# --- an annotation --------------------------------------------------------------------------------

PARTS = "a person's <part>s have names and boxes of their own: look at children of <object> only"
DIFFICULT = "<difficult> is 0 or 1, as text: bool('0') is True; where it is missing, it is 0"


def _object(name: str, box: str, more: str = "") -> str:
    tags = ("xmin", "ymin", "xmax", "ymax")
    bounds = "".join(f"<{tag}>{text}</{tag}>" for tag, text in zip(tags, box.split()))
    return f"<object><name>{name}</name>{more}<bndbox>{bounds}</bndbox></object>"


def _annotation(*objects: str) -> str:
    size = "<size><width>500</width><height>375</height><depth>3</depth></size>"
    return "\n".join([f"<annotation>{size}", *objects, "</annotation>"])


def _annotation_cases() -> Iterator[Case]:
    def found(name: str, *box: float, difficult: bool = False) -> list:
        return [name, list(box), difficult]

    def by_hand(name: str, objects: list[str], *expected: list, why: str = "") -> Case:
        return Case(name, (_annotation(*objects),), list(expected), why=why)

    hard, easy = "<difficult>1</difficult>", "<difficult>0</difficult>"
    yield by_hand(
        "one object",
        [_object("dog", "11 21 20 30", easy)], found("dog", 10.0, 20.0, 20.0, 30.0), why=ONE_BASED,
    )  # fmt: skip
    yield by_hand(
        "two objects, the second difficult",
        [_object("cat", "1 1 9 9", easy), _object("sofa", "1 5 80 60", hard)],
        found("cat", 0.0, 0.0, 9.0, 9.0), found("sofa", 0.0, 4.0, 80.0, 60.0, difficult=True),
        why=DIFFICULT,
    )  # fmt: skip
    yield by_hand(
        "difficult is not said",
        [_object("car", "3 4 5 6")], found("car", 2.0, 3.0, 5.0, 6.0), why=DIFFICULT,
    )  # fmt: skip
    head = "<part><name>head</name>" + _object("", "30 10 60 40").partition("</name>")[2]
    person = _object("person", "20 10 90 200").replace("</object>", head[:-9] + "</part></object>")
    yield by_hand(
        "a person with a head", [person], found("person", 19.0, 9.0, 90.0, 200.0), why=PARTS
    )
    first = person.replace(head[:-9] + "</part>", "")
    first = first.replace("<name>person", head[:-9] + "</part><name>person")
    yield by_hand(
        "the head is written first", [first], found("person", 19.0, 9.0, 90.0, 200.0), why=PARTS
    )
    swapped = "<object><bndbox><ymin>2</ymin><xmin>1</xmin><ymax>8</ymax><xmax>5</xmax></bndbox>"
    yield by_hand(
        "ymin is written before xmin",
        [swapped + "<name>tv</name></object>"], found("tv", 0.0, 1.0, 5.0, 8.0),
        why="some tools write another order: find the numbers by name, not by place",
    )  # fmt: skip
    yield by_hand(
        "a fraction", [_object("bus", "1 1 99.5 40")], found("bus", 0.0, 0.0, 99.5, 40.0),
        why="int('99.5') raises: VOC 2011 and other people's data have fractions",
    )  # fmt: skip
    yield by_hand("nothing in the picture", [], why="an image without objects has an empty list")


def _from_file(function: Callable, text: str) -> Any:
    """A reader's function takes a path, so the text is put into a file first."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "annotation.xml"
        path.write_text(text, encoding="utf-8")
        return function(path)


def _three_each(value: Any) -> list:
    try:
        return [[name, _four_numbers(box), hard] for name, box, hard in value]
    except (TypeError, ValueError):
        raise ValueError("a list is asked for, of (name, (x1, y1, x2, y2), difficult)") from None


def _parsed(
    text: str,
    shift: tuple[int, ...] = (1, 1, 0, 0),
    is_hard: Callable[[str | None], bool] = lambda text: text == "1",
    anywhere: str = "",
) -> list:
    """What is read with a mistake; `anywhere` is ".//" where parts of an object are read too."""
    tags = ("xmin", "ymin", "xmax", "ymax")
    found = []
    for element in ElementTree.fromstring(text).findall("object"):
        bounds = element.find(f"{anywhere}bndbox")
        numbers = [float(bounds.findtext(tag, "")) for tag in tags] if bounds is not None else []
        box = [number - by for number, by in zip(numbers, shift)]
        found.append([element.findtext("name"), box, is_hard(element.findtext("difficult"))])
    return found


_ANNOTATION = Piece(
    "parse_voc_xml(path)",
    _annotation_cases,
    "annotations read by eye",
    [
        Mistake(DIFFICULT, partial(_parsed, is_hard=lambda text: bool(text))),
        Mistake(DIFFICULT, partial(_parsed, is_hard=lambda text: text is not None)),
        Mistake("<difficult> is part of what is asked for",
                partial(_parsed, is_hard=lambda text: False)),
        Mistake(PARTS, partial(_parsed, anywhere=".//")),
        Mistake("a box of 10 pixels became one of 9: take 1 from the minima only",
                partial(_parsed, shift=(1, 1, 1, 1))),
        Mistake(ONE_BASED, partial(_parsed, shift=(0, 0, 0, 0))),
    ],
    read=_three_each,
    invoke=_from_file,
)  # fmt: skip

# --- mirror image ---------------------------------------------------------------------------------


def _mirror(b: Tensor, width: int) -> Tensor:
    return horizontal_flip_bounding_boxes(b, BoundingBoxFormat.XYXY, (1000, width))


def _flip_cases() -> Iterator[Case]:
    def by_hand(name: str, box: tuple, width: int, expected: tuple, why: str = "") -> Case:
        return Case(name, (boxes(box), width), boxes(expected), why=why)

    yield by_hand("at the left border", (0, 5, 10, 9), 100, (90, 5, 100, 9),
                  why="x becomes W − x, so the right border becomes the left; y stays")  # fmt: skip
    yield by_hand("at the right border", (80, 5, 100, 9), 100, (0, 5, 20, 9))
    yield by_hand("in the middle", (40, 0, 60, 9), 100, (40, 0, 60, 9))
    yield by_hand("the first pixel", (0, 0, 1, 1), 7, (6, 0, 7, 1), why="W − x, not W − 1 − x")
    yield by_hand(
        "over the border", (-2, 1, 3, 4), 10, (7, 1, 12, 4), why="nothing is clipped here"
    )
    yield Case("no boxes", (boxes(), 10), boxes(), why="(0, 4) in, (0, 4) out")
    many = some_boxes(6, 0)
    yield Case("random", (many, 40), _mirror(many.clone(), 40))
    mirror = partial(_mirror, width=9)
    few = boxes((1, 2, 4, 8), (3, 0, 5, 5))
    slope = measured_slope(lambda x: mirror(x.clone()), few)
    yield Case("slopes", (few, 9), slope, slope=(0,), atol=1e-4)


_FLIP = Piece(
    "flip_boxes(boxes, width)",
    _flip_cases,
    "torchvision's horizontal flip",
    (
        Mistake(
            "left and right are exchanged too: the new x1 comes from the old x2",
            lambda b, w: torch.stack([w - b[:, 0], b[:, 1], w - b[:, 2], b[:, 3]], 1),
        ),
        Mistake(
            "no − 1: boxes are continuous, the mirror of 0 is W",
            lambda b, w: _mirror(b, w) - torch.tensor([1, 0, 1, 0]),
        ),
        Mistake(
            "a mirror image exchanges left and right: change x, leave y",
            lambda b, w: torch.stack([b[:, 0], w - b[:, 3], b[:, 2], w - b[:, 1]], 1),
        ),
        Mistake(
            "mirroring turns x into W − x; exchanging x1 and x2 alone inverts the box",
            lambda b, w: b[:, [2, 1, 0, 3]],
        ),
        Mistake(
            "that is the picture's middle: mirroring turns x into W − x",
            lambda b, w: _mirror(b, 0),
        ),
    ),
    place=lambda index, b, width: f"the box is {b[index[0]].tolist()}",
)

PIECES = {piece.name: piece for piece in (_VOC_BOX, _ANNOTATION, _FLIP)}
