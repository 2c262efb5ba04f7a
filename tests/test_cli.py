"""The command line, as a person types it."""

import io
import json
import shutil
import subprocess
import sys

import pytest
from folders import voc_xml, write_picture, write_text

from retinanet_edu.cli import main
from retinanet_edu.data.shapes import ShapesDataset


@pytest.fixture(scope="module")
def devkit(tmp_path_factory):
    """A small VOCdevkit of shapes."""
    from retinanet_edu.data.shapes import write_voc

    folder = tmp_path_factory.mktemp("shapes")
    write_voc(folder, train=12, val=6)
    return folder


@pytest.fixture(scope="module")
def trained(devkit, tmp_path_factory):
    """A run of one epoch on it."""
    output = tmp_path_factory.mktemp("run") / "run"
    assert main([*TRAIN, "--data", str(devkit), "--output", str(output)]) == 0
    return output


TRAIN = [
    "train", "--depth", "18", "--width", "0.125", "--channels", "16", "--head-convs", "1",
    "--group-norm", "--anchor-strides", "3", "--image-size", "128", "--epochs", "1",
    "--batch-size", "4", "--device", "cpu",
]  # fmt: skip


def test_help_needs_no_torch():
    code = (
        "import sys; from retinanet_edu.cli import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--backbone-weights" in done.stdout


def test_train_leaves_a_run_and_says_what_next(trained, devkit, capsys):
    assert (trained / "best.pt").is_file()
    assert main([*TRAIN, "--data", str(devkit), "--output", str(trained), "--resume"]) == 0
    assert "retinanet-edu evaluate --checkpoint" in capsys.readouterr().out


def test_the_line_that_train_prints_has_what_says_which_data(trained, devkit, capsys):
    words = ["--data", str(devkit), "--output", str(trained), "--resume"]
    assert main([*TRAIN, *words, "--format", "voc"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("--split val --format voc")
    assert main([*TRAIN, *words, "--year", "2007"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("--split val --year 2007")


def test_train_refuses_to_overwrite(trained, devkit, capsys):
    assert main([*TRAIN, "--data", str(devkit), "--output", str(trained)]) == 1
    assert "--resume" in capsys.readouterr().err


def test_evaluate_prints_a_row_a_class_and_writes_json(trained, devkit, tmp_path, capsys):
    numbers = tmp_path / "numbers.json"
    arguments = ["evaluate", "--checkpoint", str(trained / "best.pt"), "--data", str(devkit)]
    assert main([*arguments, "--device", "cpu", "--output", str(numbers)]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ShapesDataset.classes)
    assert {"AP", "AP50", "AR100"} <= set(json.loads(numbers.read_text())["coco"])


def test_predict_writes_pictures_and_json_and_loses_nothing_to_a_bad_file(devkit, tmp_path, capsys):
    good = sorted((devkit / "VOCdevkit/VOC2007/JPEGImages").iterdir())[:2]
    bad = tmp_path / "broken.jpg"
    bad.write_bytes(b"not a picture")
    output = tmp_path / "out"
    pictures = [str(good[0]), str(bad), str(good[1])]
    arguments = ["predict", *pictures, "--checkpoint", "shapes", "--output", str(output)]
    assert main([*arguments, "--device", "cpu"]) == 1
    assert "broken.jpg" in capsys.readouterr().err
    found = json.loads((output / "detections.json").read_text())
    assert [entry["image"] for entry in found] == [str(p) for p in good]
    assert all((output / entry["picture"]).is_file() for entry in found)
    assert {e["class"] for entry in found for e in entry["detections"]} <= set(
        ShapesDataset.classes
    )


def test_predict_replaces_no_picture_and_names_each_plot_once(tmp_path):
    names = ["a-3.jpg", "a.jpg", "b.png", "a.JPG"]
    pictures = [write_picture(tmp_path / name) for name in names]
    before = [picture.read_bytes() for picture in pictures]
    arguments = ["predict", *map(str, pictures), "--checkpoint", "shapes", "--device", "cpu"]
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    assert [picture.read_bytes() for picture in pictures] == before
    found = json.loads((tmp_path / "detections.json").read_text())
    plots = [entry["picture"] for entry in found]
    assert plots == ["a-3.png", "a.png", "b-2.png", "a-3-3.png"]


def test_explain_refuses_the_annotation_of_a_picture_of_another_size(tmp_path, capsys):
    picture = write_picture(tmp_path / "a.png")
    truth = write_text(tmp_path / "a.xml", voc_xml(("disc", (1, 1, 9, 9)), size=(120, 80)))
    words = ["explain", str(picture), "--checkpoint", "shapes", "--device", "cpu"]
    assert main([*words, "--truth", str(truth), "--output", str(tmp_path / "page.html")]) == 1
    assert "is 60 × 40 pixels, but" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "--checkpoint", "nowhere.pt", "--data", "."], ["nowhere.pt", "no such file"]),
        ([*TRAIN, "--data", "nowhere"], ["nowhere"]),
        (["shapes", __file__], [__file__, "Not a directory"]),
        (["predict", "x.jpg", "--checkpoint", "shapes", "--output", __file__], ["File exists"]),
    ],
)
def test_a_mistake_is_one_line_that_names_it(arguments, words, capsys):
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert all(word in err for word in words)
    assert "Traceback" not in err


def test_a_damaged_picture_in_a_loading_process_is_one_line_too(tmp_path, capsys):
    from retinanet_edu.data.shapes import write_voc

    write_voc(tmp_path, train=1, val=2)
    (picture, *_) = sorted((tmp_path / "VOCdevkit/VOC2007/JPEGImages").glob("*val*"))
    picture.write_bytes(picture.read_bytes()[:900])
    command = ["evaluate", "--checkpoint", "shapes", "--data", str(tmp_path), "--device", "cpu"]
    for workers in ("0", "1"):
        assert main([*command, "--workers", workers]) == 1
        (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("retinanet-edu")]
        assert picture.name in line
        assert "Traceback" not in line


def test_a_reader_that_stops_reading_is_no_traceback(devkit, tmp_path):
    command = [sys.executable, "-u", "-m", "retinanet_edu", "doctor", str(devkit)]
    arguments = ["--image-size", "128", "--output", str(tmp_path)]
    run = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    run.stdout.close()
    assert run.stderr.read() == b""
    assert run.wait() == 141


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--batch-size 0", "a whole number of at least 1, not '0'"),
        ("--epochs 1.5", "a whole number of at least 1, not '1.5'"),
        ("--learning-rate 0", "a number above 0, not '0'"),
        ("--learning-rate nan", "a number above 0, not 'nan'"),
        ("--workers -1", "a whole number of at least 0, not '-1'"),
        ("--seed -1", "a whole number of at least 0, not '-1'"),
        ("--split-seed -1", "a whole number of at least 0, not '-1'"),
        ("--val-share 1", "a number above 0 and below 1, not '1'"),
        ("--frozen-stages 6", "invalid choice: 6"),
    ],
)
def test_a_number_that_cannot_be_is_refused_before_anything_is_read(words, complaint, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--data", "nowhere", *words.split()])
    assert stopped.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--channels", "33"], "a multiple of 8 with group norm, not 33"),
        (["--output", __file__], "a file; the run wants a folder"),
    ],
)
def test_settings_that_do_not_go_together_are_one_line(words, complaint, capsys):
    assert main(["train", "--data", "nowhere", *words]) == 1
    assert complaint in capsys.readouterr().err


def test_a_device_that_is_not_there_is_one_line(tmp_path, capsys):
    words = ["predict", "x.jpg", "--checkpoint", "shapes", "--output", str(tmp_path)]
    assert main([*words, "--device", "nosuch"]) == 1
    error = capsys.readouterr().err
    assert "--device nosuch" in error
    assert error.count("\n") == 1


def test_what_a_terminal_cannot_show_is_written_as_a_code(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stderr", stream)
    assert main([*TRAIN, "--data", "nowhere→\udcff"]) == 1
    stream.flush()
    assert b"nowhere\\u2192\\udcff" in stream.buffer.getvalue()


def test_a_size_of_picture_that_cannot_be_is_refused_by_the_doctor(capsys):
    for size in ("0", "-64"):
        with pytest.raises(SystemExit):
            main(["doctor", "nowhere", "--image-size", size])
        assert f"of at least 1, not '{size}'" in capsys.readouterr().err


def test_a_test_that_the_folder_has_is_not_said_to_be_parted(devkit, tmp_path, capsys):
    home = devkit / "VOCdevkit" / "VOC2007"
    shutil.copytree(home / "JPEGImages", tmp_path / "test")
    shutil.copytree(home / "Annotations", tmp_path / "test", dirs_exist_ok=True)
    words = ["evaluate", "--checkpoint", "shapes", "--data", str(tmp_path), "--device", "cpu"]
    assert main([*words, "--split", "test"]) == 0
    assert "no val of its own" not in capsys.readouterr().out


def test_the_command_that_export_prints_can_be_pasted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("retinanet_edu.export.export_model", lambda _, path: write_text(path, "x"))
    output = tmp_path / "my model.onnx"
    assert main(["export", "--checkpoint", "shapes", "--output", str(output)]) == 0
    assert f"detect_onnx.py '{output}' PICTURE" in capsys.readouterr().out
