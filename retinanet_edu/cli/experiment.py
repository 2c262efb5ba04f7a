"""The command that puts claims to the test: `experiment`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from retinanet_edu.cli.options import NewCommand, number
from retinanet_edu.errors import DataError


def _experiment(options: argparse.Namespace) -> None:
    from retinanet_edu.experiments import ARMS, CLAIMS, quick, record, run_arms, whole

    if "list" in options.names:
        for name, claim in CLAIMS.items():
            print(f"{name:<15}{claim.says}")
        return
    names = list(CLAIMS) if "all" in options.names else options.names
    if unknown := [name for name in names if name not in CLAIMS]:
        raise DataError(f"there is no claim {unknown[0]!r}; there are {', '.join(CLAIMS)}, and all")
    if options.quick == bool(options.data):
        raise DataError("say --quick for the embedded shapes, or --data VOC for photographs")
    bench = (
        quick(options.runs)
        if options.quick
        else whole(options.runs, options.data, options.backbone_weights)
    )
    claims = [CLAIMS[name] for name in names]
    arms = [arm for claim in claims for arm in claim.arms]
    if options.backbone_weights not in (None, "imagenet"):
        deeper = [arm for arm in arms if "depth" in ARMS[arm].model]
        if deeper:  # said now, and not after hours of the other arms
            raise DataError(f"a file of weights does not fit {deeper[0]}: leave scaling out")
    # A GPU has enough to do with one run.
    jobs = options.jobs or (os.cpu_count() or 1 if options.quick else 1)
    run_arms(bench, arms, options.seeds, jobs)
    for claim in claims:
        result = record(claim, bench, options.seeds, options.output)
        print(f"\n{claim.name}: {claim.says}\n  {result['verdict'].upper()}")
        for finding in result["findings"]:
            print(f"  {'yes' if finding['holds'] else 'no ':<4}{finding['says']}")
            print(f"      {finding['numbers']}")


def add_commands(command: NewCommand) -> None:
    """Register `experiment`.

    Args:
        command: makes the parser of a command, see `options.NewCommand`.
    """
    sub = command("experiment", _experiment, "Put claims about RetinaNet to the test.")
    sub.add_argument("names", nargs="+", metavar="NAME", help="of a claim; 'all'; 'list' says them")
    sub.add_argument("--quick", action="store_true", help="on the embedded shapes, hours of a CPU")
    sub.add_argument("--data", type=Path, help="folder that contains VOCdevkit, for a GPU")
    sub.add_argument("--backbone-weights", help="'imagenet' (download) or a file, with --data")
    sub.add_argument("--seeds", type=number(int, 0), nargs="+", default=[0, 1, 2])
    sub.add_argument(
        "--jobs", type=number(int, 1), help="runs at a time; default: one a core, one with --data"
    )
    sub.add_argument("--runs", type=Path, default=Path("runs/experiments"), help="states of runs")
    sub.add_argument(
        "--output", type=Path, default=Path("runs/experiments/results"), help="for the JSON files"
    )
