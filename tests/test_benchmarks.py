"""benchmarks: the command runs, its record is whole, and what is printed elsewhere is in it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "data" / "results"
GROUPS = {
    "anchors", "matching", "coding", "focal loss", "matching + loss", "postprocess", "inference",
    "compiled", "training step", "whole run", "evaluation", "start-up",
}  # fmt: skip


def run(folder: Path, *groups: str) -> dict:
    command = [sys.executable, ROOT / "benchmarks" / "speed.py", "--quick", "--device", "cpu"]
    arguments = ["--only", *groups, "--output", folder]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((folder / "speed-cpu.json").read_text())


def test_the_command_compares_and_writes_a_record_a_table_and_a_figure(tmp_path: Path) -> None:
    """Each case compares the results of both sides before it times them, or fails."""
    groups = ("matching", "coding", "focal", "matching-and-loss", "postprocess", "graph")
    result = run(tmp_path, *groups)
    assert {row["group"] for row in result["rows"]} <= GROUPS | {"recorded launches"}
    assert len(result["rows"]) == 9
    for row in result["rows"]:
        assert row["ours_ms"] > 0
        assert row["theirs_ms"] > 0
        assert row["ratio_quartiles"][0] <= row["ratio"] <= row["ratio_quartiles"][1]
    table = (tmp_path / "speed-cpu.md").read_text().splitlines()
    assert sum(line.startswith("|") for line in table) == 2 + 9
    assert (tmp_path / "speed-cpu.png").stat().st_size > 10_000


@pytest.fixture(scope="module", params=["speed-cpu", "speed-cpu-avx2"])
def path(request: pytest.FixtureRequest) -> Path:
    return RESULTS / f"{request.param}.json"


@pytest.fixture(scope="module")
def record(path: Path) -> dict:
    return json.loads(path.read_text())


def test_the_record_has_all_groups_and_says_where_it_came_from(record: dict) -> None:
    assert {row["group"] for row in record["rows"]} == GROUPS
    assert record["hardware"]["gpu"] is None
    assert not record["commit"].endswith("+")
    assert record["command"] == "speed.py"


def test_memory_stays_within_what_is_promised(record: dict) -> None:
    focal = [row for row in record["rows"] if row["group"] == "focal loss"]
    assert all(row["ours_bytes"] <= 2.5 * row["settings"]["logits_bytes"] for row in focal)
    matching = [row for row in record["rows"] if row["group"] == "matching"]
    assert all(row["ours_bytes"] <= 0.6 * row["theirs_bytes"] for row in matching)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("speed-*.json")), ids=lambda path: path.stem)
def test_the_table_of_the_book_is_that_of_the_record(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from tables import markdown

    assert path.with_suffix(".md").read_text() == markdown(json.loads(path.read_text()))


def test_the_readme_shows_rows_of_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from tables import digits

    record = json.loads((RESULTS / "speed-cpu.json").read_text())

    section = (ROOT / "README.md").read_text().split("## How fast")[1].split("\n## ")[0]
    shown = re.findall(r"^\| (.+?) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", section, re.MULTILINE)
    measured = {
        (digits(row["ours_ms"]), digits(row["theirs_ms"]), f"{row['ratio']:.2f}")
        for row in record["rows"]
    }
    assert len(shown) >= 8
    for name, *numbers in shown:
        assert tuple(numbers) in measured, name
