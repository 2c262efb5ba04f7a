"""The page of one picture: what was found in it, how, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from retinanet_edu.boxes import pairwise_iou
from retinanet_edu.explanation.picture import Explanation
from retinanet_edu.explanation.truth_page import (
    Layers,
    asked,
    number,
    tell_verdict,
    truth_layers,
    wrong,
)
from retinanet_edu.html import (
    Markup,
    bar,
    foldout,
    image_tag,
    join,
    page,
    paragraph,
    side_by_side,
    table,
)
from retinanet_edu.plotting import BACKGROUND, POSITIVE, PREDICTION, plot_layers, plot_map

# So many detections are told in full, and so many of what each suppressed.
_TOLD, _SUPPRESSED = 12, 5
_TOP = 12  # anchors before and after decoding
_CLASSES = 10  # in sight; the others can be unfolded


def picture_page(
    explanation: Explanation, name: str, *, score: float = 0.5, notes: Sequence[str] = ()
) -> str:
    """The page.

    Args:
        explanation: of the picture.
        name: of the picture, for people.
        score: detections from this score on are drawn, as in `predict --score`.
        notes: lines for its end, such as where the weights came from.

    Returns:
        the content of an HTML file.
    """
    sections: list[tuple[str, object]] = [
        ("What was found", _found(explanation, score)),
        ("The pyramid", _pyramid(explanation)),
        ("The surest anchors, before and after decoding", _decoding(explanation)),
        ("Each detection", _detections(explanation, score)),
    ]
    if explanation.judgement is not None:
        sections += [
            ("What each anchor was asked", asked(explanation, explanation.judgement)),
            ("What is wrong", wrong(explanation, explanation.judgement, score)),
        ]
    settings = ", ".join(f"{key} {value:g}" for key, value in explanation.settings.items())
    sections.append(("How it was made", [f"Settings: {settings}.", *notes]))
    return page(f"How the model saw {name}", sections)


def _level(explanation: Explanation, anchor: int) -> int:
    return int(explanation.level_of(torch.tensor([anchor])))


def _size(image: Tensor) -> str:
    return f"{image.shape[-1]} × {image.shape[-2]}"


def _found(e: Explanation, score: float) -> list[Markup]:
    found, classes = e.detections, e.classes
    shown = found.scores >= score
    texts = [
        f"{classes[k]} {s:.2f}"
        for k, s in zip(found.labels[shown].tolist(), found.scores[shown].tolist(), strict=True)
    ]
    layers: Layers = truth_layers(e.judgement, classes) if e.judgement else []
    layers = [(boxes, role, ()) for boxes, role, _ in layers]
    layers.append((found.boxes[shown], PREDICTION, texts))
    roles = "solid red: detections"
    if e.judgement:
        roles += "; dashed green: the truth; dash-dotted orange: difficult objects"
    what = ", ".join(texts) or "nothing"
    image = image_tag(
        plot_layers(e.image, layers, longer_side=560),
        f"The picture with boxes around what was found: {what}.",
        caption=f"Detections with scores of {score:g} and more ({roles}).",
        lossy=True,
    )
    kept = int((e.suppressed_by < 0).sum())
    threshold = e.settings["score_threshold"]
    story = paragraph(
        f"The picture has {_size(e.image)} pixels, and the network saw it at {e.seen[1]} × "
        f"{e.seen[0]}. It gave {number(len(e.anchors), 'anchor')} a score for each of "
        f"{number(len(classes), 'class', 'classes')}, {e.scores.numel():,} in all. Candidates are "
        f"those above {threshold:g} that are among the best of their level: {len(e.origins):,}. "
        f"Suppression kept {kept:,}, and at most {e.settings['max_detections']} are detections: "
        f"{len(found)}. Of these, {int(shown.sum())} have a score of {score:g} or more."
    )
    if len(found) == 0:
        best = float(e.scores.max()) if e.scores.numel() else 0.0
        nothing = f"Nothing was found: the best score of any anchor is {best:.3f}."
        return [story, image, paragraph(nothing, kind="bad")]
    head: list[object] = ["detection", "class", "score", "level", "anchor", "suppressed"]
    rows = [_row(e, i) for i in range(len(found))]
    if e.judgement:
        head.append("verdict")
    whole = table(head, rows, "all detections")
    if len(rows) > 2 * _TOLD:
        first = table(head, rows[:_TOLD], "the surest detections")
        rest = table(head, rows[_TOLD:], "the other detections")
        return [story, image, first, foldout(f"The other {len(rows) - _TOLD} detections", rest)]
    return [story, image, whole]


def _row(e: Explanation, i: int) -> list[object]:
    """A detection as a row of the table."""
    place, found = int(e.places[i]), e.detections
    anchor = int(e.origins[place])
    row: list[object] = [
        f"#{i + 1}",
        e.classes[int(found.labels[i])],
        float(found.scores[i]),
        f"P{3 + _level(e, anchor)}",
        anchor,
        len(e.suppressed(place)),
    ]
    return [*row, tell_verdict(e, e.judgement, i)] if e.judgement else row


def _pyramid(e: Explanation) -> list[Markup]:
    names = [f"P{3 + i}" for i in range(len(e.maps))]
    maps = [
        image_tag(
            plot_map(level),
            f"{name} as a map: bright cells are where its vectors are long.",
            caption=f"{name}: {level.min():.3g} … {level.max():.3g}",
        )
        for name, level in zip(names, e.maps, strict=True)
    ]
    text = "How long the pyramid's vector is in each cell, from the shortest, dark, to the longest:"
    levels = e.level_of(e.origins)
    rows = [
        [
            name,
            stride,
            f"{level.shape[0]} × {level.shape[1]}",
            count,
            int((levels == i).sum()),
            int((levels[e.places] == i).sum()),
        ]
        for i, (name, stride, level, count) in enumerate(
            zip(names, e.strides, e.maps, e.anchors_per_level, strict=True)
        )
    ]
    head = ["level", "stride", "cells", "anchors", "candidates", "detections"]
    return [paragraph(text), side_by_side(maps), table(head, rows, "the levels of the pyramid")]


def _decoding(e: Explanation) -> list[Markup]:
    origins = list(dict.fromkeys(e.origins.tolist()))[:_TOP]
    if not origins:  # the surest all the same
        origins = e.scores.amax(dim=1).topk(min(_TOP, len(e.scores))).indices.tolist()
    anchors, boxes = e.anchors[origins], e.boxes[origins]
    iou = pairwise_iou(anchors, boxes).diagonal()
    pictures = [
        image_tag(
            plot_layers(e.image, [(some, role, ())], longer_side=380),
            f"The picture with {len(origins)} boxes: {alt}.",
            caption=caption,
            lossy=True,
        )
        for some, role, alt, caption in (
            (anchors, POSITIVE, "anchors, all of the shapes of the grid", "Before: the anchors."),
            (boxes, PREDICTION, "decoded", "After: what their offsets make of them."),
        )
    ]
    text = (
        f"The {len(origins)} anchors with the best scores, whatever the class. Decoding moves "
        f"and stretches each: their IoU with their own box is {iou.mean():.2f} on average, and "
        f"{iou.min():.2f} at least."
    )
    return [paragraph(text), side_by_side(pictures)]


def _detections(e: Explanation, score: float) -> list[Markup]:
    found = e.detections
    told = min(max(int((found.scores >= score).sum()), min(3, len(found))), _TOLD)
    text = (
        "Each with the anchor that it comes from (blue) and what it suppressed (grey, dotted), in "
        "the part of the picture around them, and with the anchor's scores for all classes. One "
        "anchor may speak for several classes, since each class has a sigmoid of its own, and "
        "suppresses its own candidates alone."
    )
    if told < len(found):
        text += f" Of {len(found)} detections, the first {told} are told."
    return [paragraph(text), *(_one(e, i) for i in range(told))]


def _one(e: Explanation, i: int) -> Markup:
    """All about one detection."""
    place, found = int(e.places[i]), e.detections
    anchor, label = int(e.origins[place]), int(found.labels[i])
    gone = e.suppressed(place)
    first = gone[:_SUPPRESSED]
    level = _level(e, anchor)
    columns = e.maps[level].shape[1]
    before = sum(e.anchors_per_level[:level])
    cells = e.maps[level].numel()
    cell = (anchor - before) // max(1, e.anchors_per_level[level] // cells)
    x1, y1, x2, y2 = e.anchors[anchor].tolist()
    a1, b1, a2, b2 = found.boxes[i].tolist()
    name = f"{e.classes[label]} {found.scores[i]:.2f}"
    part, layers = zoom(
        e.image,
        [
            (e.candidates.boxes[first], BACKGROUND, ()),
            (e.anchors[[anchor]], POSITIVE, ()),
            (found.boxes[[i]], PREDICTION, [name]),
        ],
    )
    image = image_tag(
        plot_layers(part, layers, longer_side=380),
        f"The picture with the detection {name}, its anchor, and {len(first)} of the "
        f"{len(gone)} candidates that it suppressed.",
        lossy=True,
    )
    story = [
        paragraph(
            f"Level P{3 + level} (stride {e.strides[level]}), row {cell // columns + 1}, column "
            f"{cell % columns + 1}: anchor {anchor:,} of {x2 - x1:.0f} × {y2 - y1:.0f} pixels at "
            f"({x1:.0f}, {y1:.0f}) became a box of {a2 - a1:.0f} × {b2 - b1:.0f} at "
            f"({a1:.0f}, {b1:.0f})."
        ),
        _all_scores(e, anchor),
    ]
    if len(gone):
        rows = [
            [
                float(e.candidates.scores[p]),
                float(e.overlap[p]),
                f"P{3 + _level(e, int(e.origins[p]))}",
                int(e.origins[p]),
            ]
            for p in first.tolist()
        ]
        more = f", the best {len(first)} of them" if len(gone) > len(first) else ""
        story.append(
            paragraph(f"It suppressed {number(len(gone), 'candidate')} of its class{more}:")
        )
        story.append(table(["score", "IoU", "level", "anchor"], rows, "suppressed candidates"))
    else:
        story.append(paragraph("It suppressed nothing."))
    summary = f"#{i + 1} {name}, from P{3 + level}, suppressed {len(gone)}"
    if e.judgement:
        summary += f"; {tell_verdict(e, e.judgement, i)}"
    return foldout(summary, side_by_side([image, join(story, "div")]), is_open=i == 0)


def zoom(image: Tensor, layers: Layers) -> tuple[Tensor, Layers]:
    """The part of a picture around some boxes.

    Args:
        image: uint8 (3, H, W).
        layers: for `plot_layers`, at least one box among them.

    Returns:
        the part that holds all the boxes, as far as they lie in the picture, with a quarter of its
        side around them and at least 16 pixels; and the layers in its pixels.
    """
    height, width = image.shape[-2:]
    boxes = torch.cat([some for some, _, _ in layers])  # (M, 4)
    (x1, y1), (x2, y2) = boxes[:, :2].amin(dim=0).tolist(), boxes[:, 2:].amax(dim=0).tolist()
    margin = max(x2 - x1, y2 - y1, 32) / 4 + 8
    left, right = (min(max(round(x), 0), width) for x in (x1 - margin, x2 + margin))
    top, below = (min(max(round(y), 0), height) for y in (y1 - margin, y2 + margin))
    shift = torch.tensor([left, top, left, top])
    moved = [(some - shift, role, texts) for some, role, texts in layers]
    return image[:, top:below, left:right], moved


def _all_scores(e: Explanation, anchor: int) -> Markup:
    order = e.scores[anchor].argsort(descending=True, stable=True).tolist()
    rows = [
        [e.classes[k], float(e.scores[anchor, k]), bar(float(e.scores[anchor, k]))] for k in order
    ]
    head = ["class", "score", "of 1"]
    first = table(head, rows[:_CLASSES], "scores of the anchor")
    if len(rows) <= _CLASSES:
        return first
    rest = table(head, rows[_CLASSES:], "scores of the anchor, the other classes")
    return join([first, foldout(f"The other {len(rows) - _CLASSES} classes", rest)])
