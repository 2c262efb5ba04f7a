"""The folder of a run: what is in it when it goes on, and what an epoch adds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from retinanet_edu.backbone import ResNet
from retinanet_edu.checkpoint import (
    check_conventions,
    load_weights,
    read_checkpoint,
    remove_leftovers,
    save_checkpoint,
)
from retinanet_edu.errors import CheckpointError
from retinanet_edu.model import RetinaNet

LAST, BEST, METRICS = "last.pt", "best.pt", "metrics.jsonl"


def start_or_resume(
    model: RetinaNet,
    descent: torch.optim.Optimizer,
    output: Path,
    identity: Mapping[str, Any],
    resume: bool,
) -> list[dict]:
    """Load the state of `last.pt`, if there is one.

    Args:
        model, descent: of the run; they are given its state.
        output: folder of the run.
        identity: settings with which another run would result.
        resume: whether a run may be there.

    Returns:
        the metrics so far, none for a new run.

    Raises:
        CheckpointError: a run is there and `resume` is false, or it is of other settings.
    """
    last = output / LAST
    if not last.is_file():
        return []
    if not resume:
        raise CheckpointError(
            f"{output}: there is a run in it already; go on with it (--resume, resume=True), "
            "remove it, or choose another folder"
        )
    content = read_checkpoint(last)
    check_conventions(model, content, last)
    before = content["training"]
    if before is None:
        raise CheckpointError(
            f"{last}: weights alone, without what a run needs to go on; choose another folder"
        )
    backbone = model.backbone.settings if isinstance(model.backbone, ResNet) else None
    was = before["identity"] | {n: content[n] for n in ("image_size", "backbone")}
    now = {**identity, "image_size": model.image_size, "backbone": backbone}
    changed = [
        f"{n} was {was.get(n)}, is {value}" for n, value in now.items() if was.get(n) != value
    ]
    if changed:
        raise CheckpointError(f"{last}: cannot go on with other settings: {'; '.join(changed)}")
    load_weights(model, content["weights"], last)
    descent.load_state_dict(before["optimizer"])
    return list(before["history"])


def finish_epoch(
    model: RetinaNet,
    descent: torch.optim.Optimizer,
    output: Path,
    identity: Mapping[str, Any],
    history: list[dict],
    row: dict,
    board: Any,
) -> None:
    """Write what an epoch made: best, then last, then the log.

    So a crash in between loses nothing that `last.pt` claims.

    Args:
        model, descent, output, identity: as in `start_or_resume`.
        history: metrics of the epochs before.
        row: metrics of this one.
        board: of `tensorboard`, or None.
    """
    if row.get("mAP", -1.0) >= max((r.get("mAP", -1.0) for r in history), default=-1.0):
        save_checkpoint(output / BEST, model)
    rows = [*history, row]
    save_checkpoint(
        output / LAST,
        model,
        training={"identity": identity, "optimizer": descent.state_dict(), "history": rows},
    )
    _write_metrics(output, rows)
    if board is not None:
        for name, value in row.items():
            if name not in ("epoch", "step"):
                board.add_scalar(name, value, row["step"])
        board.flush()


def tidy(output: Path, history: list[dict]) -> None:
    """Put right what a run that was killed may have left: halves of files, a log that lags.

    Args:
        output: folder of the run.
        history: of `last.pt`.
    """
    remove_leftovers(output)
    if history:
        _write_metrics(output, history)


def _write_metrics(output: Path, rows: list[dict]) -> None:
    (output / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))


def tensorboard(output: Path) -> Any:
    """A writer where TensorBoard is installed.

    Args:
        output: folder of the run.

    Returns:
        the writer, or None.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(output / "tensorboard"))
