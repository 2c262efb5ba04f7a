"""Figures: the only module that touches matplotlib's style.

Every role has one colour (Okabe and Ito's, told apart by colour-blind readers) and one line
style, so that meaning survives greyscale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from retinanet_edu.evaluation import Evaluation
from retinanet_edu.structures import Detections


@dataclass(frozen=True)
class Role:
    """How one kind of thing is drawn everywhere.

    Attributes:
        colour: as "#RRGGBB".
        line: matplotlib's line style: its short name, or where the first dash starts and the
            lengths of dashes and gaps.
    """

    colour: str
    line: str | tuple[float, tuple[float, ...]]


GROUND_TRUTH = Role("#009E73", "--")
PREDICTION = Role("#D55E00", "-")
POSITIVE = Role("#0072B2", (0, (6, 1.5, 1, 1.5, 1, 1.5)))  # dash, dot, dot
BACKGROUND = Role("#999999", ":")
IGNORED = Role("#E69F00", "-.")
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")

# The room that a text needs, as a share of the picture's sides.
_TEXT_HEIGHT, _TEXT_WIDTH = 0.07, 0.2
_SMALLEST = 240  # sides of a figure in pixels; below it no text is legible


def draw_boxes(
    axes: Axes, boxes: Tensor, role: Role, texts: Sequence[str] = (), size: float = 7
) -> None:
    """Draw boxes over a picture.

    Args:
        axes: that show the picture.
        boxes: (M, 4) x1 y1 x2 y2 in its pixels.
        role: colour and line.
        texts: one a box, set above its upper left corner; inside it at the upper edge of the
            picture, and up to its right corner at the right one.
        size: of the texts, in points.
    """
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        # Pixel 0 is drawn from −0.5 to 0.5, and in our coordinates it reaches from 0 to 1.
        axes.add_patch(
            Rectangle(
                (x1 - 0.5, y1 - 0.5),
                x2 - x1,
                y2 - y1,
                fill=False,
                edgecolor=role.colour,
                linestyle=role.line,
                linewidth=1.5,
            )
        )
        if texts:
            is_high = y1 - top < _TEXT_HEIGHT * (bottom - top)
            is_right = right - x1 < _TEXT_WIDTH * (right - left)
            axes.text(
                x2 - 0.5 if is_right else x1 - 0.5,
                y1 - 0.5,
                texts[i],
                size=size,
                color="white",
                ha="right" if is_right else "left",
                va="top" if is_high else "bottom",
                clip_on=True,
                parse_math=False,  # a $ in a class's name is a dollar
                bbox={"facecolor": role.colour, "edgecolor": "none", "pad": 0.8},
            )


def show_picture(axes: Axes, image: Tensor, title: str = "") -> None:
    """Show a picture, without ticks.

    Args:
        axes: to show it in.
        image: uint8 (3, H, W).
        title: above it.
    """
    axes.imshow(image.movedim(0, -1).numpy())
    axes.set_title(title, size=8)
    axes.set_axis_off()


def plot_detections(
    image: Tensor, detections: Detections, classes: Sequence[str], score_threshold: float = 0.5
) -> Figure:
    """A picture at its own size, small ones larger, with what was found in it.

    Args:
        image: uint8 (3, H, W).
        detections: boxes in its pixels.
        classes: names of the K classes.
        score_threshold: detections below it are not drawn.

    Returns:
        the figure.
    """
    height, width = image.shape[-2:]
    figure = Figure(figsize=(max(width, _SMALLEST) / 100, max(height, _SMALLEST) / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    show_picture(axes, image)
    _draw_detections(axes, detections, classes, score_threshold)
    return figure


def _draw_detections(
    axes: Axes, detections: Detections, classes: Sequence[str], score_threshold: float
) -> None:
    kept = detections.scores >= score_threshold
    labels, scores = detections.labels[kept].tolist(), detections.scores[kept].tolist()
    texts = [f"{classes[k]} {s:.2f}" for k, s in zip(labels, scores, strict=True)]
    draw_boxes(axes, detections.boxes[kept], PREDICTION, texts)


def plot_layers(
    image: Tensor,
    layers: Sequence[tuple[Tensor, Role, Sequence[str]]],
    *,
    longer_side: int = 480,
) -> Figure:
    """A picture at one size, whatever its own, with boxes of several roles over it.

    Args:
        image: uint8 (3, H, W).
        layers: boxes (M, 4) in its pixels, role and texts of each, see `draw_boxes`; the last is
            drawn on top.
        longer_side: of the figure, in pixels.

    Returns:
        the figure.
    """
    height, width = image.shape[-2:]
    inches = longer_side / 100 / max(height, width)
    sides = (max(width * inches, 0.6), max(height * inches, 0.6))  # a thin strip is seen too
    figure = Figure(figsize=sides, dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    show_picture(axes, image)
    axes.set_aspect("auto")
    for boxes, role, texts in layers:
        draw_boxes(axes, boxes, role, texts)
    return figure


def plot_map(level: Tensor, longer_side: int = 170) -> Figure:
    """One level of a pyramid, from its smallest value, dark, to its largest.

    Args:
        level: (h, w).
        longer_side: of the figure, in pixels.

    Returns:
        the figure.
    """
    height, width = level.shape
    inches = longer_side / 100 / max(height, width)
    figure = Figure(figsize=(max(width * inches, 0.3), max(height * inches, 0.3)), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(level.numpy(), cmap="cividis", aspect="auto")
    axes.set_axis_off()
    return figure


def plot_gallery(
    images: Sequence[Tensor],
    targets: Sequence[Mapping[str, Any]],
    detections: Sequence[Detections],
    classes: Sequence[str],
    *,
    columns: int = 3,
    score_threshold: float = 0.5,
) -> Figure:
    """Pictures in pairs: what is true on the left, what was found on the right.

    Args:
        images: uint8 (3, H, W) each.
        targets: `boxes`, `labels` and, where there are any, `difficult` of each; difficult
            objects are drawn as ignored.
        detections: of each.
        classes: names of the K classes.
        columns: pairs a row.
        score_threshold: detections below it are not drawn.

    Returns:
        the figure.
    """
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(4.4 * columns, 2.35 * rows + 0.5), layout="constrained")
    grid = np.atleast_2d(figure.subplots(rows, 2 * columns, squeeze=False))
    for axes in grid.flat:
        axes.set_axis_off()
    for i, (image, target, found) in enumerate(zip(images, targets, detections, strict=True)):
        left, right = grid[i // columns, 2 * (i % columns) : 2 * (i % columns) + 2]
        show_picture(left, image)
        names = [classes[k] for k in target["labels"].tolist()]
        hard = target.get("difficult", torch.zeros(len(names), dtype=torch.bool))
        easy_names = [n for n, h in zip(names, hard.tolist(), strict=True) if not h]
        draw_boxes(left, target["boxes"][~hard], GROUND_TRUTH, easy_names)
        draw_boxes(left, target["boxes"][hard], IGNORED)
        show_picture(right, image)
        _draw_detections(right, found, classes, score_threshold)
    figure.suptitle(
        "left: truth (dashed green; difficult objects orange), right: detections "
        f"with scores of {score_threshold:g} and more",
        size=9,
    )
    return figure


def plot_history(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss and AP by epoch.

    Args:
        history: what `train` returns, or the lines of `metrics.jsonl`.

    Returns:
        the figure: losses on the left, AP on the right.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    loss_axes, ap_axes = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for name, label, colour, line in (
        ("loss", "training: total", PALETTE[6], "-"),
        ("classification_loss", "training: classification", PALETTE[0], "--"),
        ("box_loss", "training: box", PALETTE[1], ":"),
    ):
        loss_axes.plot(epochs, [row[name] for row in history], line, color=colour, label=label)
    judged = [row for row in history if "mAP" in row]
    at = [row["epoch"] for row in judged]
    losses = [row["val_loss"] for row in judged]
    loss_axes.plot(at, losses, "o", color=PALETTE[2], label="validation: total")
    loss_axes.set(xlabel="epoch", ylabel="loss", yscale="log")
    ap_axes.plot(at, [r["mAP50"] for r in judged], "o-", color=PALETTE[0], label="mAP@0.5")
    ap_axes.plot(at, [r["mAP"] for r in judged], "s--", color=PALETTE[1], label="mAP@[.5:.95]")
    ap_axes.set(xlabel="epoch", ylabel="AP on validation", ylim=(0, 1.02))
    for axes in (loss_axes, ap_axes):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def plot_precision_recall(evaluation: Evaluation) -> Figure:
    """Precision against recall at IoU 0.5, a curve a class.

    Args:
        evaluation: from `evaluate`.

    Returns:
        the figure, with VOC's area under each curve in the legend.
    """
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    lines = ("-", "--", ":", "-.")
    for i, (name, (recall, precision)) in enumerate(evaluation.curves.items()):
        ap = evaluation.per_class[name]["voc10"]
        colour, line = PALETTE[i % len(PALETTE)], lines[(i // len(PALETTE) + i) % len(lines)]
        # Each step leads to the recall that its detection reaches; the first begins at 0.
        recall = np.concatenate([0 * recall[:1], recall])
        precision = np.concatenate([precision[:1], precision])
        axes.step(recall, precision, line, color=colour, where="pre", label=f"{name} ({ap:.2f})")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    columns = 1 + (len(evaluation.curves) - 1) // 10
    legend = axes.legend(title="class (AP)", fontsize=8, loc="lower left", ncols=columns)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def plot_confusion(table: Tensor, classes: Sequence[str]) -> Figure:
    """Who was taken for whom: a row a true class, coloured by the share of the row.

    Args:
        table: (K + 1, K + 1) counts, background last.
        classes: names of the K classes.

    Returns:
        the figure, with the counts in the cells where there is room for them.
    """
    names = [*(name if len(name) < 20 else f"{name[:18]}…" for name in classes), "background"]
    side = min(max(0.42 * len(names) + 1.5, 3.4), 12)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    share = table / table.sum(dim=1, keepdim=True).clamp(min=1)
    axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    size = min(8.0, 240 / len(names))
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=90, size=size, parse_math=False)
    axes.set_yticks(ticks, names, size=size, parse_math=False)
    axes.set(xlabel="taken for", ylabel="in truth")
    for row, column in table.nonzero().tolist() if size > 5 else ():
        colour = "white" if share[row, column] > 0.5 else "black"
        count = str(int(table[row, column]))
        axes.text(column, row, count, ha="center", va="center", size=size, color=colour)
    return figure


def plot_loss_shares(
    foreground: Mapping[float, tuple[np.ndarray, np.ndarray]],
    background: Mapping[float, tuple[np.ndarray, np.ndarray]],
) -> Figure:
    """Which share of the focal loss the easiest answers hold (RetinaNet paper, figure 4).

    Args:
        foreground: by γ, share of the answers that should be yes, and share of their loss.
        background: the same of those that should be no.

    Returns:
        the figure: foreground on the left, background on the right.
    """
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    pair = figure.subplots(1, 2, sharey=True)
    titles = ("should be yes (objects)", "should be no (background)")
    for axes, title, curves in zip(pair, titles, (foreground, background)):
        for i, (gamma, (answers, loss)) in enumerate(curves.items()):
            line = ("-", "--", ":", "-.")[i % 4]
            axes.plot(answers, loss, line, color=PALETTE[i], label=f"γ = {gamma:g}")
        axes.set(title=title, xlabel="share of the answers, easiest first", xlim=(0, 1))
        axes.grid(alpha=0.3)
    pair[0].set(ylabel="share of their loss", ylim=(0, 1.02))
    pair[0].legend(fontsize=8)
    return figure
