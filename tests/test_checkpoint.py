"""checkpoint: what comes back is what was saved, and what is damaged or foreign does not come."""

from __future__ import annotations

import os
import pickle
import random
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import box_iou

from retinanet_edu import checkpoint
from retinanet_edu.anchors import STRIDES, AnchorGenerator
from retinanet_edu.backbone import ResNet
from retinanet_edu.checkpoint import (
    find_checkpoint,
    load_checkpoint,
    load_weights,
    read_checkpoint,
    save_checkpoint,
)
from retinanet_edu.detection import predict
from retinanet_edu.errors import CheckpointError
from retinanet_edu.model import RetinaNet

pytestmark = pytest.mark.filterwarnings("error")


class Stairs(nn.Module):
    """A backbone of one's own, with few tensors."""

    out_channels = (2, 3, 4)

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, c, s, s) for c, s in zip((2, 3, 4), (8, 16, 32)))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [conv(x) for conv in self.convs]


def randomise(model: RetinaNet, seed: int = 0) -> RetinaNet:
    """Weights and statistics that no other model has by default."""
    g = torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        if tensor.ndim > 1:
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=g))
        elif tensor.is_floating_point():
            tensor.copy_(0.5 + 0.3 * torch.rand(tensor.shape, generator=g))
        else:
            tensor.fill_(70_001)  # batches: more than float16 can count
    return model


def small(num_classes: int = 3, seed: int = 0, **settings: Any) -> RetinaNet:
    settings = {"channels": 8, "head_convs": 1} | settings
    return randomise(RetinaNet(ResNet(18, 0.125), num_classes, **settings), seed)


def tiny(num_classes: int = 2, **settings: Any) -> RetinaNet:
    """On a backbone of one's own."""
    settings = {"channels": 2, "head_convs": 0} | settings
    return randomise(RetinaNet(Stairs(), num_classes, **settings))


def assert_same_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    own = model.state_dict()
    assert list(own) == list(state)
    for name, tensor in own.items():
        assert tensor.dtype == state[name].dtype, name
        assert torch.equal(tensor, state[name]), name


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and a == b


# --- there and back -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"group_norm": True, "head_convs": 2, "p6_from": "P5"},
        {"neck": "lateral"},
        {"neck": "top-down", "p6_from": "P5"},
        {"neck": "single"},
        {"neck": "ssd"},
        {"neck": "image-pyramid"},
        {"classes": ("cat", "dog", "ünïcode"), "image_size": 96},
        {"anchors": AnchorGenerator(sizes=[3 * s for s in STRIDES], ratios=(1 / 3, 1.0))},
        {"anchors": AnchorGenerator(offset=0, rounded=True, stride_from_grid=True)},
    ],
)
def test_a_model_comes_back_bit_for_bit(tmp_path: Path, settings: dict) -> None:
    model = small(**settings)
    save_checkpoint(tmp_path / "m.pt", model)
    back = load_checkpoint(tmp_path / "m.pt")
    assert back is not model
    assert_same_state(back, model.state_dict())
    assert not any(m.training for m in back.modules())
    assert back.classes == model.classes
    assert type(back.classes) is tuple
    assert back.image_size == model.image_size
    assert back.settings == model.settings
    assert back.anchor_generator.settings == model.anchor_generator.settings
    assert torch.equal(back.anchors((65, 190)), model.anchors((65, 190)))
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        found, expected = back(x), model.eval()(x)
    assert expected.class_logits.isfinite().all()
    assert torch.equal(found.class_logits, expected.class_logits)
    assert torch.equal(found.box_deltas, expected.box_deltas)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_every_depth_comes_back(tmp_path: Path, depth: int) -> None:
    model = randomise(RetinaNet(ResNet(depth, 1 / 64), 1, channels=4, head_convs=0))
    save_checkpoint(str(tmp_path / "m.pt"), model)
    back = load_checkpoint(str(tmp_path / "m.pt"))
    assert_same_state(back, model.state_dict())
    assert back.backbone.settings == model.backbone.settings


def test_what_was_frozen_is_frozen_again(tmp_path: Path) -> None:
    model = small()
    model.backbone.freeze(norms=("bn1", "layer3.0.bn2"), stages=1)
    save_checkpoint(tmp_path / "m.pt", model)
    back = load_checkpoint(tmp_path / "m.pt").train()
    assert back.backbone.frozen_norms == ("bn1", "layer3.0.bn2")
    assert back.backbone.frozen_stages == 1
    norms = {n for n, m in back.backbone.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert {n for n in norms if not back.backbone.get_submodule(n).training} == {
        "bn1", "layer3.0.bn2",
    }  # fmt: skip
    trained = [p.requires_grad for p in model.parameters()]
    assert not all(trained)
    assert [p.requires_grad for p in back.parameters()] == trained


def test_half_rounds_the_weights_to_float16_and_nothing_else(tmp_path: Path) -> None:
    model = small(channels=32)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    save_checkpoint(tmp_path / "full.pt", model)
    save_checkpoint(tmp_path / "half.pt", model, half=True)
    assert_same_state(model, before)
    back = load_checkpoint(tmp_path / "half.pt")
    rounded = {n: t.half().float() if t.is_floating_point() else t for n, t in before.items()}
    assert not equal(rounded, before)
    assert_same_state(back, rounded)
    sizes = [(tmp_path / name).stat().st_size for name in ("half.pt", "full.pt")]
    numbers = sum(t.numel() for t in before.values() if t.is_floating_point())
    assert sizes[1] - sizes[0] == pytest.approx(2 * numbers, rel=0.05)


def test_a_run_gets_back_what_it_left(tmp_path: Path) -> None:
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters())
    model.box_head.output.bias.sum().backward()
    optimizer.step()
    training = {
        "identity": {"seed": 3, "optimizer": "adamw", "rate": 1e-3},
        "history": [{"epoch": 1, "loss": float("nan")}, {"epoch": 2, "mAP": None}],
        "optimizer": optimizer.state_dict(),
    }
    save_checkpoint(tmp_path / "last.pt", model, training=training)
    back = read_checkpoint(tmp_path / "last.pt")["training"]
    assert back["identity"] == training["identity"]
    assert back["history"][1] == training["history"][1]
    assert equal(back["optimizer"], optimizer.state_dict())
    save_checkpoint(tmp_path / "best.pt", model)
    assert read_checkpoint(tmp_path / "best.pt")["training"] is None


def test_it_is_read_by_torch_alone_without_any_code(tmp_path: Path) -> None:
    model = small(classes=np.array(["a", "b", "c"]), image_size=np.int32(64))
    save_checkpoint(tmp_path / "m.pt", model)
    content = torch.load(tmp_path / "m.pt", weights_only=True)
    assert equal(dict(content["weights"]), dict(model.state_dict()))
    assert content["classes"] == ("a", "b", "c")


def test_a_checkpoint_goes_where_it_is_wanted(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m.pt", small())
    assert load_checkpoint(tmp_path / "m.pt").device == torch.device("cpu")
    assert load_checkpoint(tmp_path / "m.pt", device="meta").device == torch.device("meta")


# --- whole or not at all --------------------------------------------------------------------------


def names_in(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def test_folders_are_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "one" / "m.pt"
    for seed in range(2):
        save_checkpoint(path, small(seed=seed))
        assert names_in(path.parent) == {"m.pt"}
        assert_same_state(load_checkpoint(path), small(seed=seed).state_dict())


def test_others_may_read_it_as_any_file(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m.pt", tiny())
    (tmp_path / "plain").touch()
    assert (tmp_path / "m.pt").stat().st_mode == (tmp_path / "plain").stat().st_mode


def _disk_full_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)


def _disk_full_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def save(content: object, file: Any) -> None:
        file.write(b"PK\x03\x04 the first half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", save)


def _torch_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def save(content: object, file: Any) -> None:
        file.write(b"PK\x03\x04 the first half")
        raise RuntimeError("unexpected pos 64 vs 0: No space left on device")

    monkeypatch.setattr(torch, "save", save)


def _cannot_be_put_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(self: Path, target: Path) -> None:
        raise PermissionError(13, "No space left, or a file in use")

    monkeypatch.setattr(Path, "replace", replace)


@pytest.mark.parametrize(
    "fail",
    [_disk_full_at_the_end, _disk_full_half_way, _torch_gives_up, _cannot_be_put_in_place],
)
def test_a_write_that_fails_leaves_the_file_before_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: Callable[[pytest.MonkeyPatch], None]
) -> None:
    path = tmp_path / "m.pt"
    save_checkpoint(path, small(seed=1))
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        fail(patch)
        with pytest.raises(CheckpointError, match=r"m\.pt: could not be written .*No space left"):
            save_checkpoint(path, small(seed=2))
    assert path.read_bytes() == before
    assert names_in(tmp_path) == {"m.pt"}


def test_an_interrupt_leaves_the_file_before_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.pt"
    save_checkpoint(path, tiny())
    before = path.read_bytes()

    def save(content: object, file: Any) -> None:
        file.write(b"PK\x03\x04 the first half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, tiny())
    assert path.read_bytes() == before
    assert names_in(tmp_path) == {"m.pt"}


def test_the_old_file_is_there_until_the_new_one_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever the machine stops, one of the two is on the disk."""
    path = tmp_path / "m.pt"
    save_checkpoint(path, small(seed=1))
    before, fsync, seen = path.read_bytes(), os.fsync, []

    def watching(handle: int) -> None:
        seen.append(path.read_bytes() == before)
        (other,) = names_in(tmp_path) - {"m.pt"}
        # What is forced to the disk is the whole new file, not what a buffer has let through.
        assert zipfile.ZipFile(tmp_path / other).testzip() is None
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watching)
    save_checkpoint(path, small(seed=2))
    assert seen == [True]
    assert_same_state(load_checkpoint(path), small(seed=2).state_dict())


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX's")
def test_a_real_limit_on_what_can_be_written(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "m.pt"
    save_checkpoint(path, tiny())
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"m\.pt: could not be written"):
            save_checkpoint(path, small(channels=64))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert names_in(tmp_path) == {"m.pt"}


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match=r"m\.pt: could not be written"):
        save_checkpoint(tmp_path / "file" / "m.pt", tiny())
    with pytest.raises(CheckpointError, match=r"m\.pt: could not be written"):
        save_checkpoint(tmp_path / "file" / "deeper" / "m.pt", tiny())
    (tmp_path / "m.pt").mkdir()
    with pytest.raises(CheckpointError, match=r"m\.pt: could not be written"):
        save_checkpoint(tmp_path / "m.pt", tiny())
    assert (tmp_path / "file").read_text() == "mine"
    assert names_in(tmp_path) == {"file", "m.pt"}


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_folder_that_may_not_be_written_to_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(CheckpointError, match=r"m\.pt: could not be written"):
        save_checkpoint(tmp_path / "m.pt", tiny())


@pytest.mark.parametrize("value", [np.float64(1e-3), Path("data"), torch.nn.ReLU()])
def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, value: object) -> None:
    path = tmp_path / "m.pt"
    save_checkpoint(path, tiny())
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"m\.pt: not written.*(numpy|athlib|ReLU)"):
        save_checkpoint(path, tiny(), training={"identity": {"value": value}})
    assert path.read_bytes() == before
    assert names_in(tmp_path) == {"m.pt"}


# --- damaged --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint with few tensors."""
    path = tmp_path_factory.mktemp("whole") / "m.pt"
    save_checkpoint(path, tiny(), training={"history": [1, 2, 3]})
    return path.read_bytes()


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "cut.pt"
    step = len(whole) // 150
    lengths = {*range(0, len(whole), step), *range(len(whole) - 40, len(whole))}
    assert len(lengths) > 150
    for length in lengths:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cut\.pt"):
            load_checkpoint(path, model=tiny())


def is_noticed(path: Path, damaged: bytes, content: dict) -> bool:
    """Whether it is refused, by name; if it is not, it must say what it said before."""
    path.write_bytes(damaged)
    try:
        found = read_checkpoint(path)
    except CheckpointError as error:
        return str(error).startswith(f"{path}: ")
    assert equal(found, content)
    return False


def test_a_single_flipped_bit_is_noticed_or_changes_nothing(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "flipped.pt"
    path.write_bytes(whole)
    content = read_checkpoint(path)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    # Anywhere; every bit of an entry in the index, and of the end of the file.
    draw = random.Random(0)
    bits = [draw.randrange(8 * len(whole)) for _ in range(250)]
    index = whole.find(b"PK\x01\x02")
    second = whole.find(b"PK\x01\x02", index + 1)
    bits += range(8 * index, 8 * second)
    bits += range(8 * (len(whole) - 98), 8 * len(whole), 3)
    # And the bit that turns an entry into a folder, of all that hold a tensor.
    at = index
    folders = []
    for entry in entries:
        assert whole[at : at + 4] == b"PK\x01\x02"
        if "/data/" in entry.filename:
            folders.append(8 * (at + 38) + 4)
        lengths = [int.from_bytes(whole[at + n : at + n + 2], "little") for n in (28, 30, 32)]
        at += 46 + sum(lengths)
    assert len(folders) > 10
    refused = 0
    with warnings.catch_warnings(record=True):  # of a flipped version number
        for bit in bits:
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            refused += is_noticed(path, bytes(damaged), content)
        for bit in folders:
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            assert is_noticed(path, bytes(damaged), content)
    assert refused > 200


def test_a_flipped_bit_in_any_tensor_is_noticed(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "flipped.pt"
    path.write_bytes(whole)
    for name, tensor in read_checkpoint(path)["weights"].items():
        start = whole.find(tensor.numpy().tobytes())
        assert start > 0, name
        damaged = bytearray(whole)
        damaged[start + tensor.numel() // 2] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"flipped\.pt: .*damaged .*checksum"):
            read_checkpoint(path)


# --- foreign --------------------------------------------------------------------------------------


class Hostile:
    """What runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("how", ["zip", "older torch", "pickle"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path: Path, how: str) -> None:
    path, marker = tmp_path / "hostile.pt", tmp_path / "run"
    content = {"format": checkpoint.FORMAT, "weights": Hostile(marker)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
        pickle.loads(path.read_bytes())
        assert marker.is_dir()  # it is hostile indeed
        marker.rmdir()
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(CheckpointError, match=r"hostile\.pt: not loaded") as error:
        load_checkpoint(path)
    assert not marker.exists()
    assert "weights_only" not in str(error.value)  # torch's own text advises to switch that off


def _nothing(path: Path) -> None:
    assert not path.exists()


def _folder(path: Path) -> None:
    path.mkdir()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("<html>404</html>")


def _archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def _state_dict(path: Path) -> None:
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), path)


def _a_tensor(path: Path) -> None:
    torch.save(torch.zeros(3), path)


def _another_format(path: Path) -> None:
    torch.save({"format": "retinanet_edu checkpoint 0", "weights": {}}, path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_nothing, r"no such file.*'shapes'"),
        (_folder, "no such file"),
        (_empty, "not readable"),
        (_text, "damaged"),
        (_archive, "not readable"),
        (_state_dict, "not a checkpoint of retinanet_edu"),
        (_a_tensor, "not a checkpoint of retinanet_edu"),
        (_another_format, "not a checkpoint of retinanet_edu"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_named(
    tmp_path: Path, write: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "given.pt"
    write(path)
    with pytest.raises(CheckpointError, match=rf"given\.pt: .*{message}"):
        load_checkpoint(path)


# --- models that do not fit -----------------------------------------------------------------------


def assert_refused(path: Path, model: RetinaNet, message: str) -> None:
    before = {n: t.clone() for n, t in model.state_dict().items()}
    classes = model.classes
    with pytest.raises(CheckpointError, match=rf"m\.pt: .*{message}"):
        load_checkpoint(path, model=model)
    assert_same_state(model, before)
    assert model.classes == classes


def test_weights_that_do_not_fit_are_refused_in_the_models_terms(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    save_checkpoint(path, small(3))
    assert_refused(path, small(5), "of 3 classes at 9 anchors a cell, but the model has 5")
    deeper = randomise(RetinaNet(ResNet(34, 0.125), 3, channels=8, head_convs=1))
    assert_refused(path, deeper, r"backbone\.layer1\.2")
    wider = randomise(RetinaNet(ResNet(18, 0.25), 3, channels=8, head_convs=1))
    assert_refused(path, wider, r"backbone\.conv1\.weight")
    assert_refused(path, small(channels=16), "of another model")
    assert_refused(path, small(head_convs=2), "of another model")
    assert_refused(path, small(group_norm=True), "of another model")


def test_anchors_in_which_the_weights_would_mean_something_else_are_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.pt"
    save_checkpoint(path, small(anchors=AnchorGenerator(sizes=[3 * s for s in STRIDES])))
    assert_refused(path, small(), r"sizes \(24\.0, .*32\.0")
    other = AnchorGenerator(sizes=[3 * s for s in STRIDES], offset=0)
    assert_refused(path, small(anchors=other), r"offset 0\.5, .* 0;")
    # Where the pyramid is as wide as C5, P6's kernel fits both ways.
    narrow = ResNet(18, 1 / 64)
    save_checkpoint(path, RetinaNet(narrow, 3, channels=8, head_convs=0, p6_from="P5"))
    model = randomise(RetinaNet(ResNet(18, 1 / 64), 3, channels=8, head_convs=0))
    assert_refused(path, model, "p6_from P5, .*C5")
    # So do the weights of an FPN in a neck that only leaves out sums.
    save_checkpoint(path, small(neck="lateral"))
    assert_refused(path, small(), "neck lateral, .*fpn")


def test_a_file_that_is_older_than_the_plainer_necks_is_of_an_fpn(tmp_path: Path) -> None:
    path, model = tmp_path / "m.pt", small()
    save_checkpoint(path, model)
    content = torch.load(path, weights_only=True)
    del content["settings"]["neck"]
    torch.save(content, path)
    back = load_checkpoint(path)
    assert back.settings == model.settings
    assert_same_state(load_checkpoint(path, model=small(seed=1)), model.state_dict())
    assert_refused(path, small(neck="lateral"), "neck fpn, .*lateral")


def test_load_weights_refuses_too_much_and_too_little() -> None:
    model = small()
    state = dict(small(seed=1).state_dict())
    lacking = {n: t for n, t in state.items() if n != "fpn.p6.bias"}
    with pytest.raises(CheckpointError, match=r"there\.pt: .*1 tensors do not fit.*fpn\.p6\.bias"):
        load_weights(model, lacking, "there.pt")
    with pytest.raises(CheckpointError, match=r"there\.pt: .*1 tensors do not fit.*extra"):
        load_weights(model, state | {"extra": torch.zeros(1)}, "there.pt")
    assert_same_state(model, small().state_dict())
    load_weights(model, state, "there.pt")
    assert_same_state(model, state)


def test_a_backbone_of_ones_own_is_loaded_into_a_model_that_is_given(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    saved = tiny(classes=("cat", "dog"), image_size=64)
    save_checkpoint(path, saved)
    with pytest.raises(CheckpointError, match=r"m\.pt: its backbone .*model="):
        load_checkpoint(path)
    model = RetinaNet(Stairs(), 2, channels=2, head_convs=0).train()
    assert load_checkpoint(path, model=model) is model
    assert_same_state(model, saved.state_dict())
    assert model.classes == ("cat", "dog")
    assert model.image_size == 64
    assert not model.training


def test_a_description_of_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    save_checkpoint(path, small())
    content = torch.load(path, weights_only=True)
    for part, change in (
        ("backbone", {"depth": 19}),
        ("backbone", {"frozen_norms": ("layer9.bn1",)}),
        ("backbone", {"frozen_stages": 9}),
        ("settings", {"num_classes": 0}),
        ("settings", {"colour": "red"}),
        ("anchors", {"sizes": (1.0,)}),
    ):
        torch.save(content | {part: content[part] | change}, path)
        with pytest.raises(CheckpointError, match=r"m\.pt: describes no model"):
            load_checkpoint(path)


# --- the one that comes with the package ----------------------------------------------------------


def test_a_file_comes_before_the_bundled_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bundled = find_checkpoint("shapes")
    assert bundled.name == "shapes.pt"
    assert bundled.is_absolute()
    Path("shapes").mkdir()  # a folder of that name is no checkpoint
    assert find_checkpoint("shapes") == bundled
    Path("shapes").rmdir()
    save_checkpoint("shapes", small())
    assert load_checkpoint("shapes").num_classes == 3


@pytest.fixture(scope="module")
def shapes() -> RetinaNet:
    return load_checkpoint("shapes")


def test_the_bundled_detector_is_small_and_made_for_the_embedded_data(shapes: RetinaNet) -> None:
    from retinanet_edu.data.shapes import ShapesDataset

    assert find_checkpoint("shapes").stat().st_size <= 3 * 2**20
    content = read_checkpoint("shapes")
    kernels = [t for t in content["weights"].values() if t.is_floating_point()]
    assert {t.dtype for t in kernels} == {torch.float16}
    assert all(t.isfinite().all() for t in kernels)
    assert content["training"] is None
    assert shapes.classes == tuple(ShapesDataset.classes)
    assert shapes.image_size == 128
    assert not shapes.training


def test_the_bundled_detector_finds_most_of_what_it_never_saw(shapes: RetinaNet) -> None:
    from retinanet_edu.data.shapes import ShapesDataset

    data = ShapesDataset("val")
    samples = [data[i] for i in range(24)]
    found = predict(shapes, [image for image, _ in samples], score_threshold=0.3)
    objects = hits = 0
    for one, (_, target) in zip(found, samples, strict=True):
        easy = ~target["difficult"]
        overlap = box_iou(target["boxes"][easy], one.boxes)  # (M, D)
        same = target["labels"][easy][:, None] == one.labels[None]
        objects += int(easy.sum())
        hits += int(((overlap > 0.5) & same).any(dim=1).sum())
    assert objects > 24
    assert hits > 0.8 * objects


def test_a_model_for_inference_is_not_saved_but_predicts(shapes: RetinaNet, tmp_path: Path) -> None:
    from retinanet_edu.data.shapes import ShapesDataset

    fast = shapes.for_inference()
    picture, _ = ShapesDataset("val")[0]
    for ours, theirs in zip(
        vars(predict(fast, picture)).values(), vars(predict(shapes, picture)).values()
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    with pytest.raises(CheckpointError, match=r"made for inference .* save the one"):
        save_checkpoint(tmp_path / "fast.pt", fast)
    assert not list(tmp_path.iterdir())


def test_a_compiled_model_is_saved_as_the_one_it_was_made_of(tmp_path: Path) -> None:
    model = checkpoint.load_checkpoint("shapes")
    checkpoint.save_checkpoint(tmp_path / "a.pt", torch.compile(model))
    again = checkpoint.load_checkpoint(tmp_path / "a.pt")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))


def test_what_cannot_be_pickled_is_refused_as_all_else(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="could not be written"):
        checkpoint.save_checkpoint(
            tmp_path / "a.pt", checkpoint.load_checkpoint("shapes"), training={"f": lambda: 1}
        )
    assert not [*tmp_path.iterdir()]
