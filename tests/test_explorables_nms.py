"""The explorable `nms` computes what `nms`, `nms_per_class` and `postprocess` compute."""

from __future__ import annotations

import base64
import io
import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from conftest import BOOK
from explorables import Figure, data_of, load_script
from PIL import Image
from skimage.data import astronaut

from retinanet_edu import AnchorGenerator, nms, pairwise_iou, postprocess
from retinanet_edu.structures import Predictions
from retinanet_edu.suppression import nms_per_class

NAME = "nms"
DATA = data_of(NAME)
COUNT = len(DATA["scores"])
LABELS = [sorted(set(DATA["classes"])).index(name) for name in DATA["classes"]]


def expected(state: dict[str, Any]) -> dict[str, Any]:
    """What the package says of a state of the figure; all of it is there in the last step."""
    scores = torch.tensor(DATA["scores"], dtype=torch.float64)
    few = int((scores > state["cut"]).sum())
    boxes, anchors = (
        torch.tensor(DATA[key], dtype=torch.float64)[:few] for key in ("boxes", "anchors")
    )
    labels = torch.tensor(LABELS)[:few] * state["within"]
    compared = boxes if state["order"] == "paper" else anchors
    if state["within"]:
        kept = nms_per_class(compared, scores[:few], labels, state["iou"])
    else:
        kept = nms(compared, scores[:few], state["iou"])
    # A candidate is dropped by the best of those kept that overlap it by more.
    iou = pairwise_iou(compared, compared)
    drops = (iou > state["iou"]) & (labels[:, None] == labels)  # (C, C)
    gone = []
    for j in sorted(set(range(few)) - set(kept.tolist())):
        by = next(i for i in kept.tolist() if drops[i, j])
        gone.append([j, by, pytest.approx(iou[by, j].item(), abs=1e-12)])
    meet = (pairwise_iou(boxes, boxes) > state["iou"]) & (labels[:, None] == labels)
    twins = meet[kept][:, kept].triu(1).nonzero()
    return {
        "step": [len(kept), len(kept)],
        "candidates": few,
        "gone": gone,
        "kept": kept.tolist(),
        "twins": kept[twins].tolist(),
    }


def random_state(rng: random.Random) -> dict[str, Any]:
    return {
        "iou": round(0.1 + 0.05 * rng.randrange(17), 2),
        "cut": round(rng.choice([0.3, rng.uniform(0.3, 0.6)]), 3),
        "within": rng.random() < 0.5,
        "order": rng.choice(["paper", "article"]),
    }


def test_the_package_makes_the_data():
    made = load_script("data/make_explorable_data.py").candidates()
    assert made | {"photograph": ""} == DATA | {"photograph": ""}
    assert (BOOK / "_static" / "explorables" / "nms.data.js").stat().st_size < 40_000


def test_the_photograph_is_the_astronaut():
    head, _, code = DATA["photograph"].partition(",")
    assert head == "data:image/jpeg;base64"
    small = Image.open(io.BytesIO(base64.b64decode(code)))
    assert small.mode == "L"
    right = Image.fromarray(astronaut()).convert("L").resize(small.size)
    away = np.asarray(small, float) - np.asarray(right, float)
    assert np.abs(away).mean() < 5


def test_the_package_computes_the_same(figure):
    rng = random.Random(0)
    states = [random_state(rng) for _ in range(100)]
    seen = figure.states([state | {"step": COUNT} for state in states])
    for state, result in zip(states, seen, strict=True):
        assert result == expected(state), state
    assert len({tuple(result["kept"]) for result in seen}) > 30


@pytest.mark.parametrize("cut", [0.3, 0.35, 0.4, 0.5])
def test_postprocess_detects_the_same(figure, cut):
    """From the numbers that the network said, without rounding."""
    with np.load(BOOK.parent / "data" / "voc_model" / "candidates_astronaut.npz") as file:
        found = {name: torch.from_numpy(file[name]) for name in file.files}
    size = tuple(found["padded_size"].tolist())
    anchors = AnchorGenerator()(size)  # (N, 4)
    logits = torch.full((1, len(anchors), 20), -9.0)
    place = found["anchors"].long()
    logits[0, place, found["labels"].long()] = found["scores"].logit()
    deltas = torch.zeros(1, len(anchors), 4)
    deltas[0, place] = found["offsets"]
    said = Predictions(logits, deltas, found["anchors_per_level"].tolist())
    (right,) = postprocess(
        said, anchors, [tuple(found["image_size"].tolist())], score_threshold=cut
    )
    (seen,) = figure.states([{"cut": cut, "step": COUNT}])
    scores = [DATA["scores"][i] for i in seen["kept"]]
    assert len(scores) > 0
    assert scores == pytest.approx(right.scores.tolist(), abs=1e-4)
    boxes = torch.tensor([DATA["boxes"][i] for i in seen["kept"]])
    assert (boxes - 2 * right.boxes).abs().max() < 0.06  # the photograph is twice as large


def test_every_step_chooses_the_best_that_is_left(figure):
    end = len(expected({"iou": 0.5, "cut": 0.3, "within": True, "order": "paper"})["kept"])
    seen = figure.states([{"step": step} for step in range(end + 1)])
    assert seen[0]["gone"] == []
    left = set(range(COUNT))
    for step, (before, now) in enumerate(pairwise(seen), start=1):
        assert now["step"] == [step, end]
        chosen = now["kept"][step - 1]
        assert chosen == min(left)
        new = [row for row in now["gone"] if row not in before["gone"]]
        assert {by for _, by, _ in new} <= {chosen}
        left -= {chosen, *(j for j, _, _ in new)}
    assert left == set()


def test_the_article_keeps_twins_and_the_paper_none(figure):
    """What the reader is asked to find."""
    figure.root.get_by_role("button", name="to end").click()
    assert figure.read()["twins"] == []
    figure.part("suppress first (article)").check()
    seen = figure.read()
    assert (len(seen["kept"]), len(seen["twins"])) == (14, 13)
    assert "13 pairs" in (figure.root.locator(".verdict").text_content() or "")


def test_across_classes_the_dining_table_goes(figure):
    """What the reader is asked to find as well."""
    figure.root.get_by_role("button", name="to end").click()
    names = {DATA["classes"][i] for i in figure.read()["kept"]}
    assert {"person", "diningtable"} <= names
    figure.press("Only within a class", "Space")
    names = {DATA["classes"][i] for i in figure.read()["kept"]}
    assert names == {"person", "boat", "bicycle"}


@pytest.mark.parametrize("way", ["mouse", "finger", "keys"])
def test_buttons_step_and_stop_at_both_ends(figure, way):
    def push(name: str) -> None:
        button = figure.root.get_by_role("button", name=name)
        if way == "mouse":
            button.click()
        elif way == "keys":
            button.press("Enter")
        else:
            button.scroll_into_view_if_needed()
            box = button.bounding_box()
            figure.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            figure.page.wait_for_timeout(50)

    push("back")
    assert figure.read()["step"] == [0, 9]
    push("next")
    push("next")
    assert figure.read()["step"] == [2, 9]
    push("to end")
    push("next")
    assert figure.read()["step"] == [9, 9]
    push("back")
    assert figure.read()["step"] == [8, 9]


def test_arrow_keys_move_both_thresholds(figure):
    figure.slide("Dropped above an IoU of", 0.3)
    figure.slide("Scores above", 0.45)
    state = figure.state()
    assert (state["iou"], state["cut"]) == (pytest.approx(0.3), pytest.approx(0.45))
    figure.root.get_by_role("button", name="to end").click()
    assert figure.read() == expected(state)


def test_the_drawing_shows_each_fate(figure):
    figure.states([{"step": 1}])
    root, seen = figure.root, figure.read()
    assert root.locator("rect.chosen").count() == 1
    assert root.locator("rect.dropped").count() == len(seen["gone"]) == 42
    assert root.locator("rect.waiting").count() == COUNT - 43
    x1, y1, x2, _ = DATA["boxes"][0]
    place = [float(root.locator("rect.chosen").get_attribute(key)) for key in ("x", "y", "width")]
    assert place == pytest.approx([x1, y1, x2 - x1])
    figure.part("their anchors").check()
    place = float(root.locator("rect.chosen").get_attribute("x"))
    assert place == DATA["anchors"][0][0]
    assert root.locator("image").get_attribute("href") == DATA["photograph"]


def test_no_box_is_drawn_out_of_sight(figure):
    for draw in ("boxes", "anchors"):
        figure.states([{"draw": draw, "step": COUNT}])
        scene = figure.root.locator("svg.scene").bounding_box()
        for rect in figure.root.locator("svg.scene rect").all():
            box = rect.bounding_box()
            assert box["x"] >= scene["x"] - 1
            assert box["x"] + box["width"] <= scene["x"] + scene["width"] + 1


def test_the_table_tells_who_dropped_whom(figure):
    figure.states([{"step": 1}])
    rows = figure.root.locator("tbody tr")
    assert rows.nth(0).inner_text().split() == ["1", "person", "0.580", "✓", "kept", "–"]
    assert rows.nth(1).inner_text().split() == ["2", "person", "0.577", "✗", "by", "1", "0.85"]
    assert rows.nth(16).inner_text().split() == ["17", "boat", "0.452", "waits", "–"]
    figure.root.get_by_role("button", name="to end").click()
    box, row = figure.root.locator(".scroll").bounding_box(), rows.nth(56).bounding_box()
    assert box["y"] < row["y"] < box["y"] + box["height"]


def test_a_step_that_is_none_is_not_taken(figure: Figure):
    for step in ("-1", "0.5", str(COUNT + 1)):
        figure.states([{"step": step}])
        assert figure.state()["step"] == 0
