"""The records of a detector trained on photographs: readable, whole, and of one mind."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data

from retinanet_edu import AnchorGenerator, ShapesDataset, focal_loss, load_checkpoint, predict
from retinanet_edu.boxes import clip_boxes
from retinanet_edu.coding import decode_boxes
from retinanet_edu.detection import IOU_THRESHOLD, rescale
from retinanet_edu.matching import BACKGROUND, match_targets
from retinanet_edu.structures import Detections
from retinanet_edu.suppression import nms_per_class

DATA = Path(__file__).parents[1] / "data"
RECORDS = DATA / "voc_model"
STRIDES = {"C3": 8, "C4": 16, "C5": 32, "P3": 8, "P4": 16, "P5": 32, "P6": 64, "P7": 128}
PHOTOGRAPHS = ("chelsea", "astronaut")
MOST_BYTES = {".npz": 150_000, ".json": 50_000}


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(RECORDS / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def values(name: str) -> dict[str, Any]:
    return json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))


def suppressed(found: dict[str, np.ndarray], generator: AnchorGenerator) -> Detections:
    """The steps that are left after the record, as chapter 12 takes them."""
    photo, seen, padded = (
        tuple(found[f"{name}_size"].tolist()) for name in ("picture", "image", "padded")
    )
    anchors = generator(padded)[torch.from_numpy(found["anchors"].astype(int))]  # (C, 4)
    boxes = clip_boxes(decode_boxes(torch.from_numpy(found["offsets"]), anchors), seen)
    scores = torch.from_numpy(found["scores"])
    labels = torch.from_numpy(found["labels"].astype(int))
    kept = nms_per_class(boxes, scores, labels, IOU_THRESHOLD)[:100]
    return rescale(Detections(boxes[kept], scores[kept], labels[kept]), seen, photo)


@pytest.mark.parametrize("path", sorted(RECORDS.iterdir()), ids=lambda path: path.name)
def test_small_and_of_no_machine(path: Path) -> None:
    assert path.stat().st_size <= MOST_BYTES[path.suffix]
    if path.suffix == ".json":
        record = json.loads(path.read_text(encoding="utf-8"))
        assert {"what", "model", "command", "commit", "versions", "hardware"} <= set(record)
        assert not re.search(r'[" ]/\w', path.read_text(encoding="utf-8"))


def test_maps() -> None:
    found = arrays("maps_chelsea")
    height, width = data.chelsea().shape[:2]
    assert set(found) == set(STRIDES) | {f"{name}_channels" for name in STRIDES}
    for name, stride in STRIDES.items():
        level, chosen = found[name].astype(np.float32), found[f"{name}_channels"]
        grid = math.ceil(height / stride), math.ceil(width / stride)
        assert level.shape == (2 + len(chosen), *grid)
        assert len(set(chosen.tolist())) == len(chosen) >= 3
        assert np.isfinite(level).all()
        mean, most, channels = level[0], level[1], level[2:]
        assert (mean > 0).all()
        assert (mean <= most).all()
        assert (np.abs(channels) <= most + 1e-3 * most).all()  # float16
        if name.startswith("C"):  # they come out of a ReLU
            assert (channels >= 0).all()


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_candidates(name: str) -> None:
    found = arrays(f"candidates_{name}")
    per_level = found["anchors_per_level"]
    assert tuple(found["picture_size"]) == getattr(data, name)().shape[:2]
    assert max(found["image_size"]) == 256
    assert per_level.sum() == len(AnchorGenerator()(found["padded_size"].tolist()))
    scores, anchors, labels = found["scores"], found["anchors"].astype(int), found["labels"]
    assert len(scores) == len(anchors) == len(labels) == len(found["offsets"]) > 1000
    assert (scores > 0.05).all()
    assert (scores < 1).all()
    assert labels.max() < 20
    assert len({*zip(anchors.tolist(), labels.tolist(), strict=True)}) == len(anchors)
    level = np.searchsorted(per_level.cumsum(), anchors, side="right")
    assert (np.diff(level) >= 0).all()
    assert level.max() < 5
    assert np.bincount(level).max() == 1000  # the limit bites on both photographs
    for one in set(level.tolist()):
        assert (np.diff(scores[level == one]) <= 0).all()


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_the_page_shows_the_same_candidates(name: str) -> None:
    found, page = arrays(f"candidates_{name}"), values(f"candidates_{name}")
    best = np.argsort(-found["scores"], kind="stable")[: len(page["scores"])]
    assert 100 <= len(best) <= 200
    assert page["anchors"] == found["anchors"][best].tolist()
    assert page["labels"] == found["labels"][best].tolist()
    np.testing.assert_allclose(page["scores"], found["scores"][best], atol=1e-4)
    height, width = found["picture_size"]
    assert (page["width"], page["height"]) == (width, height)
    assert len(page["classes"]) == 20
    anchors = AnchorGenerator()(found["padded_size"].tolist())[found["anchors"][best].astype(int)]
    boxes = decode_boxes(torch.from_numpy(found["offsets"][best]), anchors).numpy()
    seen = found["image_size"][[1, 0, 1, 0]]  # columns, rows, twice
    boxes = np.clip(boxes, 0, seen) * (np.array([width, height] * 2) / seen)
    np.testing.assert_allclose(page["boxes"], boxes, atol=0.051)
    starts = np.cumsum([0, *found["anchors_per_level"]])
    for anchor, level in zip(page["anchors"], page["levels"], strict=True):
        assert starts[level - 3] <= anchor < starts[level - 2]


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_suppression_of_the_candidates_gives_the_detections(name: str) -> None:
    found = suppressed(arrays(f"candidates_{name}"), AnchorGenerator())
    classes = values(f"candidates_{name}")["classes"]
    recorded = values("detections")[name]
    assert len(recorded) == int((found.scores > 0.2).sum())
    for i, (label, score, box) in enumerate(recorded):
        assert label == classes[found.labels[i]]
        assert abs(score - found.scores[i].item()) < 1e-3
        assert (torch.tensor(box) - found.boxes[i]).abs().max() <= 0.51


def test_what_the_texts_say_of_the_photographs() -> None:
    found = values("detections")
    assert [row[0] for row in found["chelsea"][:2]] == ["cat", "dog"]
    assert found["astronaut"][0][0] == "person"
    assert found["motorcycle_left"][0][0] == "sofa"
    assert found["rocket"] == []


def test_curves_of_the_loss() -> None:
    found = values("loss_by_answer")
    share = np.array(found["share"])
    assert share[0] == 0
    assert share[-1] == 1
    assert (np.diff(share) > 0).all()
    assert len(share) >= 190
    assert found["pictures"] == 300
    assert found["background_anchors"] > 200 * found["foreground_anchors"] > 0
    for group in ("foreground", "background"):
        before = share  # all answers equal: the diagonal
        for gamma in found["gammas"]:
            curve = np.array(found[f"{group}_{gamma}"])
            assert curve[0] == 0
            assert curve[-1] == 1
            assert (np.diff(curve) >= 0).all()
            assert (curve <= before + 1e-4).all()  # sorted, and γ takes from the easy ones
            before = curve
    # The paper's finding: γ moves the background's curve far, and the foreground's little.
    moved = {
        group: max(np.array(found[f"{group}_0"]) - np.array(found[f"{group}_2"]))
        for group in ("foreground", "background")
    }
    assert moved["foreground"] < 0.1 < 0.6 < moved["background"]


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("records", DATA / "make_voc_records.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_leaves_the_rest_to_suppression(script: Any) -> None:
    model, photo = load_checkpoint("shapes"), torch.from_numpy(data.chelsea()).movedim(-1, 0)
    ours = suppressed(script.candidates(model, photo), model.anchor_generator)
    expected = predict(model, photo)
    assert len(expected) > 0
    assert torch.equal(ours.boxes, expected.boxes)
    assert torch.equal(ours.scores, expected.scores)
    assert torch.equal(ours.labels, expected.labels)


def test_the_script_computes_curves_of_focal_loss(script: Any) -> None:
    model, shapes = load_checkpoint("shapes"), ShapesDataset("val", length=1)
    found = script.loss_by_answer(model, shapes)
    image, target = script.EvalTransform(128)(*shapes[0])
    with torch.no_grad():
        logits = model(image[None]).class_logits[0]
    match = match_targets(model.anchors((128, 128)), target["boxes"], target["difficult"])
    assert found["background_anchors"] == int((match == BACKGROUND).sum())
    assert found["foreground_anchors"] == int((match >= 0).sum()) > 0
    one_by_one = torch.stack(
        [
            focal_loss(z, torch.zeros(()), gamma=1.0)
            for z in logits[match == BACKGROUND].flatten().sort().values
        ]
    ).double()
    middle = found["share"].index(0.9)
    easiest = one_by_one[: round(0.9 * len(one_by_one))].sum() / one_by_one.sum()
    assert found["background_1"][middle] == pytest.approx(easiest.item(), abs=1e-5)
