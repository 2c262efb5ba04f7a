"""The book builds without a warning, and what could be missing from a page is not."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import yaml
from conftest import BOOK, build_book, small_book


class Page(HTMLParser):
    """What a page offers as targets, and what it points at."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.sources: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        have = dict(attrs)
        self.ids.update(have[key] or "" for key in ("id", "name") if key in have)
        if tag == "a" and have.get("href"):
            self.links.append(have["href"] or "")
        if tag in ("img", "script", "source") and have.get("src"):
            self.sources.append(have["src"] or "")
        if tag == "link" and have.get("rel") in ("stylesheet", "icon"):
            self.sources.append(have["href"] or "")
        if tag == "img":
            self.images.append(have)


@pytest.fixture(scope="module")
def pages(built_book: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in built_book.rglob("*.html") if "_static" not in path.parts}


def test_every_page_of_the_folder_is_in_the_table_of_contents(built_book):
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    listed = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    there = {path.stem for kind in ("*.md", "*.ipynb") for path in BOOK.glob(kind)}
    assert sorted([toc["root"], *listed]) == sorted(there)
    chapters = [name for name in listed if re.match(r"\d\d-", name)]
    assert chapters == sorted(chapters)
    for name in there:
        assert (built_book / f"{name}.html").is_file()


def test_every_module_is_in_the_reference():
    """Except the two commands, what a package does not show, and the checks' own cases."""
    package = BOOK.parent / "retinanet_edu"
    names = {".".join(p.relative_to(package).with_suffix("").parts) for p in package.rglob("*.py")}
    names = {name for name in names if "__" not in name} - {"demo"}
    names |= {path.parent.name for path in package.glob("*/__init__.py")}
    folders = (
        "checks.",
        "cli",
        "evaluation.",
        "experiments.",
        "explanation.",
        "training.",
        "data.doctor.",
    )
    names.add("data.records")
    behind = {n for n in names if n.startswith((*folders, "data.records."))}
    behind -= {"data.records.record"}  # what the readers of all formats return
    listed = re.findall(r"automodule:: retinanet_edu\.(\S+)", (BOOK / "api.md").read_text())
    assert sorted(listed) == sorted(names - behind)


def test_the_reference_shows_an_example_of_every_name_on_the_face(built_book):
    import retinanet_edu

    page = html.unescape(re.sub(r"<[^>]+>", "", (built_book / "api.html").read_text("utf-8")))
    for name in retinanet_edu.__all__[:-1]:
        assert f">>> from retinanet_edu import {name}" in page or re.search(
            rf">>> from retinanet_edu import .*\b{name}\b", page
        )
    assert page.count("Example") >= len(retinanet_edu.__all__) - 1


def test_no_line_parts_a_number_from_its_sign_or_a_formula_from_its_stop(built_book):
    page = (built_book / "02-boxes.html").read_text("utf-8")
    assert re.search(r'<span class="unbroken"><span class="math[^>]*>[^<]+</span>[.,]</span>', page)
    page = (built_book / "04-backbone.html").read_text("utf-8")
    assert "10\u00a0×\u00a015" in page
    assert "10 × 15 squares" not in page
    code = re.findall(r"<pre>.*?</pre>", page, flags=re.DOTALL)
    assert not any("\u00a0×" in block for block in code)


def test_every_internal_link_leads_somewhere(pages, built_book):
    lost = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            where = pages.get(target)
            if where is None:
                found = target.is_file() and built_book in target.parents
            else:
                # `#` alone is what the theme's buttons have; Sphinx adds the others by script.
                found = not parts.fragment or unquote(parts.fragment) in where.ids
            if not found:
                lost.append(f"{path.name}: {link}")
    assert not lost


def test_every_script_style_and_image_lies_beside_the_pages(pages):
    lost = [
        f"{path.name}: {source}"
        for path, page in pages.items()
        for source in page.sources
        if not source.startswith("data:")
        and (urlsplit(source).netloc or not (path.parent / urlsplit(source).path).is_file())
    ]
    assert not lost


def test_every_image_says_what_is_seen(pages):
    """Pictures of the content; the theme's own logos stand beside their text."""
    images = [(p.name, i) for p, page in pages.items() for i in page.images]
    ours = [(name, i) for name, i in images if "_images/" in (i["src"] or "")]
    assert ours
    assert [name for name, i in ours if len(i.get("alt") or "") < 40 or "_images" in i["alt"]] == []


def test_one_place_holds_the_address_of_the_repository(pages):
    config = (BOOK / "_config.yml").read_text(encoding="utf-8")
    address = yaml.safe_load(config)["repository"]["url"]
    name = address.removeprefix("https://github.com/")
    for path in (*BOOK.glob("*.md"), *BOOK.glob("*.ipynb"), *BOOK.glob("_ext/*.py")):
        assert name not in path.read_text(encoding="utf-8"), path
    assert config.count(name) == 1
    chapter = next(page for path, page in pages.items() if path.name == "02-boxes.html")
    for host in ("colab.research.google.com", "mybinder.org"):
        assert any(host in link and name in link for link in chapter.links), host


# What a build must not let pass: a page, and a word of the complaint.
BROKEN = {
    "reference": ("See {ref}`nowhere`.", "nowhere"),
    "page": ("See [this](nowhere.md).", "nowhere.md"),
    "citation": ("As {cite:t}`nobody1900` says.", "nobody1900"),
    "function": ("See {py:func}`retinanet_edu.boxes.nothing`.", "nothing"),
    "exercise": ("```{solution} nothing-asked\n:class: dropdown\nYes.\n```", "nothing-asked"),
}


def test_a_small_book_builds(tmp_path):
    done = build_book(
        small_book(tmp_path, "Nothing is wrong, says {cite:t}`lin2017focal`."), tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "Nothing is wrong" in (tmp_path / "_build/html/intro.html").read_text(encoding="utf-8")


def test_a_page_loads_the_explorables_that_it_shows_and_no_other(tmp_path):
    folder = small_book(tmp_path, '<div data-explorable="iou">Two boxes.</div>')
    (folder / "plain.md").write_text("# No explorable\n\nText.\n", encoding="utf-8")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: intro\nchapters: [{file: plain}]\n")
    done = build_book(folder, tmp_path)
    assert done.returncode == 0, done.stderr
    html = tmp_path / "_build" / "html"
    loaded = {
        name: {Path(urlsplit(s).path).name for s in page.sources if "explorables/" in s}
        for name in ("intro", "plain")
        if (page := Page(html / f"{name}.html"))
    }
    assert loaded == {"intro": {"base.js", "scene.js", "iou.js"}, "plain": set()}


@pytest.mark.parametrize("missing", BROKEN)
def test_what_is_missing_stops_the_build(missing, tmp_path):
    text, complaint = BROKEN[missing]
    done = build_book(small_book(tmp_path, text), tmp_path)
    assert done.returncode != 0
    assert complaint in done.stdout + done.stderr


def test_a_warning_that_a_cell_printed_stops_the_build(tmp_path):
    folder = small_book(tmp_path, "A page.")
    cell = nbformat.v4.new_code_cell("import warnings", execution_count=1)
    cell.outputs = [nbformat.v4.new_output("stream", name="stderr", text="UserWarning: old")]
    title = nbformat.v4.new_markdown_cell("# A notebook")
    nbformat.write(nbformat.v4.new_notebook(cells=[title, cell]), folder / "noisy.ipynb")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: intro\nchapters: [{file: noisy}]\n")
    done = build_book(folder, tmp_path)
    assert done.returncode != 0
    assert "stderr" in done.stdout + done.stderr
