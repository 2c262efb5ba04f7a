"""The `retinanet-edu` command: train, evaluate, predict, explain, doctor, and what goes with them.

Each command is a function of a module here. Imports that need torch stand inside the functions,
so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from retinanet_edu.cli import (
    data,
    doctor,
    experiment,
    explain,
    export,
    pictures,
    shapes,
    training,
)
from retinanet_edu.errors import RetinaNetError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: words after the program's name; default those that were typed.

    Returns:
        the exit status: 0, 1 for what was given and cannot be used, 130 when interrupted,
        141 when who reads the output stopped reading.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names and signs that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except RetinaNetError as error:
        # An error in a loading process comes with its traceback in front.
        message = str(error).rpartition(f".{type(error).__name__}: ")[2].strip()
        print(f"retinanet-edu: {message}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # who reads, such as `head`, has seen enough
        # Else Python complains when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a full disk, a file where a folder should be
        says = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"retinanet-edu: {says}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nretinanet-edu: stopped; `train` goes on with --resume", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="retinanet-edu",
        description="RetinaNet: train it, evaluate it, point it at pictures.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], None], text: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=text, formatter_class=parser.formatter_class
        )
        sub.set_defaults(run=run)
        return sub

    for module in (training, pictures, explain, data, doctor, export, shapes, experiment):
        module.add_commands(command)
    return parser
