"""The explorable `box-coding` computes what `encode_boxes` and `decode_boxes` compute."""

from __future__ import annotations

import math
import random

import pytest
import torch
from explorables import Figure

from retinanet_edu import AnchorGenerator, decode_boxes, encode_boxes

NAME = "box-coding"
BOX = "Predicted box"
KEYS = ("dx", "dy", "dw", "dh")


def double(numbers) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def offsets_of(figure: Figure) -> list[float]:
    state = figure.state()
    return [state[key] for key in KEYS]


def test_the_package_computes_the_same(figure):
    rng = random.Random(0)
    states = [
        {"size": rng.choice((32, 64, 128)), "ratio": rng.choice((0.5, 1, 2))}
        | {key: round(rng.uniform(-3, 3), 3) for key in ("dx", "dy")}
        | {key: round(rng.uniform(-3, 5), 3) for key in ("dw", "dh")}
        for _ in range(100)
    ]
    limit = math.log(1000 / 16)
    assert sum(state["dw"] > limit for state in states) > 5
    for state, seen in zip(states, figure.states(states), strict=True):
        deltas, anchor, box = (
            double(v) for v in ([state[k] for k in KEYS], seen["anchor"], seen["box"])
        )
        torch.testing.assert_close(box, decode_boxes(deltas, anchor), atol=1e-9, rtol=1e-12)
        torch.testing.assert_close(
            encode_boxes(box, anchor)[2:], deltas[2:].clamp(max=limit), atol=1e-9, rtol=0
        )
        assert seen["factors"] == pytest.approx([math.exp(min(state[k], limit)) for k in KEYS[2:]])


def test_the_anchor_is_the_generator_s(figure):
    """Its sides; the generator's cell is elsewhere."""
    states = [{"size": s, "ratio": r} for s in (32, 64, 128) for r in (0.5, 1, 2)]
    for state, seen in zip(states, figure.states(states), strict=True):
        make = AnchorGenerator([state["size"]], [1.0], [state["ratio"]], [8])
        x1, y1, x2, y2 = make((8, 8))[0].tolist()
        a = seen["anchor"]
        assert [a[2] - a[0], a[3] - a[1]] == pytest.approx([x2 - x1, y2 - y1], rel=1e-6)
        assert [(a[0] + a[2]) / 2, (a[1] + a[3]) / 2] == pytest.approx([180, 120])


@pytest.mark.parametrize("touch", [False, True], ids=["mouse", "finger"])
def test_a_dragged_box_is_encoded(figure, touch):
    figure.states([dict(zip(KEYS, (0, 0, 0, 0), strict=True))])
    figure.drag(BOX, 40, -30, touch=touch)
    figure.drag(BOX, 24, 32, corner=3, touch=touch)
    wanted = double([188, 58, 276, 154])  # the anchor is 148 88 212 152
    seen = figure.read()
    right = encode_boxes(wanted, double(seen["anchor"]))
    assert offsets_of(figure) == pytest.approx(right.tolist(), abs=6e-4)  # three digits are kept
    assert seen["box"] == pytest.approx(wanted.tolist(), abs=0.2)


def test_arrow_keys_move_the_box_and_the_sliders(figure):
    figure.states([dict(zip(KEYS, (0, 0, 0, 0), strict=True))])
    figure.press(BOX, "ArrowRight", 16)
    assert figure.state()["dx"] == 16 / 64
    figure.slide("dh, log of a factor", -2.5)
    assert figure.state()["dh"] == pytest.approx(-2.5)
    right = decode_boxes(double(offsets_of(figure)), double(figure.read()["anchor"]))
    assert figure.read()["box"] == pytest.approx(right.tolist())


def test_the_anchor_changes_and_the_four_numbers_stay(figure):
    """What the reader is asked to find."""
    before, wide = offsets_of(figure), figure.read()["box"]
    figure.part("128 px").check()
    box = figure.read()["box"]
    assert offsets_of(figure) == before
    assert box[2] - box[0] == pytest.approx(2 * (wide[2] - wide[0]))


def test_beyond_the_limit_nothing_grows(figure):
    below, at, above = figure.states([{"dw": dw} for dw in (4.13, 4.14, 5)])
    assert below["factors"][0] < 62.5
    assert at == above
    assert at["factors"][0] == pytest.approx(1000 / 16)
    assert "ln(1000/16)" in (figure.root.locator(".verdict").text_content() or "")


def test_a_box_outside_is_looked_at_from_further_away(figure):
    figure.states([{"dw": 4, "dx": 0, "dy": 0}])
    shape, scene = figure.part(BOX).locator(".shape"), figure.root.locator("svg.scene")
    inner, outer = shape.bounding_box(), scene.bounding_box()
    assert inner["x"] >= outer["x"]
    assert inner["x"] + inner["width"] <= outer["x"] + outer["width"]
