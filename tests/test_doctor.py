"""The doctor: faults that are planted in copies of a clean data set, and whether it finds each."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from folders import voc_xml, write_picture, write_text
from PIL import Image

from retinanet_edu.anchors import AnchorGenerator
from retinanet_edu.boxes import pairwise_iou
from retinanet_edu.cli import main
from retinanet_edu.data.doctor import Diagnosis, examine
from retinanet_edu.data.doctor.boxes import check_boxes
from retinanet_edu.data.doctor.cluster import cluster_shapes
from retinanet_edu.data.doctor.first_loss import expected_first_loss
from retinanet_edu.data.doctor.reach import best_overlaps, ratios_that_fit, scale_objects
from retinanet_edu.data.doctor.survey import survey
from retinanet_edu.data.folder import check_record
from retinanet_edu.data.images import read_image
from retinanet_edu.data.loading import pad_images
from retinanet_edu.data.records import Record, RecordObject, Records, read_records
from retinanet_edu.data.shapes import write_voc
from retinanet_edu.data.transforms import EvalTransform
from retinanet_edu.heads import PRIOR
from retinanet_edu.losses import criterion
from retinanet_edu.model import retinanet_resnet
from retinanet_edu.structures import Predictions, Targets

PLANTED = 20  # of each kind
CORNERS = ("xmin", "ymin", "xmax", "ymax")
# What a clean but small data set is told.
HARMLESS = {"first-loss", "rare-class", "rare-in-validation", "no-anchor", "ignored-object"}
HARMLESS |= {"no-objects"}


class Folder:
    """A VOC folder whose annotations can be changed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "VOCdevkit" / "VOC2007"
        self.stems = sorted(p.stem for p in (self.home / "Annotations").glob("*.xml"))

    def picture(self, stem: str, suffix: str = ".jpg") -> Path:
        return self.home / "JPEGImages" / f"{stem}{suffix}"

    def annotation(self, stem: str) -> Path:
        return self.home / "Annotations" / f"{stem}.xml"

    def change(self, stem: str, edit: Callable[[ElementTree.Element], object]) -> None:
        tree = ElementTree.parse(self.annotation(stem))
        edit(tree.getroot())
        tree.write(self.annotation(stem))

    def change_box(self, stem: str, edit: Callable[..., tuple]) -> None:
        """Of the first object."""

        def first(root: ElementTree.Element) -> None:
            box = root.find("object/bndbox")
            new = edit(*(float(box.find(key).text) for key in CORNERS))
            for key, value in zip(CORNERS, new, strict=True):
                box.find(key).text = f"{value:g}"

        self.change(stem, first)

    def change_all(self, edit: Callable[..., tuple]) -> None:
        for stem in self.stems:

            def every(root: ElementTree.Element) -> None:
                for box in root.iter("bndbox"):
                    new = edit(*(float(box.find(key).text) for key in CORNERS))
                    for key, value in zip(CORNERS, new, strict=True):
                        box.find(key).text = f"{value:g}"

            self.change(stem, every)


def name_first(name: str) -> Callable[[ElementTree.Element], None]:
    def edit(root: ElementTree.Element) -> None:
        root.find("object/name").text = name

    return edit


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Pictures of shapes, each with an object."""
    root = tmp_path_factory.mktemp("clean")
    write_voc(root, train=400, val=60)
    return Folder(root)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Fewer of them."""
    root = tmp_path_factory.mktemp("few")
    write_voc(root, train=50, val=10, seed=1)
    return Folder(root)


@pytest.fixture
def copy(few: Folder, tmp_path: Path) -> Folder:
    shutil.copytree(few.root, tmp_path / "copy")
    return Folder(tmp_path / "copy")


# --- what is planted ------------------------------------------------------------------------------


def plant_inverted(folder: Folder, stem: str) -> None:
    folder.change_box(stem, lambda x1, y1, x2, y2: (x2, y1, x1, y2))


def plant_empty(folder: Folder, stem: str) -> None:
    folder.change_box(stem, lambda x1, y1, x2, y2: (x1, y1, x2, y1 - 1))


def plant_outside(folder: Folder, stem: str) -> None:
    folder.change_box(stem, lambda x1, y1, x2, y2: (x1, y1, 131, y2))


def plant_nan(folder: Folder, stem: str) -> None:
    folder.change_box(stem, lambda x1, y1, x2, y2: (x1, float("nan"), x2, y2))


def plant_duplicate(folder: Folder, stem: str) -> None:
    folder.change(stem, lambda root: root.append(root.find("object")))


def plant_contradiction(folder: Folder, stem: str) -> None:
    def edit(root: ElementTree.Element) -> None:
        other = ElementTree.fromstring(ElementTree.tostring(root.find("object")))
        name = other.find("name")
        name.text = "disc" if name.text != "disc" else "ring"
        root.append(other)

    folder.change(stem, edit)


def plant_spelling(folder: Folder, stem: str) -> None:
    folder.change(stem, name_first(" Cross" if int(stem[-1]) % 2 else "CROSS"))


def plant_slip(folder: Folder, stem: str) -> None:
    folder.change(stem, name_first("trinagle"))


def plant_nameless(folder: Folder, stem: str) -> None:
    folder.change(stem, name_first(""))


def plant_size(folder: Folder, stem: str) -> None:
    path = folder.picture(stem)
    Image.open(path).resize((96, 96)).save(path)


def plant_turned(folder: Folder, stem: str) -> None:
    """The picture is made higher than wide, and then tagged as if the camera had been turned."""
    path = folder.picture(stem)
    tall = Image.new("RGB", (128, 160))
    tall.paste(Image.open(path))
    exif = Image.Exif()
    exif[0x0112] = 6
    tall.save(path, exif=exif)

    def edit(root: ElementTree.Element) -> None:
        root.find("size/height").text = "160"

    folder.change(stem, edit)


def plant_orientation(folder: Folder, stem: str) -> None:
    path = folder.picture(stem)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(path).save(path, exif=exif)


def plant_missing(folder: Folder, stem: str) -> None:
    folder.picture(stem).unlink()


def plant_broken(folder: Folder, stem: str) -> None:
    path = folder.picture(stem)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if int(stem[-1]) % 2 else b"no picture")


def plant_unreadable(folder: Folder, stem: str) -> None:
    path = folder.annotation(stem)
    path.write_text(path.read_text()[:-20])


def plant_empty_image(folder: Folder, stem: str) -> None:
    def edit(root: ElementTree.Element) -> None:
        for found in root.findall("object"):
            root.remove(found)

    folder.change(stem, edit)


def plant_tiny(folder: Folder, stem: str) -> None:
    folder.change_box(stem, lambda x1, y1, x2, y2: (60, 60, 63, 63))
    folder.change(stem, lambda root: setattr(root.find("object/difficult"), "text", "0"))


def plant_unlearned(folder: Folder, stem: str) -> None:
    folder.change(stem, name_first("hexagon"))


def plant_copy(folder: Folder, stem: str) -> None:
    shutil.copy(folder.picture("shapes_train_0399"), folder.picture(stem))


def plant_leak(folder: Folder, stem: str) -> None:
    """A picture of validation into training: the same pixels, and every second time the bytes."""
    number = int(stem[-4:])
    source = folder.picture(f"shapes_val_{number % 60:04d}")
    if number % 2:
        shutil.copy(source, folder.picture(stem))
    else:
        folder.picture(stem).unlink()
        Image.open(source).save(folder.picture(stem, ".png"))


# What is planted, what it is called, how bad it is.
KINDS: list[tuple[Callable[[Folder, str], None], str, str]] = [
    (plant_inverted, "inverted", "error"),
    (plant_empty, "empty", "error"),
    (plant_outside, "outside", "error"),
    (plant_nan, "nan", "error"),
    (plant_unreadable, "unreadable", "error"),
    (plant_nameless, "unreadable", "error"),
    (plant_spelling, "spelling", "error"),
    (plant_size, "size", "error"),
    (plant_turned, "turned", "error"),
    (plant_missing, "missing", "error"),
    (plant_broken, "broken", "error"),
    (plant_leak, "leak", "error"),
    (plant_duplicate, "duplicate", "warning"),
    (plant_contradiction, "contradiction", "warning"),
    (plant_slip, "like-another", "warning"),
    (plant_orientation, "orientation", "warning"),
    (plant_copy, "copies", "warning"),
    (plant_tiny, "no-anchor", "warning"),
    (plant_empty_image, "no-objects", "note"),
]


@pytest.fixture(scope="module")
def planted(
    clean: Folder, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Diagnosis, dict[str, set[str]]]:
    """All kinds at once, each in 20 pictures of its own, and who has what by the finding's kind."""
    root = tmp_path_factory.mktemp("planted") / "data"
    shutil.copytree(clean.root, root)
    folder = Folder(root)
    usable = []
    for stem in folder.stems:
        tree = ElementTree.parse(folder.annotation(stem))
        if tree.find("object") is not None and "train" in stem and not stem.endswith("_0399"):
            usable.append(stem)
    random.Random(0).shuffle(usable)
    stems: dict[str, set[str]] = {}
    for number, (plant, kind, _) in enumerate(KINDS):
        mine = usable[number * PLANTED : (number + 1) * PLANTED]
        assert len(mine) == PLANTED
        for stem in mine:
            plant(folder, stem)
        stems.setdefault(kind, set()).update(mine)
    return examine(root), stems


def found_stems(diagnosis: Diagnosis, kind: str) -> set[str]:
    (finding,) = diagnosis.of_kind(kind)
    return {Path(place.file.partition(":")[0]).stem for place in finding.places}


# --- single faults --------------------------------------------------------------------------------


def test_a_clean_data_set_has_no_error(clean):
    diagnosis = examine(clean.root)
    assert diagnosis.graded("error") == []
    assert {finding.kind for finding in diagnosis.findings} <= HARMLESS
    assert diagnosis.images == {"train": 400, "val": 60}
    assert sum(diagnosis.objects.values()) > 800


@pytest.mark.parametrize("kind", sorted({kind for _, kind, _ in KINDS}))
def test_each_planted_fault_is_found_with_its_file(planted, kind):
    diagnosis, stems = planted
    found = found_stems(diagnosis, kind)
    assert stems[kind] <= found
    (grade,) = {grade for _, k, grade in KINDS if k == kind}
    (finding,) = diagnosis.of_kind(kind)
    assert finding.grade == grade
    # And nothing else is accused: what else is named is the other one of a pair, or true.
    others = found - stems[kind]
    if kind == "leak":
        assert all("val" in stem for stem in others)
    elif kind == "copies":
        assert others <= {"shapes_train_0399"}
    elif kind not in ("no-anchor", "no-objects"):
        assert others == set()


def test_no_other_error_is_made_up(planted):
    diagnosis, stems = planted
    assert {finding.kind for finding in diagnosis.graded("error")} <= set(stems)


def test_findings_come_in_order_of_harm(planted):
    diagnosis, _ = planted
    grades = [finding.grade for finding in diagnosis.findings]
    assert grades == sorted(grades, key=["error", "warning", "note"].index)
    for grade in ("error", "warning", "note"):
        harms = [finding.harm for finding in diagnosis.graded(grade)]
        assert harms == sorted(harms, reverse=True)


def test_objects_are_counted_from_one_in_their_file(planted):
    diagnosis, _ = planted
    (finding,) = diagnosis.of_kind("inverted")
    assert {place.objects for place in finding.places} == {(1,)}
    (finding,) = diagnosis.of_kind("duplicate")
    assert all(place.objects[0] == 1 < place.objects[1] for place in finding.places)


def test_pictures_that_are_alike_are_told_by_how(planted):
    diagnosis, _ = planted
    (finding,) = diagnosis.of_kind("leak")
    words = " ".join(place.says for place in finding.places)
    assert "the same bytes as" in words
    assert "the same pixels as" in words


def test_rare_classes_and_those_of_one_side_are_told(copy):
    for stem in copy.stems[:PLANTED]:
        copy.change(stem, name_first("hexagon"))
    lists = copy.home / "ImageSets" / "Main"
    stems = set(copy.stems[:PLANTED])
    (lists / "val.txt").write_text("\n".join(sorted(stems)))
    (lists / "train.txt").write_text("\n".join(sorted(set(copy.stems) - stems)))
    diagnosis = examine(copy.root)
    (finding,) = diagnosis.of_kind("unlearned-class")
    assert "hexagon" in finding.what
    assert found_stems(diagnosis, "unlearned-class") == stems
    (finding,) = diagnosis.of_kind("rare-class")
    assert finding.grade == "warning"
    assert "cross (" in finding.what


def test_an_image_in_both_lists_leaks(copy):
    lists = copy.home / "ImageSets" / "Main"
    with (lists / "val.txt").open("a") as file:
        file.write("\n".join(copy.stems[:PLANTED]) + "\n")
    (finding,) = examine(copy.root).graded("error")
    assert finding.kind == "leak"
    assert {Path(place.file).stem for place in finding.places} == set(copy.stems[:PLANTED])


def test_one_list_to_validate_and_to_test_is_no_leak(copy):
    lists = copy.home / "ImageSets" / "Main"
    shutil.copy(lists / "val.txt", lists / "test.txt")
    assert not examine(copy.root).of_kind("leak")


def test_a_name_with_spaces_in_two_lists_is_one_that_leaks(tmp_path):
    for i, name in enumerate(("bild 1", "bild 2")):
        write_picture(tmp_path / "pictures" / f"{name}.png", i)
        write_text(tmp_path / "pictures" / f"{name}.xml", voc_xml(("a", (1, 1, 30, 30))))
    for split, names in (("train", "bild 1\n"), ("val", "bild 1\nbild 2\n")):
        write_text(tmp_path / "ImageSets" / "Main" / f"{split}.txt", f"\ufeff{names}")
    (leak,) = examine(tmp_path).of_kind("leak")
    assert [Path(place.file).stem for place in leak.places] == ["bild 1"]


def test_the_folder_one_stands_in_is_looked_at(tmp_path, monkeypatch):
    write_picture(tmp_path / "a.png")
    write_text(tmp_path / "a.xml", voc_xml(("a", (1, 1, 30, 30))))
    monkeypatch.chdir(tmp_path)
    assert not examine(".").graded("error")


def test_objects_much_longer_than_wide_do_not_stop_it(tmp_path):
    write_picture(tmp_path / "a.png", size=(900, 30))
    write_text(tmp_path / "a.xml", voc_xml(("rope", (1, 1, 900, 2)), size=(900, 30)))
    assert examine(tmp_path).of_kind("no-anchor")
    assert ratios_that_fit(torch.tensor([[900.0, 2.0], [2.0, 900.0]]), 2) == (0.0022, 450.0)


def test_a_second_folder_is_for_validation(few, copy):
    diagnosis = examine(few.root, validation=copy.root)
    (finding,) = diagnosis.of_kind("leak")
    assert finding.count == len(few.stems)


def test_names_with_other_numbers_are_other_classes(copy):
    for i, stem in enumerate(copy.stems[:40]):
        copy.change(stem, name_first("speed limit 30" if i % 4 else "speed limit 80"))
    assert not examine(copy.root).of_kind("like-another")


def test_what_a_dataset_refuses_is_an_error_and_nothing_else(tmp_path):
    """The doctor and the strict check agree on each of many boxes around a picture's border."""
    rng = random.Random(0)
    picture = tmp_path / "a.png"
    Image.new("RGB", (20, 10)).save(picture)
    steps = [-2.5, -1.5, -1.0, -0.5, 0.0, 0.5, 5.0, 9.5, 10.0, 11.0, 12.0, 19.5, 20.0, 21.0, 22.0]
    objects = [RecordObject("a", tuple(rng.choices(steps, k=4))) for _ in range(2000)]
    record = Record("a", picture, tmp_path / "a.xml", (10, 20), objects, [], "train")
    checked = check_record(record, "voc")
    assert 20 < len(checked.objects) < 1000
    seen = survey(Records(tmp_path, "voc", None, [record], [], []))
    assert seen.is_sound.sum() == len(checked.objects)
    findings = list(check_boxes(seen))
    assert {finding.kind for finding in findings} == {"inverted", "empty", "outside"}
    assert sum(finding.count for finding in findings) == len(checked.faults)


def test_a_hundred_thousand_boxes_are_handled(tmp_path):
    picture = tmp_path / "a.png"
    Image.new("RGB", (200, 100)).save(picture)
    objects = [RecordObject(f"class {i % 700}", (i % 150, i % 70, i % 150 + 40, i % 70 + 30))
               for i in range(100_000)]  # fmt: skip
    record = Record("a", picture, tmp_path / "a.xml", (100, 200), objects, [], "train")
    diagnosis = examine(Records(tmp_path, "voc", None, [record], [], []), image_size=128)
    assert len(diagnosis.of_kind("rare-class")) == 0
    assert "and" in diagnosis.to_html()


# --- whole data sets ------------------------------------------------------------------------------

BASES = [
    pytest.param(lambda x1, y1, x2, y2: (x1 - 1, y1 - 1, x2, y2), (-1, 0), id="minima from 0"),
    pytest.param(lambda x1, y1, x2, y2: (x1 - 1, y1 - 1, x2 - 1, y2 - 1), (-1, -1), id="all less"),
    pytest.param(lambda x1, y1, x2, y2: (x1, y1, x2 + 1, y2 + 1), (0, 1), id="maxima more"),
    pytest.param(lambda x1, y1, x2, y2: (x1, y1, x2 - 1, y2 - 1), (0, -1), id="maxima less"),
    pytest.param(lambda x1, y1, x2, y2: (x1 + 1, y1 + 1, x2, y2), (1, 0), id="minima twice"),
]


@pytest.mark.parametrize(("edit", "shifts"), BASES)
def test_boxes_that_are_all_off_by_one(copy, edit, shifts):
    copy.change_all(edit)
    diagnosis = examine(copy.root)
    (finding,) = diagnosis.graded("error")
    assert finding.kind == "off-by-one"
    assert finding.count == sum(diagnosis.objects.values())
    low, high = shifts
    assert f"Add {-low:+d} to xmin and ymin, and {-high:+d} to xmax and ymax" in finding.remedy
    assert finding.places


def test_boxes_that_all_lie_in_a_corner(copy):
    copy.change_all(lambda *box: tuple(max(1, round(v / 2)) for v in box))
    (finding,) = examine(copy.root).of_kind("scale")
    assert finding.grade == "warning"


def test_pictures_that_were_made_smaller(copy):
    copy.change_all(lambda *box: tuple(2 * v for v in box))
    (finding,) = examine(copy.root).graded("error")
    assert finding.kind == "outside"
    assert "2.00 times its size" in finding.what


FORMATS = [
    pytest.param(lambda x1, y1, x2, y2: (x1, y1, x2 - x1, y2 - y1), "x y width height", id="xywh"),
    pytest.param(
        lambda x1, y1, x2, y2: ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1),
        "centre x, centre y, width, height",
        id="cxcywh",
    ),
    pytest.param(
        lambda x1, y1, x2, y2: tuple(v / 128 for v in (x1 - 1, y1 - 1, x2, y2)),
        "x1 y1 x2 y2 in parts of the picture",
        id="parts",
    ),
    pytest.param(lambda x1, y1, x2, y2: (x1, x2, y1, y2), "x1 x2 y1 y2", id="xxyy"),
]


@pytest.mark.parametrize(("edit", "name"), FORMATS)
def test_boxes_that_are_all_in_another_format(copy, edit, name):
    copy.change_all(edit)
    diagnosis = examine(copy.root)
    (finding,) = diagnosis.graded("error")
    assert finding.kind == "format"
    assert f"seem to be written as {name}," in finding.what
    assert finding.count == sum(diagnosis.objects.values())
    assert len(finding.places) >= PLANTED


def objects_of(folder: Folder) -> Iterator[tuple[str, list[tuple[str, list[float]]]]]:
    """Stem, and name and x1 y1 x2 y2 of each object."""
    for record in read_records(folder.root).records:
        yield record.image_id, [(o.name, list(o.box)) for o in record.objects]


def write_coco(folder: Folder, root: Path, edit: Callable[..., list]) -> None:
    (root / "images").mkdir(parents=True)
    names = ["crescent", "cross", "disc", "ring", "square", "triangle"]
    images, annotations = [], []
    for number, (stem, objects) in enumerate(objects_of(folder)):
        shutil.copy(folder.picture(stem), root / "images")
        images.append({"id": number, "file_name": f"{stem}.jpg", "width": 128, "height": 128})
        for name, box in objects:
            annotations.append(
                {"id": len(annotations), "image_id": number, "bbox": edit(*box),
                 "category_id": names.index(name)}
            )  # fmt: skip
    categories = [{"id": i, "name": name} for i, name in enumerate(names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(content))


def write_yolo(folder: Folder, root: Path, edit: Callable[..., list]) -> None:
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    names = ["crescent", "cross", "disc", "ring", "square", "triangle"]
    (root / "classes.txt").write_text("\n".join(names))
    for stem, objects in objects_of(folder):
        shutil.copy(folder.picture(stem), root / "images")
        lines = [" ".join(map(str, [names.index(n), *edit(*box)])) for n, box in objects]
        (root / "labels" / f"{stem}.txt").write_text("\n".join(lines))


def as_coco(x1: float, y1: float, x2: float, y2: float) -> list[float]:
    return [x1, y1, x2 - x1, y2 - y1]


def as_yolo(x1: float, y1: float, x2: float, y2: float) -> list[float]:
    return [(x1 + x2) / 256, (y1 + y2) / 256, (x2 - x1) / 128, (y2 - y1) / 128]


@pytest.mark.parametrize(
    ("write", "edit", "kind"),
    [
        (write_coco, as_coco, None),
        (write_coco, lambda x1, y1, x2, y2: [x1, y1, x2, y2], "format"),
        (write_coco, lambda x1, y1, x2, y2: [x1 + 1, y1 + 1, x2 - x1 - 1, y2 - y1 - 1],
         "off-by-one"),
        (write_coco, lambda x1, y1, x2, y2: [x1, y1, x2 - x1 - 1, y2 - y1 - 1], "off-by-one"),
        (write_yolo, as_yolo, None),
        (write_yolo, lambda x1, y1, x2, y2: [x1 / 128, y1 / 128, x2 / 128, y2 / 128], "format"),
        (write_yolo, lambda x1, y1, x2, y2: [x1 / 128, y1 / 128, (x2 - x1) / 128, (y2 - y1) / 128],
         "format"),
        (write_yolo, lambda x1, y1, x2, y2: [128 * v for v in as_yolo(x1, y1, x2, y2)], "format"),
        (write_yolo, lambda x1, y1, x2, y2: as_yolo(x1 - 1, y1 - 1, x2, y2), "off-by-one"),
    ],
)  # fmt: skip
def test_the_other_formats_are_judged_as_well(few, tmp_path, write, edit, kind):
    write(few, tmp_path / "data", edit)
    diagnosis = examine(tmp_path / "data")
    assert {finding.kind for finding in diagnosis.graded("error")} == ({kind} if kind else set())


def test_labels_of_a_class_too_many(few, tmp_path):
    for write in (write_coco, write_yolo):
        root = tmp_path / write.__name__
        write(few, root, as_yolo if write is write_yolo else as_coco)
        if write is write_coco:
            content = json.loads((root / "instances.json").read_text())
            for annotation in content["annotations"][:PLANTED]:
                annotation["category_id"] = 6
            (root / "instances.json").write_text(json.dumps(content))
        else:
            for stem in few.stems[:PLANTED]:
                with (root / "labels" / f"{stem}.txt").open("a") as file:
                    file.write("\n6 0.5 0.5 0.5 0.5\n")
        (finding,) = examine(root).graded("error")
        assert finding.kind == "unknown-class"
        assert finding.count == PLANTED


def test_few_impossible_boxes_do_not_make_another_format(copy):
    for stem in copy.stems[:PLANTED]:
        copy.change_box(stem, lambda x1, y1, x2, y2: (x2, y2, x1, y1))
    assert {finding.kind for finding in examine(copy.root).graded("error")} == {"inverted"}


# --- anchors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "anchors",
    [
        AnchorGenerator(),
        AnchorGenerator(offset=0.0, rounded=True, stride_from_grid=True),
        AnchorGenerator(sizes=(10, 40), scales=(1.0,), ratios=(0.3, 1.0), strides=(8, 32)),
    ],
)
def test_the_best_overlap_is_that_with_all_anchors(anchors):
    rng = np.random.default_rng(0)
    frames = np.array([[128.0, 96.0], [100.0, 300.0], [77.0, 77.0]])[rng.integers(3, size=60)]
    centre = rng.random((60, 2)) * frames[:, ::-1]
    side = np.exp(rng.uniform(0.5, 4.5, (60, 2)))
    boxes = np.concatenate([centre - side / 2, centre + side / 2], axis=1)
    objects = scale_objects(boxes, frames, 256)
    best = best_overlaps(objects, anchors)
    for box, canvas, iou in zip(objects.boxes, objects.canvas, best, strict=True):
        every = anchors((int(canvas[0]), int(canvas[1])))
        torch.testing.assert_close(pairwise_iou(every, box[None]).max(), iou)


def test_objects_that_no_anchor_reaches_and_what_would(planted):
    diagnosis, _ = planted
    (finding,) = diagnosis.of_kind("no-anchor")
    by_class, by_size, typical, measured = finding.tables
    assert "objects" in by_class.head
    small = by_size.rows[0]
    assert small[0].startswith("small")
    assert small[2] >= PLANTED
    reached = measured.head.index("IoU ≥ 0.5")
    assert max(row[reached] for row in measured.rows) > measured.rows[0][reached]
    assert sum(row[-1] for row in typical.rows if row[0] == "all") == pytest.approx(1, abs=0.01)


def test_most_objects_out_of_reach_is_an_error(few):
    (finding,) = examine(few.root, image_size=32).of_kind("no-anchor")
    assert finding.grade == "error"
    assert not examine(few.root, image_size=512).graded("error")


def test_what_the_table_promises_is_what_the_anchors_reach(few):
    (finding,) = examine(few.root, image_size=64).of_kind("no-anchor")
    table = finding.tables[-1]
    row = next(row for row in table.rows if row[0] == "--anchor-strides 2")
    anchors = AnchorGenerator(sizes=[2.0 * s for s in AnchorGenerator().strides])
    best = []
    for record in read_records(few.root).records:
        boxes = torch.tensor([o.box for o in record.objects if not o.difficult]).reshape(-1, 4) / 2
        if len(boxes):
            best.append(pairwise_iou(anchors((128, 128)), boxes).amax(dim=0))
    every = torch.cat(best)
    share = float((every >= 0.5).float().mean())
    assert row[table.head.index("IoU ≥ 0.5")] == pytest.approx(share, abs=1e-4)


def test_clusters_are_the_shapes_that_there_are():
    torch.manual_seed(0)
    shapes = torch.tensor([[10.0, 10.0], [10.0, 40.0], [200.0, 100.0]])
    sides = shapes.repeat(50, 1) * (1 + 0.05 * torch.randn(150, 2))
    found, share = cluster_shapes(sides, 3)
    assert share.tolist() == pytest.approx([1 / 3] * 3)
    order = found.prod(dim=1).argsort()
    torch.testing.assert_close(found[order], shapes, rtol=0.05, atol=0.5)
    same, _ = cluster_shapes(torch.ones(5, 2), 3)
    assert len(same) == 1


# --- the first loss -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def losses(few: Folder) -> tuple[dict, dict, dict]:
    """As expected, as the criterion has it for constant predictions, and of an untrained model."""
    torch.manual_seed(0)
    anchors = AnchorGenerator()
    seen = survey(read_records(few.root))
    expected = expected_first_loss(seen, 256, anchors, 6)
    model = retinanet_resnet(
        18, 6, width=0.125, channels=16, head_convs=1, image_size=256
    ).requires_grad_(False)
    transform, classes = EvalTransform(256), sorted(set(seen.names.tolist()))
    constant, real = [], []
    for i, record in enumerate(seen.records.records):
        if seen.is_validation[i]:
            continue
        boxes = torch.tensor([o.box for o in record.objects]).reshape(-1, 4)
        labels = torch.tensor([classes.index(o.name) for o in record.objects], dtype=torch.int64)
        image, target = transform(read_image(record.picture), {"boxes": boxes})
        difficult = torch.tensor([o.difficult for o in record.objects], dtype=torch.bool)
        targets = Targets.from_list([target["boxes"]], [labels], [difficult])
        predictions = model(pad_images([image]))
        real.append(torch.stack(criterion(predictions, model.anchors((256, 256)), targets)))
        logits = torch.full_like(predictions.class_logits, float(np.log(PRIOR / (1 - PRIOR))))
        flat = Predictions(
            logits, torch.zeros_like(predictions.box_deltas), predictions.anchors_per_level
        )
        constant.append(torch.stack(criterion(flat, model.anchors((256, 256)), targets)))

    def named(rows: list) -> dict:
        total, classification, box = torch.stack(rows).double().mean(dim=0).tolist()
        return {"total": total, "classification": classification, "box": box}

    ours = {k: getattr(expected, k) for k in ("total", "classification", "box")}
    return ours, named(constant), named(real)


def test_the_first_loss_is_the_criterion_of_constant_predictions(losses):
    expected, constant, _ = losses
    assert expected == pytest.approx(constant, rel=1e-4)


def test_the_first_loss_is_nearly_that_of_an_untrained_model(losses):
    expected, _, real = losses
    assert expected == pytest.approx(real, rel=0.05)


# --- the report -----------------------------------------------------------------------------------


def test_the_command_prints_writes_and_exits(copy, tmp_path, capsys):
    output = tmp_path / "report"
    arguments = ["doctor", str(copy.root), "--output", str(output)]
    assert main(arguments) == 0
    assert "0 errors" in capsys.readouterr().out
    for stem in copy.stems[:PLANTED]:
        plant_inverted(copy, stem)
    assert main(arguments) == 1
    told = capsys.readouterr()
    assert "ERROR inverted: 20 boxes" in told.out
    assert f"{copy.stems[0]}.xml: object 1" in told.out
    assert "1 error" in told.err
    content = json.loads((output / "report.json").read_text())
    (found,) = (f for f in content["findings"] if f["kind"] == "inverted")
    assert [Path(place["file"]).stem for place in found["places"]] == copy.stems[:PLANTED]
    page = (output / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") >= 12
    assert 'src="http' not in page


def test_the_command_says_that_there_is_nothing(tmp_path, capsys):
    assert main(["doctor", str(tmp_path)]) == 1
    assert "no annotations" in capsys.readouterr().err


def test_the_page_has_pictures_of_each_finding_and_no_hostile_markup(planted):
    diagnosis, _ = planted
    page = diagnosis.to_html()
    sections = page.split("<h2>")[1:]
    for finding in diagnosis.findings:
        title = f"{finding.grade.capitalize()}: {finding.kind}<"
        (section,) = (s for s in sections if s.startswith(title))
        if finding.kind not in ("missing", "broken", "unreadable", "first-loss", "unlabelled"):
            assert section.count("<img") >= 8, finding.kind
            assert section.count('alt="VOCdevkit') == section.count("<img")


def test_hostile_names_stay_text(copy):
    copy.change(copy.stems[0], name_first("<script>alert(1)</script>"))
    page = examine(copy.root).to_html()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


# --- real photographs -----------------------------------------------------------------------------


@pytest.mark.skipif("RETINANET_EDU_VOC" not in os.environ, reason="needs VOC photographs")
def test_real_photographs_have_oddities_and_no_error():
    diagnosis = examine(os.environ["RETINANET_EDU_VOC"])
    assert diagnosis.graded("error") == []
    for kind, words in (("no-anchor", "no anchor"), ("rare-class", "fewer than 100 objects")):
        (finding,) = diagnosis.of_kind(kind)
        assert finding.grade == "warning"
        assert words in finding.what
        assert finding.places
