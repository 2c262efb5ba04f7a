"""html: hostile names stay text, pictures are in the page, and a browser asks for nothing else."""

from __future__ import annotations

import base64
import io
import math
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch
from browsing import FIND_WIDE, open_page, serious
from matplotlib.figure import Figure
from PIL import Image

from retinanet_edu.html import (
    Markup,
    foldout,
    image_tag,
    join,
    page,
    paragraph,
    side_by_side,
    table,
    text,
)

HOSTILE = "<script>document.title='owned'</script>\"'><img src=x onerror=alert(1)>&amp;\x00\udcff"


class Reader(HTMLParser):
    """What a browser would see: elements, their attributes, and the text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def decoded(tag: str) -> Image.Image:
    (found,) = re.findall(r"base64,([^\"]+)", tag)
    return Image.open(io.BytesIO(base64.b64decode(found)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a < b & 'c'", "a &lt; b &amp; &#x27;c&#x27;"),
        (Markup("<b>x</b>"), "<b>x</b>"),
        (0.25, "0.250"),
        (np.float32(1), "1.000"),
        (7, "7"),
        (math.nan, "–"),
        (None, "–"),
        ("a\x00b\udcffc\nd", "a�b�c\nd"),
    ],
)
def test_a_value_as_html(value: Any, expected: str) -> None:
    assert text(value) == expected
    assert text(text(value)) == expected


def test_hostile_names_stay_text_wherever_they_stand() -> None:
    image = image_tag(np.zeros((4, 4, 3), np.uint8), HOSTILE, caption=HOSTILE)
    body = [
        HOSTILE,
        paragraph(HOSTILE, kind="bad"),
        image,
        side_by_side([image]),
        table([HOSTILE, "n"], [[HOSTILE, 1]], caption=HOSTILE),
        foldout(HOSTILE, HOSTILE),
        join([HOSTILE], "span", title=HOSTILE),
    ]
    source = page(HOSTILE, [(HOSTILE, body)] * 4)
    source.encode("utf-8")
    reader = Reader(source)
    assert not reader.all("script")
    assert all(set(a) == {"src", "alt", "width", "height"} for a in reader.all("img"))
    assert len(reader.all("img")) == 8
    shown = HOSTILE.replace("\x00", "�").replace("\udcff", "�")
    assert reader.texts.count(shown) > 20
    assert {a["alt"] for a in reader.all("img")} == {shown}


def test_a_picture_comes_back_as_it_was() -> None:
    array = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    for picture in (array, torch.from_numpy(array).movedim(-1, 0)):
        tag = image_tag(picture, "noise", width=70)
        np.testing.assert_array_equal(np.asarray(decoded(tag)), array)
        assert 'alt="noise" width="70" height="50"' in tag
    grey = image_tag(array[..., 0], "grey")
    np.testing.assert_array_equal(np.asarray(decoded(grey)), array[..., 0])


def test_a_figure_has_the_size_that_it_says() -> None:
    figure = Figure(figsize=(3, 2))
    for lossy, kind in ((False, "PNG"), (True, "JPEG")):
        tag = image_tag(figure, "nothing", caption="empty", lossy=lossy)
        assert decoded(tag).size == (300, 200)
        assert decoded(tag).format == kind
        assert 'width="300" height="200"' in tag
        assert "<figcaption>empty</figcaption>" in tag


def test_a_table_has_names_for_rows_and_columns_and_numbers_to_the_right() -> None:
    reader = Reader(table(["class", "AP"], [["cat", 0.5], ["dog", math.nan]]))
    assert [a.get("scope") for a in reader.all("th")] == ["col", "col", "row", "row"]
    assert [a.get("class") for a in reader.all("td")] == ["number", "number"]
    assert reader.texts == ["class", "AP", "cat", "0.500", "dog", "–"]
    assert Reader(table(["nothing"], [])).texts == ["nothing"]
    with pytest.raises(ValueError, match="zip"):
        table(["a", "b"], [["only one"]])


def test_a_page_links_to_its_sections_if_there_are_many() -> None:
    few, many = ([(f"part {i}", "text") for i in range(n)] for n in (3, 4))
    assert not Reader(page("few", few)).all("nav")
    reader = Reader(page("many", many))
    targets = {f"#{a['id']}" for a in reader.all("section")}
    assert {a["href"] for a in reader.all("a")} == targets
    assert len(targets) == 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_in_a_browser(browser: Any, tmp_path: Any, scheme: str, width: int) -> None:
    figure = Figure(figsize=(9, 2))
    wide = table([f"column {i}" for i in range(30)], [[f"cell {i}" for i in range(30)]])
    body = [
        paragraph("soft", kind="soft"),
        paragraph("bad", kind="bad"),
        image_tag(figure, "an empty figure", caption="nothing to see"),
        wide,
        foldout("more", side_by_side([image_tag(figure, "another")] * 2), is_open=True),
        f"a long name: {'x' * 300}",
    ]
    path = tmp_path / "page.html"
    path.write_text(page(HOSTILE, [(f"{HOSTILE} {i}", body) for i in range(4)]), encoding="utf-8")
    opened, visit = open_page(browser, path, scheme, width)
    assert visit.errors == []
    assert [r for r in visit.requests if not r.startswith("data:")] == [path.as_uri()]
    assert opened.title().startswith("<script>")
    assert serious(opened) == []
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    outside = [
        e for e in opened.evaluate(FIND_WIDE) if not re.match("<t[hdr]|<table|<tbody|<thead", e)
    ]
    assert outside == []
    opened.close()
