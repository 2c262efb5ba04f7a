"""A model to take away: ONNX for any runtime, or `torch.export` for PyTorch without this package.

The graph holds the anchors and decodes the boxes, so that what is left to do needs no knowledge
of either: scores, the best of each level, suppression. `detect_onnx` does that without PyTorch,
and a copy of it is laid beside each ONNX file. Batch, height and width are free.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.fx.experimental._config as symbols
from torch import Tensor, nn
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from retinanet_edu import __version__, detect_onnx
from retinanet_edu.anchors import AnchorGenerator
from retinanet_edu.coding import decode_boxes
from retinanet_edu.data.loading import PAD_MULTIPLE
from retinanet_edu.data.transforms import MEAN, STD
from retinanet_edu.detection import IOU_THRESHOLD, MAX_DETECTIONS, SCORE_THRESHOLD, TOP_K
from retinanet_edu.errors import ExportError
from retinanet_edu.model import RetinaNet

OUTPUTS = ("class_logits", "boxes", "anchors_per_level")
METADATA = "retinanet_edu"  # its key in an ONNX file; with .json, its file in a .pt2
_NEEDED = ("onnx", "onnxscript", "onnxruntime")
# Outputs of the file and of the model may differ by rounding; more is a fault of the export.
_TOLERANCE = 1e-2


class Graph(nn.Module):
    """What is exported: a model with its anchors, from images to logits and boxes.

    Args:
        model: is copied, its batch norms are folded.

    Law:
        Graph(m)(images) has the logits of m(images), its box deltas decoded from
        m.anchors((H, W)), and its anchors_per_level as a tensor.
    """

    def __init__(self, model: RetinaNet) -> None:
        super().__init__()
        self.model = model.for_inference().to("cpu", torch.float32)
        self.model.to(memory_format=torch.contiguous_format)
        self.anchors = _GridAnchors(**model.anchor_generator.settings)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, 3, H, W), normalised, to logits (B, N, K), boxes (B, N, 4), counts (5,)."""
        model = self.model
        levels = model.fpn(model.fpn.read(model.backbone, images))
        logits, deltas = model.classification_head(levels), model.box_head(levels)
        self.anchors.grids = [(level.shape[-2], level.shape[-1]) for level in levels]
        anchors = self.anchors._generate(images.shape[-2], images.shape[-1])  # (N, 4)
        per_cell = self.anchors.anchors_per_cell
        counts = torch.stack(
            [
                torch.scalar_tensor(rows * columns * per_cell, dtype=torch.int64)
                for rows, columns in self.anchors.grids
            ]
        )
        return logits, decode_boxes(deltas, anchors), counts


class _GridAnchors(AnchorGenerator):
    """The same anchors where sizes are symbols: the grid of a level is that of its map."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.grids: list[tuple[int, int]] = []
        self.cells = {size: super(_GridAnchors, self).cell_anchors(size) for size in self.sizes}

    def grid_sizes(self, image_size: tuple[int, int]) -> list[tuple[int, int]]:
        return self.grids

    def cell_anchors(self, size: float) -> Tensor:
        return self.cells[size]  # a constant of the graph


@torch.no_grad()
def export_model(model: RetinaNet, path: str | Path) -> Path:
    """Write a model as a file that runs without this package, and run that file once.

    Args:
        model: of any device and mode; it is left as it was.
        path: ending in .onnx, which needs the extra `onnx`, or in .pt2 for `load_program`.

    Returns:
        the path. Beside an ONNX file stands `detect_onnx.py` then.

    Raises:
        ExportError: another ending, packages that are missing, a model that cannot be exported,
            a file that cannot be written, or one whose numbers are not the model's.

    Law:
        The file's outputs are those of `Graph`, for any batch, height and width.
    """
    path = Path(path)
    if path.suffix not in (".onnx", ".pt2"):
        raise ExportError(f"{path}: the name ends in .onnx or in .pt2, which says what is written")
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if path.suffix == ".onnx" and missing:
        raise ExportError(
            f"{path}: ONNX needs {', '.join(missing)}; pip install 'retinanet-edu[onnx]'"
        )
    graph = Graph(model).eval()
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        program = _trace(graph)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".pt2":
            torch.export.save(program, temporary, extra_files={f"{METADATA}.json": metadata(model)})
        else:
            _save_onnx(program, temporary, metadata(model))
        wrong = _differing(graph, temporary)
        if wrong:
            raise ExportError(f"{path}: not written: its {wrong} would not be the model's")
        temporary.replace(path)
        if path.suffix == ".onnx":
            shutil.copyfile(detect_onnx.__file__, path.with_name("detect_onnx.py"))
    except ExportError:
        raise
    except Exception as error:  # torch, its exporters and the disk have a hundred kinds
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ExportError(f"{path}: the model could not be exported ({why})") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return path


def load_program(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Read a .pt2 file; without this package, do the same with `torch.export.load`.

    Args:
        path: of the file that `export_model` wrote.

    Returns:
        the network, which takes images as `Graph` does, and the metadata.
    """
    extra = {f"{METADATA}.json": ""}
    program = torch.export.load(path, extra_files=extra)
    # torch notes on the way that no level had a single cell, and would refuse it ever after.
    can_skip = "check_guards" in inspect.signature(program.module).parameters
    network = program.module(check_guards=False) if can_skip else program.module()
    return network, json.loads(extra[f"{METADATA}.json"])


def metadata(model: RetinaNet) -> str:
    """What the user of an exported file must know, and the file carries.

    Args:
        model: that is exported.

    Returns:
        JSON: classes, image_size, how pictures are prepared, thresholds, conventions.
    """
    return json.dumps(
        {
            "format": "retinanet_edu export 1",
            "version": __version__,
            "classes": model.classes,
            "image_size": model.image_size,
            "pad_multiple": PAD_MULTIPLE,
            "mean": MEAN,
            "std": STD,
            "score_threshold": SCORE_THRESHOLD,
            "top_k": TOP_K,
            "iou_threshold": IOU_THRESHOLD,
            "max_detections": MAX_DETECTIONS,
            "conventions": "images: RGB, longer side scaled to image_size, (x / 255 - mean) / std, "
            "padded with 0 at the right and below to a multiple of pad_multiple. class_logits: "
            "sigmoid gives the score, labels 0..K-1 without background. boxes: x1 y1 x2 y2 in "
            "pixels of the images, continuous, not clipped. anchors_per_level: the N rows are of "
            "levels P3 to P7, so many each.",
        },
        ensure_ascii=False,
    )


def _trace(graph: Graph) -> torch.export.ExportedProgram:
    """The program of a graph, with free sizes."""
    free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    images = torch.zeros(2, 3, 192, 160)
    # Else sides below 129 pixels are out of bounds, where the last level has one row.
    config: Any = symbols
    has_choice = hasattr(config, "backed_size_oblivious")
    with config.patch(backed_size_oblivious=True) if has_choice else nullcontext():
        program = torch.export.export(graph, (images,), dynamic_shapes=(free,), strict=False)
    if not has_choice:  # torch 2.6
        for symbol in program.range_constraints:
            program.range_constraints[symbol] = ValueRanges(1, int_oo)
    return program


def _save_onnx(program: torch.export.ExportedProgram, path: Path, text: str) -> None:
    def keep(x: Tensor, size: Sequence[int], scales: Any) -> Tensor:
        return torch.ops.aten.upsample_nearest2d.default(x, size)

    # torch 2.6 would ask for the numbers behind the symbols of its size.
    program = program.run_decompositions({torch.ops.aten.upsample_nearest2d.vec: keep})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        onnx: Any = torch.onnx.export(
            program,
            dynamo=True,
            input_names=["images"],
            output_names=list(OUTPUTS),
            optimize=True,
            verbose=False,
        )
    onnx.model.metadata_props[METADATA] = text
    onnx.save(path)


def _differing(graph: Graph, path: Path) -> str:
    """Run the file at a size that it was not traced at; names of the outputs that are wrong."""
    images = torch.randn(1, 3, 97, 203, generator=torch.Generator().manual_seed(0))
    if path.suffix == ".pt2":
        found = load_program(path)[0](images)
    else:
        session = detect_onnx.load_model(str(path)).session
        found = map(torch.from_numpy, session.run(list(OUTPUTS), {"images": images.numpy()}))
    triples = zip(OUTPUTS, found, graph(images), strict=True)
    same = {
        name: one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=_TOLERANCE)
        for name, one, other in triples
    }
    return ", ".join(name for name, is_same in same.items() if not is_same)
