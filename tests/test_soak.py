"""A sample of the long runs of soak.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from soak import WAYS, kill_again_and_again

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")


@pytest.mark.parametrize("way", WAYS)
def test_a_killed_run_goes_on_to_the_very_same_weights(tmp_path: Path, way: str) -> None:
    kill_again_and_again(tmp_path, way, kills=2, epochs=4)
