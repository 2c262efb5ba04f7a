"""The explorable `pyramid` sees what a ResNet-18 with an FPN sees, and matches as the package."""

from __future__ import annotations

import base64
import io
import random
import re
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from explorables import FOLDER, Figure, load_script
from PIL import Image
from skimage.data import astronaut
from torch import Tensor, nn

from retinanet_edu import AnchorGenerator, match_anchors, pairwise_iou
from retinanet_edu.backbone import ResNet
from retinanet_edu.fpn import build_neck

NAME = "pyramid"
SIDE = 512
ANCHORS = AnchorGenerator()((SIDE, SIDE))
COUNTS = [9 * rows * columns for rows, columns in AnchorGenerator().grid_sizes((SIDE, SIDE))]
SIZES = [8 * 2 ** (i / 5) for i in range(31)]  # the slider's


@cache
def maps_of(neck: str) -> tuple[Tensor, list[Tensor]]:
    """A strip of pixels 512 wide and its levels; each slope that can be is above 0.

    Weights are positive, so that nothing is cancelled or cut off, and the pooling takes the mean,
    since the maximum hands its slope to one pixel alone.
    """
    torch.manual_seed(0)
    backbone = ResNet(18, width=0.1).eval()
    backbone.maxpool = nn.AvgPool2d(3, stride=2, padding=1)
    pyramid = build_neck(neck, backbone.out_channels, 4)
    for module in (backbone, pyramid):
        for weight in module.double().parameters():
            weight.data.abs_()
    pixels = torch.ones(1, 3, 32, SIDE, dtype=torch.float64, requires_grad=True)
    return pixels, pyramid(backbone(pixels))


@cache
def seen_by(column: int, level: int, neck: str) -> tuple[int, int]:
    """From and to which column of pixels a cell can be changed, by its slopes."""
    pixels, maps = maps_of(neck)
    cell = maps[level - 3][0, :, 0, column].sum()
    (slope,) = torch.autograd.grad(cell, pixels, retain_graph=True)
    reached = (slope[0].sum(dim=(0, 1)) > 0).nonzero()[:, 0]  # (columns,)
    return int(reached[0]), int(reached[-1]) + 1


def cell_at(value: int, level: int) -> int:
    return min(value // 2**level, SIDE // 2**level - 1)


def object_of(state: dict[str, Any]) -> Tensor:
    """(1, 4): a square around the place, inside the picture."""
    size = state["size"]
    low = [min(max(v - size / 2, 0), SIDE - size) for v in state["at"]]
    return torch.tensor([[*low, low[0] + size, low[1] + size]], dtype=torch.float64)


def random_states(seed: int, count: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [
        {
            **{"at": [rng.randint(0, SIDE), rng.randint(0, SIDE)], "level": rng.randint(3, 7)},
            **{"down": rng.random() < 0.5, "size": rng.choice(SIZES)},
        }
        for _ in range(count)
    ]


def test_windows_are_where_slopes_are_not_zero(figure):
    """Width and height follow the same rule, so a strip of pixels is a witness for both."""
    states = random_states(0, 80)
    states += [{"at": [0, SIDE], "level": k, "down": d} for k in range(3, 8) for d in (True, False)]
    for state, seen in zip(states, figure.states(states), strict=True):
        level, neck = state["level"], "fpn" if state["down"] else "ssd"
        sides = [seen_by(cell_at(value, level), level, neck) for value in state["at"]]
        (x1, x2), (y1, y2) = sides
        assert seen["window"] == [x1, y1, x2, y2], state


def test_windows_are_those_of_the_chapters(figure):
    """99, 211 and 435 pixels; with the way down P3 sees as far as C5."""
    sides = []
    for level in (3, 4, 5):
        (seen,) = figure.states([{"at": [256, 256], "level": level, "down": False}])
        sides.append(seen["window"][2] - seen["window"][0])
    assert sides == [99, 211, 435]
    at = [8 * 29 + 1, 8 * 29 + 1]  # column 29, as in chapter 5
    (seen,) = figure.states([{"at": at, "level": 3, "down": True}])
    assert seen["window"][2] - seen["window"][0] == 435


def test_levels_take_what_the_package_matches(figure):
    states = random_states(1, 60)
    for state, seen in zip(states, figure.states(states), strict=True):
        box = object_of(state)
        iou = pairwise_iou(ANCHORS.double(), box)[:, 0].split(COUNTS)
        assert seen["best"] == pytest.approx([level.max().item() for level in iou], abs=1e-6)
        matched = match_anchors(ANCHORS, box.float())
        numbers = [int((part >= 0).sum()) for part in matched.split(COUNTS)]
        # An IoU of exactly one half may fall to either side in single precision.
        close = [int(((part - 0.5).abs() < 1e-5).sum()) for part in iou]
        for mine, right, doubtful in zip(seen["positives"], numbers, close, strict=True):
            assert abs(mine - right) <= doubtful
        assert sum(close) < 40
        assert seen["takers"] == [k for k, n in enumerate(seen["positives"], 3) if n]


def test_nine_anchors_of_the_cell_have_their_roles(figure):
    for state in random_states(2, 8):
        state["at"] = [min(max(v, 60), 450) for v in state["at"]]
        state["size"] = 4 * 2 ** state["level"] * 0.9 if state["level"] < 7 else 450
        (seen,) = figure.states([state])
        drawn = figure.root.locator("rect.anchor").evaluate_all(
            """all => all.map(r => [...['x', 'y', 'width', 'height'].map(k => +r.getAttribute(k)),
                r.getAttribute('class').split(' ')[1]])"""
        )
        boxes = torch.tensor([row[:4] for row in drawn], dtype=torch.float64)  # (9, 4)
        boxes[:, 2:] += boxes[:, :2]
        level = state["level"]
        column, row = (cell_at(value, level) for value in state["at"])
        start = sum(COUNTS[: level - 3]) + 9 * (row * (SIDE >> level) + column)
        right = ANCHORS[start : start + 9].double()
        torch.testing.assert_close(boxes, right, atol=1e-3, rtol=0)
        iou = pairwise_iou(right, object_of(state))[:, 0].tolist()
        names = ["positive" if v >= 0.5 else "ignored" if v >= 0.4 else "background" for v in iou]
        assert [role for *_, role in drawn] == names
        assert seen["mine"] == names.count("positive")


def test_the_share_of_the_object_that_is_seen(figure):
    states = random_states(3, 50)
    for state, seen in zip(states, figure.states(states), strict=True):
        box, window = object_of(state)[0], torch.tensor(seen["window"], dtype=torch.float64)
        common = torch.minimum(box[2:], window[2:]) - torch.maximum(box[:2], window[:2])
        share = common.clamp(min=0).prod() / state["size"] ** 2
        assert seen["seen"] == pytest.approx(share.item(), abs=1e-9)


def test_the_smallest_object_and_two_takers(figure):
    """What the reader is asked to find."""
    small, taken, both = figure.states([{"size": SIZES[i]} for i in (7, 8, 14)])
    assert [round(SIZES[i]) for i in (7, 8, 14)] == [21, 24, 56]
    assert (small["takers"], taken["takers"], both["takers"]) == ([], [3], [3, 4])
    plain, down = figure.states([{"down": False}, {"down": True}])
    assert plain["seen"] < 0.4
    assert down["seen"] == 1


@pytest.mark.parametrize("touch", [False, True], ids=["mouse", "finger"])
def test_the_place_is_dragged(figure: Figure, touch):
    figure.drag("Place", 40, 100, touch=touch)
    assert figure.state()["at"] == pytest.approx([268, 208], abs=2)
    figure.drag("Place", -900, 900, touch=touch)
    assert figure.state()["at"] == [0, SIDE]


def test_keys_and_clicks_move_the_place(figure):
    figure.press("Place", "ArrowRight", 5)
    figure.press("Place", "Shift+ArrowDown", 3)
    assert figure.state()["at"] == [233, 138]
    figure.slide("Object's side", 5)
    assert figure.state()["size"] == 32
    figure.part("P3").focus()
    figure.page.keyboard.press("ArrowRight")
    figure.page.keyboard.press("Tab")
    figure.page.keyboard.press("Space")
    state = figure.state()
    assert (state["level"], state["down"]) == (4, True)
    assert figure.read()["stride"] == 16
    box = figure.root.locator("svg.scene").bounding_box()
    figure.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.7)
    assert figure.state()["at"][0] == pytest.approx(256, abs=1)


def test_the_whole_cell_is_in_sight_at_every_level(figure):
    """Anchors of P7 are larger than the picture."""
    for level in range(3, 8):
        figure.states([{"at": [SIDE, 0], "level": level}])
        outer = figure.root.locator("svg.scene").bounding_box()
        for part in figure.root.locator("rect.anchor").all():
            inner = part.bounding_box()
            assert inner["x"] >= outer["x"] - 2
            assert inner["y"] >= outer["y"] - 2
            assert inner["x"] + inner["width"] <= outer["x"] + outer["width"] + 2


def test_the_photograph_is_the_astronaut():
    """Compared as pictures: encoders differ a little from version to version."""
    text = (FOLDER / "pyramid.data.js").read_text(encoding="utf-8")
    assert len(text) < 20_000
    script = load_script("data/make_pyramid_data.py")
    head, pattern = script.HEAD, r'base64,([^"]+)"'
    assert text.startswith(head)
    pictures = []
    for source in (text, script.text()):
        found = re.search(pattern, source)
        assert found is not None
        pictures.append(Image.open(io.BytesIO(base64.b64decode(found[1]))))
    stored, again = (np.asarray(picture, dtype=float) for picture in pictures)
    assert stored.shape == (script.SIDE, script.SIDE)
    assert np.abs(stored - again).mean() < 2
    grey = Image.fromarray(astronaut()).convert("L").resize(pictures[0].size)
    assert np.abs(stored - np.asarray(grey, dtype=float)).mean() < 6
