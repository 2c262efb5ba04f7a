"""Export: what leaves the package says what the model says, at any size, and needs no PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retinanet_edu import detect_onnx, export
from retinanet_edu.checkpoint import load_checkpoint
from retinanet_edu.cli import main
from retinanet_edu.coding import decode_boxes
from retinanet_edu.data.images import read_image
from retinanet_edu.data.loading import PAD_MULTIPLE
from retinanet_edu.data.shapes import ShapesDataset
from retinanet_edu.detection import predict
from retinanet_edu.errors import ExportError

pytest.importorskip("onnxscript")

# (B, H, W): odd, prime, smaller than the coarsest stride, a single pixel; one is a multiple of 128.
SIZES = [
    (1, 128, 128), (2, 97, 203), (1, 64, 64), (3, 130, 40), (1, 33, 301),
    (1, 8, 8), (2, 1, 1), (1, 255, 129), (4, 31, 65), (1, 200, 333),
]  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return load_checkpoint("shapes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Both files, as the command writes them."""
    folder = tmp_path_factory.mktemp("export") / "new"
    for name in ("shapes.onnx", "shapes.pt2"):
        assert main(["export", "--checkpoint", "shapes", "--output", str(folder / name)]) == 0
    return folder


@pytest.fixture(scope="module")
def detector(folder):
    return detect_onnx.load_model(str(folder / "shapes.onnx"))


@pytest.fixture(scope="module")
def program(folder):
    return export.load_program(folder / "shapes.pt2")


def expected(model, images):
    """Eager, through the public functions."""
    with torch.no_grad():
        predictions = model(images)
    boxes = decode_boxes(predictions.box_deltas, model.anchors(images.shape[-2:]))
    return predictions.class_logits, boxes, torch.tensor(predictions.anchors_per_level)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_outputs_are_the_eager_models_at_any_size(size, kind, model, detector, program):
    batch, height, width = size
    images = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(height))
    if kind == "onnx":
        found = detector.session.run(list(export.OUTPUTS), {"images": images.numpy()})
        logits, boxes, counts = map(torch.from_numpy, found)
    else:
        logits, boxes, counts = program[0](images)
    true_logits, true_boxes, true_counts = expected(model, images)
    assert true_logits.std() > 0.5
    torch.testing.assert_close(logits, true_logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(boxes, true_boxes, rtol=1e-5, atol=1e-3)
    assert torch.equal(counts, true_counts)


def test_both_files_carry_what_their_user_must_know(model, detector, program):
    assert detector.settings == program[1] == json.loads(export.metadata(model))
    assert detector.settings["classes"] == list(model.classes)
    assert detector.settings["image_size"] == model.image_size
    assert detector.settings["pad_multiple"] == PAD_MULTIPLE


def same_detections(one, other, tolerance, least):
    """Each detection of either side that is not at the very threshold is one of the other side's.

    Not place by place: of two scores that are equal but for rounding either may come first.
    """
    for (boxes, scores, labels), others in ((one, other), (other, one)):
        for box, score, label in zip(boxes, scores, labels, strict=True):
            is_same = (others[2] == label) & (np.abs(others[1] - score) < tolerance)
            is_same &= np.abs(others[0] - box).max(axis=1) < 0.5
            assert is_same.any() or score < least, (box, score, label)


def as_arrays(found):
    return found.boxes.numpy(), found.scores.numpy(), found.labels.numpy()


@pytest.mark.parametrize(
    ("size", "tolerance", "least"), [(128, 1e-3, 0.051), (100, 0.03, 0.5), (231, 0.03, 0.5)]
)
def test_the_script_detects_what_predict_does(size, tolerance, least, model, detector):
    """At 128 pixels nothing is scaled, at the others pictures are enlarged and reduced.

    Pillow rounds a scaled picture's pixels twice, and some versions of torchvision once.
    """
    data = ShapesDataset("val", size=size)
    for index in range(6):
        picture = data[index][0]
        if index % 2:
            picture = picture[:, : size * 3 // 4]  # no square, and padded
        found = predict(model, picture)
        image = Image.fromarray(picture.permute(1, 2, 0).numpy())
        ours = detect_onnx.detect(detector, image)
        assert len(found) >= 2
        assert ours[2].dtype == np.int64
        assert (np.diff(ours[1]) <= 0).all()
        same_detections(as_arrays(found), ours, tolerance, least)


def test_a_higher_threshold_leaves_the_best(model, detector):
    image = Image.fromarray(ShapesDataset("val")[0][0].permute(1, 2, 0).numpy())
    _, every, _ = detect_onnx.detect(detector, image)
    _, some, _ = detect_onnx.detect(detector, image, 0.5)
    assert 0 < len(some) < len(every)
    assert np.array_equal(some, every[every > 0.5])
    boxes, scores, labels = detect_onnx.detect(detector, image, 1.0)
    assert boxes.shape == (0, 4)
    assert len(scores) == len(labels) == 0


def test_the_script_keeps_at_most_top_k_pairs_of_a_level():
    logits = np.linspace(-3, 3, 40, dtype=np.float32).reshape(20, 2)
    scores, anchors, labels = detect_onnx.candidates(logits, np.array([12, 8]), 0.05, 5)
    assert anchors.tolist() == [19, 19, 18, 18, 17, 11, 11, 10, 10, 9]
    assert labels.tolist() == [1, 0] * 2 + [1] + [1, 0] * 2 + [1]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits[anchors, labels])), rtol=1e-6)


def test_the_script_suppresses_what_overlaps_more_than_the_threshold():
    # 3/5 of the first, which is not more than 0.6; then one inside, and one that is nothing.
    boxes = np.array([[0, 0, 10, 1], [0, 0, 6, 1], [0, 0, 7, 1], [3, 3, 3, 3], [3, 3, 3, 3]], float)
    assert detect_onnx.suppress(boxes, 0.6).tolist() == [0, 1, 3, 4]
    assert detect_onnx.suppress(boxes[:0], 0.6).tolist() == []


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK", "RGBA", "I;16", "1", "turned"])
def test_the_script_reads_pictures_as_the_package_does(mode, tmp_path):
    picture = Image.fromarray(ShapesDataset("val")[3][0].permute(1, 2, 0).numpy())
    path = tmp_path / ("picture.tiff" if mode in ("CMYK", "I;16") else "picture.png")
    if mode == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.resize((128, 60)).save(path, exif=exif)
    elif mode == "I;16":
        Image.fromarray(np.asarray(picture.convert("L"), dtype=np.uint16) * 257).save(path)
    elif mode == "RGBA":
        picture.putalpha(picture.convert("L"))
        picture.save(path)
    else:
        picture.convert(mode).save(path)
    rgb = np.asarray(detect_onnx.read_rgb(str(path)))
    assert np.array_equal(rgb, read_image(path).permute(1, 2, 0).numpy())


def test_the_script_beside_the_model_runs_without_torch_and_without_the_package(folder, tmp_path):
    picture = tmp_path / "shapes.png"
    Image.fromarray(ShapesDataset("val")[0][0].permute(1, 2, 0).numpy()).save(picture)
    code = (
        "import runpy, sys\n"
        "for name in ('torch', 'torchvision', 'retinanet_edu'): sys.modules[name] = None\n"
        f"sys.argv = ['detect_onnx.py', 'shapes.onnx', {str(picture)!r}]\n"
        "runpy.run_path('detect_onnx.py', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = predict(load_checkpoint("shapes"), picture, score_threshold=0.5)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[1] for row in rows] == [ShapesDataset.classes[k] for k in found.labels]
    for row, box, score in zip(rows, found.boxes, found.scores, strict=True):
        assert float(row[2]) == pytest.approx(float(score), abs=2e-3)
        assert [float(x) for x in row[3].split()] == pytest.approx(box.tolist(), abs=0.5)


def test_an_onnx_file_of_someone_else_is_refused(tmp_path):
    import onnx

    there = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    gone = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "other", [there], [gone])
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), tmp_path / "x")
    with pytest.raises(ValueError, match="not a model that retinanet-edu exported"):
        detect_onnx.load_model(str(tmp_path / "x"))


def test_anchors_of_torchvision_are_in_the_graph_too():
    from retinanet_edu.anchors import AnchorGenerator
    from retinanet_edu.model import retinanet_resnet18

    anchors = AnchorGenerator(offset=0, rounded=True, stride_from_grid=True)
    small = {"width": 0.125, "channels": 16, "head_convs": 1}
    own = retinanet_resnet18(2, anchors=anchors, p6_from="P5", **small).eval()
    images = torch.randn(1, 3, 129, 75, generator=torch.Generator().manual_seed(0))
    graph = export.Graph(own).eval()
    with torch.no_grad():
        found = graph(images)
    for one, other in zip(found, expected(own, images), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-3)
    assert own.training is False
    assert hasattr(own.backbone.bn1, "running_mean")  # it was left as it was


def test_mistakes_are_one_line_and_leave_nothing(model, tmp_path, monkeypatch, capsys):
    with pytest.raises(ExportError, match=r"ends in \.onnx or in \.pt2"):
        export.export_model(model, tmp_path / "model.pth")
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setattr(export, "_trace", lambda graph: None)
    with pytest.raises(ExportError, match="could not be exported"):
        export.export_model(model, blocked / "model.pt2")

    def save(program, path, extra_files):
        Path(path).touch()

    monkeypatch.setattr(torch.export, "save", save)
    monkeypatch.setattr(export, "_differing", lambda graph, path: "boxes")
    with pytest.raises(ExportError, match="its boxes would not be the model's"):
        export.export_model(model, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == [blocked]

    monkeypatch.setattr(export, "find_spec", lambda name: None)
    command = ["export", "--checkpoint", "shapes", "--output", str(tmp_path / "model.onnx")]
    assert main(command) == 1
    assert "pip install 'retinanet-edu[onnx]'" in capsys.readouterr().err
