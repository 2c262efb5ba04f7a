"""Docstrings: everything public has one, and it names what goes in and what comes out."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import retinanet_edu

MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(retinanet_edu.__path__, "retinanet_edu.")
    if not info.name.endswith("__main__")
)
SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Law", "Source")


def is_public(dotted: str) -> bool:
    return not any(part.startswith("_") for part in dotted.split("."))


def is_for_users(dotted: str) -> bool:
    """All but the cases behind `check`, which nobody calls by name."""
    return not dotted.startswith("retinanet_edu.checks.") or dotted.count(".") == 2


def own(module: ModuleType, kind: Callable[[Any], bool]) -> dict[str, Any]:
    """What a module defines itself, by its public name."""
    return {
        f"{module.__name__}.{name}": value
        for name, value in vars(module).items()
        if is_public(name) and kind(value) and value.__module__ == module.__name__
    }


def collect(kind: Callable[[Any], bool]) -> dict[str, Any]:
    found = {}
    for name in MODULES:
        if is_public(name):
            found |= own(importlib.import_module(name), kind)
    return found


FUNCTIONS = collect(inspect.isfunction)
CLASSES = collect(inspect.isclass)


def methods() -> dict[str, Any]:
    """Public methods and properties that a class writes itself, and what calling it does."""
    found = {}
    for owner, cls in CLASSES.items():
        # A function that is the default of a dataclass's field is told among the attributes.
        fields = {f.name for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else ()
        for name, value in vars(cls).items():
            if name in fields:
                continue
            function = value.fget if isinstance(value, property) else inspect.unwrap(value)
            function = getattr(function, "__func__", function)  # of a classmethod
            written = inspect.isfunction(function) and function.__code__.co_filename != "<string>"
            if written and (is_public(name) or name == "__call__"):
                found[f"{owner}.{name}"] = function
    return found


METHODS = methods()


def sections(doc: str) -> dict[str, str]:
    """The text under each heading of a docstring; under "" what stands before them."""
    parts = re.split(rf"^({'|'.join(SECTIONS)}):$", doc, flags=re.MULTILINE)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def named(section: str) -> set[str]:
    """The names that a section explains: "name: …", or several, as "alpha, gamma: …"."""
    heads = re.findall(r"^    (\w+(?:, \w+)*): ", section, flags=re.MULTILINE)
    return {name for head in heads for name in head.split(", ")}


def referred(doc: str) -> list[str]:
    """Docstrings of the package's functions and classes that a docstring names in backticks."""
    names = set(re.findall(r"`(\w+)`", doc))
    return [
        inspect.getdoc(value) or ""
        for dotted, value in (FUNCTIONS | CLASSES).items()
        if dotted.rpartition(".")[2] in names
    ]


def unexplained(doc: str, parameters: list[str]) -> list[str]:
    """Parameters that neither a docstring nor one that it refers to explains."""
    known = named(sections(doc).get("Args", ""))
    for other in referred(doc):
        known |= named(sections(other).get("Args", ""))
    return [name for name in parameters if name not in known]


def test_there_is_something_to_look_at() -> None:
    assert len(MODULES) > 20
    assert len(FUNCTIONS) > 50
    assert len(CLASSES) > 15
    assert "retinanet_edu.data.pictures.PictureDataset.target" in METHODS
    assert "retinanet_edu.model.RetinaNet.device" in METHODS
    assert "retinanet_edu.structures.Targets.from_list" in METHODS


@pytest.mark.parametrize("name", ["retinanet_edu", *MODULES])
def test_every_module_says_what_it_is(name: str) -> None:
    doc = importlib.import_module(name).__doc__
    assert doc, f"{name} has no docstring"
    assert doc.strip().partition("\n")[0].endswith((".", "?", "!"))


@pytest.mark.parametrize("name", sorted([*FUNCTIONS, *CLASSES, *METHODS]))
def test_everything_public_has_a_docstring_of_one_line_first(name: str) -> None:
    value = (FUNCTIONS | CLASSES | METHODS)[name]
    doc = inspect.cleandoc(value.__doc__ or "")
    assert doc, f"{name} has no docstring"
    first, _, rest = doc.partition("\n")
    assert first.endswith((".", "?", "!", ":")), f"{name}: {first!r} is no sentence"
    assert not rest or rest.startswith("\n"), f"{name}: the first line stands alone"


@pytest.mark.parametrize("name", sorted(filter(is_for_users, FUNCTIONS)))
def test_every_function_names_its_parameters_and_what_it_returns(name: str) -> None:
    signature = inspect.signature(FUNCTIONS[name])
    doc = inspect.getdoc(FUNCTIONS[name]) or ""
    # Of a small helper a single sentence says it all, if it names what goes in.
    words = re.findall(r"\w+", doc.lower())
    if "\n" not in doc and all(parameter in words for parameter in signature.parameters):
        return
    lacking = unexplained(doc, list(signature.parameters))
    assert not lacking, f"{name}: Args says nothing of {', '.join(lacking)}"
    mentioned = named(sections(doc).get("Args", ""))
    assert mentioned <= set(signature.parameters), f"{name}: has no {mentioned}"
    if signature.return_annotation not in (None, "None", "NoReturn"):
        assert sections(doc).get("Returns", "").strip(), f"{name}: no Returns"


@pytest.mark.parametrize("name", sorted(filter(is_for_users, CLASSES)))
def test_every_class_names_what_makes_it(name: str) -> None:
    cls = CLASSES[name]
    doc = inspect.getdoc(cls) or ""
    if dataclasses.is_dataclass(cls) or hasattr(cls, "_fields"):
        fields = getattr(cls, "_fields", None) or [f.name for f in dataclasses.fields(cls)]
        lacking = set(fields) - named(sections(doc).get("Attributes", ""))
    elif "__init__" in vars(cls):
        _, *parameters = inspect.signature(cls.__init__).parameters
        lacking = set(unexplained(doc, parameters))
    else:
        lacking = set()
    assert not lacking, f"{name}: nothing is said of {', '.join(sorted(lacking))}"


# --- the package's face ---------------------------------------------------------------------------

FACE = [name for name in retinanet_edu.__all__ if not name.startswith("__")]


@pytest.mark.parametrize("name", FACE)
def test_every_name_on_the_face_is_there_and_explained(name: str) -> None:
    value = getattr(retinanet_edu, name)
    assert callable(value)
    assert value.__name__ == name
    module = importlib.import_module(value.__module__)
    assert getattr(module, name) is value
    assert name in dir(retinanet_edu)
    assert inspect.getdoc(value)


def test_the_face_is_what_was_promised() -> None:
    depths = (18, 34, 50, 101, 152)
    promised = {
        "RetinaNet", *(f"retinanet_resnet{d}" for d in depths), "pairwise_iou", "AnchorGenerator",
        "match_anchors", "encode_boxes", "decode_boxes", "focal_loss", "smooth_l1_loss", "nms",
        "postprocess", "criterion", "Predictions", "Targets", "Detections", "VOCDataset",
        "ShapesDataset", "train", "evaluate", "predict", "load_checkpoint",
    }  # fmt: skip
    assert promised <= set(FACE)
    assert len(FACE) == len(set(FACE))
    with pytest.raises(AttributeError, match="no attribute 'retinanet_resnet19'"):
        _ = retinanet_edu.retinanet_resnet19
    everything: dict[str, Any] = {}
    exec("from retinanet_edu import *", everything)
    assert promised <= set(everything)


def test_no_module_bears_the_name_of_something_on_the_face() -> None:
    """It would hide it, as soon as the module is imported."""
    assert not {name.split(".")[1] for name in MODULES} & set(FACE)


def test_type_checkers_see_the_same_face() -> None:
    """They do not run the import on demand, they read the block that is for them."""
    tree = ast.parse(Path(retinanet_edu.__file__).read_text(encoding="utf-8"))
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    )
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name  # "as" marks what is meant for others
            seen[alias.name] = node.module
    given = {name: f"retinanet_edu.{module}" for name, module in retinanet_edu._MODULE_OF.items()}
    assert seen == given
