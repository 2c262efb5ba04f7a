"""Records: a folder of pictures in VOC's XML, COCO's JSON or YOLO's text, as it is, unchecked.

`FolderDataset` makes a dataset of them and refuses what is wrong; the doctor looks at all of it.
"""

from __future__ import annotations

from pathlib import Path

from retinanet_edu.data.records.coco import find_coco, read_coco
from retinanet_edu.data.records.files import Files
from retinanet_edu.data.records.record import Record, RecordObject, Records
from retinanet_edu.data.records.voc import read_voc
from retinanet_edu.data.records.yolo import find_labels, find_settings, read_yolo
from retinanet_edu.errors import DataError

__all__ = ["FORMATS", "Record", "RecordObject", "Records", "read_records"]

FORMATS = ("voc", "coco", "yolo")


def read_records(root: str | Path, format: str | None = None) -> Records:
    """Everything that a folder says of its pictures, in any of three formats.

    Args:
        root: the folder, or a JSON file in COCO's format beside or above its pictures.
        format: "voc", "coco" or "yolo"; default the one that is there.

    Returns:
        `Records`: boxes as they are written, and a line for each thing that cannot be read.

    Raises:
        DataError: there is no such folder, nothing in it is in a known format, or it has files of
            several formats.
    """
    root = Path(root).expanduser()
    if format not in (None, *FORMATS):
        raise DataError(f"format is one of {', '.join(FORMATS)}, not {format!r}")
    chosen: list[Path] = []
    if root.suffix.lower() == ".json" and root.is_file():
        format, chosen = "coco", [root]
        root = root.parent.parent if root.parent.name == "annotations" else root.parent
    files = Files(root)
    xml, labels = files.with_suffix(".xml"), [*find_settings(files), *find_labels(files)]
    json = chosen or (find_coco(files) if format in (None, "coco") else [])
    there = {"voc": xml, "coco": json, "yolo": labels}
    kinds = [name for name, paths in there.items() if paths]
    if format is None and len(kinds) > 1:
        examples = ", ".join(f"{name} ({there[name][0]})" for name in kinds)
        raise DataError(
            f"{root}: files of several formats: {examples}; say which one counts: --format, or "
            "format=…"
        )
    format = format or (kinds[0] if kinds else None)
    if format is None or not there[format]:
        raise DataError(
            f"{root}: no annotations{f' of the format {format}' if format else ''} here; looked "
            "for XML files (VOC), JSON with images, annotations and categories (COCO), and text "
            "files beside their pictures or in a folder labels (YOLO)"
        )
    if format == "voc":
        return read_voc(files)
    return read_coco(files, json) if format == "coco" else read_yolo(files)
