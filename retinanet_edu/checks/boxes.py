"""Checks of `boxes`: formats, area, IoU, clipping."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torchvision.ops import box_area, box_convert, box_iou, clip_boxes_to_image

from retinanet_edu.checks.harness import Case, Mistake, Piece
from retinanet_edu.checks.slopes import measured_slope

Numbers = Sequence[float]


def boxes(*rows: Numbers, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor of boxes from their numbers, (0, 4) from none."""
    return torch.tensor(rows, dtype=dtype).reshape(-1, 4)


def some_boxes(count: int, seed: int, size: int = 40, whole: bool = True) -> Tensor:
    """Random boxes that overlap a good deal, in a square picture of `size` pixels."""
    generator = torch.Generator().manual_seed(seed)
    corner = size * 0.6 * torch.rand(count, 2, generator=generator)
    sides = size * (0.1 + 0.3 * torch.rand(count, 2, generator=generator))
    found = torch.cat([corner, corner + sides], dim=1)
    return found.round() if whole else found


# --- one box, two boxes: plain numbers ------------------------------------------------------------


def area_of(box: Numbers) -> float:
    """Area of one box; an inverted one has none."""
    x1, y1, x2, y2 = box
    return max(x2 - x1, 0.0) * max(y2 - y1, 0.0)


def iou_of(a: Numbers, b: Numbers, more: float = 0.0) -> float:
    """IoU of two boxes; `more` is the 1 that some add to each side."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + more
    height = min(a[3], b[3]) - max(a[1], b[1]) + more
    if width <= 0 or height <= 0:
        return 0.0
    wider_a, wider_b = ([x1, y1, x2 + more, y2 + more] for x1, y1, x2, y2 in (a, b))
    intersection = width * height
    return intersection / (area_of(wider_a) + area_of(wider_b) - intersection)


def iou_by_loop(a: Tensor, b: Tensor, of_two: Callable[..., float] = iou_of) -> Tensor:
    """(N, M) in float64, pair by pair."""
    rows = [[of_two(one, other) for other in b.tolist()] for one in a.tolist()]
    return torch.tensor(rows, dtype=torch.float64).reshape(len(a), len(b))


# --- formats --------------------------------------------------------------------------------------


FORMATS = "cx = (x1 + x2) / 2, w = x2 − x1 and back: x1 = cx − w / 2, x2 = cx + w / 2; so for y"


def _format_cases(source: str, target: str) -> Iterator[Case]:
    """The table of boxes in one format and in the other, read from left to right."""
    table: dict[str, dict[str, Numbers]] = {
        "a box of 10 by 20": {"xyxy": (0, 0, 10, 20), "cxcywh": (5, 10, 10, 20)},
        "a box away from the origin": {"xyxy": (30, 50, 40, 54), "cxcywh": (35, 52, 10, 4)},
        "a box of odd sides": {"xyxy": (1, 2, 4, 7), "cxcywh": (2.5, 4.5, 3, 5)},
        "a point": {"xyxy": (7, 8, 7, 8), "cxcywh": (7, 8, 0, 0)},
        "half outside the picture": {"xyxy": (-6, -2, 4, 2), "cxcywh": (-1, 0, 10, 4)},
    }
    for name, row in table.items():
        yield Case(name, (boxes(row[source]),), boxes(row[target]), why=FORMATS)
    yield Case("no boxes", (boxes(),), boxes(), why="(0, 4) in, (0, 4) out")
    convert = partial(box_convert, in_fmt=source, out_fmt=target)
    batch = torch.stack([some_boxes(3, seed) for seed in range(2)])  # (2, 3, 4)
    yield Case("a batch, (2, 3, 4)", (batch,), convert(batch), why="index the last axis: [..., 0]")
    yield Case("random", (some_boxes(5, 0),), convert(some_boxes(5, 0)))
    half = boxes((300, 2, 304, 6), dtype=torch.float16)
    yield Case("half precision", (half,), convert(half))
    slope = measured_slope(convert, some_boxes(2, 1))
    yield Case("slopes", (some_boxes(2, 1),), slope, slope=(0,), atol=1e-4)


def _rows(change: Callable[..., tuple[Tensor, ...]]) -> Callable[[Tensor], Tensor]:
    """A mistake on the four columns, as one on boxes."""
    return lambda b: torch.stack(torch.broadcast_tensors(*change(*b.unbind(-1))), dim=-1)


_TO_CENTRES = Piece(
    "xyxy_to_cxcywh(boxes)",
    partial(_format_cases, "xyxy", "cxcywh"),
    "torchvision.ops.box_convert",
    (
        Mistake(
            "the first two numbers are the corner: the centre is half a side further",
            _rows(lambda x1, y1, x2, y2: (x1, y1, x2 - x1, y2 - y1)),
        ),
        Mistake(
            "no + 1: boxes are continuous, width = x2 − x1",
            _rows(lambda a, b, c, d: ((a + c) / 2, (b + d) / 2, c - a + 1, d - b + 1)),
        ),
        Mistake(
            "the centre is (x1 + x2) / 2, not half a side",
            _rows(lambda a, b, c, d: ((c - a) / 2, (d - b) / 2, c - a, d - b)),
        ),
        Mistake(
            "width and height are exchanged",
            _rows(lambda a, b, c, d: ((a + c) / 2, (b + d) / 2, d - b, c - a)),
        ),
    ),
)

_TO_CORNERS = Piece(
    "cxcywh_to_xyxy(boxes)",
    partial(_format_cases, "cxcywh", "xyxy"),
    "torchvision.ops.box_convert",
    (
        Mistake(
            "from the centre it is half a side to either border, not a whole one",
            _rows(lambda x, y, w, h: (x - w, y - h, x + w, y + h)),
        ),
        Mistake(
            "the first two numbers are the centre, not the corner",
            _rows(lambda x, y, w, h: (x, y, x + w, y + h)),
        ),
        Mistake(
            "no − 1: boxes are continuous, x2 = x1 + width",
            _rows(lambda x, y, w, h: (x - w / 2, y - h / 2, x + w / 2 - 1, y + h / 2 - 1)),
        ),
    ),
)

# --- area -----------------------------------------------------------------------------------------

IN_FLOAT32 = "half precision overflows at 65504: compute with .float()"
INVERTED = "an inverted box (x2 < x1) has no area: clamp both sides at 0, then multiply"


def _area_by_loop(b: Tensor) -> Tensor:
    areas = [area_of(box) for box in b.reshape(-1, 4).tolist()]
    return torch.tensor(areas).reshape(b.shape[:-1])


def _area_cases() -> Iterator[Case]:
    why = "the area is width times height, x2 − x1 and y2 − y1"
    yield Case("a box of 10 by 20", (boxes((0, 0, 10, 20)),), torch.tensor([200.0]), why=why)
    yield Case("away from the origin", (boxes((5, 7, 8, 9)),), torch.tensor([6.0]))
    yield Case("two boxes", (boxes((0, 0, 1, 1), (2, 3, 4, 9)),), torch.tensor([1.0, 12.0]))
    yield Case("a point and a line", (boxes((5, 5, 5, 5), (2, 3, 2, 9)),), torch.zeros(2))
    yield Case("x2 < x1", (boxes((8, 0, 2, 4)),), torch.zeros(1), why=INVERTED)
    yield Case("both sides inverted", (boxes((8, 9, 2, 5)),), torch.zeros(1), why=INVERTED)
    yield Case("no boxes", (boxes(),), torch.zeros(0), why="no boxes have no areas: shape (0,)")
    half = boxes((0, 0, 300, 300), dtype=torch.float16)
    yield Case("half precision, 300 by 300", (half,), torch.tensor([90_000.0]), why=IN_FLOAT32)
    huge = boxes((-5e5, -1e5, 5e5, 1e5))
    yield Case("huge", (huge,), torch.tensor([2e11]))
    batch = torch.stack([some_boxes(3, seed) for seed in range(2)])  # (2, 3, 4)
    yield Case("a batch, (2, 3, 4)", (batch,), _area_by_loop(batch), why="index the last axis")
    many = some_boxes(50, 2, 500, whole=False)
    yield Case("random", (many,), box_area(many))
    few = some_boxes(3, 3)
    yield Case("slopes", (few,), measured_slope(_area_by_loop64, few), slope=(0,), rtol=1e-4)


def _area_by_loop64(b: Tensor) -> Tensor:
    return torch.tensor([area_of(box) for box in b.tolist()], dtype=torch.float64)


_AREA = Piece(
    "box_area(boxes)",
    _area_cases,
    "torchvision.ops.box_area",
    (
        Mistake(
            "no + 1: boxes are continuous, width = x2 − x1",
            lambda b: box_area(b.float() + torch.tensor([0, 0, 1, 1])),
        ),
        Mistake(INVERTED, lambda b: box_area(b)),
        Mistake(INVERTED, lambda b: box_area(b).clamp(min=0)),
        Mistake(INVERTED, lambda b: box_area(b).abs()),
        Mistake(
            "x2 and y2 are the far corner, not width and height", lambda b: b[..., 2] * b[..., 3]
        ),
        Mistake(
            "a box is x1 y1 x2 y2: the width is the third number minus the first",
            lambda b: (b[..., 1] - b[..., 0]) * (b[..., 3] - b[..., 2]),
        ),
    ),
    place=lambda index, b: f"boxes{list(index)} is {b[index].tolist()}",
)

# --- IoU ------------------------------------------------------------------------------------------

ZERO_UNION = "two boxes without area have union 0, and 0/0 is nan: clamp the union from below"
APART = "boxes that lie apart have negative overlap in x or y: clamp each side at 0 first"
EPSILON = "a constant added to the union distorts small boxes: clamp it at a tiny number instead"


def _iou_cases() -> Iterator[Case]:
    def by_hand(name: str, a: Tensor, b: Tensor, *rows: Numbers, why: str = "") -> Case:
        return Case(name, (a, b), torch.tensor(rows).reshape(len(a), len(b)), why=why)

    square = boxes((0, 0, 10, 10))
    yield by_hand("half of each is shared", square, boxes((5, 0, 15, 10)), [1 / 3],
                  why="50 square pixels are shared, the union has 150")  # fmt: skip
    yield by_hand("the same box", square, square, [1.0])
    yield by_hand("one inside the other", square, boxes((2, 4, 7, 8)), [0.2])
    yield by_hand(
        "two against three", boxes((0, 0, 10, 10), (0, 0, 20, 10)),
        boxes((0, 0, 10, 5), (10, 0, 20, 10), (0, 0, 10, 10)), [0.5, 0.0, 1.0], [0.25, 0.5, 0.5],
        why="row n, column m: a[n] with b[m]",
    )  # fmt: skip
    yield by_hand("they touch", square, boxes((10, 0, 20, 10), (10, 10, 20, 20)), [0.0, 0.0])
    yield by_hand("apart in x", square, boxes((30, 0, 40, 10)), [0.0], why=APART)
    yield by_hand("apart in x and y", square, boxes((30, 50, 40, 60)), [0.0], why=APART)
    point = boxes((5, 5, 5, 5))
    yield by_hand("two points", point, point, [0.0], why=ZERO_UNION)
    yield by_hand("a point inside a box", point, square, [0.0])
    yield by_hand("an inverted box", boxes((9, 9, 1, 1)), square, [0.0], why=INVERTED)
    yield by_hand("no boxes against two", boxes(), some_boxes(2, 0), why="the result is (0, 2)")
    yield by_hand("two boxes against none", some_boxes(2, 0), boxes(), why="the result is (2, 0)")
    a, b = (boxes((0, 0, 300, y), dtype=torch.float16) for y in (300, 150))
    yield by_hand("half precision, 300 by 300", a, b, [0.5], why=IN_FLOAT32)
    whole = boxes((0, 0, 10, 10), dtype=torch.int64)
    yield by_hand("integers", whole, boxes((5, 0, 15, 10), dtype=torch.int64), [1 / 3])
    yield by_hand("a thousandth of a pixel", square / 1e4, square / 1e4, [1.0], why=EPSILON)
    yield by_hand("huge", square * 1e5, boxes((0, 0, 1e6, 5e5)), [0.5])
    a, b = some_boxes(3, 0), some_boxes(4, 1)
    yield Case("random, whole pixels", (a, b), box_iou(a, b))
    a, b = some_boxes(40, 2, 500, whole=False), some_boxes(30, 3, 500, whole=False)
    yield Case("random, 40 against 30", (a, b), box_iou(a, b))
    a, b = boxes((0, 0, 10, 10), (3, 2, 14, 9)), boxes((4, 1, 13, 12), (1, 5, 8, 7))
    for i, name in enumerate("ab"):
        measured = measured_slope(partial(_iou_with, (a, b), i), (a, b)[i])
        yield Case(f"slopes by {name}", (a, b), measured, slope=(i,))


def _iou_with(pair: tuple[Tensor, Tensor], i: int, moved: Tensor) -> Tensor:
    return iou_by_loop(moved, pair[1]) if i == 0 else iou_by_loop(pair[0], moved)


def _wrong_iou(a: Numbers, b: Numbers, union: str = "", clamp: bool = True) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0) if clamp else width * height
    areas = area_of(a), area_of(b)
    whole = {"sum": sum(areas), "min": min(areas), "max": max(areas), "a": areas[0]}
    return shared / whole.get(union, sum(areas) - shared)


def _iou_over(union: str = "", clamp: bool = True) -> Callable[[Tensor, Tensor], Tensor]:
    return partial(iou_by_loop, of_two=partial(_wrong_iou, union=union, clamp=clamp))


OF_BOTH = "the union is of both boxes: area + area − intersection"

_IOU = Piece(
    "pairwise_iou(a, b)",
    _iou_cases,
    "torchvision.ops.box_iou",
    (
        Mistake(
            "no + 1: boxes are continuous, width = x2 − x1",
            partial(iou_by_loop, of_two=partial(iou_of, more=1.0)),
        ),
        Mistake(APART, _iou_over(clamp=False)),
        Mistake("the union counts what both share once: subtract it", _iou_over("sum")),
        *(Mistake(OF_BOTH, _iou_over(union)) for union in ("min", "max", "a")),
        Mistake(ZERO_UNION, lambda a, b: box_iou(a, b)),
        Mistake(
            "that is the intersection; divide it by the union",
            lambda a, b: box_iou(a, b) * (box_area(a)[:, None] + box_area(b)) / (1 + box_iou(a, b)),
        ),
        Mistake("it is transposed: rows are of a, columns of b", lambda a, b: box_iou(b, a)),
    ),
    place=lambda index, a, b: (
        f"a[{index[0]}] is {a[index[0]].tolist()}, b[{index[1]}] is {b[index[1]].tolist()}"
    ),
)

# --- clipping -------------------------------------------------------------------------------------

SIZE_ORDER = "image_size is (height, width): x ends at the second number, y at the first"


def _clip_cases() -> Iterator[Case]:
    size = 20, 30  # height, width

    def by_hand(name: str, box: Numbers, expected: Numbers, why: str = "") -> Case:
        return Case(name, (boxes(box), size), boxes(expected), why=why)

    yield by_hand("over the right border", (10, 5, 50, 15), (10, 5, 30, 15), why=SIZE_ORDER)
    yield by_hand("over the lower border", (10, 5, 15, 40), (10, 5, 15, 20), why=SIZE_ORDER)
    yield by_hand("over the left and upper border", (-4, -6, 15, 12), (0, 0, 15, 12))
    yield by_hand("inside", (1, 2, 29, 19), (1, 2, 29, 19), why="a box inside stays as it is")
    yield by_hand("the whole picture", (0, 0, 30, 20), (0, 0, 30, 20))
    yield by_hand("larger than the picture", (-9, -9, 99, 99), (0, 0, 30, 20))
    yield by_hand(
        "wholly outside, to the right", (40, 5, 50, 15), (30, 5, 30, 15),
        why="all four numbers are clipped: outside the picture nothing of a box is left",
    )  # fmt: skip
    yield by_hand("wholly outside, above", (5, -9, 9, -3), (5, 0, 9, 0))
    yield by_hand("fractions", (0.5, 0.25, 29.75, 20.5), (0.5, 0.25, 29.75, 20),
                  why="boxes are continuous: they need not lie on whole pixels")  # fmt: skip
    yield Case("no boxes", (boxes(), size), boxes(), why="(0, 4) in, (0, 4) out")
    few = some_boxes(6, 0) * 1.5 - 10
    yield Case("random", (few, size), clip_boxes_to_image(few, size))
    batch = torch.stack([few, few + 7])  # (2, 6, 4)
    yield Case(
        "a batch, (2, 6, 4)", (batch, size), clip_boxes_to_image(batch, size),
        why="index the last axis: [..., 0]",
    )  # fmt: skip
    half = boxes((-3, 4, 99, 9), dtype=torch.float16)
    yield Case("half precision", (half, size), boxes((0, 4, 30, 9), dtype=torch.float16))
    clip = partial(clip_boxes_to_image, size=size)
    few = boxes((-5, 3, 12, 44), (7, 8, 9, 10))
    yield Case("slopes", (few, size), measured_slope(clip, few), slope=(0,))


def _clip(b: Tensor, low: float, x_end: float, y_end: float) -> Tensor:
    return b.maximum(torch.tensor(low)).minimum(torch.tensor([x_end, y_end, x_end, y_end]))


_CLIP = Piece(
    "clip_boxes(boxes, image_size)",
    _clip_cases,
    "torchvision.ops.clip_boxes_to_image",
    (
        Mistake(SIZE_ORDER, lambda b, size: _clip(b, 0, *size)),
        Mistake(
            "the border is at W, not at W − 1: boxes are continuous",
            lambda b, size: _clip(b, 0, size[1] - 1, size[0] - 1),
        ),
        Mistake(
            "numbers below 0 are outside too",
            lambda b, size: _clip(b, -float("inf"), size[1], size[0]),
        ),
        Mistake(
            "numbers above W and H are outside too",
            lambda b, size: _clip(b, 0, *2 * [float("inf")]),
        ),
    ),
    place=lambda index, b, size: f"the box is {b[index[:-1]].tolist()}",
)

PIECES = {piece.name: piece for piece in (_TO_CENTRES, _TO_CORNERS, _AREA, _IOU, _CLIP)}
