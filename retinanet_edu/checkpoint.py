"""Checkpoints: what is saved, how it is written, and how it is read back.

A checkpoint is one file that torch reads with `weights_only=True`: tensors and plain values, no
code. It holds what rebuilds the model, so that its reader needs no settings of its own.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from retinanet_edu.anchors import AnchorGenerator
from retinanet_edu.backbone import ResNet, read_tensors
from retinanet_edu.errors import CheckpointError
from retinanet_edu.model import RetinaNet

FORMAT = "retinanet_edu checkpoint 1"

# Checkpoints that come with the package, by name.
BUNDLED = {"shapes": "shapes.pt"}


def save_checkpoint(
    path: str | Path,
    model: RetinaNet,
    *,
    half: bool = False,
    training: Mapping | None = None,
) -> None:
    """Write a model, whole or not at all.

    The file appears under its name only when it is complete and on the disk, so that a crash
    leaves the one before.

    Args:
        path: of the file; its folder is made if need be.
        model: its weights, structure, classes and image size are saved.
        half: round the weights to float16, for half the size.
        training: what a resumed run needs besides, tensors and plain values.

    Raises:
        CheckpointError: the file cannot be written, for example because the disk is full, or
            could not be read back because `training` has more than tensors and plain values.

    Law:
        load_checkpoint(path) has the weights of `model`, bit for bit, unless `half`.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    if isinstance(model.backbone, ResNet) and isinstance(model.backbone.bn1, nn.Identity):
        raise CheckpointError(
            f"{path}: a model that was made for inference has no norms left to be saved; save the "
            "one that it was made of"
        )
    weights = model.state_dict()
    if half:
        weights = {n: t.half() if t.is_floating_point() else t for n, t in weights.items()}
    content = {
        "format": FORMAT,
        "weights": weights,
        "settings": model.settings,
        "backbone": model.backbone.settings if isinstance(model.backbone, ResNet) else None,
        "norm_eps": [norm.eps for norm in _norms(model)],
        "anchors": model.anchor_generator.settings,
        "classes": model.classes,
        "image_size": model.image_size,
        "training": dict(training) if training is not None else None,
    }
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            # Better now than when a run of days is to go on.
            refused = torch.serialization.get_unsafe_globals_in_checkpoint(temporary)
            if refused:
                raise CheckpointError(
                    f"{path}: not written, since it could not be read back: it holds "
                    f"{', '.join(refused)} besides tensors and plain values"
                )
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, RuntimeError, AttributeError, TypeError, pickle.PicklingError) as error:
        raise CheckpointError(f"{path}: could not be written ({error})") from error


def remove_leftovers(folder: str | Path) -> None:
    """Remove the halves of checkpoints that processes left which were killed while writing.

    Args:
        folder: in which nobody else is writing.
    """
    for path in Path(folder).glob(".*.pt.*"):
        path.unlink(missing_ok=True)


def _norms(model: RetinaNet) -> list[nn.BatchNorm2d]:
    return [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]


def read_checkpoint(path: str | Path) -> dict:
    """The content of a checkpoint, verified, on the CPU.

    Args:
        path: of the file, or the name of a bundled one.

    Returns:
        `weights`, and what `build_model` needs; `training` as `save_checkpoint` was given it.

    Raises:
        CheckpointError: the file is missing, cut short, damaged, or not a checkpoint of this
            package. Files that would run code when unpickled are refused by torch.
    """
    path = find_checkpoint(path)
    content = read_tensors(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of retinanet_edu")
    return content


def find_checkpoint(name: str | Path) -> Path:
    """Where a checkpoint lies.

    Args:
        name: a path, or the name of a checkpoint that comes with the package.

    Returns:
        the path of a file.

    Raises:
        CheckpointError: there is no such file.
    """
    path = Path(name)
    if path.is_file():
        return path
    if str(name) in BUNDLED:
        package = Path(str(resources.files("retinanet_edu")))
        # In a wheel the file lies in the package, in a clone it lies in data/.
        for place in (package, package.parent / "data"):
            if (place / BUNDLED[str(name)]).is_file():
                return place / BUNDLED[str(name)]
    bundled = ", ".join(repr(n) for n in BUNDLED)
    raise CheckpointError(f"{name}: no such file, and not a bundled checkpoint ({bundled})")


def load_checkpoint(
    path: str | Path,
    *,
    model: RetinaNet | None = None,
    device: torch.device | str = "cpu",
) -> RetinaNet:
    """The model of a checkpoint, ready to predict.

    Args:
        path: of the file, or "shapes" for the detector that comes with the package.
        model: a model to load into; needed only for a backbone of one's own.
        device: where the model is wanted.

    Returns:
        the model in evaluation mode, float32, with `classes` and `image_size` as it was trained.

    Raises:
        CheckpointError: the file cannot be read, or does not fit `model`.
    """
    content = read_checkpoint(path)
    if model is None:
        model = build_model(content, path)
    else:
        check_conventions(model, content, path)
    load_weights(model, content["weights"], path)
    # Not among a norm's weights, and not the same everywhere: torchvision's COCO model has 0.
    for norm, eps in zip(_norms(model), content.get("norm_eps", ())):
        norm.eps = eps
    model.classes = tuple(content["classes"])
    model.image_size = content["image_size"]
    return model.to(device).eval()


def build_model(content: dict, path: str | Path) -> RetinaNet:
    """The model that a checkpoint describes, with random weights.

    Args:
        content: of the checkpoint, from `read_checkpoint`.
        path: of its file, for messages.

    Returns:
        the model, in training mode, frozen where the checkpoint's was.

    Raises:
        CheckpointError: the backbone is not one of the package's, or the description is damaged.
    """
    if content["backbone"] is None:
        raise CheckpointError(
            f"{path}: its backbone is not one of the package's; build the model and give it: "
            "load_checkpoint(path, model=...)"
        )
    try:
        frozen = dict(content["backbone"])
        norms, stages = frozen.pop("frozen_norms"), frozen.pop("frozen_stages")
        backbone = ResNet(**frozen)
        backbone.freeze(norms, stages)
        return RetinaNet(
            backbone,
            **content["settings"],
            anchors=AnchorGenerator(**content["anchors"]),
            classes=content["classes"],
            image_size=content["image_size"],
        )
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: describes no model that can be built ({error})") from error


def check_conventions(model: RetinaNet, content: dict, path: str | Path) -> None:
    """Refuse a model in which the weights would fit and mean something else.

    Args:
        model: that the weights are meant for.
        content: of the checkpoint, from `read_checkpoint`.
        path: of its file, for messages.

    Raises:
        CheckpointError: other anchors, another neck, or P6 from another map.
    """
    # Files without a neck are older than the choice.
    settings, names = {"neck": "fpn"} | content["settings"], ("neck", "p6_from")
    saved = content["anchors"] | {name: settings[name] for name in names}
    own = model.anchor_generator.settings | {name: model.settings[name] for name in names}
    for name, value in own.items():
        if saved[name] != value:
            raise CheckpointError(
                f"{path}: of a model with {name} {saved[name]}, but this one has {value}; build it "
                "with the same anchors, neck and p6_from"
            )


def load_weights(model: RetinaNet, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Put a checkpoint's weights into a model, or say in the model's terms what does not fit.

    Args:
        model: to be filled.
        weights: of the checkpoint, float16 or float32, by name.
        path: of its file, for messages.

    Raises:
        CheckpointError: they do not fit; the model is left as it was.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    own = model.state_dict()
    last = "classification_head.output.bias"
    per_cell = model.anchor_generator.anchors_per_cell
    if last in weights and weights[last].shape != own[last].shape:
        raise CheckpointError(
            f"{path}: of {len(weights[last]) / per_cell:g} classes at {per_cell} anchors a cell, "
            f"but the model has {model.num_classes}"
        )
    wrong = [n for n in own if n not in weights or weights[n].shape != own[n].shape]
    wrong += [n for n in weights if n not in own]
    if wrong:
        raise CheckpointError(
            f"{path}: of another model, {len(wrong)} tensors do not fit, such as {wrong[0]}"
        )
    model.load_state_dict(weights)
