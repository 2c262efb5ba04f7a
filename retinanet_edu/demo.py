"""The demo: a small RetinaNet, from random weights to an honest number in five minutes.

Model, losses, loop and evaluation are those that train on VOC; only the sizes are smaller.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

from retinanet_edu.anchors import STRIDES, AnchorGenerator
from retinanet_edu.data.shapes import ShapesDataset
from retinanet_edu.data.transforms import TrainTransform
from retinanet_edu.detection import predict
from retinanet_edu.evaluation import Evaluation, evaluate
from retinanet_edu.model import RetinaNet, retinanet_resnet
from retinanet_edu.plotting import plot_gallery, plot_history, plot_precision_recall
from retinanet_edu.provenance import provenance
from retinanet_edu.training import train

IMAGE_SIZE = 128
EPOCHS = 7
BATCH_SIZE = 8  # many small steps: they matter more than clean gradients here
LEARNING_RATE = 2e-3
# What makes boxes tight in the few epochs that there are: L1 down to the smallest error, and one
# normaliser for a batch, so that each object counts alike, on a picture of one or of four.
CRITERION = {"beta": 0.0, "normaliser": "batch"}
# Of the anchors: three strides instead of four, since the pictures are small.
SIZES = tuple(3.0 * stride for stride in STRIDES)


def shapes_model(seed: int = 0, **changes: Any) -> RetinaNet:
    """The demo's model with random weights: 1.1 million parameters.

    ResNet-18 at a quarter of its width, a pyramid of 64 channels, subnets of two convolutions
    with group norm.

    Args:
        seed: of the weights.
        changes: keywords of `retinanet_resnet` that shall be others.

    Returns:
        the model, in training mode.
    """
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "depth": 18,
        "width": 0.25,
        "channels": 64,
        "head_convs": 2,
        "group_norm": True,
        "anchors": AnchorGenerator(sizes=SIZES),
        "classes": ShapesDataset.classes,
        "image_size": IMAGE_SIZE,
    }
    return retinanet_resnet(num_classes=len(ShapesDataset.classes), **settings | changes)


def run_demo(output: str | Path, seed: int = 0, epochs: int = EPOCHS) -> Evaluation:
    """Train on the embedded shapes, evaluate on images never seen, and write the pictures.

    Args:
        output: folder of the run; an earlier demo's files in it are replaced.
        seed: of the weights and of the training, not of the data.
        epochs: passes over the training images.

    Returns:
        the evaluation on the validation images, also in `summary.json`.
    """
    start, made = time.perf_counter(), provenance()  # a checkout may move on meanwhile
    output = Path(output)
    for name in ("last.pt", "best.pt", "metrics.jsonl", "summary.json"):
        (output / name).unlink(missing_ok=True)
    train_data, val_data = ShapesDataset("train"), ShapesDataset("val")
    model = shapes_model(seed)
    parameters = sum(p.numel() for p in model.parameters())
    print(
        f"training a RetinaNet of {parameters / 1e6:.1f} M parameters on {len(train_data)} "
        f"pictures of {len(model.classes)} classes, {epochs} epochs"
    )
    history = train(
        model,
        train_data,
        val_data,
        output=output,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        # The dataset itself draws every size; more sizes only cost time.
        transform=TrainTransform(IMAGE_SIZE, scale=(1, 1)),
        criterion_settings=CRITERION,
        evaluate_every=max(1, epochs // 3),
        seed=seed,
    )
    evaluation = evaluate(model, val_data)
    print(f"\non {len(val_data)} pictures that it never saw:\n{evaluation.table()}\n")

    shown = range(12)
    images = [val_data[i][0] for i in shown]
    figures = {
        "gallery.png": plot_gallery(
            images, [val_data.target(i) for i in shown], predict(model, images), model.classes
        ),
        "curves.png": plot_history(history),
        "precision_recall.png": plot_precision_recall(evaluation),
    }
    for name, figure in figures.items():
        figure.savefig(output / name, dpi=110)
    summary = made | {
        "mAP50": evaluation.mAP50,
        "mAP": evaluation.mAP,
        "seconds": round(time.perf_counter() - start, 1),
        "seed": seed,
        "epochs": epochs,
        "train_images": len(train_data),
        "val_images": len(val_data),
        "per_class": evaluation.per_class,
    }
    (output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return evaluation
