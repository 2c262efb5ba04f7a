"""Ours against torchvision's RetinaNet: one table, one JSON file, one figure.

    python benchmarks/speed.py [--quick] [--only GROUP …] [--device cuda] [--output FOLDER]

Both get the same weights, images and targets, in the same process and in turns, and their results
are compared before anything is timed. A ratio above 1 says that ours is faster.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler that measures memory, else talks

import torch
from cases import CASES
from ceiling import ceiling
from harness import Case, compare
from plots import plot_growth
from tables import floor, markdown
from tqdm import tqdm

from retinanet_edu.provenance import provenance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer cases, in two minutes")
    parser.add_argument(
        "--only", nargs="+", choices=[*CASES], metavar="GROUP", help=", ".join(CASES)
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, help="folder; default data/results, or runs/bench")
    arguments = parser.parse_args()
    start, made = time.perf_counter(), provenance()
    device = torch.device(arguments.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True

    rows = []
    names = arguments.only or [*CASES]
    for name in (bar := tqdm(names, unit="group", disable=None)):
        bar.set_description(name)
        cases: Iterator[Case] = CASES[name](device, arguments.quick)
        for case in cases:
            rows.append(compare(case, seconds=0.5 if arguments.quick else 3))
            tqdm.write(line(rows[-1]))
            del case
            gc.collect()

    root = Path(__file__).parents[1]
    whole = not arguments.quick and not arguments.only
    output = arguments.output or (root / ("data/results" if whole else "runs/bench"))
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"speed-{device.type}.json"
    result: dict[str, Any] = made | {
        "device": str(device),
        "ceiling": ceiling(device),
        "rows": rows,
        "seconds": round(time.perf_counter() - start),
    }
    path.write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(result))
    plot_growth(rows).savefig(path.with_suffix(".png"), dpi=110)
    print(f"\n{floor(result['ceiling'])}")
    print(f"{result['seconds']} s; {path}, and the table and the figure beside it")


def line(row: dict[str, Any]) -> str:
    shown = {n: v for n, v in row["settings"].items() if n != "logits_bytes"}
    settings = ", ".join(f"{name} {value}" for name, value in shown.items())
    low, high = row["ratio_quartiles"]
    text = (
        f"{row['group']:<14} {settings:<46} ours {row['ours_ms']:>9.2f} ms, torchvision "
        f"{row['theirs_ms']:>9.2f} ms, × {row['ratio']:.2f} ({low:.2f}–{high:.2f})"
    )
    if "ours_bytes" in row:
        text += f", memory × {row['ours_bytes'] / row['theirs_bytes']:.2f}"
    if "logits_bytes" in row["settings"]:
        text += f", {row['ours_bytes'] / row['settings']['logits_bytes']:.1f} times the logits"
    return text


if __name__ == "__main__":
    main()
