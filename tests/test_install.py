"""What a student's project gets: a wheel that installs into a clean environment and works."""

import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built by the project's own backend."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_package_and_one_checkpoint_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "retinanet_edu/py.typed" in names
    assert "retinanet_edu/detect_onnx.py" in names  # `export` copies it
    assert [n for n in names if n.endswith(".pt")] == ["retinanet_edu/shapes.pt"]
    assert {n.split("/")[0].split("-")[0] for n in names} == {"retinanet_edu"}
    assert wheel.stat().st_size < 4_000_000


def test_a_clean_environment_detects_something_from_the_wheel_alone(wheel, tmp_path):
    """Only what the wheel brings, torch and its like apart, which are lent by path."""
    home = tmp_path / "env"
    venv.create(home, with_pip=True)
    python = home / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)],
        check=True,
    )
    site = next(home.glob("**/site-packages"))
    lent = [p for p in sys.path if p.endswith("site-packages")]
    # A .pth file lends torch and its like; the line for the checkout itself is left behind.
    (site / "lent.pth").write_text("\n".join(lent) + "\n")
    program = (
        "import retinanet_edu as r\n"
        f"assert r.__file__.startswith({str(home)!r}), r.__file__\n"
        "from retinanet_edu import ShapesDataset, load_checkpoint, predict\n"
        "data = ShapesDataset('val')\n"
        "found = predict(load_checkpoint('shapes'), data[0][0], score_threshold=0.5)\n"
        "assert len(found) > 0\n"
        "print([data.classes[k] for k in found.labels])\n"
    )
    done = subprocess.run(
        [python, "-c", program],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_environment_yml_says_what_pyproject_says():
    text = (ROOT / "environment.yml").read_text()
    python = re.search(r"- python(\S+)", text).group(1)
    assert python == PROJECT["requires-python"]
    assert "- pip\n" in text
    # Everything else comes from the project itself, so it cannot differ.
    packages = re.findall(r"^ +- (.+)$", text.partition("- pip:")[2], re.MULTILINE)
    assert packages == ["--editable .[dev]"]
    assert "dev" in PROJECT["optional-dependencies"]


def test_version_is_said_once_more_and_the_same():
    import retinanet_edu

    assert retinanet_edu.__version__ == PROJECT["version"]
    assert f"version: {PROJECT['version']}" in (ROOT / "CITATION.cff").read_text()


def test_the_citation_file_has_what_its_format_demands():
    """Of version 1.2.0: required keys, a known type, authors and references with names."""
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cff["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(cff)
    assert cff["type"] == "software"
    assert cff["license"] == PROJECT["license"]
    assert all(set(author) == {"name"} for author in cff["authors"])
    (paper,) = cff["references"]
    assert {"type", "title", "authors", "year"} <= set(paper)
    assert paper["type"] == "conference-paper"
    assert isinstance(paper["year"], int)
    assert all(set(author) == {"given-names", "family-names"} for author in paper["authors"])


def test_no_registry_host_is_named():
    for name in ("pyproject.toml", "environment.yml", "Makefile"):
        assert not re.search(r"https?://", (ROOT / name).read_text()), name
