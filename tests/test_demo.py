"""The demo, on few pictures: what it leaves behind, and that it starts afresh each time."""

from __future__ import annotations

import json
from functools import partial

import pytest
from PIL import Image

from retinanet_edu import ShapesDataset, demo, load_checkpoint
from retinanet_edu.cli import main

PICTURES = ("gallery.png", "curves.png", "precision_recall.png")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen pictures of each split instead of thousands, and one epoch."""
    small = partial(ShapesDataset, length=16)
    small.classes = ShapesDataset.classes  # type: ignore[attr-defined]
    monkeypatch.setattr(demo, "ShapesDataset", small)
    monkeypatch.setattr(demo.run_demo, "__defaults__", (0, 1))


@pytest.mark.usefixtures("few")
def test_the_demo_leaves_pictures_numbers_and_checkpoints(tmp_path, capsys) -> None:
    assert main(["demo", "--output", str(tmp_path), "--seed", "3"]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["seed"] == 3
    assert 0 <= summary["mAP"] <= summary["mAP50"] <= 1
    assert summary["seconds"] > 0
    assert set(summary["per_class"]) == set(ShapesDataset.classes)
    for name in PICTURES:
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 300
    assert load_checkpoint(tmp_path / "best.pt").classes == ShapesDataset.classes
    out = capsys.readouterr().out
    assert all(name in out for name in (*ShapesDataset.classes, *PICTURES, "AP50"))
    commands = out.partition("then try\n")[2].splitlines()
    assert [line.split()[1] for line in commands] == ["shapes", "evaluate", "predict"]
    # Once more into the same folder: an earlier demo's run is no obstacle.
    assert main(["demo", "--output", str(tmp_path), "--seed", "4"]) == 0
    assert json.loads((tmp_path / "summary.json").read_text())["seed"] == 4


def test_the_demos_model_is_what_the_text_says() -> None:
    model = demo.shapes_model()
    assert 1.0e6 < sum(p.numel() for p in model.parameters()) < 1.2e6
    assert model.anchor_generator.sizes == (24, 48, 96, 192, 384)
    assert model.classes == ShapesDataset.classes
