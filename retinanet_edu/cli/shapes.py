"""Commands of the embedded dataset: `shapes` and `demo`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from retinanet_edu.cli.options import NewCommand, number


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


def add_commands(command: NewCommand) -> None:
    """Register `shapes` and `demo`.

    Args:
        command: makes the parser of a command, see `options.NewCommand`.
    """
    sub = command("shapes", _shapes, "Write the embedded dataset as a VOCdevkit.")
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument("--seed", type=number(int, 0), default=0)

    sub = command("demo", _demo, "Train on the embedded shapes and show what comes out.")
    sub.add_argument("--output", type=Path, default=Path("runs/demo"))
    sub.add_argument("--seed", type=number(int, 0), default=0)
