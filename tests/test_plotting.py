"""plotting: boxes lie where they should, roles can be told apart, and nothing global is touched."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor

from retinanet_edu import plotting
from retinanet_edu.evaluation import METRICS, Evaluation
from retinanet_edu.plotting import (
    BACKGROUND,
    GROUND_TRUTH,
    IGNORED,
    PALETTE,
    POSITIVE,
    PREDICTION,
    Role,
    draw_boxes,
    plot_confusion,
    plot_detections,
    plot_gallery,
    plot_history,
    plot_layers,
    plot_loss_shares,
    plot_map,
    plot_precision_recall,
    show_picture,
)
from retinanet_edu.structures import Detections

pytestmark = pytest.mark.filterwarnings("error")

ROLES = {
    "ground truth": GROUND_TRUTH,
    "prediction": PREDICTION,
    "positive": POSITIVE,
    "background": BACKGROUND,
    "ignored": IGNORED,
}
# Okabe and Ito, "Color universal design" (2008); grey is the usual neutral beside them.
OKABE_ITO = {
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
}  # fmt: skip


def pixels(figure: Figure) -> np.ndarray:
    """(H, W, 3) of the figure as it is drawn, in 0…1."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3] / 255


def patches(figure: Figure, axes: int = 0) -> list[Rectangle]:
    return [p for p in figure.axes[axes].patches if isinstance(p, Rectangle)]


def texts(figure: Figure, axes: int = 0) -> list[str]:
    return [t.get_text() for t in figure.axes[axes].texts]


def grey(*size: int) -> Tensor:
    return torch.full((3, *size), 128, dtype=torch.uint8)


def detections(*rows: tuple[tuple[float, ...], float, int]) -> Detections:
    """From rows of (box, score, label)."""
    return Detections(
        torch.tensor([box for box, _, _ in rows], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([score for _, score, _ in rows]),
        torch.tensor([label for _, _, label in rows], dtype=torch.int64),
    )


def whole_picture(image: Tensor) -> tuple[Figure, Any]:
    """One picture, a pixel of it to a pixel of the figure."""
    height, width = image.shape[-2:]
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    show_picture(axes, image)
    return figure, axes


# --- roles ----------------------------------------------------------------------------------------


def line_as_drawn(role: Role) -> tuple:
    line = Line2D([], [], linestyle=role.line)
    offset, dashes = line._dash_pattern
    return offset, None if dashes is None else tuple(dashes)


def test_every_role_has_a_colour_and_a_line_of_its_own() -> None:
    for (one, a), (other, b) in combinations(ROLES.items(), 2):
        assert a.colour.lower() != b.colour.lower(), (one, other)
        assert line_as_drawn(a) != line_as_drawn(b), (one, other)
    for role in ROLES.values():
        assert role.colour in OKABE_ITO | {"#999999"}


def test_the_palette_is_okabe_and_itos_without_repeats() -> None:
    assert set(PALETTE) == OKABE_ITO
    assert len(PALETTE) == len(OKABE_ITO)


# --- boxes and pictures ---------------------------------------------------------------------------


def test_a_picture_is_shown_pixel_for_pixel() -> None:
    image = torch.randint(256, (3, 60, 90), dtype=torch.uint8)
    figure, axes = whole_picture(image)
    drawn = pixels(figure)
    assert drawn.shape == (60, 90, 3)
    np.testing.assert_allclose(drawn, image.permute(1, 2, 0).numpy() / 255, atol=1.5 / 255)
    assert not axes.axison


@pytest.mark.parametrize("box", [(30, 20, 70, 50), (10, 10, 90, 20), (40, 5, 50, 55)])
def test_a_box_is_drawn_around_the_pixels_that_it_holds(box: tuple[int, int, int, int]) -> None:
    """Each edge, as its colour's centre of mass across it, lies on the border of its pixels."""
    x1, y1, x2, y2 = box
    figure, axes = whole_picture(torch.zeros(3, 60, 100, dtype=torch.uint8))
    draw_boxes(axes, torch.tensor([box]).float(), Role("#FF0000", "-"))
    red = pixels(figure)[..., 0]
    middle_y, middle_x = (y1 + y2) // 2, (x1 + x2) // 2
    centres = np.arange(100) + 0.5

    def edge(values: np.ndarray, near: int) -> float:
        window = slice(near - 3, near + 3)
        return float((values[window] * centres[window]).sum() / values[window].sum())

    assert edge(red[middle_y], x1) == pytest.approx(x1, abs=0.2)
    assert edge(red[middle_y], x2) == pytest.approx(x2, abs=0.2)
    assert edge(red[:, middle_x], y1) == pytest.approx(y1, abs=0.2)
    assert edge(red[:, middle_x], y2) == pytest.approx(y2, abs=0.2)
    assert red[middle_y, middle_x] == 0
    assert red[:, : x1 - 4].max() == 0


def test_boxes_have_the_colour_and_the_line_of_their_role() -> None:
    for role in ROLES.values():
        figure, axes = whole_picture(grey(60, 100))
        draw_boxes(axes, torch.tensor([[10.0, 10, 30, 30], [50, 20, 90, 50]]), role)
        first, second = patches(figure)
        for patch in (first, second):
            assert patch.get_edgecolor()[:3] == to_rgb(role.colour)
            assert not patch.get_fill()
            assert Line2D([], [], linestyle=patch.get_linestyle())._dash_pattern == (
                Line2D([], [], linestyle=role.line)._dash_pattern
            )
        assert (second.get_width(), second.get_height()) == (40, 30)


def test_texts_stand_beside_their_boxes_and_inside_the_picture() -> None:
    figure, axes = whole_picture(grey(200, 300))
    boxes = torch.tensor(
        [[20.0, 60, 100, 150], [120, 0, 220, 90], [120, 198, 200, 200], [270, 30, 300, 90]]
    )
    words = ["above", "at the top", "flat", "at the right"]
    draw_boxes(axes, boxes, PREDICTION, words)
    assert texts(figure) == words
    pixels(figure)
    renderer = figure.canvas.get_renderer()
    for text, (x1, y1, x2, y2) in zip(axes.texts, boxes.tolist(), strict=True):
        extent = text.get_window_extent(renderer)
        top, bottom = 200 - extent.y1, 200 - extent.y0  # in pixels of the picture
        assert abs(extent.x0 - x1) < 3 or abs(extent.x1 - x2) < 3
        assert top >= 0  # it can be read
        assert extent.x1 < 301
        assert abs(bottom - y1) < 3 or (top >= y1 - 1 and bottom <= y2 + 1)


def test_no_boxes_draw_nothing() -> None:
    figure, axes = whole_picture(grey(60, 100))
    draw_boxes(axes, torch.zeros(0, 4), PREDICTION, [])
    assert patches(figure) == []
    assert (pixels(figure) == pixels(figure)[0, 0]).all()


# --- figures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(300, 500), (240, 240), (64, 64), (100, 400)])
def test_detections_are_drawn_where_they_are_from_the_threshold_on(size: tuple[int, int]) -> None:
    height, width = size
    box = (width * 0.25, height * 0.4, width * 0.75, height * 0.9)
    found = detections((box, 0.9, 1), (box, 0.5, 0), (box, 0.49, 0))
    figure = plot_detections(torch.zeros(3, *size, dtype=torch.uint8), found, ("cat", "dog"))
    assert texts(figure) == ["dog 0.90", "cat 0.50"]
    drawn = pixels(figure)
    assert drawn.shape[:2] == (max(height, 240), max(width, 240))
    # Where the picture lies in the figure, and the left edge of the box in it.
    axes = figure.axes[0]
    (left, bottom), (right, top) = axes.transData.transform(
        [(-0.5, height - 0.5), (width - 0.5, -0.5)]
    )
    scale = (right - left) / width
    assert scale == pytest.approx((top - bottom) / height)
    assert scale >= 1
    y = int(len(drawn) - (top - scale * height * 0.7))
    row = np.abs(drawn[y] - to_rgb(PREDICTION.colour)).sum(axis=1)
    x = np.flatnonzero(row < 0.1)
    assert len(x) > 0
    assert x.min() == pytest.approx(left + scale * box[0], abs=2)
    assert x.max() == pytest.approx(left + scale * box[2], abs=2)


def test_a_lower_threshold_shows_more_and_nothing_found_is_a_picture() -> None:
    found = detections(((1, 1, 9, 9), 0.9, 1), ((1, 1, 9, 9), 0.3, 0))
    assert len(patches(plot_detections(grey(50, 50), found, "ab", 0.1))) == 2
    figure = plot_detections(grey(50, 50), detections(), "ab")
    assert patches(figure) == []
    assert np.isclose(pixels(figure)[120, 120], 128 / 255, atol=0.01).all()


def target(*rows: tuple[tuple[float, ...], int, bool]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor([box for box, _, _ in rows], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([label for _, label, _ in rows], dtype=torch.int64),
        "difficult": torch.tensor([hard for _, _, hard in rows], dtype=torch.bool),
    }


def edges(figure: Figure, axes: int) -> list[tuple]:
    return [(p.get_xy(), p.get_edgecolor()[:3]) for p in patches(figure, axes)]


def test_a_gallery_has_truth_on_the_left_and_detections_on_the_right() -> None:
    images = [torch.full((3, 40, 60), 10 * i, dtype=torch.uint8) for i in range(5)]
    targets = [
        target(((5, 20, 25, 35), 0, False), ((30, 20, 50, 38), 1, True)),
        target(((10, 20, 50, 38), 1, False)),
        target(),
        {k: v for k, v in target(((1, 20, 9, 30), 0, False)).items() if k != "difficult"},
        target(),
    ]
    found = [
        detections(((6, 20, 26, 35), 0.8, 0), ((0, 0, 5, 5), 0.2, 1)),
        detections(),
        detections(((10, 20, 20, 30), 0.6, 1)),
        detections(),
        detections(),
    ]
    figure = plot_gallery(images, targets, found, ("cat", "dog"), columns=2)
    assert len(figure.axes) == 3 * 4  # three rows of two pairs
    truth, hard, seen = (to_rgb(r.colour) for r in (GROUND_TRUTH, IGNORED, PREDICTION))
    assert edges(figure, 0) == [((4.5, 19.5), truth), ((29.5, 19.5), hard)]
    assert texts(figure, 0) == ["cat"]
    assert edges(figure, 1) == [((5.5, 19.5), seen)]
    assert texts(figure, 1) == ["cat 0.80"]
    assert edges(figure, 2) == [((9.5, 19.5), truth)]
    assert texts(figure, 2) == ["dog"]
    assert edges(figure, 3) == edges(figure, 4) == []
    assert texts(figure, 5) == ["dog 0.60"]
    assert edges(figure, 6) == [((0.5, 19.5), truth)]
    shown = [axes.images[0].get_array()[0, 0, 0] for axes in figure.axes if axes.images]
    assert shown == [i for n in range(5) for i in (10 * n, 10 * n)]
    pixels(figure)
    assert "truth" in figure.get_suptitle()
    assert not any(axes.axison for axes in figure.axes)


HISTORY = [
    {"epoch": 1, "loss": 3.0, "classification_loss": 2.0, "box_loss": 1.0},
    {"epoch": 2, "loss": 2.0, "classification_loss": 1.5, "box_loss": 0.5,
     "val_loss": 2.5, "mAP": 0.2, "mAP50": 0.4},
    {"epoch": 3, "loss": 1.0, "classification_loss": 0.75, "box_loss": 0.25},
    {"epoch": 4, "loss": 0.5, "classification_loss": 0.25, "box_loss": 0.25,
     "val_loss": 1.5, "mAP": 0.6, "mAP50": 0.8},
]  # fmt: skip


def lines_of(axes: Any) -> dict[str, tuple[list, list]]:
    return {line.get_label(): tuple(map(list, line.get_data())) for line in axes.lines}


def looks(axes: Any) -> list[tuple]:
    """Colour, line and marker of each curve."""
    return [(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes.lines]


def test_losses_and_ap_are_drawn_at_their_epochs() -> None:
    figure = plot_history(HISTORY)
    losses, ap = figure.axes
    assert lines_of(losses) == {
        "training: total": ([1, 2, 3, 4], [3.0, 2.0, 1.0, 0.5]),
        "training: classification": ([1, 2, 3, 4], [2.0, 1.5, 0.75, 0.25]),
        "training: box": ([1, 2, 3, 4], [1.0, 0.5, 0.25, 0.25]),
        "validation: total": ([2, 4], [2.5, 1.5]),
    }
    assert lines_of(ap) == {
        "mAP@0.5": ([2, 4], [0.4, 0.8]),
        "mAP@[.5:.95]": ([2, 4], [0.2, 0.6]),
    }
    for axes in (losses, ap):
        assert axes.get_xlabel() == "epoch"
        assert axes.get_ylabel()
        assert len(set(looks(axes))) == len({look[1:] for look in looks(axes)}) == len(axes.lines)
    pixels(figure)


@pytest.mark.parametrize(
    "history",
    [
        HISTORY[:1],
        [row | {"box_loss": 0.0} for row in HISTORY],  # images without objects
        [row | {"mAP": float("nan"), "mAP50": float("nan")} for row in HISTORY[1:2]],
    ],
)
def test_a_history_of_little_can_be_drawn_too(history: list[dict]) -> None:
    figure = plot_history(history)
    assert len(pixels(figure)) > 0


def evaluation(curves: dict[str, tuple[list[float], list[float]]]) -> Evaluation:
    return Evaluation(
        classes=tuple(curves),
        coco=dict.fromkeys(METRICS, 0.5),
        voc07=0.5,
        voc10=0.5,
        per_class={name: {"voc10": i / 10} for i, name in enumerate(curves)},
        curves={name: tuple(map(np.array, curve)) for name, curve in curves.items()},
    )


def test_each_class_has_its_curve_of_precision_against_recall() -> None:
    curves = {
        "cat": ([0.5, 0.5, 1.0], [1.0, 0.5, 2 / 3]),
        "dog": ([0.0, 0.25], [0.0, 0.5]),
        "cow": ([float("nan")], [float("nan")]),  # has no objects
        "fly": ([], []),  # was never detected
    }
    figure = plot_precision_recall(evaluation(curves))
    (axes,) = figure.axes
    drawn = lines_of(axes)
    assert list(drawn) == ["cat (0.00)", "dog (0.10)", "cow (0.20)", "fly (0.30)"]
    for (recall, precision), curve in zip(drawn.values(), curves.values(), strict=True):
        # Before the curve comes its beginning at recall 0.
        np.testing.assert_array_equal(recall[1:], curve[0])
        np.testing.assert_array_equal(precision[1:], curve[1])
    assert axes.get_xlabel() == "recall"
    assert axes.get_ylabel() == "precision"
    pixels(figure)


def test_the_area_that_is_drawn_is_that_of_the_curve() -> None:
    """Of two objects one is found first and one third: 0.5 · 1 + 0.5 · 2/3."""
    curve = ([0.5, 0.5, 1.0], [1.0, 0.5, 2 / 3])
    (line,) = plot_precision_recall(evaluation({"cat": curve})).axes[0].get_lines()
    assert line.get_drawstyle() == "steps-pre"
    recall, precision = line.get_data()
    assert np.sum(np.diff(recall) * precision[1:]) == pytest.approx(0.5 + 1 / 3)


def test_thirty_classes_can_be_told_apart() -> None:
    curves = {f"class {i}": ([0.5], [1.0]) for i in range(30)}
    figure = plot_precision_recall(evaluation(curves))
    assert len(set(looks(figure.axes[0]))) == 30
    legend = figure.axes[0].get_legend()
    assert len(legend.get_texts()) == 30
    pixels(figure)


# --- no global state ------------------------------------------------------------------------------


def test_no_figure_changes_matplotlibs_settings() -> None:
    before = dict(mpl.rcParams)
    figures = [
        plot_detections(grey(50, 50), detections(((1, 1, 9, 9), 0.9, 0)), "a"),
        plot_gallery([grey(9, 9)], [target()], [detections()], "a"),
        plot_history(HISTORY),
        plot_precision_recall(evaluation({"cat": ([1.0], [1.0])})),
    ]
    for figure in figures:
        assert isinstance(figure, Figure)
        pixels(figure)
    assert dict(mpl.rcParams) == before


def test_pyplot_and_its_windows_are_never_asked_for() -> None:
    """A server without a screen draws too, and a loop over figures keeps none of them."""
    code = (
        "import io, sys, torch\n"
        "from retinanet_edu.plotting import plot_gallery, plot_history\n"
        "from retinanet_edu.structures import Detections\n"
        "none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())\n"
        "image = torch.zeros(3, 8, 8, dtype=torch.uint8)\n"
        "truth = {'boxes': none.boxes, 'labels': none.labels}\n"
        "plot_gallery([image], [truth], [none], 'a').savefig(io.BytesIO())\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pyplot" not in vars(plotting)


# --- pages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "side"), [((40, 80), 300), ((900, 300), 300)])
def test_layers_lie_over_a_picture_of_the_size_asked_for(size: tuple[int, int], side: int) -> None:
    image = torch.randint(256, (3, *size), dtype=torch.uint8)
    box = torch.tensor([[0.25, 0.25, 0.75, 0.75]]) * torch.tensor(size).flip(0).repeat(2)
    figure = plot_layers(image, [(box, BACKGROUND, ()), (box, PREDICTION, ["x"])], longer_side=side)
    drawn = pixels(figure)
    assert max(drawn.shape[:2]) == side
    assert drawn.shape[0] * size[1] == pytest.approx(drawn.shape[1] * size[0], rel=0.02)
    assert [to_rgb(p.get_edgecolor()) for p in patches(figure)] == [
        to_rgb(BACKGROUND.colour), to_rgb(PREDICTION.colour),
    ]  # fmt: skip
    assert texts(figure) == ["x"]
    # The edge lies at a quarter of the picture, and is the last that was drawn.
    edge = drawn[drawn.shape[0] // 2, drawn.shape[1] // 4 - 1 : drawn.shape[1] // 4 + 2]
    assert np.abs(edge - to_rgb(PREDICTION.colour)).sum(axis=1).min() < 0.2


def test_a_strip_of_a_picture_can_be_seen() -> None:
    assert min(pixels(plot_layers(grey(2, 900), [])).shape[:2]) >= 60


def test_a_map_is_dark_where_it_is_small() -> None:
    drawn = pixels(plot_map(torch.tensor([[0.0, 1.0], [2.0, 3.0]]), 100)).mean(axis=2)
    assert drawn.shape == (100, 100)
    corners = [drawn[y, x] for y in (25, 75) for x in (25, 75)]
    assert corners == sorted(corners)
    assert len(set(corners)) == 4
    assert pixels(plot_map(torch.ones(1, 40), 200)).shape == (30, 200, 3)


def test_a_confusion_shows_its_counts_and_names_as_they_are() -> None:
    table = torch.tensor([[8, 0, 2], [1, 3, 0], [0, 5, 0]])
    figure = plot_confusion(table, ["$\\frac{", "a name that is much too long for a figure"])
    pixels(figure)
    axes = figure.axes[0]
    shown = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in axes.texts}
    assert shown == {(0, 0): "8", (0, 2): "2", (1, 0): "1", (1, 1): "3", (2, 1): "5"}
    names = [t.get_text() for t in axes.get_yticklabels()]
    assert names == ["$\\frac{", "a name that is muc…", "background"]
    np.testing.assert_allclose(axes.images[0].get_array()[0], [0.8, 0, 0.2])
    many = plot_confusion(torch.ones(91, 91, dtype=torch.int64), [str(k) for k in range(90)])
    assert not many.axes[0].texts
    assert max(pixels(many).shape) <= 1200


def test_shares_of_the_loss_have_a_line_each() -> None:
    curves = {g: (np.linspace(0, 1, 5), np.linspace(0, 1, 5) ** (2 + g)) for g in (0.0, 0.5, 2.0)}
    figure = plot_loss_shares(curves, {})
    pixels(figure)
    left, right = figure.axes
    assert [line.get_label() for line in left.lines] == ["γ = 0", "γ = 0.5", "γ = 2"]
    assert len({line.get_linestyle() for line in left.lines}) == 3
    np.testing.assert_allclose(left.lines[2].get_ydata(), np.linspace(0, 1, 5) ** 4)
    assert not right.lines


def test_a_dollar_in_a_name_is_a_dollar() -> None:
    figure, axes = whole_picture(grey(60, 60))
    draw_boxes(axes, torch.tensor([[5.0, 20, 50, 50]]), PREDICTION, ["$\\frac{"])
    pixels(figure)
    assert texts(figure) == ["$\\frac{"]
