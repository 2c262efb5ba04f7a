"""voc: folders written by hand, faults of every kind, and torchvision's VOCDetection as witness."""

from __future__ import annotations

import json
import os
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from retinanet_edu.data.records import read_records
from retinanet_edu.data.voc import VOC_CLASSES, VOCDataset
from retinanet_edu.data.voc_xml import parse_voc_xml
from retinanet_edu.errors import DataError

pytestmark = pytest.mark.filterwarnings("error")

Box = tuple[float, float, float, float]

WIDTH, HEIGHT = 60, 40
# VOC's numbers, 1-based and inclusive, and the same in continuous pixels.
INNER, INNER_CONTINUOUS = (11, 6, 30, 25), (10, 5, 30, 25)
WHOLE, WHOLE_CONTINUOUS = (1, 1, WIDTH, HEIGHT), (0, 0, WIDTH, HEIGHT)


def bounds(box: Any) -> str:
    names = ("xmin", "ymin", "xmax", "ymax")
    return "<bndbox>" + "".join(f"<{n}>{v}</{n}>" for n, v in zip(names, box)) + "</bndbox>"


def object_xml(name: str, box: Any = INNER, difficult: Any = 0, inside: str = "") -> str:
    return (
        f"<object>\n<name>{escape(name)}</name><pose>Left</pose><truncated>1</truncated>"
        f"<difficult>{difficult}</difficult>{bounds(box)}{inside}</object>"
    )


def annotation_xml(*objects: str, size: tuple[Any, Any] | None = (WIDTH, HEIGHT)) -> str:
    width, height = size or ("", "")
    size_xml = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return (
        f"<annotation><folder>f</folder>{size_xml if size else ''}{''.join(objects)}</annotation>"
    )


def picture(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


class Devkit:
    """A VOCdevkit on disk, filled one image at a time."""

    def __init__(self, root: Path, year: str = "2007") -> None:
        self.root = root
        self.home = root / "VOCdevkit" / f"VOC{year}"
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)

    def xml(self, name: str) -> Path:
        return self.home / "Annotations" / f"{name}.xml"

    def jpeg(self, name: str) -> Path:
        return self.home / "JPEGImages" / f"{name}.jpg"

    def list(self, split: str) -> Path:
        return self.home / "ImageSets" / "Main" / f"{split}.txt"

    def add(self, name: str, *objects: str, xml: str | None = None, split: str = "train") -> None:
        self.xml(name).write_text(xml or annotation_xml(*objects), encoding="utf-8")
        picture(len(name)).save(self.jpeg(name))
        with self.list(split).open("a", encoding="utf-8") as lines:
            lines.write(f"{name}\n")


@pytest.fixture
def devkit(tmp_path: Path) -> Devkit:
    return Devkit(tmp_path)


@pytest.fixture
def four(devkit: Devkit) -> Devkit:
    """A cat; a dog and a difficult cat; nothing; a person with parts."""
    head = f"<part><name>head</name>{bounds((12, 7, 14, 9))}</part>"
    devkit.add("000001", object_xml("cat"))
    devkit.add("000002", object_xml("dog", WHOLE), object_xml("cat", (5, 5, 5, 5), 1))
    devkit.add("000003")
    devkit.add("000004", object_xml("person", (2, 3, 50, 39), inside=head * 2))
    return devkit


def boxes_of(data: VOCDataset, index: int) -> list[list[float]]:
    return data.target(index)["boxes"].tolist()


def names_of(data: VOCDataset, index: int) -> list[str]:
    return [data.classes[label] for label in data.target(index)["labels"].tolist()]


# --- what is read ---------------------------------------------------------------------------------


def test_a_folder_as_read_by_hand(four: Devkit) -> None:
    data = VOCDataset(four.root)
    assert data.classes == VOC_CLASSES
    assert len(data) == 4
    assert data.image_ids == ["000001", "000002", "000003", "000004"]
    assert [names_of(data, i) for i in range(4)] == [["cat"], ["dog", "cat"], [], ["person"]]
    assert [boxes_of(data, i) for i in range(4)] == [
        [[10, 5, 30, 25]], [[0, 0, 60, 40], [4, 4, 5, 5]], [], [[1, 2, 50, 39]],
    ]  # fmt: skip
    assert data.target(1)["difficult"].tolist() == [False, True]
    assert data.target(1)["labels"].tolist() == [11, 7]  # dog and cat among VOC's twenty
    assert data.image_path(3) == four.jpeg("000004")

    image, target = data[2]
    assert image.dtype == torch.uint8
    assert image.shape == (3, HEIGHT, WIDTH)
    assert target["boxes"].shape == (0, 4)
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].dtype == torch.int64
    assert target["difficult"].dtype == torch.bool
    assert target["image_id"] == "000003"


def test_targets_can_be_changed_and_the_dataset_sent_to_workers(four: Devkit) -> None:
    data = VOCDataset(four.root)
    data.target(0)["boxes"].zero_()
    assert boxes_of(data, 0) == [[10, 5, 30, 25]]
    copy = pickle.loads(pickle.dumps(data))
    assert boxes_of(copy, 1) == boxes_of(data, 1)
    assert torch.equal(copy[1][0], data[1][0])


@pytest.mark.parametrize("inside", ["", "VOCdevkit", "VOCdevkit/VOC2007"])
def test_the_root_may_be_any_of_the_folders(four: Devkit, inside: str) -> None:
    assert len(VOCDataset(four.root / inside)) == 4


def test_2011_is_packed_one_folder_deeper(tmp_path: Path) -> None:
    Devkit(tmp_path / "TrainVal", "2011").add("a", object_xml("cat"))
    assert len(VOCDataset(tmp_path, "2011")) == 1


def test_torchvision_reads_the_same(four: Devkit) -> None:
    assert_as_torchvision(four.root, VOCDataset(four.root), "train")


def assert_as_torchvision(root: Path, data: VOCDataset, split: str) -> None:
    theirs = torchvision.datasets.VOCDetection(root, year="2007", image_set=split)
    assert len(theirs) == len(data)
    for i in range(len(theirs)):
        image, annotation = theirs[i]
        assert np.array_equal(data[i][0].movedim(0, -1), np.asarray(image))
        objects = annotation["annotation"]["object"]
        assert names_of(data, i) == [o["name"] for o in objects]
        assert data.target(i)["difficult"].tolist() == [o["difficult"] == "1" for o in objects]
        for o, ours in zip(objects, boxes_of(data, i), strict=True):
            box = {name: float(text) for name, text in o["bndbox"].items()}
            assert ours == [box["xmin"] - 1, box["ymin"] - 1, box["xmax"], box["ymax"]]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ((1, 1, 1, 1), (0, 0, 1, 1)),  # the first pixel
        ((60, 40, 60, 40), (59, 39, 60, 40)),  # the last
        (WHOLE, WHOLE_CONTINUOUS),
        ((0, 0, 60, 40), WHOLE_CONTINUOUS),  # by a tool that counts from 0
        ((1, 1, 61, 41), WHOLE_CONTINUOUS),  # one over: rounding
        (("10.5", " 7.25 ", "30", "25.75"), (9.5, 6.25, 30, 25.75)),
    ],
)
def test_corners_are_counted_from_1_and_inclusive(
    tmp_path: Path, written: Any, expected: Box
) -> None:
    path = tmp_path / "a.xml"
    path.write_text(annotation_xml(object_xml("cat", written)))
    (found,) = parse_voc_xml(path)
    assert found == ("cat", expected, False)


@pytest.mark.parametrize(
    ("difficult", "expected"),
    [(0, False), (1, True), (" 1 ", True), ("True", True), ("false", False), ("", False)],
)
def test_difficult(tmp_path: Path, difficult: Any, expected: bool) -> None:
    path = tmp_path / "a.xml"
    path.write_text(annotation_xml(object_xml("cat", difficult=difficult)))
    assert parse_voc_xml(path)[0].difficult is expected


def test_an_object_may_lack_difficult_and_have_its_parts_first(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    part = f"<part><name>head</name><difficult>1</difficult>{bounds((2, 2, 3, 3))}</part>"
    path.write_text(
        annotation_xml(f"<object>{part}<name>person</name>{bounds(INNER)}</object>", part)
    )
    assert parse_voc_xml(path) == [("person", INNER_CONTINUOUS, False)]


@pytest.mark.parametrize("size", [None, (0, 0), ("", ""), ("unknown", 7)])
def test_without_an_annotated_size_the_picture_is_asked(devkit: Devkit, size: Any) -> None:
    devkit.add("a", xml=annotation_xml(object_xml("cat", (1, 1, 61, 40)), size=size))
    assert boxes_of(VOCDataset(devkit.root), 0) == [[0, 0, 60, 40]]
    assert VOCDataset(devkit.root)[0][0].shape == (3, HEIGHT, WIDTH)
    assert parse_voc_xml(devkit.xml("a"))[0].box == (0, 0, 61, 40)  # nobody knows its width
    devkit.add("b", xml=annotation_xml(object_xml("cat", (1, 1, 62, 40)), size=size))
    with pytest.raises(DataError, match="60 × 40"):
        VOCDataset(devkit.root)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "JPG"])
def test_pictures_have_other_suffixes_too(devkit: Devkit, suffix: str) -> None:
    devkit.add("a.b", object_xml("cat"))
    moved = devkit.jpeg("a.b").rename(devkit.home / "JPEGImages" / f"a.b.{suffix}")
    if suffix == "png":
        picture().save(moved)
    data = VOCDataset(devkit.root)
    assert data[0][0].shape == (3, HEIGHT, WIDTH)
    assert data.image_path(0) == moved


def test_other_alphabets_and_byte_orders(devkit: Devkit) -> None:
    devkit.add("кот", object_xml("кошка & co"))
    xml = '<?xml version="1.0" encoding="utf-16"?>' + annotation_xml(object_xml("кошка & co"))
    devkit.add("b")
    devkit.xml("b").write_bytes(xml.encode("utf-16"))
    devkit.list("train").write_bytes("\ufeffкот\r\nb\r\n\r\n".encode())
    data = VOCDataset(devkit.root)
    assert data.image_ids == ["кот", "b"]
    assert data.classes == ("кошка & co",)
    assert len(VOCDataset(devkit.root, classes=["кошка & co"])) == 2


# --- years, splits, choices -----------------------------------------------------------------------


def test_several_years_are_one_dataset(tmp_path: Path) -> None:
    one, two = Devkit(tmp_path, "2007"), Devkit(tmp_path, "2012")
    one.add("a", object_xml("cat"))
    two.add("a", object_xml("dog", WHOLE))
    two.add("b", object_xml("cow"))
    data = VOCDataset(tmp_path, ["2007", "2012"])
    assert data.image_ids == ["2007/a", "2012/a", "2012/b"]
    assert [names_of(data, i) for i in range(3)] == [["cat"], ["dog"], ["cow"]]
    assert data.image_path(1) == two.jpeg("a")
    assert VOCDataset(tmp_path, "2012").image_ids == ["a", "b"]
    assert VOCDataset(tmp_path, ["2012", "2012"]).image_ids == ["a", "b"]
    assert VOCDataset(one.home, ("2007", "2012")).image_ids == data.image_ids
    with pytest.raises(DataError, match=r"no VOC 2010 here.*download"):
        VOCDataset(tmp_path, ("2007", "2010"))


def test_splits(four: Devkit) -> None:
    four.list("val").write_text("000003\n\n000001\n000003\n")
    assert VOCDataset(four.root, split="val").image_ids == ["000003", "000001"]
    # −1: not there, 1: there, 0: only difficult ones.
    four.list("cat_train").write_text("000001  1\n000002  0\n000003 -1\n000004 -1\n")
    assert VOCDataset(four.root, split="cat_train").image_ids == ["000001", "000002"]


def test_names_with_spaces(devkit: Devkit) -> None:
    devkit.add("my cat 12", object_xml("cat"))
    assert VOCDataset(devkit.root).image_ids == ["my cat 12"]
    devkit.list("cat_val").write_text("my cat 12  1\nmy dog -1\n")
    assert VOCDataset(devkit.root, split="cat_val").image_ids == ["my cat 12"]


def test_numbers_after_a_name_are_flags_in_the_list_of_a_class_alone(devkit: Devkit) -> None:
    names = ["bild 0", "bild 1", "bild -1"]
    for name in names:
        devkit.add(name, object_xml("cat"))
    assert VOCDataset(devkit.root).image_ids == names
    assert {r.split for r in read_records(devkit.root).records} == {"train"}


def test_chosen_images(four: Devkit) -> None:
    assert VOCDataset(four.root, images=2).image_ids == ["000001", "000002"]
    assert len(VOCDataset(four.root, images=99)) == 4
    chosen = VOCDataset(four.root, images=["000004", "000001"])
    assert chosen.image_ids == ["000004", "000001"]
    assert [names_of(chosen, i) for i in range(2)] == [["person"], ["cat"]]
    assert VOCDataset(four.root, images=iter(["000003"])).image_ids == ["000003"]
    with pytest.raises(DataError, match="'000009' is none of the 4"):
        VOCDataset(four.root, images=["000001", "000009"])
    for none in (0, -1, []):
        with pytest.raises(DataError, match="none is chosen"):
            VOCDataset(four.root, images=none)


def test_faults_of_images_that_are_not_chosen_do_not_matter(four: Devkit) -> None:
    four.xml("000004").write_text("broken")
    assert len(VOCDataset(four.root, images=3)) == 3


def test_chosen_classes_and_empty_images(four: Devkit) -> None:
    data = VOCDataset(four.root, classes=["person", "cat"])
    assert data.classes == ("person", "cat")
    assert [data.target(i)["labels"].tolist() for i in range(4)] == [[1], [1], [], [0]]
    assert boxes_of(data, 1) == [[4, 4, 5, 5]]
    assert data.target(1)["difficult"].tolist() == [True]

    picture(0, 50, 70).save(four.jpeg("000001"))  # without a dog or a person, and with this size
    four.xml("000001").write_text(annotation_xml(object_xml("cat"), size=(70, 50)))
    full = VOCDataset(four.root, classes=["dog", "person"], keep_empty=False)
    assert full.image_ids == ["000002", "000004"]
    assert [names_of(full, i) for i in range(2)] == [["dog"], ["person"]]
    assert full.image_path(1) == four.jpeg("000004")
    assert full[0][1]["image_id"] == "000002"


def test_classes_of_ones_own_are_found(devkit: Devkit) -> None:
    devkit.add("a", object_xml("zebra"), object_xml("ant"))
    devkit.add("b", object_xml("cat"), object_xml("zebra"))
    assert VOCDataset(devkit.root).classes == ("ant", "cat", "zebra")
    assert VOCDataset(devkit.root).target(1)["labels"].tolist() == [1, 2]


def test_a_chosen_class_may_be_absent_from_a_small_split(four: Devkit) -> None:
    """An object of VOC, or one that other images have."""
    assert VOCDataset(four.root, classes=["cat", "sofa"]).classes == ("cat", "sofa")
    four.add("000005", object_xml("catt"), split="val")
    four.add("000006", object_xml("hamster & co"), split="val")
    chosen = ["cat", "catt", "hamster & co"]
    assert VOCDataset(four.root, classes=chosen).classes == tuple(chosen)
    assert len(VOCDataset(four.root, images=["000003"], classes=["hippo"])) == 1  # no objects


# --- what is wrong --------------------------------------------------------------------------------


def refused(load: Callable[[], Any]) -> str:
    with pytest.raises(DataError) as caught:
        load()
    return str(caught.value)


BOMB = (
    '<!DOCTYPE lolz [<!ENTITY lol0 "lol">'
    + "".join(f'<!ENTITY lol{i + 1} "{f"&lol{i};" * 10}">' for i in range(9))
    + "]><annotation><object><name>&lol9;</name></object></annotation>"
)
THEFT = (
    '<!DOCTYPE a [<!ENTITY x SYSTEM "{uri}">]>'
    "<annotation><object><name>&x;</name></object></annotation>"
)


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("", "well-formed"),
        (annotation_xml(object_xml("cat"))[:-20], "well-formed"),
        ("<annotation><object></annotation>", "well-formed"),
        ("\x00\x01", "well-formed"),
        ('<?xml version="1.0" encoding="no-such"?><annotation/>', "well-formed"),
        (BOMB, "well-formed XML (EntitiesForbidden"),
        ("<html></html>", "not a VOC annotation"),
    ],
)
def test_broken_and_explosive_xml_is_named(devkit: Devkit, xml: str, message: str) -> None:
    devkit.add("good", object_xml("cat"))
    devkit.add("bad", xml=xml or " ")
    told = refused(lambda: VOCDataset(devkit.root))
    assert told.startswith(f"{devkit.xml('bad')}: ")
    assert message in told
    assert refused(lambda: parse_voc_xml(devkit.xml("bad"))) == told


def test_xml_reads_no_other_file(devkit: Devkit, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("classified")
    devkit.add("bad", xml=THEFT.format(uri=secret.as_uri()))
    told = refused(lambda: VOCDataset(devkit.root))
    assert told.startswith(f"{devkit.xml('bad')}: ")
    assert "classified" not in told
    document = f'<!DOCTYPE a SYSTEM "{secret.as_uri()}">' + annotation_xml(object_xml("cat"))
    devkit.xml("bad").write_text(document)
    assert len(VOCDataset(devkit.root)) == 1  # not read, so its nonsense does no harm


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (object_xml("cat", (30, 6, 11, 25)), "inverted or empty (xmin 30, ymin 6, xmax 11"),
        (object_xml("cat", (11, 25, 30, 6)), "inverted or empty"),
        (object_xml("cat", (11, 6, 10, 25)), "inverted or empty"),
        (object_xml("cat", (11.5, 6, 11.2, 25)), "inverted or empty"),
        (object_xml("cat", (11, 6.5, 30, 6.2)), "inverted or empty"),
        (object_xml("cat", (0, 6, 0, 25)), "inverted or empty"),
        (object_xml("cat", (61, 6, 61, 25)), "inverted or empty"),
        (object_xml("cat", (11, 41, 30, 41)), "inverted or empty"),
        (object_xml("cat", (11, 6, 62, 25)), "outside of the picture of 60 × 40"),
        (object_xml("cat", (11, 6, 30, 42)), "outside of the picture"),
        (object_xml("cat", (-1, 6, 30, 25)), "outside of the picture"),
        (object_xml("cat", (11, -1, 30, 25)), "outside of the picture"),
        (object_xml("cat", (200, 200, 300, 300)), "outside of the picture"),
        (object_xml("cat", (11, "six", 30, 25)), "not four finite numbers (xmin 11, ymin six"),
        (object_xml("cat", (11, "nan", 30, 25)), "not four finite numbers"),
        (object_xml("cat", (11, 6, "inf", 25)), "not four finite numbers"),
        (object_xml("cat", ("", 6, 30, 25)), "xmin missing"),
        (object_xml("cat", (11, 6, 30)), "ymax missing"),
        ("<object><name>cat</name></object>", "no <bndbox>"),
        (f"<object><name>cat</name><part>{bounds(INNER)}</part></object>", "no <bndbox>"),
    ],
)  # fmt: skip
def test_a_bad_box_names_file_object_and_numbers(devkit: Devkit, xml: str, message: str) -> None:
    devkit.add("bad", object_xml("dog"), xml)
    told = refused(lambda: VOCDataset(devkit.root))
    assert told.startswith(f"{devkit.xml('bad')}: object 2 (cat): ")
    assert message in told
    assert "\n" not in told


@pytest.mark.parametrize(
    "name", ["", "<name/>", "<name>  </name>", "<part><name>cat</name></part>"]
)
def test_an_object_without_name_is_told(devkit: Devkit, name: str) -> None:
    devkit.add("bad", f"<object>{name}{bounds(INNER)}</object>")
    told = refused(lambda: VOCDataset(devkit.root))
    assert told.startswith(f"{devkit.xml('bad')}: object 1 (unnamed): it has no <name>")


def test_ten_faults_are_listed_and_all_are_counted(devkit: Devkit) -> None:
    for i in range(12):
        devkit.add(f"{i:02}", object_xml("cat", (30, 6, 11, 25)), object_xml("cat"))
    devkit.jpeg("00").unlink()
    lines = refused(lambda: VOCDataset(devkit.root)).splitlines()
    assert len(lines) == 11
    assert lines[0].startswith(f"{devkit.jpeg('00')}: no such picture")
    assert lines[1].startswith(f"{devkit.xml('00')}: object 1 (cat)")
    assert lines[9].startswith(f"{devkit.xml('08')}: object 1 (cat)")
    assert lines[10] == "13 faults in all"


def test_missing_files_are_told_at_once(four: Devkit) -> None:
    four.jpeg("000002").unlink()
    told = refused(lambda: VOCDataset(four.root))
    assert told.startswith(f"{four.jpeg('000002')}: no such picture")
    four.add("000009")
    four.jpeg("000002").write_bytes(b"")
    four.xml("000009").unlink()
    told = refused(lambda: VOCDataset(four.root))
    assert told.startswith(f"{four.xml('000009')}: no such annotation")


def test_a_picture_that_goes_or_breaks_later_is_named(four: Devkit) -> None:
    data = VOCDataset(four.root)
    whole = four.jpeg("000002").read_bytes()
    four.jpeg("000002").write_bytes(whole[: len(whole) // 2])
    assert refused(lambda: data[1]).startswith(f"{four.jpeg('000002')}: ")
    assert "truncated" in refused(lambda: data[1])
    four.jpeg("000002").unlink()
    assert refused(lambda: data[1]).startswith(f"{four.jpeg('000002')}: no such picture")
    assert data[0][0].shape == (3, HEIGHT, WIDTH)  # the others are well


@pytest.mark.parametrize(
    ("size", "is_good"),
    [((HEIGHT + 1, WIDTH - 1), True), ((2 * HEIGHT, 2 * WIDTH), False), ((WIDTH, HEIGHT), False),
     ((HEIGHT, WIDTH - 2), False), ((HEIGHT + 2, WIDTH), False)],
)  # fmt: skip
def test_a_picture_scaled_or_turned_after_annotation_is_named(
    devkit: Devkit, size: tuple[int, int], is_good: bool
) -> None:
    """Its boxes lie within the new size too, so nothing but the size gives it away."""
    devkit.add("a", object_xml("cat"))
    picture(0, *size).save(devkit.jpeg("a"))
    data = VOCDataset(devkit.root)
    if is_good:
        assert data[0][0].shape == (3, *size)
    else:
        told = refused(lambda: data[0])
        assert told.startswith(f"{devkit.jpeg('a')}: the picture is {size[1]} × {size[0]}")
        assert "60 × 40" in told


def test_a_camera_turned_after_annotation_is_named(devkit: Devkit) -> None:
    devkit.add("a", object_xml("cat"))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(devkit.jpeg("a"), exif=exif)
    assert "turned" in refused(lambda: VOCDataset(devkit.root)[0])
    devkit.xml("a").write_text(annotation_xml(object_xml("cat"), size=(HEIGHT, WIDTH)))
    assert VOCDataset(devkit.root)[0][0].shape == (3, WIDTH, HEIGHT)


def test_an_unknown_class_names_its_file_and_a_guess(four: Devkit) -> None:
    four.add("000005", object_xml("dog"), object_xml("persom"))
    told = refused(lambda: VOCDataset(four.root))
    assert told.startswith(f"{four.xml('000005')}: object 2 (persom): ")
    assert "did you mean 'person'?" in told
    four.xml("000005").write_text(annotation_xml(object_xml("hippo")))
    told = refused(lambda: VOCDataset(four.root))
    assert told.startswith(f"{four.xml('000005')}: object 1 (hippo): ")
    assert "did you mean" not in told
    assert VOCDataset(four.root, classes=["hippo", "cat"]).target(4)["labels"].tolist() == [0]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["catt", "dog"], "'catt' (did you mean 'cat'?)"),
        (["Cat"], "'Cat' (did you mean 'cat'?)"),
        (["cat", "head"], "'head'"),  # the name of a part
        (["sofa"], "'sofa'"),  # VOC's, but none is there and neither is another of the chosen
        (["cat", "cat"], "different names"),
        ([], "at least one"),
    ],
)
def test_a_chosen_class_that_is_a_slip_is_told(
    four: Devkit, classes: list[str], message: str
) -> None:
    told = refused(lambda: VOCDataset(four.root, classes=classes))
    assert message in told
    if classes and "different" not in message:
        assert str(four.home / "Annotations") in told
        assert "person" in told  # what there is


@pytest.mark.parametrize("text", ["", "\n \n", None])
def test_an_empty_or_missing_split_tells_which_there_are(four: Devkit, text: str | None) -> None:
    four.list("dog_train").write_text("000001 -1\n")
    four.list("day_night").write_text("000001\n")
    if text is not None:
        four.list("val").write_text(text)
    told = refused(lambda: VOCDataset(four.root, split="val"))
    assert told.startswith(
        f"{four.list('val')}: {'no such split' if text is None else 'the split'}"
    )
    assert "train" in told
    assert "day_night" in told
    assert "dog_train" not in told
    told = refused(lambda: VOCDataset(four.root, split="dog_train"))
    assert told.startswith(f"{four.list('dog_train')}: the split is empty")


def test_a_folder_without_voc_tells_where_it_looked(tmp_path: Path) -> None:
    told = refused(lambda: VOCDataset(tmp_path / "nowhere"))
    assert told.startswith(f"{tmp_path / 'nowhere'}: no VOC 2007 here")
    assert str(tmp_path / "nowhere" / "VOCdevkit" / "VOC2007") in told
    assert "download=True" in told


# --- download -------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """Instead of a network: what was asked for, and a folder with one image comes of it."""
    asked: list[tuple[str, str, str]] = []

    def fetch(url: str, root: str | Path, filename: str, md5: str) -> None:
        asked.append((url, filename, md5))
        devkit = Devkit(Path(root))
        for split in ("train", "val", "cat_val"):
            devkit.list(split).unlink(missing_ok=True)
            devkit.add("a", object_xml("cat"), split=split)

    monkeypatch.setattr(torchvision.datasets.voc, "download_and_extract_archive", fetch)
    return asked


def test_a_download_is_torchvisions_with_its_checksum_and_once(
    tmp_path: Path, server: list[tuple[str, str, str]]
) -> None:
    root = tmp_path / "new" / "folder"
    assert len(VOCDataset(root, split="train", download=True)) == 1
    source = torchvision.datasets.voc.DATASET_YEAR_DICT["2007"]
    assert server == [(source["url"], source["filename"], source["md5"])]
    assert len(VOCDataset(root, split="cat_val", download=True)) == 1
    assert len(server) == 1
    assert len(VOCDataset(root, split="train")) == 1


def test_half_a_download_is_fetched_again(
    tmp_path: Path, server: list[tuple[str, str, str]]
) -> None:
    VOCDataset(tmp_path, split="cat_val", download=True)
    devkit = Devkit(tmp_path)
    for times, lost in enumerate((devkit.jpeg("a"), devkit.xml("a"), devkit.list("cat_val")), 2):
        lost.unlink()
        assert len(VOCDataset(tmp_path, split="cat_val", download=True)) == 1
        assert len(server) == times


def test_the_test_split_is_another_archive(
    tmp_path: Path, server: list[tuple[str, str, str]]
) -> None:
    refused(lambda: VOCDataset(tmp_path, split="test", download=True))
    assert server[0][1] == "VOCtest_06-Nov-2007.tar"


@pytest.mark.parametrize(
    "error", [OSError("no network"), RuntimeError("File not found or corrupted")]
)
def test_a_download_that_fails_says_why_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*args: Any, **settings: Any) -> None:
        raise error

    monkeypatch.setattr(torchvision.datasets.voc, "download_and_extract_archive", fail)
    told = refused(lambda: VOCDataset(tmp_path, download=True))
    assert "VOC 2007, split 'train'" in told
    assert str(error) in told
    assert "by hand" in told


def test_nothing_is_fetched_that_is_not_asked_for_or_not_there(
    four: Devkit, server: list[tuple[str, str, str]]
) -> None:
    assert len(VOCDataset(four.root, download=True)) == 4
    assert "no such split" in refused(lambda: VOCDataset(four.root, split="val"))
    assert "minival" in refused(lambda: VOCDataset(four.root, split="minival", download=True))
    assert "1999" in refused(lambda: VOCDataset(four.root, "1999", download=True))
    assert server == []


# --- real photographs -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> Path:
    root = os.environ.get("RETINANET_EDU_VOC")
    if not root:
        pytest.skip("RETINANET_EDU_VOC is not set to a folder that contains VOCdevkit")
    return Path(root)


@pytest.mark.parametrize("split", ["train", "val"])
def test_real_annotations_are_counted_as_beside_them(real: Path, split: str) -> None:
    if not (real / "subset.json").is_file():
        pytest.skip(f"{real} has no subset.json with counts")
    expected = json.loads((real / "subset.json").read_text())["counts"][split]
    data = VOCDataset(real, split=split)
    counts = {name: Counter(images=0, objects=0, difficult=0) for name in data.classes}
    for i in range(len(data)):
        target = data.target(i)
        for label, difficult in zip(
            target["labels"].tolist(), target["difficult"].tolist(), strict=True
        ):
            counts[data.classes[label]]["difficult" if difficult else "objects"] += 1
        for label in set(target["labels"].tolist()):
            counts[data.classes[label]]["images"] += 1
    assert {name: dict(count) for name, count in counts.items()} == expected


def test_real_photographs_are_read_as_torchvision_reads_them(real: Path) -> None:
    assert_as_torchvision(real, VOCDataset(real, split="val"), "val")
