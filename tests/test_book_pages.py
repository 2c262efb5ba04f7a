"""The built pages in a browser, from the disk: no errors, no network, readable by everyone.

They are opened in the system's Chromium or Chrome, in the light, in the dark, and at the width of
a phone. Without a browser these tests are skipped, except where CI is set.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from browsing import FIND_WIDE, Visit, open_page, playwright, serious

PHONE = 390  # pixels of width

UNFOLD = """() => {
    const style = document.createElement('style');
    style.textContent = '* { animation: none !important; transition: none !important }';
    document.head.append(style);
    const folded = 'details:not([open]) > summary, .toggle-button-hidden';
    const buttons = [...document.querySelectorAll(folded)];
    buttons.forEach(button => button.click());
    document.getElementById('pst-back-to-top').style.display = 'block';  // else after scrolling
}"""

# The theme looks again for what scrolls, a while after something was unfolded.
ALL_IN_REACH = """() => [...document.querySelectorAll('pre')].every(
    block => block.scrollWidth <= block.clientWidth || block.tabIndex === 0
)"""

# Of the thousands of words in code that look alike, axe sees one: else it takes five times as long.
THIN_OUT = """() => {
    const words = [...document.querySelectorAll(':is(.highlight pre, dt.sig) :is(span, em)')];
    const looks = words.map(word => [word, word.closest('pre, dt')].map(element => {
        const {color, backgroundColor, fontWeight, fontSize} = getComputedStyle(element);
        return [color, backgroundColor, fontWeight, fontSize];
    }).join());
    const seen = new Set();
    words.forEach((word, i) => {
        if (seen.has(looks[i])) word.replaceWith(...word.childNodes);
        seen.add(looks[i]);
    });
    document.querySelectorAll('pre, dt').forEach(block => block.normalize());
}"""


def pages_of(book: Path) -> list[Path]:
    """All but index.html, which only leads to the first page."""
    return sorted(path for path in book.glob("*.html") if path.name != "index.html")


@pytest.fixture(scope="module")
def visits(browser: playwright.Browser, built_book: Path) -> list[Visit]:
    """Every page, opened three times."""
    done = []
    for path in pages_of(built_book):
        for scheme, width in (("light", 1280), ("dark", 1280), ("light", PHONE)):
            page, visit = open_page(browser, path, scheme, width)
            page.evaluate(UNFOLD)
            with suppress(playwright.TimeoutError):  # then axe names what cannot be reached
                page.wait_for_function(ALL_IN_REACH, timeout=5000)
            visit.background = page.evaluate("getComputedStyle(document.body).backgroundColor")
            if width == PHONE:
                if page.evaluate("document.documentElement.scrollWidth") > width:
                    visit.overflow = page.evaluate(FIND_WIDE) or ["the page itself"]
            else:
                if scheme == "light":  # in the dark only the colours are others
                    visit.findings = serious(page, without=["color-contrast"])
                page.evaluate(THIN_OUT)
                visit.findings += serious(page, only=["color-contrast"])
            page.close()
            done.append(visit)
    return done


def told(visits: list[Visit], name: str) -> list[str]:
    return [f"{v.page} ({v.scheme}, {v.width}): {x}" for v in visits for x in getattr(v, name)]


def test_every_page_opens_without_an_error(visits, built_book):
    assert len(visits) == 3 * len(pages_of(built_book)) > 0
    assert told(visits, "errors") == []


def test_no_page_asks_for_anything_that_is_not_on_the_disk(visits):
    assert all(visit.requests for visit in visits)
    away = [
        x
        for x in told(visits, "requests")
        if not x.split(": ", 1)[1].startswith(("file:", "data:", "blob:"))
    ]
    assert away == []


def test_axe_finds_nothing_serious_that_is_ours(visits):
    assert told(visits, "findings") == []


def test_a_phone_needs_no_scrolling_sideways(visits):
    assert told(visits, "overflow") == []


def test_the_dark_is_dark(visits):
    for visit in visits:
        red, green, blue = map(int, visit.background.strip("rgba()").split(",")[:3])
        assert (red + green + blue < 150) == (visit.scheme == "dark"), visit


def test_the_index_leads_to_the_first_page(browser, built_book):
    page, visit = open_page(browser, built_book / "index.html")
    page.wait_for_url("**/intro.html")
    assert visit.errors == []
    page.close()


def test_equations_are_drawn_and_none_is_broken(browser, built_book):
    page, _ = open_page(browser, built_book / "02-boxes.html")
    assert page.locator("mjx-container").count() > 5
    for path in sorted(built_book.glob("[0-9]*.html")):
        page.goto(path.as_uri())
        if page.locator(".math").count():
            page.wait_for_selector("mjx-container")
        assert page.locator("mjx-merror, [data-mjx-error]").all_inner_texts() == [], path.name
    page.close()


def test_a_solution_is_folded_until_it_is_asked_for(browser, built_book):
    page, _ = open_page(browser, built_book / "02-boxes.html")
    solution = page.locator(".solution").first
    text = solution.get_by_text("one third")
    assert not text.is_visible()
    solution.locator("button.toggle-button").focus()
    page.keyboard.press("Enter")
    assert text.is_visible()
    page.close()


def test_searching_works_from_the_disk(browser, built_book):
    page, visit = open_page(browser, built_book / "search.html")
    page.goto((built_book / "search.html").as_uri() + "?q=anchor")
    page.wait_for_selector("#search-results li a[href*='conventions.html']")  # one of many
    assert visit.errors == []
    page.close()


def test_these_tests_see_what_they_look_for(browser, tmp_path):
    """A page with one fault of each kind."""
    (tmp_path / "bad.html").write_text(
        "<html lang=en><title>bad</title><main><h1>Bad</h1><img src=nowhere.png width=600>"
        "<p style='color:#aaa;background:#fff'>pale</p><script>nothing()</script>"
        "<script src=http://127.0.0.1:9/away.js></script></main></html>"
    )
    page, visit = open_page(browser, tmp_path / "bad.html", width=PHONE)
    assert any("nothing is not defined" in error for error in visit.errors)
    assert any("nowhere.png" in error for error in visit.errors)
    assert "http://127.0.0.1:9/away.js" in visit.requests
    rules = {finding.split(":")[0] for finding in serious(page)}
    assert {"image-alt", "color-contrast"} <= rules
    assert page.evaluate("document.documentElement.scrollWidth") > PHONE
    page.close()
