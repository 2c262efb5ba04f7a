"""Where a number came from: the command, the commit, the versions and the machine behind it."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "numpy", "pycocotools")


def provenance() -> dict[str, Any]:
    """What a file of results says about its making, ready for JSON.

    Returns:
        `command`: as typed, without the path of the program; `commit` of the package's checkout,
        with a + where files differ from it, None for an installed package; `versions`;
        `hardware`: processor, the vector instructions and the threads that torch uses on it, and
        the GPU, or None.
    """
    program, *arguments = sys.argv
    return {
        "command": shlex.join([Path(program).name, *arguments]),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **dict(map(_version, PACKAGES))},
        "hardware": {
            "processor": _processor(),
            # A rented processor hides its model; this tells those apart that differ by a factor.
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def _version(package: str) -> tuple[str, str | None]:
    try:
        return package, version(package)
    except PackageNotFoundError:
        return package, None


def _commit() -> str | None:
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists():
        return None
    try:
        commit, status = (
            subprocess.run(
                ["git", *words], cwd=checkout, capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if status else "")


def _processor() -> str:
    info = Path("/proc/cpuinfo")  # Linux; elsewhere Python knows the name
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
