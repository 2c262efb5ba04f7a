"""Boxes, one by one: no numbers, inverted, empty, outside, twice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from retinanet_edu.boxes import pairwise_iou
from retinanet_edu.data.doctor.findings import Finding, Place
from retinanet_edu.data.doctor.survey import Survey, is_gone, is_outside

# Two boxes that are this alike are one object annotated twice: on a side of 60 pixels, 1 apart.
SAME_IOU = 0.95
_CROWD = 2000  # objects of a picture that are compared with each other
_MANY_OUTSIDE = 0.2  # of all boxes: then it is the pictures, not the boxes


def check_boxes(survey: Survey) -> Iterator[Finding]:
    """Boxes that no picture can have.

    Args:
        survey: of the data set.

    Returns:
        findings "nan", "inverted", "empty" and "outside"; a box has at most one of them.
    """
    boxes = survey.boxes
    unknown = ~survey.is_finite
    with np.errstate(invalid="ignore"):
        sides = np.stack([boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]], axis=1)  # (O, 2)
    narrowest = sides.min(axis=1, initial=np.inf)
    inverted = ~unknown & (narrowest < 0)
    frames = survey.frames[survey.image]
    outside = ~unknown & ~inverted & (narrowest > 0) & is_outside(boxes, frames)
    empty = ~unknown & ~inverted & ~outside & is_gone(boxes, frames)
    gone = "training would stop there"
    if unknown.any():
        yield _finding(
            survey, unknown, "nan",
            "a number that is missing, no number, or infinite",
            f"draw them again or remove them; {gone}, or every weight would become NaN.", 1.0,
        )  # fmt: skip
    if inverted.any():
        yield _finding(
            survey, inverted, "inverted",
            "their right edge left of the left one, or their lower edge above the upper one",
            f"exchange the two; {gone}. Where many boxes are inverted, their numbers may mean "
            "something else.", 0.85,
        )  # fmt: skip
    if empty.any():
        yield _finding(
            survey, empty, "empty",
            "no width or no height, or lie on the border of their picture",
            f"draw them again or remove them; {gone}.", 0.85,
        )  # fmt: skip
    if outside.any():
        factor = float((boxes[outside, 2:] / frames[outside, ::-1]).max())
        hint = ""
        if outside.mean() > _MANY_OUTSIDE:
            hint = f". The farthest reach to {factor:.2f} times its size: was it made smaller?"
        yield _finding(
            survey, outside, "outside",
            f"a part outside of the picture, by more than a pixel{hint}",
            "cut them at the border; where they are far off, look whether the picture was scaled "
            "or turned after it was annotated.", 0.75,
        )  # fmt: skip


def _finding(
    survey: Survey, which: np.ndarray, kind: str, what: str, remedy: str, harm: float
) -> Finding:
    count = int(which.sum())
    words = f"{count} {'box has' if count == 1 else 'boxes have'} {what}"
    return Finding("error", kind, words, remedy, count, survey.places(which), harm)


def check_doubles(survey: Survey) -> Iterator[Finding]:
    """Objects that were annotated twice.

    Args:
        survey: of the data set.

    Returns:
        findings "duplicate", of one class, and "contradiction", of two.
    """
    sound = survey.is_sound
    doubles: list[Place] = []
    quarrels: list[Place] = []
    # Objects of a record follow one another.
    ends = np.cumsum(np.bincount(survey.image, minlength=len(survey.looks)))
    for record, (start, stop) in enumerate(zip([0, *ends], ends)):
        if stop - start < 2:
            continue
        if stop - start > _CROWD:  # too many to compare each with each
            stop = start + _CROWD
        some = torch.from_numpy(survey.boxes[start:stop])
        alike = (pairwise_iou(some, some) >= SAME_IOU).numpy()
        alike &= sound[start:stop, None] & sound[None, start:stop]
        for a, b in np.argwhere(np.triu(alike, 1)) + start:
            objects = (int(survey.number[a]), int(survey.number[b]))
            is_same = survey.names[a] == survey.names[b]
            says = survey.names[a] if is_same else f"{survey.names[a]} and {survey.names[b]}"
            place = Place(survey.file_of(record), str(says), objects, record)
            (doubles if is_same else quarrels).append(place)
    if doubles:
        yield Finding(
            "warning", "duplicate",
            f"{len(doubles)} objects are annotated twice with the same box and class; nothing "
            "can find the second one, so recall suffers",
            "remove one of the two.",
            len(doubles), doubles, harm=0.5,
        )  # fmt: skip
    if quarrels:
        yield Finding(
            "warning", "contradiction",
            f"{len(quarrels)} objects are annotated twice with the same box and two classes; "
            "only one of the two is learned",
            "decide, and remove the other.",
            len(quarrels), quarrels, harm=0.55,
        )  # fmt: skip
