"""A sample of the long runs of soak.py and fuzzing.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing import READERS, fuzz
from soak import WAYS, kill_again_and_again


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("way", WAYS)
def test_a_killed_run_goes_on_to_the_very_same_weights(tmp_path: Path, way: str) -> None:
    kill_again_and_again(tmp_path, way, kills=2, epochs=4)


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_refused_in_one_piece_or_read(tmp_path: Path, name: str) -> None:
    counts = fuzz(tmp_path / "files", name, examples=150)
    assert counts["refused"] > 0
    assert counts["read"] > 0
