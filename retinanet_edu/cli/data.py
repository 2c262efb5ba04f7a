"""Commands that write data anew: `convert`."""

from __future__ import annotations

import argparse
from pathlib import Path

from retinanet_edu.cli.options import NewCommand, format_option


def _convert(options: argparse.Namespace) -> None:
    from retinanet_edu.data.convert import convert
    from retinanet_edu.data.records import read_records

    source = read_records(options.source, options.format)
    written = convert(source, options.destination, options.to, link=options.link)
    before, after = (sum(len(r.objects) for r in x.records) for x in (source, written))
    print(
        f"{len(written.records)} pictures and {after} objects of {len(written.classes or ())} "
        f"classes, {source.format} → {written.format}: {options.destination}"
    )
    if before > after:
        print(f"{before - after} difficult objects are left out: {options.to} has no mark for them")
    if source.unlabelled:
        print(f"{len(source.unlabelled)} pictures have no annotation and are left out")


def add_commands(command: NewCommand) -> None:
    """Register `convert`.

    Args:
        command: makes the parser of a command, see `options.NewCommand`.
    """
    sub = command("convert", _convert, "Write a folder of pictures and labels in another format.")
    sub.add_argument("source", type=Path, metavar="SOURCE")
    sub.add_argument("destination", type=Path, metavar="DEST", help="a new folder")
    sub.add_argument("--to", choices=("voc", "coco", "yolo"), required=True)
    format_option(sub)
    sub.add_argument("--link", action="store_true", help="link to the pictures, do not copy them")
