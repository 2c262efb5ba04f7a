"""One loop that trains torchvision's RetinaNet or ours, and one evaluator for both."""

from __future__ import annotations

import contextlib
import io
import json
import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pairs import _leave, anchors_as_torchvisions
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from retinanet_edu import interop
from retinanet_edu.anchors import AnchorGenerator
from retinanet_edu.data.loading import Batch, EpochBatches, make_loader, shape_groups
from retinanet_edu.data.transforms import EvalTransform, TrainTransform
from retinanet_edu.data.voc import VOCDataset
from retinanet_edu.detection import rescale
from retinanet_edu.evaluation import Evaluation, evaluate, evaluate_detections
from retinanet_edu.losses import criterion
from retinanet_edu.model import RetinaNet, retinanet_resnet
from retinanet_edu.provenance import provenance
from retinanet_edu.structures import Detections
from retinanet_edu.training import schedule
from retinanet_edu.training.optimizer import optimizer_of, set_rate


@dataclass(frozen=True)
class Recipe:
    """All that a run is made of, but its data and its seed.

    Attributes:
        side: whose network, anchors, matching, losses and detections.
        depth, channels, image_size: the ResNet's, the pyramid's and subnets', the longer side.
        frozen_stages: of the pretrained backbone.
        epochs, batch_size: of the run.
        optimizer, learning_rate, weight_decay, warmup_steps, clip_norm: as in `training.train`;
            norms and biases are not decayed.
        backbone_rate: factor on the rate of layers that were pretrained.
        decay: "cosine", or "steps": a tenth after 16 of 26 parts, and again after 22.
        scale, colour: of `TrainTransform`.
        ema: decay of the weights' moving average that is evaluated, 0 for none.
        model: more keywords of our `RetinaNet`.
        loss: keywords of our `criterion`.
    """

    side: Literal["ours", "torchvision"] = "ours"
    depth: int = 18
    channels: int = 256
    image_size: int = 384
    frozen_stages: int = 2
    epochs: int = 24
    batch_size: int = 8
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 5e-4
    weight_decay: float = 0.05
    warmup_steps: int = 100
    clip_norm: float = 10.0
    backbone_rate: float = 0.1
    decay: Literal["cosine", "steps"] = "cosine"
    scale: tuple[float, float] = (1.0, 1.0)
    colour: bool = False
    ema: float = 0.0
    model: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)


class Memory:
    """A dataset of pictures that are decoded once."""

    def __init__(self, data: VOCDataset) -> None:
        self.classes, self.sizes = data.classes, data.sizes
        self._samples = [data[index] for index in range(len(data))]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[Tensor, dict]:
        return self._samples[index]


def build(recipe: Recipe, classes: tuple[str, ...], weights: Path | None) -> nn.Module:
    """Our model, or torchvision's with weights drawn from the same laws; both freeze the same."""
    settings: dict[str, Any] = {"anchors": AnchorGenerator()} | recipe.model
    if recipe.side == "torchvision":
        settings |= {"anchors": anchors_as_torchvisions(), "p6_from": "P5"}
    with contextlib.redirect_stdout(io.StringIO()):  # it says which layers stay random
        ours = retinanet_resnet(
            recipe.depth,
            len(classes),
            backbone_weights=weights,
            partial_backbone=True,
            frozen_stages=recipe.frozen_stages,
            channels=recipe.channels,
            classes=classes,
            image_size=recipe.image_size,
            **settings,
        )
    if recipe.side == "ours":
        return ours
    theirs = interop.to_torchvision(ours)
    # Both get pictures that are scaled and normalised already.
    theirs.transform.resize, theirs.transform.normalize = _leave, lambda image: image
    theirs.transform.size_divisible = 32
    return theirs


def loss_of(model: nn.Module, batch: Batch, device: torch.device, recipe: Recipe) -> Tensor:
    """The sum of classification and box loss, each side's own."""
    if isinstance(model, RetinaNet):
        images = batch.images.to(device, memory_format=torch.channels_last)
        anchors = model.anchors((images.shape[-2], images.shape[-1]))
        return criterion(model(images), anchors, batch.targets.to(device), **recipe.loss).total
    targets = []
    for i, count in enumerate(batch.targets.count.tolist()):
        # What is difficult is left out, as torchvision's own training leaves out crowds.
        kept = ~batch.targets.difficult[i, :count]
        boxes, labels = batch.targets.boxes[i, :count], batch.targets.labels[i, :count]
        targets.append({"boxes": boxes[kept].to(device), "labels": labels[kept].to(device)})
    return sum(model(_unpadded(batch, device), targets).values())


def _unpadded(batch: Batch, device: torch.device) -> list[Tensor]:
    pairs = zip(batch.images, batch.image_sizes, strict=True)
    return [image[:, :height, :width].to(device) for image, (height, width) in pairs]


@torch.inference_mode()
def judge(model: nn.Module, data: Any, recipe: Recipe, device: torch.device) -> Evaluation:
    """Either model through one evaluator, each with its own way to detections."""
    if isinstance(model, RetinaNet):
        return evaluate(model, data, criterion_settings=recipe.loss)
    model.eval()
    batches = EpochBatches(len(data), 8, shuffle=False, groups=shape_groups(data))
    found: dict[int, tuple[Detections, dict]] = {}
    for keys, batch in zip(
        batches, make_loader(data, EvalTransform(recipe.image_size), batches), strict=True
    ):
        results = model(_unpadded(batch, device))
        rows = zip(keys, results, batch.image_sizes, batch.originals, strict=True)
        for (_, index), result, size, original in rows:
            one = Detections(*(result[n].cpu() for n in ("boxes", "scores", "labels")))
            found[index] = rescale(one, size, original["size"]), original
    detections, truths = zip(*(found[i] for i in range(len(data))), strict=True)
    return evaluate_detections(detections, truths, data.classes)


def rate(step: int, total: int, recipe: Recipe) -> float:
    """Factor on the learning rate."""
    warmup = min(recipe.warmup_steps, total // 5)
    if recipe.decay == "cosine" or step < warmup:
        return schedule(step, total, warmup)
    # torchvision's reference: 26 epochs, a tenth of the rate after 16, again after 22.
    return 0.1 ** ((step >= total * 16 / 26) + (step >= total * 22 / 26))


def learn(
    recipe: Recipe,
    seed: int,
    train_data: Any,
    val_data: Any,
    folder: Path,
    *,
    weights: Path | None,
    device: torch.device,
    bfloat16: bool,
    workers: int = 0,
    is_time_up: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """One run, resumed where it stopped.

    Args:
        recipe, seed: which run.
        train_data, val_data: datasets.
        folder: for its state and, at the end, its result.
        weights: of the backbone.
        device: to train on.
        bfloat16: in the network, by autocast.
        workers: processes that load.
        is_time_up: asked after each epoch; a run that is not done then goes on another time.

    Returns:
        the result, or None if the run is not done.
    """
    done, saved = folder / "result.json", folder / "state.pt"
    if done.is_file():
        return json.loads(done.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = build(recipe, train_data.classes, weights)
    model.to(device).to(memory_format=torch.channels_last)
    # Ours is `backbone.`, torchvision's `backbone.body.`.
    names = torch.load(weights, weights_only=True).keys() if weights else ()
    descent = optimizer_of(
        model,
        {f"{prefix}{name}" for name in names for prefix in ("backbone.", "backbone.body.")},
        recipe.optimizer,
        recipe.learning_rate,
        recipe.weight_decay,
        recipe.backbone_rate,
    )
    average = None
    if recipe.ema:
        average = AveragedModel(model, avg_fn=_moving(recipe.ema), use_buffers=True)
    batches = EpochBatches(
        len(train_data), recipe.batch_size, seed=seed, groups=shape_groups(train_data)
    )
    transform = TrainTransform(recipe.image_size, scale=recipe.scale, colour=recipe.colour)
    loader = make_loader(train_data, transform, batches, workers=workers)
    state: dict[str, Any] = {"epoch": 0, "losses": [], "curve": [], "seconds": 0.0}
    if saved.is_file():
        content = torch.load(saved, map_location=device, weights_only=True)
        model.load_state_dict(content["model"])
        descent.load_state_dict(content["optimizer"])
        if average is not None:
            average.load_state_dict(content["average"])
        state = content["state"]
    total = recipe.epochs * len(batches)
    trained = [p for p in model.parameters() if p.requires_grad]
    for epoch in range(state["epoch"], recipe.epochs):
        if is_time_up():
            return None
        start, cost = time.perf_counter(), 0.0
        batches.set_epoch(epoch)
        model.train()
        for step, batch in enumerate(loader, start=epoch * len(batches)):
            set_rate(descent, rate(step, total, recipe))
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                loss = loss_of(model, batch, device, recipe)
            descent.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(trained, recipe.clip_norm)
            descent.step()
            if average is not None:
                average.update_parameters(model)
            cost += float(loss.detach()) / len(batches)
        state["epoch"] = epoch + 1
        state["losses"].append(round(cost, 5))
        state["seconds"] += time.perf_counter() - start
        if not math.isfinite(cost):
            raise FloatingPointError(f"{folder.name}: the loss of epoch {epoch + 1} is {cost}")
        if (epoch + 1) % max(1, recipe.epochs // 4) == 0 or epoch + 1 == recipe.epochs:
            judged = model if average is None else average.module
            one = judge(judged, val_data, recipe, device)
            state["curve"].append([epoch + 1, round(one.mAP50, 5), round(one.mAP, 5)])
            print(f"{folder.name}: {state['curve'][-1]}, loss {cost:.3f}", flush=True)
        content = {
            "model": model.state_dict(),
            "optimizer": descent.state_dict(),
            "average": None if average is None else average.state_dict(),
            "state": state,
        }
        torch.save(content, saved.with_suffix(".new"))
        saved.with_suffix(".new").replace(saved)
    result = _result(one, state, seed, device)
    done.write_text(json.dumps(result) + "\n")
    return result


def _moving(decay: float) -> Callable[[Tensor, Tensor, Any], Tensor]:
    """An average that forgets; at the start quicker, or it would remember random weights."""

    def average(old: Tensor, new: Tensor, count: Any) -> Tensor:
        if not old.is_floating_point():
            return new
        keep = min(decay, (1 + int(count)) / (10 + int(count)))
        return torch.lerp(new, old, keep)

    return average


def _result(
    one: Evaluation, state: dict[str, Any], seed: int, device: torch.device
) -> dict[str, Any]:
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seed": seed,
        "commit": provenance()["commit"],
        "mAP50": round(one.mAP50, 5),
        "mAP": round(one.mAP, 5),
        "voc07": round(one.voc07, 5),
        "per_class": {n: round(row["AP50"], 4) for n, row in one.per_class.items()},
        "losses": state["losses"],
        "curve": state["curve"],
        "seconds": round(state["seconds"]),
        "peak_bytes": peak,
    }
