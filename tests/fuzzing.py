"""Readers and files that are damaged at random: a message of the project's own, or a result.

Each file begins as a good one. Pieces of it are cut out, doubled, or replaced by words that have
done harm before: huge numbers, other types, other paths, marks of the format itself.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from retinanet_edu import RetinaNet, load_checkpoint, retinanet_resnet18, save_checkpoint
from retinanet_edu.data.folder import FolderDataset
from retinanet_edu.errors import RetinaNetError

WORDS = tuple(
    word.encode()
    for word in (
        "", " ", "\n", "\0", "-1", "0", "1e308", "-1e999", "NaN", "Infinity", "9" * 400, "1e-320",
        "null", "true", "[]", "{}", '""', '"a"', "[[[[", "}}", "]", ",", ":", "../../../etc/passwd",
        "/etc/passwd", "C:\\x", "\\u0000", "é", "\ufeff", "<", ">", "</object>", "<object>", "&a;",
        '<!DOCTYPE a [<!ENTITY a "aaaa">]>', "<bndbox>", "<!--", "<![CDATA[", "names:", "nc: -3",
        "- ", "\t", "#", "!!python/object", "train: .", "path: /", "~", "1 2 3",
    )
)  # fmt: skip
SECONDS, BYTES = 10, 2 * 2**30


Stroke = tuple[int, int, bytes]  # from where, so many bytes, what is there instead


def strokes(whole: bytes) -> st.SearchStrategy[list[Stroke]]:
    """A few strokes that damage a good file; Hypothesis remembers these, not the files."""
    place = st.integers(0, len(whole))
    word = st.one_of(
        st.sampled_from(WORDS), st.binary(max_size=8), place.map(lambda i: whole[i : i + 60])
    )
    return st.lists(st.tuples(place, st.integers(0, 40), word), min_size=1, max_size=5)


def damaged(whole: bytes, strokes: Sequence[Stroke]) -> bytes:
    """The file after them."""
    for start, length, word in strokes:
        whole = whole[:start] + word + whole[start + length :]
    return whole


def _pictures(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (60, 40), "grey").save(folder / f"{name}.jpg")


def _xml(folder: Path) -> tuple[Path, Callable[[], object]]:
    _pictures(folder)
    box = "<bndbox><xmin>5</xmin><ymin>6</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>"
    thing = f"<object><name>cat</name><difficult>0</difficult>{box}</object>"
    size = "<size><width>60</width><height>40</height><depth>3</depth></size>"
    text = f"<annotation><filename>a.jpg</filename>{size}{2 * thing}</annotation>"
    for name in ("a", "b"):
        (folder / f"{name}.xml").write_text(text)
    return folder / "a.xml", lambda: FolderDataset(folder)


def _coco(folder: Path) -> tuple[Path, Callable[[], object]]:
    _pictures(folder / "images")
    content = {
        "images": [
            {"id": i, "file_name": f"{name}.jpg", "width": 60, "height": 40}
            for i, name in enumerate("ab", start=1)
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 7, "bbox": [5, 6, 30, 20], "area": 600,
             "iscrowd": 0}
            for i in (1, 2)
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
    }  # fmt: skip
    path = folder / "annotations" / "instances.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    return path, lambda: FolderDataset(folder)


def _yolo(folder: Path, damaged_file: str) -> tuple[Path, Callable[[], object]]:
    _pictures(folder / "images")
    (folder / "labels").mkdir()
    for name in ("a", "b"):
        (folder / "labels" / f"{name}.txt").write_text("0 0.4 0.5 0.3 0.4\n1 0.6 0.5 0.25 0.5\n")
    (folder / "data.yaml").write_text("path: .\ntrain: images\nnc: 2\nnames: [cat, dog]\n")
    return folder / damaged_file, lambda: FolderDataset(folder)


def _checkpoint(folder: Path) -> tuple[Path, Callable[[], RetinaNet]]:
    folder.mkdir()
    torch.manual_seed(0)
    model = retinanet_resnet18(2, width=0.05, channels=8, head_convs=1)
    save_checkpoint(folder / "m.pt", model)
    return folder / "m.pt", lambda: load_checkpoint(folder / "m.pt")


READERS: dict[str, Callable[[Path], tuple[Path, Callable[[], object]]]] = {
    "VOC XML": _xml,
    "COCO JSON": _coco,
    "YOLO labels": lambda folder: _yolo(folder, "labels/a.txt"),
    "YOLO settings": lambda folder: _yolo(folder, "data.yaml"),
    "checkpoint": _checkpoint,
}


def _peak() -> int:
    """The most bytes that this process ever had."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def fuzz(folder: Path, name: str, examples: int, *, seed: bool = True) -> dict[str, object]:
    """A reader meets so many damaged files.

    Args:
        folder: that does not exist yet.
        name: of `READERS`.
        examples: how many files.
        seed: the same files each time.

    Returns:
        how many were read and refused, the longest seconds, and the most bytes.

    Raises:
        AssertionError, or whatever a reader let through.
    """
    path, read = READERS[name](folder)
    read()  # the good one
    whole = path.read_bytes()
    count = {"read": 0, "refused": 0}
    slowest = 0.0

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=seed,
        suppress_health_check=[*HealthCheck],
    )
    @given(strokes(whole))
    def meet(some: list[Stroke]) -> None:
        nonlocal slowest
        path.write_bytes(damaged(whole, some))
        start = time.monotonic()
        try:
            read()
            count["read"] += 1
        except RetinaNetError:
            count["refused"] += 1
        slowest = max(slowest, time.monotonic() - start)
        assert slowest < SECONDS, "it hangs"

    before = _peak()  # a process that did other things may have had more
    meet()
    most = _peak()
    assert most <= max(BYTES, before), f"{most} bytes"
    return {"reader": name, **count, "slowest_seconds": round(slowest, 3), "peak_bytes": most}
