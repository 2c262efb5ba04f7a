"""Conventions, judged over all boxes at once: what four numbers mean, where pixels count from.

One box seldom betrays them. A thousand do: numbers in the wrong order fall outside of pictures
or turn boxes inside out, and objects that the picture cuts off pile up at its border, wherever
the annotator's counting puts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from retinanet_edu.boxes import pairwise_iou
from retinanet_edu.data.doctor.findings import Finding, Place, Table
from retinanet_edu.data.doctor.survey import Survey, is_proper

# A whole data set is doubted where so many boxes of it are impossible, and at least so many …
_MANY, _AT_LEAST = 0.05, 8
# … and another reading leaves at most this share of those impossible.
_UNEXPLAINED = 0.1

# Border counts: how far from the border to look, how many sides must lie at one distance, how
# far above the others, and how many of these may lie beyond.
_FAR, _PILE, _ABOVE, _BEYOND = 4, 8, 1.5, 0.05

Reading = Callable[[np.ndarray, np.ndarray], np.ndarray]
_EXAMPLES = 40

# So many objects that all lie in such a part of their pictures are there for a reason.
_ENOUGH, _CORNER = 50, 0.7


def _from_corner(n: np.ndarray, size: np.ndarray) -> np.ndarray:
    return np.concatenate([n[:, :2], n[:, :2] + n[:, 2:]], axis=1)


def _from_centre(n: np.ndarray, size: np.ndarray) -> np.ndarray:
    return np.concatenate([n[:, :2] - n[:, 2:] / 2, n[:, :2] + n[:, 2:] / 2], axis=1)


def _corners(n: np.ndarray, size: np.ndarray) -> np.ndarray:
    return n


# What four numbers can mean; `size` is W H W H of each box's picture, (O, 4).
READINGS: dict[str, Reading] = {
    "x y width height": _from_corner,
    "centre x, centre y, width, height": _from_centre,
    "x1 y1 x2 y2": _corners,
    "y1 x1 y2 x2": lambda n, size: n[:, [1, 0, 3, 2]],
    "x1 x2 y1 y2": lambda n, size: n[:, [0, 2, 1, 3]],
    "x1 y1 x2 y2 in parts of the picture": lambda n, size: n * size,
    "x y width height in parts of the picture": lambda n, size: _from_corner(n * size, size),
    "centre x, centre y, width, height in parts of the picture": (
        lambda n, size: _from_centre(n * size, size)
    ),
}
# What each format means by them.
_EXPECTED = {
    "voc": "x1 y1 x2 y2",
    "coco": "x y width height",
    "yolo": "centre x, centre y, width, height in parts of the picture",
}


def numbers_as_written(survey: Survey) -> np.ndarray:
    """The four numbers of each object as they stand in the file.

    Args:
        survey: of the data set.

    Returns:
        (O, 4) in the order and the units of the format.
    """
    boxes, size = survey.boxes, _sizes(survey)
    with np.errstate(invalid="ignore"):
        if survey.records.format == "voc":
            return boxes + np.array([1, 1, 0, 0])
        sides = boxes[:, 2:] - boxes[:, :2]
        if survey.records.format == "coco":
            return np.concatenate([boxes[:, :2], sides], axis=1)
        return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, sides], axis=1) / size


def _sizes(survey: Survey) -> np.ndarray:
    """(O, 4) W H W H of each object's picture."""
    return survey.frames[survey.image][:, [1, 0, 1, 0]]


def check_format(survey: Survey) -> Iterator[Finding]:
    """Whether the four numbers of all boxes mean something else.

    Args:
        survey: of the data set.

    Returns:
        a finding "format"; single boxes need not be judged then.
    """
    known = survey.is_finite & np.isfinite(_sizes(survey)).all(axis=1)
    if known.sum() < _AT_LEAST:
        return
    expected = _EXPECTED[survey.records.format]
    numbers, size = numbers_as_written(survey)[known], _sizes(survey)[known]
    frames = survey.frames[survey.image][known]
    wrong = {
        name: float(1 - _is_possible(reading(numbers, size), frames).mean())
        for name, reading in READINGS.items()
    }
    if wrong[expected] < _MANY or wrong[expected] * known.sum() < _AT_LEAST:
        return
    best = min(wrong, key=lambda name: wrong[name])
    if wrong[best] > _UNEXPLAINED * wrong[expected]:
        return
    rivals = [n for n in wrong if n not in (best, expected) and wrong[n] <= 2 * wrong[best]]
    rows = [(name, round(100 * (1 - share), 1)) for name, share in wrong.items()]
    # Those that look worst as they are read now.
    bad = np.flatnonzero(known)[~_is_possible(READINGS[expected](numbers, size), frames)]
    shown = np.zeros(len(survey.boxes), dtype=bool)
    shown[bad[:_EXAMPLES]] = True
    total = len(survey.boxes)
    doubt = f" (or as {' or '.join(rivals)}, which fit as well)" if rivals else ""
    yield Finding(
        "error", "format",
        f"all {total} boxes seem to be written as {best}{doubt}, and are read as {expected}: so "
        f"{100 * wrong[expected]:.0f} % of them are inverted, empty, or outside of their picture",
        f"write them as {expected}, as {survey.records.format.upper()} wants them; single boxes "
        "were not judged.",
        total, survey.places(shown), harm=1.0,
        tables=[Table("boxes that are possible, by what their numbers mean",
                      ("read as", "possible, %"), rows)],
    )  # fmt: skip


def _is_possible(boxes: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """(O,) bool: a proper box, and at least a pixel wide and high.

    What is smaller is a fraction of the picture that was taken for pixels.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    return is_proper(boxes, frames) & (sides.min(axis=1) > 1 - 1e-6)


def check_scale(survey: Survey) -> Iterator[Finding]:
    """Whether all boxes keep to the upper left part of the pictures.

    Args:
        survey: of the data set.

    Returns:
        a finding "scale": the pictures were enlarged, and the boxes were not.
    """
    sound = survey.is_sound & np.isfinite(_sizes(survey)).all(axis=1)
    if sound.sum() < _ENOUGH:
        return
    reach = np.quantile((survey.boxes / _sizes(survey))[sound, 2:], 0.99, axis=0)  # (2,) x y
    if reach.max() > _CORNER:
        return
    yield Finding(
        "warning", "scale",
        f"hardly a box reaches beyond {100 * reach[0]:.0f} % of the width and "
        f"{100 * reach[1]:.0f} % of the height of its picture",
        "look at them: if the boxes are off their objects, the pictures were enlarged after they "
        "were annotated; scale the boxes too.",
        int(sound.sum()), survey.places(sound), harm=0.9,
    )  # fmt: skip


def check_borders(survey: Survey) -> Iterator[Finding]:
    """Whether pixels are counted from another number, or boxes are a pixel too wide.

    Objects that the picture cuts off end at its border. In a right data set many left and upper
    edges are exactly 0, many right and lower ones exactly the picture's width and height, and
    none lies beyond.

    Args:
        survey: of the data set.

    Returns:
        a finding "off-by-one", or nothing where too few edges lie at the border to tell.
    """
    sound = survey.is_sound
    boxes, size = survey.boxes[sound], _sizes(survey)[sound]
    if not len(boxes):
        return
    low = _pile(boxes[:, :2].ravel())
    high = _pile((size - boxes)[:, 2:].ravel())
    minimum, maximum = (0 if pile is None else pile for pile in (low, high))
    maximum = -maximum  # how far beyond the border the pile lies
    if minimum == maximum == 0:
        return
    meant = boxes - [minimum, minimum, maximum, maximum]
    overlap = pairwise_iou(torch.from_numpy(boxes)[:, None], torch.from_numpy(meant)[:, None])
    median = float(overlap.median())
    edges = np.where(minimum, survey.boxes[:, :2] == minimum, False).any(axis=1)
    edges |= np.where(maximum, (survey.boxes - _sizes(survey))[:, 2:] == maximum, False).any(axis=1)
    places: list[Place] = survey.places(sound & edges)[:_EXAMPLES]
    rows = [
        (f"{distance:+d}", _count(boxes[:, :2], distance), _count((boxes - size)[:, 2:], distance))
        for distance in range(-_FAR, _FAR + 1)
    ]
    said = [
        f"left and upper edges by {minimum:+d}" if minimum else "",
        f"right and lower edges by {maximum:+d}" if maximum else "",
    ]
    yield Finding(
        "error", "off-by-one",
        f"all {len(survey.boxes)} boxes seem to be off by {max(abs(minimum), abs(maximum))} "
        f"pixel: {' and '.join(filter(None, said))}. So many objects end there, where they should "
        f"end at the border; the median box overlaps the one that was meant by {median:.3f}",
        _advice(survey.records.format, minimum, maximum),
        len(survey.boxes), places, harm=0.95,
        tables=[Table("edges near the border, by their distance beyond it in pixels as read",
                      ("distance", "left and upper", "right and lower"), rows)],
    )  # fmt: skip


def _count(values: np.ndarray, at: int) -> int:
    return int((np.abs(values - at) < 0.01).sum())


def _pile(distances: np.ndarray) -> int | None:
    """Where the edges pile up, of their distances from the border to the inside, in pixels."""
    counts = {at: _count(distances, at) for at in range(-_FAR, _FAR + 1)}
    top = max(counts, key=lambda at: counts[at])
    others = [counts[at] for at in counts if at != top]
    if counts[top] < max(_PILE, _ABOVE * max(others)):
        return None
    beyond = int((distances < top - 0.01).sum())
    return top if beyond <= _BEYOND * counts[top] else None


def _advice(form: str, minimum: int, maximum: int) -> str:
    """Numbers as written are what is added to mend them."""
    if form == "voc":
        now = f"minima start at {1 + minimum} and maxima end at the width {maximum:+d}"
        if maximum == 0:
            now = f"minima start at {1 + minimum}"
        return (
            f"VOC counts pixels from 1 and includes the last one; here {now}. Add "
            f"{-minimum:+d} to xmin and ymin, and {-maximum:+d} to xmax and ymax, in all files."
        )
    return (
        f"add {-minimum:+d} to x1 and y1 and {-maximum:+d} to x2 and y2 of all boxes, before they "
        f"are written as {form.upper()}; was VOC's counting from 1 forgotten on the way?"
    )
