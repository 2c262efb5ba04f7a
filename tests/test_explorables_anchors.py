"""The explorable `anchors` draws what `AnchorGenerator` makes, and counts as chapter 7 counts."""

from __future__ import annotations

import json
import random
import re
from itertools import product
from typing import Any

import nbformat
import pytest
import torch
from conftest import BOOK
from explorables import FOLDER, Figure, load_script
from torch import Tensor

from retinanet_edu import AnchorGenerator, pairwise_iou

NAME = "anchors"
OBJECT = "Object's box"
UNITS = 512  # of the drawn picture's side
PAPER = {"scales": 3, "ratios": 3, "size": 32, "stride": 8, "offset": 0.5, "side": 512}
CHOICES: dict[str, tuple[float, ...]] = {
    **{"scales": (1, 2, 3, 4), "ratios": (1, 3, 5), "stride": (4, 8, 16)},
    **{"offset": (0, 0.5), "side": (256, 384, 512, 800)},
    "size": tuple(8 * 2 ** (i / 4) for i in range(17)),
}
RATIOS = {1: (1,), 3: (0.5, 1, 2), 5: (1 / 3, 0.5, 1, 2, 3)}


def generator_of(design: dict[str, Any]) -> AnchorGenerator:
    count = design["scales"]
    return AnchorGenerator(
        sizes=[design["size"] * 2**level for level in range(5)],
        scales=[2 ** (i / count) for i in range(count)],
        ratios=RATIOS[design["ratios"]],
        strides=[design["stride"] * 2**level for level in range(5)],
        offset=design["offset"],
    )


def random_state(rng: random.Random) -> dict[str, Any]:
    design = {key: rng.choice(values) for key, values in CHOICES.items()}
    (x1, x2), (y1, y2) = (sorted(rng.sample(range(0, UNITS + 1, 9), 2)) for _ in range(2))
    return design | {"object": [x1, y1, x2, y2]}


def in_pixels(state: dict[str, Any]) -> Tensor:
    """The object, (1, 4)."""
    return torch.tensor([state["object"]], dtype=torch.float64) * state["side"] / UNITS


def test_the_generator_s_best_anchor_is_found(figure):
    rng = random.Random(0)
    states = [random_state(rng) for _ in range(60)]
    for state, seen in zip(states, figure.states(states), strict=True):
        anchors = generator_of(state)((state["side"], state["side"])).double()  # (N, 4)
        assert seen["count"] == len(anchors)
        iou = pairwise_iou(anchors, in_pixels(state))[:, 0]  # (N,)
        assert seen["iou"] == pytest.approx(iou.max().item(), abs=1e-6)
        # Several may be equally good; the one that is shown must be among the generator's.
        mine = torch.tensor([seen["anchor"]], dtype=torch.float64)
        assert (anchors - mine).abs().amax(dim=1).min() < 1e-3
        own = pairwise_iou(mine, in_pixels(state)).item()
        assert own == pytest.approx(seen["iou"], abs=1e-9)


def test_the_guesses_of_a_cell_are_drawn_in_the_generator_s_order(figure):
    for scales, ratios in product((1, 3, 4), RATIOS):
        state = PAPER | {"scales": scales, "ratios": ratios, "object": [222, 222, 322, 312]}
        (seen,) = figure.states([state])
        drawn = figure.root.locator("rect.guess").evaluate_all(
            "all => all.map(r => ['x', 'y', 'width', 'height'].map(k => +r.getAttribute(k)))"
        )
        boxes = torch.tensor(drawn)  # (A, 4), a pixel is a unit here
        boxes[:, 2:] += boxes[:, :2]
        cells = generator_of(state)((512, 512)).reshape(-1, scales * ratios, 4)
        assert (cells - boxes).abs().amax(dim=(1, 2)).min() < 1e-3
        chosen = (boxes - torch.tensor(seen["anchor"])).abs().amax(dim=1)
        assert chosen.min() < 1e-3


def objects_of_voc() -> tuple[Tensor, Tensor]:
    """(M, 2) sizes in shares of the longer side, and (M, 2) places: the chapter's, in steps."""
    voc = json.loads((BOOK.parent / "data/voc_box_sizes.json").read_text(encoding="utf-8"))
    share = torch.tensor([voc["width"], voc["height"]]).T.double() / 1000
    torch.manual_seed(0)
    steps = (torch.rand(len(share), 2) * 1296).floor().double()
    counted = ~torch.tensor(voc["difficult"]).bool()
    return share[counted], (steps[counted] + 0.5) / 1296 * 128 + 384


def best_of_all_cells(design: dict[str, Any], share: Tensor, places: Tensor) -> Tensor:
    """(M,) best IoU with the anchors that the generator puts around a place."""
    generator = generator_of(design)
    half = share * design["side"] / 2
    boxes = torch.cat([places - half, places + half], dim=1)  # (M, 4)
    anchors = generator((1024, 1024)).double()
    best = torch.zeros(len(boxes), dtype=torch.float64)
    grids = generator.grid_sizes((1024, 1024))
    per_cell = generator.anchors_per_cell
    levels = anchors.split([rows * columns * per_cell for rows, columns in grids])
    for level, (rows, columns) in zip(levels, grids, strict=True):
        cells = level.reshape(rows, columns, per_cell, 4)
        centres = (cells[..., 0, :2] + cells[..., 0, 2:]) / 2
        column = (centres[0, :, 0] - places[:, :1]).abs().argmin(dim=1)  # (M,)
        row = (centres[:, 0, 1] - places[:, 1:]).abs().argmin(dim=1)
        for i in range(per_cell):
            own = cells[row, column, i]  # (M, 4)
            common = torch.minimum(own[:, 2:], boxes[:, 2:]) - torch.maximum(own, boxes)[:, :2]
            shared = common.clamp(min=0).prod(dim=1)
            areas = [(b[:, 2:] - b[:, :2]).prod(dim=1) for b in (own, boxes)]
            best = torch.maximum(best, shared / (areas[0] + areas[1] - shared))
    return best


def test_as_many_objects_are_reached_as_the_package_s_anchors_reach(figure):
    rng = random.Random(1)
    designs = [PAPER] + [{k: rng.choice(v) for k, v in CHOICES.items()} for _ in range(49)]
    share, places = objects_of_voc()
    for design, seen in zip(designs, figure.states(designs), strict=True):
        best = best_of_all_cells(design, share, places)
        for key, least in (("half", 0.5), ("near", 0.7)):
            # The package's corners are in single precision.
            fewest, most = (int((best >= least + by).sum()) for by in (1e-5, -1e-5))
            assert fewest <= round(seen[key] * len(best)) <= most
            assert most - fewest <= 5
        assert seen["mean"] == pytest.approx(best.mean().item(), abs=1e-6)


def test_shares_are_those_that_the_chapter_prints(figure):
    cells = nbformat.read(BOOK / "07-anchors.ipynb", as_version=4).cells
    printed = "".join(o.get("text", "") for c in cells for o in c.get("outputs", []))
    rows = re.findall(
        r"(nine|\w+ \w+|one) +≥ 0.5: ([\d.]+)%, ≥ 0.7: ([\d.]+)%, mean (\S+)", printed
    )
    designs = {"nine": (3, 3), "three ratios": (1, 3), "three scales": (3, 1), "one": (1, 1)}
    assert [row[0] for row in rows] == list(designs)
    states = [{"scales": scales, "ratios": ratios} for scales, ratios in designs.values()]
    for row, seen in zip(rows, figure.states(states), strict=True):
        assert row[1:] == (
            f"{100 * seen['half']:.1f}",
            f"{100 * seen['near']:.1f}",
            f"{seen['mean']:.2f}",
        )
    for side, percent in re.findall(r"(\d+) px: reached are ([\d.]+)%", printed):
        assert f"{100 * figure.states([{'side': side}])[0]['half']:.1f}" == percent


def test_the_data_file_is_what_its_script_writes():
    script = load_script("data/make_anchors_data.py")
    text = (FOLDER / "anchors.data.js").read_text(encoding="utf-8")
    assert text == script.text()
    share, _ = objects_of_voc()
    digits = "".join(re.findall(r'"(\w+)"', text))
    sizes = [[int(digits[i + j : i + j + 2], 36) for j in (0, 2)] for i in range(0, len(digits), 8)]
    assert sizes == (share * 1000).round().int().tolist()


def test_the_curve_goes_through_the_shares(figure):
    (seen,) = figure.states([PAPER | {"scales": 1}])
    curve = figure.root.locator("g[clip-path] path.positive").get_attribute("d")
    points = [tuple(map(float, p.split())) for p in curve[1:].split("L")]
    assert len(points) == 81
    bottom, top = 158, 10  # of the axes, in units of the plot
    for at, key in ((0.5, "half"), (0.7, "near")):
        _, y = points[round((at - 0.2) * 100)]
        assert (bottom - y) / (bottom - top) == pytest.approx(seen[key], abs=1e-3)


@pytest.mark.parametrize("touch", [False, True], ids=["mouse", "finger"])
def test_the_object_is_dragged(figure: Figure, touch):
    """It is drawn a little smaller than a pixel of the screen a unit."""
    figure.states([{"object": [100, 100, 220, 200]}])
    figure.drag(OBJECT, 60, 90, touch=touch)
    assert figure.state()["object"] == pytest.approx([160, 190, 280, 290], abs=1)
    figure.drag(OBJECT, -40, 50, corner=3, touch=touch)
    assert figure.state()["object"] == pytest.approx([160, 190, 240, 340], abs=2)
    anchors = AnchorGenerator()((512, 512))
    best = pairwise_iou(anchors, torch.tensor([figure.state()["object"]]).float()).max()
    assert figure.read()["iou"] == pytest.approx(best.item(), abs=1e-6)


def test_keys_move_the_object_and_change_the_design(figure):
    figure.states([{"object": [100, 100, 220, 200]}])
    figure.press(OBJECT, "ArrowRight", 3)
    figure.press(OBJECT, "Shift+ArrowDown", 2)
    assert figure.state()["object"] == [103, 100, 223, 202]
    figure.slide("Base size of the finest level", 4)
    assert figure.state()["size"] == 16
    figure.root.get_by_role("radio", name="3", exact=True).focus()
    figure.page.keyboard.press("ArrowLeft")
    assert figure.state()["scales"] == 2
    assert figure.root.locator("rect.guess").count() == 6


def test_one_scale_loses_hardly_anyone_and_a_long_object_is_lost(figure):
    """What the reader is asked to find."""
    nine, three = figure.states([PAPER, PAPER | {"scales": 1}])
    assert nine["half"] - three["half"] < 0.02
    assert nine["near"] - three["near"] > 0.5
    slim, slimmer = figure.states(
        [{"object": [200, 20, 262, 290]}, {"object": [200, 20, 250, 280]}]
    )
    assert slim["iou"] >= 0.5 > slimmer["iou"]


@pytest.mark.parametrize(
    ("height", "words"), [(135, "must find"), (150, "ignored"), (175, "nobody learns")]
)
def test_words_follow_the_thresholds(figure, height, words):
    figure.states([PAPER | {"ratios": 1, "object": [224, 64, 288, 64 + height]}])
    assert words in (figure.root.locator(".verdict").text_content() or "")
