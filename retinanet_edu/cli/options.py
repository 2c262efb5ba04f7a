"""What the commands share: options for data and machine, and the values they stand for."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinanet_edu.errors import DataError

if TYPE_CHECKING:
    from retinanet_edu.data.pictures import PictureDataset

# A command's name, the function that runs it and a line of help give its parser.
NewCommand = Callable[[str, Callable[[argparse.Namespace], None], str], argparse.ArgumentParser]

SPLIT = "split.json"  # in the folder of a run: which pictures were of which part


def number(
    kind: type, least: float, most: float | None = None, *, open_ends: bool = False
) -> Callable[[str], Any]:
    """A type for `add_argument`: a number within bounds, or one line that says so.

    Args:
        kind: int or float.
        least, most: the bounds; `most` None for none.
        open_ends: whether the bounds themselves are refused.

    Returns:
        a function of the word that was typed.
    """

    def read(word: str) -> Any:
        try:
            value = kind(word)
        except ValueError:
            value = math.nan
        high = math.inf if most is None else most
        if not (least < value < high if open_ends else least <= value <= high):
            what = "a whole number" if kind is int else "a number"
            bounds = f"above {least:g}" if open_ends else f"of at least {least:g}"
            if most is not None:
                bounds += f" and {'below' if open_ends else 'at most'} {most:g}"
            raise argparse.ArgumentTypeError(f"{what} {bounds}, not {word!r}")
        return value

    return read


def data_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Options that say which data.

    Args:
        parser: gains them.
        required: whether there must be data.
    """
    parser.add_argument(
        "--data",
        type=Path,
        required=required,
        help="folder of pictures and labels: VOC XML, COCO JSON or YOLO text; or of a VOCdevkit",
    )
    format_option(parser)
    parser.add_argument(
        "--val-share",
        type=number(float, 0, 1, open_ends=True),
        default=0.2,
        help="where there is no val",
    )
    parser.add_argument("--split-seed", type=number(int, 0), default=0, help="of that parting")
    parser.add_argument("--year", nargs="+", help="of a VOCdevkit, one or several, as 2007 2012")
    parser.add_argument("--download", action="store_true", help="fetch VOC into --data first")


def format_option(parser: argparse.ArgumentParser) -> None:
    """The option that settles what a folder with files of several formats is.

    Args:
        parser: gains it.
    """
    # The names stand in data.records too; to import them would take torch.
    help = "default: the one that is there"
    parser.add_argument("--format", choices=("voc", "coco", "yolo"), help=help)


def machine_options(parser: Any) -> None:
    """Options that say where to work.

    Args:
        parser: a parser or a group of one; gains them.
    """
    parser.add_argument("--device", help="default: cuda where there is one")
    parser.add_argument(
        "--workers", type=number(int, 0), default=0, help="processes that load images"
    )


def open_data(
    options: argparse.Namespace,
    splits: Sequence[str],
    classes: Sequence[str] | None,
    run: Path | None = None,
) -> list[PictureDataset]:
    """The data that `data_options` name.

    A VOCdevkit with lists of its own is read by year and list, as VOC is, unless it names its
    classes, as one that `convert` wrote does; every other folder as `FolderDataset` does, with the
    parting of the run, if it is of this folder.

    Args:
        options: as parsed.
        splits: of the images.
        classes: names, or None.
        run: folder that may have a `split.json`.

    Returns:
        a dataset for each split, all with the same classes.
    """
    from retinanet_edu.data.folder import FolderDataset
    from retinanet_edu.data.records import read_records
    from retinanet_edu.data.splitting import load_split
    from retinanet_edu.data.voc import VOCDataset, has_lists

    years = options.year or ["2007"]
    is_vocs = has_lists(options.data, years[0]) and not (options.data / "classes.txt").is_file()
    is_devkit = options.download or options.year or is_vocs
    opened: list[PictureDataset] = []
    if is_devkit and not options.format:
        for split in splits:
            download = options.download
            data = VOCDataset(options.data, years, split, classes=classes, download=download)
            classes = data.classes
            opened.append(data)
        return opened
    records = read_records(options.data, options.format)
    if run is not None and (run / SPLIT).is_file():
        parted = load_split(run / SPLIT, records, splits)
        print(
            f"which pictures are of which split: {run / SPLIT}"
            if parted
            else f"{run / SPLIT} is of other pictures, and is left aside"
        )
        records = parted or records
    is_parted = "train" in splits or "val" in splits
    if is_parted and not any(record.split == "val" for record in records.records):
        print(
            f"the folder has no val of its own: {options.val_share:.0%} of its pictures are chosen "
            f"by seed {options.split_seed}"
        )
    for split in splits:
        one = FolderDataset(
            records,
            None if split == "all" else split,
            classes=classes,
            val_share=options.val_share,
            seed=options.split_seed,
        )
        classes, records = one.classes, one.records
        opened.append(one)
    return opened


def chosen_device(options: argparse.Namespace) -> str:
    """The device that was named, else CUDA where there is one.

    Args:
        options: with `device`.

    Returns:
        its name.

    Raises:
        DataError: it is not there.
    """
    import torch

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # without CUDA, an assertion says so
        raise DataError(f"--device {device}: {str(error).splitlines()[0]}") from error
    return device


def write_output(path: Path, text: str) -> None:
    """Write what a command was asked for, and the folders above it.

    Args:
        path: of the file.
        text: its content.

    Raises:
        DataError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error}); choose another place") from error
