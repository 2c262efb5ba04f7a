"""convert: the round trip, hand-computed numbers, torchvision and pycocotools, and refusals."""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torchvision
from folders import VOC, needs_voc, voc_xml, write_coco, write_picture, write_text
from PIL import Image

from retinanet_edu import FolderDataset, VOCDataset
from retinanet_edu.cli import main
from retinanet_edu.cli.options import data_options, open_data
from retinanet_edu.data.convert import convert
from retinanet_edu.data.records import FORMATS, Records, read_records
from retinanet_edu.data.shapes import write_voc
from retinanet_edu.errors import DataError

pytestmark = pytest.mark.filterwarnings("error")

CAT = ("cat", (11, 6, 30, 25))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO with fractions, crowds, splits, an empty picture and a class that is nowhere."""
    root = tmp_path_factory.mktemp("source")
    number = itertools.count()
    for split in ("train", "val"):
        images = {i: f"{split} {i}.png" for i in range(4)}
        for name in images.values():
            write_picture(root / split / name, next(number))
        boxes = [
            (0, 9, [0, 0, 60, 40]),
            (0, 2, [1 / 3, 2.25, 10.125, 1e-3]),
            (1, 4, [59.5, 39.5, 0.5, 0.5], 1),
            (2, 2, [5, 5, 7, 8]),
        ]
        names = {4: 'a "b": c#', 2: "zebra & <co>", 9: "école", 5: "never"}
        write_coco(root / split / "x.json", images, boxes, names)
    return root


def content(records: Records, with_difficult: bool = True) -> dict[bytes, Any]:
    """By a picture's bytes: split, and the objects."""
    return {
        r.picture.read_bytes(): (
            r.split,
            [(o.name, o.difficult) for o in r.objects if with_difficult or not o.difficult],
            [o.box for o in r.objects if with_difficult or not o.difficult],
        )
        for r in records.records
    }


def assert_same(after: Records, before: Records, with_difficult: bool = True) -> None:
    found, expected = content(after), content(before, with_difficult)
    assert found.keys() == expected.keys()
    for picture, (split, names, boxes) in expected.items():
        assert found[picture][:2] == (split, names)
        for box, other in zip(found[picture][2], boxes, strict=True):
            assert box == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize(("first", "second"), list(itertools.product(FORMATS, FORMATS)))
def test_the_round_trip(source: Path, tmp_path: Path, first: str, second: str) -> None:
    before = read_records(source)
    convert(source, tmp_path / "1", first)
    after = convert(tmp_path / "1", tmp_path / "2", second)
    assert after.format == second
    assert after.classes == before.classes == ("zebra & <co>", 'a "b": c#', "never", "école")
    assert not after.faults
    assert not after.unlabelled
    assert_same(after, before, "yolo" not in (first, second))
    # And it is a dataset that can be trained on.
    data = FolderDataset(tmp_path / "2", "val")
    assert len(data) == 4
    assert data[0][0].shape == (3, 40, 60)


def test_yolo_by_hand(tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.jpg")
    write_text(tmp_path / "in" / "a.xml", voc_xml(CAT, ("ape", (1, 1, 60, 40))))
    convert(tmp_path / "in", tmp_path / "out", "yolo")
    # 10 5 30 25 of 60 × 40: centre (20, 15), sides 20 and 20.
    lines = (tmp_path / "out/labels/a.txt").read_text().splitlines()
    assert lines == ["1 0.333333333 0.375 0.333333333 0.5", "0 0.5 0.5 1 1"]
    assert (tmp_path / "out/data.yaml").read_text() == 'path: .\nnames:\n  0: "ape"\n  1: "cat"\n'
    assert (tmp_path / "out/images/a.jpg").read_bytes() == (tmp_path / "in/a.jpg").read_bytes()


def test_coco_is_for_pycocotools(source: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found = convert(source, tmp_path / "out", "coco")
    path = tmp_path / "out/annotations/instances_val.json"
    with contextlib.redirect_stdout(io.StringIO()):
        witness = COCO(str(path))
        results = [
            {
                "image_id": a["image_id"],
                "category_id": a["category_id"],
                "bbox": a["bbox"],
                "score": 1,
            }
            for a in witness.anns.values()
            if not a["iscrowd"]
        ]
        judge = COCOeval(witness, witness.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert judge.stats[0] == pytest.approx(1)  # what is true, found with certainty
    names = [witness.cats[i]["name"] for i in witness.getCatIds()]
    assert names == list(found.classes or ())
    assert sum(a["iscrowd"] for a in witness.anns.values()) == 1
    assert all(
        a["area"] == pytest.approx(a["bbox"][2] * a["bbox"][3]) for a in witness.anns.values()
    )
    assert {i["file_name"] for i in witness.imgs.values()} == {f"val_{i}.png" for i in range(4)}


def test_voc_is_for_torchvision_and_for_vocdataset(tmp_path: Path) -> None:
    write_voc(tmp_path / "shapes", train=3, val=2)
    convert(tmp_path / "shapes", tmp_path / "yolo", "yolo")
    convert(tmp_path / "yolo", tmp_path / "voc", "voc")
    witness = torchvision.datasets.VOCDetection(str(tmp_path / "voc"), "2007", "train")
    data, before = (VOCDataset(tmp_path / name, split="train") for name in ("voc", "shapes"))
    assert len(witness) == len(data) == 3
    for i in range(3):
        image, annotation = witness[i]
        objects = annotation["annotation"]["object"]
        expected = [
            [round(float(o["bndbox"][k]), 5) for k in ("xmin", "ymin", "xmax", "ymax")]
            for o in objects
        ]
        boxes = data.target(i)["boxes"]
        assert (boxes + boxes.new_tensor([1, 1, 0, 0])).tolist() == [
            pytest.approx(box, abs=1e-4) for box in expected
        ]
        assert image.size == tuple(data[i][0].shape[:0:-1])
        easy = ~before.target(i)["difficult"]
        assert boxes.tolist() == [
            pytest.approx(box, abs=1e-4) for box in before.target(i)["boxes"][easy].tolist()
        ]


@pytest.fixture(scope="module")
def photographs() -> Records:
    """Fifty or so."""
    found = read_records(str(VOC), "voc")
    return found._replace(records=found.records[::30])


@needs_voc
@pytest.mark.parametrize("to", ["coco", "yolo"])
def test_photographs_go_there_and_back(photographs: Records, tmp_path: Path, to: str) -> None:
    before = photographs
    after = convert(
        convert(before, tmp_path / "1", to, link=True), tmp_path / "2", "voc", link=True
    )
    assert_same(after, before, to != "yolo")


def test_pictures_may_be_linked(source: Path, tmp_path: Path) -> None:
    found = convert(source, tmp_path / "out", "yolo", link=True)
    assert all(r.picture.is_symlink() and r.picture.is_file() for r in found.records)


def test_a_turned_picture_stays_as_it_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "in" / "a.jpg", exif=exif)
    write_text(tmp_path / "in" / "a.txt", "0 .5 .5 1 1")
    found = convert(tmp_path / "in", tmp_path / "out", "voc")
    assert found.records[0].size == (60, 40)
    assert FolderDataset(found).target(0)["boxes"].tolist() == [[0, 0, 40, 60]]


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", FORMATS)
def test_names_of_pictures_stay_in_the_folder_and_stay_apart(tmp_path: Path, to: str) -> None:
    hostile = ["..x", "-rf", "a\nb", "a b", "a_b", "A B", "é 1", "x;rm", '"&<>', "%2e%2e"]
    for i, name in enumerate(hostile):
        write_picture(tmp_path / "in" / "deep" / f"{name}.jpg", i)
    names = {i: f"deep/{name}.jpg" for i, name in enumerate(hostile)}
    boxes = [(i, 1, [i, i, 10, 10]) for i in range(len(hostile))]
    write_coco(tmp_path / "in" / "x.json", names, boxes, {1: "cat"})
    before = read_records(tmp_path / "in")
    assert len(before.records) == len(hostile)
    after = convert(before, tmp_path / "out", to)
    assert_same(after, before)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]
    assert all(r.picture.resolve().is_relative_to(tmp_path / "out") for r in after.records)


@pytest.mark.parametrize("to", ["voc", "yolo"])
def test_a_class_that_cannot_be_written(tmp_path: Path, to: str) -> None:
    write_picture(tmp_path / "in" / "a.jpg")
    write_coco(tmp_path / "in" / "x.json", {1: "a.jpg"}, [(1, 1, [1, 1, 5, 5])], {1: "a\nb"})
    with pytest.raises(DataError, match=r"class 'a\\nb'.*rename it"):
        convert(tmp_path / "in", tmp_path / "out", to)
    assert not (tmp_path / "out").exists()


# --- refusals -------------------------------------------------------------------------------------


def fill(folder: Path) -> None:
    write_text(folder / "mine.txt", "precious")


@pytest.mark.parametrize(
    ("prepare", "where", "words"),
    [
        (lambda root: fill(root / "out"), "out", "something already"),
        (lambda root: write_text(root / "out", ""), "out", "something already"),
        (lambda root: None, "in/out", "outside of it"),
        (lambda root: None, "in", "something already"),
        (lambda root: (root / "link").symlink_to(root / "in"), "link/out", "outside of it"),
    ],
)
def test_it_overwrites_nothing(
    tmp_path: Path, prepare: Callable[[Path], Any], where: str, words: str
) -> None:
    write_picture(tmp_path / "in" / "a.jpg")
    write_text(tmp_path / "in" / "a.xml", voc_xml(CAT))
    prepare(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(DataError, match=words):
        convert(tmp_path / "in", tmp_path / where, "coco")
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_faults_are_not_carried_over(tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.jpg")
    write_text(tmp_path / "in" / "a.xml", voc_xml(CAT, ("dog", (30, 6, 11, 25))))
    with pytest.raises(DataError, match=r"object 2 \(dog\).*inverted"):
        convert(tmp_path / "in", tmp_path / "out", "coco")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_failure_half_way_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(DataError, match=r"out: could not be written .*No space left"):
        convert(source, tmp_path / "out", "voc")
    assert not list(tmp_path.iterdir())


def test_the_command(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["convert", str(source), str(out), "--to", "yolo"]) == 0
    said = capsys.readouterr().out
    assert "8 pictures and 6 objects of 4 classes, coco → yolo" in said
    assert "2 difficult objects are left out" in said
    assert main(["convert", str(source), str(out), "--to", "yolo"]) == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert json.dumps("école", ensure_ascii=False) in (out / "data.yaml").read_text("utf-8")


def test_the_folder_one_stands_in_may_be_the_new_one(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    convert(source, ".", "yolo")
    assert Path("data.yaml").is_file()


def test_what_was_converted_to_voc_has_its_own_classes_in_every_command(tmp_path: Path) -> None:
    """Not VOC's twenty, though "person" and "car" are among them, nor in another order."""
    classes = ["person", "car"]
    for i in range(4):
        write_picture(tmp_path / "own" / "train" / "images" / f"{i}.png", i)
        text = f"{i % 2} 0.5 0.5 0.5 0.5\n"
        write_text(tmp_path / "own" / "train" / "labels" / f"{i}.txt", text)
    write_text(tmp_path / "own" / "classes.txt", "".join(f"{name}\n" for name in classes))
    convert(tmp_path / "own", tmp_path / "new", to="voc")
    for folder in ("own", "new"):
        parser = argparse.ArgumentParser()
        data_options(parser)
        options = parser.parse_args(["--data", str(tmp_path / folder)])
        with contextlib.redirect_stdout(io.StringIO()):
            train, val = open_data(options, ["train", "val"], None)
        assert list(train.classes) == classes
        assert len(train) + len(val) == 4
