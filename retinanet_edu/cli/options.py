"""What the commands share: options for data and machine, and the values they stand for."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retinanet_edu.data.voc import VOCDataset

# A command's name, the function that runs it and a line of help give its parser.
NewCommand = Callable[[str, Callable[[argparse.Namespace], None], str], argparse.ArgumentParser]


def data_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Options that say which data.

    Args:
        parser: gains them.
        required: whether there must be data.
    """
    parser.add_argument(
        "--data", type=Path, required=required, help="folder that contains VOCdevkit"
    )
    parser.add_argument("--year", nargs="+", default=["2007"], help="one or several, as 2007 2012")
    parser.add_argument("--download", action="store_true", help="fetch VOC into --data first")


def machine_options(parser: Any) -> None:
    """Options that say where to work.

    Args:
        parser: a parser or a group of one; gains them.
    """
    parser.add_argument("--device", help="default: cuda where there is one")
    parser.add_argument("--workers", type=int, default=0, help="processes that load images")


def open_voc(options: argparse.Namespace, split: str, classes: Sequence[str] | None) -> VOCDataset:
    """The data that `data_options` name.

    Args:
        options: as parsed.
        split: of the images.
        classes: names, or None.

    Returns:
        the dataset.
    """
    from retinanet_edu.data.voc import VOCDataset

    return VOCDataset(
        options.data,
        options.year,
        split,
        classes=classes,
        download=options.download,
    )


def chosen_device(options: argparse.Namespace) -> str:
    """The device that was named, else CUDA where there is one.

    Args:
        options: with `device`.

    Returns:
        its name.
    """
    import torch

    return options.device or ("cuda" if torch.cuda.is_available() else "cpu")
