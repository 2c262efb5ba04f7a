"""Checks of chapter 15's reader: COCO's JSON to classes and targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from retinanet_edu.checks.boxes import boxes
from retinanet_edu.checks.harness import Case, Mistake, Piece

CORNERS = "a bbox is x y w h: the far corner is (x + w, y + h)"
GAPS = "ids of categories have gaps: a label is the place of the id in the sorted list, from 0"
BY_ID = "classes stand in the order of their id, not of the file, nor of their names"
CROWD = "a crowd is difficult: `difficult` is bool, from iscrowd, and False where that is missing"
EMPTY = "an image without annotations has a target too: boxes (0, 4), labels (0,), difficult (0,)"
IMAGES = "the key is the image's id, whatever order the annotations come in"

Row = tuple[int, int, list[float], int | None]  # image, category, bbox, iscrowd


def _content(images: Sequence[int], names: dict[int, str], *rows: Row) -> dict[str, list]:
    annotations = []
    for image, category, bbox, crowd in rows:
        row = {"image_id": image, "category_id": category, "bbox": bbox}
        annotations.append(row if crowd is None else row | {"iscrowd": crowd})
    return {
        "images": [{"id": i} for i in images],
        "categories": [{"id": k, "name": name} for k, name in names.items()],
        "annotations": annotations,
    }


def _target(rows: Sequence[tuple[Sequence[float], int, bool]]) -> dict[str, Tensor]:
    """Boxes by their corners, labels and crowds."""
    return {
        "boxes": boxes(*(box for box, _, _ in rows)),
        "labels": torch.tensor([label for _, label, _ in rows], dtype=torch.int64),
        "difficult": torch.tensor([crowd for _, _, crowd in rows], dtype=torch.bool),
    }


def _cases() -> Iterator[Case]:
    def by_hand(
        name: str, content: dict, classes: list[str], expected: dict[int, list], why: str = ""
    ) -> Case:
        ids = sorted(expected)
        value = {
            "classes": classes,
            "images": ids,
            "targets": [_target(expected[i]) for i in ids],
        }
        return Case(name, (content,), value, why=why)

    cup = {1: "cup"}
    yield by_hand(
        "one object", _content([7], cup, (7, 1, [10, 20, 30, 5], 0)),
        ["cup"], {7: [((10, 20, 40, 25), 0, False)]}, CORNERS,
    )  # fmt: skip
    yield by_hand(
        "ids 3 and 90", _content([7], {3: "car", 90: "brush"}, (7, 90, [0, 0, 4, 5], 0)),
        ["car", "brush"], {7: [((0, 0, 4, 5), 1, False)]}, GAPS,
    )  # fmt: skip
    yield by_hand(
        "the larger id is written first",
        _content([7], {90: "apple", 3: "car"}, (7, 90, [0, 0, 4, 5], 0), (7, 3, [1, 1, 2, 2], 0)),
        ["car", "apple"], {7: [((0, 0, 4, 5), 1, False), ((1, 1, 3, 3), 0, False)]}, BY_ID,
    )  # fmt: skip
    yield by_hand(
        "a crowd",
        _content([7], cup, (7, 1, [0, 0, 9, 9], 1), (7, 1, [2, 3, 1, 1], 0)),
        ["cup"], {7: [((0, 0, 9, 9), 0, True), ((2, 3, 3, 4), 0, False)]}, CROWD,
    )  # fmt: skip
    yield by_hand(
        "iscrowd is not said", _content([7], cup, (7, 1, [1, 2, 3, 4], None)),
        ["cup"], {7: [((1, 2, 4, 6), 0, False)]}, CROWD,
    )  # fmt: skip
    yield by_hand(
        "two images, in turn",
        _content([9, 7], cup, (7, 1, [0, 0, 1, 1], 0), (9, 1, [5, 5, 5, 5], 0),
                 (7, 1, [2, 2, 2, 2], 0)),
        ["cup"],
        {7: [((0, 0, 1, 1), 0, False), ((2, 2, 4, 4), 0, False)], 9: [((5, 5, 10, 10), 0, False)]},
        IMAGES,
    )  # fmt: skip
    yield by_hand(
        "an image without objects", _content([7, 8], cup, (7, 1, [0, 0, 1, 1], 0)),
        ["cup"], {7: [((0, 0, 1, 1), 0, False)], 8: []}, EMPTY,
    )  # fmt: skip
    yield by_hand("no annotations at all", _content([5], cup), ["cup"], {5: []}, EMPTY)
    yield by_hand(
        "a class without objects", _content([5], {2: "cat", 4: "dog"}, (5, 4, [0, 0, 1, 1], 0)),
        ["cat", "dog"], {5: [((0, 0, 1, 1), 1, False)]},
        "a class is a class, whether or not an object has it",
    )  # fmt: skip
    yield by_hand(
        "fractions", _content([5], cup, (5, 1, [0.25, 1.5, 10.5, 2.25], 0)),
        ["cup"], {5: [((0.25, 1.5, 10.75, 3.75), 0, False)]},
        "boxes are float32 and continuous: nothing is rounded, no 1 is taken off",
    )  # fmt: skip


def _classes_and_targets(value: Any) -> dict[str, Any]:
    """Brings images into the order of their id, so that the dict's own order is free."""
    try:
        classes, targets = value
        ids = sorted(targets)
        keys = ("boxes", "labels", "difficult")
        found = [{key: targets[i][key] for key in keys} for i in ids]
        return {"classes": list(classes), "images": ids, "targets": found}
    except (TypeError, ValueError, KeyError, IndexError, RuntimeError):
        raise ValueError(
            "asked for are classes and {image_id: target}, a target with boxes, labels, difficult"
        ) from None


def _read(
    content: dict[str, list],
    *,
    corners: Callable[..., tuple] = lambda x, y, w, h: (x, y, x + w, y + h),
    order: Callable[[dict], Any] | None = lambda category: category["id"],
    label: Callable[[int, int], int] = lambda place, category_id: place,
    is_hard: Callable[[dict], bool] = lambda one: bool(one.get("iscrowd", 0)),
    keep: Callable[[dict], bool] = lambda one: True,
    all_images: bool = True,
) -> dict[str, Any]:
    """What is read; the keywords make it wrong in known ways."""
    categories = content["categories"]
    categories = sorted(categories, key=order) if order else categories
    labels = {c["id"]: label(place, c["id"]) for place, c in enumerate(categories)}
    rows: dict[int, list] = {i["id"]: [] for i in content["images"]} if all_images else {}
    for one in filter(keep, content["annotations"]):
        row = corners(*one["bbox"]), labels[one["category_id"]], is_hard(one)
        rows.setdefault(one["image_id"], []).append(row)
    ids = sorted(rows)
    classes = [c["name"] for c in categories]
    return {"classes": classes, "images": ids, "targets": [_target(rows[i]) for i in ids]}


_READER = Piece(
    "coco_targets(content)",
    _cases,
    "annotations read by eye",
    (
        Mistake(CORNERS, partial(_read, corners=lambda x, y, w, h: (x, y, w, h))),
        Mistake("x and y are the corner, not the centre", partial(
            _read, corners=lambda x, y, w, h: (x - w / 2, y - h / 2, x + w / 2, y + h / 2))),
        Mistake("no − 1: boxes are continuous, x2 = x + w",
                partial(_read, corners=lambda x, y, w, h: (x, y, x + w - 1, y + h - 1))),
        Mistake("labels count from 0: there is no class of the background",
                partial(_read, label=lambda place, category_id: place + 1)),
        Mistake(GAPS, partial(_read, label=lambda place, category_id: category_id)),
        Mistake(GAPS, partial(_read, label=lambda place, category_id: category_id - 1)),
        Mistake(BY_ID, partial(_read, order=None)),
        Mistake(BY_ID, partial(_read, order=lambda category: category["name"])),
        Mistake(CROWD, partial(_read, is_hard=lambda one: False)),
        Mistake(CROWD, partial(_read, is_hard=lambda one: "iscrowd" in one)),
        Mistake("a crowd stays, as a difficult object: dropped, it would be background",
                partial(_read, keep=lambda one: not one.get("iscrowd", 0))),
        Mistake(EMPTY, partial(_read, all_images=False)),
    ),
    read=_classes_and_targets,
)  # fmt: skip

PIECES = {_READER.name: _READER}
