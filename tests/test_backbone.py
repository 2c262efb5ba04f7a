"""backbone: torchvision's ResNets, and what happens to weights that somebody else trained."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from retinanet_edu.backbone import (
    ResNet,
    freeze_pretrained,
    load_backbone_weights,
    read_tensors,
)
from retinanet_edu.errors import CheckpointError, RetinaNetError
from retinanet_edu.model import retinanet_resnet18

pytestmark = pytest.mark.filterwarnings("error")

DEPTHS = (18, 34, 50, 101, 152)
# Norms of a ResNet-18: one in the stem, two in each of two blocks of four stages, and one beside
# each of the three that halve the resolution.
NORMS = 1 + 4 * 4 + 3


def torchvisions(depth: int = 18) -> torchvision.models.ResNet:
    """With statistics, scales and shifts that no default hides."""
    net = torchvision.models.get_model(f"resnet{depth}", weights=None)
    g = torch.Generator().manual_seed(depth)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(0.5, 1.0, generator=g)
                layer.bias.normal_(0, 0.2, generator=g)
                layer.running_mean.normal_(0, 0.2, generator=g)
                layer.running_var.uniform_(1, 3, generator=g)
    return net.eval()


def body(net: nn.Module) -> dict[str, Tensor]:
    return {n: t for n, t in net.state_dict().items() if not n.startswith("fc.")}


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def saved(path: Path, state: object) -> Path:
    torch.save(state, path)
    return path


def norms_of(net: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {n: m for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}


def frozen_of(net: nn.Module) -> set[str]:
    """Norms that keep statistics, scale and shift, as the modules themselves say."""
    return {
        name
        for name, norm in norms_of(net).items()
        if not norm.training and not any(p.requires_grad for p in norm.parameters())
    }


def assert_same_state(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    own = net.state_dict()
    assert list(own) == list(state)
    assert all(torch.equal(own[name], state[name]) for name in state)


# --- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", DEPTHS)
def test_names_shapes_and_the_maps_c3_c4_c5_are_torchvisions(depth: int) -> None:
    theirs, ours = torchvisions(depth), ResNet(depth).eval()
    state = body(theirs)
    assert {n: t.shape for n, t in ours.state_dict().items()} == {
        n: t.shape for n, t in state.items()
    }
    ours.load_state_dict(state)
    taps = {"layer2": "C3", "layer3": "C4", "layer4": "C5"}
    x = images(2, 3, 65, 97)
    with torch.no_grad():
        expected = create_feature_extractor(theirs, taps)(x)
        found = ours(x)
    assert len(found) == 3
    for tensor, name, channels in zip(found, taps.values(), ours.out_channels, strict=True):
        assert tensor.shape[1] == channels
        assert tensor.std() > 0.01
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-5)


def test_in_training_the_statistics_move_as_torchvisions_do() -> None:
    theirs, ours = torchvisions().train(), ResNet(18)
    ours.load_state_dict(body(theirs))
    x = images(4, 3, 64, 64)
    c5 = create_feature_extractor(theirs, {"layer4": "C5"})(x)["C5"]
    torch.testing.assert_close(ours(x)[2], c5, rtol=1e-4, atol=1e-5)
    for name, tensor in body(theirs).items():
        torch.testing.assert_close(ours.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)
    assert ours.bn1.num_batches_tracked == 1


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (65, 190), (128, 256)])
def test_maps_have_strides_8_16_32_rounded_up(size: tuple[int, int]) -> None:
    height, width = size
    with torch.no_grad():
        maps = ResNet(18, 0.125).eval()(images(1, 3, *size))
    assert [tuple(m.shape[-2:]) for m in maps] == [
        (-(-height // s), -(-width // s)) for s in (8, 16, 32)
    ]


@pytest.mark.parametrize(
    ("depth", "channels"), [(18, (32, 64, 128)), (34, (32, 64, 128)), (50, (128, 256, 512))]
)
def test_a_quarter_of_the_width_is_a_quarter_of_all_channels(
    depth: int, channels: tuple[int, ...]
) -> None:
    ours = ResNet(depth, 0.25).eval()
    assert ours.out_channels == channels
    wide = body(torchvision.models.get_model(f"resnet{depth}", weights=None))
    assert list(ours.state_dict()) == list(wide)
    for name, tensor in ours.state_dict().items():
        out, *rest = wide[name].shape or (None,)
        if out is None:
            assert tensor.shape == ()
            continue
        if rest and rest[0] != 3:  # the picture keeps its three colours
            rest[0] //= 4
        assert tuple(tensor.shape) == (out // 4, *rest), name
    with torch.no_grad():
        assert tuple(m.shape[1] for m in ours(images(1, 3, 32, 32))) == channels


def test_weights_start_as_in_torchvision() -> None:
    torch.manual_seed(0)
    ours, theirs = ResNet(50), torchvision.models.resnet50(weights=None)
    assert all((n.weight == 1).all() and (n.bias == 0).all() for n in norms_of(ours).values())
    convs = {n: m for n, m in ours.named_modules() if isinstance(m, nn.Conv2d)}
    assert len(convs) == 53
    for name, conv in convs.items():
        expected = theirs.get_submodule(name).weight.std().item()
        assert conv.weight.std().item() == pytest.approx(expected, rel=0.1), name
        assert conv.weight.std().item() > 0


@pytest.mark.parametrize("depth", [0, 20, "18"])
def test_another_depth_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match="depth is one of 18, 34, 50, 101, 152"):
        ResNet(depth)


@pytest.mark.parametrize("width", [0, -1.0, float("nan")])
def test_a_width_that_is_none_is_refused(width: float) -> None:
    with pytest.raises(ValueError, match="width"):
        ResNet(18, width)


def test_settings_rebuild_the_backbone() -> None:
    first = ResNet(50, 0.125)
    first.freeze(norms=("bn1", "layer1.0.bn2"), stages=1)
    settings = first.settings
    assert settings == {
        "depth": 50,
        "width": 0.125,
        "frozen_norms": ("bn1", "layer1.0.bn2"),
        "frozen_stages": 1,
    }
    again = ResNet(settings["depth"], settings["width"])
    again.load_state_dict(first.state_dict())
    again.freeze(settings["frozen_norms"], settings["frozen_stages"])
    assert again.settings == settings
    trained = [n for n, p in first.named_parameters() if p.requires_grad]
    assert [n for n, p in again.named_parameters() if p.requires_grad] == trained


# --- freezing -------------------------------------------------------------------------------------


def test_frozen_norms_stay_in_evaluation_mode_and_the_others_follow() -> None:
    net = ResNet(18, 0.125)
    net.freeze(norms=("bn1", "layer2.0.downsample.1"))
    for _ in range(2):
        assert net.train() is net
        assert frozen_of(net) == {"bn1", "layer2.0.downsample.1"}
        assert all(m.training for n, m in net.named_modules() if n not in net.frozen_norms)
        assert not any(m.training for m in net.eval().modules())


def test_a_step_of_training_moves_all_but_what_is_frozen() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(ResNet(18, 0.125))  # train() is called on a module around it
    net[0].freeze(norms=("bn1", "layer1.0.bn1", "layer3.1.bn2"), stages=2)
    before = {n: t.clone() for n, t in net[0].state_dict().items()}
    net.train()
    loss = sum(m.square().mean() for m in net(images(2, 3, 64, 64)))
    loss.backward()
    trained = [p for p in net.parameters() if p.requires_grad]
    torch.optim.SGD(trained, lr=0.1).step()
    after = net[0].state_dict()
    same = {n for n in before if torch.equal(before[n], after[n])}
    parameters = {
        n for n, _ in net[0].named_parameters() if n.startswith(("conv1", "bn1", "layer1."))
    }
    norms = {n for n in before if n.startswith(("bn1.", "layer1.0.bn1.", "layer3.1.bn2."))}
    assert same == parameters | norms
    assert sum(p.grad is None for p in net.parameters()) == len(parameters | norms) - 3 * 3


def test_freezing_anew_releases_what_is_not_named_again() -> None:
    net = ResNet(18, 0.125)
    net.freeze(norms=tuple(norms_of(net)), stages=5)
    assert not any(p.requires_grad for p in net.parameters())
    net.freeze()
    assert all(p.requires_grad for p in net.parameters())
    assert all(m.training for m in net.modules())
    assert (net.frozen_norms, net.frozen_stages) == ((), 0)


@pytest.mark.parametrize("stages", [-1, 6])
def test_no_more_stages_are_frozen_than_there_are(stages: int) -> None:
    with pytest.raises(ValueError, match=f"0 to 5 stages can be frozen, not {stages}"):
        ResNet(18, 0.125).freeze(stages=stages)


@pytest.mark.parametrize("stages", range(6))
def test_stages_are_frozen_from_the_bottom(stages: int) -> None:
    net = ResNet(18, 0.125)
    net.freeze(stages=stages)
    parts = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
    frozen = {name for part in parts[:stages] for name in part}
    for name, parameter in net.named_parameters():
        assert parameter.requires_grad == (name.split(".")[0] not in frozen), name


# --- pretrained weights ---------------------------------------------------------------------------


def test_a_whole_file_is_loaded_and_freezes_every_norm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = torchvisions()
    path = saved(tmp_path / "w.pth", theirs.state_dict())  # with its classifier
    model = retinanet_resnet18(3, backbone_weights=path)
    assert capsys.readouterr().out == ""
    assert_same_state(model.backbone, body(theirs))
    model.eval().train()
    assert frozen_of(model.backbone) == set(norms_of(model.backbone))
    assert len(model.backbone.frozen_norms) == NORMS
    assert model.backbone.frozen_stages == 2
    for name, parameter in model.backbone.named_parameters():
        frozen = name.startswith(("conv1", "bn1", "layer1")) or "bn" in name or "sample.1" in name
        assert parameter.requires_grad == (not frozen), name


def test_without_weights_nothing_is_frozen() -> None:
    model = retinanet_resnet18(3, width=0.125, channels=16)
    assert all(p.requires_grad for p in model.parameters())
    assert all(m.training for m in model.modules())
    assert model.backbone.frozen_norms == ()


def test_a_partial_file_needs_the_flag(tmp_path: Path) -> None:
    state = {n: t for n, t in body(torchvisions()).items() if not n.startswith("layer4")}
    path = saved(tmp_path / "part.pth", state)
    net = ResNet(18)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_backbone_weights(net, path)
    assert all(
        word in str(error.value)
        for word in (str(path), "layer4 (25 of 25 tensors)", "--partial-backbone")
    )
    assert "layer3" not in str(error.value)
    assert_same_state(net, before)


def test_with_the_flag_it_is_printed_what_stays_random_and_only_loaded_norms_are_frozen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = body(torchvisions())
    # One norm without all of its numbers, one convolution, and a whole stage.
    for name in list(state):
        if name.startswith("layer4") or name in (
            "layer2.0.bn1.running_var",
            "layer3.1.conv2.weight",
        ):
            del state[name]
    path = saved(tmp_path / "part.pth", state)
    torch.manual_seed(0)
    model = retinanet_resnet18(3, backbone_weights=path, partial_backbone=True)
    out = capsys.readouterr().out
    assert str(path) in out
    assert "layer2 (1 of 25 tensors), layer3 (1 of 25 tensors), layer4 (25 of 25 tensors)" in out
    own = model.backbone.state_dict()
    assert all(torch.equal(own[n], t) for n, t in state.items())
    expected = {n for n in norms_of(model.backbone) if not n.startswith("layer4")}
    expected.remove("layer2.0.bn1")
    assert frozen_of(model.train().backbone) == expected == set(model.backbone.frozen_norms)


@pytest.mark.parametrize(
    ("lacks", "wanted", "frozen"),
    [("layer4.", 5, 4), ("layer1.0.conv1", 2, 1), ("bn1.", 2, 0), ("layer4.", 4, 4)],
)
def test_a_stage_that_starts_random_is_never_frozen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lacks: str, wanted: int, frozen: int
) -> None:
    state = {n: t for n, t in body(torchvisions()).items() if not n.startswith(lacks)}
    path = saved(tmp_path / "part.pth", state)
    model = retinanet_resnet18(
        3, backbone_weights=path, partial_backbone=True, frozen_stages=wanted
    )
    assert model.backbone.frozen_stages == frozen
    said = f"frozen stages: {frozen} instead of {wanted}" in capsys.readouterr().out
    assert said == (frozen < wanted)
    assert model.backbone.layer4[0].conv1.weight.requires_grad


@pytest.mark.parametrize("stages", [-1, 6])
def test_more_stages_than_there_are_cannot_be_asked_for(tmp_path: Path, stages: int) -> None:
    path = saved(tmp_path / "w.pth", torchvisions().state_dict())
    with pytest.raises(ValueError, match=f"0 to 5 stages can be frozen, not {stages}"):
        retinanet_resnet18(3, backbone_weights=path, frozen_stages=stages)


def test_loaded_names_decide_alone_which_norms_are_frozen() -> None:
    net = ResNet(18, 0.125)
    parts = ("weight", "bias", "running_mean", "running_var")
    loaded = (*(f"layer1.1.bn2.{p}" for p in parts), "bn1.running_mean")
    freeze_pretrained(net, loaded, stages=0)
    assert net.frozen_norms == ("layer1.1.bn2",)


@pytest.mark.parametrize("how", ["half", "without counters", "older format"])
def test_other_ways_to_store_the_same_weights(tmp_path: Path, how: str) -> None:
    state, path = body(torchvisions()), tmp_path / "w.pth"
    if how == "half":
        state = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    elif how == "without counters":
        state = {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}
    torch.save(state, path, _use_new_zipfile_serialization=how != "older format")
    net = ResNet(18)
    loaded = load_backbone_weights(net, path)
    assert set(loaded) == set(state)
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    for name, tensor in state.items():
        assert torch.equal(net.state_dict()[name], tensor.to(net.state_dict()[name].dtype))


def _other_depth(path: Path) -> None:
    torch.save(torchvisions(34).state_dict(), path)


def _bottlenecks(path: Path) -> None:
    torch.save(torchvisions(50).state_dict(), path)


def _other_width(path: Path) -> None:
    torch.save(ResNet(18, 0.5).state_dict(), path)


def _prefixed(path: Path) -> None:
    torch.save({f"module.{n}": t for n, t in body(torchvisions()).items()}, path)


def _only_a_classifier(path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(1000, 512)}, path)


def _empty_dict(path: Path) -> None:
    torch.save({}, path)


def _wrapped(path: Path) -> None:
    torch.save({"model": body(torchvisions()), "epoch": 3}, path)


def _a_tensor(path: Path) -> None:
    torch.save(torch.zeros(3), path)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("<html>404: no such file</html>")


def _folder(path: Path) -> None:
    path.mkdir()


def _nothing(path: Path) -> None:
    assert not path.exists()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_nothing, "no such file"),
        (_folder, "no such file"),
        (_empty, "not readable|not loaded"),
        (_text, "damaged"),
        (_a_tensor, "not a state dict"),
        (_wrapped, "not a state dict"),
        (_empty_dict, "none of them fits"),
        (_only_a_classifier, "none of them fits"),
        (_prefixed, r"ResNet-18 of width 1\.0.*module\.conv1\.weight"),
        (_other_depth, r"not the weights of a ResNet-18.*layer1\.2"),
        (_bottlenecks, "not the weights of a ResNet-18"),
        (_other_width, r"[1-9]\d* of another shape"),
    ],
)
@pytest.mark.parametrize("partial", [False, True])
def test_a_file_that_is_of_no_use_is_named_and_nothing_is_changed(
    tmp_path: Path, write: Callable[[Path], None], message: str, partial: bool
) -> None:
    path = tmp_path / "given.pth"
    write(path)
    net = ResNet(18)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"(?s)given\.pth.*({message})"):
        load_backbone_weights(net, path, partial=partial)
    assert_same_state(net, before)
    assert issubclass(CheckpointError, RetinaNetError)


def test_a_file_cut_short_anywhere_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "given.pth", ResNet(18, 0.05).state_dict())
    whole = path.read_bytes()
    for length in [*range(0, len(whole), len(whole) // 40), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"given\.pth"):
            load_backbone_weights(ResNet(18, 0.05), path)


def test_a_single_flipped_bit_in_the_weights_is_noticed(tmp_path: Path) -> None:
    state = ResNet(18, 0.05).state_dict()
    path = saved(tmp_path / "given.pth", state)
    whole = bytearray(path.read_bytes())
    kernel = state["layer4.0.conv1.weight"].numpy().tobytes()
    start = whole.find(kernel)
    assert start > 0
    whole[start + len(kernel) // 2] ^= 4
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match=r"given\.pth: .*damaged .*checksum"):
        load_backbone_weights(ResNet(18, 0.05), path)


class Hostile:
    """What runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_of_weights_is_not_run_nor_is_it_advised(
    tmp_path: Path, zipped: bool
) -> None:
    path, marker = tmp_path / "given.pth", tmp_path / "run"
    torch.save({"conv1.weight": Hostile(marker)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"given\.pth: not loaded.*code") as error:
        read_tensors(path)
    assert not marker.exists()
    assert "weights_only" not in str(error.value)


def test_imagenet_is_torchvisions_file_with_its_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, asked = torchvisions(), []

    def download(url: str, **settings: object) -> dict[str, Tensor]:
        asked.append((url, settings["check_hash"]))
        return theirs.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    model = retinanet_resnet18(3, backbone_weights="imagenet")
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    assert asked == [(weights.url, True)]
    assert_same_state(model.backbone, body(theirs))
    assert len(frozen_of(model.backbone)) == NORMS


@pytest.mark.parametrize("error", [URLError("no network"), RuntimeError("invalid hash value")])
def test_a_download_that_fails_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def download(url: str, **settings: object) -> None:
        raise error

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    with pytest.raises(CheckpointError, match=r"resnet34-\w+\.pth: could not be downloaded"):
        load_backbone_weights(ResNet(34), "imagenet")


# --- the real thing -------------------------------------------------------------------------------

REAL = os.environ.get("RETINANET_EDU_RESNET18")


@pytest.mark.skipif(
    not REAL, reason="RETINANET_EDU_RESNET18 names no file of pretrained weights of ResNet-18"
)
def test_real_weights_complete_or_in_part_give_torchvisions_maps(
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = torch.load(REAL, map_location="cpu", weights_only=True)
    state = {n: t for n, t in state.items() if not n.startswith("fc.")}
    theirs = torchvision.models.resnet18(weights=None)
    lacking = theirs.load_state_dict(state, strict=False).missing_keys
    lacking = {n for n in lacking if not n.startswith("fc.") and "num_batches" not in n}
    theirs.eval()

    if lacking:
        with pytest.raises(CheckpointError, match="partial_backbone=True"):
            retinanet_resnet18(20, backbone_weights=REAL)
    model = retinanet_resnet18(20, backbone_weights=REAL, partial_backbone=True).train()
    out = capsys.readouterr().out
    for part in {n.split(".")[0] for n in body(theirs)}:
        assert (f"{part} (" in out) == any(n.startswith(f"{part}.") for n in lacking)

    pretrained = {n for n in norms_of(theirs) if not any(m.startswith(f"{n}.") for m in lacking)}
    assert frozen_of(model.backbone) == pretrained
    assert len(pretrained) >= 15  # as far as layer3 at least

    own = model.backbone.eval().state_dict()
    for name in state.keys() & own.keys():
        assert torch.equal(own[name], state[name]), name
    x = images(2, 3, 65, 97)
    taps = {"layer2": "C3", "layer3": "C4"}
    with torch.no_grad():
        expected = create_feature_extractor(theirs, taps)(x)
        c3, c4, _ = model.backbone(x)
    torch.testing.assert_close(c3, expected["C3"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(c4, expected["C4"], rtol=1e-5, atol=1e-5)


def test_a_norm_that_is_not_there_is_refused_before_anything_changes() -> None:
    backbone = ResNet(18, 0.125)
    with pytest.raises(AttributeError, match="bn7"):
        backbone.freeze(norms=("layer1.0.bn7",), stages=2)
    assert backbone.frozen_norms == ()
    assert backbone.frozen_stages == 0
    backbone.train()
