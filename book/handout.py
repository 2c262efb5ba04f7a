"""Copies of the chapters without solutions, for a course.

    python book/handout.py DIR

A copy has no outputs and nothing from a solution's first to its last mark; the
stubs of the exercises stay. The chapters themselves are left alone.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import nbformat

BOOK = Path(__file__).parent


def without_solutions(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with neither solutions nor outputs."""
    kept, is_solution = [], False
    for cell in notebook.cells:
        starts = re.search(r"^```\{solution-start\}", cell.source, re.MULTILINE)
        ends = re.search(r"^```\{solution-end\}", cell.source, re.MULTILINE)
        if starts:
            is_solution = True
        if not is_solution:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
            kept.append(cell)
        if ends:
            is_solution = False
    notebook.cells = kept
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description="Chapters without solutions.")
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(BOOK.glob("*.ipynb")):
        handout = without_solutions(nbformat.read(path, as_version=4))
        nbformat.write(handout, folder / path.name)
        print(folder / path.name)


if __name__ == "__main__":
    main()
