"""Trains arms: each once a seed, whichever claims ask for it, and goes on where it stopped."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Subset

from retinanet_edu.anchors import AnchorGenerator
from retinanet_edu.boxes import box_area
from retinanet_edu.checkpoint import load_weights, read_checkpoint
from retinanet_edu.data.shapes import ShapesDataset
from retinanet_edu.data.transforms import TrainTransform
from retinanet_edu.data.voc import VOC_CLASSES, VOCDataset
from retinanet_edu.demo import IMAGE_SIZE, SIZES, shapes_model
from retinanet_edu.detection import predict
from retinanet_edu.evaluation import METRICS, coco_metrics
from retinanet_edu.evaluation.coco import AREAS
from retinanet_edu.experiments.arms import ARMS, BASELINE, Arm
from retinanet_edu.experiments.variants import CorruptedBoxes
from retinanet_edu.losses import Losses
from retinanet_edu.model import RetinaNet, retinanet_resnet
from retinanet_edu.provenance import provenance
from retinanet_edu.training import LAST, train

VAL_IMAGES = 400  # of the shapes
# λ of the article's eq. 1. Offsets of positive anchors are small numbers and their smooth L1 is
# smaller still; weighted up, boxes become tight in the few epochs that there are.
BOX_LOSS_WEIGHT = 5.0


@dataclass(frozen=True)
class Bench:
    """Where the arms are trained: on the embedded shapes, or on VOC.

    Attributes:
        runs: folder of the runs' states.
        voc: folder that contains VOCdevkit; None for the embedded shapes.
        backbone_weights: for VOC, see `retinanet_resnet`.
        epochs: of each run.
        batch_size: images a step.
        learning_rate: its peak.
        images: to train on, of the shapes.
        image_size: the longer side, in pixels.
    """

    runs: Path
    voc: Path | None = None
    backbone_weights: str | None = None
    epochs: int = 8
    batch_size: int = 8
    learning_rate: float = 2e-3
    images: int = 1600
    image_size: int = IMAGE_SIZE

    @property
    def name(self) -> str:
        """Short, for files."""
        return "voc" if self.voc else "quick"

    def data(self, split: str) -> Any:
        """The pictures to train on ("train") or to be judged by ("val")."""
        if self.voc:
            return VOCDataset(self.voc, split=split, classes=VOC_CLASSES, keep_empty=False)
        return _shapes(split, self.images if split == "train" else VAL_IMAGES)

    def areas(self) -> tuple[float, float]:
        """Bounds between small, medium and large: terciles for the shapes, COCO's for VOC."""
        if self.voc:
            return AREAS
        data = self.data("val")
        truths = (data.target(i) for i in range(len(data)))
        sizes = torch.cat([box_area(t["boxes"][~t["difficult"]]) for t in truths])
        low, high = np.quantile(sizes.numpy(), (1 / 3, 2 / 3)).tolist()
        return low, high

    def model(self, arm: Arm, seed: int) -> RetinaNet:
        """An arm's model with random weights, or with a pretrained backbone."""
        torch.manual_seed(seed)
        if self.voc:
            settings: dict[str, Any] = {
                "depth": 18,
                "backbone_weights": self.backbone_weights,
                "partial_backbone": True,
                "group_norm": True,
                "anchors": AnchorGenerator(**arm.anchors),
                "classes": VOC_CLASSES,
                "image_size": self.image_size,
            }
            model = retinanet_resnet(num_classes=len(VOC_CLASSES), **settings | dict(arm.model))
        else:
            anchors = AnchorGenerator(**{"sizes": SIZES, **arm.anchors})
            model = shapes_model(seed, anchors=anchors, **arm.model)
        return arm.rebuild(model) if arm.rebuild else model

    def recipe(self, arm: Arm, seed: int) -> dict[str, Any]:
        """Keywords of `train` that all runs of an arm share."""
        return {
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "transform": TrainTransform(self.image_size, scale=(1, 1)),
            "criterion_settings": {"box_loss_weight": BOX_LOSS_WEIGHT, **arm.loss_settings},
            "seed": seed,
            "progress": False,
        }

    def folder(self, name: str, seed: int) -> Path:
        """Of one run."""
        return self.runs / self.name / f"{name}-{seed}"

    def settings(self, arm: Arm) -> dict[str, Any]:
        """What a result depends on, besides the seed and the code."""
        values = {n: getattr(self, n) for n in ("epochs", "batch_size", "learning_rate", "images")}
        return values | {"image_size": self.image_size, "arm": arm.settings()}

    def result(self, name: str, seed: int) -> dict[str, Any] | None:
        """What a finished run reached; None if it is not done, or was of other settings."""
        path = self.folder(name, seed) / "result.json"
        if not path.is_file():
            return None
        result = json.loads(path.read_text())
        wanted = json.loads(json.dumps(self.settings(ARMS[name])))
        return result if result["settings"] == wanted else None

    def trained(self, name: str, seed: int) -> RetinaNet:
        """The model that a finished run left, in evaluation mode."""
        model, last = self.model(ARMS[name], seed), self.folder(name, seed) / LAST
        load_weights(model, read_checkpoint(last)["weights"], last)
        return model.eval()


@cache  # a picture is drawn once, for all runs of a process
def _shapes(split: Literal["train", "val"], length: int) -> ShapesDataset:
    return ShapesDataset(split, length=length)


def quick(runs: Path) -> Bench:
    """The bench of the embedded shapes.

    Args:
        runs: folder of the runs' states.

    Returns:
        `Bench`.
    """
    return Bench(runs)


def whole(runs: Path, voc: Path, backbone_weights: str | None) -> Bench:
    """The bench of VOC, for a GPU.

    Args:
        runs: folder of the runs' states.
        voc: folder that contains VOCdevkit.
        backbone_weights: see `retinanet_resnet`.

    Returns:
        `Bench`.
    """
    return replace(
        Bench(runs),
        voc=voc,
        backbone_weights=backbone_weights,
        epochs=24,
        learning_rate=5e-4,
        image_size=384,
    )


def run_one(bench: Bench, name: str, seed: int, threads: int | None = None) -> dict[str, Any]:
    """Train one arm with one seed, or go on with it, and judge it.

    Args:
        bench: where.
        name: of the arm.
        seed: of weights, order and transforms.
        threads: of a CPU; None leaves them as they are.

    Returns:
        `seed`, `settings`, `losses` of each epoch, `seconds`, `parameters`, and COCO's twelve
        numbers, with the bench's bounds of small and large.
    """
    if threads:
        torch.set_num_threads(threads)
    done = bench.result(name, seed)
    if done is not None:
        return done
    arm, start, commit = ARMS[name], time.perf_counter(), provenance()["commit"]
    folder = bench.folder(name, seed)
    model, data = bench.model(arm, seed), bench.data("train")
    history = train(
        model,
        CorruptedBoxes(data, arm.corrupted) if arm.corrupted else data,
        output=folder,
        epochs=bench.epochs,
        loss=arm.loss,
        resume=True,
        **bench.recipe(arm, seed),
    )
    result = {
        "seed": seed,
        "commit": commit,
        "settings": bench.settings(arm),
        "losses": [round(row["loss"], 5) for row in history],
        "seconds": round(time.perf_counter() - start, 1),
        "parameters": sum(p.numel() for p in model.parameters()),
        **judge(bench, model),
    }
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def judge(bench: Bench, model: RetinaNet, **settings: Any) -> dict[str, float]:
    """COCO's twelve numbers of a model.

    Args:
        bench: whose pictures and bounds.
        model: on them.
        settings: keywords of `predict`.

    Returns:
        by `METRICS`.
    """
    data = bench.data("val")
    pictures, truths = zip(*(data[i] for i in range(len(data))), strict=True)
    found = predict(model, pictures, **settings)
    numbers, _, _ = coco_metrics(found, truths, model.num_classes, bench.areas())
    return {name: round(numbers[name], 5) for name in METRICS}


def run_arms(bench: Bench, names: Iterable[str], seeds: Sequence[int], jobs: int = 1) -> None:
    """Train what is not trained yet, seed by seed, and say what each reached.

    Args:
        bench: where.
        names: of arms.
        seeds: all arms get the first before any gets the second.
        jobs: processes; with more than one, each has one thread.
    """
    names = list(dict.fromkeys([BASELINE, *names]))
    tasks = [(n, s) for s in seeds for n in names if bench.result(n, s) is None]
    if jobs == 1 or len(tasks) < 2:
        for task in tasks:
            _say(*task, run_one(bench, *task))
        return
    # A process that is forked from one in which torch has run may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures = {pool.submit(run_one, bench, *task, 1): task for task in tasks}
        for future in as_completed(futures):
            _say(*futures[future], future.result())


def _say(name: str, seed: int, result: dict[str, Any]) -> None:
    print(
        f"{name}, seed {seed}: AP {100 * result['AP']:.1f}, AP50 {100 * result['AP50']:.1f}, "
        f"{result['seconds']:.0f} s",
        flush=True,
    )


def first_losses(bench: Bench, name: str, seed: int, steps: int) -> list[float]:
    """The loss of each of the first steps of a run that ends with them.

    Args:
        bench: where.
        name: of the arm.
        seed: of weights and order.
        steps: of the run.

    Returns:
        `steps` losses.
    """
    arm, seen = ARMS[name], []

    def noted(*inputs: Any, **settings: Any) -> Losses:
        losses = arm.loss(*inputs, **settings)
        seen.append(round(float(losses.total.detach()), 5))
        return losses

    with tempfile.TemporaryDirectory() as folder:
        train(
            bench.model(arm, seed),
            Subset(bench.data("train"), range(steps * bench.batch_size)),
            output=folder,
            epochs=1,
            loss=noted,
            **bench.recipe(arm, seed),
        )
    return seen
