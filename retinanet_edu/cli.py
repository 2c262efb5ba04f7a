"""The `retinanet-edu` command: train, evaluate, predict, shapes, demo.

Imports that need torch stand inside the functions, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinanet_edu.errors import DataError, RetinaNetError

if TYPE_CHECKING:
    from retinanet_edu.data.voc import VOCDataset


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: words after the program's name; default those that were typed.

    Returns:
        the exit status: 0, 1 for what was given and cannot be used, 130 when interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except RetinaNetError as error:
        # An error in a loading process comes with its traceback in front.
        message = str(error).rpartition(f".{type(error).__name__}: ")[2].strip()
        print(f"retinanet-edu: {message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nretinanet-edu: stopped; `train` goes on with --resume", file=sys.stderr)
        return 130
    return 0


def _train(options: argparse.Namespace) -> None:
    import torch

    from retinanet_edu.anchors import AnchorGenerator
    from retinanet_edu.model import retinanet_resnet
    from retinanet_edu.training import BEST, train

    train_data = _voc(options, options.train_split, options.classes)
    val_data = _voc(options, options.val_split, train_data.classes)
    torch.manual_seed(options.seed)
    default = AnchorGenerator()
    model = retinanet_resnet(
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


def _evaluate(options: argparse.Namespace) -> None:
    from retinanet_edu.checkpoint import load_checkpoint
    from retinanet_edu.evaluation import evaluate
    from retinanet_edu.provenance import provenance

    made = provenance()  # before the work: a checkout may move on meanwhile
    model = load_checkpoint(options.checkpoint, device=_device(options))
    data = _voc(options, options.split, model.classes)
    evaluation = evaluate(
        model, data, batch_size=options.batch_size, workers=options.workers, progress=True
    )
    print(f"{len(data)} images of {options.data}, split {options.split}\n{evaluation.table()}")
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        result = made | {"images": len(data)} | evaluation.as_dict()
        options.output.write_text(json.dumps(result, indent=1) + "\n")


def _predict(options: argparse.Namespace) -> None:
    from retinanet_edu.checkpoint import load_checkpoint
    from retinanet_edu.data.images import read_image
    from retinanet_edu.detection import predict
    from retinanet_edu.plotting import plot_detections

    model = load_checkpoint(options.checkpoint, device=_device(options)).for_inference()
    options.output.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    failed: list[Path] = []
    for number, path in enumerate(options.images):
        try:
            image = read_image(path)
        except DataError as error:  # the other pictures are not lost for it
            print(f"retinanet-edu: {error}", file=sys.stderr)
            failed.append(path)
            continue
        detections = predict(model, image, score_threshold=options.score)
        picture = options.output / f"{path.stem}.png"
        if any(entry["picture"] == picture.name for entry in found):
            picture = options.output / f"{path.stem}-{number}.png"
        plot_detections(image, detections, model.classes, options.score).savefig(picture)
        entries = [
            {"class": model.classes[k], "score": round(s, 4), "box": [round(c, 2) for c in box]}
            for k, s, box in zip(
                detections.labels.tolist(),
                detections.scores.tolist(),
                detections.boxes.tolist(),
                strict=True,
            )
        ]
        found.append({"image": str(path), "picture": picture.name, "detections": entries})
        names = ", ".join(f"{e['class']} {e['score']:.2f}" for e in entries) or "nothing"
        print(f"{path}: {names}")
    (options.output / "detections.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"pictures and detections.json in {options.output}")
    if failed:
        raise DataError(f"{len(failed)} of {len(options.images)} pictures could not be read")


def _shapes(options: argparse.Namespace) -> None:
    from retinanet_edu.data.shapes import write_voc

    write_voc(options.folder, seed=options.seed)
    print(f"the shapes as a VOCdevkit: {options.folder}")


def _demo(options: argparse.Namespace) -> None:
    from retinanet_edu.demo import run_demo

    run_demo(options.output, seed=options.seed)
    command = Path(sys.argv[0])
    if command.is_relative_to(Path.cwd()):
        command = command.relative_to(Path.cwd())
    pictures = ("gallery.png", "curves.png", "precision_recall.png")
    print("look at", *(f"  {options.output / name}" for name in pictures), sep="\n")
    best = options.output / "best.pt"
    print(
        "then try",
        f"  {command} shapes runs/shapes",
        f"  {command} evaluate --checkpoint {best} --data runs/shapes",
        f"  {command} predict runs/shapes/VOCdevkit/VOC2007/JPEGImages/*_val_* "
        f"--checkpoint {best} --output runs/predictions",
        sep="\n",
    )


def _voc(options: argparse.Namespace, split: str, classes: Sequence[str] | None) -> VOCDataset:
    from retinanet_edu.data.voc import VOCDataset

    return VOCDataset(
        options.data,
        options.year,
        split,
        classes=classes,
        download=options.download,
    )


def _device(options: argparse.Namespace) -> str:
    import torch

    return options.device or ("cuda" if torch.cuda.is_available() else "cpu")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="retinanet-edu",
        description="RetinaNet: train it, evaluate it, point it at pictures.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=text, formatter_class=parser.formatter_class
        )
        sub.set_defaults(run=run)
        return sub

    sub = command("train", _train, "Train on a VOCdevkit.")
    _data_options(sub)
    sub.add_argument("--train-split", default="train", help="images to learn from")
    sub.add_argument("--val-split", default="val", help="images to evaluate on")
    sub.add_argument("--classes", nargs="+", help="only these classes")
    sub.add_argument("--output", type=Path, default=Path("runs/train"), help="folder of the run")
    sub.add_argument("--resume", action="store_true", help="go on with the run in --output")
    model = sub.add_argument_group("model")
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
    _machine_options(loop)

    sub = command("evaluate", _evaluate, "AP of a checkpoint on a VOCdevkit.")
    sub.add_argument("--checkpoint", required=True, help="a file, or 'shapes'")
    _data_options(sub)
    sub.add_argument("--split", default="val")
    sub.add_argument("--batch-size", type=int, default=8)
    sub.add_argument("--output", type=Path, help="a JSON file for all numbers")
    _machine_options(sub)

    sub = command("predict", _predict, "Detect objects in pictures.")
    sub.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    sub.add_argument("--checkpoint", required=True, help="a file, or 'shapes'")
    sub.add_argument("--output", type=Path, required=True, help="folder for pictures and JSON")
    sub.add_argument("--score", type=float, default=0.5, help="show detections from this score on")
    sub.add_argument("--device", help="default: cuda where there is one")

    sub = command("shapes", _shapes, "Write the embedded dataset as a VOCdevkit.")
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument("--seed", type=int, default=0)

    sub = command("demo", _demo, "Train on the embedded shapes and show what comes out.")
    sub.add_argument("--output", type=Path, default=Path("runs/demo"))
    sub.add_argument("--seed", type=int, default=0)
    return parser


def _data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder that contains VOCdevkit")
    parser.add_argument("--year", nargs="+", default=["2007"], help="one or several, as 2007 2012")
    parser.add_argument("--download", action="store_true", help="fetch VOC into --data first")


def _machine_options(parser: Any) -> None:
    parser.add_argument("--device", help="default: cuda where there is one")
    parser.add_argument("--workers", type=int, default=0, help="processes that load images")
