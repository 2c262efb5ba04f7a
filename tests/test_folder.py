"""folder, splitting: strict checks, classes, and partings that hold what they promise."""

from __future__ import annotations

import json
import pickle
import shutil
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import VOC, needs_voc, voc_xml, write_coco, write_picture, write_text
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retinanet_edu import FolderDataset, VOCDataset
from retinanet_edu.cli import main
from retinanet_edu.data import folder
from retinanet_edu.data.loading import complete
from retinanet_edu.data.records import Record, RecordObject, Records, read_records
from retinanet_edu.data.shapes import ShapesDataset, write_voc
from retinanet_edu.data.splitting import load_split, save_split, split_records
from retinanet_edu.errors import DataError

pytestmark = pytest.mark.filterwarnings("error")

CAT = ("cat", (11, 6, 30, 25))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VOCdevkit of shapes, 12 and 6 pictures."""
    root = tmp_path_factory.mktemp("devkit")
    write_voc(root, train=12, val=6)
    return root


@pytest.fixture(scope="module")
def flat(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures and annotations in one folder, without any list."""
    root = tmp_path_factory.mktemp("flat")
    home = shapes / "VOCdevkit" / "VOC2007"
    for path in (*home.glob("JPEGImages/*"), *home.glob("Annotations/*")):
        shutil.copy(path, root)
    return root


def one_picture(root: Path, *objects: Any, **size: Any) -> Path:
    write_picture(root / "a.jpg")
    write_text(root / "a.xml", voc_xml(*objects, **size))
    return root


# --- what it gives --------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_devkit_is_what_vocdataset_gives(shapes: Path, split: str) -> None:
    data, witness = FolderDataset(shapes, split), VOCDataset(shapes, split=split)
    assert data.image_ids == sorted(witness.image_ids)
    assert data.classes == tuple(sorted(ShapesDataset.classes))
    for i, image_id in enumerate(data.image_ids):
        image, target = data[i]
        other, expected = witness[witness.image_ids.index(image_id)]
        assert torch.equal(image, other)
        assert torch.equal(target["boxes"], expected["boxes"])
        assert torch.equal(target["difficult"], expected["difficult"])
        names = [data.classes[k] for k in target["labels"]]
        assert names == [witness.classes[k] for k in expected["labels"]]
        complete(image, target, i, len(data.classes))  # the contract of a dataset


@needs_voc
def test_photographs_are_what_torchvision_reads() -> None:
    import torchvision

    witness = torchvision.datasets.VOCDetection(str(VOC), "2007", "val")
    data = FolderDataset(str(VOC), "val", format="voc")
    assert len(data) == len(witness)
    for i in range(0, len(data), 29):
        _, annotation = witness[data.image_ids.index(data.image_ids[i])]
        boxes = [
            [
                int(o["bndbox"][k]) - (k in ("xmin", "ymin"))
                for k in ("xmin", "ymin", "xmax", "ymax")
            ]
            for o in annotation["annotation"]["object"]
        ]
        assert data.target(i)["boxes"].tolist() == boxes


def test_boxes_up_to_a_pixel_over_the_edge_are_clipped(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg")
    write_coco(tmp_path / "x.json", {1: "a.jpg"}, [(1, 1, [-0.5, 0, 61, 41])], {1: "cat"})
    assert FolderDataset(tmp_path).target(0)["boxes"].tolist() == [[0, 0, 60, 40]]


def test_it_travels_to_loading_processes(flat: Path) -> None:
    data = FolderDataset(flat, "train")
    again = pickle.loads(pickle.dumps(data))
    assert again.classes == data.classes
    assert torch.equal(again[3][0], data[3][0])


def test_the_lines_of_python_lead_from_a_folder_to_numbers_and_pictures(
    flat: Path, tmp_path: Path, capsys: Any
) -> None:
    doc = folder.__doc__ or ""
    code = textwrap.dedent(doc[doc.index("    from") :])
    assert len([line for line in code.splitlines() if line]) <= 10
    for long, short in {
        "my-data": str(flat),
        "runs/mine": str(tmp_path),
        "resnet50": "resnet18",
        'backbone_weights="imagenet", image_size=512': "width=0.125, channels=16, image_size=64",
        "epochs=20": 'epochs=1, device="cpu"',
    }.items():
        assert long in code
        code = code.replace(long, short)
    exec(compile(code, "folder.py", "exec"), {})
    assert "crescent" in capsys.readouterr().out
    assert (tmp_path / "gallery.png").is_file()


# --- classes --------------------------------------------------------------------------------------


def test_classes_are_the_same_in_each_split_and_in_the_folders_order(tmp_path: Path) -> None:
    for i, split in enumerate(("train", "val")):
        write_picture(tmp_path / split / "a.jpg", i)
        annotations = [(1, (3, 1)[i], [1, 1, 5, 5])]
        names = {1: "zebra", 2: "ape", 3: "cat"}
        write_coco(tmp_path / split / "x.json", {1: "a.jpg"}, annotations, names)
    for split, label in (("train", 2), ("val", 0)):
        data = FolderDataset(tmp_path, split)
        assert data.classes == ("zebra", "ape", "cat")
        assert data.target(0)["labels"].tolist() == [label]


def test_chosen_classes_have_the_order_given_and_others_are_left_out(flat: Path) -> None:
    whole, some = FolderDataset(flat), FolderDataset(flat, classes=["ring", "disc"])
    counts = Counter(whole.classes[k] for i in range(18) for k in whole.target(i)["labels"])
    assert some.classes == ("ring", "disc")
    labels = [int(k) for i in range(len(some)) for k in some.target(i)["labels"]]
    assert Counter(labels) == {0: counts["ring"], 1: counts["disc"]}
    assert len(FolderDataset(flat, classes=["ring"], keep_empty=False)) < len(some) == 18


def test_a_class_that_is_nowhere_is_a_slip(flat: Path) -> None:
    with pytest.raises(DataError, match=r"'rings' \(did you mean 'ring'\?\)"):
        FolderDataset(flat, classes=["rings"])
    with pytest.raises(DataError, match="different names"):
        FolderDataset(flat, classes=["ring", "ring"])


def test_two_spellings_of_a_class_are_refused(tmp_path: Path) -> None:
    one_picture(tmp_path, CAT, ("Cat", (1, 1, 5, 5)), ("dog", (1, 1, 5, 5)))
    with pytest.raises(DataError, match=r"several spellings.* 'Cat' \(1\), 'cat' \(1\)"):
        FolderDataset(tmp_path)
    assert FolderDataset(tmp_path, classes=["cat"]).target(0)["labels"].tolist() == [0]


def test_no_object_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no picture has an object"):
        FolderDataset(one_picture(tmp_path))
    write_picture(tmp_path / "yolo/images/a.jpg")
    write_text(tmp_path / "yolo/data.yaml", "names: [a, b]")  # the labels were forgotten
    with pytest.raises(DataError, match="no picture has an object"):
        FolderDataset(tmp_path / "yolo")


def test_a_list_of_classes_has_all_of_them(tmp_path: Path) -> None:
    one_picture(tmp_path, CAT, ("doge", (1, 1, 5, 5)))
    write_text(tmp_path / "classes.txt", "dog\ncat\n")
    with pytest.raises(DataError, match=r"class 'doge' .*mean 'dog'.*\(1\)"):
        FolderDataset(tmp_path)
    one_picture(tmp_path, CAT)
    assert FolderDataset(tmp_path).classes == ("dog", "cat")


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((30, 6, 11, 25), ["inverted or empty", "29 5 11 25"]),
        ((11, 6, 10, 25), ["inverted or empty"]),
        ((11, 6, 90, 25), ["outside", "60 × 40", "turned"]),
        ((-5, 6, 30, 25), ["outside"]),
        (("nan", 6, 30, 25), ["finite", "nan"]),
        (("inf", 6, "inf", 25), ["finite"]),
        (("x", 6, 30, 25), ["not four numbers"]),
    ],
)
def test_a_fault_names_file_object_and_remedy(tmp_path: Path, box: Any, words: list[str]) -> None:
    one_picture(tmp_path, CAT, ("dog", box))
    with pytest.raises(DataError) as error:
        FolderDataset(tmp_path)
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"{tmp_path / 'a.xml'}: object 2 (dog)")
    assert all(word in line for word in words)


@pytest.mark.parametrize(
    ("format", "question"), [("coco", "x1 y1 x2 y2"), ("yolo", "shares"), ("voc", "scaled")]
)
def test_a_box_outside_is_asked_what_it_may_be(tmp_path: Path, format: str, question: str) -> None:
    write_picture(tmp_path / "a.jpg")
    if format == "coco":
        write_coco(tmp_path / "x.json", {1: "a.jpg"}, [(1, 1, [30, 20, 55, 38])], {1: "cat"})
    elif format == "yolo":
        write_text(tmp_path / "a.txt", "0 30 20 10 10")
    else:
        one_picture(tmp_path, ("cat", (30, 20, 160, 38)))
    with pytest.raises(DataError, match=question):
        FolderDataset(tmp_path)


def test_up_to_ten_faults_are_listed_at_once(tmp_path: Path) -> None:
    one_picture(tmp_path, *[("cat", (30, 6, 11, 25))] * 13)
    with pytest.raises(DataError) as error:
        FolderDataset(tmp_path)
    lines = str(error.value).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "13 faults in all"


def test_pictures_that_are_missing_damaged_or_of_another_size(tmp_path: Path) -> None:
    one_picture(tmp_path, CAT, size=(40, 60))
    with pytest.raises(DataError, match=r"a\.jpg: the picture is 60 × 40 .* says 40 × 60.*turned"):
        FolderDataset(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a\.jpg: empty, or not a picture"):
        FolderDataset(tmp_path)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"a\.xml: no picture for it"):
        FolderDataset(tmp_path)


def test_a_camera_that_was_turned_is_noticed(tmp_path: Path) -> None:
    """The annotation is of the pixels as stored, the picture is given upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    write_text(tmp_path / "a.xml", voc_xml(CAT))
    with pytest.raises(DataError, match=r"40 × 60 .*turned"):
        FolderDataset(tmp_path)


def test_an_unknown_split_says_what_there_is(shapes: Path) -> None:
    with pytest.raises(DataError, match=r"'test'; there are: train, val"):
        FolderDataset(shapes, "test")


# --- the parting ----------------------------------------------------------------------------------


def imagined(classes: list[set[str]], splits: list[str | None] | None = None) -> Records:
    """Records of pictures that are not there, which show these classes."""
    root = Path("set")
    records = [
        Record(
            f"{i:03d}", root / f"{i:03d}.jpg", root / "x", None,
            [RecordObject(name, (0, 0, 1, 1)) for name in sorted(names)], [],
            splits[i] if splits else None,
        )
        for i, names in enumerate(classes)
    ]  # fmt: skip
    return Records(root, "voc", None, records, [], [])


def counts(records: Records, split: str) -> Counter[str]:
    """In how many pictures of a split each class is."""
    return Counter(
        name for r in records.records if r.split == split for name in {o.name for o in r.objects}
    )


def test_a_parting_has_its_share_of_each_class() -> None:
    draw = torch.Generator().manual_seed(0)
    shares = {"common": 0.7, "usual": 0.3, "rare": 0.05}
    classes = [
        {c for c, p in shares.items() if torch.rand((), generator=draw) < p} for _ in range(400)
    ]
    parted = split_records(imagined(classes), 0.25)
    total = Counter(name for names in classes for name in names)
    for name in shares:
        assert counts(parted, "val")[name] == pytest.approx(0.25 * total[name], abs=4)
    assert sum(r.split == "val" for r in parted.records) == pytest.approx(100, abs=4)


@given(
    st.lists(st.sets(st.sampled_from("abcdef"), max_size=3), min_size=2, max_size=14),
    st.integers(0, 3),
    st.sampled_from([0.3, 0.8, 0.99]),
)
@settings(max_examples=150, deadline=None, database=None, derandomize=True)
def test_both_parts_have_each_class_that_two_pictures_show(
    classes: list[set[str]], seed: int, share: float
) -> None:
    parted = split_records(imagined(classes), share, seed)
    train, val = (counts(parted, split) for split in ("train", "val"))
    assert {r.split for r in parted.records} == {"train", "val"}
    assert parted == split_records(imagined(classes), share, seed)
    for name, number in (train + val).items():
        if number > 1 and not (train[name] and val[name]):
            # No single picture could mend it without taking its last from another class.
            here = train if train[name] else val
            for record in parted.records:
                names = {o.name for o in record.objects}
                if name in names:
                    assert any(here[other] == 1 for other in names)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_seen_only_once_is_learned_from(seed: int) -> None:
    parted = split_records(imagined([{"once", "a"}, *[{"a"}] * 5, {"b"}, {"b"}]), 0.3, seed)
    assert counts(parted, "train")["once"] == 1


def test_a_large_share_leaves_a_picture_to_learn_from() -> None:
    parted = split_records(imagined([{"a"}, {"b"}]), 0.8)
    assert sorted(str(r.split) for r in parted.records) == ["train", "val"]


def test_a_seed_is_a_parting() -> None:
    classes = [{"a"}] * 30
    first, same, other = (split_records(imagined(classes), 0.3, seed) for seed in (0, 0, 1))
    assert first == same
    assert first != other


def test_identical_pictures_are_on_one_side(tmp_path: Path) -> None:
    for i in range(24):
        write_picture(tmp_path / f"{i:02d}.png", i // 3)
        write_text(tmp_path / f"{i:02d}.xml", voc_xml(CAT))
    for seed in range(3):
        data = FolderDataset(tmp_path, "val", val_share=0.4, seed=seed)
        sides = [r.split for r in data.records.records]
        assert all(len(set(sides[i : i + 3])) == 1 for i in range(0, 24, 3))
        assert len(data) == 9  # 0.4 of 8 different ones is 3


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (["train", "train", "val", None], ["train", "train", "val", None]),
        (["test", "train", "train", None], ["test", "?", "?", "?"]),
    ],
)
def test_what_the_folder_says_stays(splits: list[Any], expected: list[Any]) -> None:
    parted = split_records(imagined([{"a"}] * 4, splits))
    for record, says in zip(parted.records, expected, strict=True):
        assert record.split in (("train", "val") if says == "?" else (says,))
    assert any(r.split == "val" for r in parted.records)


@pytest.mark.parametrize("share", [0, 1, -1, float("nan")])
def test_a_share_that_is_none(share: float) -> None:
    with pytest.raises(DataError, match=r"in \(0, 1\)"):
        split_records(imagined([{"a"}] * 4), share)


def test_one_picture_cannot_be_parted() -> None:
    with pytest.raises(DataError, match="two different pictures are needed, and there are 1"):
        split_records(imagined([{"a"}]))


def test_a_parting_is_saved_and_holds_when_pictures_come(flat: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(flat, root)
    parted = FolderDataset(root, "val", seed=5).records
    save_split(tmp_path / "split.json", parted)
    assert load_split(tmp_path / "split.json", read_records(root), ["train", "val"]) == parted
    shutil.copy(root / "shapes_val_0000.jpg", root / "new.jpg")
    shutil.copy(root / "shapes_val_0000.xml", root / "new.xml")
    again = load_split(tmp_path / "split.json", read_records(root), ["train", "val"])
    assert again is not None
    assert {r.image_id: r.split for r in again.records} == {
        **{r.image_id: r.split for r in parted.records},
        "new": None,
    }
    (gone, *_) = (r for r in parted.records if r.split == "val")
    gone.picture.unlink()
    gone.annotation.unlink()
    with pytest.raises(DataError, match=rf"{gone.picture} .*'val', but is gone"):
        load_split(tmp_path / "split.json", read_records(root), ["val"])
    assert load_split(tmp_path / "split.json", read_records(root), ["train"])
    write_picture(tmp_path / "other" / "z.jpg")
    write_text(tmp_path / "other" / "z.xml", voc_xml(CAT))
    other = read_records(tmp_path / "other")
    assert load_split(tmp_path / "split.json", other, ["val"]) is None


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": "x", "splits": {}}', '{"splits": {"val": [1]}}', "[" * 10**5]
)
def test_a_damaged_parting_is_one_line(flat: Path, tmp_path: Path, text: str) -> None:
    path = write_text(tmp_path / "split.json", text)
    with pytest.raises(DataError, match="remove it") as error:
        load_split(path, read_records(flat), ["val"])
    assert str(error.value).startswith(f"{path}: ")


# --- the command line -----------------------------------------------------------------------------

TRAIN = [
    "train", "--depth", "18", "--width", "0.125", "--channels", "16", "--head-convs", "1",
    "--group-norm", "--anchor-strides", "3", "--image-size", "128", "--epochs", "1",
    "--batch-size", "4", "--device", "cpu",
]  # fmt: skip


def test_from_a_folder_to_numbers_and_pictures(flat: Path, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    command = [*TRAIN, "--data", str(flat), "--output", str(run), "--split-seed", "3"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "no val of its own: 20%" in out
    assert "no detection in the gallery has a score of 0.3; shown from" in out
    assert all(name in out for name in ("mean", *ShapesDataset.classes))
    for name in ("gallery.png", "curves.png", "precision_recall.png"):
        with Image.open(run / name) as picture:
            assert min(picture.size) > 200
    saved = json.loads((run / "split.json").read_text())["splits"]
    assert sorted(saved["val"]) == [
        f"{i}.jpg" for i in FolderDataset(flat, "val", seed=3).image_ids
    ]

    # Without being told the seed, `evaluate` takes the run's own pictures.
    numbers = tmp_path / "numbers.json"
    evaluate = ["evaluate", "--checkpoint", str(run / "best.pt"), "--device", "cpu"]
    assert main([*evaluate, "--data", str(flat), "--output", str(numbers)]) == 0
    assert "split.json" in capsys.readouterr().out
    history = json.loads((run / "metrics.jsonl").read_text())
    result = json.loads(numbers.read_text())
    assert result["images"] == len(saved["val"])
    assert result["coco"]["AP"] == pytest.approx(history["mAP"])
    assert result["loss"] == pytest.approx(history["val_loss"], rel=1e-4)

    # Another folder, and all of it.
    assert main([*evaluate, "--data", str(flat), "--split", "all", "--output", str(numbers)]) == 0
    assert json.loads(numbers.read_text())["images"] == 18

    # A run goes on with its own parting, whatever is asked for.
    assert main([*command[:-1], "0", "--resume"]) == 0
    assert json.loads((run / "split.json").read_text())["splits"] == saved


def test_a_broken_folder_is_one_line(tmp_path: Path, capsys: Any) -> None:
    one_picture(tmp_path, ("cat", (30, 6, 11, 25)))
    (tmp_path / "a.xml").rename(tmp_path / "b.xml")
    assert main([*TRAIN, "--data", str(tmp_path), "--output", str(tmp_path / "run")]) == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert err.startswith(f"retinanet-edu: {tmp_path}")
    assert not (tmp_path / "run").exists()


def test_the_annotations_of_an_image_that_is_refused_are_no_faults(tmp_path: Path) -> None:
    write_coco(tmp_path / "x.json", {1: "/etc/a.jpg"}, [(1, 1, [1, 1, 5, 5])] * 3, {1: "cat"})
    (fault,) = read_records(tmp_path).faults
    assert "image 0" in fault
