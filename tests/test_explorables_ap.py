"""The explorable `ap` computes what `precision_recall` and `average_precision` compute."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from explorables import Figure, data_of, load_script

from retinanet_edu.evaluation import Ledger, average_precision, precision_recall

NAME = "ap"
METHODS = ("area", "11-point")
IOUS = ("0.5", "0.75", "0.9")


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    """The data of the page."""
    return data_of("ap")


def cut_ledger(data: dict[str, Any], iou: str, cut: float) -> Ledger:
    """What a threshold leaves of a ledger of the page."""
    scores = np.array(data["scores"])
    kept = scores > cut
    letters = np.array(list(data["fates"][iou]))[kept]
    return Ledger(scores[kept], letters == "T", letters == "I", data["objects"], 0)


def expected(ledger: Ledger) -> dict[str, Any]:
    recall, precision = precision_recall(ledger)
    return {
        "objects": ledger.objects,
        "true": int(ledger.true_positive.sum()),
        "counted": len(recall),
        "precision": pytest.approx(precision[-1]) if len(recall) else None,
        "recall": pytest.approx(recall[-1]) if len(recall) else 0,
    } | {how: pytest.approx(average_precision(recall, precision, how)) for how in METHODS}


def test_the_package_makes_the_data(shipped):
    """What was detected and judged long ago is detected and judged now."""
    made = load_script("data/make_explorable_data.py").ledgers()
    assert set(made) == set(shipped) == {"hand", "disc", "crescent"}
    for name, ledger in made.items():
        assert shipped[name]["objects"] == ledger["objects"]
        assert shipped[name]["scores"] == pytest.approx(ledger["scores"], abs=2e-3)
        fates = {str(iou): letters for iou, letters in ledger["fates"].items()}
        assert shipped[name]["fates"] == fates


def test_the_ledger_by_hand_is_the_chapter_s(shipped):
    assert shipped["hand"]["fates"]["0.5"] == "TFFT"
    assert shipped["hand"]["objects"] == 2


def test_the_package_computes_the_same(figure, shipped):
    rng = random.Random(0)
    states = [
        {"ledger": name, "iou": iou, "cut": round(cut, 3)}
        for name, data in shipped.items()
        for iou in IOUS
        for cut in [0.05, 1, data["scores"][0], data["scores"][2], *(rng.random() for _ in "12345")]
        if cut >= 0.05
    ]
    assert len(states) > 70
    for state, seen in zip(states, figure.states(states), strict=True):
        ledger = cut_ledger(shipped[state["ledger"]], state["iou"], state["cut"])
        assert seen == expected(ledger), state


def test_nothing_said_is_neither_right_nor_found(figure):
    (seen,) = figure.states([{"cut": 1}])
    assert (seen["precision"], seen["recall"], seen["area"], seen["11-point"]) == (None, 0, 0, 0)
    assert figure.root.locator("[data-name=precision]").inner_text() == "0/0"


def test_a_lower_threshold_never_costs(figure):
    """What the reader is asked to find, in every ledger and by both methods."""
    for ledger in ("hand", "disc", "crescent"):
        for iou in IOUS:
            cuts = [round(1 - 0.05 * k, 2) for k in range(20)]
            seen = figure.states([{"ledger": ledger, "iou": iou, "cut": cut} for cut in cuts])
            for how in METHODS:
                assert (np.diff([one[how] for one in seen]) >= -1e-12).all()


def test_eleven_points_say_more_or_less_than_the_area(figure):
    """What the reader is asked to find as well."""
    low, high = figure.states([{"iou": iou, "cut": 0.05} for iou in (0.5, 0.9)])
    assert low["11-point"] < low["area"] - 0.02
    assert high["11-point"] > high["area"] + 0.005


def test_arrow_keys_and_buttons_move_the_threshold(figure, shipped):
    figure.slide("Scores above", 0.6)
    assert figure.state()["cut"] == pytest.approx(0.6)
    before = figure.read()
    figure.root.get_by_role("button", name="one more").click()
    assert figure.state()["cut"] == shipped["disc"]["scores"][before["counted"] + 2]
    assert figure.read()["counted"] == before["counted"] + 1
    figure.root.get_by_role("button", name="one fewer").press("Enter")
    figure.root.get_by_role("button", name="one fewer").press("Enter")
    assert figure.read()["counted"] == before["counted"] - 1


def test_buttons_reach_both_ends(figure):
    figure.part("A to D").check()
    for times, counted in ((6, 0), (6, 4)):
        name = "one fewer" if counted == 0 else "one more"
        for _ in range(times):
            figure.root.get_by_role("button", name=name).click()
        assert figure.read()["counted"] == counted
    assert figure.read()["area"] == 0.75
    assert figure.read()["11-point"] == pytest.approx((6 + 5 * 0.5) / 11)


def place(figure: Figure, recall: float, precision: float) -> tuple[float, float]:
    """A point of the plot on the screen, from the axes' own lines."""
    return tuple(
        figure.root.evaluate(
            """(root, [recall, precision]) => {
                const lines = [...root.querySelectorAll(".axes path")]
                    .map(e => e.getBoundingClientRect());
                const [x0, x1] = [lines[0].x, lines[5].x];
                const [y0, y1] = [lines[6].y, lines[11].y];
                return [x0 + recall * (x1 - x0), y0 + precision * (y1 - y0)];
            }""",
            [recall, precision],
        )
    )


@pytest.mark.parametrize("touch", [False, True], ids=["mouse", "finger"])
def test_a_place_on_the_curve_is_where_the_threshold_falls(figure, touch):
    at = place(figure, 23 / 24, 0.5)
    figure.tap(*at) if touch else figure.page.mouse.click(*at)
    figure.page.wait_for_function("document.querySelector('[data-name=true]').textContent === '23'")
    assert figure.read()["recall"] == pytest.approx(23 / 24)


def test_the_slider_is_dragged_by_the_mouse(figure):
    slider = figure.root.get_by_label("Scores above").bounding_box()
    y, left = slider["y"] + slider["height"] / 2, slider["x"]
    figure.page.mouse.move(left + slider["width"] / 2, y)
    figure.page.mouse.down()
    figure.page.mouse.move(left - 10, y)
    figure.page.mouse.up()
    assert figure.state()["cut"] == 0.05
    assert figure.read()["counted"] == 105  # all but three of difficult objects


def test_the_drawing_has_the_heights_of_the_method(figure, shipped):
    figure.part("11 points (2007)").check()
    dots = figure.root.locator("circle.prediction")
    assert dots.count() == 11
    ledger = cut_ledger(shipped["disc"], "0.5", 0.5)
    recall, precision = precision_recall(ledger)
    for k in (0, 5, 7, 9):
        box = dots.nth(k).bounding_box()
        height = max(precision[recall >= k / 10], default=0)
        x, y = place(figure, k / 10, height)
        assert box["x"] + box["width"] / 2 == pytest.approx(x, abs=1)
        assert box["y"] + box["height"] / 2 == pytest.approx(y, abs=1)
    figure.part("area (2010)").check()
    assert dots.count() == 0
    assert figure.root.locator("path.area").get_attribute("d")


def test_the_table_tells_each_fate_and_follows_the_threshold(figure):
    rows = figure.root.locator("tbody tr")
    assert rows.nth(14).inner_text().split() == ["15", "0.970", "difficult", "–", "–"]
    assert rows.nth(14).locator("td.crossed").count() == 5
    assert rows.nth(16).inner_text().split() == ["17", "0.820", "✗", "false", "0.938", "0.625"]
    assert rows.nth(40).locator("td.out").count() == 5
    figure.slide("Scores above", 0.21)
    box, row = figure.root.locator(".scroll").bounding_box(), rows.nth(41).bounding_box()
    assert rows.nth(41).locator("td.out").count() == 0
    assert rows.nth(43).locator("td.out").count() == 5
    assert box["y"] < row["y"] < box["y"] + box["height"]
