"""What a claim is, and how one is put to the test and written down."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from retinanet_edu.experiments.arms import ARMS, BASELINE
from retinanet_edu.experiments.runner import Bench
from retinanet_edu.experiments.verdict import Finding, Table, verdict
from retinanet_edu.provenance import provenance

Measure = Callable[[Bench, Sequence[int]], dict[str, Any]]


@dataclass(frozen=True)
class Claim:
    """Something that is said about RetinaNet, and what is trained and measured to see if it holds.

    Attributes:
        name: on the command line, and of the file of results.
        says: the claim.
        source: who says it, and where.
        arms: that are compared with the baseline.
        judge: the arms' numbers, and what was measured besides, to findings.
        measure: a bench and the seeds to what is measured besides, ready for JSON.
    """

    name: str
    says: str
    source: str
    arms: tuple[str, ...]
    judge: Callable[[Table, dict[str, Any]], list[Finding]]
    measure: Measure | None = None


def record(claim: Claim, bench: Bench, seeds: Sequence[int], output: Path) -> dict[str, Any]:
    """Judge a claim whose arms are trained, and write it down.

    Args:
        claim: what is claimed.
        bench: where its arms were trained.
        seeds: of each.
        output: folder for `experiment-NAME-quick.json`, or -voc.

    Returns:
        what is written.
    """
    made = provenance()  # before the work: a checkout may move on meanwhile
    names = (BASELINE, *claim.arms)
    runs = {name: [_done(bench, name, seed) for seed in seeds] for name in names}
    measured = claim.measure(bench, seeds) if claim.measure else {}
    table = Table(runs)
    findings = claim.judge(table, measured)
    result = {
        "claim": claim.says,
        "source": claim.source,
        "verdict": verdict(findings),
        "findings": [asdict(finding) for finding in findings],
        **made,
        "bench": bench.name,
        "settings": {k: v for k, v in bench.settings(ARMS[BASELINE]).items() if k != "arm"},
        "margin": round(table.margin(), 2),
        "arms": [
            {
                "name": name,
                "what": ARMS[name].what,
                "settings": ARMS[name].settings(),
                "seeds": list(seeds),
                "commits": [run["commit"] for run in runs[name]],
                "parameters": runs[name][0]["parameters"],
                "seconds": [run["seconds"] for run in runs[name]],
                **{
                    metric: [run[metric] for run in runs[name]]
                    for metric in ("AP", "AP50", "AP75", "APs", "APm", "APl")
                },
            }
            for name in names
        ],
        "measured": measured,
    }
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"experiment-{claim.name}-{bench.name}.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return result


def _done(bench: Bench, name: str, seed: int) -> dict[str, Any]:
    result = bench.result(name, seed)
    assert result is not None, f"{name}, seed {seed} is not trained"
    return result


@torch.inference_mode()
def costs(bench: Bench, names: Iterable[str], image_size: int | None = None) -> dict[str, Any]:
    """What a picture costs in each arm's network, one at a time.

    Args:
        bench: of the arms.
        names: of arms.
        image_size: side of the picture; default the bench's.

    Returns:
        by name, `gflops` and `milliseconds`, the median of passes in turns.
    """
    side = image_size or bench.image_size
    image = torch.zeros(1, 3, side, side)
    models = {name: bench.model(ARMS[name], 0).for_inference() for name in names}
    result = {}
    for name, model in models.items():
        with FlopCounterMode(display=False) as counter:
            model(image)
        result[name] = {"gflops": round(counter.get_total_flops() / 1e9, 4)}
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(15):
        for name, model in models.items():
            start = time.perf_counter()
            model(image)
            times[name].append(1000 * (time.perf_counter() - start))
    for name, taken in times.items():
        result[name]["milliseconds"] = round(statistics.median(taken), 2)
    return result
