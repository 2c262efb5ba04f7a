"""The part of a picture's page that needs the truth: what anchors were asked, and what is wrong."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from retinanet_edu.explanation.mistakes import KINDS, REASONS, Miss
from retinanet_edu.explanation.picture import Explanation, Judgement
from retinanet_edu.html import Markup, image_tag, paragraph, side_by_side, table
from retinanet_edu.matching import BACKGROUND, IGNORED
from retinanet_edu.plotting import GROUND_TRUTH, POSITIVE, Role, plot_layers
from retinanet_edu.plotting import IGNORED as ORANGE

Layers = list[tuple[Tensor, Role, Sequence[str]]]

_DRAWN = 40  # anchors in one picture; more are a heap


def number(count: int, one: str, many: str = "") -> str:
    """A count with its noun: one, or many, which is one + s if nothing else is said."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def truth_layers(judgement: Judgement, classes: Sequence[str]) -> Layers:
    """The objects of a picture, difficult ones as ignored.

    Args:
        judgement: with the truth.
        classes: names of the K classes.

    Returns:
        layers for `plot_layers`.
    """
    hard = judgement.difficult
    names = [classes[k] for k in judgement.labels[~hard].tolist()]
    return [
        (judgement.boxes[hard], ORANGE, ()),
        (judgement.boxes[~hard], GROUND_TRUTH, names),
    ]


def tell_verdict(e: Explanation, judgement: Judgement, i: int) -> str:
    """Verdict on detection i of the explanation e, by its judgement, in a few words."""
    verdict = judgement.verdicts[i]
    if verdict.object < 0:
        return f"{verdict.kind} (IoU {verdict.iou:.2f})"
    name = e.classes[int(judgement.labels[verdict.object])]
    return f"{verdict.kind} (IoU {verdict.iou:.2f} with {name} {verdict.object + 1})"


def asked(e: Explanation, judgement: Judgement) -> list[Markup]:
    """What each anchor of the explanation e is asked, by its judgement: parts of a page."""
    head = ["level", "positive", "ignored", "background"]
    counts = judgement.count_levels(e.anchors_per_level)
    rows = [[f"P{3 + i}", *row] for i, row in enumerate(counts)]
    rows.append(["all", *(sum(column) for column in zip(*counts, strict=True))])
    positive = (judgement.match >= 0).nonzero()[:, 0]
    ignored = (judgement.match == IGNORED).nonzero()[:, 0]
    background = int((judgement.match == BACKGROUND).sum())
    spread = [chosen[:: max(1, -(-len(chosen) // _DRAWN))] for chosen in (ignored, positive)]
    layers: Layers = [
        (judgement.boxes[~judgement.difficult], GROUND_TRUTH, ()),
        (judgement.boxes[judgement.difficult], ORANGE, ()),
    ]
    pictures = [
        image_tag(
            plot_layers(e.image, [(e.anchors[some], role, ()), *layers], longer_side=380),
            f"The picture with {len(some)} anchors that are {kind}, and the objects.",
            caption=f"{number(len(every), 'anchor')} {verb}"
            + (f", of which {len(some)} are drawn." if len(some) < len(every) else "."),
            lossy=True,
        )
        for some, every, role, kind, verb in (
            (spread[1], positive, POSITIVE, "positive", "must find an object"),
            (spread[0], ignored, ORANGE, "ignored", "are asked nothing"),
        )
    ]
    text = (
        "In training, an anchor with IoU 0.5 or more with its best object is positive and must "
        "find it. One below 0.4 is background. In between, and on difficult objects, nothing is "
        f"asked. The other {background:,} anchors must say nothing at all."
    )
    cost = judgement.losses
    price = (
        f"By this the picture would cost {cost.total:.3f} in training: {cost.classification:.3f} "
        f"for classes and {cost.box:.3f} for boxes."
    )
    return [
        paragraph(text),
        table(head, rows, "anchors by level"),
        side_by_side(pictures),
        paragraph(price),
    ]


def wrong(e: Explanation, judgement: Judgement, score: float) -> list[Markup]:
    """Objects and false detections of the explanation e, by its judgement: parts of a page.

    Args:
        e, judgement: of the picture.
        score: detections from this score on are drawn.

    Returns:
        the parts.
    """
    misses = {miss.object: miss for miss in judgement.misses}
    finder = {v.object: i for i, v in enumerate(judgement.verdicts) if v.kind == "true"}
    rows: list[list[object]] = []
    for g, label in enumerate(judgement.labels.tolist()):
        positives = int((judgement.match == g).sum())
        if judgement.difficult[g]:
            fate = "difficult: need not be found"
        elif g in misses:
            fate = f"missed, {misses[g].reason}: {tell_miss(e, misses[g])}"
        else:
            i = finder[g]
            own = float(e.detections.scores[i])
            fate = f"found by #{i + 1}, score {own:.2f}"
            fate += f", which is below {score:g} and not drawn" if own < score else ""
        name = f"{e.classes[label]} {g + 1}"
        rows.append([name, positives, float(judgement.anchor_iou[g]), fate])
    objects = table(["object", "anchors", "best IoU", "what became of it"], rows, "the objects")
    parts = [paragraph("Each object, with the anchors that answer for it:"), objects]
    if not rows:
        parts = [paragraph("There is no object, so that every detection is false.")]
    is_false = [i for i, verdict in enumerate(judgement.verdicts) if verdict.is_false]
    sure = [i for i in is_false if e.detections.scores[i] >= score]
    parts.append(
        paragraph(
            f"{number(len(is_false), 'detection')} of {len(judgement.verdicts)} "
            f"{'is' if len(is_false) == 1 else 'are'} false, {len(sure)} with a score of {score:g} "
            "or more:"
        )
    )
    kinds = [kind for kind in KINDS if kind not in ("true", "ignored")]
    counted = [
        [
            kind,
            sum(judgement.verdicts[i].kind == kind for i in sure),
            sum(judgement.verdicts[i].kind == kind for i in is_false),
            KINDS[kind],
        ]
        for kind in kinds
    ]
    head = ["mistake", f"from {score:g}", "all", "what it means"]
    parts.append(table(head, counted, "false detections by kind"))
    return parts


def tell_miss(explanation: Explanation, miss: Miss) -> str:
    """Why an object was missed, with the numbers.

    Args:
        explanation: of the picture.
        miss: of its judgement.

    Returns:
        one sentence, without a full stop.
    """
    e, text = explanation, REASONS[miss.reason]
    scores = e.candidates.scores
    if miss.reason == "suppressed":
        by = int(e.suppressed_by[miss.place])
        number = (e.places == by).nonzero()
        who = f"#{int(number[0]) + 1}" if len(number) else "a candidate beyond the limit"
        return (
            f"{text} (score {scores[miss.place]:.2f}, by {who} of score {scores[by]:.2f}, IoU "
            f"{e.overlap[miss.place]:.2f})"
        )
    if miss.place >= 0:
        name = e.classes[int(e.candidates.labels[miss.place])]
        return f"{text} ({name}, score {scores[miss.place]:.2f})"
    if miss.reason == "no box":
        return f"{text} (the nearest has {miss.box_iou:.2f})"
    if miss.score == miss.score:  # not nan
        return f"{text} (best score of a box on it {miss.score:.3f})"
    return text
