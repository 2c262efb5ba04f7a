"""What every explorable keeps: keyboard, themes, phones, addresses, and silence where it is absent.

What each computes is compared with the package in test_explorables_….py.
"""

from __future__ import annotations

import re

import pytest
from browsing import open_page, serious
from conftest import build_book, small_book
from explorables import FALLBACK, FOLDER, NAMES, Figure, write_page

LARGEST = 15_000  # bytes of a script: it is there to be read
CHANGEABLE = "input[type=range], .movable, input[type=checkbox], input[type=radio]:checked"


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def change_something(figure: Figure) -> None:
    """The first thing that the keyboard can change."""
    part = figure.root.locator(CHANGEABLE).first
    part.focus()
    is_box = part.get_attribute("type") == "checkbox"
    figure.page.keyboard.press("Space" if is_box else "ArrowRight")


def test_scripts_are_short_and_plain():
    for path in FOLDER.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert ".data." in path.name or len(text.encode()) <= LARGEST, path.name
        assert max(map(len, text.splitlines())) <= 100 or ".data." in path.name, path.name
        assert not re.search(r"\b(fetch|XMLHttpRequest|import|export|eval)\b\s*[({]", text), (
            path.name
        )
        assert re.findall(r"https?:[^\s\"']+", text) in ([], ["http://www.w3.org/2000/svg"])


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 1280)])
def test_it_fits_and_axe_finds_nothing(browser, tmp_path, name, scheme, width):
    with Figure(browser, tmp_path, name, scheme, width) as figure:
        assert figure.read()
        assert figure.findings() == []
        assert figure.overflow() == []
        # A finger needs 24 pixels: the control itself, or the label around it.
        small = figure.root.evaluate("""root => [...root.querySelectorAll(
            "button, input, select, .touch")].filter(e => {
                const { width, height } = (e.closest("label:not(.slider *)") ?? e)
                    .getBoundingClientRect();
                return width && Math.min(width, height) < 24;
            }).map(e => e.outerHTML.slice(0, 100))""")
        assert small == []


def test_every_part_is_reached_by_tab_and_the_focus_is_seen(browser, tmp_path, name):
    with Figure(browser, tmp_path, name) as figure:
        parts = figure.root.locator(f"{CHANGEABLE}, button, select").count()
        reached = 0
        for _ in range(parts + 5):
            figure.page.keyboard.press("Tab")
            shown = figure.page.evaluate("""() => {
                const part = document.activeElement;
                if (!part.closest("[data-explorable]")) return null;
                const marks = [part, part.nextElementSibling, part.querySelector(".halo")];
                return marks.filter(Boolean).map(getComputedStyle)
                    .some(s => s.outlineStyle === "solid" || parseFloat(s.strokeWidth) > 8);
            }""")
            assert shown is not False, figure.page.evaluate("document.activeElement.outerHTML")
            reached += bool(shown)
        assert reached >= parts


def test_the_address_keeps_the_state(browser, tmp_path, name):
    with Figure(browser, tmp_path, name) as figure:
        page, first, length = figure.page, figure.state(), "history.length"
        before = page.evaluate(length)
        change_something(figure)
        changed, results = figure.state(), figure.read()
        assert changed != first
        page.wait_for_function(f"location.hash.includes('{name}.')")
        assert page.evaluate(length) == before  # the way back leads out of the page
        page.reload()
        assert (figure.state(), figure.read()) == (changed, results)
        figure.root.get_by_role("button", name="Reset").click()
        assert figure.state() == first
        page.wait_for_function("location.hash === ''")


def test_an_address_without_sense_changes_nothing(browser, tmp_path, name):
    with Figure(browser, tmp_path, name) as figure:
        first = figure.state()
        for key, value in first.items():
            wrong = ["nonsense", "1e999", ""] if not isinstance(value, str | bool) else []
            for text in wrong:
                figure.page.evaluate(f"location.hash = '{name}.{key}={text}'")
                figure.page.wait_for_timeout(20)
                assert figure.state() == first


def test_results_are_told_when_the_reader_pauses(browser, tmp_path, name):
    with Figure(browser, tmp_path, name) as figure:
        status = figure.root.get_by_role("status")
        assert status.text_content() == ""  # nothing is said before something is done
        change_something(figure)
        figure.page.wait_for_function("s => s.textContent !== ''", arg=status.element_handle())
        assert status.text_content() == figure.root.locator(".verdict").text_content()


def test_without_scripts_the_text_is_there(browser, tmp_path, name):
    path = write_page(tmp_path, name)
    page = browser.new_page(java_script_enabled=False)
    page.goto(path.as_uri())
    assert page.get_by_text(FALLBACK).is_visible()
    page.close()


def test_on_paper_the_text_is_there_too(browser, tmp_path, name):
    with Figure(browser, tmp_path, name) as figure:
        text = figure.page.get_by_text(FALLBACK)
        assert not text.is_visible()
        figure.page.emulate_media(media="print")
        assert text.is_visible()


def test_scripts_do_nothing_without_their_place(browser, tmp_path):
    page, visit = open_page(browser, write_page(tmp_path, *NAMES, places=False))
    assert page.locator("script").count() >= len(NAMES) + 2
    assert page.locator("main").inner_html() == "<h1>A page</h1>"
    assert visit.errors == []
    page.close()


def test_all_on_one_page_do_not_disturb_each_other(browser, tmp_path):
    page, visit = open_page(browser, write_page(tmp_path, *NAMES))
    states = (
        "() => [...document.querySelectorAll('[data-explorable]')].map(e => e.explorable.state)"
    )
    first = page.evaluate(states)
    assert len(first) == len(NAMES)
    for name in NAMES:
        part = page.locator(f'[data-explorable="{name}"]').locator(CHANGEABLE).first
        part.focus()
        is_box = part.get_attribute("type") == "checkbox"
        page.keyboard.press("Space" if is_box else "ArrowRight")
    changed = page.evaluate(states)
    assert all(a != b for a, b in zip(first, changed, strict=True))
    for name in NAMES:
        page.wait_for_function(f"location.hash.includes('{name}.')")
    page.reload()
    assert page.evaluate(states) == changed
    assert visit.errors == []
    page.close()


def test_in_the_book_they_fit_a_phone_and_its_theme(browser, tmp_path):
    """The whole theme has styles and scripts that the pages above lack."""
    places = "\n\n".join(f'<div data-explorable="{name}">{FALLBACK}</div>' for name in NAMES)
    done = build_book(small_book(tmp_path, places), tmp_path)
    assert done.returncode == 0, done.stderr
    html = tmp_path / "_build" / "html" / "intro.html"
    for scheme in ("light", "dark"):
        page, visit = open_page(browser, html, scheme, 360)
        for name in NAMES:
            page.evaluate(f"location.hash = '{name}.nothing=1'")  # no selector for the theme
        page.reload()
        page.wait_for_timeout(200)
        assert page.locator(".explorable .parts").count() == len(NAMES)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert serious(page) == []
        assert visit.errors == []
        assert all(url.startswith(("file:", "data:")) for url in visit.requests)
        page.close()
