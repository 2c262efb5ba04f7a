"""The README: its Python runs, its files are there, its commands exist."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from retinanet_edu.cli import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_lines_of_python_run_and_find_something() -> None:
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), {})
    found, _, table = out.getvalue().partition("class ")
    assert found.strip()
    mean = table.splitlines()[-1].split()
    assert mean[0] == "mean"
    assert float(mean[2]) > 0.9  # AP50 of the checkpoint that comes with the package


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert links
    assert all((ROOT / link).exists() for link in links if "://" not in link)


def test_commands_exist_with_these_options(capsys) -> None:
    shell = "\n".join(blocks("sh")).replace("\\\n", " ")
    commands = [line.split("#")[0].split() for line in shell.splitlines()]
    options: dict[str, set[str]] = {}
    for words in commands:
        if words and "retinanet-edu" in words[0]:
            options.setdefault(words[1], set()).update(w for w in words if w.startswith("--"))
    assert {"train", "evaluate", "predict", "demo"} <= set(options)
    for command, used in options.items():
        with pytest.raises(SystemExit):
            main([command, "--help"])
        known = capsys.readouterr().out
        assert all(option in known for option in used), command
    targets = {words[1] for words in commands if words[:1] == ["make"]}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"demo", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
