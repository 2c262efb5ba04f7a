"""Pages in a headless browser: what they ask for, what they complain about, what axe finds.

The browser is the system's Chromium or Chrome. Without one, tests that want it are skipped, except
where CI is set.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.base")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 120_000  # milliseconds: other tests keep both cores busy

# axe's findings in what Sphinx and the theme write and we do not: rule, and a part of the element.
OF_THE_THEME = (("aria-required-children", 'class="citation-list"'),)

FIND_WIDE = """() => [...document.querySelectorAll('main *')]
    .filter(e => !e.parentElement.closest(".cell_output, figure")) // these scroll by themselves
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
    .slice(0, 5).map(e => e.outerHTML.slice(0, 120))"""


@dataclass
class Visit:
    """What happened on one page."""

    page: str
    scheme: str
    width: int
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    overflow: list[str] = field(default_factory=list)
    background: str = ""


@contextmanager
def headless() -> Iterator[playwright.Browser]:
    paths = [path for name in BROWSERS if (path := shutil.which(name))]
    if not paths:
        message = f"no browser is installed; looked for {', '.join(BROWSERS)}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with playwright.sync_playwright() as driver:
        # Playwright starts it headless, with an empty profile in a folder of its own.
        browser = driver.chromium.launch(
            executable_path=paths[0], args=FLAGS, chromium_sandbox=False
        )
        yield browser
        browser.close()


def open_page(
    browser: playwright.Browser, path: Path, scheme: str = "light", width: int = 1280
) -> tuple[playwright.Page, Visit]:
    """Open a file, and note what it asks for and complains about."""
    size = {"width": width, "height": 900}
    page = browser.new_page(viewport=size, color_scheme=scheme)
    page.set_default_timeout(PATIENCE)
    visit = Visit(path.name, scheme, width)
    page.on("console", lambda m: m.type == "error" and visit.errors.append(m.text))
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    page.on("requestfailed", lambda request: visit.errors.append(f"failed: {request.url}"))
    page.on("request", lambda request: visit.requests.append(request.url))
    page.goto(path.as_uri(), wait_until="load")
    if page.locator(".math").count():
        page.wait_for_selector("mjx-container")
    page.wait_for_timeout(200)  # scripts that start after loading
    return page, visit


def serious(
    page: playwright.Page, only: Sequence[str] = (), without: Sequence[str] = ()
) -> list[str]:
    """What axe finds, by all rules, only these or all but those; the theme's own apart."""
    page.evaluate(axe.AXE_SCRIPT)
    options: dict[str, Any] = {"preload": False, "resultTypes": ["violations"]}
    options["rules"] = {name: {"enabled": False} for name in without}
    if only:
        options["runOnly"] = list(only)
    result = page.evaluate("options => axe.run(options)", options)
    found = []
    for rule in result["violations"]:
        if rule["impact"] not in ("serious", "critical"):
            continue
        for node in rule["nodes"]:
            theirs = any(rule["id"] == r and part in node["html"] for r, part in OF_THE_THEME)
            if not theirs:
                found.append(f"{rule['id']}: {node['html'][:160]}")
    return found
