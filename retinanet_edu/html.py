"""Pages: one self-contained HTML file, readable without scripts, by day and by night, on a phone.

Names of files and classes come from strangers. So whatever is not `Markup` is text, and is escaped.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Iterable, Sequence
from html import escape as _escape
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

# What a page may load is inside it. A script that slipped in as somebody's class name never runs.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

# Characters that XML and HTML have no place for, such as those a bad file name decodes to.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --soft: #555; --paper: #fff; --line: #d0d0d0;
  --tint: #f3f4f6; --link: #0b57b5; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --soft: #b5b5b5; --paper: #161718;
  --line: #45474a; --tint: #232527; --link: #8ab8ff; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; }
main { max-width: 68rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.25rem; margin: 2.2rem 0 0.6rem; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 0.4rem; }
a { color: var(--link); } .bad { color: var(--bad); } .soft { color: var(--soft); }
figure { margin: 1rem 0; } figcaption { color: var(--soft); font-size: 0.9rem; }
.side { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.side > * { flex: 0 1 auto; min-width: 0; margin: 0; } .side > div { flex: 1 1 20rem; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 0.25rem; }
.scroll { overflow-x: auto; margin: 0.8rem 0; }
table { border-collapse: collapse; width: max-content; font-size: 0.92rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; text-align: left; vertical-align: top; unicode-bidi: isolate;
  border-bottom: 1px solid var(--line); max-width: min(30rem, 60vw); overflow-wrap: break-word; }
thead th { background: var(--tint); } tbody th { font-weight: 600; } .number { text-align: right; }
.bar { display: inline-block; width: 8rem; height: 0.8em; background: var(--tint); }
.bar > span { display: block; height: 100%; background: var(--link); }
details { margin: 0.6rem 0; border: 1px solid var(--line); border-radius: 0.3rem; }
summary { cursor: pointer; padding: 0.4rem 0.7rem; background: var(--tint); }
details > div { padding: 0.2rem 0.8rem 0.8rem; }
""".strip()


class Markup(str):
    """HTML that is right as it stands; all other strings are text."""

    __slots__ = ()


def text(value: object) -> Markup:
    """A value as HTML.

    Args:
        value: `Markup` stays as it is; of a string, special characters are escaped and those that
            cannot be shown replaced; a float has three decimals, and nan and None are a dash.

    Returns:
        what shows it, in an element or in an attribute between double quotes.

    Law:
        text(text(v)) = text(v).
    """
    if isinstance(value, Markup):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Markup("–")
    if isinstance(value, float | np.floating):
        value = f"{value:.3f}"
    return Markup(_escape(_UNPRINTABLE.sub("�", str(value))))


def join(parts: Iterable[object], tag: str = "", **attributes: str) -> Markup:
    """Several parts in one element.

    Args:
        parts: `Markup`, or text that is escaped.
        tag: name of the element; none without.
        attributes: of the element; `class_` is written class, `aria_label` aria-label.

    Returns:
        the element.
    """
    inner = "".join(map(text, parts))
    if not tag:
        return Markup(inner)
    names = (name.rstrip("_").replace("_", "-") for name in attributes)
    words = "".join(f' {n}="{text(v)}"' for n, v in zip(names, attributes.values(), strict=True))
    return Markup(f"<{tag}{words}>{inner}</{tag}>")


def paragraph(*parts: object, kind: str = "") -> Markup:
    """A paragraph.

    Args:
        parts: `Markup`, or text that is escaped.
        kind: a class of the page's style: "soft" or "bad".

    Returns:
        the element.
    """
    return join(parts, "p", **({"class_": kind} if kind else {}))


def bar(share: float) -> Markup:
    """A bar beside a number, for the eye alone.

    Args:
        share: 0…1 of its full length.

    Returns:
        the element.
    """
    length = 100 * min(max(share, 0.0), 1.0)
    return Markup(
        f'<span class="bar" aria-hidden="true"><span style="width: {length:.1f}%"></span></span>'
    )


def image_tag(
    picture: Figure | Tensor | np.ndarray,
    alt: str,
    *,
    caption: object = "",
    lossy: bool = False,
    width: int | None = None,
    dpi: int = 100,
) -> Markup:
    """A picture, stored in the page itself.

    Args:
        picture: a figure, a tensor (3, H, W) or an array (H, W, 3) or (H, W), uint8.
        alt: what is seen, for those who do not see it.
        caption: below it; none without.
        lossy: JPEG instead of PNG, for photographs.
        width: at which it is shown, in pixels of the page; default its own.
        dpi: of a figure.

    Returns:
        the element.
    """
    file, kind = io.BytesIO(), "jpeg" if lossy else "png"
    options: dict[str, Any] = {"quality": 85} if lossy else {"optimize": True}
    if isinstance(picture, Figure):
        picture.savefig(file, format=kind, dpi=dpi, pil_kwargs=options)
        columns, rows = (round(float(side) * dpi) for side in picture.get_size_inches())
    else:
        array = picture.movedim(0, -1).numpy() if isinstance(picture, Tensor) else picture
        Image.fromarray(np.ascontiguousarray(array)).save(file, format=kind, **options)
        rows, columns = array.shape[:2]
    shown = columns if width is None else width
    data = base64.b64encode(file.getvalue()).decode("ascii")
    image = Markup(
        f'<img src="data:image/{kind};base64,{data}" alt="{text(alt)}" '
        f'width="{shown}" height="{max(1, round(rows * shown / columns))}">'
    )
    if not caption:
        return image
    return join([image, join([caption], "figcaption")], "figure")


def side_by_side(parts: Iterable[object]) -> Markup:
    """Parts beside each other, as many a row as there is room for.

    Args:
        parts: of `image_tag`, for example.

    Returns:
        the element.
    """
    return join(parts, "div", class_="side")


def table(head: Sequence[object], rows: Iterable[Sequence[object]], caption: str = "") -> Markup:
    """A table, which scrolls by itself where the page is narrow.

    Args:
        head: names of the columns.
        rows: as many cells each; the first names the row. Numbers are set to the right, see
            `text` for what becomes of a cell.
        caption: what it shows, for those who do not see it; default the names of its columns.

    Returns:
        the element.
    """
    rows = [list(row) for row in rows]
    firsts = rows[0] if rows else [""] * len(head)

    def style(value: object) -> dict[str, str]:
        is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        return {"class_": "number"} if is_number else {}

    titles = [
        join([name], "th", scope="col", **style(first))
        for name, first in zip(head, firsts, strict=True)
    ]
    body = []
    for name, *cells in rows:
        first = join([name], "th", scope="row", **style(name))
        body.append(join([first, *(join([c], "td", **style(c)) for c in cells)], "tr"))
    content = [join([join(titles, "tr")], "thead"), join(body, "tbody")]
    label = caption or "table: " + ", ".join(str(name) for name in head if str(name))
    # Focusable, so that the keyboard can scroll it.
    return join(
        [join(content, "table")], "div", class_="scroll", role="group", tabindex="0",
        aria_label=label,
    )  # fmt: skip


def foldout(summary: object, *parts: object, is_open: bool = False) -> Markup:
    """Parts that a click unfolds.

    Args:
        summary: the line that is always seen.
        parts: `Markup`, or text that is escaped.
        is_open: unfolded from the start.

    Returns:
        the element.
    """
    inner = [join([summary], "summary"), join(parts, "div")]
    return join(inner, "details", **({"open": ""} if is_open else {}))


def page(title: str, sections: Iterable[tuple[str, object]]) -> str:
    """The whole page.

    Args:
        title: of the page.
        sections: heading and body of each. A body is `Markup`, text, or a sequence of these, of
            which each text becomes a paragraph.

    Returns:
        the content of the file, to be written as UTF-8; it asks for nothing outside of itself.
    """
    sections = list(sections)
    blocks, links = [], []
    for number, (heading, body) in enumerate(sections, start=1):
        parts = [body] if isinstance(body, str) or not isinstance(body, Sequence) else body
        inner = [part if isinstance(part, Markup) else paragraph(part) for part in parts]
        anchor = f"section-{number}"
        blocks.append(join([join([heading], "h2"), *inner], "section", id=anchor))
        links.append(join([join([heading], "a", href=f"#{anchor}")], "li"))
    contents = join([join(links, "ul")], "nav", aria_label="Contents") if len(links) > 3 else ""
    main = join([join([title], "h1"), contents, *blocks], "main")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n"
        f"<body>\n{main}\n</body>\n</html>\n"
    )
