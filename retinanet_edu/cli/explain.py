"""Commands that see through a model: `explain` and `report`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinanet_edu.cli.options import (
    NewCommand,
    chosen_device,
    data_options,
    open_data,
    write_output,
)
from retinanet_edu.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def _explain(options: argparse.Namespace) -> None:
    from retinanet_edu.checkpoint import load_checkpoint
    from retinanet_edu.data.images import read_image
    from retinanet_edu.explanation import explain
    from retinanet_edu.explanation.picture_page import picture_page
    from retinanet_edu.provenance import provenance

    made = provenance()
    model = load_checkpoint(options.checkpoint, device=chosen_device(options)).for_inference()
    image = read_image(options.image)
    target, notes = None, [f"Weights: {options.checkpoint}.", f"Command: {made['command']}"]
    if options.truth:
        target, unknown = _read_target(options.truth, options.image, model.classes)
        notes.append(f"Truth: {options.truth}.")
        if unknown:
            notes.append(f"Left out, since the model does not know them: {', '.join(unknown)}.")
    explanation = explain(model, image, target)
    html = picture_page(explanation, options.image.name, score=options.score, notes=notes)
    write_output(options.output, html)
    found = explanation.detections
    print(
        f"{options.image}: {len(found)} detections, {int((found.scores >= options.score).sum())} "
        f"from {options.score:g} on, of {len(explanation.origins)} candidates\n"
        f"look at {options.output}"
    )


def _read_target(
    path: Path, picture: Path, classes: Sequence[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """What an annotation says of a picture, and the names in it that are none of the classes."""
    import torch

    if path.is_dir() or path.suffix.lower() == ".json":
        objects = _find_objects(path, picture)
    elif path.suffix.lower() == ".txt":
        raise DataError(
            f"{path}: numbers alone do not say which classes they are; name the folder of the "
            "pictures and labels instead"
        )
    else:
        objects = _read_xml(path, picture)
    known = [o for o in objects if o.name in classes]
    unknown = sorted({o.name for o in objects} - set(classes))
    if objects and not known:
        raise DataError(
            f"{path}: none of its objects ({', '.join(unknown)}) is of a class of the model "
            f"({', '.join(classes)})"
        )
    return {
        "boxes": torch.tensor([o.box for o in known], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([classes.index(o.name) for o in known], dtype=torch.int64),
        "difficult": torch.tensor([o.difficult for o in known], dtype=torch.bool),
    }, unknown


def _read_xml(path: Path, picture: Path) -> Sequence[Any]:
    """The objects of one VOC annotation, which must be of a picture of this size."""
    from retinanet_edu.data.folder import check_record
    from retinanet_edu.data.records import Record, RecordObject
    from retinanet_edu.data.voc_xml import read_annotation, refuse

    said = read_annotation(path, picture)
    objects = [RecordObject(*o) for o in said.objects]
    record = Record(path.stem, picture, path, said.size, objects, said.faults, None)
    checked = check_record(record, "voc")
    refuse(checked.faults)
    return checked.objects


def _find_objects(source: Path, picture: Path) -> Sequence[Any]:
    """The objects of one picture among all that a folder or a COCO JSON tells of."""
    from retinanet_edu.data.folder import check_record
    from retinanet_edu.data.records import read_records
    from retinanet_edu.data.voc_xml import refuse

    records = read_records(source)
    there = [r for r in records.records if r.picture.resolve() == picture.resolve()]
    # A copy of the picture from elsewhere has its name, if nothing more.
    there = there or [r for r in records.records if r.picture.name == picture.name]
    if len(there) != 1:
        many = f"{len(there)} pictures have the name" if there else "nothing is said of a picture"
        raise DataError(f"{source}: {many} {picture.name}; name the picture as it lies there")
    checked = check_record(there[0], records.format)
    refuse(checked.faults)
    return checked.objects


def _report(options: argparse.Namespace) -> None:
    from retinanet_edu.checkpoint import load_checkpoint
    from retinanet_edu.explanation import explain
    from retinanet_edu.explanation.run import examine
    from retinanet_edu.explanation.run_page import WORST, read_run, run_page
    from retinanet_edu.provenance import provenance

    made = provenance()
    checkpoint, history = read_run(options.run_folder)
    model = load_checkpoint(checkpoint, device=chosen_device(options)).for_inference()
    data, source = _report_data(options, model.classes)
    notes = [f"Weights: {checkpoint}.", f"Data: {source}.", f"Command: {made['command']}"]
    examination, worst = None, []
    if data is not None:
        examination = examine(model, data, score=options.score, progress=True)
        worst = [explain(model, *data[row.number]) for row in examination.images[:WORST]]
        print(examination.evaluation.table())
    output = options.output or options.run_folder / "report.html"
    write_output(
        output, run_page(options.run_folder.name, history, examination, worst, notes=notes)
    )
    print(f"look at {output}")


def _report_data(options: argparse.Namespace, classes: Sequence[str]) -> tuple[Any, str]:
    """The pictures to report on, and where they are from; None where nobody said."""
    from retinanet_edu.data.shapes import ShapesDataset

    if options.data:
        (data,) = open_data(options, [options.split], classes, options.run_folder)
        return data, f"{options.data}, split {options.split}, {len(data)} pictures"
    if tuple(classes) == ShapesDataset.classes:
        shapes = ShapesDataset("val")
        return shapes, f"the embedded shapes, {len(shapes)} pictures"
    return None, "none was named; for AP, mistakes and the worst pictures give --data"


def add_commands(command: NewCommand) -> None:
    """Register `explain` and `report`.

    Args:
        command: makes the parser of a command, see `options.NewCommand`.
    """
    sub = command("explain", _explain, "How a model came to its detections, as a page.")
    sub.add_argument("image", type=Path, metavar="IMAGE")
    sub.add_argument("--checkpoint", required=True, help="a file, or 'shapes'")
    sub.add_argument(
        "--truth",
        type=Path,
        metavar="ANNOTATION",
        help="what is on it: VOC's XML, COCO's JSON, or a folder of pictures and labels",
    )
    sub.add_argument("--output", type=Path, default=Path("explanation.html"), help="the page")
    sub.add_argument("--score", type=float, default=0.5, help="draw detections from this score on")
    sub.add_argument("--device", help="default: cuda where there is one")

    sub = command("report", _report, "What is good and what is wrong in a run, as a page.")
    sub.add_argument("run_folder", type=Path, metavar="RUN", help="folder that `train` made")
    data_options(sub, required=False)
    sub.add_argument("--split", default="val")
    sub.add_argument("--output", type=Path, help="the page; default RUN/report.html")
    sub.add_argument("--score", type=float, default=0.5, help="detections from it on are sure")
    sub.add_argument("--device", help="default: cuda where there is one")
