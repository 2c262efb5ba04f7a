"""What several test files share: the built book."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BOOK = Path(__file__).parents[1] / "book"


def build_book(source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """Build the book of a folder as `make book` does; the pages are in output/_build/html."""
    command = [Path(sys.executable).parent / "jupyter-book", "build", source]
    flags = ["-W", "-n", "--keep-going", "-q", "--path-output", output]
    return subprocess.run([*command, *flags], capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="session")
def built_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built pages. A warning fails every test that wants them."""
    output = tmp_path_factory.mktemp("book")
    done = build_book(BOOK, output)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return output / "_build" / "html"
