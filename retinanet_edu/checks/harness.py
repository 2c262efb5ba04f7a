"""What all checks share: a case, a piece, the comparison, and the run over all cases."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from retinanet_edu.checks.comparison import difference
from retinanet_edu.checks.slopes import reach, weighted
from retinanet_edu.checks.words import (
    LABEL,
    block,
    explain_numbers,
    explain_shape,
    explain_type,
    is_finite,
    leaves,
)

LARGE = 5_000  # numbers of an input; the loops that know mistakes would take too long
CLEAR = 6  # so many numbers of a result need no word about the input that they belong to


@dataclass(frozen=True)
class Case:
    """One input, and what must come out.

    Attributes:
        name: says what is special about the input.
        arguments: given to the function by position.
        expected: tensors, numbers, texts, or lists and dicts of them. A tensor demands its dtype,
            except that float64 stands for any float.
        settings: given by keyword, to functions that have these keywords.
        slope: if given, leads to one of the arguments, as (0,) or (0, "class_logits"). Then
            `expected` is the slope by that argument of the output, see `weighted`.
        why: what the case is about; the hint where nothing better is known.
        why_finite: the hint instead of it, where the result is wrong but neither inf nor nan.
        atol: how close is equal, for any number.
        rtol: the same, as a share of the number.
    """

    name: str
    arguments: tuple[Any, ...]
    expected: Any
    settings: Mapping[str, Any] = field(default_factory=dict)
    slope: tuple[int | str, ...] = ()
    why: str = ""
    why_finite: str = ""
    atol: float = 1e-6
    rtol: float = 1e-5


class Mistake(NamedTuple):
    """A mistake that people make: what to say to them, and what it computes.

    It is recognised by its result: `version` takes the arguments of the piece. With `of_slope` it
    gives the slope to which the mistake leads, while the values may be right.
    """

    hint: str
    version: Callable[..., Any]
    of_slope: bool = False


def _call(function: Callable, *arguments: Any, **settings: Any) -> Any:
    return function(*arguments, **settings)


@dataclass(frozen=True)
class Piece:
    """A function that a chapter builds.

    Attributes:
        call: how it is called, as "pairwise_iou(a, b)".
        cases: makes them; the first is an example that can be solved by hand.
        witness: who says what is right.
        mistakes: known ones, the likeliest first.
        read: brings what the function returns to the form of `expected`; a ValueError says what
            is wrong with that form.
        invoke: calls the function, where that takes more than its arguments.
        place: which input an index of the output belongs to, in words.
    """

    call: str
    cases: Callable[[], Iterable[Case]]
    witness: str
    mistakes: Sequence[Mistake] = ()
    read: Callable[[Any], Any] = lambda value: value
    invoke: Callable[..., Any] = _call
    place: Callable[..., str] = lambda index, *arguments: ""

    @property
    def name(self) -> str:
        """Of the function, as "pairwise_iou"."""
        return self.call.partition("(")[0]

    @property
    def argument_names(self) -> list[str]:
        """Of the function, as ["a", "b"]."""
        return self.call.partition("(")[2].rstrip(")").split(", ")


class Outcome(NamedTuple):
    """What came of a run: the line or the message to show, and of a failure the rest."""

    text: str
    failed: bool = False
    case: str = ""
    hint: str = ""
    error: Exception | None = None


class Finding(NamedTuple):
    """What is wrong in one case: what came out and what was expected, named, and why."""

    got: tuple[str, Any]
    expected: tuple[str, Any]
    detail: str = ""
    hint: str = ""
    error: Exception | None = None
    place: str = ""
    row: int = 0


class Text(str):
    """Words in the place of a value."""


# --- the run --------------------------------------------------------------------------------------


def run(function: Callable, piece: Piece) -> Outcome:
    """Try the cases in their order until one fails."""
    cases = list(piece.cases())
    keywords = _keywords(function)
    tried: list[Case] = []
    missing: dict[str, None] = {}
    for position, case in enumerate(cases, start=1):
        unknown = [k for k in case.settings if keywords is not None and k not in keywords]
        if unknown:
            missing |= dict.fromkeys(unknown)
            continue
        if position == 1 and (stub := _is_stub(function, piece, case)) is not None:
            return Outcome(f"{piece.name}: not attempted yet{stub}")
        finding = _try(function, piece, case, tried)
        if finding:
            text = _message(function, piece, case, finding, position, len(cases))
            return Outcome(text, True, case.name, finding.hint, finding.error)
        tried.append(case)
    slopes = sum(bool(case.slope) for case in tried)
    line = f"{piece.name}: {len(tried)} cases passed"
    line += f", {slopes} of them about slopes" if slopes else ""
    line += f"; witness: {piece.witness}"
    left = len(cases) - len(tried)
    line += f" ({left} not tried: your function takes no {', '.join(missing)})" if missing else ""
    return Outcome(line)


def _keywords(function: Callable) -> set[str] | None:
    """Names that it takes by keyword; None if it takes any, or does not say."""
    try:
        parameters = inspect.signature(_written(function)).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _written(function: Callable) -> Callable:
    """What the reader wrote: a module is called through a function that takes anything."""
    return function.forward if isinstance(function, nn.Module) else function


def _is_stub(function: Callable, piece: Piece, case: Case) -> str | None:
    """Not None if nothing has been written yet: what to add to saying so."""
    try:
        value = piece.invoke(function, *deepcopy(case.arguments), **case.settings)
    except NotImplementedError:
        return ""
    except Exception:
        return None  # an attempt; what it raised is told with its case
    if value is not None and value is not ...:
        return None
    code = getattr(_written(function), "__code__", None)
    if value is ... or code is None:
        return ""
    # Something is called, looked up or kept, so somebody has begun.
    begun = code.co_names or code.co_nlocals > code.co_argcount + code.co_kwonlyargcount
    return "; it returns None, is a `return` missing?" if begun else ""


def _try(
    function: Callable, piece: Piece, case: Case, before: Sequence[Case] = ()
) -> Finding | None:
    """None if the function is right here, as it was in the cases before."""
    arguments = deepcopy(case.arguments)
    slope = f"slope by {_slope_name(piece, case)}" if case.slope else ""
    whole = (slope, case.expected)
    try:
        value = _output(function, piece, case, arguments)
    except Exception as error:
        said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        return Finding(
            ("", Text(said + _line_of(error, function))), whole,
            hint=_explain_error(error, piece, case), error=error,
        )  # fmt: skip
    if case.slope and not isinstance(value, Tensor):
        hint = "something cuts it off from its input: .item(), float(), .detach(), numpy, no_grad"
        return Finding(("", Text("no slope")), whole, hint=hint)
    try:
        got = value if case.slope else piece.read(value)
    except ValueError as error:
        return Finding(("", value), whole, hint=str(error))
    different = difference(got, case.expected, case.atol, case.rtol)
    if different is None:
        return None if case.slope else _find_written(piece, case, arguments)
    place = ""
    if different.at and not case.slope and different.expected.numel() > CLEAR:
        place = piece.place(different.at, *case.arguments)
    hint = (
        explain_type(different.got, different.expected)
        or _mistaken(got, piece, case, before)
        or explain_shape(different.got, different.expected)
        or (case.why_finite if is_finite(different.got) else "")
        or case.why
        or explain_numbers(different.got, different.expected)
    )
    name = f"{slope}{different.path}"
    return Finding(
        (name, different.got),
        (name, different.expected),
        different.what,
        hint,
        place=place,
        row=different.row,
    )


def _output(function: Callable, piece: Piece, case: Case, arguments: tuple) -> Any:
    """What the function returns or, in a case about slopes, the slope; None if there is none."""
    if not case.slope:
        return piece.invoke(function, *arguments, **case.settings)
    x = reach(arguments, case.slope).requires_grad_()
    with torch.enable_grad():  # a notebook may have switched it off
        value = piece.read(piece.invoke(function, *arguments, **case.settings))
        if isinstance(value, list):  # of tensors: all their numbers in a row
            value = torch.cat([part.flatten() for part in value])
        if not isinstance(value, Tensor) or not value.requires_grad:
            return None
        return torch.autograd.grad(weighted(value), x, allow_unused=True)[0]


def _find_written(piece: Piece, case: Case, arguments: tuple) -> Finding | None:
    """A function must not write into what it is given."""
    for name, before, after in zip(piece.argument_names, case.arguments, arguments, strict=True):
        old, new = dict(leaves(name, before)), dict(leaves(name, after))
        if old.keys() != new.keys():
            hint = f"it adds to {name} or takes from it: work on a copy"
            detail = f"the result is right, but afterwards {name} has other entries"
            return Finding((name, after), (name, before), detail, hint)
        for path in old:
            if not _same(old[path], new[path]):
                hint = f"it writes into {path}: work on a copy, or use operations without `_`"
                detail = f"the result is right, but afterwards {path} is another"
                return Finding((path, new[path]), (path, old[path]), detail, hint)
    return None


def _same(old: Any, new: Any) -> bool:
    """Whether a part of an input is as it was; nan is nan."""
    if type(new) is not type(old):
        return False
    if isinstance(old, Tensor):
        if new.shape != old.shape or new.dtype != old.dtype:
            return False
        new = new.detach().cpu()
        return bool(((old == new) | (old != old) & (new != new)).all())
    if isinstance(old, np.ndarray):
        both_nan = old.dtype.kind == "f"  # numpy asks no other kind for nan
        return old.dtype == new.dtype and np.array_equal(old, new, equal_nan=both_nan)
    return bool(old == new or old != old)


def _mistaken(got: Any, piece: Piece, case: Case, before: Sequence[Case]) -> str:
    """The hint of the known mistake that gives this very result, and was right in all before."""
    for hint, version, of_slope in piece.mistakes:
        if of_slope != bool(case.slope) or _is_large(case) or not _gives(version, case, got):
            continue
        if _gives(version, case, case.expected):
            continue  # it is no mistake on this input, so it cannot be what is wrong
        earlier = [c for c in before if not c.slope and not _is_large(c)]
        if of_slope or all(_gives(version, c, c.expected) for c in earlier):
            return hint
    return ""


def _is_large(case: Case) -> bool:
    given = [part for _, part in leaves("", case.arguments) if isinstance(part, Tensor)]
    return sum(part.numel() for part in given) > LARGE


def _gives(version: Callable, case: Case, value: Any) -> bool:
    """Whether a mistake has this result."""
    try:
        with np.errstate(all="ignore"):  # what it divides by 0 is not the reader's to see
            result = version(*deepcopy(case.arguments), **case.settings)
        return difference(value, result, case.atol, 10 * case.rtol, strict=False) is None
    except Exception:
        return False  # a mistake may well raise on an edge


def _line_of(error: Exception, function: Callable) -> str:
    """Where in the reader's own code it was raised."""
    code = getattr(_written(function), "__code__", None)
    own = [f for f in traceback.extract_tb(error.__traceback__) if code and f.name == code.co_name]
    return f"  (line {own[-1].lineno}: {own[-1].line})" if own and own[-1].line else ""


def _is_of_call(error: Exception) -> bool:
    """Whether it came from the call itself: no line of the reader's has run."""
    paths = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    here = Path(__file__).parent
    return all(path.parent == here or "torch" in path.parts for path in paths)  # of a module


def _explain_error(error: Exception, piece: Piece, case: Case) -> str:
    said = str(error)
    of_arguments = "positional arg" in said or "keyword arg" in said
    if isinstance(error, TypeError) and of_arguments and _is_of_call(error):
        return f"it is called as {piece.call}"
    tensors = [t for _, t in leaves("", case.arguments) if isinstance(t, Tensor)]
    if any(t.numel() == 0 for t in tensors):
        return case.why or "an input is empty here: no boxes, no objects; that is not an error"
    if not case.why and any(w in said for w in ("size of tensor", "shapes cannot", "must match")):
        return "the shapes do not fit each other: print them, and see a[:, None] and reshape"
    return case.why


def _slope_name(piece: Piece, case: Case) -> str:
    first, *rest = case.slope
    return ".".join([piece.argument_names[int(first)], *map(str, rest)])


def _message(
    function: Callable, piece: Piece, case: Case, finding: Finding, position: int, total: int
) -> str:
    name = getattr(function, "__name__", "") if inspect.isfunction(function) else ""
    mine = name if name.isidentifier() else piece.name  # a lambda has none to call it by
    again = "from retinanet_edu import checks; "
    again += f'{mine}(*checks.inputs("{piece.name}", {position})'
    again += "".join(f", {key}={value!r}" for key, value in case.settings.items()) + ")"
    given = [
        leaf
        for name, value in zip(piece.argument_names, case.arguments, strict=True)
        for leaf in leaves(name, value)
    ]
    lines = [
        f"{piece.name} is not right yet: case {position} of {total}, {case.name}",
        *block("input", [*given, *case.settings.items()]),
        *block("got", leaves(*finding.got), finding.row),
        *block("expected", leaves(*finding.expected), finding.row),
    ]
    ends = {"difference": finding.detail, "there": finding.place, "hint": finding.hint}
    for label, text in ends.items():
        lines += block(label, [("", Text(text))]) if text else []
    if piece.invoke is _call:  # with inputs as they are; in one line, to be copied
        lines.append(f"  {'again':{LABEL}}{again}")
    return "\n".join(lines)
