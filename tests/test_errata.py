"""The page of errata: every test that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_test_that_the_errata_name_is_there() -> None:
    page = (ROOT / "book" / "errata.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \|.*\| (.*?) \|$", page, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 29))
    for number, cell in rows:
        pairs = re.findall(r"`(\w+)`: ((?:`test_\w+`(?:, )?)+)", cell)
        assert pairs, number
        for name, tests in pairs:
            source = (ROOT / "tests" / f"test_{name}.py").read_text(encoding="utf-8")
            for test in re.findall(r"`(test_\w+)`", tests):
                assert f"def {test}(" in source, (number, test)
