"""What several test files share: browser and built book, the forms of a function, exact IoU."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from retinanet_edu import detection, losses, matching

BOOK = Path(__file__).parents[1] / "book"


def fraction_iou(a: list[int], b: list[int]) -> Fraction:
    """One pair, from the definition, without rounding."""

    def area(x1: int, y1: int, x2: int, y2: int) -> int:
        return max(x2 - x1, 0) * max(y2 - y1, 0)

    shared = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    union = area(*a) + area(*b) - shared
    return Fraction(shared, union) if union else Fraction(0)


@pytest.fixture(params=["cpu", "gpu"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A test that uses this runs in the form for a CPU, and in that for a GPU, here on the CPU."""
    for module in (matching, losses, detection):
        monkeypatch.setattr(module, "is_on_cpu", lambda values: request.param == "cpu")
    return request.param


# These look at a tensor in another way; nothing is computed and no GPU is asked for anything.
VIEWS = {"alias", "detach", "expand", "lift_fresh", "select", "slice", "split", "split_with_sizes"}
VIEWS |= {"unbind", "unsqueeze", "view"}


def count_operations(function: Callable[[], Any]) -> Counter[str]:
    """How often torch dispatches each operation, views apart, while a function runs."""
    counted: Counter[str] = Counter()

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):  # type: ignore
            name = operation.overloadpacket.__name__
            counted[name] += name not in VIEWS
            return operation(*args, **(kwargs or {}))

    with Mode():
        function()
    return counted


def build_book(source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """Build the book of a folder as `make book` does; the pages are in output/_build/html."""
    command = [Path(sys.executable).parent / "jupyter-book", "build", source]
    flags = ["-W", "-n", "--keep-going", "-q", "--path-output", output]
    return subprocess.run([*command, *flags], capture_output=True, text=True, timeout=600)


def small_book(folder: Path, text: str) -> Path:
    """The book's own settings around one page."""
    for name in ("_ext", "_static"):
        shutil.copytree(BOOK / name, folder / name)
    for name in ("_config.yml", "references.bib"):
        shutil.copy(BOOK / name, folder / name)
    (folder / "_toc.yml").write_text("format: jb-book\nroot: intro\n")
    page = f"# A page\n\n{text}\n\n```{{bibliography}}\n```\n"
    (folder / "intro.md").write_text(page, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def built_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built pages. A warning fails every test that wants them."""
    output = tmp_path_factory.mktemp("book")
    done = build_book(BOOK, output)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return output / "_build" / "html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Playwright's Browser; the module's tests are skipped where it or Chromium is missing."""
    from browsing import headless

    with headless() as browser:
        yield browser


@pytest.fixture(scope="module")
def opened(
    request: pytest.FixtureRequest, browser: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """The explorable that the test's module calls NAME, alone on a page."""
    from explorables import Figure

    name = request.module.NAME
    with Figure(browser, tmp_path_factory.mktemp(name), name) as figure:
        yield figure


@pytest.fixture
def figure(opened: Any) -> Any:
    """That explorable as a reader finds it."""
    return opened.reset()
