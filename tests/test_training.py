"""The loop: it learns, it resumes exactly, it stops on nonsense."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from retinanet_edu import (
    AnchorGenerator,
    RetinaNet,
    evaluate,
    load_checkpoint,
    retinanet_resnet18,
    save_checkpoint,
    train,
)
from retinanet_edu.data.transforms import EvalTransform
from retinanet_edu.errors import CheckpointError, DataError, TrainingError
from retinanet_edu.losses import Losses, criterion
from retinanet_edu.training import BEST, LAST, METRICS, fastest_memory_format, schedule
from retinanet_edu.training.optimizer import make_optimizer, set_rate


class Squares:
    """Bright or dark squares on grey: the smallest thing that a detector can learn."""

    classes = ("bright", "dark")

    def __init__(self, length=8, size=96):
        self.length, self.size = length, size

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        image = torch.full((3, self.size, self.size), 128, dtype=torch.uint8)
        side = int(torch.randint(28, 48, (), generator=generator))
        x, y = torch.randint(0, self.size - side, (2,), generator=generator).tolist()
        label = index % 2
        image[:, y : y + side, x : x + side] = 255 if label == 0 else 0
        boxes = torch.tensor([[x, y, x + side, y + side]], dtype=torch.float32)
        return image, {"boxes": boxes, "labels": torch.tensor([label]), "image_id": f"sq{index}"}


def small_model(seed=0, width=0.125) -> RetinaNet:
    torch.manual_seed(seed)
    return retinanet_resnet18(
        2,
        width=width,
        channels=16,
        head_convs=1,
        group_norm=True,
        anchors=AnchorGenerator(sizes=[24, 48, 96, 192, 384]),
        classes=Squares.classes,
        image_size=96,
    )


def run(output, *, model=None, data=None, epochs=2, **settings):
    model = model or small_model()
    data = Squares() if data is None else data
    settings = {"batch_size": 4, "progress": False, "device": "cpu"} | settings
    return model, train(model, data, output=output, epochs=epochs, **settings)


def weights_equal(a, b) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def test_it_learns_eight_images(tmp_path):
    data = Squares()
    model, history = run(
        tmp_path,
        data=data,
        epochs=40,
        learning_rate=5e-3,
        transform=EvalTransform(96),
    )
    assert history[-1]["loss"] < 0.3 * history[0]["loss"]
    assert evaluate(model, data).mAP50 > 0.9


def test_a_run_leaves_checkpoints_and_a_log(tmp_path):
    model, history = run(tmp_path, val_data=Squares(4), evaluate_every=2, epochs=3)
    assert weights_equal(load_checkpoint(tmp_path / LAST), model)
    assert load_checkpoint(tmp_path / BEST).classes == Squares.classes
    lines = (tmp_path / METRICS).read_text().splitlines()
    assert [json.loads(line) for line in lines] == history
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert ["mAP" in row for row in history] == [False, True, True]
    assert history[1]["val_loss"] > 0


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    first, _ = run(tmp_path / "a")
    second, _ = run(tmp_path / "b")
    other, _ = run(tmp_path / "c", seed=1)
    assert weights_equal(first, second)
    assert not weights_equal(first, other)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_stopped_run_resumes_to_the_very_same_weights(tmp_path, optimizer, monkeypatch):
    whole, history = run(tmp_path / "whole", epochs=3, optimizer=optimizer)

    from retinanet_edu import training

    finish, done = training.finish_epoch, []

    def finish_once(*arguments):
        finish(*arguments)
        done.append(1)
        if len(done) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "finish_epoch", finish_once)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", epochs=3, optimizer=optimizer)
    monkeypatch.setattr(training, "finish_epoch", finish)
    torch.manual_seed(123)  # the global generator must not matter
    parts, resumed = run(
        tmp_path / "parts", model=small_model(9), epochs=3, optimizer=optimizer, resume=True
    )
    assert weights_equal(whole, parts)
    assert resumed == history


def test_workers_change_nothing(tmp_path):
    alone, _ = run(tmp_path / "a")
    helped, _ = run(tmp_path / "b", workers=2)
    assert weights_equal(alone, helped)


def test_a_finished_run_resumed_does_nothing_more(tmp_path):
    model, history = run(tmp_path)
    again, resumed = run(tmp_path, model=small_model(5), resume=True)
    assert weights_equal(model, again)
    assert resumed == history


def test_a_run_is_not_overwritten_nor_resumed_with_other_settings(tmp_path):
    run(tmp_path)
    with pytest.raises(CheckpointError, match="there is a run in it already"):
        run(tmp_path)
    with pytest.raises(CheckpointError, match=r"learning_rate was 0\.0005, is 0\.1"):
        run(tmp_path, learning_rate=0.1, resume=True)


def test_a_loss_that_is_not_finite_names_the_images_and_keeps_the_weights(tmp_path):
    model = small_model()
    with torch.no_grad():
        model.box_head.output.bias.fill_(float("nan"))
    before = {name: t.clone() for name, t in model.backbone.named_parameters()}
    with pytest.raises(TrainingError, match=r"loss nan.*sq\d+, sq\d+, sq\d+, sq\d+"):
        run(tmp_path, model=model)
    assert all(torch.equal(before[n], t) for n, t in model.backbone.named_parameters())


def test_weights_alone_or_of_other_anchors_are_not_resumed(tmp_path):
    save_checkpoint(tmp_path / LAST, small_model())
    with pytest.raises(CheckpointError, match="weights alone"):
        run(tmp_path, resume=True)
    run(tmp_path / "run", epochs=1)
    other = small_model()
    other.anchor_generator = AnchorGenerator(sizes=[32, 64, 128, 256, 512])
    with pytest.raises(CheckpointError, match="sizes"):
        run(tmp_path / "run", model=other, epochs=1, resume=True)


def test_images_without_objects_train(tmp_path):
    class Empty(Squares):
        def __getitem__(self, index):
            image, _ = super().__getitem__(index)
            return image, {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}

    _, history = run(tmp_path, data=Empty())
    assert history[-1]["loss"] > 0
    assert history[-1]["box_loss"] == 0


def test_classes_that_are_not_the_models_are_refused(tmp_path):
    class Others(Squares):
        classes = ("cat", "dog", "cow")

    with pytest.raises(DataError, match=r"cat, dog, cow.*bright, dark"):
        run(tmp_path, data=Others())
    with pytest.raises(DataError, match="empty"):
        run(tmp_path, data=Squares(0))


@pytest.mark.parametrize(
    ("device", "capability", "size", "expected"),
    [
        ("cpu", "AVX512", 800, torch.channels_last),
        ("cpu", "AVX2", 256, torch.channels_last),
        ("cpu", "AVX2", 257, torch.contiguous_format),
        ("cpu", "NO AVX", 800, torch.channels_last),
        ("cuda", "AVX2", 800, torch.channels_last),
    ],
)
def test_memory_format_by_device_and_size(device, capability, size, expected, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert fastest_memory_format(small_model(width=0.25), torch.device(device), size) == expected


@pytest.mark.parametrize(
    ("layer", "is_safe"),
    [((8, 32, 1, 2), False), ((16, 32, 1, 2), True), ((8, 32, 1, 1), True), ((8, 32, 3, 2), True)],
)
def test_no_gradient_is_taken_that_would_write_beyond_its_memory(layer, is_safe, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    model = torch.nn.Conv2d(*layer)
    found = fastest_memory_format(model, torch.device("cpu"), 96)
    assert (found == torch.channels_last) == is_safe
    assert fastest_memory_format(model, torch.device("cuda"), 96) == torch.channels_last


def test_the_validation_costs_what_the_training_costs(tmp_path):
    def hundredfold(*given, factor, **settings):
        return Losses(*(factor * part for part in criterion(*given, **settings)))

    settings = {"val_data": Squares(2), "epochs": 1, "learning_rate": 1e-9}
    _, plain = run(tmp_path / "a", **settings)
    own = {"loss": hundredfold, "criterion_settings": {"factor": 100}}
    _, scaled = run(tmp_path / "b", **settings, **own)
    assert scaled[0]["val_loss"] == pytest.approx(100 * plain[0]["val_loss"], rel=1e-3)


def test_a_learning_rate_of_numpys_is_one_like_another(tmp_path):
    run(tmp_path, epochs=1, learning_rate=np.logspace(-4, -3, 3)[1])
    assert (tmp_path / LAST).is_file()


@pytest.mark.parametrize("name", ["epochs", "batch_size", "evaluate_every"])
def test_nothing_is_done_no_times(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}.* at least 1"):
        run(tmp_path, **{name: 0})


def test_an_empty_validation_set_is_noticed_before_the_training(tmp_path):
    with pytest.raises(DataError, match="validation set is empty"):
        run(tmp_path, val_data=Squares(0))
    assert not (tmp_path / LAST).exists()


def test_a_run_does_not_go_on_at_another_image_size_or_with_another_backbone(tmp_path):
    run(tmp_path, epochs=2)
    for change in ("image_size", "backbone"):
        model = small_model()
        if change == "image_size":
            model.image_size = 64
        else:
            model.backbone.freeze(stages=1)
        with pytest.raises(CheckpointError, match=f"{change} was"):
            run(tmp_path, model=model, epochs=2, resume=True)


@pytest.mark.parametrize("image_size", [96, 512])  # channels_last, and the other on AVX2
def test_a_model_trains_in_that_format_on_all_its_way(tmp_path, image_size, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    model = small_model(width=0.25)
    model.image_size = image_size
    seen = []
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda _, inputs, out: seen.append(out))
    run(tmp_path, model=model, data=Squares(2), epochs=1, transform=EvalTransform(96))
    # Of a single cell or channel one cannot tell.
    maps = [out for out in seen if min(out.shape[1:]) > 1]
    assert len(maps) > 20
    assert {out.is_contiguous() for out in maps} == {image_size == 512}


def test_weight_decay_spares_biases_and_norms():
    model = small_model()
    decayed, spared = make_optimizer(model, "adamw", 1e-3, 0.05).param_groups
    assert decayed["weight_decay"] == 0.05
    assert spared["weight_decay"] == 0
    names = {id(p): n for n, p in model.named_parameters()}
    assert all(names[id(p)].endswith("weight") and p.ndim == 4 for p in decayed["params"])
    assert "classification_head.output.bias" in {names[id(p)] for p in spared["params"]}
    assert "backbone.bn1.weight" in {names[id(p)] for p in spared["params"]}


def test_pretrained_stages_have_a_rate_of_their_own():
    model = small_model()
    norms = [n for n, m in model.backbone.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    model.backbone.freeze(tuple(n for n in norms if not n.startswith("layer4")), stages=2)
    descent = make_optimizer(model, "sgd", 0.5, 0.0, backbone_rate=0.25)
    set_rate(descent, 0.5)
    rates = {id(p): group["lr"] for group in descent.param_groups for p in group["params"]}
    rate = {n: rates.get(id(p)) for n, p in model.named_parameters()}
    assert rate["backbone.conv1.weight"] is None  # frozen
    assert rate["backbone.layer3.1.conv2.weight"] == 0.0625
    assert rate["backbone.layer4.0.conv1.weight"] == 0.25  # was not pretrained
    assert rate["box_head.output.bias"] == 0.25
    assert len(rates) == sum(p.requires_grad for p in model.parameters())


def test_frozen_parts_do_not_move(tmp_path):
    model = small_model()
    model.backbone.freeze(norms=("bn1", "layer1.0.bn1"), stages=2)
    before = {n: t.clone() for n, t in model.backbone.state_dict().items()}
    run(tmp_path, model=model, epochs=1)
    after = model.backbone.state_dict()
    frozen = [n for n in before if n.startswith(("conv1", "bn1", "layer1.0.bn1"))]
    assert all(torch.equal(before[n], after[n]) for n in frozen)
    moved = ("layer2.0.conv1.weight", "layer2.0.bn1.running_mean")
    assert not any(torch.equal(before[n], after[n]) for n in moved)


def test_schedule_by_hand():
    values = [schedule(step, total_steps=14, warmup_steps=4) for step in range(14)]
    assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert values[9] == pytest.approx(0.5)  # halfway down the cosine
    assert values[4:] == sorted(values[4:], reverse=True)
    assert 0 < values[-1] < 0.03


DISTRIBUTED = """
import sys
sys.path.insert(0, {tests!r})
from test_training import Squares, small_model
from retinanet_edu import train
import torch, torch.distributed as dist
torch.set_num_threads(1)
model = small_model()
history = train(model, Squares(), Squares(5), output={output!r}, epochs=2, batch_size=2,
                progress=False, device="cpu", resume={resume})
weights = torch.cat([p.detach().flatten() for p in model.parameters()])
gathered = [torch.empty_like(weights) for _ in range(2)]
dist.all_gather(gathered, weights)
assert torch.equal(*gathered)
assert len(history) == 2 and history[1]["mAP"] >= 0
"""


def torchrun(script):
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         str(script)],
        env=dict(os.environ, OMP_NUM_THREADS="1"), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_two_processes_train_together_under_torchrun(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        DISTRIBUTED.format(
            tests=str(Path(__file__).parent), output=str(tmp_path / "run"), resume=False
        )
    )
    torchrun(script)
    assert (tmp_path / "run" / BEST).is_file()


ONE_STEP = """
import sys
sys.path.insert(0, {tests!r})
from test_training import one_step
import torch, torch.distributed as dist
weights = one_step({output!r}, batch_size=2)
if dist.get_rank() == 0:
    torch.save(weights, {output!r} + "/weights.pt")
"""


def one_step(output, batch_size):
    """The weights after an epoch of one step; norms are fixed, since they see their own share."""
    torch.set_num_threads(1)
    model = small_model()
    norms = [n for n, m in model.backbone.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    model.backbone.freeze(tuple(norms))
    settings = {"optimizer": "sgd", "learning_rate": 0.1, "warmup_steps": 0, "clip_norm": 1e9}
    run(output, model=model, data=Squares(4), epochs=1, batch_size=batch_size, **settings)
    return model.state_dict()


def test_two_processes_make_the_step_of_one_on_the_same_images(tmp_path):
    script = tmp_path / "run.py"
    tests, output = str(Path(__file__).parent), str(tmp_path / "two")
    script.write_text(ONE_STEP.format(tests=tests, output=output))
    torchrun(script)
    two = torch.load(tmp_path / "two" / "weights.pt", weights_only=True)
    one, before = one_step(tmp_path / "one", batch_size=4), small_model().state_dict()
    moved = {n for n in one if one[n].is_floating_point() and not torch.equal(one[n], before[n])}
    assert len(moved) > 40
    for name in moved:  # the step is the rate times the gradient
        step = one[name] - before[name]
        error = (two[name] - one[name]).norm() / step.norm()
        assert error < 1e-3, name
