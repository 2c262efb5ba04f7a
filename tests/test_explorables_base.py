"""The parts that base.js and scene.js offer, on an explorable that has one of each."""

from __future__ import annotations

import pytest
from explorables import Figure, hash_of

SCRIPT = """
(window.explorables ??= []).push({
  name: "parts",
  title: "One of each",
  state: { level: 3, size: 32, on: false, word: "b", menu: 2, step: 0, at: [50, 40], big: 1 },
  build(x, state) {
    const scene = x.scene({ width: 200, height: 100, label: "A point" });
    scene.point({ key: "at", label: "Point", role: "ground-truth" });
    scene.pick((a, b) => x.change({ at: [Math.round(a), Math.round(b)] }));
    const squares = x.add(scene.svg, "g");
    x.slider("level", { label: "Level", min: 3, max: 7 });
    x.slider("size", { label: "Size", min: 16, max: 1024, log: true, step: 0.5, unit: "px" });
    x.slider("step", { label: "Step", min: 0, max: 4, steps: true });
    x.checkbox("on", { label: "Forced" });
    x.choice("word", { label: "Word", options: [["a", "first"], ["b", "second"]] });
    x.choice("menu", { label: "Menu", options: [[1, "one"], [2, "two"]], select: true });
    x.button("Double", () => x.change({ big: 2 * state.big }));
    const show = x.reading("sum", "Sum", { digits: 1, unit: "px" });
    const showList = x.reading("list", "List", { format: (v) => v.join(" ") });
    const rows = x.table({ caption: "Ledger", head: ["score", "what"] });
    const plot = x.plot({
      x: [1, 100], xlog: true, y: [0, 1], xticks: [1, 10, [100, "hundred"]], yticks: [0, 0.5, 1],
      xlabel: "n", ylabel: "share", label: "Share against n", into: x.below,
    });
    const line = plot.line({ class: "prediction" });
    return () => {
      show(-1234.56 * state.big);
      showList([state.level, state.on]);
      x.fill(squares, "rect", Array.from({ length: state.step }, (_, i) => (
        { x: 20 * i, y: 0, width: 9, height: 9, class: i ? "ignored" : "positive" })));
      rows([["0.9", state.word], [{ text: "0.8", class: "kept" }, "x"]].slice(0, state.menu));
      line([[1, 0], [10, 0.5], [100, 1]]);
      x.say(`Level ${state.level}.`);
    };
  },
});
"""


@pytest.fixture(scope="module")
def opened(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    script = folder / "parts.js"
    script.write_text(SCRIPT, encoding="utf-8")
    with Figure(browser, folder, "parts", width=360, more=[script]) as figure:
        yield figure


def test_axe_finds_nothing_in_any_part(figure):
    assert figure.findings() == []
    assert figure.overflow() == []


def test_controls_change_the_state(figure):
    root = figure.root
    figure.slide("Level", 6)
    root.get_by_label("Forced").check()
    root.get_by_label("first").check()
    root.get_by_label("Menu").select_option("1")
    root.get_by_role("button", name="Step: next").click(click_count=3)
    root.get_by_role("button", name="Step: back").click()
    root.get_by_role("button", name="Double").click()
    assert figure.state() == {
        **{"level": 6, "size": 32, "on": True, "word": "a", "menu": 1, "step": 2, "big": 2},
        "at": [50, 40],
    }
    assert figure.read() == {"sum": -2469.12, "list": [6, True]}
    assert root.locator("[data-name=sum]").inner_text() == "−2,469.1\u00a0px"
    assert root.locator("rect.positive, rect.ignored").count() == 2
    assert root.locator("td").all_inner_texts() == ["0.9", "a"]
    figure.reset()
    assert root.locator("td").all_inner_texts() == ["0.9", "b", "0.8", "x"]
    assert root.locator("td.kept").count() == 1
    assert not root.get_by_label("Forced").is_checked()


def test_a_slider_of_logarithms_is_exact_at_powers_of_two(figure):
    figure.press("Size32\u00a0px", "ArrowRight", 2)
    assert figure.state()["size"] == 64


def test_a_step_button_stops_at_both_ends(figure):
    figure.root.get_by_role("button", name="Step: back").click()
    assert figure.state()["step"] == 0
    for _ in range(6):
        figure.root.get_by_role("button", name="Step: next").click()
    assert figure.state()["step"] == 4


def test_a_point_moves_by_keys_mouse_finger_and_clicks(figure):
    figure.press("Point", "ArrowLeft", 3)
    figure.press("Point", "Shift+ArrowDown")
    assert figure.state()["at"] == [47, 50]
    figure.drag("Point", 20, -10)
    assert figure.state()["at"] == [67, 40]
    figure.drag("Point", 13, 500, touch=True)
    assert figure.state()["at"] == [80, 100]
    box = figure.root.locator("svg.scene").first.bounding_box()
    figure.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert figure.state()["at"] == [100, 50]


def test_a_line_runs_between_the_axes(figure):
    path = figure.root.locator("path.prediction").get_attribute("d")
    assert path == "M50.00 178.00L199.00 94.00L348.00 10.00"
    assert figure.root.locator(".axes text", has_text="hundred").count() == 1


def test_a_link_that_is_followed_at_once_wins(figure):
    """The address is written when the reader pauses; a newer address must not be lost by it."""
    link = hash_of("parts", {"level": 7, "at": [1, 2], "on": True, "word": "a"})
    figure.root.get_by_role("button", name="Double").click()
    figure.page.evaluate("link => { location.hash = link }", link)
    figure.page.wait_for_timeout(600)
    state = figure.state()
    assert [state[key] for key in ("level", "at", "on", "word", "big")] == [7, [1, 2], True, "a", 1]


@pytest.mark.parametrize("key", ["level=8", "at=1,2,3", "at=-1,5", "word=c", "menu=3", "size=x"])
def test_a_value_that_no_control_allows_is_the_default(figure, key):
    first = figure.state()
    figure.page.evaluate("key => { location.hash = `parts.${key}` }", key)
    figure.page.wait_for_timeout(50)
    assert figure.state() == first


def test_a_heading_s_address_is_left_alone(figure):
    figure.page.evaluate("location.hash = 'a-heading'")
    figure.page.wait_for_timeout(50)
    figure.root.get_by_role("button", name="Double").click()
    figure.page.wait_for_function("location.hash === '#parts.big=2'")
    figure.page.evaluate("location.hash = 'a-heading'")
    figure.page.wait_for_timeout(50)
    assert figure.state()["big"] == 2
