"""Commands of a run: `train` and `evaluate`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retinanet_edu.cli.options import (
    NewCommand,
    chosen_device,
    data_options,
    machine_options,
    open_voc,
)

if TYPE_CHECKING:
    from retinanet_edu.model import RetinaNet


def _train(options: argparse.Namespace) -> None:
    import torch

    from retinanet_edu.anchors import AnchorGenerator
    from retinanet_edu.model import retinanet_resnet
    from retinanet_edu.training import BEST, train

    train_data = open_voc(options, options.train_split, options.classes)
    val_data = open_voc(options, options.val_split, train_data.classes)
    torch.manual_seed(options.seed)
    default = AnchorGenerator()
    model = _coco_model(options, train_data.classes) or retinanet_resnet(
        options.depth,
        len(train_data.classes),
        backbone_weights=options.backbone_weights,
        partial_backbone=options.partial_backbone,
        frozen_stages=options.frozen_stages,
        width=options.width,
        channels=options.channels,
        head_convs=options.head_convs,
        group_norm=options.group_norm,
        anchors=AnchorGenerator(
            sizes=[options.anchor_strides * stride for stride in default.strides]
        ),
        classes=train_data.classes,
        image_size=options.image_size,
    )
    print(
        f"{len(train_data)} images to train on, {len(val_data)} to validate, "
        f"{len(model.classes)} classes, "
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters"
    )
    train(
        model,
        train_data,
        val_data,
        output=options.output,
        epochs=options.epochs,
        batch_size=options.batch_size,
        optimizer=options.optimizer,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        warmup_steps=options.warmup_steps,
        evaluate_every=options.evaluate_every,
        seed=options.seed,
        device=options.device,
        workers=options.workers,
        resume=options.resume,
    )
    best = options.output / BEST
    print(
        f"\nbest checkpoint: {best}\nits numbers:     retinanet-edu evaluate --checkpoint {best} "
        f"--data {options.data} --split {options.val_split}"
    )


def _coco_model(options: argparse.Namespace, classes: Sequence[str]) -> RetinaNet | None:
    """The detector that --weights names, made for other classes."""
    if not options.weights:
        return None
    from retinanet_edu.interop import retinanet_coco

    return retinanet_coco(
        options.weights,
        classes,
        frozen_stages=options.frozen_stages,
        image_size=options.image_size,
    )


def _evaluate(options: argparse.Namespace) -> None:
    from retinanet_edu.checkpoint import load_checkpoint
    from retinanet_edu.evaluation import evaluate
    from retinanet_edu.provenance import provenance

    made = provenance()  # before the work: a checkout may move on meanwhile
    model = load_checkpoint(options.checkpoint, device=chosen_device(options))
    data = open_voc(options, options.split, model.classes)
    evaluation = evaluate(
        model, data, batch_size=options.batch_size, workers=options.workers, progress=True
    )
    print(f"{len(data)} images of {options.data}, split {options.split}\n{evaluation.table()}")
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        result = made | {"images": len(data)} | evaluation.as_dict()
        options.output.write_text(json.dumps(result, indent=1) + "\n")


def add_commands(command: NewCommand) -> None:
    """Register `train` and `evaluate`.

    Args:
        command: makes the parser of a command, see `options.NewCommand`.
    """
    sub = command("train", _train, "Train on a VOCdevkit.")
    data_options(sub)
    sub.add_argument("--train-split", default="train", help="images to learn from")
    sub.add_argument("--val-split", default="val", help="images to evaluate on")
    sub.add_argument("--classes", nargs="+", help="only these classes")
    sub.add_argument("--output", type=Path, default=Path("runs/train"), help="folder of the run")
    sub.add_argument("--resume", action="store_true", help="go on with the run in --output")
    model = sub.add_argument_group("model")
    model.add_argument(
        "--weights",
        help="go on from torchvision's detector of COCO, 'coco' or 'coco-v2' (download), or the "
        "file of either; depth to anchor strides are then its own",
    )
    model.add_argument("--depth", type=int, default=50, choices=(18, 34, 50, 101, 152))
    model.add_argument("--width", type=float, default=1.0, help="factor on the ResNet's channels")
    model.add_argument("--backbone-weights", help="'imagenet' (download) or a file")
    model.add_argument(
        "--partial-backbone", action="store_true", help="accept a file that lacks some tensors"
    )
    model.add_argument("--frozen-stages", type=int, default=2, help="of a pretrained backbone")
    model.add_argument("--channels", type=int, default=256, help="of pyramid and subnets")
    model.add_argument("--head-convs", type=int, default=4, help="convolutions in each subnet")
    model.add_argument("--group-norm", action="store_true", help="in the subnets")
    model.add_argument(
        "--anchor-strides", type=float, default=4.0, help="side of the base anchor, in strides"
    )
    model.add_argument("--image-size", type=int, default=512, help="longer side, in pixels")
    loop = sub.add_argument_group("training")
    loop.add_argument("--epochs", type=int, default=20)
    loop.add_argument("--batch-size", type=int, default=8, help="of each process")
    loop.add_argument("--optimizer", choices=("adamw", "sgd"), default="adamw")
    loop.add_argument("--learning-rate", type=float, default=5e-4, help="its peak")
    loop.add_argument("--weight-decay", type=float, default=0.05)
    loop.add_argument("--warmup-steps", type=int, default=200)
    loop.add_argument("--evaluate-every", type=int, default=1, metavar="EPOCHS")
    loop.add_argument("--seed", type=int, default=0)
    machine_options(loop)

    sub = command("evaluate", _evaluate, "AP of a checkpoint on a VOCdevkit.")
    sub.add_argument("--checkpoint", required=True, help="a file, or 'shapes'")
    data_options(sub)
    sub.add_argument("--split", default="val")
    sub.add_argument("--batch-size", type=int, default=8)
    sub.add_argument("--output", type=Path, help="a JSON file for all numbers")
    machine_options(sub)
