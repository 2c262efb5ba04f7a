"""The page of a run: how it went, how good its model is, and what is wrong where it is not."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retinanet_edu.errors import DataError
from retinanet_edu.explanation.mistakes import KINDS, REASONS
from retinanet_edu.explanation.picture import Explanation
from retinanet_edu.explanation.run import GAMMAS, AnswerCounts, Examination
from retinanet_edu.explanation.truth_page import number, tell_miss, tell_verdict, truth_layers
from retinanet_edu.html import (
    Markup,
    foldout,
    image_tag,
    join,
    page,
    paragraph,
    side_by_side,
    table,
)
from retinanet_edu.plotting import (
    PREDICTION,
    plot_confusion,
    plot_history,
    plot_layers,
    plot_loss_shares,
    plot_precision_recall,
)
from retinanet_edu.training import BEST, LAST, METRICS

WORST = 8  # pictures on the page


def read_run(folder: str | Path) -> tuple[Path, list[dict[str, Any]]]:
    """What `train` left in a folder.

    Args:
        folder: of the run.

    Returns:
        the best checkpoint, else the last, and one dict of metrics an epoch.

    Raises:
        DataError: there is no checkpoint in it, or the metrics are damaged.
    """
    folder = Path(folder)
    checkpoints = [folder / name for name in (BEST, LAST) if (folder / name).is_file()]
    if not checkpoints:
        raise DataError(
            f"{folder}: no run, which is a folder with {BEST} or {LAST}; `retinanet-edu train "
            "--output` makes one"
        )
    history: list[dict[str, Any]] = []
    metrics = folder / METRICS
    lines = metrics.read_text(encoding="utf-8", errors="replace") if metrics.is_file() else ""
    for i, line in enumerate(filter(str.strip, lines.splitlines()), start=1):
        try:
            row = json.loads(line)
            history.append({name: float(value) for name, value in row.items()})
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(
                f"{metrics}: line {i} is damaged ({error}); remove it, or the whole file"
            ) from error
        wanted = {"epoch", "loss", "classification_loss", "box_loss"}
        if "mAP" in row:
            wanted |= {"mAP50", "val_loss"}
        lacking = wanted - row.keys()
        if lacking:
            raise DataError(f"{metrics}: line {i} lacks {', '.join(sorted(lacking))}; remove it")
    return checkpoints[0], history


def run_page(
    name: str,
    history: Sequence[Mapping[str, Any]],
    examination: Examination | None,
    worst: Sequence[Explanation] = (),
    *,
    notes: Sequence[str] = (),
) -> str:
    """The page.

    Args:
        name: of the run, for people.
        history: one dict of metrics an epoch.
        examination: of its model; None without data, and then the page has only the curves.
        worst: explanations of the first of `examination.images`.
        notes: lines for its end, such as where the data came from.

    Returns:
        the content of an HTML file.
    """
    sections: list[tuple[str, object]] = []
    if examination is not None:
        sections.append(("In short", _short(examination)))
    sections.append(("Training", _training(history)))
    if examination is not None:
        sections += [
            ("Average precision by class", _classes(examination)),
            ("Who is taken for whom", _confusion(examination)),
            ("Mistakes by kind", _mistakes(examination)),
            ("The worst pictures", _worst(examination, worst)),
            ("Where the loss lies", _loss(examination)),
        ]
    sections.append(("How it was made", list(notes)))
    return page(f"Report on {name}", sections)


def _short(x: Examination) -> list[Markup]:
    evaluation = x.evaluation
    objects = sum(row.objects for row in x.images)
    rows: list[list[object]] = [
        ["pictures", len(x.images)],
        ["objects to find", objects],
        ["AP, COCO's mean over IoU 0.5 to 0.95", evaluation.mAP],
        ["AP at IoU 0.5, COCO", evaluation.mAP50],
        ["AP at IoU 0.5, VOC 2010 (area)", evaluation.voc10],
        ["AP at IoU 0.5, VOC 2007 (11 points)", evaluation.voc07],
        ["loss", evaluation.loss],
    ]
    false = sum(row.false for row in x.images)
    missed = sum(row.missed for row in x.images)
    best, gain = max(x.gains.items(), key=lambda item: item[1])
    story = (
        f"With a score of {x.score:g} or more the model found {objects - missed:,} of "
        f"{number(objects, 'object')} and was wrong {number(false, 'time')}."
    )
    if gain > 0:
        story += f' Most would be gained by mending "{best}": {gain:.3f} of AP at IoU 0.5.'
    return [paragraph(story), table(["", "value"], rows, "the numbers in short")]


def _training(history: Sequence[Mapping[str, Any]]) -> list[Markup]:
    if not history:
        return [paragraph(f"The run has no {METRICS}.")]
    first, last = history[0], history[-1]
    text = (
        f"{number(len(history), 'epoch')}: the loss on the training pictures went from "
        f"{first['loss']:.3f} to {last['loss']:.3f}."
    )
    judged = [row for row in history if "mAP50" in row]
    if judged:
        best = max(judged, key=lambda row: row["mAP"])
        text += f" The best AP was {best['mAP']:.3f} after epoch {best['epoch']:g}."
    figure = image_tag(plot_history(history), f"Two panels of curves over the epochs. {text}")
    return [paragraph(text), figure]


def _classes(x: Examination) -> list[Markup]:
    columns = ("objects", "difficult", "AP", "AP50", "voc07", "voc10")
    per_class = sorted(  # nan last
        x.evaluation.per_class.items(), key=lambda c: (math.isnan(c[1]["AP50"]), c[1]["AP50"])
    )
    rows = [[name, *(row[c] for c in columns)] for name, row in per_class]
    known = [f"{name} {r['AP50']:.2f}" for name, r in per_class if not math.isnan(r["AP50"])]
    alt = "Precision against recall at IoU 0.5, a curve a class. AP50 by class: "
    return [
        paragraph("The weakest class first; a class without objects has a dash."),
        table(["class", *columns], rows, "average precision by class"),
        image_tag(plot_precision_recall(x.evaluation), alt + ", ".join(known)),
    ]


def _confusion(x: Examination) -> list[Markup]:
    counts, names = x.confusion, [*x.classes, "background"]
    swaps = counts[:-1, :-1].clone().fill_diagonal_(0)
    text = (
        f"Detections with a score of {x.score:g} or more. An object and a detection belong "
        "together if their IoU is 0.5 or more, whatever their classes; the greatest IoU goes "
        "first, and each belongs to one. A row is what is true, a column what the model said. The "
        "last row is background taken for an object, the last column are objects that were not "
        "seen. Difficult objects, and what lies on them, are left out."
    )
    told = "No class was taken for another."
    if swaps.sum() > 0:
        order = swaps.flatten().argsort(descending=True, stable=True)[:3].tolist()
        pairs = [(divmod(place, len(x.classes)), int(swaps.flatten()[place])) for place in order]
        told = "Most often: " + "; ".join(
            f"{names[a]} taken for {names[b]}, {number(n, 'time')}" for (a, b), n in pairs if n
        )
    figure = image_tag(plot_confusion(counts, x.classes), f"The confusion matrix. {told}.")
    rows = [[name, *row] for name, row in zip(names, counts.tolist(), strict=True)]
    return [
        paragraph(text),
        paragraph(told.removesuffix(".") + "."),
        figure,
        foldout("As a table", table(["in truth", *names], rows, "the confusion matrix")),
    ]


def _mistakes(x: Examination) -> list[Markup]:
    rows = [
        [kind, *x.kinds[kind], x.gains.get(kind, math.nan), meaning]
        for kind, meaning in KINDS.items()
    ]
    head = ["detections", f"from {x.score:g}", "all", "AP50 gained", "what it means"]
    parts = [
        paragraph(
            "What each detection is, with the gain in AP at IoU 0.5 if all mistakes of its kind, "
            "and no others, were mended. All detections count for AP, the unsure ones too."
        ),
        table(head, rows, "detections by kind"),
    ]
    missed = sum(x.reasons.values())
    text = f"{number(missed, 'object was', 'objects were')} found by no detection at all"
    if missed:
        text += f" (without them AP50 would be {x.gains['missed']:.3f} higher)"
    text += f", and {x.unsure:,} only by detections with a score below {x.score:g}."
    parts.append(paragraph(text))
    if missed:
        told = [[reason, count, REASONS[reason]] for reason, count in x.reasons.items()]
        parts.append(table(["missed", "objects", "what it means"], told, "why objects were missed"))
    return parts


def _worst(x: Examination, worst: Sequence[Explanation]) -> list[Markup]:
    text = (
        f"By the number of false detections and missed objects, from a score of {x.score:g} on, "
        "and then by the loss. Dashed green: the truth; dash-dotted orange: difficult objects; "
        "solid red: detections."
    )
    parts = [paragraph(text)]
    for row, e in zip(x.images, worst, strict=False):
        parts.append(join([row.image_id], "h3"))
        parts.append(side_by_side([_picture(x, row.image_id, e), _story(x, row.loss, e)]))
    head = ["picture", "false", "missed", "objects", "loss"]
    rows = [[row.image_id, row.false, row.missed, row.objects, row.loss] for row in x.images[:50]]
    parts.append(foldout(f"The first {len(rows)}", table(head, rows, "the worst pictures")))
    return parts


def _picture(x: Examination, name: str, e: Explanation) -> Markup:
    assert e.judgement is not None
    found = e.detections
    sure = found.scores >= x.score
    texts = [
        f"{x.classes[k]} {s:.2f}"
        for k, s in zip(found.labels[sure].tolist(), found.scores[sure].tolist(), strict=True)
    ]
    truth = [(boxes, role, ()) for boxes, role, _ in truth_layers(e.judgement, x.classes)]
    layers = [*truth, (found.boxes[sure], PREDICTION, texts)]
    what = ", ".join(texts) or "nothing"
    alt = f"{name} with the truth and what was found: {what}."
    return image_tag(plot_layers(e.image, layers, longer_side=340), alt, lossy=True)


def _story(x: Examination, loss: float, e: Explanation) -> Markup:
    """What is wrong in one picture, as a list."""
    judgement = e.judgement
    assert judgement is not None
    lines = []
    finder = {v.object: i for i, v in enumerate(judgement.verdicts) if v.kind == "true"}
    for i, (verdict, score) in enumerate(
        zip(judgement.verdicts, e.detections.scores.tolist(), strict=True)
    ):
        if verdict.is_false and score >= x.score:
            name = x.classes[int(e.detections.labels[i])]
            lines.append(f"{name} {score:.2f} is false: {tell_verdict(e, judgement, i)}")
    for g, i in finder.items():
        sure = float(e.detections.scores[i])
        if sure < x.score:
            name = x.classes[int(judgement.labels[g])]
            lines.append(f"{name} {g + 1} was found, but only with a score of {sure:.2f}")
    for miss in judgement.misses:
        name = x.classes[int(judgement.labels[miss.object])]
        lines.append(f"{name} {miss.object + 1} was missed: {tell_miss(e, miss)}")
    items = join([join([line], "li") for line in lines], "ul") if lines else ""
    return join([paragraph(f"Loss {loss:.3f}."), items], "div")


def _loss(x: Examination) -> list[Markup]:
    def curves(answers: AnswerCounts) -> dict[float, Any]:
        return {gamma: answers.shares(gamma) for gamma in GAMMAS} if answers.total else {}

    figure = plot_loss_shares(curves(x.foreground), curves(x.background))
    rows = [
        [f"γ = {gamma:g}", x.foreground.hardest(gamma, 0.2), x.background.hardest(gamma, 0.01)]
        for gamma in GAMMAS
        if x.foreground.total and x.background.total
    ]
    text = (
        "Answers from the easiest to the hardest, and which share of their loss they hold so far "
        f"(figure 4 of the RetinaNet paper): {x.foreground.total:,} that should be yes, and "
        f"{x.background.total:,} that should be no. The focal loss (γ > 0) takes the loss from "
        "the many easy answers and leaves it to the few hard ones."
    )
    told = "; ".join(f"{row[0]}: {row[1]:.0%} and {row[2]:.0%}" for row in rows)
    alt = (
        "Two panels of cumulative loss, objects and background, a curve for each γ. The hardest "
        f"20% of the objects and the hardest 1% of the background hold of the loss, {told}."
    )
    head = ["", "hardest 20% of yes", "hardest 1% of no"]
    return [paragraph(text), image_tag(figure, alt), table(head, rows, "shares of the loss")]
