"""The doctor's page: every finding with its numbers and a contact sheet of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from retinanet_edu import html
from retinanet_edu.data.doctor.findings import GRADES, Diagnosis, Finding, Place
from retinanet_edu.data.doctor.survey import Survey
from retinanet_edu.data.images import read_image
from retinanet_edu.errors import DataError
from retinanet_edu.html import Markup
from retinanet_edu.plotting import GROUND_TRUTH, PREDICTION

_PICTURES = 12  # of a finding
_LISTED = 200  # places that the page lists; the JSON has all
_SIDE = 240  # of a small picture, in pixels
_CELL = "flex: 0 0 min(15rem, calc(50% - 0.5rem))"  # two beside each other on a phone
_MARGIN = 0.35  # how much of what is beyond the border is shown, in parts of the longer side
_NEAR = 6.0  # a close look is so many times as wide as the object
_NEAR_LEAST = 48.0  # and at least so many pixels of the picture
_DASH = 5
_DRAWN = 200  # boxes of a picture, as many again that are marked
_BEYOND = (128, 128, 128)  # what lies beyond the picture


def diagnosis_page(diagnosis: Diagnosis) -> str:
    """The page of a diagnosis.

    Args:
        diagnosis: of `examine`.

    Returns:
        HTML that needs nothing else.
    """
    sections: list[tuple[str, object]] = [("In short", _overview(diagnosis))]
    for grade in GRADES:
        for finding in diagnosis.graded(grade):
            sections.append(
                (f"{grade.capitalize()}: {finding.kind}", _section(finding, diagnosis.survey))
            )
    return html.page(f"What the doctor says of {diagnosis.root}", sections)


def _overview(diagnosis: Diagnosis) -> list[Markup]:
    found = [
        html.join([html.join([f"{f.grade}: {f.kind}"], "strong"), f" · {f.what}."], "li")
        for f in diagnosis.findings
    ]
    rest = [(name, count) for name, count in diagnosis.objects.items()]
    is_well = not diagnosis.graded("error")
    return [
        html.paragraph(
            f"{diagnosis.summary}. Format {diagnosis.format}, judged for pictures whose longer "
            f"side is {diagnosis.image_size} pixels."
        ),
        html.paragraph(
            "Nothing would make training wrong."
            if is_well
            else "Mend the errors before you train: with them, training would be wrong.",
            kind="" if is_well else "bad",
        ),
        html.join(found, "ul"),
        html.foldout("Objects by class", html.table(("class", "objects"), rest)),
    ]


def _section(finding: Finding, survey: Survey) -> list[Markup]:
    parts = [
        html.paragraph(f"{finding.what[:1].upper()}{finding.what[1:]}."),
        html.paragraph(html.join(["What to do: "], "strong"), finding.remedy),
    ]
    sheet = list(_contact_sheet(finding, survey))
    if sheet:
        parts.append(html.side_by_side(sheet))
    parts += [
        part
        for table in finding.tables
        for part in (html.paragraph(table.title, kind="soft"),
                     html.table(table.head, table.rows, table.title))
    ]  # fmt: skip
    if finding.places:
        shown = finding.places[:_LISTED]
        rows = [(p.file, ", ".join(map(str, p.objects)), p.says) for p in shown]
        more = len(finding.places) - len(shown)
        note = [html.paragraph(f"and {more} more, in report.json", kind="soft")] if more else []
        words = f"{len(finding.places)} places"
        parts.append(
            html.foldout(words, html.table(("file", "object", "what"), rows, words), *note)
        )
    return parts


def _contact_sheet(finding: Finding, survey: Survey) -> Iterable[Markup]:
    """Small pictures, the worst first, one for each record; of places spread over the list."""
    by_record: dict[int, list[Place]] = {}
    for place in finding.places:
        if place.record >= 0 and survey.looks[place.record].size is not None:
            by_record.setdefault(place.record, []).append(place)
    for record, places in list(by_record.items())[:_PICTURES]:
        numbers = sorted({number for place in places for number in place.objects})
        try:
            picture = draw_record(survey, record, numbers, is_small=finding.is_small)
        except DataError:  # gone since it was read
            continue
        marked = f"object {', '.join(map(str, numbers))}: " if numbers else ""
        says = f"{marked}{places[0].says}"
        name = survey.file_of(record, picture=True)
        objects = len(survey.record(record).objects)
        alt = f"{name} with the boxes of {objects} objects. {finding.kind}: {says}"
        tag = html.image_tag(
            picture, alt, caption=f"{survey.record(record).picture.name} · {says}", lossy=True
        )
        yield html.join([tag], "div", style=_CELL)


def draw_record(
    survey: Survey, record: int, marked: Sequence[int] = (), *, is_small: bool = False
) -> np.ndarray:
    """A small picture with its boxes: dashed green, those that are marked orange and solid.

    Boxes that reach out of the picture are followed a little way beyond its border. Inverted ones
    are drawn as if they were not.

    Args:
        survey: of the data set.
        record: whose picture is drawn.
        marked: numbers of objects, from 1.
        is_small: show the first marked object and what is around it, instead of all.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: the picture cannot be read.
    """
    image = Image.fromarray(read_image(survey.record(record).picture).movedim(0, -1).numpy())
    mine = survey.image == record
    boxes, numbers = survey.boxes[mine], survey.number[mine]
    finite = np.isfinite(boxes).all(axis=1)
    boxes, numbers = boxes[finite], numbers[finite]
    boxes = np.concatenate(
        [np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1
    )
    is_marked = np.isin(numbers, list(marked))
    window = _window(image.size, boxes[is_marked], is_small)
    left, top, right, bottom = window
    scale = _SIDE / max(right - left, bottom - top)
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    canvas = image.transform(
        size, Image.Transform.EXTENT, window, Image.Resampling.BILINEAR, fillcolor=_BEYOND
    ) if scale > 1 else _shrunk(image, window, size)  # fmt: skip
    draw = ImageDraw.Draw(canvas)
    order = np.concatenate(
        [np.flatnonzero(~is_marked)[:_DRAWN], np.flatnonzero(is_marked)[:_DRAWN]]
    )
    for box, is_wrong in zip(boxes[order], is_marked[order]):
        x1, y1, x2, y2 = ((box - [left, top, left, top]) * scale).clip(-_SIDE, 2 * _SIDE)
        if is_wrong:
            draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline="white", width=4)
            draw.rectangle((x1, y1, x2, y2), outline=PREDICTION.colour, width=2)
        else:
            _dashed(draw, x1, y1, x2, y2)
    return np.asarray(canvas)


def _shrunk(
    image: Image.Image, window: tuple[int, int, int, int], size: tuple[int, int]
) -> Image.Image:
    """A part of the picture, and of what is beyond it, made smaller without losing fine lines."""
    left, top, right, bottom = window
    part = Image.new("RGB", (right - left, bottom - top), _BEYOND)
    part.paste(image, (-left, -top))
    return part.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _window(size: tuple[int, int], marked: np.ndarray, is_small: bool) -> tuple[int, int, int, int]:
    """x1 y1 x2 y2 of what is shown, in pixels of the picture."""
    width, height = size
    if is_small and len(marked):
        x1, y1, x2, y2 = marked[0]
        half = max(_NEAR_LEAST, _NEAR * max(x2 - x1, y2 - y1)) / 2
        half = min(half, max(size) / 2)
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        # Inside of the picture where it is large enough.
        x = min(max(x, half), width - half) if width > 2 * half else width / 2
        y = min(max(y, half), height - half) if height > 2 * half else height / 2
        window = (max(0, x - half), max(0, y - half), min(width, x + half), min(height, y + half))
    else:
        room = _MARGIN * max(size)
        lowest = marked.min(axis=0, initial=0.0)
        highest = marked.max(axis=0, initial=0.0)
        window = (
            max(min(0.0, lowest[0]), -room),
            max(min(0.0, lowest[1]), -room),
            min(max(width, highest[2]), width + room),
            min(max(height, highest[3]), height + room),
        )
    left, top, right, bottom = (round(float(value)) for value in window)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _dashed(draw: ImageDraw.ImageDraw, x1: float, y1: float, x2: float, y2: float) -> None:
    colour = GROUND_TRUTH.colour
    for start in np.arange(x1, x2, 2 * _DASH):
        for y in (y1, y2):
            draw.line((start, y, min(start + _DASH, x2), y), fill=colour, width=2)
    for start in np.arange(y1, y2, 2 * _DASH):
        for x in (x1, x2):
            draw.line((x, start, x, min(start + _DASH, y2)), fill=colour, width=2)
