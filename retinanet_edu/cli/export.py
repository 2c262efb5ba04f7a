"""The command that makes a model ready to be taken elsewhere: `export`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from retinanet_edu.cli.options import NewCommand


def _export(options: argparse.Namespace) -> None:
    from retinanet_edu.checkpoint import load_checkpoint
    from retinanet_edu.export import OUTPUTS, export_model

    path = export_model(load_checkpoint(options.checkpoint), options.output)
    print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB; images (B, 3, H, W) of any size to "
        f"{', '.join(OUTPUTS)}"
    )
    if path.suffix == ".onnx":
        script = path.with_name("detect_onnx.py")
        print(f"detect without PyTorch: python {shlex.join([str(script), str(path)])} PICTURE …")
    else:
        print(f"in PyTorch: retinanet_edu.export.load_program({str(path)!r})")


def add_commands(command: NewCommand) -> None:
    """Register `export`.

    Args:
        command: makes the parser of a command, see `options.NewCommand`.
    """
    sub = command("export", _export, "Write a model as ONNX or as a torch.export program.")
    sub.add_argument("--checkpoint", required=True, help="a file, or 'shapes'")
    sub.add_argument(
        "--output", type=Path, required=True, help="ending in .onnx, or in .pt2 for torch.export"
    )
