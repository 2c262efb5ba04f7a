"""Handouts: chapters without their solutions, and with everything else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

BOOK = Path(__file__).parents[1] / "book"


@pytest.fixture(scope="module")
def handout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("handout")
    subprocess.run([sys.executable, BOOK / "handout.py", folder], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("path", sorted(BOOK.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_handout_has_the_exercises_and_no_solution(path: Path, handout: Path) -> None:
    whole, copy = (nbformat.read(p, as_version=4) for p in (path, handout / path.name))
    nbformat.validate(copy)
    sources = [cell.source for cell in copy.cells]
    text, everything = "\n".join(sources), "\n".join(cell.source for cell in whole.cells)
    assert "{solution" not in text
    exercises = re.findall(r"\{exercise-start\} .*", everything)
    assert exercises
    assert re.findall(r"\{exercise-start\} .*", text) == exercises
    assert text.count("raise NotImplementedError") == everything.count("raise NotImplementedError")
    assert everything.count("{solution-start}") == len(exercises)
    assert not any(cell.get("outputs") for cell in copy.cells)
    # Every cell outside of solutions is there, and none is changed.
    inside, outside = False, []
    for cell in whole.cells:
        inside |= "{solution-start}" in cell.source
        if not inside:
            outside.append(cell.source)
        inside &= "{solution-end}" not in cell.source
    assert sources == outside
