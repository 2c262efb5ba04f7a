"""records: three formats, many layouts, hand-computed boxes, pycocotools as witness, bad input."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from folders import VOC, coco, needs_voc, voc_xml, write_coco, write_picture, write_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from retinanet_edu.data.records import Records, read_records
from retinanet_edu.data.records.plain_yaml import read_plain_yaml
from retinanet_edu.data.voc import VOCDataset
from retinanet_edu.errors import DataError

pytestmark = pytest.mark.filterwarnings("error")


def table(records: Records) -> dict[str, Any]:
    """By image: its split and its objects."""
    return {
        r.image_id: (r.split, [(o.name, o.box, o.difficult) for o in r.objects])
        for r in records.records
    }


def all_faults(records: Records) -> list[str]:
    return [*records.faults, *(fault for r in records.records for fault in r.faults)]


def faults_or_error(root: Path) -> list[str]:
    try:
        return all_faults(read_records(root))
    except DataError as error:
        return [str(error)]


# --- VOC ------------------------------------------------------------------------------------------

CAT = ("cat", (11, 6, 30, 25))
CAT_READ = ("cat", (10.0, 5.0, 30.0, 25.0), False)


@pytest.mark.parametrize(
    ("pictures", "annotations", "split"),
    [
        (".", ".", None),
        ("images", "labels_xml", None),
        ("JPEGImages", "Annotations", None),
        ("VOCdevkit/VOC2012/JPEGImages", "VOCdevkit/VOC2012/Annotations", None),
        ("train", "train", "train"),
        ("valid/images", "valid/annotations", "val"),
        ("images/Train2017", "xml/Train2017", "train"),
    ],
)
def test_voc_in_any_folder(tmp_path: Path, pictures: str, annotations: str, split: str) -> None:
    for i in range(2):
        write_picture(tmp_path / pictures / f"p{i}.jpg", i)
        write_text(tmp_path / annotations / f"p{i}.xml", voc_xml(CAT, ("dog", (1, 1, 2, 2, 1))))
    found = read_records(tmp_path)
    assert found.format == "voc"
    assert found.classes is None
    assert not all_faults(found)
    rows = [CAT_READ, ("dog", (0.0, 0.0, 2.0, 2.0), True)]
    assert table(found) == {"p0": (split, rows), "p1": (split, rows)}
    assert found.records[0].picture == tmp_path / pictures / "p0.jpg"
    assert found.records[0].size == (40, 60)


def test_voc_lists_beside_the_annotations_tell_the_split(tmp_path: Path) -> None:
    for i in range(3):
        write_picture(tmp_path / "JPEGImages" / f"{i}.png", i)
        write_text(tmp_path / "Annotations" / f"{i}.xml", voc_xml(CAT))
    write_text(tmp_path / "ImageSets/Main/train.txt", "0\n")
    path = write_text(tmp_path / "ImageSets/Main/val.txt", "1\n/gone\n")
    found = read_records(tmp_path)
    assert [r.split for r in found.records] == ["train", "val", None]
    (fault,) = all_faults(found)
    assert fault.startswith(f"{path}: '/gone' has no annotation")


def test_voc_a_picture_goes_by_the_filename_where_names_differ(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg")
    write_picture(tmp_path / "b.jpg", 1)
    xml = voc_xml(CAT).replace("<annotation>", "<annotation><filename>a.jpg</filename>")
    write_text(tmp_path / "first.xml", xml)
    found = read_records(tmp_path)
    assert found.records[0].picture == tmp_path / "a.jpg"
    assert found.unlabelled == [tmp_path / "b.jpg"]


@pytest.mark.parametrize(
    ("pictures", "masks"), [("JPEGImages", "SegmentationClass"), ("images", "masks")]
)
def test_masks_of_the_same_name_are_not_taken(tmp_path: Path, pictures: str, masks: str) -> None:
    write_picture(tmp_path / pictures / "a.jpg")
    write_picture(tmp_path / masks / "a.png")
    write_text(tmp_path / "Annotations/a.xml", voc_xml(CAT))
    found = read_records(tmp_path)
    assert not all_faults(found)
    assert found.records[0].picture == tmp_path / pictures / "a.jpg"
    assert found.unlabelled == ([tmp_path / masks / "a.png"] if masks == "masks" else [])


def test_two_pictures_that_are_as_near_are_asked_about(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_picture(tmp_path / name / "a.jpg")
    write_text(tmp_path / "xml/a.xml", voc_xml(CAT))
    (fault,) = all_faults(read_records(tmp_path))
    assert re.search(r"a\.xml: it may be .*one.a\.jpg or .*two.a\.jpg; rename or remove one", fault)


def test_boxes_are_as_written_however_wrong(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg")
    write_text(tmp_path / "a.xml", voc_xml(("x", (30, 5, 10, 2)), ("y", ("nan", -5, 1e9, 0))))
    found = read_records(tmp_path)
    assert not all_faults(found)
    first, second = (o.box for o in found.records[0].objects)
    assert first == (29, 4, 10, 2)
    assert second[0] != second[0]
    assert second[1:] == (-6, 1e9, 0)


@needs_voc
def test_voc_says_what_vocdataset_says() -> None:
    data = VOCDataset(str(VOC), split="val")
    found = {r.image_id: r for r in read_records(str(VOC), "voc").records if r.split == "val"}
    assert list(found) == data.image_ids
    for i in range(0, len(data), 7):
        record, target = found[data.image_ids[i]], data.target(i)
        assert record.picture == data.image_path(i)
        assert [o.box for o in record.objects] == [tuple(b) for b in target["boxes"].tolist()]
        assert [o.difficult for o in record.objects] == target["difficult"].tolist()


# --- COCO -----------------------------------------------------------------------------------------


def test_coco_by_hand(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_picture(tmp_path / "images" / f"{name}.jpg")
    write_coco(
        tmp_path / "annotations/instances_train2017.json",
        {7: "a.jpg", 9: "b.jpg"},
        [(7, 5, [1.5, 2, 10, 20.25]), (7, 2, [0, 0, 60, 40], 1)],
        {5: "cat", 2: "dog", 90: "none here"},  # ids with gaps, out of order
    )
    found = read_records(tmp_path)
    assert found.format == "coco"
    assert found.classes == ("dog", "cat", "none here")
    cat, dogs = ("cat", (1.5, 2.0, 11.5, 22.25), False), ("dog", (0.0, 0.0, 60.0, 40.0), True)
    assert table(found) == {"a": ("train", [cat, dogs]), "b": ("train", [])}
    assert not all_faults(found)
    alone = read_records(tmp_path / "annotations/instances_train2017.json")
    assert table(alone) == table(found)


def test_coco_is_what_pycocotools_reads(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    names = [f"sub/{i}.jpg" for i in range(5)]
    for i, name in enumerate(names):
        write_picture(tmp_path / "train" / name, i)
    boxes = [(i % 4, 3 * (i % 3) + 1, [i, 1.25 * i, 9, 4.5], i % 2) for i in range(12)]
    path = tmp_path / "train" / "_annotations.coco.json"
    write_coco(path, dict(enumerate(names)), boxes, {1: "x", 4: "y", 7: "z"})
    with contextlib.redirect_stdout(io.StringIO()):
        witness = COCO(str(path))
    found = read_records(tmp_path)
    assert found.classes == tuple(c["name"] for c in witness.loadCats(witness.getCatIds()))
    for key, name in enumerate(names):
        (record,) = (r for r in found.records if r.picture == tmp_path / "train" / name)
        expected = witness.loadAnns(witness.getAnnIds(imgIds=[key]))
        rows = []
        for one in expected:
            x, y, w, h = one["bbox"]
            category = witness.cats[one["category_id"]]["name"]
            rows.append((category, (x, y, x + w, y + h), bool(one["iscrowd"])))
        assert [tuple(o) for o in record.objects] == rows
        assert record.split == "train"


def test_coco_several_files_each_with_its_split(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_picture(tmp_path / split / "1.jpg", len(split))
        path = tmp_path / f"annotations/instances_{split}.json"
        write_coco(path, {1: "1.jpg"}, [(1, 1, [0, 0, 5, 5])], {1: split + "ed"})
    found = read_records(tmp_path)
    assert [f for f in all_faults(found) if "one id in all files" in f]
    path.write_text(path.read_text().replace("valed", "trained"))
    (tmp_path / "annotations/captions_val.json").write_text('{"images": [], "annotations": []}')
    found = read_records(tmp_path)
    assert not all_faults(found)
    assert {r.picture: r.split for r in found.records} == {
        tmp_path / "train/1.jpg": "train",
        tmp_path / "val/1.jpg": "val",
    }
    assert len({r.image_id for r in found.records}) == 2


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../secret.jpg", "a/../../b.jpg", "C:\\x.jpg", "..\\x.jpg", "", "\0"]
)
def test_coco_a_name_never_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    write_picture(tmp_path / "data" / "a.jpg")
    write_picture(tmp_path / "secret.jpg")
    write_coco(tmp_path / "data" / "x.json", {1: name}, [], {1: "cat"})
    found = read_records(tmp_path / "data")
    assert not found.records
    (fault,) = found.faults
    assert "inside of the folder" in fault


GOOD = coco({1: "a.jpg"}, [(1, 1, [1, 2, 3, 4])], {1: "cat"})


def put(path: str, value: Any) -> dict[str, Any]:
    """COCO's content with one value replaced; a key of `del` is removed."""
    content = json.loads(json.dumps(GOOD))
    *way, last = path.split(".")
    place: Any = content
    for step in way:
        place = place[int(step) if step.isdigit() else step]
    if value is KeyError:
        del place[last]
    else:
        place[int(last) if last.isdigit() else last] = value
    return content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (put("annotations.0.category_id", 2), ["no category", "2"]),
        (put("annotations.0.category_id", [1]), ["category_id"]),
        (put("annotations.0.category_id", True), ["category_id"]),
        (put("annotations.0.image_id", 5), ["no image", "5"]),
        (put("annotations.0.image_id", KeyError), ["no image_id"]),
        (put("annotations.0.bbox", KeyError), ["no bbox"]),
        (put("annotations.0.bbox", [1, 2, 3]), ["not four numbers"]),
        (put("annotations.0.bbox", [1, 2, 3, "4"]), ["'4'", "number"]),
        (put("annotations.0.bbox", [1, 2, 3, 10**400]), ["number"]),
        (put("annotations.0.bbox", [1, 2, 3, None]), ["None"]),
        (put("annotations.0", 17), ["not an object"]),
        (put("images.0.id", KeyError), ["no id"]),
        (put("images.0.file_name", 3), ["file_name"]),
        (put("images.0", None), ["not an object"]),
        (put("images.0.file_name", "b.jpg"), ["no such picture"]),
        (put("categories.0.name", 3), ["name"]),
        (put("categories.0.name", " "), ["name"]),
        (put("categories.0.id", 1.5), ["id", "1.5"]),
        (put("images", GOOD["images"] * 2), ["another image has the id 1"]),
        (put("categories", [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]), ["another id"]),
        (put("categories", [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]), ["one id"]),
        (put("images", {}), ["not COCO's JSON"]),
    ],
)
def test_coco_a_fault_is_a_line_with_file_cause_and_remedy(
    tmp_path: Path, content: Any, words: list[str]
) -> None:
    write_picture(tmp_path / "a.jpg")
    path = write_text(tmp_path / "x.json", json.dumps(content))
    faults = all_faults(read_records(tmp_path))
    (line, *_) = (fault for fault in faults if all(word in fault for word in words))
    assert str(path) in line
    assert "\n" not in line
    assert len(line) < len(str(tmp_path)) * 2 + 250


def test_coco_numbers_that_json_has_and_does_not_have(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg")
    text = json.dumps(GOOD).replace("[1, 2, 3, 4]", "[NaN, 1e999, 3, 4]")
    write_text(tmp_path / "x.json", text)
    found = read_records(tmp_path)
    box = found.records[0].objects[0].box
    assert not all_faults(found)
    assert box[0] != box[0]
    assert box[1] == float("inf")


@pytest.mark.parametrize(
    "text",
    [
        '{"images": [], "annotations": [], "categories": ' + "[" * 100_000,
        '{"images": [], "annotations": [], "categories": []',
        '{"images": [' + "1" * 5000 + '], "annotations": [], "categories": []}',
        b'{"images": [], "annotations": [], "categories": ["\xff"]}',
    ],
    ids=["nested", "cut short", "a number of 5000 digits", "not UTF-8"],
)
def test_coco_text_that_is_no_json(tmp_path: Path, text: str | bytes) -> None:
    write_picture(tmp_path / "a.jpg")
    write_text(tmp_path / "x.json", text)
    (fault,) = all_faults(read_records(tmp_path))
    assert "x.json" in fault
    assert "mend or remove" in fault


def test_a_hundred_thousand_boxes_are_read(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg")
    write_coco(tmp_path / "x.json", {1: "a.jpg"}, [(1, 1, [1, 2, 3, 4])] * 100_000, {1: "cat"})
    assert len(read_records(tmp_path).records[0].objects) == 100_000


# --- YOLO -----------------------------------------------------------------------------------------


def write_yolo(root: Path, layout: str, names: str, text: str) -> None:
    where = {
        "images and labels": ("images/a.jpg", "labels/a.txt"),
        "splits inside": ("images/train/a.jpg", "labels/train/a.txt"),
        "splits outside": ("train/images/a.jpg", "train/labels/a.txt"),
        "side by side": ("obj_train_data/a.jpg", "obj_train_data/a.txt"),
        "names of one's own": ("pictures/a.jpg", "boxes/a.txt"),
    }
    picture, labels = where[layout]
    write_picture(root / picture)
    write_text(root / labels, text)
    content = {
        "data.yaml": "train: ../train/images\nnc: 2\nnames: ['dog', \"cat's eye\"]  # two\n",
        "set.yaml": "names:\n  0: dog\n  1: cat's eye\ntrain: images\nval: images\n",
        "classes.txt": "dog\ncat's eye\n",
        "obj.names": "dog\r\ncat's eye",
    }
    write_text(root / names, content[names])


@pytest.mark.parametrize("names", ["data.yaml", "set.yaml", "classes.txt", "obj.names"])
@pytest.mark.parametrize(
    ("layout", "split"),
    [
        ("images and labels", None),
        ("splits inside", "train"),
        ("splits outside", "train"),
        ("side by side", None),
        ("names of one's own", None),
    ],
)
def test_yolo_by_hand(tmp_path: Path, layout: str, split: str, names: str) -> None:
    # 60 × 40 pixels: centre (30, 10), 15 wide, 8 high; an outline from (6, 4) to (54, 36).
    text = "1 0.5 0.25 0.25 0.2\n\n0 0.1 0.1 0.9 0.1 0.5 0.9\n"
    write_yolo(tmp_path, layout, names, text)
    found = read_records(tmp_path)
    assert not all_faults(found)
    assert found.format == "yolo"
    assert found.classes == ("dog", "cat's eye")
    ((told, rows),) = table(found).values()
    if layout == "images and labels" and names == "data.yaml":
        split = "train"  # its settings say so: ../train/images ends with images
    assert told == split
    assert [row[0] for row in rows] == ["cat's eye", "dog"]
    assert rows[0][1] == pytest.approx((22.5, 6, 37.5, 14))
    assert rows[1][1] == pytest.approx((6, 4, 54, 36))
    assert found.records[0].size is None


def test_yolo_shares_are_of_the_picture_as_it_is_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    write_text(tmp_path / "a.txt", "0 0.5 0.5 1 1")
    assert read_records(tmp_path).records[0].objects[0].box == (0, 0, 40, 60)


def test_yolo_without_names_has_numbers_and_pictures_without_labels_are_background(
    tmp_path: Path,
) -> None:
    for i in range(3):
        write_picture(tmp_path / f"images/{i}.jpg", i)
    write_text(tmp_path / "labels/0.txt", "10 .5 .5 .1 .1\n2 .5 .5 .1 .1")
    write_text(tmp_path / "labels/1.txt", "")
    found = read_records(tmp_path)
    assert found.classes == ("2", "10")
    assert [len(r.objects) for r in found.records] == [2, 0, 0]
    assert not all_faults(found)


def test_yolo_lists_tell_the_split_whatever_machine_wrote_them(tmp_path: Path) -> None:
    for i in range(3):
        write_picture(tmp_path / f"data/obj/{i}.jpg", i)
        write_text(tmp_path / f"data/obj/{i}.txt", "0 .5 .5 .1 .1")
    write_text(tmp_path / "train.txt", "/home/someone/set/data/obj/0.jpg\ndata/obj/2.jpg\n")
    write_text(tmp_path / "val.txt", "C:\\set\\obj\\1.jpg\n../../etc/passwd\n")
    assert [r.split for r in read_records(tmp_path).records] == ["train", "val", "train"]


def test_yolo_a_label_of_another_split_is_not_taken(tmp_path: Path) -> None:
    for i, split in enumerate(("train", "val")):
        write_picture(tmp_path / f"images/{split}/a.jpg", i)
    write_text(tmp_path / "labels/val/a.txt", "0 .5 .5 .1 .1")
    found = read_records(tmp_path)
    assert {r.split: len(r.objects) for r in found.records} == {"train": 0, "val": 1}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 1 2 3", ["4 numbers"]),
        ("0 .5 .5 .1 .1 .9", ["a score"]),
        ("0 .5 .5 .1 x", ["not numbers"]),
        ("0.5 .5 .5 .1 .1", ["class is '0.5'"]),
        ("-1 .5 .5 .1 .1", ["class is '-1'"]),
        ("nan .5 .5 .1 .1", ["class is"]),
        ("1e300 .5 .5 .1 .1", ["class is"]),
        ("2 .5 .5 .1 .1", ["class 2", "names of 2"]),
        ("\0" * 1000, ["not numbers"]),
    ],
)
def test_yolo_a_fault_names_its_line(tmp_path: Path, line: str, words: list[str]) -> None:
    write_picture(tmp_path / "a.jpg")
    write_text(tmp_path / "classes.txt", "a\nb\n")
    path = write_text(tmp_path / "a.txt", f"0 .5 .5 .1 .1\n{line}\n")
    (fault,) = all_faults(read_records(tmp_path))
    assert fault.startswith(f"{path}: line 2: ")
    assert all(word in fault for word in words)


def test_yolo_a_file_of_another_kind_is_ten_lines_and_a_count(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg")
    write_text(tmp_path / "a.txt", "words\n" * 5000)
    faults = all_faults(read_records(tmp_path))
    assert len(faults) == 11
    assert "4990 more" in faults[-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: [a", ["line 1", "not closed"]),
        ("names: [a, a]", ["different"]),
        ("names:\n  0: a\n  2: b", ["numbered"]),
        ("names: []", ["at least one"]),
        ("names:\n  - a\nnonsense", ["line 3"]),
        ("names: {a, b}", ["line 1"]),
    ],
)
def test_yolo_settings_that_cannot_be_read(tmp_path: Path, text: str, words: list[str]) -> None:
    write_picture(tmp_path / "a.jpg")
    write_text(tmp_path / "a.txt", "0 .5 .5 .1 .1")
    path = write_text(tmp_path / "data.yaml", text)
    (fault,) = all_faults(read_records(tmp_path))
    assert fault.startswith(f"{path}: ")
    assert all(word in fault for word in words)


def test_yaml_as_settings_use_it() -> None:
    text = (
        "# a comment\n---\npath: ../set  # where\ntrain: [a,\n  'b, c']\nval:\n  - d\n  - it's\n"
        'names: {0: a, 1: "b: #\\u00e9"}\ndownload: |\n  import os\n  x = {1: 2}\n\nnc: 2\n'
        "\"key: \": 'it''s'\n"
    )
    assert read_plain_yaml(text) == {
        "path": "../set",
        "train": ["a", "b, c"],
        "val": ["d", "it's"],
        "names": {"0": "a", "1": "b: #é"},
        "download": "",
        "nc": "2",
        "key: ": "it's",
    }


# --- which format ---------------------------------------------------------------------------------


def test_a_folder_with_two_formats_is_asked_about(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg")
    write_text(tmp_path / "a.xml", voc_xml(CAT))
    write_text(tmp_path / "a.txt", "0 .5 .5 .1 .1")
    with pytest.raises(DataError, match=r"several formats: voc \(.*a\.xml\), yolo \(.*--format"):
        read_records(tmp_path)
    assert read_records(tmp_path, "yolo").format == "yolo"
    assert read_records(tmp_path, "voc").format == "voc"
    with pytest.raises(DataError, match="no annotations of the format coco"):
        read_records(tmp_path, "coco")


@pytest.mark.parametrize("format", ["pascal", "VOC"])
def test_an_unknown_format(tmp_path: Path, format: str) -> None:
    with pytest.raises(DataError, match="voc, coco, yolo"):
        read_records(tmp_path, format)


def test_a_folder_that_is_not_there_or_has_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_records(tmp_path / "x")
    write_picture(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="a file; give the folder"):
        read_records(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="looked for XML"):
        read_records(tmp_path)


def test_paths_may_be_relative_and_links_may_go_in_circles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_picture(tmp_path / "elsewhere" / "a.jpg")
    write_text(tmp_path / "set" / "a.xml", voc_xml(CAT))
    (tmp_path / "set" / "images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "set")
    monkeypatch.chdir(tmp_path / "set")
    found = read_records(".")
    assert not all_faults(found)
    assert found.records[0].picture == Path("images/a.jpg")


# --- XML and mutated files ------------------------------------------------------------------------

BOMB = (
    '<!DOCTYPE a [<!ENTITY b "xxxxxxxxxx">'
    + "".join(
        f'<!ENTITY {n} "{"&" + m + ";" * 1}{("&" + m + ";") * 9}">'
        for m, n in zip("bcdefgh", "cdefghi")
    )
    + "]><annotation><object><name>&i;</name></object></annotation>"
)


@pytest.mark.parametrize(
    "text",
    [BOMB, "<annotation>", "<note/>", "", b"\xff\xfe\x00", "<annotation>" + "<a>" * 50_000],
    ids=["entity bomb", "cut short", "another root", "empty", "binary", "nested"],
)
def test_voc_text_that_is_no_annotation(tmp_path: Path, text: str | bytes) -> None:
    write_picture(tmp_path / "a.jpg")
    path = write_text(tmp_path / "a.xml", text)
    (fault,) = all_faults(read_records(tmp_path))
    assert fault.startswith(f"{path}: not ")
    assert "remove it" in fault
    assert len(fault.splitlines()) == 1


SEEDS = {
    "a.xml": voc_xml(CAT, ("dog", (1, 1, 2, 2, 1))),
    "x.json": json.dumps(GOOD),
    "a.txt": "0 0.5 0.5 0.1 0.1\n1 0.1 0.1 0.9 0.1 0.5 0.9\n",
    "data.yaml": "names: [a, b]\ntrain: images/train\nval: [x, y]\n",
}


@pytest.fixture(scope="module")
def mutated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutated")
    for name in SEEDS:
        write_picture(folder / Path(name).stem / "a.jpg")
    write_text(folder / "data" / "a.txt", SEEDS["a.txt"])
    return folder


@pytest.mark.parametrize("name", SEEDS)
@settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_mutated_file_raises_nothing_but_the_projects_own(
    mutated: Path, name: str, data: st.DataObject
) -> None:
    text = SEEDS[name].encode()
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(start + 20, len(text))))
    pieces = st.sampled_from(
        [b"NaN", b"-1", b"1e999", b"null", b'"', b"[", b"{", b"<", b"&", b"../", b"\n", b": ", b"'"]
    )
    new = data.draw(st.one_of(st.binary(max_size=8), pieces, st.just(text[stop : stop + 30])))
    folder = mutated / Path(name).stem
    write_text(folder / name, text[:start] + new + text[stop:])
    for fault in faults_or_error(folder):
        assert str(folder) in fault
        assert "\n" not in fault
