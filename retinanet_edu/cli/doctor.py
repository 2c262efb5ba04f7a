"""The command that looks at data: `doctor`."""

from __future__ import annotations

import argparse
from pathlib import Path

from retinanet_edu.cli.options import NewCommand, format_option, number, write_output
from retinanet_edu.errors import DataError


def _doctor(options: argparse.Namespace) -> None:
    from retinanet_edu.data.doctor import examine
    from retinanet_edu.data.records import read_records

    records, validation = (
        folder and read_records(folder, options.format)
        for folder in (options.folder, options.validation)
    )
    diagnosis = examine(records, image_size=options.image_size, validation=validation)
    print(diagnosis)
    write_output(options.output / "report.html", diagnosis.to_html())
    write_output(options.output / "report.json", diagnosis.to_json())
    print(f"\nwith pictures: {options.output / 'report.html'}, and report.json beside it")
    wrong = len(diagnosis.graded("error"))
    if wrong:
        raise DataError(f"{wrong} {'error' if wrong == 1 else 'errors'}: mend them before training")


def add_commands(command: NewCommand) -> None:
    """Register `doctor`.

    Args:
        command: makes the parser of a command, see `options.NewCommand`.
    """
    sub = command("doctor", _doctor, "Say what is wrong with a data set, and how to mend it.")
    sub.add_argument("folder", type=Path, metavar="FOLDER", help="of VOC XML, COCO JSON or YOLO")
    format_option(sub)
    sub.add_argument("--validation", type=Path, help="another folder, to validate on")
    sub.add_argument(
        "--image-size", type=number(int, 1), default=512, help="longer side, in pixels"
    )
    sub.add_argument("--output", type=Path, default=Path("runs/doctor"), help="for the report")
