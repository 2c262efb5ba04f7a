"""How time grows: one panel for each thing that can grow."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from retinanet_edu.plotting import POSITIVE, PREDICTION

# Group, the setting that grows, and what is held fast.
PANELS = (
    ("inference", "size", {"ResNet": 50, "batch": 1}),
    ("inference", "size", {"ResNet": 18, "batch": 1}),
    ("inference", "batch", {"ResNet": 18, "size": 512}),
    ("training step", "size", {"model": "ResNet-18", "batch": 4}),
    ("training step", "batch", {"model": "ResNet-18", "size": 256}),
    ("matching", "objects", {"size": 512}),
    ("focal loss", "classes", {}),
    ("postprocess", "batch", {"scores": "realistic", "classes": 20}),
    ("postprocess", "batch", {"scores": "hard", "classes": 20}),
)


def plot_growth(rows: list[dict[str, Any]]) -> Figure:
    """Milliseconds of ours and of torchvision's over what grows, both axes logarithmic."""
    figure = Figure(figsize=(9, 7.5), layout="constrained")
    for axes, (group, grows, fixed) in zip(figure.subplots(3, 3).flat, PANELS, strict=True):
        points = sorted(
            (row["settings"][grows], row["ours_ms"], row["theirs_ms"])
            for row in rows
            if row["group"] == group and fixed.items() <= row["settings"].items()
        )
        held = ", ".join(f"{name} {value}" for name, value in fixed.items())
        axes.set_title(f"{group}\n{held}", fontsize=9)
        axes.set_xlabel(grows)
        if not points:
            axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
            continue
        x, ours, theirs = zip(*points, strict=True)
        axes.loglog(
            x, theirs, color=POSITIVE.colour, marker="o", linestyle="--", label="torchvision"
        )
        axes.loglog(x, ours, color=PREDICTION.colour, marker="s", label="ours")
        axes.set_xticks(x, [str(value) for value in x])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    for axes in figure.axes[::3]:
        axes.set_ylabel("ms")
    figure.legend(*figure.axes[6].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
