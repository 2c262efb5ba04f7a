"""The figure of a recorded experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from matplotlib.figure import Figure

from retinanet_edu.plotting import BACKGROUND, PALETTE

_MARKS = ("o", "s", "^")


def plot_experiment(result: Mapping[str, Any], metrics: Sequence[str] = ("AP",)) -> Figure:
    """Each arm's values, a small mark a seed, and their mean with one standard deviation.

    Args:
        result: of `record`, or the file that it wrote.
        metrics: one colour and mark each.

    Returns:
        the figure; a grey band is what differs from the baseline by no more than the margin.
    """
    arms = result["arms"]
    figure = Figure(figsize=(7, 0.9 + 0.34 * len(arms)), layout="constrained")
    axes = figure.subplots()
    for m, metric in enumerate(metrics):
        colour, mark = PALETTE[m], _MARKS[m]
        for row, arm in enumerate(arms):
            values = [100 * value for value in arm[metric]]
            y = row + 0.22 * (m - (len(metrics) - 1) / 2)
            axes.plot(values, [y] * len(values), mark, color=colour, markersize=3, alpha=0.5)
            axes.errorbar(
                fmean(values),
                y,
                xerr=stdev(values) if len(values) > 1 else 0,
                fmt=mark,
                color=colour,
                capsize=3,
                label=metric if row == 0 else None,
            )
    if len(metrics) == 1:
        centre = 100 * fmean(arms[0][metrics[0]])
        axes.axvspan(
            centre - result["margin"],
            centre + result["margin"],
            color=BACKGROUND.colour,
            alpha=0.25,
            linewidth=0,
        )
    else:
        axes.legend(fontsize=8)
    axes.set_yticks(range(len(arms)), [arm["name"] for arm in arms], size=8)
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.set_xlabel(f"{', '.join(metrics)}, in percent")
    axes.grid(axis="x", alpha=0.3)
    return figure
