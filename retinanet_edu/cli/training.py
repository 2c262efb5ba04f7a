"""Commands of a run: `train` and `evaluate`."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retinanet_edu.cli.options import (
    SPLIT,
    NewCommand,
    chosen_device,
    data_options,
    machine_options,
    number,
    open_data,
    write_output,
)
from retinanet_edu.errors import DataError

if TYPE_CHECKING:
    from retinanet_edu.data.pictures import PictureDataset
    from retinanet_edu.model import RetinaNet

SHOWN = 12  # pictures in a run's gallery


def _train(options: argparse.Namespace) -> None:
    import torch

    from retinanet_edu.anchors import AnchorGenerator
    from retinanet_edu.checkpoint import load_checkpoint
    from retinanet_edu.model import retinanet_resnet
    from retinanet_edu.training import BEST, train

    if options.output.is_file():
        raise DataError(f"--output {options.output}: a file; the run wants a folder")
    if options.group_norm and options.channels % 8:
        raise DataError(f"--channels is a multiple of 8 with group norm, not {options.channels}")
    train_data, val_data = _open_both(options)
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
    history = train(
        model,
        train_data,
        val_data,
        output=options.output,
        epochs=options.epochs,
        batch_size=options.batch_size,
        optimizer=options.optimizer,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        backbone_rate=options.backbone_rate,
        warmup_steps=options.warmup_steps,
        evaluate_every=options.evaluate_every,
        seed=options.seed,
        device=options.device and chosen_device(options),
        workers=options.workers,
        resume=options.resume,
    )
    best = options.output / BEST
    if _is_first():
        _show(load_checkpoint(best, device=chosen_device(options)), val_data, history, options)
    words = ["--checkpoint", str(best), "--data", str(options.data), "--split", options.val_split]
    words += ["--year", *options.year] if options.year else []
    words += ["--format", options.format] if options.format else []
    print(f"\nbest checkpoint: {best}\nits numbers:     retinanet-edu evaluate {shlex.join(words)}")


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts


def _open_both(options: argparse.Namespace) -> list[PictureDataset]:
    """The images to learn from and those to be judged by; which they are is kept in the run."""
    from retinanet_edu.data.folder import FolderDataset
    from retinanet_edu.data.splitting import save_split
    from retinanet_edu.training import LAST

    splits = [options.train_split, options.val_split]
    opened = open_data(options, splits, options.classes, options.output if options.resume else None)
    data = opened[1]
    if isinstance(data, FolderDataset) and _is_first():
        print("classes: " + ", ".join(data.classes))
        if left_out := len(data.records.unlabelled):
            print(f"{left_out} pictures have no annotation and are left out")
        # A run that is there already is not touched: `train` goes on with it or refuses.
        if not (options.output / LAST).is_file():
            options.output.mkdir(parents=True, exist_ok=True)
            save_split(options.output / SPLIT, data.records)
    return opened


def _show(
    model: RetinaNet, data: PictureDataset, history: list[dict], options: argparse.Namespace
) -> None:
    """Print what the best model of a run reaches, and write pictures of it into the run."""
    from retinanet_edu.detection import predict
    from retinanet_edu.evaluation import evaluate
    from retinanet_edu.plotting import plot_gallery, plot_history, plot_precision_recall

    evaluation = evaluate(model, data, batch_size=options.batch_size, workers=options.workers)
    print(f"\nthe best checkpoint on the {len(data)} images:\n{evaluation.table()}\n")
    # From all of the split, and such as have something on them where there are any.
    some = [i for i in range(len(data)) if len(data.target(i)["labels"])] or list(range(len(data)))
    shown = [some[k * len(some) // SHOWN] for k in range(SHOWN)] if len(some) > SHOWN else some
    images = [data[i][0] for i in shown]
    targets = [data.target(i) for i in shown]
    found = [predict(model, image) for image in images]
    score, best = options.score, max(float(s) for f in found for s in [*f.scores, 0])
    if best < score:  # a young model; a gallery without detections shows nothing of it
        score = round(max(best, 0.1) / 2, 2)
        print(f"no detection in the gallery has a score of {options.score:g}; shown from {score:g}")
    figures = {
        "gallery.png": plot_gallery(images, targets, found, model.classes, score_threshold=score),
        "curves.png": plot_history(history),
        "precision_recall.png": plot_precision_recall(evaluation),
    }
    for name, figure in figures.items():
        figure.savefig(options.output / name, dpi=110)
    print("look at", *(f"  {options.output / name}" for name in figures), sep="\n")


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
    from retinanet_edu.checkpoint import find_checkpoint, load_checkpoint
    from retinanet_edu.evaluation import evaluate
    from retinanet_edu.provenance import provenance

    made = provenance()  # before the work: a checkout may move on meanwhile
    model = load_checkpoint(options.checkpoint, device=chosen_device(options))
    run = find_checkpoint(options.checkpoint).parent
    (data,) = open_data(options, [options.split], model.classes, run)
    evaluation = evaluate(
        model, data, batch_size=options.batch_size, workers=options.workers, progress=True
    )
    print(f"{len(data)} images of {options.data}, split {options.split}\n{evaluation.table()}")
    if options.output:
        result = made | {"images": len(data)} | evaluation.as_dict()
        write_output(options.output, json.dumps(result, indent=1) + "\n")


def add_commands(command: NewCommand) -> None:
    """Register `train` and `evaluate`.

    Args:
        command: makes the parser of a command, see `options.NewCommand`.
    """
    sub = command("train", _train, "Train on a folder of pictures and labels.")
    data_options(sub)
    sub.add_argument("--train-split", default="train", help="images to learn from")
    sub.add_argument("--val-split", default="val", help="images to evaluate on")
    sub.add_argument("--classes", nargs="+", help="only these classes")
    sub.add_argument("--output", type=Path, default=Path("runs/train"), help="folder of the run")
    sub.add_argument("--resume", action="store_true", help="go on with the run in --output")
    sub.add_argument("--score", type=float, default=0.3, help="least score in the gallery")
    model = sub.add_argument_group("model")
    model.add_argument(
        "--weights",
        help="go on from torchvision's detector of COCO, 'coco' or 'coco-v2' (download), or the "
        "file of either; depth to anchor strides are then its own",
    )
    model.add_argument("--depth", type=int, default=50, choices=(18, 34, 50, 101, 152))
    model.add_argument(
        "--width",
        type=number(float, 0, open_ends=True),
        default=1.0,
        help="factor on the ResNet's channels",
    )
    model.add_argument("--backbone-weights", help="'imagenet' (download) or a file")
    model.add_argument(
        "--partial-backbone", action="store_true", help="accept a file that lacks some tensors"
    )
    model.add_argument(
        "--frozen-stages", type=int, default=2, choices=range(6), help="of a pretrained backbone"
    )
    model.add_argument(
        "--channels", type=number(int, 1), default=256, help="of pyramid and subnets"
    )
    model.add_argument(
        "--head-convs", type=number(int, 0), default=4, help="convolutions in each subnet"
    )
    model.add_argument(
        "--group-norm", action=argparse.BooleanOptionalAction, default=True, help="in the subnets"
    )
    model.add_argument(
        "--anchor-strides",
        type=number(float, 0, open_ends=True),
        default=4.0,
        help="side of the base anchor, in strides",
    )
    model.add_argument(
        "--image-size", type=number(int, 1), default=512, help="longer side, in pixels"
    )
    loop = sub.add_argument_group("training")
    loop.add_argument("--epochs", type=number(int, 1), default=20)
    loop.add_argument("--batch-size", type=number(int, 1), default=8, help="of each process")
    loop.add_argument("--optimizer", choices=("adamw", "sgd"), default="adamw")
    loop.add_argument(
        "--learning-rate", type=number(float, 0, open_ends=True), default=5e-4, help="its peak"
    )
    loop.add_argument("--weight-decay", type=number(float, 0), default=0.05)
    loop.add_argument(
        "--backbone-rate",
        type=number(float, 0),
        default=0.1,
        help="factor on it for pretrained layers",
    )
    loop.add_argument("--warmup-steps", type=number(int, 0), default=200)
    loop.add_argument("--evaluate-every", type=number(int, 1), default=1, metavar="EPOCHS")
    loop.add_argument("--seed", type=number(int, 0), default=0)
    machine_options(loop)

    sub = command("evaluate", _evaluate, "AP of a checkpoint on a folder of pictures and labels.")
    sub.add_argument("--checkpoint", required=True, help="a file, or 'shapes'")
    data_options(sub)
    sub.add_argument("--split", default="val", help="'all' for every picture of a folder")
    sub.add_argument("--batch-size", type=number(int, 1), default=8)
    sub.add_argument("--output", type=Path, help="a JSON file for all numbers")
    machine_options(sub)
