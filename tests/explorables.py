"""An explorable on a small page of its own: driven as a reader does, and read.

The page holds the theme's and the book's styles and the scripts, all from the disk.

    figure = Figure(browser, tmp_path, "iou")
    figure.states([{"truth": [0, 0, 9, 9]}, {…}])   # what it shows in each, a dict a state
    figure.press("Predicted box", "ArrowRight", 3)  # focuses it by its label
    figure.drag("Predicted box", 30, 20)            # pixels of the image; touch=True: by finger
    figure.slide("γ", 2.5)                          # a slider, by keys
    figure.read()["iou"]                            # any data-name, in full precision
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from browsing import FIND_WIDE, open_page, playwright, serious
from conftest import BOOK

STATIC = BOOK / "_static"
FOLDER = STATIC / "explorables"
BASE = ("base", "scene")
FALLBACK = "What would be seen here."
NAMES = sorted({path.name.split(".")[0] for path in FOLDER.glob("*.js")} - set(BASE))

READ = """root => Object.fromEntries([...root.querySelectorAll("[data-name]")]
    .map(e => [e.dataset.name, JSON.parse(e.dataset.value)]))"""
VISIT = f"""async ([name, hashes]) => {{
    const root = document.querySelector(`[data-explorable="${{name}}"]`);
    const seen = [];
    for (const hash of hashes) {{
        if (location.hash === hash) root.explorable.load();
        else {{
            const heard = new Promise(r => addEventListener("hashchange", r, {{ once: true }}));
            location.hash = hash;
            await heard;
        }}
        seen.push(({READ})(root));
    }}
    return seen;
}}"""


def scripts_of(*names: str) -> list[Path]:
    """Each explorable's script and its data, before the base: the order must not matter."""
    own = [path for name in names for path in sorted(FOLDER.glob(f"{name}.*js"))]
    return own + [FOLDER / f"{name}.js" for name in BASE]


def data_of(name: str) -> dict[str, Any]:
    """What NAME.data.js holds, a line a key."""
    lines = (FOLDER / f"{name}.data.js").read_text(encoding="utf-8").splitlines()
    return json.loads("{" + "".join(x for x in lines if x.startswith("  ")).rstrip(",") + "}")


def load_script(path: str) -> Any:
    """The script that writes a data file, as a module; its path begins at the repository's root."""
    spec = importlib.util.spec_from_file_location("writes_data", BOOK.parent / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def theme_style(package: str) -> str:
    """The address of a theme's style, from the installed package."""
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "theme" / package / "static" / "styles"
    return (folder / f"{package.replace('_', '-')}.css").as_uri()


def write_page(
    folder: Path,
    *names: str,
    scheme: str = "light",
    places: bool = True,
    more: Sequence[Path] = (),
) -> Path:
    """A page with these explorables, as the theme would dress it.

    Args:
        folder: for the page.
        names: the explorables.
        scheme: "light" or "dark".
        places: whether they have a place on the page, or only their scripts are there.
        more: scripts that are not the book's.

    Returns:
        its path.
    """
    styles = [theme_style(name) for name in ("pydata_sphinx_theme", "sphinx_book_theme")]
    styles += [(STATIC / f"{name}.css").as_uri() for name in ("book", "explorables")]
    links = "".join(f'<link rel="stylesheet" href="{style}">' for style in styles)
    scripts = "".join(
        f'<script src="{path.as_uri()}"></script>' for path in [*more, *scripts_of(*names)]
    )
    places = "".join(f'<div data-explorable="{name}">{FALLBACK}</div>' for name in names if places)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width">{links}'
    path = folder / f"{'-'.join(names) or 'none'}-{scheme}.html"
    path.write_text(
        f'<!doctype html><html lang="en" data-theme="{scheme}"><head><title>A page</title>{head}'
        f'{scripts}</head><body><main class="bd-article" style="max-width: 50rem; padding: 8px">'
        f"<h1>A page</h1>{places}</main></body></html>",
        encoding="utf-8",
    )
    return path


def hash_of(name: str, state: Mapping[str, Any]) -> str:
    """The address's end that sets a state."""

    def text(value: Any) -> str:
        if isinstance(value, list | tuple):
            return ",".join(map(text, value))
        return json.dumps(value) if isinstance(value, bool) else str(value)

    return "#" + "&".join(f"{name}.{key}={text(value)}" for key, value in state.items())


class Figure:
    """One explorable on a page of its own.

    Attributes:
        page: Playwright's.
        visit: with the errors and the requests so far.
        root: the explorable.
    """

    def __init__(
        self,
        browser: playwright.Browser,
        folder: Path,
        name: str,
        scheme: str = "light",
        width: int = 1280,
        more: Sequence[Path] = (),
    ) -> None:
        path = write_page(folder, name, scheme=scheme, more=more)
        self.name = name
        self.page, self.visit = open_page(browser, path, scheme, width)
        self.root = self.page.locator(f'[data-explorable="{name}"]')

    def __enter__(self) -> Figure:
        return self

    def __exit__(self, *_: object) -> None:
        self.page.close()
        assert self.visit.errors == []
        assert [url for url in self.visit.requests if not url.startswith(("file:", "data:"))] == []

    def read(self) -> dict[str, Any]:
        """All results by their names."""
        return self.root.evaluate(READ)

    def state(self) -> dict[str, Any]:
        return self.root.evaluate("root => root.explorable.state")

    def states(self, states: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The results in each state, which is set by the address as a teacher's link does."""
        return self.page.evaluate(VISIT, [self.name, [hash_of(self.name, s) for s in states]])

    def reset(self) -> Figure:
        """As it was at first, by its button: the same page serves many tests."""
        self.root.get_by_role("button", name="Reset").click()
        return self

    def part(self, label: str) -> playwright.Locator:
        """A control or a thing that can be dragged, by its label."""
        return self.root.get_by_label(label, exact=True)

    def press(self, label: str, key: str, times: int = 1) -> None:
        self.part(label).focus()
        for _ in range(times):
            self.page.keyboard.press(key)

    def slide(self, label: str, value: float) -> None:
        """Bring a slider from its left end to a value by arrow keys."""
        slider = self.root.get_by_label(label)
        low, step = (float(slider.get_attribute(name) or 0) for name in ("min", "step"))
        slider.focus()
        self.page.keyboard.press("Home")
        for _ in range(round((value - low) / step)):
            self.page.keyboard.press("ArrowRight")

    def drag(
        self, label: str, dx: float, dy: float, *, corner: int | None = None, touch: bool = False
    ) -> None:
        """Drag by pixels of the image: a box or a point, or corner 0…3 of a box, row by row.

        Exact where a pixel of the image is at least one of the screen.
        """
        part = self.part(label)
        part.scroll_into_view_if_needed()
        shape = part.locator(".shape, .touch").first if corner is None else None
        target = shape or part.locator(".corner").nth(corner or 0)
        box = target.bounding_box()
        assert box is not None
        px = part.evaluate("g => parseFloat(g.ownerSVGElement.style.getPropertyValue('--px'))")
        # Whole pixels of the screen, which is all that a mouse can say.
        x, y = round(box["x"] + box["width"] / 2), round(box["y"] + box["height"] / 2)
        way = [(x + round(dx / px * t), y + round(dy / px * t)) for t in (0, 0.5, 1)]
        if touch:
            self._touch(way)
            return
        self.page.mouse.move(*way[0])
        self.page.mouse.down()
        for place in way[1:]:
            self.page.mouse.move(*place)
        self.page.mouse.up()

    def _touch(self, way: Sequence[tuple[float, float]]) -> None:
        """One finger, as the browser gets it from a screen."""
        client = self.page.context.new_cdp_session(self.page)
        for kind, place in zip(("touchStart", "touchMove", "touchMove"), way, strict=True):
            points = [{"x": place[0], "y": place[1]}]
            client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    def tap(self, x: float, y: float) -> None:
        """One finger that touches a place of the screen and is lifted again."""
        client = self.page.context.new_cdp_session(self.page)
        for kind, points in (("touchStart", [{"x": x, "y": y}]), ("touchEnd", [])):
            client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def findings(self) -> list[str]:
        """What axe finds, small targets among it."""
        rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
        return serious(self.page, rules)

    def overflow(self) -> list[str]:
        """What is wider than the page."""
        if self.page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            return self.page.evaluate(FIND_WIDE) or ["the page itself"]
        return []
