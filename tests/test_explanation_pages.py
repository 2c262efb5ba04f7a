"""explain and report as a person uses them: the pages, what stands on them, and in a browser."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from browsing import FIND_WIDE, open_page, serious

from retinanet_edu import ShapesDataset, VOCDataset, load_checkpoint, predict, save_checkpoint
from retinanet_edu.cli import main
from retinanet_edu.data.images import read_image
from retinanet_edu.data.shapes import write_voc
from retinanet_edu.demo import shapes_model
from retinanet_edu.errors import DataError
from retinanet_edu.explanation import REASONS, Miss, explain
from retinanet_edu.explanation.picture_page import picture_page, zoom
from retinanet_edu.explanation.run import examine
from retinanet_edu.explanation.run_page import read_run, run_page
from retinanet_edu.explanation.truth_page import tell_miss
from retinanet_edu.html import text
from retinanet_edu.plotting import POSITIVE

HOSTILE = "<img src=x onerror=alert(1)>$\\frac{"


@pytest.fixture(scope="module")
def devkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small VOCdevkit of shapes: VOC2007 in it."""
    folder = tmp_path_factory.mktemp("shapes")
    write_voc(folder, train=2, val=8)
    return folder / "VOCdevkit" / "VOC2007"


@pytest.fixture(scope="module")
def explained(devkit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of one picture, with the truth."""
    page = tmp_path_factory.mktemp("page") / "new folder" / "page.html"
    name = "shapes_val_0003"
    picture, truth = devkit / f"JPEGImages/{name}.jpg", devkit / f"Annotations/{name}.xml"
    words = ["explain", str(picture), "--checkpoint", "shapes", "--truth", str(truth)]
    assert main([*words, "--output", str(page), "--device", "cpu"]) == 0
    return page


def rows(source: str, caption: str) -> list[list[str]]:
    """The cells of a table as text."""
    (found,) = re.findall(rf'aria-label="{caption}"><table>(.*?)</table>', source, re.DOTALL)
    return [
        [re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in re.findall("<tr>(.*?)</tr>", found)
    ]


def visit_page(browser: Any, path: Path, scheme: str, width: int) -> None:
    """A page asks for nothing, hides nothing, and axe finds nothing serious."""
    page, visit = open_page(browser, path, scheme, width)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert visit.errors == []
    assert [r for r in visit.requests if not r.startswith("data:")] == [path.as_uri()]
    assert serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.evaluate(FIND_WIDE)
    assert [e for e in wide if not re.match("<t[hdr]|<table|<tbody|<thead|<span", e)] == []
    loaded = "[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt)"
    assert page.evaluate(loaded)
    page.close()


# --- explain --------------------------------------------------------------------------------------


def test_the_page_tells_every_detection(explained: Path, devkit: Path) -> None:
    source = explained.read_text(encoding="utf-8")
    assert len(source) < 3_000_000
    model = load_checkpoint("shapes").for_inference()
    found = predict(model, devkit / "JPEGImages/shapes_val_0003.jpg")
    head, *table = rows(source, "all detections")
    assert head == ["detection", "class", "score", "level", "anchor", "suppressed", "verdict"]
    assert [row[0] for row in table] == [f"#{i + 1}" for i in range(len(found))]
    assert [row[1] for row in table] == [model.classes[k] for k in found.labels.tolist()]
    assert [row[2] for row in table] == [f"{score:.3f}" for score in found.scores.tolist()]
    assert all(re.fullmatch(r"P[3-7]", row[3]) for row in table)
    shown = int((found.scores >= 0.5).sum())
    assert source.count("<details") == shown
    assert source.count('aria-label="scores of the anchor"') == shown
    scores = re.findall(r'aria-label="scores of the anchor"><table>(.*?)</table>', source)
    assert all(name in block for name in model.classes for block in scores)


def test_the_page_tells_levels_objects_and_mistakes(explained: Path, devkit: Path) -> None:
    source = explained.read_text(encoding="utf-8")
    data = ShapesDataset("val")
    model = load_checkpoint("shapes").for_inference()
    image = read_image(devkit / "JPEGImages/shapes_val_0003.jpg")
    judgement = explain(model, image, data.target(3)).judgement
    assert judgement is not None
    counts = [list(map(str, row)) for row in judgement.count_levels((2304, 576, 144, 36, 9))]
    assert [row[1:] for row in rows(source, "anchors by level")[1:-1]] == counts
    objects = rows(source, "the objects")[1:]
    assert len(objects) == len(judgement.labels)
    assert all(
        "found by #" in row[3] or "missed" in row[3] or "difficult" in row[3] for row in objects
    )
    kinds = {row[0]: int(row[2]) for row in rows(source, "false detections by kind")[1:]}
    assert sum(kinds.values()) == sum(v.is_false for v in judgement.verdicts)
    levels = rows(source, "the levels of the pyramid")[1:]
    assert [row[0] for row in levels] == ["P3", "P4", "P5", "P6", "P7"]
    assert [row[3] for row in levels] == ["2304", "576", "144", "36", "9"]


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1280), ("dark", 390)])
def test_the_page_in_a_browser(browser: Any, explained: Path, scheme: str, width: int) -> None:
    visit_page(browser, explained, scheme, width)


def test_names_of_strangers_do_no_harm() -> None:
    model = load_checkpoint("shapes")
    image, target = ShapesDataset("val")[3]
    model.classes = tuple(f"{HOSTILE}{k}" for k in range(6))
    source = picture_page(explain(model, image, target), HOSTILE, notes=[HOSTILE])
    assert "<img src=x" not in source
    assert source.count("&lt;img src=x") > 10


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (600, 40)])
def test_pictures_of_any_shape_have_a_page(size: tuple[int, int]) -> None:
    model = load_checkpoint("shapes")
    target = {"boxes": torch.tensor([[0.0, 0, 1, 1]]), "labels": torch.tensor([0])}
    image = torch.full((3, *size), 90, dtype=torch.uint8)
    source = picture_page(explain(model, image, target), "strip", score=0.9)
    assert "What is wrong" in source


def test_zoom_shows_all_boxes_that_lie_in_the_picture() -> None:
    image = torch.arange(3 * 200 * 300).reshape(3, 200, 300).to(torch.uint8)
    boxes = torch.tensor([[100.0, 50, 140, 90], [120, 60, 160, 80]])
    part, layers = zoom(image, [(boxes[:1], POSITIVE, ["a"]), (boxes[1:], POSITIVE, ())])
    # 60 × 40 pixels and 23 on each side
    assert torch.equal(part, image[:, 27:113, 77:183])
    assert layers[0][0].tolist() == [[23, 23, 63, 63]]
    assert layers[1][0].tolist() == [[43, 33, 83, 53]]
    part, layers = zoom(image, [(torch.tensor([[-50.0, 150, 20, 260]]), POSITIVE, ())])
    assert part.shape == (3, 86, 56)
    assert layers[0][0].tolist() == [[-50, 36, 20, 146]]
    part, _ = zoom(image, [(torch.tensor([[299.5, 0, 300, 1]]), POSITIVE, ())])
    assert min(part.shape) > 0


def test_nothing_found_is_said() -> None:
    model = load_checkpoint("shapes")
    image = torch.full((3, 64, 64), 128, dtype=torch.uint8)
    source = picture_page(explain(model, image, score_threshold=0.99), "grey")
    assert "Nothing was found" in source
    assert "What is wrong" not in source


def test_each_reason_is_a_sentence_with_its_numbers() -> None:
    e = explain(load_checkpoint("shapes"), ShapesDataset("val")[3][0], max_detections=1)
    gone = int((e.suppressed_by == int(e.places[0])).nonzero()[0])
    for reason in REASONS:
        place = gone if reason == "suppressed" else 1 if reason in ("taken", "limit") else -1
        text = tell_miss(e, Miss(0, reason, place, 3, 0.44, 0.031))
        assert text.startswith(REASONS[reason])
        assert re.search(r"\(.*\d\.\d", text), reason
    assert "by #1 of score" in tell_miss(e, Miss(0, "suppressed", gone, 3, 0.4, 0.3))
    assert tell_miss(e, Miss(0, "no anchor", -1, 0, 0.4, float("nan"))) == REASONS["no anchor"]


def test_a_truth_of_other_classes_is_refused_or_left_out(
    devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = devkit / "JPEGImages/shapes_val_0003.jpg"
    xml = (devkit / "Annotations/shapes_val_0003.xml").read_text(encoding="utf-8")
    page = tmp_path / "page.html"
    words = ["explain", str(picture), "--checkpoint", "shapes", "--output", str(page)]
    strange = tmp_path / "strange.xml"
    strange.write_text(xml.replace("<name>disc", "<name>zebra", 1), encoding="utf-8")
    assert main([*words, "--truth", str(strange)]) == 0
    assert "does not know them: zebra" in page.read_text(encoding="utf-8")
    strange.write_text(re.sub("<name>.*?<", "<name>zebra<", xml), encoding="utf-8")
    assert main([*words, "--truth", str(strange)]) == 1
    err = capsys.readouterr().err
    assert "zebra" in err
    assert "crescent" in err
    assert main([*words[:-1], str(tmp_path)]) == 1  # a folder
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("format", ["coco", "yolo"])
def test_the_truth_may_be_of_any_format(
    explained: Path, devkit: Path, format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder, or COCO's JSON in it, tells what the XML of the picture tells."""
    assert main(["convert", str(devkit), str(tmp_path / "data"), "--to", format]) == 0
    (picture,) = (tmp_path / "data").rglob("shapes_val_0003.*g")
    truths = [tmp_path / "data", *(tmp_path / "data").rglob("instances_val*.json")]
    assert len(truths) == (2 if format == "coco" else 1)
    caption = "the objects"
    for truth in truths:
        words = ["explain", str(picture), "--checkpoint", "shapes", "--truth", str(truth)]
        page = tmp_path / "page.html"
        assert main([*words, "--output", str(page), "--device", "cpu"]) == 0
        assert rows(page.read_text(encoding="utf-8"), caption) == rows(
            explained.read_text(encoding="utf-8"), caption
        )
    other = tmp_path / "other.png"
    other.write_bytes(picture.read_bytes())
    words = ["explain", str(other), "--checkpoint", "shapes", "--truth", str(tmp_path / "data")]
    assert main(words) == 1
    assert "nothing is said of a picture other.png" in capsys.readouterr().err
    label = tmp_path / "other.txt"
    assert main([*words[:-1], str(label)]) == 1
    assert "name the folder" in capsys.readouterr().err


# --- report ---------------------------------------------------------------------------------------

ROW = {"epoch": 1, "step": 9, "loss": 2.0, "classification_loss": 1.5, "box_loss": 0.5}
JUDGED = ROW | {"epoch": 2, "loss": 1.0, "val_loss": 1.2, "mAP": 0.3, "mAP50": 0.6}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as `train` leaves it, whose best model is the bundled one."""
    folder = tmp_path_factory.mktemp("runs") / "my <run>"
    save_checkpoint(folder / "best.pt", load_checkpoint("shapes"))
    lines = "".join(json.dumps(row) + "\n" for row in (ROW, JUDGED))
    (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def reported(run: Path, devkit: Path) -> Path:
    """The report on it, on a VOCdevkit."""
    data = str(devkit.parents[1])
    assert main(["report", str(run), "--data", data, "--device", "cpu"]) == 0
    return run / "report.html"


def test_the_report_tells_what_was_examined(reported: Path, devkit: Path) -> None:
    source = reported.read_text(encoding="utf-8")
    assert len(source) < 3_000_000
    assert "Report on my &lt;run&gt;" in source
    data = VOCDataset(devkit.parents[1], split="val", classes=ShapesDataset.classes)
    model = load_checkpoint("shapes").for_inference()
    x = examine(model, data)
    by_class = {row[0]: row[1:] for row in rows(source, "average precision by class")[1:]}
    assert list(by_class) != sorted(by_class)  # the weakest first
    for name, numbers in x.evaluation.per_class.items():
        assert by_class[name][0] == str(numbers["objects"])
        assert by_class[name][3] == text(numbers["AP50"])
    table = rows(source, "the confusion matrix")
    assert table[0] == ["in truth", *x.classes, "background"]
    assert [row[1:] for row in table[1:]] == [list(map(str, r)) for r in x.confusion.tolist()]
    kinds = {row[0]: (int(row[1]), int(row[2])) for row in rows(source, "detections by kind")[1:]}
    assert kinds == x.kinds
    worst = [row[0] for row in rows(source, "the worst pictures")[1:]]
    assert worst == [row.image_id for row in x.images]
    assert re.findall("<h3>(.*?)</h3>", source) == worst[:8]
    short = dict(rows(source, "the numbers in short"))
    assert short["loss"] == text(x.evaluation.loss)
    assert short["pictures"] == "8"
    assert "The best AP was 0.300 after epoch 2." in source
    shares = {row[0]: row[1:] for row in rows(source, "shares of the loss")[1:]}
    assert list(shares) == ["γ = 0", "γ = 0.5", "γ = 1", "γ = 2"]
    assert shares["γ = 2"][1] == text(x.background.hardest(2, 0.01))


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1280)])
def test_the_report_in_a_browser(browser: Any, reported: Path, scheme: str, width: int) -> None:
    visit_page(browser, reported, scheme, width)


def test_without_data_the_embedded_shapes_are_taken_or_only_the_curves_shown(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = partial(ShapesDataset, length=3)
    few.classes = ShapesDataset.classes  # type: ignore[attr-defined]
    monkeypatch.setattr("retinanet_edu.data.shapes.ShapesDataset", few)
    page = tmp_path / "page.html"
    assert main(["report", str(run), "--output", str(page)]) == 0
    assert "embedded shapes, 3 pictures" in page.read_text(encoding="utf-8")
    model = load_checkpoint("shapes")
    model.classes = tuple("abcdef")
    save_checkpoint(tmp_path / "other" / "last.pt", model)
    assert main(["report", str(tmp_path / "other"), "--output", str(page)]) == 0
    source = page.read_text(encoding="utf-8")
    assert "give --data" in source
    assert "no metrics.jsonl" in source
    assert "taken for whom" not in source


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", ["line 2", "damaged"]),
        ('{"epoch": "two"}', ["line 2", "damaged"]),
        ("[1]", ["line 2", "damaged"]),
        ('{"epoch": 2}', ["line 2", "lacks", "loss"]),
        (json.dumps(ROW | {"mAP": 0.5}), ["line 2", "lacks", "val_loss"]),
    ],
)
def test_damaged_metrics_are_named(run: Path, tmp_path: Path, line: str, words: list[str]) -> None:
    (tmp_path / "last.pt").write_bytes((run / "best.pt").read_bytes())
    (tmp_path / "metrics.jsonl").write_text(json.dumps(ROW) + "\n\n" + line, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_run(tmp_path)
    assert all(word in str(caught.value) for word in words)


def test_a_folder_without_a_run_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path)]) == 1
    assert "no run" in capsys.readouterr().err


def test_a_model_that_finds_nothing_has_a_report(tmp_path: Path) -> None:
    x = examine(shapes_model().eval(), ShapesDataset("val", length=2))
    source = run_page("untrained", [], x)
    assert "found 0 of" in source
    assert rows(source, "why objects were missed")[1:]
