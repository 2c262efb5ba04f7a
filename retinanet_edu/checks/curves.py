"""Checks of `evaluation`: precision and recall, average precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retinanet_edu.checks.evaluation import fates_of
from retinanet_edu.checks.harness import Case, Mistake, Piece
from retinanet_edu.evaluation import Ledger

# --- the curve ------------------------------------------------------------------------------------

BY_OBJECTS = "recall is true positives so far over all objects, found or not"
BY_RANK = "precision is true positives so far over detections so far"
LEAVE_OUT = "ignored detections are left out before anything is counted"
TWO_ARRAYS = "two arrays are asked for: recall, precision"
WITHOUT = "without objects recall is 0/0: one point of nan each"


def curve_by_loop(ledger: Ledger) -> list[Tensor]:
    """Detection by detection, in exact fractions."""
    true = seen = 0
    recall, precision = [], []
    for is_true, is_ignored in zip(ledger.true_positive.tolist(), ledger.ignored.tolist()):
        if is_ignored:
            continue
        true, seen = true + is_true, seen + 1
        recall.append(float(Fraction(true, ledger.objects)))
        precision.append(float(Fraction(true, seen)))
    return [torch.tensor(x, dtype=torch.float64) for x in (recall, precision)]


def ledger_of(text: str, objects: int, difficult: int = 0) -> Ledger:
    """From a text of T, F and I."""
    fates = {name: fate.numpy() for name, fate in fates_of(text).items()}
    return Ledger(np.linspace(1, 0, len(text)), **fates, objects=objects, difficult=difficult)


def _curve_cases() -> Iterator[Case]:
    def by_hand(
        name: str, fates: str, objects: int, recall: Sequence[float], precision: Sequence[float],
        why: str = "", difficult: int = 0,
    ) -> Case:  # fmt: skip
        curve = [torch.tensor(x, dtype=torch.float64) for x in (recall, precision)]
        return Case(name, (ledger_of(fates, objects, difficult),), curve, why=why)

    yield by_hand("true, false, true, of two", "TFT", 2, [0.5, 0.5, 1], [1, 0.5, 2 / 3],
                  why=f"{BY_OBJECTS}; {BY_RANK}")  # fmt: skip
    yield by_hand("of four objects", "TFT", 4, [0.25, 0.25, 0.5], [1, 0.5, 2 / 3], why=BY_OBJECTS)
    yield by_hand("two are ignored", "TFITIF", 4, [0.25, 0.25, 0.5, 0.5], [1, 0.5, 2 / 3, 0.5],
                  why=LEAVE_OUT, difficult=3)  # fmt: skip
    yield by_hand("all false", "FF", 3, [0, 0], [0, 0])
    yield by_hand("all ignored", "II", 3, [], [], why=LEAVE_OUT, difficult=1)
    yield by_hand("nothing found", "", 3, [], [], why="an empty curve: no point at all")
    yield by_hand("no objects", "FF", 0, [math.nan], [math.nan], why=WITHOUT)
    yield by_hand("no objects, nothing found", "", 0, [math.nan], [math.nan], why=WITHOUT)
    text = "".join(np.random.default_rng(0).choice(list("TFI"), size=200))
    yield Case("random", (ledger_of(text, 90),), curve_by_loop(ledger_of(text, 90)))


def _two_arrays(value: Any) -> list[Tensor]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(TWO_ARRAYS)
    try:
        return [torch.as_tensor(np.asarray(x), dtype=torch.float64) for x in value]
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(TWO_ARRAYS) from None


def _curve(true: np.ndarray, recall: float, precision: np.ndarray) -> list[Tensor]:
    so_far = np.cumsum(true)
    return [torch.tensor(so_far / recall), torch.tensor(so_far / precision)]


_CURVE = Piece(
    "precision_recall(ledger)",
    _curve_cases,
    "curves counted by hand",
    [
        Mistake("recall comes first, then precision", lambda led: curve_by_loop(led)[::-1]),
        Mistake(LEAVE_OUT, lambda led: _curve(led.true_positive, led.objects,
                                              np.arange(1, len(led.scores) + 1))),
        Mistake(LEAVE_OUT, lambda led: curve_by_loop(Ledger(
            led.scores, led.true_positive | led.ignored, led.ignored & False, led.objects, 0))),
        Mistake("difficult objects are not to be found: divide by `objects` alone",
                lambda led: _curve(led.true_positive[~led.ignored], led.objects + led.difficult,
                                   np.arange(1, (~led.ignored).sum() + 1))),
        Mistake(BY_OBJECTS, lambda led: _curve(
            led.true_positive[~led.ignored], max(led.true_positive.sum(), 1),
            np.arange(1, (~led.ignored).sum() + 1))),
        Mistake(BY_RANK, lambda led: _curve(led.true_positive[~led.ignored], led.objects,
                                            np.full((~led.ignored).sum(), (~led.ignored).sum()))),
    ],
    read=_two_arrays,
)  # fmt: skip

# --- average precision ----------------------------------------------------------------------------

BEYOND = "at a recall counts the best precision there or beyond: maximum from the right"
TENTHS = "0.1 · 3 is 0.30000000000000004, which a recall of 0.3 misses: use k / 10"
ELEVEN = "there are eleven points: 0, 0.1, …, 1"
UNREACHED = "a recall that is never reached counts with precision 0"


def area_by_loop(recall: np.ndarray, precision: np.ndarray) -> float:
    """Step by step: how far recall goes, times the best precision from there on."""
    area, before = 0.0, 0.0
    for i, here in enumerate(recall.tolist()):
        area += (here - before) * max(precision[i:].tolist())
        before = here
    return area


TENTH_BY_TENTH = [k / 10 for k in range(11)]


def points_by_loop(
    recall: np.ndarray,
    precision: np.ndarray,
    points: Sequence[float] = TENTH_BY_TENTH,
    reaches: Callable[[float, float], bool] = lambda recall, point: recall >= point,
) -> float:
    """The mean over points of the best precision at their recall or beyond."""
    best = [
        max(
            (p for r, p in zip(recall.tolist(), precision.tolist()) if reaches(r, point)), default=0
        )
        for point in points
    ]
    return sum(best) / len(points)


def _ap_cases(settings: dict[str, str], eleven_points: bool = False) -> Iterator[Case]:
    # The curve of T and F, the objects, then both averages as fractions, worked out by hand.
    table = {
        "all found": ("TTT", 3, 1.0, 1.0, ""),
        "found, false, found": ("TFT", 4, (1 + 2 / 3) / 4, (3 + 3 * 2 / 3) / 11, BEYOND),
        "a false one first": ("FTTT", 3, 3 / 4, 3 / 4, BEYOND),
        "all false": ("FFF", 3, 0.0, 0.0, ""),
        "half found": ("TT", 4, 0.5, 6 / 11, UNREACHED),
        "one of ten": ("T", 10, 0.1, 2 / 11, TENTHS),
        "three of ten": ("TTT", 10, 0.3, 4 / 11, TENTHS),
        "six of ten": ("TTTTTT", 10, 0.6, 7 / 11, TENTHS),
        "seven of ten": ("TTTTTTT", 10, 0.7, 8 / 11, TENTHS),
        "found late": ("FFFT", 1, 0.25, 0.25, BEYOND),
        "nothing found": ("", 3, 0.0, 0.0, "the curve has no point: the average is 0"),
    }
    for name, (fates, objects, area, points, why) in table.items():
        curve = [x.numpy() for x in curve_by_loop(ledger_of(fates, objects))]
        expected = points if eleven_points else area
        yield Case(name, tuple(curve), float(expected), settings, why=why)
    nothing = np.array([math.nan])
    yield Case(
        "no objects", (nothing, nothing), math.nan, settings, why="the average of nan is nan"
    )
    by_loop = points_by_loop if eleven_points else area_by_loop
    for seed in range(3):
        text = "".join(np.random.default_rng(seed).choice(list("TF"), size=10 + 60 * seed))
        recall, precision = (x.numpy() for x in curve_by_loop(ledger_of(text, text.count("T") + 5)))
        expected = by_loop(recall, precision)
        yield Case(f"random, {seed + 1}", (recall, precision), expected, settings)


def _both_methods() -> Iterator[Case]:
    yield from _ap_cases({})
    for case in _ap_cases({"method": "11-point"}, eleven_points=True):
        yield Case(f"{case.name}, 11 points", case.arguments, case.expected, case.settings,
                   why=case.why)  # fmt: skip


def _eleven_alone() -> Iterator[Case]:
    yield from _ap_cases({}, eleven_points=True)


def _trapezium(recall: np.ndarray, precision: np.ndarray) -> float:
    r, p = np.append(0, recall), np.append(1, precision)
    return float((np.diff(r) * (p[1:] + p[:-1]) / 2).sum())


_OF_AREA = [
    Mistake(BEYOND, lambda r, p: float((np.diff(r, prepend=0) * p).sum())),
    Mistake(BEYOND, lambda r, p: float(
        (np.diff(r, prepend=0) * np.maximum.accumulate(p)).sum())),
    Mistake("recall goes in steps: rectangles, not trapezia", _trapezium),
    Mistake("that is the mean over detections: each step of recall is as wide as it is",
            lambda r, p: float(np.mean(p))),
    Mistake("the first step goes from recall 0", lambda r, p: float(
        (np.diff(r) * np.maximum.accumulate(p[::-1])[::-1][1:]).sum())),
    Mistake("that is the 11-point average: the area is asked for", points_by_loop),
]  # fmt: skip
_OF_POINTS = [
    Mistake(TENTHS, partial(points_by_loop, points=np.arange(0, 1.1, 0.1).tolist())),
    Mistake(ELEVEN, partial(points_by_loop, points=[k / 10 for k in range(10)])),
    Mistake(ELEVEN, partial(points_by_loop, points=[k / 10 for k in range(1, 11)])),
    Mistake("a recall of exactly the point reaches it: ≥",
            partial(points_by_loop, reaches=lambda r, point: r > point)),
    Mistake(ELEVEN, partial(points_by_loop, points=np.linspace(0, 1, 101).tolist())),
    Mistake("divide by 11, not by 10", lambda r, p: points_by_loop(r, p) * 1.1),
    Mistake(f"that is the area; {ELEVEN}", area_by_loop),
]  # fmt: skip


def _given_method(version: Callable[..., float]) -> Callable[..., float]:
    """A mistake in the 11-point average, with the area right."""
    return lambda recall, precision, method="area": (
        area_by_loop(recall, precision) if method == "area" else version(recall, precision)
    )


_AP = Piece(
    "average_precision(recall, precision)",
    _both_methods,
    "averages worked out by hand",
    [*_OF_AREA, *(Mistake(hint, _given_method(version)) for hint, version, _ in _OF_POINTS)],
)
_AP_11 = Piece(
    "average_precision_11_point(recall, precision)",
    _eleven_alone,
    "averages worked out by hand",
    _OF_POINTS,
)

PIECES = {piece.name: piece for piece in (_CURVE, _AP, _AP_11)}
