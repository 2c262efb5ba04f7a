"""Checks: is my function right, and if not, where does it go wrong?

    >>> from retinanet_edu.checks import check
    >>> check(my_iou, "pairwise_iou")  # doctest: +SKIP
    pairwise_iou: 20 cases passed, 2 of them about slopes; witness: torchvision.ops.box_iou

The cases are the ones that test this package. What they expect comes from tables worked out by
hand, from naive loops over plain numbers, and from torch, torchvision and pycocotools, never from
the package's own function.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retinanet_edu.checks.harness import Piece

__all__ = ["CheckFailed", "check", "inputs", "names"]

# In the order of the book; a module here bears the name of the one that it checks, but for
# `batch_loss` and `curves`, which are of losses and of evaluation too, and `coco`, which is of a
# reader that chapter 15 builds.
_PIECES = {
    "boxes": (
        "xyxy_to_cxcywh",
        "cxcywh_to_xyxy",
        "box_area",
        "pairwise_iou",
        "clip_boxes",
    ),
    "data": ("voc_box", "parse_voc_xml", "flip_boxes"),
    "backbone": ("receptive_field",),
    "fpn": ("top_down",),
    "heads": ("flatten_level", "prior_bias"),
    "anchors": ("cell_anchors", "level_anchors", "make_anchors"),
    "matching": ("match_anchors", "match_targets", "class_targets"),
    "coding": ("encode_boxes", "decode_boxes"),
    "losses": ("smooth_l1_loss", "focal_loss"),
    "batch_loss": ("criterion",),
    "suppression": ("nms", "nms_per_class"),
    "detection": ("postprocess",),
    "training": ("schedule",),
    "evaluation": ("match_detections",),
    "curves": (
        "precision_recall",
        "average_precision",
        "average_precision_11_point",
    ),
    "coco": ("coco_targets",),
}


class CheckFailed(AssertionError):
    """A function differs from what it should compute; the message says where and how.

    Args:
        message: what a person is shown.
        case, hint: the attributes.

    Attributes:
        case: name of the first case in which it differs.
        hint: what people who see this most often did, or what the case is about.
    """

    def __init__(self, message: str, case: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.case = case
        self.hint = hint

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the message, without the frames of this package."""
        return [f"{type(self).__name__}: {self}"]


def names() -> list[str]:
    """Everything that can be checked, in the order of the book."""
    return [name for pieces in _PIECES.values() for name in pieces]


def check(function: Callable, name: str) -> None:
    """Try a function on all cases of a piece, and print one line if it passes.

    A function that is still a stub (it raises NotImplementedError, or returns None or `...`) is
    not attempted yet, which is no error. Cases that need a keyword are tried if the function has
    that keyword; the line says which were not.

    Args:
        function: yours.
        name: which piece it is meant to be, one of `names()`.

    Raises:
        CheckFailed: it differs; the message shows the first input on which it does.
        ValueError: there is no such piece, or `function` is none.
    """
    __tracebackhide__ = True
    if not callable(function):
        if isinstance(function, str):
            raise ValueError(
                f"first your function, then its name: check(my_function, {function!r})"
            )
        what = f"a {type(function).__name__}"
        raise ValueError(
            f"the function itself is asked for, not {what}: check(my_function, {name!r})"
        )
    from retinanet_edu.checks.harness import run

    outcome = run(function, _piece(name))
    if outcome.failed:
        raise CheckFailed(outcome.text, outcome.case, outcome.hint) from outcome.error
    print(outcome.text)


def inputs(name: str, number: int) -> tuple[Any, ...]:
    """The arguments of a case, to try by hand: `my_iou(*inputs("pairwise_iou", 7))`.

    Args:
        name: one of `names()`.
        number: of the case, from 1, as a failed check tells it.

    Returns:
        the arguments by position.

    Raises:
        ValueError: there is no such piece, or no such case of it.
    """
    cases = list(_piece(name).cases())
    if not 1 <= number <= len(cases):
        raise ValueError(f"{name} has the cases 1 to {len(cases)}, there is no case {number}")
    return cases[number - 1].arguments


def _piece(name: str) -> Piece:
    for module, pieces in _PIECES.items():
        if name in pieces:
            return import_module(f"{__name__}.{module}").PIECES[name]
    near = difflib.get_close_matches(str(name), names(), 3)
    guess = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
    raise ValueError(f"no check is called {name!r}{guess}; there are: {', '.join(names())}")
