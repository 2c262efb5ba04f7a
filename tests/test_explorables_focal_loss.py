"""The explorable `focal-loss` computes what `focal_loss` computes."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from explorables import Figure

from retinanet_edu import focal_loss

NAME = "focal-loss"
OBJECTS, BACKGROUNDS = 20, 100_000
SAME = 1e-7  # the package keeps α in single precision
LEFT, RIGHT, TOP, BOTTOM, HIGHEST = 50, 348, 10, 178, 3  # the plot's axes: 0…1 and 0…3


def logit(p: float) -> torch.Tensor:
    return torch.tensor([p], dtype=torch.float64).logit()


def one_loss(p: float, is_object: bool, state: dict) -> float:
    z = logit(p)
    return focal_loss(z, torch.full_like(z, is_object), state["alpha"], state["gamma"]).item()


def everything(state: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """All 100,020 logits and targets."""
    logits = torch.cat(
        [logit(state["object"]).expand(OBJECTS), logit(state["background"]).expand(BACKGROUNDS)]
    )
    targets = torch.zeros_like(logits)
    targets[:OBJECTS] = 1
    return logits, targets


def verdict(figure: Figure) -> str:
    return figure.root.locator(".verdict").text_content() or ""


def places(path: str) -> dict[float, float]:
    """Loss by p, from a curve's points on the screen."""
    points = [tuple(map(float, pair.split())) for pair in path.lstrip("M").split("L")]
    return {(x - LEFT) / (RIGHT - LEFT): (BOTTOM - y) / (BOTTOM - TOP) * HIGHEST for x, y in points}


def test_the_package_computes_the_same(figure):
    rng = random.Random(0)
    states = [
        {
            "gamma": round(rng.uniform(0, 5), 1),
            "alpha": round(rng.uniform(0, 1), 2),
            "background": round(rng.uniform(0.001, 0.2), 3),
            "object": round(rng.uniform(0.01, 0.99), 2),
        }
        for _ in range(80)
    ]
    states += [{**states[0], "gamma": gamma, "alpha": a} for gamma in (0, 5) for a in (0, 0.5, 1)]
    for state, seen in zip(states, figure.states(states), strict=True):
        logits, targets = everything(state)
        settings = (state["alpha"], state["gamma"])
        right = {
            "object": one_loss(state["object"], True, state),
            "background": one_loss(state["background"], False, state),
            "objects": focal_loss(logits[:OBJECTS], targets[:OBJECTS], *settings).item(),
            "backgrounds": focal_loss(logits[OBJECTS:], targets[OBJECTS:], *settings).item(),
            "focal": focal_loss(logits, targets, *settings).item(),
            "cross": F.binary_cross_entropy_with_logits(logits, targets, reduction="sum").item(),
        }
        assert seen == pytest.approx(right, rel=SAME)


def test_without_gamma_it_is_weighted_cross_entropy(figure):
    """The law in `focal_loss`: with α = ½ half of it."""
    for alpha, words in [
        (0.5, "exactly half of the binary cross entropy"),
        (0.75, "0.75 times that of objects and 0.25 of background"),
        (1, "cross entropy, but α = 1 leaves out the background"),
        (0, "cross entropy, but α = 0 leaves out the objects"),
    ]:
        state = {"gamma": 0, "alpha": alpha, "background": 0.02, "object": 0.3}
        (seen,) = figure.states([state])
        logits, targets = everything(state)
        weights = torch.where(targets == 1, alpha, 1 - alpha)
        wanted = F.binary_cross_entropy_with_logits(logits, targets, weights, reduction="sum")
        assert seen["focal"] == pytest.approx(wanted.item(), rel=SAME)
        assert words in verdict(figure)
    figure.states([{"gamma": 0.1, "alpha": 0.5}])
    assert "cross entropy" in verdict(figure)
    assert "half" not in verdict(figure)


def test_curves_and_dots_are_drawn_where_the_package_says(figure):
    for state in (
        {"gamma": 2, "alpha": 0.25, "background": 0.2, "object": 0.1},
        {"gamma": 0.5, "alpha": 0.5, "background": 0.1, "object": 0.6},
    ):
        figure.states([state])
        for kind, role in (("object", "positive"), ("background", "background")):
            path = figure.root.locator(f"g[clip-path] path.{role}").get_attribute("d") or ""
            drawn = places(path)
            assert len(drawn) > 100
            for p, loss in drawn.items():
                p = round(400 * p) / 400
                assert loss == pytest.approx(one_loss(p, kind == "object", state), abs=1e-3)
        dot = figure.root.locator("circle.positive")
        x, y = (float(dot.get_attribute(name) or "") for name in ("cx", "cy"))
        ((p, loss),) = places(f"{x} {y}").items()
        assert p == pytest.approx(state["object"])
        assert loss == pytest.approx(one_loss(p, True, state), abs=1e-3)


def test_the_bar_shows_the_shares(figure):
    for state in ({"gamma": 0}, {"gamma": 1}, {"gamma": 2, "background": 0.07}):
        (seen,) = figure.states([state])
        share = seen["objects"] / (seen["objects"] + seen["backgrounds"])
        bars = figure.root.locator("rect[height='38']")
        widths = [float(bar.get_attribute("width") or "") for bar in bars.all()]
        assert widths == pytest.approx([360 * share, 360 * (1 - share)])
        assert f"The objects pay {100 * share:.1f} %" in verdict(figure)


def test_what_the_reader_is_asked_to_find(figure):
    """Cross entropy is the background's; the tables turn at γ = 0.7, and back at p = 0.073."""

    def share() -> float:
        seen = figure.read()
        return seen["objects"] / seen["focal"]

    assert share() == pytest.approx(0.0438, abs=1e-4)
    figure.slide("γ", 0.6)
    assert share() < 0.5
    figure.page.keyboard.press("ArrowRight")
    assert share() > 0.5
    figure.slide("γ", 2)
    assert share() > 0.99
    figure.slide("p of each background", 0.07)
    assert share() > 0.5
    figure.slide("p of each background", 0.073)
    assert share() < 0.5


@pytest.mark.parametrize("touch", [False, True], ids=["mouse", "finger"])
def test_sliders_are_dragged(figure, touch):
    slider = figure.root.get_by_label("α, weight of objects")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box is not None
    middle, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    way = [(middle, y), (middle + 20, y), (box["x"] + box["width"] - 1, y)]
    if touch:
        figure._touch(way)
    else:
        figure.page.mouse.move(*way[0])
        figure.page.mouse.down()
        for place in way[1:]:
            figure.page.mouse.move(*place)
        figure.page.mouse.up()
    assert figure.state()["alpha"] == 1
    assert figure.read()["backgrounds"] == 0


def test_small_numbers_keep_three_digits(figure):
    figure.states([{"gamma": 2, "alpha": 0.25}])
    shown = [b.text_content() for b in figure.root.locator("b[data-name]").all()]
    assert shown[:2] == ["0.466", "0.000000754"]
    assert "weighs 619,000 backgrounds" in verdict(figure)
