"""Figures: the only module that touches matplotlib's style.

Every role has one colour (Okabe and Ito's, told apart by colour-blind readers) and one line
style, so that meaning survives greyscale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from retinanet_edu.evaluation import Evaluation
from retinanet_edu.structures import Detections


@dataclass(frozen=True)
class Role:
    """How one kind of thing is drawn everywhere."""

    colour: str
    line: str


GROUND_TRUTH = Role("#009E73", "--")
PREDICTION = Role("#D55E00", "-")
POSITIVE = Role("#0072B2", "-")
BACKGROUND = Role("#999999", ":")
IGNORED = Role("#E69F00", "-.")
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")


def draw_boxes(
    axes: Axes, boxes: Tensor, role: Role, texts: Sequence[str] = (), size: float = 7
) -> None:
    """Draw boxes over a picture.

    Args:
        axes: that show the picture.
        boxes: (M, 4) x1 y1 x2 y2 in its pixels.
        role: colour and line.
        texts: one a box, set at its upper left corner.
        size: of the texts, in points.
    """
    for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        # Pixel 0 is drawn from −0.5 to 0.5, and in our coordinates it reaches from 0 to 1.
        corner = (x1 - 0.5, y1 - 0.5)
        axes.add_patch(
            Rectangle(
                corner,
                x2 - x1,
                y2 - y1,
                fill=False,
                edgecolor=role.colour,
                linestyle=role.line,
                linewidth=1.5,
            )
        )
        if texts:
            axes.text(
                *corner,
                texts[i],
                size=size,
                color="white",
                va="bottom",
                clip_on=True,
                bbox={"facecolor": role.colour, "edgecolor": "none", "pad": 0.8},
            )


def show_picture(axes: Axes, image: Tensor, title: str = "") -> None:
    """Show a picture, uint8 (3, H, W), without ticks."""
    axes.imshow(image.movedim(0, -1).numpy())
    axes.set_title(title, size=8)
    axes.set_axis_off()


def plot_detections(
    image: Tensor, detections: Detections, classes: Sequence[str], score_threshold: float = 0.5
) -> Figure:
    """A picture, uint8 (3, H, W), at its own size, with what was found in it."""
    height, width = image.shape[-2:]
    figure = Figure(figsize=(max(width, 240) / 100, max(height, 240) * 1.0 / 100), dpi=100)
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
        targets: `boxes`, `labels` and `difficult` of each; difficult objects are drawn as ignored.
        detections: of each.
        classes: names of the K classes.
        columns: pairs a row.
        score_threshold: detections below it are not drawn.
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
        hard = target["difficult"]
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
    """Loss and AP by epoch, from what `train` returns or `metrics.jsonl` holds."""
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
    """Precision against recall at IoU 0.5, a curve a class."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    lines = ("-", "--", ":", "-.")
    for i, (name, (recall, precision)) in enumerate(evaluation.curves.items()):
        ap = evaluation.per_class[name]["voc10"]
        colour, line = PALETTE[i % len(PALETTE)], lines[(i // len(PALETTE) + i) % len(lines)]
        axes.step(recall, precision, line, color=colour, where="post", label=f"{name} ({ap:.2f})")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    columns = 1 + (len(evaluation.curves) - 1) // 10
    axes.legend(title="class (AP)", fontsize=8, loc="lower left", ncols=columns)
    return figure
