"""The chapters as files: nothing in them escapes the comparison, and their exercises are whole.

`make test` runs every cell again and compares what it prints (nbval). A cell without an execution
count would not be compared, nor would a picture, so these rules stand beside it.
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest
from conftest import BOOK
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = BOOK.parent
CHAPTERS = sorted(BOOK.glob("*.ipynb"))

MOST_LINES = 25
MOST_BYTES = 1_500_000  # of one notebook, its pictures among them
SHORTEST_ALT = 40  # characters: what is seen does not go into fewer
EXERCISES = ("Predict", "Modify", "Implement")
# Somebody's machine, in what a cell printed.
PLACES = re.compile(r"/home/|/Users/|/root/|/tmp/|site-packages|ipykernel_|[A-Z]:\\")


def text_of(output: NotebookNode) -> str:
    """What nbval compares of an output."""
    if output.output_type == "stream":
        return output.text
    data = output.get("data", {})
    return "".join(str(v) for k, v in data.items() if not k.startswith("image/"))


def pictures_of(cell: NotebookNode) -> int:
    return sum(
        kind.startswith("image/") for output in cell.outputs for kind in output.get("data", {})
    )


def faults(notebook: NotebookNode) -> list[str]:
    """What is wrong with a notebook as a file, a line each."""
    found = []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("execution counts are not 1, 2, 3, …: run `make notebooks`")
    ids = [cell.id for cell in notebook.cells]
    if len(set(ids)) != len(ids):
        found.append("two cells have one id")
    if set(notebook.metadata) - {"kernelspec", "language_info"}:
        found.append("metadata of a tool: run `make notebooks`")
    if not any(compared(cell) for cell in code):
        found.append("nothing that it prints is compared")
    if code and "setup()" not in code[0].source:
        found.append("the first code cell does not call setup()")
    for cell in notebook.cells:
        found += [f"{cell.id}: {fault}" for fault in cell_faults(cell)]
    return found


def compared(cell: NotebookNode) -> bool:
    ignored = "nbval-ignore-output" in cell.metadata.get("tags", [])
    return not ignored and any(text_of(output).strip() for output in cell.outputs)


def cell_faults(cell: NotebookNode) -> list[str]:
    found = []
    if set(cell.metadata) - {"tags", "mystnb"}:
        found.append(f"metadata of a tool or a time: {sorted(cell.metadata)}")
    if cell.cell_type == "markdown":
        if re.search(r"!\[\s*\]\(|<img(?![^>]*\balt=\"[^\"]+\")", cell.source):
            found.append("a picture without alt text")
        return found
    lines = [line for line in cell.source.splitlines() if line.strip()]
    if len(lines) > MOST_LINES:
        found.append(f"{len(lines)} lines of code, at most {MOST_LINES}")
    if re.search(r"^[%!]|#\s*NBVAL|nbval-skip", cell.source, re.MULTILINE):
        found.append("a magic, a shell command or a comment for nbval: use tags")
    if {"nbval-skip", "raises-exception"} & set(cell.metadata.get("tags", [])):
        found.append("a cell that is not run, or fails: catch the error and print it")
    for output in cell.outputs:
        if output.output_type == "error":
            found.append("an error: catch it and print it")
        elif output.get("name") == "stderr":
            found.append(f"a warning: {output.text[:80]}")
        if PLACES.search(text_of(output)):
            found.append("the name of a place on somebody's machine")
    alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
    pictures = pictures_of(cell)
    if pictures > 1:
        found.append("more than one picture: the alt text belongs to one")
    if pictures and len(alt) < SHORTEST_ALT:
        found.append(f"alt text that does not say what is seen: {alt!r}")
    if re.match(r"(?i)(an? )?(image|picture|figure|plot) (of|show)", alt):
        found.append(f"alt text that begins with what every picture is: {alt!r}")
    if alt and not pictures:
        found.append("alt text without a picture")
    if pictures and not any(output.output_type == "stream" for output in cell.outputs):
        found.append("a picture without the printed fact that it shows")
    return found


@dataclass
class Exercise:
    """An exercise and its solution, as the directives mark them."""

    title: str
    label: str
    given: list[str] = field(default_factory=list)
    solution: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    solved: bool = False


def exercises(notebook: NotebookNode) -> list[Exercise]:
    """The exercises in order, with the code cells inside them and inside their solutions."""
    found: list[Exercise] = []
    inside = ""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if inside == "exercise":
                found[-1].given.append(cell.source)
            elif inside == "solution":
                found[-1].solution.append(cell.source)
            continue
        for line in cell.source.splitlines():
            mark = re.match(r"(?:`{3,}|:{3,}){(exercise|solution)-(start|end)}\s*(.*)", line)
            if mark and mark[2] == "end":
                assert inside == mark[1], f"{line} ends what did not begin"
                inside = ""
            elif mark:
                assert not inside, f"{line} begins inside another"
                inside = mark[1]
                if inside == "exercise":
                    found.append(Exercise(title=mark[3], label=""))
                else:
                    assert found, f"{line} comes before every exercise"
                    assert mark[3] == found[-1].label, f"{line} does not follow its exercise"
                    found[-1].solved = True
            elif option := re.match(r":(label|class):\s*(\S.*)", line):
                if inside == "exercise" and option[1] == "label":
                    found[-1].label = option[2]
                elif inside == "solution":
                    found[-1].options.append(option[0])
    assert not inside, f"an {inside} has no end"
    return found


def signatures(sources: list[str]) -> dict[str, str]:
    """Name to signature of the functions and methods that the cells define."""
    have = {}
    for node in (node for source in sources for node in ast.parse(source).body):
        if isinstance(node, ast.FunctionDef):
            returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            have[node.name] = f"({ast.unparse(node.args)}){returns}"
        elif isinstance(node, ast.ClassDef):
            have[node.name] = f"({', '.join(map(ast.unparse, node.bases))})"
            methods = signatures([ast.unparse(part) for part in node.body])
            have |= {f"{node.name}.{name}": how for name, how in methods.items()}
    return have


def is_stub(source: str) -> bool:
    """Whether something in the cell is left for the reader to write."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and "NotImplementedError" in ast.unparse(node):
            return True
        if isinstance(node, ast.Expr) and ast.unparse(node) == "...":
            return True
    return False


def exercise_faults(notebook: NotebookNode, chapter: str) -> list[str]:
    """What is wrong with a chapter's three exercises, a line each."""
    slug = chapter.split("-", 1)[1]
    try:
        have = exercises(notebook)
    except AssertionError as error:
        return [str(error)]
    found = []
    labels = [f"{slug}-{kind.lower()}" for kind in EXERCISES]
    if [e.label for e in have] != labels:
        return [f"exercises are {[e.label for e in have]}, not {labels}"]
    for kind, exercise in zip(EXERCISES, have, strict=True):
        if not re.match(rf"{kind}: \S", exercise.title):
            found.append(f"{exercise.label}: the title is not '{kind}: …'")
        if not exercise.solved:
            found.append(f"{exercise.label}: no solution")
        elif ":class: dropdown" not in exercise.options:
            found.append(f"{exercise.label}: the solution is not folded (:class: dropdown)")
        if not re.search(r"^\s*(assert |check\()", "\n".join(exercise.solution), re.MULTILINE):
            found.append(f"{exercise.label}: no cell of the solution proves it (assert or check)")
        given, solved = signatures(exercise.given), signatures(exercise.solution)
        if kind == "Implement" and not given:
            found.append(f"{exercise.label}: no stub")
        for source in exercise.given:
            if signatures([source]) and not is_stub(source):
                found.append(f"{exercise.label}: the stub leaves nothing to write")
        for name, signature in given.items():
            if solved.get(name) != signature:
                found.append(f"{exercise.label}: {name}{signature} is solved as {solved}")
    return found


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_is_stored_as_it_ran(path):
    assert faults(nbformat.read(path, as_version=4)) == []
    assert path.stat().st_size <= MOST_BYTES


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_has_three_exercises_with_solutions(path):
    assert exercise_faults(nbformat.read(path, as_version=4), path.stem) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_begins_with_its_number(path):
    first = nbformat.read(path, as_version=4).cells[0].source
    assert first.startswith(f"# {int(path.stem[:2])}. ")


def test_there_are_chapters():
    assert CHAPTERS


# The rules above, tried on a small chapter and on versions of it with one fault each.

ALT = "Two boxes, one dashed and one solid, that overlap by half."
STUB = 'def double(x: int) -> int:\n    """Twice."""\n    raise NotImplementedError'
SOLUTION = "def double(x: int) -> int:\n    return 2 * x\n\n\nassert double(2) == 4"


def sample() -> NotebookNode:
    picture = new_output("display_data", data={"image/png": "aGk=", "text/plain": "<Figure>"})
    fact = new_output("stream", name="stdout", text="they overlap by 0.5")
    cells = [
        new_markdown_cell("# 4. A chapter\n\n![A map of the chapter.](map.png)"),
        new_code_cell("from retinanet_edu.notebook import setup\n\nsetup()"),
        new_code_cell(
            "show()", outputs=[fact, picture], metadata={"mystnb": {"image": {"alt": ALT}}}
        ),
    ]
    for kind, given, solution in (
        ("Predict", None, "assert 1 + 1 == 2"),
        ("Modify", None, "assert 1 + 1 == 2"),
        ("Implement", STUB, SOLUTION),
    ):
        label = f"chapter-{kind.lower()}"
        start = f"```{{exercise-start}} {kind}: something\n:label: {label}\n:nonumber:\n```\n\nDo."
        cells.append(new_markdown_cell(start))
        if given:
            cells.append(new_code_cell(given))
        cells.append(new_markdown_cell("```{exercise-end}\n```"))
        cells.append(
            new_markdown_cell(f"```{{solution-start}} {label}\n:class: dropdown\n```\n\nSo.")
        )
        cells.append(new_code_cell(solution))
        cells.append(new_markdown_cell("```{solution-end}\n```"))
    notebook = new_notebook(cells=cells)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, 1):
        cell.execution_count = count
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index}"
    return notebook


def find(notebook: NotebookNode, text: str) -> NotebookNode:
    return next(cell for cell in notebook.cells if text in cell.source)


def swap(text: str, other: str):
    """A fault that writes one text for another."""

    def apply(notebook: NotebookNode) -> None:
        cell = find(notebook, text)
        cell.source = cell.source.replace(text, other)

    return apply


def on_picture(change):
    return lambda notebook: change(find(notebook, "show()"))


STDERR = new_output("stream", name="stderr", text="old")
FAULTS = {
    "execution counts": on_picture(lambda c: c.update(execution_count=None)),
    "one id": on_picture(lambda c: c.update(id="cell-0")),
    "metadata of a tool:": lambda n: n.metadata.update(widgets={}),
    "or a time": on_picture(lambda c: c.metadata.update(execution={"t": "12:00"})),
    "nothing that it prints": on_picture(lambda c: c.metadata.update(tags=["nbval-ignore-output"])),
    "setup()": swap("setup()", "pass"),
    "without alt text": swap("![A map of the chapter.]", "![]"),
    "26 lines": on_picture(lambda c: c.update(source="x = 1\n" * 26)),
    "a magic": on_picture(lambda c: c.update(source="%matplotlib inline")),
    "not run": on_picture(lambda c: c.metadata.update(tags=["nbval-skip"])),
    "an error": on_picture(lambda c: c.outputs.append(new_output("error", ename="E", evalue="e"))),
    "a warning": on_picture(lambda c: c.outputs.append(deepcopy(STDERR))),
    "a place": on_picture(lambda c: c.outputs[0].update(text="/home/me/cat.jpg")),
    "more than one picture": on_picture(lambda c: c.outputs.append(deepcopy(c.outputs[1]))),
    "not say what is seen": on_picture(lambda c: c.metadata.pop("mystnb")),
    "begins with": on_picture(
        lambda c: c.metadata.update(mystnb={"image": {"alt": "Image of " + ALT}})
    ),
    "alt text without a picture": on_picture(lambda c: c.outputs.pop(1)),
    "printed fact": on_picture(lambda c: c.outputs.pop(0)),
}
EXERCISE_FAULTS = {
    "exercises are": lambda n: n.cells.__delitem__(slice(3, 8)),
    "the title": swap("Predict: something", "Something"),
    "not follow its exercise": swap("{solution-start} chapter-modify", "{solution-start} other"),
    "not folded": swap(":class: dropdown", ":class: tip"),
    "proves it": swap("assert 1 + 1 == 2", "1 + 1"),
    "no stub": swap(STUB, "x = 1"),
    "leaves nothing": swap("raise NotImplementedError", "return 2 * x"),
    "is solved as": swap("def double(x: int) -> int:\n    return", "def double(y):\n    return"),
    "has no end": lambda n: n.cells.pop(),
    "inside another": swap("```{exercise-end}\n```", "…"),
}


def test_the_rules_accept_a_chapter_without_fault():
    assert faults(sample()) == []
    assert exercise_faults(sample(), "04-chapter") == []


@pytest.mark.parametrize("fault", FAULTS)
def test_the_rules_name_a_fault_of_a_file(fault):
    notebook = sample()
    FAULTS[fault](notebook)
    assert any(fault in line for line in faults(notebook)), faults(notebook)


@pytest.mark.parametrize("fault", EXERCISE_FAULTS)
def test_the_rules_name_a_fault_of_an_exercise(fault):
    notebook = sample()
    EXERCISE_FAULTS[fault](notebook)
    found = exercise_faults(notebook, "04-chapter")
    assert any(fault in line for line in found), found


def run_again(notebook: NotebookNode, folder: Path) -> subprocess.CompletedProcess[str]:
    """A notebook under the flags of `make test`."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    flags = re.search(r"^NBVAL := (.+)$", makefile, re.MULTILINE)
    assert flags
    assert re.search(r"^test:.*\n.*pytest.*\$\(NBVAL\).* book/\*\.ipynb$", makefile, re.MULTILINE)
    path = folder / "sample.ipynb"
    nbformat.write(notebook, path)
    command = [sys.executable, "-m", "pytest", *shlex.split(flags[1]), str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("stored", "passes"), [("4 in 3.1 s\n", True), ("5 in 3.1 s\n", False), (None, False)]
)
def test_make_test_runs_every_cell_again_and_compares(stored, passes, tmp_path):
    """Seconds may differ, nothing else; a warning that was not stored fails too."""
    source = "print(2 + 2, 'in 2.7 s')"
    if stored is None:
        source += "\nimport sys; print('careful', file=sys.stderr)"
    cell = new_code_cell(source, execution_count=1)
    cell.outputs = [new_output("stream", name="stdout", text=stored or "4 in 2.7 s\n")]
    done = run_again(new_notebook(cells=[cell]), tmp_path)
    assert (done.returncode == 0) == passes, done.stdout[-2000:]
