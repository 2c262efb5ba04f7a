"""The explorable `iou` computes what `pairwise_iou` computes."""

from __future__ import annotations

import random

import pytest
import torch
from conftest import fraction_iou

from retinanet_edu import pairwise_iou

NAME = "iou"
OBJECT, PREDICTION = "Object's box", "Predicted box"


def random_box(rng: random.Random) -> list[int]:
    (x1, x2), (y1, y2) = (sorted(rng.sample(range(0, n, 10), 2)) for n in (480, 300))
    return [x1, y1, x2, y2]


def test_the_package_computes_the_same(figure):
    rng = random.Random(0)
    pairs = [(random_box(rng), random_box(rng)) for _ in range(100)]
    box = pairs[0][0]
    pairs += [(box, box), ([0, 0, 60, 60], [60, 0, 90, 60]), ([0, 0, 480, 300], [9, 9, 17, 17])]
    seen = figure.states([{"truth": a, "guess": b} for a, b in pairs])
    for (a, b), result in zip(pairs, seen, strict=True):
        boxes = torch.tensor([a, b], dtype=torch.float64)
        assert result["iou"] == pytest.approx(pairwise_iou(boxes, boxes)[0, 1].item(), abs=1e-12)
        assert result["iou"] == pytest.approx(float(fraction_iou(a, b)), abs=1e-12)
        assert result["intersection"] == pytest.approx(result["iou"] * result["union"])
    assert len({result["iou"] for result in seen}) > 20


def test_half_of_each_shared_is_a_third(figure):
    """What the reader is asked to find."""
    figure.press(PREDICTION, "ArrowLeft", 60)
    figure.press(PREDICTION, "ArrowUp", 60)
    assert figure.state()["guess"] == [150, 60, 330, 180]
    assert figure.read() == {"intersection": 10_800, "union": 32_400, "iou": 1 / 3}


@pytest.mark.parametrize(
    ("guess", "words"),
    [
        ([0, 0, 100, 39], "background"),
        ([0, 0, 100, 40], "ignored"),
        ([0, 0, 100, 49], "ignored"),
        ([0, 0, 100, 50], "positive"),
    ],
)
def test_both_thresholds_belong_to_the_upper_side(figure, guess, words):
    figure.states([{"truth": [0, 0, 100, 100], "guess": guess}])
    assert words in (figure.root.locator(".verdict").text_content() or "")


@pytest.mark.parametrize("touch", [False, True], ids=["mouse", "finger"])
def test_dragging_moves_and_a_corner_resizes(figure, touch):
    figure.drag(PREDICTION, 30, -60, touch=touch)
    assert figure.state()["guess"] == [240, 60, 420, 180]
    figure.drag(PREDICTION, -30, 30, corner=3, touch=touch)
    assert figure.state()["guess"] == [240, 60, 390, 210]
    figure.drag(OBJECT, 15, 20, corner=0, touch=touch)
    assert figure.state()["truth"] == [75, 80, 240, 180]


def test_boxes_stay_in_the_picture(figure):
    figure.drag(PREDICTION, 2000, 2000)
    assert figure.state()["guess"] == [300, 180, 480, 300]
    figure.drag(PREDICTION, 2000, 2000, corner=0)
    assert figure.state()["guess"] == [472, 292, 480, 300]


def test_shift_and_arrows_resize(figure):
    figure.press(PREDICTION, "Shift+ArrowRight", 5)
    figure.press(PREDICTION, "Shift+ArrowUp", 2)
    assert figure.state()["guess"] == [210, 120, 395, 238]


def test_the_smaller_of_two_boxes_is_taken(figure):
    """Else a small box below a large one could not be reached."""
    figure.states([{"truth": [200, 100, 260, 160], "guess": [100, 40, 360, 220]}])
    figure.drag(PREDICTION, 10, 0)  # from the middle of the large box
    assert figure.state()["guess"] == [100, 40, 360, 220]
    assert figure.state()["truth"] == [210, 100, 270, 160]
