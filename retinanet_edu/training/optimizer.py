"""What moves the weights, and how far at each step of a run."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import nn

from retinanet_edu.backbone import STAGES, ResNet
from retinanet_edu.model import RetinaNet


def schedule(step: int, total_steps: int, warmup_steps: int) -> float:
    """Factor on the learning rate: a linear rise to 1, then a cosine to 0.

    Args:
        step: from 0.
        total_steps: of the run.
        warmup_steps: of the rise.

    Returns:
        in (0, 1], greatest at `warmup_steps`.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return (1 + math.cos(math.pi * done)) / 2


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give each group this share of its peak.

    Args:
        optimizer: of `make_optimizer`.
        factor: of `schedule`.
    """
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def make_optimizer(
    model: RetinaNet,
    name: str,
    learning_rate: float,
    weight_decay: float,
    backbone_rate: float = 1.0,
) -> torch.optim.Optimizer:
    """What moves the weights, each group at its own rate.

    Weight decay shrinks the kernels; a norm's scale and a bias (the prior!) are left alone. What
    was pretrained has little to learn and much to forget, so it moves less.

    Args:
        model: its parameters that are not frozen.
        name: "adamw", or "sgd" with momentum 0.9.
        learning_rate: the peak.
        weight_decay: of kernels.
        backbone_rate: factor on the rate of the pretrained stages of the backbone: those whose
            batch norms are frozen.

    Returns:
        the optimizer; each group also has its `peak`, the highest rate that `set_rate` gives it.

    Raises:
        ValueError: no such optimizer.
    """
    pretrained = _pretrained(model)
    slow = {n for n, _ in model.named_parameters() if n.startswith(pretrained)}
    return optimizer_of(model, slow, name, learning_rate, weight_decay, backbone_rate)


def optimizer_of(
    module: nn.Module,
    slow: Collection[str],
    name: str,
    learning_rate: float,
    weight_decay: float,
    slow_rate: float,
) -> torch.optim.Optimizer:
    """The same for any module.

    Args:
        module: its parameters that are not frozen.
        slow: names of those that move less.
        name, learning_rate, weight_decay: as in `make_optimizer`.
        slow_rate: factor on the rate of those.

    Returns:
        as `make_optimizer`.

    Raises:
        ValueError: no such optimizer.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter_name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((parameter_name in slow, parameter.ndim > 1), []).append(parameter)
    options = [
        {
            "params": parameters,
            "peak": learning_rate * (slow_rate if is_slow else 1.0),
            "weight_decay": weight_decay if is_kernel else 0.0,
        }
        for (is_slow, is_kernel), parameters in groups.items()
    ]
    if name == "adamw":
        return torch.optim.AdamW(options, lr=learning_rate, fused=True)
    if name == "sgd":
        return torch.optim.SGD(options, lr=learning_rate, momentum=0.9, fused=True)
    raise ValueError(f"optimizer is 'adamw' or 'sgd', not {name!r}")


def _pretrained(model: RetinaNet) -> tuple[str, ...]:
    """How the names of pretrained parameters begin."""
    backbone = model.backbone
    norms = backbone.frozen_norms if isinstance(backbone, ResNet) else ()
    frozen = {norm.split(".")[0] for norm in norms}
    stages = [names for names in STAGES if not frozen.isdisjoint(names)]
    return tuple(f"backbone.{name}." for names in stages for name in names)
