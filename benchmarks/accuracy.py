"""torchvision's RetinaNet and ours, trained on the same photographs: who learns more?

    python benchmarks/accuracy.py --data VOC [--weights FILE] [--small] [--minutes 9] [--arms …]

Runs of all arms and seeds go on where they stopped, so a machine that is lent for minutes will do,
and several processes may share the work. What is done so far is written at the end of each call:
a JSON file, a table and a figure. `--small` is what two CPU cores do in two hours.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from learning import Memory, Recipe, learn
from matplotlib.figure import Figure
from pairs import anchors_as_torchvisions

from retinanet_edu.data.voc import VOCDataset
from retinanet_edu.plotting import POSITIVE, PREDICTION
from retinanet_edu.provenance import provenance

ROOT = Path(__file__).parents[1]
FIVE = ("aeroplane", "bicycle", "bus", "cat", "train")


def arms_of(base: Recipe) -> dict[str, tuple[str, Recipe]]:
    """Each arm's name, what it shows, and its recipe: the first two are like for like."""
    reference = replace(
        base,
        side="torchvision",
        optimizer="sgd",
        learning_rate=0.01 * base.batch_size / 16,
        weight_decay=1e-4,
        backbone_rate=1.0,
        decay="steps",
    )

    def ours(**changes: Any) -> Recipe:
        return replace(base, **changes)

    groups = {"group_norm": True}
    return {
        "ours": ("like for like", base),
        "torchvision": ("like for like", replace(base, side="torchvision")),
        "reference": ("torchvision's own recipe: SGD, steps", reference),
        "groups": ("group norm in the subnets", ours(model=groups)),
        "l1": ("L1 instead of smooth L1", ours(loss={"box_loss": "l1"})),
        "giou": ("GIoU instead of smooth L1", ours(loss={"box_loss": "giou"})),
        "forced": ("forced matches", ours(loss={"force_match": True})),
        "p6": ("P6 from P5", ours(model={"p6_from": "P5"})),
        "anchors": ("torchvision's anchors", ours(model={"anchors": anchors_as_torchvisions()})),
        "batch": ("normalised over the batch", ours(loss={"normaliser": "batch"})),
        "rate": ("twice the learning rate", ours(learning_rate=2 * base.learning_rate)),
        "even": ("pretrained layers at the full rate", ours(backbone_rate=1.0)),
        "frozen": ("stem to layer3 frozen", ours(frozen_stages=4)),
        "ema": ("moving average of the weights", ours(ema=0.998)),
        "scale": ("scaled at random, 0.8 to 1.25", ours(scale=(0.8, 1.25))),
        "colour": ("colours changed at random", ours(colour=True)),
        "half": ("batches of half the size", ours(batch_size=base.batch_size // 2)),
        "long": ("twice as many epochs", ours(epochs=2 * base.epochs)),
        "default": (
            "what `retinanet-edu train` does: group norm and random scales",
            ours(model=groups, scale=(0.8, 1.25)),
        ),
        "default-batch": (
            "the same, normalised over the batch",
            ours(model=groups, scale=(0.8, 1.25), loss={"normaliser": "batch"}),
        ),
        "default-l1-batch": (
            "the same, and L1",
            ours(
                model=groups,
                scale=(0.8, 1.25),
                loss={"box_loss": "l1", "normaliser": "batch"},
            ),
        ),
        "groups-scale-colour": (
            "the default and random colours",
            ours(model=groups, scale=(0.8, 1.25), colour=True),
        ),
        "groups-rate": (
            "group norm and twice the rate",
            ours(model=groups, learning_rate=2 * base.learning_rate),
        ),
        "groups-l1": ("group norm and L1", ours(model=groups, loss={"box_loss": "l1"})),
        "groups-l1-batch": (
            "group norm, L1, normalised over the batch",
            ours(model=groups, loss={"box_loss": "l1", "normaliser": "batch"}),
        ),
        "groups-l1-scale": (
            "group norm, L1 and random scales",
            ours(model=groups, loss={"box_loss": "l1"}, scale=(0.8, 1.25)),
        ),
        "groups-giou": ("group norm and GIoU", ours(model=groups, loss={"box_loss": "giou"})),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that contains VOCdevkit")
    parser.add_argument("--weights", type=Path, help="of the backbone; default random ones")
    parser.add_argument("--depth", type=int, default=18)
    parser.add_argument("--small", action="store_true", help="256 px, half the width, two seeds")
    parser.add_argument("--arms", nargs="+", help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, help="default 0 1 2, or 0 1 if small")
    parser.add_argument("--five", action="store_true", help="only five classes")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no epoch after so long")
    parser.add_argument("--workers", type=int, default=0, help="processes that load images")
    parser.add_argument("--threads", type=int, help="of a CPU; default all cores")
    parser.add_argument("--runs", type=Path, help="folder of the runs' states")
    parser.add_argument("--output", type=Path, default=ROOT / "data/results")
    arguments = parser.parse_args()
    start, made = time.monotonic(), provenance()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # A CPU that only imitates bfloat16 takes fifteen times as long with it.
    bfloat16 = device.type == "cuda" or torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True

    name = f"accuracy-resnet{arguments.depth}" + "-small" * arguments.small
    name += "-five" * arguments.five
    base = Recipe(depth=arguments.depth)
    if arguments.small:
        base = replace(base, channels=128, image_size=256, epochs=8)
    seeds = arguments.seeds or ([0, 1] if arguments.small else [0, 1, 2])
    arms, folder = arms_of(base), arguments.runs or ROOT / "runs" / name
    classes = FIVE if arguments.five else None
    data = [
        Memory(VOCDataset(arguments.data, split=split, classes=classes, keep_empty=False))
        for split in ("train", "val")
    ]
    for seed in seeds:
        for arm in arguments.arms or arms:
            with claim(folder / f"{arm}-{seed}") as is_mine:
                if is_mine:
                    learn(
                        arms[arm][1],
                        seed,
                        *data,
                        folder / f"{arm}-{seed}",
                        weights=arguments.weights,
                        device=device,
                        bfloat16=bfloat16,
                        workers=arguments.workers,
                        is_time_up=lambda: time.monotonic() - start > 60 * arguments.minutes,
                    )
    result = made | {"recipe": asdict(base), "arms": collect(arms, folder)}
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"{name}.json"
    path.write_text(json.dumps(result, indent=1, default=str) + "\n")
    path.with_suffix(".md").write_text(table(result["arms"]))
    plot(result["arms"]).savefig(path.with_suffix(".png"), dpi=110)
    print(table(result["arms"]))


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Whether a run is this process's; a process that dies gives it free."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def collect(arms: dict[str, tuple[str, Recipe]], folder: Path) -> list[dict[str, Any]]:
    """The arms that have results, with what is changed against the first."""
    rows = []
    base = asdict(arms["ours"][1])
    for arm, (what, recipe) in arms.items():
        paths = sorted(folder.glob(f"{arm}-[0-9]*/result.json"))
        runs = [json.loads(path.read_text()) for path in paths]
        if runs:
            changed = {n: v for n, v in asdict(recipe).items() if base[n] != v}
            rows.append({"name": arm, "what": what, "changed": changed, "runs": runs})
    return rows


def mean_and_spread(runs: list[dict[str, Any]], key: str) -> tuple[float, float | None]:
    """Over the seeds; the spread is the standard deviation, of one run None."""
    values = [run[key] for run in runs]
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def table(arms: list[dict[str, Any]]) -> str:
    """Markdown, a line an arm."""
    lines = ["| | seeds | mAP50 | mAP | seconds |", "| --- | --- | --- | --- | --- |"]
    for arm in arms:
        cells = []
        for key in ("mAP50", "mAP"):
            mean, spread = mean_and_spread(arm["runs"], key)
            cells.append(
                f"{100 * mean:.1f}" + ("" if spread is None else f"\u00a0±\u00a0{100 * spread:.1f}")
            )
        known = [run["seconds"] for run in arm["runs"] if run["seconds"] is not None]
        seconds = f"{statistics.fmean(known):.0f}" if known else "not known"
        lines.append(
            f"| {arm['name']}: {arm['what']} | {len(arm['runs'])} | {' | '.join(cells)} "
            f"| {seconds} |"
        )
    return "\n".join(lines) + "\n"


def plot(arms: list[dict[str, Any]]) -> Figure:
    """Curves of the two that are like for like, and the mAP50 of every arm."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
    styles = {"ours": (PREDICTION.colour, "-"), "torchvision": (POSITIVE.colour, "--")}
    for arm in arms:
        if arm["name"] in styles:
            colour, line = styles[arm["name"]]
            for run in arm["runs"]:
                epochs, values, _ = zip(*run["curve"], strict=True)
                label = arm["name"] if run is arm["runs"][0] else None
                left.plot(epochs, values, line, color=colour, marker="o", label=label)
    left.set_xlabel("epoch")
    left.set_ylabel("mAP50 on val")
    left.set_ylim(bottom=0)
    left.legend()
    for row, arm in enumerate(arms):
        colour = styles["torchvision" if arm["name"] in ("torchvision", "reference") else "ours"][0]
        values = [run["mAP50"] for run in arm["runs"]]
        right.plot(values, [row] * len(values), "o", color=colour)
    right.set_yticks(range(len(arms)), [arm["name"] for arm in arms])
    right.invert_yaxis()
    right.set_xlabel("mAP50 on val, a point a seed")
    right.grid(axis="y", linewidth=0.4)
    return figure


if __name__ == "__main__":
    main()
