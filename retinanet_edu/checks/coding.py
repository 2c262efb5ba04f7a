"""Checks of `coding`: offsets from boxes, boxes from offsets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from retinanet_edu.checks.boxes import boxes, some_boxes
from retinanet_edu.checks.harness import Case, Mistake, Piece
from retinanet_edu.checks.slopes import measured_slope

Numbers = Sequence[float]

LIMIT = math.log(1000 / 16)  # Detectron's bound on dw and dh, about 4.135

OWN_SIDE = "shifts are measured in sides of the anchor: dx in its width, dy in its height"
OF_ANCHOR = "the anchor is the unit, not the box"
LOGARITHM = "sizes are compared by the natural logarithm of box / anchor"
CENTRES = "what shifts is the centre, x1 + width / 2, not the corner"
CLAMP = "clamp dw and dh at ln(1000/16) from above before exp, or an untrained network overflows"
ONE_SIDED = "the clamp is from above alone: exp of a very negative number is 0, which harms nothing"
NOT_SHIFTS = "dw and dh are clamped, dx and dy are not"
NO_CLIP = "decoding does not clip: the picture's size is not known here"


# --- plain numbers --------------------------------------------------------------------------------


def _centre_and_size(box: Numbers) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def encode_one(box: Numbers, anchor: Numbers) -> list[float]:
    """The article's eqs. 2–5."""
    (x, y, w, h), (xa, ya, wa, ha) = _centre_and_size(box), _centre_and_size(anchor)
    return [(x - xa) / wa, (y - ya) / ha, math.log(w / wa), math.log(h / ha)]


def decode_one(deltas: Numbers, anchor: Numbers) -> list[float]:
    """The same, solved for the box."""
    (dx, dy, dw, dh), (xa, ya, wa, ha) = deltas, _centre_and_size(anchor)
    x, y = xa + dx * wa, ya + dy * ha
    w, h = wa * math.exp(min(dw, LIMIT)), ha * math.exp(min(dh, LIMIT))
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def by_loop(one: Callable[[Numbers, Numbers], list[float]], a: Tensor, b: Tensor) -> Tensor:
    """Row by row, (N, 4) float64."""
    rows = [one(*pair) for pair in zip(a.tolist(), b.tolist(), strict=True)]
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 4)


encode_by_loop = partial(by_loop, encode_one)
decode_by_loop = partial(by_loop, decode_one)


def _wrong(loop: Callable[..., Tensor], one: Callable[..., list[float]]) -> Callable[..., Tensor]:
    """A mistake on the eight numbers dx dy dw dh or x y w h, and xa ya wa ha of the anchor."""

    def of_one(first: Numbers, anchor: Numbers) -> list[float]:
        own = _centre_and_size(first) if loop is encode_by_loop else first
        return one(*own, *_centre_and_size(anchor))

    return partial(by_loop, of_one)


# --- encoding -------------------------------------------------------------------------------------

ANCHOR = boxes((0, 0, 10, 20))  # not square, so that sides are not confused unnoticed


def _encode_cases() -> Iterator[Case]:
    def by_hand(name: str, box: Numbers, deltas: Numbers, why: str = "") -> Case:
        return Case(name, (boxes(box), ANCHOR), torch.tensor([deltas]), why=why)

    yield by_hand("the box is the anchor", (0, 0, 10, 20), (0.0, 0.0, 0.0, 0.0),
                  why="no shift is 0, and no stretch is ln 1 = 0")  # fmt: skip
    yield by_hand("shifted by 5 right, 5 down", (5, 5, 15, 25), (0.5, 0.25, 0.0, 0.0), why=OWN_SIDE)
    yield by_hand(
        "twice as wide, a quarter as high", (-5, 7.5, 15, 12.5),
        (0.0, 0.0, math.log(2), -math.log(4)), why=LOGARITHM,
    )  # fmt: skip
    yield by_hand("larger, its corner in place", (0, 0, 20, 40), (0.5, 0.5, *2 * [math.log(2)]),
                  why=CENTRES)  # fmt: skip
    yield by_hand("up and to the left", (-10, -20, 0, 0), (-1.0, -1.0, 0.0, 0.0))
    large = boxes((-500, -1000, 500, 1000))
    yield Case(
        "a hundred times as large", (large, ANCHOR), encode_by_loop(large, ANCHOR),
        why="encoding clamps nothing",
    )  # fmt: skip
    away = boxes((1000, 2000, 1016, 2032)), boxes((1004, 1990, 1036, 2022))
    yield Case("far from the origin", away, encode_by_loop(*away).float())
    yield Case("no boxes", (boxes(), boxes()), boxes(), why="(0, 4) in, (0, 4) out")
    pair = some_boxes(5, 0), some_boxes(5, 1)
    yield Case("random, whole pixels", pair, encode_by_loop(*pair).float())
    pair = boxes((3, 0, 304, 7)).half(), boxes((1, 2, 300, 4)).half()
    yield Case("half precision", pair, encode_by_loop(*pair).float(), why="compute with .float()")
    pair = some_boxes(60, 2, 500, whole=False), some_boxes(60, 3, 500, whole=False)
    yield Case("random, 60 pairs", pair, encode_by_loop(*pair).float(), atol=1e-5)
    pair = some_boxes(2, 4), some_boxes(2, 5)
    slope = measured_slope(lambda b: encode_by_loop(b, pair[1]), pair[0])
    why = "both the shift and the size depend on the box"
    yield Case("slopes by boxes", pair, slope, slope=(0,), why=why)
    slope = measured_slope(lambda a: encode_by_loop(pair[0], a), pair[1])
    yield Case("slopes by anchors", pair, slope, slope=(1,))


_ENCODE = Piece(
    "encode_boxes(boxes, anchors)",
    _encode_cases,
    "the article's eqs. 2–5 on plain numbers",
    [
        Mistake(hint, _wrong(encode_by_loop, one))
        for hint, one in (
            (OWN_SIDE, lambda x, y, w, h, xa, ya, wa, ha:
                [x - xa, y - ya, math.log(w / wa), math.log(h / ha)]),
            (OWN_SIDE, lambda x, y, w, h, xa, ya, wa, ha:
                [(x - xa) / ha, (y - ya) / wa, math.log(w / wa), math.log(h / ha)]),
            (OF_ANCHOR, lambda x, y, w, h, xa, ya, wa, ha:
                [(x - xa) / w, (y - ya) / h, math.log(w / wa), math.log(h / ha)]),
            ("from the anchor to the box: box − anchor, box / anchor",
             lambda x, y, w, h, xa, ya, wa, ha:
                [(xa - x) / wa, (ya - y) / ha, math.log(wa / w), math.log(ha / h)]),
            (f"{LOGARITHM}, not of anchor / box", lambda x, y, w, h, xa, ya, wa, ha:
                [(x - xa) / wa, (y - ya) / ha, math.log(wa / w), math.log(ha / h)]),
            (LOGARITHM, lambda x, y, w, h, xa, ya, wa, ha:
                [(x - xa) / wa, (y - ya) / ha, w / wa, h / ha]),
            (LOGARITHM, lambda x, y, w, h, xa, ya, wa, ha:
                [(x - xa) / wa, (y - ya) / ha, math.log2(w / wa), math.log2(h / ha)]),
            (CENTRES, lambda x, y, w, h, xa, ya, wa, ha:
                [(x - w / 2 - xa + wa / 2) / wa, (y - h / 2 - ya + ha / 2) / ha,
                 math.log(w / wa), math.log(h / ha)]),
            ("no standard deviations: dx, dy are not multiplied by 10, nor dw, dh by 5",
             lambda x, y, w, h, xa, ya, wa, ha:
                [10 * (x - xa) / wa, 10 * (y - ya) / ha,
                 5 * math.log(w / wa), 5 * math.log(h / ha)]),
            ("the order is dx dy dw dh", lambda x, y, w, h, xa, ya, wa, ha:
                [(x - xa) / wa, math.log(w / wa), (y - ya) / ha, math.log(h / ha)]),
            ("w and h are exchanged", lambda x, y, w, h, xa, ya, wa, ha:
                [(x - xa) / wa, (y - ya) / ha, math.log(h / ha), math.log(w / wa)]),
            ("no + 1: boxes are continuous, width = x2 − x1",
             lambda x, y, w, h, xa, ya, wa, ha:
                [(x - xa) / (wa + 1), (y - ya) / (ha + 1),
                 math.log((w + 1) / (wa + 1)), math.log((h + 1) / (ha + 1))]),
        )
    ],
    place=lambda index, b, a: f"box {b[index[0]].tolist()}, anchor {a[index[0]].tolist()}",
)  # fmt: skip

# --- decoding -------------------------------------------------------------------------------------


def _decode_cases() -> Iterator[Case]:
    def by_hand(name: str, deltas: Numbers, box: Numbers, why: str = "") -> Case:
        return Case(name, (torch.tensor([deltas]), ANCHOR), boxes(box), why=why, atol=1e-4)

    yield by_hand("no offsets", (0.0, 0.0, 0.0, 0.0), (0, 0, 10, 20))
    yield by_hand("shifted", (0.5, 0.25, 0.0, 0.0), (5, 5, 15, 25), why=OWN_SIDE)
    yield by_hand(
        "twice as wide, a quarter as high", (0.0, 0.0, math.log(2), -math.log(4)),
        (-5, 7.5, 15, 12.5), why="the centre stays where it is",
    )  # fmt: skip
    yield by_hand("both", (1.0, -1.0, math.log(3), 0.0), (0, -20, 30, 0))
    yield by_hand("far outside of any picture", (-50.0, 90.0, 0.0, 0.0), (-500, 1800, -490, 1820),
                  why=f"{NO_CLIP}; {NOT_SHIFTS}")  # fmt: skip
    yield by_hand("dw = 100", (0.0, 0.0, 100.0, 0.0), (-307.5, 0, 317.5, 20), why=CLAMP)
    yield by_hand("dh = 5", (0.0, 0.0, 0.0, 5.0), (0, -615, 10, 635), why=CLAMP)
    yield by_hand("dw = 4, just below the clamp", (0.0, 0.0, 4.0, 0.0),
                  (5 - 5 * math.exp(4), 0, 5 + 5 * math.exp(4), 20),
                  why="the clamp is at ln(1000/16) = 4.135, no lower")  # fmt: skip
    yield by_hand("dw = −6, dh = −6", (0.0, 0.0, -6.0, -6.0),
                  (5 - 5 * math.exp(-6), 10 - 10 * math.exp(-6),
                   5 + 5 * math.exp(-6), 10 + 10 * math.exp(-6)), why=ONE_SIDED)  # fmt: skip
    yield by_hand("dw = −1000", (0.0, 0.0, -1000.0, 0.0), (5, 0, 5, 20), why=ONE_SIDED)
    yield Case("no boxes", (boxes(), boxes()), boxes(), why="(0, 4) in, (0, 4) out")
    generator = torch.Generator().manual_seed(0)
    for name, count, whole in (("random, whole pixels", 5, True), ("random, 60 pairs", 60, False)):
        deltas = (2 * torch.randn(count, 4, generator=generator)).round(decimals=1)
        anchors = some_boxes(count, 1, whole=whole)
        yield Case(name, (deltas, anchors), decode_by_loop(deltas, anchors).float(), atol=1e-3)
    pair = deltas[:3].half(), anchors[:3].half()
    yield Case("half precision", pair, decode_by_loop(*pair).float(), atol=1e-3,
               why="compute with .float()")  # fmt: skip
    # So far beyond that exp overflows: clamped afterwards, it has the slope 0 · inf.
    deltas = torch.tensor([[0.3, -0.2, 0.5, -0.4], [0.0, 0.0, 100.0, 1.0]])
    anchors = some_boxes(2, 2)
    slope = measured_slope(lambda d: decode_by_loop(d, anchors), deltas)
    yield Case("slopes by deltas, one beyond the clamp", (deltas, anchors), slope, slope=(0,),
               atol=1e-3, why="beyond the clamp the slope is 0: clamp first, then exp")  # fmt: skip
    slope = measured_slope(lambda a: decode_by_loop(deltas, a), anchors)
    yield Case("slopes by anchors", (deltas, anchors), slope, slope=(1,), atol=1e-3)


def _box(x: float, y: float, w: float, h: float) -> list[float]:
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def _exp(v: float, low: float = -math.inf, high: float = LIMIT) -> float:
    return math.exp(min(max(v, low), high)) if min(v, high) < 700 else math.inf


_DECODE = Piece(
    "decode_boxes(deltas, anchors)",
    _decode_cases,
    "the article's eqs. 2–5, solved for the box, on plain numbers",
    [
        Mistake(hint, _wrong(decode_by_loop, one))
        for hint, one in (
            (CLAMP, lambda dx, dy, dw, dh, xa, ya, wa, ha:
                _box(xa + dx * wa, ya + dy * ha,
                     wa * _exp(dw, high=math.inf), ha * _exp(dh, high=math.inf))),
            (CLAMP, lambda dx, dy, dw, dh, xa, ya, wa, ha:
                _box(xa + dx * wa, ya + dy * ha, wa * _exp(dw), ha * _exp(dh, high=math.inf))),
            (ONE_SIDED, lambda dx, dy, dw, dh, xa, ya, wa, ha:
                _box(xa + dx * wa, ya + dy * ha, wa * _exp(dw, -LIMIT), ha * _exp(dh, -LIMIT))),
            (NOT_SHIFTS, lambda dx, dy, dw, dh, xa, ya, wa, ha:
                _box(xa + min(dx, LIMIT) * wa, ya + min(dy, LIMIT) * ha,
                     wa * _exp(dw), ha * _exp(dh))),
            (NO_CLIP, lambda dx, dy, dw, dh, xa, ya, wa, ha: [max(v, 0.0) for v in
                _box(xa + dx * wa, ya + dy * ha, wa * _exp(dw), ha * _exp(dh))]),
            (OWN_SIDE, lambda dx, dy, dw, dh, xa, ya, wa, ha:
                _box(xa + dx, ya + dy, wa * _exp(dw), ha * _exp(dh))),
            (OWN_SIDE, lambda dx, dy, dw, dh, xa, ya, wa, ha:
                _box(xa + dx * ha, ya + dy * wa, wa * _exp(dw), ha * _exp(dh))),
            (f"{OF_ANCHOR}: the shift does not grow with the new size",
             lambda dx, dy, dw, dh, xa, ya, wa, ha:
                _box(xa + dx * wa * _exp(dw), ya + dy * ha * _exp(dh),
                     wa * _exp(dw), ha * _exp(dh))),
            (CENTRES, lambda dx, dy, dw, dh, xa, ya, wa, ha:
                _box(xa - wa / 2 + dx * wa + wa * _exp(dw) / 2,
                     ya - ha / 2 + dy * ha + ha * _exp(dh) / 2, wa * _exp(dw), ha * _exp(dh))),
            ("dw is a logarithm: the factor is exp(dw), not 1 + dw",
             lambda dx, dy, dw, dh, xa, ya, wa, ha:
                _box(xa + dx * wa, ya + dy * ha, wa * (1 + dw), ha * (1 + dh))),
            ("the result is corners, x1 y1 x2 y2, not centre and size",
             lambda dx, dy, dw, dh, xa, ya, wa, ha:
                [xa + dx * wa, ya + dy * ha, wa * _exp(dw), ha * _exp(dh)]),
            ("from the centre it is half a side to either border",
             lambda dx, dy, dw, dh, xa, ya, wa, ha:
                _box(xa + dx * wa, ya + dy * ha, 2 * wa * _exp(dw), 2 * ha * _exp(dh))),
            ("dw stretches the width, dh the height",
             lambda dx, dy, dw, dh, xa, ya, wa, ha:
                _box(xa + dx * wa, ya + dy * ha, wa * _exp(dh), ha * _exp(dw))),
        )
    ],
    place=lambda index, d, a: f"deltas {d[index[0]].tolist()}, anchor {a[index[0]].tolist()}",
)  # fmt: skip

PIECES = {piece.name: piece for piece in (_ENCODE, _DECODE)}
