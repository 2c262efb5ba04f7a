"""Training: one loop for a laptop and for several machines."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from retinanet_edu.data.loading import Batch, EpochBatches, make_loader, shape_groups
from retinanet_edu.data.transforms import TrainTransform
from retinanet_edu.errors import DataError, TrainingError
from retinanet_edu.evaluation import check_classes, evaluate
from retinanet_edu.losses import Losses, criterion
from retinanet_edu.model import RetinaNet
from retinanet_edu.training.folder import (
    BEST,
    LAST,
    METRICS,
    finish_epoch,
    start_or_resume,
    tensorboard,
    tidy,
)
from retinanet_edu.training.memory import fastest_memory_format
from retinanet_edu.training.optimizer import make_optimizer, schedule, set_rate

__all__ = ["BEST", "LAST", "METRICS", "fastest_memory_format", "schedule", "train"]


def train(
    model: RetinaNet,
    train_data: Any,
    val_data: Any = None,
    *,
    output: str | Path,
    epochs: int = 20,
    batch_size: int = 8,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    learning_rate: float = 5e-4,
    weight_decay: float = 0.05,
    backbone_rate: float = 0.1,
    warmup_steps: int = 200,
    clip_norm: float = 10.0,
    transform: Callable | None = None,
    loss: Callable[..., Losses] = criterion,
    criterion_settings: Mapping[str, Any] | None = None,
    evaluate_every: int = 1,
    seed: int = 0,
    device: str | torch.device | None = None,
    amp: bool | None = None,
    workers: int = 0,
    resume: bool = False,
    progress: bool = True,
) -> list[dict]:
    """Train a model, and leave in `output` what a run needs to be judged and continued.

    `last.pt` and `best.pt` are checkpoints, after the latest epoch and of the best mAP on
    `val_data`; `metrics.jsonl` has one line an epoch. Where TensorBoard is installed, the same
    goes to `tensorboard/`. Under torchrun, each process calls this and they train together.

    Args:
        model: trained in place; it ends with the weights of the last epoch.
        train_data: dataset with the model's classes.
        val_data: dataset to evaluate on; None for none.
        output: folder of the run.
        epochs: passes over `train_data`.
        batch_size: images a step, of each process.
        optimizer: "adamw", or "sgd" with momentum 0.9.
        learning_rate: its peak, after warm-up; a cosine leads it to 0 at the end.
        weight_decay: on convolutions only, not on biases and norms.
        backbone_rate: factor on the rate of the pretrained stages of the backbone.
        warmup_steps: steps over which the rate rises linearly; at most a fifth of all.
        clip_norm: longest gradient over all parameters.
        transform: of (image, target); default `TrainTransform(model.image_size)`.
        loss: what a batch costs; called as `criterion` is, which it is by default.
        criterion_settings: keywords of it.
        evaluate_every: epochs between evaluations; the last epoch is always evaluated.
        seed: of the order of images and of all transforms. Each draw depends on (seed, epoch,
            index) alone.
        device: default CUDA where there is one.
        amp: bfloat16 in the network; default on CUDA only.
        workers: processes that load images.
        resume: go on from `last.pt`, exactly; without one, start. It is up to the caller that
            `transform`, `loss` and `amp` are the same again.
        progress: show a bar.

    Returns:
        one dict of metrics an epoch, as in `metrics.jsonl`.

    Raises:
        ValueError: `epochs`, `batch_size` or `evaluate_every` below 1.
        DataError: no images, or classes that are not the model's.
        CheckpointError: `output` has a run and `resume` is false, or it is of other settings.
        TrainingError: the loss or its gradient is not finite; the message names the images.

    Source:
        RetinaNet paper (arXiv 1708.02002), section 4.1; AdamW: arXiv 1711.05101; warm-up:
        arXiv 1706.02677; cosine: arXiv 1608.03983.
    """
    if min(epochs, batch_size, evaluate_every) < 1:
        raise ValueError(
            "epochs, batch_size and evaluate_every are at least 1, "
            f"got {epochs}, {batch_size} and {evaluate_every}"
        )
    # Plain values, since numpy's would make a checkpoint that cannot be read back.
    learning_rate, weight_decay = float(learning_rate), float(weight_decay)
    backbone_rate, clip_norm = float(backbone_rate), float(clip_norm)
    epochs, batch_size, warmup_steps, seed = map(int, (epochs, batch_size, warmup_steps, seed))
    rank, world_size, device = _join_processes(device)
    output = Path(output)
    if len(train_data) == 0:
        raise DataError("the training set is empty")
    if val_data is not None and len(val_data) == 0:
        raise DataError("the validation set is empty; give None for none")
    check_classes(model, train_data)
    model.classes = tuple(getattr(train_data, "classes", model.classes))
    check_classes(model, val_data)

    batches = EpochBatches(
        len(train_data),
        batch_size,
        seed=seed,
        rank=rank,
        world_size=world_size,
        groups=shape_groups(train_data),
    )
    loader = make_loader(
        train_data,
        transform or TrainTransform(model.image_size),
        batches,
        workers=workers,
        pin_memory=device.type == "cuda",
    )
    model.to(device).to(memory_format=fastest_memory_format(model, device, model.image_size))
    descent = make_optimizer(model, optimizer, learning_rate, weight_decay, backbone_rate)
    total_steps = epochs * len(batches)
    warmup_steps = min(warmup_steps, total_steps // 5)

    # What must not change when a run goes on: with any of these another run would have resulted.
    identity = {
        "epochs": epochs,
        "batch_size": batch_size * world_size,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "backbone_rate": backbone_rate,
        "warmup_steps": warmup_steps,
        "clip_norm": clip_norm,
        "seed": seed,
        "images": len(train_data),
        "criterion": dict(criterion_settings or {}),
    }
    history = start_or_resume(model, descent, output, identity, resume)
    network = DistributedDataParallel(model) if world_size > 1 else model
    is_amp = device.type == "cuda" if amp is None else amp
    autocast = torch.autocast(device.type, torch.bfloat16) if is_amp else nullcontext()
    is_first = rank == 0
    if resume and is_first:
        tidy(output, history)
    board = tensorboard(output) if is_first else None
    cost = partial(loss, **(criterion_settings or {}))

    bar = tqdm(
        total=total_steps,
        initial=len(history) * len(batches),
        disable=not (progress and is_first),
        unit="step",
        dynamic_ncols=True,
    )
    with bar, closing(board) if board else nullcontext():
        for epoch in range(len(history), epochs):
            batches.set_epoch(epoch)
            model.train()
            sums = torch.zeros(3)
            for step, batch in enumerate(loader, start=epoch * len(batches)):
                set_rate(descent, schedule(step, total_steps, warmup_steps))
                with autocast:
                    losses = _forward(network, model, batch, device, cost)
                _descend(losses, model, descent, clip_norm, batch, epoch)
                sums += torch.stack(losses).detach().cpu()
                bar.set_description(f"epoch {epoch + 1}/{epochs}, loss {losses.total:.3f}")
                bar.update()

            means = (sums / len(batches)).tolist()
            row: dict[str, Any] = {"epoch": epoch + 1, "step": (epoch + 1) * len(batches)}
            row |= dict(zip(("loss", "classification_loss", "box_loss"), means, strict=True))
            for buffer in model.buffers() if world_size > 1 else ():
                dist.broadcast(buffer, 0)  # what is evaluated is then what is saved
            if val_data is not None and ((epoch + 1) % evaluate_every == 0 or epoch + 1 == epochs):
                evaluation = evaluate(
                    model,
                    val_data,
                    batch_size=batch_size,
                    workers=workers,
                    loss=loss,
                    criterion_settings=criterion_settings,
                    distributed=world_size > 1,
                )
                row |= {
                    "val_loss": evaluation.loss,
                    "mAP": evaluation.mAP,
                    "mAP50": evaluation.mAP50,
                }
                bar.set_postfix(mAP50=f"{evaluation.mAP50:.3f}")
            if is_first:
                finish_epoch(model, descent, output, identity, history, row, board)
            history.append(row)
            if world_size > 1:
                dist.barrier()
    return history


def _forward(
    network: nn.Module,
    model: RetinaNet,
    batch: Batch,
    device: torch.device,
    cost: Callable[..., Losses],
) -> Losses:
    images = batch.images.to(device, non_blocking=True)
    targets = batch.targets.to(device, non_blocking=True)
    anchors = model.anchors((images.shape[-2], images.shape[-1]))
    return cost(network(images), anchors, targets)


def _descend(
    losses: Losses,
    model: RetinaNet,
    descent: torch.optim.Optimizer,
    clip_norm: float,
    batch: Batch,
    epoch: int,
) -> None:
    """One step of the optimizer; none if anything is not finite."""
    descent.zero_grad(set_to_none=True)
    losses.total.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    if not torch.isfinite(losses.total + norm):
        images = ", ".join(target["image_id"] for target in batch.originals)
        raise TrainingError(
            f"epoch {epoch + 1}: loss {losses.total.item():g} (classification "
            f"{losses.classification.item():g}, box {losses.box.item():g}), gradient "
            f"{norm.item():g}; the batch's images are {images}. Look at their "
            "boxes, and try a lower learning rate; the weights before this step are kept"
        )
    descent.step()


def _join_processes(device: str | torch.device | None) -> tuple[int, int, torch.device]:
    """Rank, number of processes and device, as torchrun says; alone without it."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device is None:
        device = f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    if world_size == 1:
        return 0, 1, device
    if device.type == "cuda":
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return dist.get_rank(), world_size, device
