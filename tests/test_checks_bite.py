"""checks: plausible wrong versions of every function, all rejected, with a message that helps.

A version stands here as a student would write it. Most are one right function with a switch for
each mistake, so that nothing else is wrong with them; the right ones must pass.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms, box_area, box_iou, sigmoid_focal_loss

from retinanet_edu.boxes import clip_boxes, pairwise_iou
from retinanet_edu.checks import CheckFailed, check, names
from retinanet_edu.coding import decode_boxes, encode_boxes
from retinanet_edu.evaluation import Ledger
from retinanet_edu.losses import focal_loss, smooth_l1_loss
from retinanet_edu.matching import match_targets
from retinanet_edu.structures import Detections, Predictions, Targets
from retinanet_edu.suppression import nms_per_class

Version = Callable[..., Any]

RIGHT: list[tuple[str, Version]] = []  # what the switches stand on
WRONG: list[tuple[str, str, Version, str]] = []  # piece, mistake, version, pattern of the hint


def wrong(piece: str, mistake: str, version: Version, hint: str = "") -> None:
    WRONG.append((piece, mistake, version, hint))


def stack(*columns: Tensor) -> Tensor:
    return torch.stack(columns, dim=-1)


# --- formats --------------------------------------------------------------------------------------


def to_centres(change: Callable[..., tuple[Tensor, ...]]) -> Version:
    return lambda boxes: stack(*change(*boxes.unbind(-1)))


RIGHT.append(
    (
        "xyxy_to_cxcywh",
        to_centres(lambda a, b, c, d: ((a + c) / 2, (b + d) / 2, c - a, d - b)),
    )
)
for mistake, change, hint in (
    ("corner kept", lambda a, b, c, d: (a, b, c - a, d - b), "half a side further"),
    ("+1 widths", lambda a, b, c, d: ((a + c) / 2, (b + d) / 2, c - a + 1, d - b + 1), "no \\+ 1"),
    ("half a side for the centre", lambda a, b, c, d: ((c - a) / 2, (d - b) / 2, c - a, d - b),
     r"\(x1 \+ x2\) / 2"),
    ("w and h swapped", lambda a, b, c, d: ((a + c) / 2, (b + d) / 2, d - b, c - a), "exchanged"),
    ("centre of x1 and y1", lambda a, b, c, d: ((a + b) / 2, (c + d) / 2, c - a, d - b), ""),
    ("centre not halved", lambda a, b, c, d: (a + c, b + d, c - a, d - b), ""),
    ("whole pixels", lambda a, b, c, d: ((a + c) // 2, (b + d) // 2, c - a, d - b), ""),
    ("size from the wrong end", lambda a, b, c, d: ((a + c) / 2, (b + d) / 2, a - c, b - d), ""),
):  # fmt: skip
    wrong("xyxy_to_cxcywh", mistake, to_centres(change), hint)
wrong("xyxy_to_cxcywh", "first axis indexed", lambda b: torch.stack(
    [(b[:, 0] + b[:, 2]) / 2, (b[:, 1] + b[:, 3]) / 2, b[:, 2] - b[:, 0], b[:, 3] - b[:, 1]], 1),
    "last axis")  # fmt: skip

RIGHT.append(
    (
        "cxcywh_to_xyxy",
        to_centres(lambda x, y, w, h: (x - w / 2, y - h / 2, x + w / 2, y + h / 2)),
    )
)
for mistake, change, hint in (
    ("whole sides", lambda x, y, w, h: (x - w, y - h, x + w, y + h), "half a side"),
    ("centre taken for corner", lambda x, y, w, h: (x, y, x + w, y + h), "not the corner"),
    ("-1", lambda x, y, w, h: (x - w / 2, y - h / 2, x + w / 2 - 1, y + h / 2 - 1), "no − 1"),
    ("w and h swapped", lambda x, y, w, h: (x - h / 2, y - w / 2, x + h / 2, y + w / 2), ""),
    ("whole pixels", lambda x, y, w, h: (x - w // 2, y - h // 2, x + w // 2, y + h // 2), ""),
    ("far corner at the centre", lambda x, y, w, h: (x - w / 2, y - h / 2, x, y), ""),
    ("x1 x2 y1 y2", lambda x, y, w, h: (x - w / 2, x + w / 2, y - h / 2, y + h / 2), "x1 = cx"),
):  # fmt: skip
    wrong("cxcywh_to_xyxy", mistake, to_centres(change), hint)


def in_place_corners(boxes: Tensor) -> Tensor:
    boxes[..., :2] -= boxes[..., 2:] / 2
    boxes[..., 2:] += boxes[..., :2]
    return boxes


wrong("cxcywh_to_xyxy", "in place", in_place_corners, "writes into boxes")

# --- area, IoU, clipping --------------------------------------------------------------------------


def area(b: Tensor, *, one: float = 0, clamp: Version = lambda side: side.clamp(min=0)) -> Tensor:
    b = b.float()
    return clamp(b[..., 2] - b[..., 0] + one) * clamp(b[..., 3] - b[..., 1] + one)


RIGHT.append(("box_area", area))
wrong("box_area", "+1 widths", partial(area, one=1), "no \\+ 1")
wrong("box_area", "no clamp", partial(area, clamp=lambda side: side), "inverted")
wrong("box_area", "product clamped", lambda b: box_area(b.float()).clamp(min=0), "inverted")
wrong("box_area", "absolute value", lambda b: box_area(b.float()).abs(), "inverted")
wrong("box_area", "far corner", lambda b: b[..., 2] * b[..., 3], "far corner")
wrong(
    "box_area", "neighbours", lambda b: (b[..., 1] - b[..., 0]) * (b[..., 3] - b[..., 2]), "third"
)
wrong("box_area", "width squared", lambda b: (b[..., 2] - b[..., 0]).float().clamp(min=0) ** 2)
wrong("box_area", "perimeter", lambda b: 2 * (b[..., 2:] - b[..., :2]).float().clamp(min=0).sum(-1))
wrong("box_area", "half precision overflows",
      lambda b: (b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1), "half precision")  # fmt: skip
wrong("box_area", "float after the product",
      lambda b: (b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1).float(), "65504")  # fmt: skip
wrong("box_area", "axis kept", lambda b: area(b)[..., None])
wrong("box_area", "first axis indexed",
      lambda b: ((b[:, 2:] - b[:, :2]).float().clamp(min=0)).prod(1), "last axis")  # fmt: skip
wrong("box_area", "slope lost", lambda b: area(b).detach(), "cuts it off")


def iou(
    a: Tensor,
    b: Tensor,
    *,
    one: float = 0,
    clamp: bool = True,
    widen: bool = True,
    divide: Version = lambda shared, union: shared / union.clamp(min=1e-38),
    union_of: Version = lambda x, y, shared: x + y - shared,
) -> Tensor:
    if widen:
        a, b = a.float(), b.float()
    top_left = torch.maximum(a[:, None, :2], b[None, :, :2])  # (N, M, 2)
    sides = torch.minimum(a[:, None, 2:], b[None, :, 2:]) - top_left + one
    sides = sides.clamp(min=0) if clamp else sides
    shared = sides.prod(dim=-1)  # (N, M)
    x, y = ((c[:, 2:] - c[:, :2] + one).clamp(min=0).prod(dim=-1) for c in (a, b))
    return divide(shared, union_of(x[:, None], y[None, :], shared))


def plain(shared: Tensor, union: Tensor) -> Tensor:
    return shared / union


RIGHT.append(("pairwise_iou", iou))
wrong("pairwise_iou", "+1 widths", partial(iou, one=1), "no \\+ 1")
wrong("pairwise_iou", "0/0", partial(iou, divide=plain), "0/0 is nan")
wrong("pairwise_iou", "torchvision's own", box_iou, "0/0 is nan")
wrong("pairwise_iou", "epsilon", partial(iou, divide=lambda s, u: s / (u + 1e-6)), "small boxes")
wrong("pairwise_iou", "no clamp", partial(iou, clamp=False), "clamp each side")
wrong("pairwise_iou", "shared part counted twice",
      partial(iou, union_of=lambda x, y, s: x + y), "subtract it")  # fmt: skip
wrong("pairwise_iou", "over the smaller box",
      partial(iou, union_of=lambda x, y, s: torch.minimum(x, y)), "union is of both")  # fmt: skip
wrong("pairwise_iou", "over the larger box",
      partial(iou, union_of=lambda x, y, s: torch.maximum(x, y)), "union is of both")  # fmt: skip
wrong("pairwise_iou", "over a", partial(iou, union_of=lambda x, y, s: x + 0 * y), "of both")
wrong("pairwise_iou", "intersection alone", partial(iou, divide=lambda s, u: s), "divide it")
wrong("pairwise_iou", "transposed", lambda a, b: iou(b, a), "transposed")
wrong("pairwise_iou", "half precision", partial(iou, widen=False), "half precision|65504")
wrong("pairwise_iou", "integers divided", lambda a, b: iou(a, b).to(a.dtype), "float32")
wrong("pairwise_iou", "slope lost", lambda a, b: torch.tensor(iou(a, b).tolist()).reshape(
    len(a), len(b)), "cuts it off")  # fmt: skip
wrong("pairwise_iou", "row by row only", lambda a, b: torch.stack(
    [iou(a[i : i + 1], b[i : i + 1])[0, 0] for i in range(len(a))]))  # fmt: skip
wrong("pairwise_iou", "float64", lambda a, b: iou(a, b).double(), "float32")
wrong("pairwise_iou", "empty raises", lambda a, b: torch.stack(
    [iou(one[None], b)[0] for one in a]), r"\(0, 2\)")  # fmt: skip


def clip(
    b: Tensor, size: tuple[int, int], *, order: int = 1, less: float = 0, low: float = 0
) -> Tensor:
    h, w = size[::order]
    x = b[..., 0::2].clamp(low, w - less)
    y = b[..., 1::2].clamp(low, h - less)
    return torch.stack([x, y], dim=-1).flatten(-2)


def clip_in_place(b: Tensor, size: tuple[int, int]) -> Tensor:
    b[..., 0::2] = b[..., 0::2].clamp(0, size[1])
    b[..., 1::2] = b[..., 1::2].clamp(0, size[0])
    return b


RIGHT.append(("clip_boxes", clip))
wrong("clip_boxes", "(W, H)", partial(clip, order=-1), "height, width")
wrong("clip_boxes", "W - 1", partial(clip, less=1), "not at W − 1")
wrong("clip_boxes", "not from below", partial(clip, low=-1e9), "below 0")
wrong("clip_boxes", "not from above", lambda b, size: b.clamp(min=0), "above W and H")
wrong("clip_boxes", "in place", clip_in_place, "writes into boxes")
wrong(
    "clip_boxes",
    "each corner at its own side",
    lambda b, size: torch.cat(
        [b[..., :2].clamp(min=0), torch.minimum(b[..., 2:], b.new_tensor(size[::-1]))], -1
    ),
    "all four",
)
wrong("clip_boxes", "whole pixels", lambda b, size: clip(b, size).round(), "")
wrong("clip_boxes", "those outside dropped", lambda b, size: clip(b, size)[
    (clip(b, size)[..., 2:] > clip(b, size)[..., :2]).all(-1)], "")  # fmt: skip
wrong("clip_boxes", "slope lost", lambda b, size: clip(b.detach(), size), "cuts it off")

# --- VOC, mirror image ----------------------------------------------------------------------------

RIGHT.append(("voc_box", lambda xmin, ymin, xmax, ymax: (xmin - 1, ymin - 1, xmax, ymax)))
wrong("voc_box", "-1 everywhere", lambda *v: [x - 1 for x in v], "became one of 9")
wrong("voc_box", "as it is", lambda *v: v, "from 1")
wrong("voc_box", "maxima moved", lambda a, b, c, d: (a - 1, b - 1, c + 1, d + 1), "maxima stay")
wrong("voc_box", "+1 instead", lambda a, b, c, d: (a, b, c + 1, d + 1), "already")
wrong("voc_box", "another order", lambda a, b, c, d: (a - 1, c, b - 1, d), "x1 y1 x2 y2")
wrong(
    "voc_box", "width and height", lambda a, b, c, d: (a - 1, b - 1, c - a + 1, d - b + 1), "corner"
)
wrong("voc_box", "x alone", lambda a, b, c, d: (a - 1, b, c, d))
wrong("voc_box", "whole pixels", lambda a, b, c, d: (int(a) - 1, int(b) - 1, int(c), int(d)),
      "rounded")  # fmt: skip
wrong("voc_box", "one number", lambda a, b, c, d: a - 1, "four numbers")


def read_xml(
    path: Any,
    *,
    bounds_of: Version = lambda element: element.find("bndbox"),
    name_of: Version = lambda element: element.findtext("name"),
    hard: Version = lambda text: text == "1",
    numbers: Version = lambda b: [float(b.findtext(t)) for t in ("xmin", "ymin", "xmax", "ymax")],
    shift: tuple[int, ...] = (1, 1, 0, 0),
) -> list:
    found = []
    for element in ElementTree.parse(path).getroot().findall("object"):
        box = [x - by for x, by in zip(numbers(bounds_of(element)), shift)]
        found.append((name_of(element), box, hard(element.findtext("difficult"))))
    return found


def every_box(path: Any) -> list:
    root = ElementTree.parse(path).getroot()
    boxes = [[float(b.findtext(t)) for t in ("xmin", "ymin", "xmax", "ymax")]
             for b in root.iter("bndbox")]  # fmt: skip
    found = [e.text for e in root.iter("name")]
    return [(n, [a - 1, b - 1, c, d], False) for n, (a, b, c, d) in zip(found, boxes)]


RIGHT.append(("parse_voc_xml", read_xml))
wrong("parse_voc_xml", "every box of the file", every_box)
wrong("parse_voc_xml", "the first box inside",
      partial(read_xml, bounds_of=lambda e: next(e.iter("bndbox"))), "<part>")  # fmt: skip
wrong(
    "parse_voc_xml",
    "the last name inside",
    partial(read_xml, name_of=lambda e: [n.text for n in e.iter("name")][-1]),
    "<part>",
)
wrong("parse_voc_xml", "-1 everywhere", partial(read_xml, shift=(1,) * 4), "one of 9")
wrong("parse_voc_xml", "as it is", partial(read_xml, shift=(0,) * 4), "minima only")
wrong("parse_voc_xml", "bool of a text", partial(read_xml, hard=bool), "bool")
wrong(
    "parse_voc_xml", "difficult expected", partial(read_xml, hard=lambda t: bool(int(t))), "missing"
)
wrong("parse_voc_xml", "by place", partial(read_xml, numbers=lambda b: [float(c.text) for c in b]),
      "by name")  # fmt: skip
wrong("parse_voc_xml", "whole numbers", partial(
    read_xml, numbers=lambda b: [int(b.findtext(t)) for t in ("xmin", "ymin", "xmax", "ymax")]),
    "fractions")  # fmt: skip
wrong("parse_voc_xml", "nothing for no objects", lambda path: read_xml(path) or None, "a list is")
wrong("parse_voc_xml", "difficult left out",
      lambda path: [o for o in read_xml(path) if not o[2]])  # fmt: skip
wrong("parse_voc_xml", "names alone", lambda path: [o[0] for o in read_xml(path)], "a list")


def flip(b: Tensor, width: int, *, less: float = 0) -> Tensor:
    x1, y1, x2, y2 = b.unbind(-1)
    return stack(width - less - x2, y1, width - less - x1, y2)


RIGHT.append(("flip_boxes", flip))
wrong("flip_boxes", "x1 and x2 not exchanged", lambda b, w: stack(
    w - b[:, 0], b[:, 1], w - b[:, 2], b[:, 3]), "new x1")  # fmt: skip
wrong("flip_boxes", "W - 1", partial(flip, less=1), "no − 1")
wrong("flip_boxes", "y instead of x", lambda b, w: stack(
    b[:, 0], w - b[:, 3], b[:, 2], w - b[:, 1]), "left and right")  # fmt: skip
wrong("flip_boxes", "x1 and x2 exchanged alone", lambda b, w: b[:, [2, 1, 0, 3]], "inverts")
wrong("flip_boxes", "both", lambda b, w: w - b[:, [2, 3, 0, 1]])
wrong("flip_boxes", "around 0", lambda b, w: flip(b, 0), "W − x")
wrong("flip_boxes", "as it is", lambda b, w: b)
wrong("flip_boxes", "clipped", lambda b, w: flip(b, w).clamp(min=0, max=w))


def flip_in_place(b: Tensor, width: int) -> Tensor:
    b[:, [0, 2]] = width - b[:, [2, 0]]
    return b


wrong("flip_boxes", "in place", flip_in_place, "writes into boxes")

# --- the pyramid and the heads --------------------------------------------------------------------


def down(
    laterals: list[Tensor],
    *,
    enlarge: Version = lambda coarse, fine: F.interpolate(coarse, fine.shape[-2:], mode="nearest"),
    chain: bool = True,
    join: Version = lambda fine, coarse: fine + coarse,
) -> list[Tensor]:
    l3, l4, l5 = laterals
    m4 = join(l4, enlarge(l5, l4))
    return [join(l3, enlarge(m4 if chain else l4, l3)), m4, l5]


def resized(mode: str, **more: Any) -> Version:
    return lambda coarse, fine: F.interpolate(coarse, fine.shape[-2:], mode=mode, **more)


RIGHT.append(("top_down", down))
wrong("top_down", "no chain", partial(down, chain=False), "handed on")
wrong("top_down", "bilinear", partial(down, enlarge=resized("bilinear")), "nearest")
wrong("top_down", "bilinear, corners aligned",
      partial(down, enlarge=resized("bilinear", align_corners=True)), "nearest")  # fmt: skip
wrong(
    "top_down",
    "always by 2",
    partial(down, enlarge=lambda c, f: F.interpolate(c, scale_factor=2, mode="nearest")),
    "not 2.5",
)
wrong("top_down", "averaged", partial(down, join=lambda f, c: (f + c) / 2), "not averaged")
wrong("top_down", "maximum", partial(down, join=torch.maximum))
wrong("top_down", "replaced", partial(down, join=lambda f, c: c), "in its place")
wrong("top_down", "coarsest first", lambda m: down(m)[::-1], "finest first")
wrong("top_down", "two maps", lambda m: down(m)[:2], "three maps")
wrong("top_down", "slope of the top lost", lambda m: down([m[0], m[1], m[2].detach()]))


def flatten(out: Tensor, k: int, *, order: tuple[int, ...] = (0, 2, 3, 1)) -> Tensor:
    return out.permute(order).reshape(len(out), -1, k)


RIGHT.append(("flatten_level", flatten))
wrong("flatten_level", "no permute", lambda o, k: o.reshape(len(o), -1, k), "permute")
wrong("flatten_level", "columns outside", partial(flatten, order=(0, 3, 2, 1)), "row by row")
wrong("flatten_level", "K outside A", lambda o, k: o.permute(0, 2, 3, 1).unflatten(
    -1, (k, -1)).transpose(-1, -2).flatten(1, 3), "A, then K")  # fmt: skip
wrong("flatten_level", "anchors outside cells", lambda o, k: o.unflatten(1, (-1, k)).permute(
    0, 1, 3, 4, 2).flatten(1, 3), "cells outside")  # fmt: skip
wrong("flatten_level", "K outside, in the last axis", lambda o, k: o.flatten(2).mT.reshape(
    len(o), k, -1).mT)  # fmt: skip
wrong("flatten_level", "images mixed", lambda o, k: o.permute(2, 3, 0, 1).reshape(len(o), -1, k))
wrong("flatten_level", "images joined", lambda o, k: flatten(o, k).reshape(1, -1, k))
wrong("flatten_level", "slope lost", lambda o, k: flatten(o.detach(), k), "cuts it off")
wrong("flatten_level", "one row a cell", lambda o, k: o.permute(0, 2, 3, 1).flatten(1, 2))

RIGHT.append(("prior_bias", lambda pi: -math.log((1 - pi) / pi)))
wrong("prior_bias", "sign", lambda pi: math.log((1 - pi) / pi), "negative bias")
wrong("prior_bias", "log10", lambda pi: -math.log10((1 - pi) / pi), "natural")
wrong("prior_bias", "log2", lambda pi: -math.log2((1 - pi) / pi), "natural")
wrong("prior_bias", "ln pi", lambda pi: math.log(pi), "near")
wrong("prior_bias", "ln (1 - pi)", lambda pi: -math.log(1 - pi))
wrong("prior_bias", "pi", lambda pi: pi, "logit")
wrong("prior_bias", "sigmoid", lambda pi: 1 / (1 + math.exp(-pi)))
wrong("prior_bias", "1 + pi", lambda pi: -math.log((1 + pi) / pi))
wrong("prior_bias", "always of 0.01", lambda pi: -4.59511985)

# --- anchors --------------------------------------------------------------------------------------


def cell(
    size: float,
    *,
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
    scales: tuple[float, ...] = (2**0, 2 ** (1 / 3), 2 ** (2 / 3)),
    scale_outside: bool = False,
    height_of: Version = lambda side, ratio: side * ratio**0.5,
    width_of: Version = lambda side, ratio: side / ratio**0.5,
    side_of: Version = lambda size, scale: size * scale,
) -> Tensor:
    pairs = list(itertools.product(ratios, scales))
    if scale_outside:
        pairs = [(r, s) for s, r in itertools.product(scales, ratios)]
    rows = []
    for ratio, scale in pairs:
        side = side_of(size, scale)
        w, h = width_of(side, ratio), height_of(side, ratio)
        rows.append([-w / 2, -h / 2, w / 2, h / 2])
    return torch.tensor(rows)


def level(
    image_size: tuple[int, int],
    size: float,
    stride: int,
    *,
    of_cell: Version = cell,
    offset: float = 0.5,
    count: Version = math.ceil,
    indexing: str = "ij",
    swapped: bool = False,
    from_grid: bool = False,
    anchors_first: bool = False,
) -> Tensor:
    rows, columns = (count(side / stride) for side in image_size)
    down, right = stride, stride
    if from_grid:
        down, right = image_size[0] // rows, image_size[1] // columns
    y, x = (torch.arange(rows) + offset) * down, (torch.arange(columns) + offset) * right
    y, x = torch.meshgrid(y, x, indexing="ij")
    if indexing == "xy":
        y, x = y.T, x.T
    if swapped:
        x, y = y, x
    centres = stack(x, y, x, y).reshape(-1, 1, 4)
    anchors = centres + of_cell(size)
    return (anchors.transpose(0, 1) if anchors_first else anchors).reshape(-1, 4)


def image(
    image_size: tuple[int, int],
    *,
    sizes: tuple[int, ...] = (32, 64, 128, 256, 512),
    strides: tuple[int, ...] = (8, 16, 32, 64, 128),
    reverse: bool = False,
    of_level: Version = level,
) -> Tensor:
    levels = [of_level(image_size, *one) for one in zip(sizes, strides)]
    return torch.cat(levels[::-1] if reverse else levels)


IN_A_CELL = [
    ("scale outside, ratio inside", {"scale_outside": True}, "outer loop"),
    ("w and h swapped", {"height_of": lambda s, r: s / r**0.5, "width_of": lambda s, r: s * r**0.5},
     "height / width"),
    ("height times the ratio", {"height_of": lambda s, r: s * r, "width_of": lambda s, r: s},
     ""),
    ("height times, width over the ratio",
     {"height_of": lambda s, r: s * r, "width_of": lambda s, r: s / r}, "whatever the ratio"),
    ("sizes truncated", {"side_of": lambda size, scale: int(size * scale)}, ""),
    ("size squared", {"side_of": lambda size, scale: (size * scale) ** 2 / 32}, ""),
    ("scales rounded", {"scales": (1.0, 1.26, 1.59)}, "an octave"),
    ("scales in even steps", {"scales": (1.0, 4 / 3, 5 / 3)}, "an octave"),
    ("three octaves", {"scales": (1.0, 2.0, 4.0)}, "an octave"),
    ("ratios reversed", {"ratios": (2.0, 1.0, 0.5)}, ""),
]  # fmt: skip
IN_A_LEVEL = [
    ("centre at 0", {"offset": 0.0}, "half a stride"),
    ("centre at a whole stride", {"offset": 1.0}, "half a stride"),
    ("floor", {"count": math.floor}, "rounded up"),
    ("column by column", {"indexing": "xy"}, "row by row"),
    ("x and y swapped", {"swapped": True}, "x belongs to columns"),
    ("anchors outside cells", {"anchors_first": True}, "stand together"),
    ("stride from the grid", {"from_grid": True}, "strides are fixed"),
]
RIGHT += [("cell_anchors", cell), ("level_anchors", level), ("make_anchors", image)]
for mistake, how, hint in IN_A_CELL:
    wrong("cell_anchors", mistake, partial(cell, **how), hint)
    of_cell = partial(level, of_cell=partial(cell, **how))
    wrong("level_anchors", mistake, of_cell, hint)
    wrong("make_anchors", mistake, partial(image, of_level=of_cell), hint)
for mistake, how, hint in IN_A_LEVEL:
    wrong("level_anchors", mistake, partial(level, **how), hint)
    wrong("make_anchors", mistake, partial(image, of_level=partial(level, **how)), hint)
wrong("cell_anchors", "whole sides", lambda size: 2 * cell(size), "half a side")
wrong("cell_anchors", "corner at the origin", lambda size: cell(size) - cell(size)[:, [0, 1, 0, 1]],
      "around the origin")  # fmt: skip
wrong("cell_anchors", "rounded", lambda size: cell(size).round())
wrong("cell_anchors", "float64", lambda size: cell(size).double(), "float32")
wrong("level_anchors", "W and H swapped", lambda image_size, *a: level(image_size[::-1], *a), "")
wrong(
    "level_anchors",
    "size is the stride's",
    lambda i, size, stride: level(i, 4.0 * stride + 1, stride),
)
wrong("level_anchors", "clipped", lambda i, *a: clip_boxes(level(i, *a), i), "")
wrong("make_anchors", "coarse first", partial(image, reverse=True), "finest")
wrong(
    "make_anchors", "sizes are strides", partial(image, sizes=(8, 16, 32, 64, 128)), "four strides"
)
wrong("make_anchors", "three levels", lambda i: image(i, strides=(8, 16, 32)), "five levels")
wrong("make_anchors", "no scales", lambda i: image(i, of_level=partial(
    level, of_cell=partial(cell, scales=(1.0,)))))  # fmt: skip
wrong("make_anchors", "clipped", lambda i: clip_boxes(image(i), i))

# --- matching -------------------------------------------------------------------------------------


def match(
    anchors: Tensor,
    gt_boxes: Tensor,
    positive: float = 0.5,
    negative: float = 0.4,
    force_match: bool = False,
    *,
    overlap: Version = pairwise_iou,
    is_positive: Version = torch.ge,
    is_background: Version = torch.lt,
    best: Version = lambda iou: iou.max(dim=1),
    claim: Version = lambda iou, most: (iou == most) & (most > 0),
    codes: tuple[int, int] = (-1, -2),
) -> Tensor:
    background, ignored = codes
    if len(gt_boxes) == 0:
        return torch.full((len(anchors),), background)
    iou = overlap(anchors, gt_boxes)
    best_iou, index = best(iou)
    found = is_positive(best_iou, positive)
    if force_match and len(iou):
        found = found | claim(iou, iou.amax(dim=0)).any(dim=1)
    index = torch.where(found, index, ignored)
    return torch.where(~found & is_background(best_iou, negative), background, index)


def last_best(iou: Tensor) -> tuple[Tensor, Tensor]:
    value, index = iou.flip(1).max(dim=1)
    return value, iou.shape[1] - 1 - index


def first_enough(iou: Tensor) -> tuple[Tensor, Tensor]:
    enough = iou >= 0.5
    return iou.amax(1), torch.where(enough.any(1), enough.int().argmax(1), iou.argmax(1))


def packed(iou: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and number of the object in one float, to need one maximum only."""
    key = ((iou * 100).floor() * 1000 - torch.arange(iou.shape[1])).amax(dim=1)
    index = (-key) % 1000
    return iou.gather(1, index.long()[:, None])[:, 0], index.long()


def in_half(a: Tensor, b: Tensor) -> Tensor:
    return pairwise_iou(a, b).half().float()


def wins(
    anchors: Tensor,
    gt_boxes: Tensor,
    force_match: bool = False,
    *,
    divide: Version = torch.floor_divide,
) -> Tensor:
    """The best anchor of each object is found in the flat table, by row and column."""
    found = match(anchors, gt_boxes)
    if force_match:
        iou = pairwise_iou(anchors, gt_boxes)
        for m in range(len(gt_boxes)):
            flat = iou[:, m].argmax() * len(gt_boxes) + m
            row = divide(flat, len(gt_boxes)).long()
            for anchor in (iou[:, m] == iou[row, m]).nonzero()[:, 0] if iou[row, m] > 0 else [row]:
                if iou[anchor, m] > 0:
                    found[anchor] = iou[anchor].argmax()
    return found


def forgets_forced(anchors: Tensor, gt_boxes: Tensor, force_match: bool = False) -> Tensor:
    """Each object gives its number to its best anchor, whatever that anchor's own best is."""
    found = match(anchors, gt_boxes)
    if force_match:
        iou = pairwise_iou(anchors, gt_boxes)
        for m in range(len(gt_boxes)):
            if iou[:, m].max() > 0:
                found[iou[:, m] == iou[:, m].max()] = m
    return found


RIGHT += [("match_anchors", match), ("match_anchors", wins)]
wrong("match_anchors", "> 0.5", partial(match, is_positive=torch.gt), "≥, not >")
wrong("match_anchors", "<= 0.4", partial(match, is_background=torch.le), "< 0.4, not ≤")
wrong("match_anchors", "no band", lambda a, b: match(a, b, 0.5, 0.5), "neither positive nor")
wrong(
    "match_anchors", "the band is positive", lambda a, b: match(a, b, 0.4, 0.4), "neither positive"
)
wrong("match_anchors", "the last of equals", partial(match, best=last_best), "the first is taken")
wrong(
    "match_anchors", "the first that is enough", partial(match, best=first_enough), "overlaps most"
)
wrong("match_anchors", "codes exchanged", partial(match, codes=(-2, -1)), "−1 is background")
wrong(
    "match_anchors",
    "objects from 1",
    lambda a, b: torch.where(
        match(a, b) >= 0, match(a, b) + 1, torch.where(match(a, b) == -1, 0, -1)
    ),
    "from 0",
)
wrong("match_anchors", "forced always", lambda a, b: match(a, b, force_match=True), "unless")
wrong("match_anchors", "forced by objects that overlap nothing",
      partial(match, claim=lambda iou, most: iou == most), "reaches")  # fmt: skip
wrong("match_anchors", "maximum over anchors", lambda a, b: pairwise_iou(a, b).argmax(0), "dim=1")
wrong("match_anchors", "0/0", partial(match, overlap=box_iou))
wrong(
    "match_anchors",
    "empty raises",
    lambda a, b: torch.where(
        pairwise_iou(a, b).amax(1) >= 0.5,
        pairwise_iou(a, b).argmax(1),
        torch.where(pairwise_iou(a, b).amax(1) < 0.4, -1, -2),
    ),
    "empty axis",
)
wrong("match_anchors", "IoU and object in one number", partial(match, best=packed))
wrong(
    "match_anchors",
    "IoU rounded",
    partial(match, overlap=lambda a, b: (pairwise_iou(a, b) * 10).round() / 10),
)
wrong("match_anchors", "floats", lambda a, b: match(a, b).float(), "int64")
wrong("match_anchors", "row by float division", partial(wins, divide=torch.true_divide), "rounds")
wrong("match_anchors", "the first of the best forced alone", partial(
    match, claim=lambda iou, most: torch.eye(len(iou)).bool()[:, iou.argmax(dim=0)] & (most > 0)),
    "not the first alone")  # fmt: skip
wrong("match_anchors", "the object claims the anchor", forgets_forced, "own best object")
wrong("match_anchors", "thresholds fixed", lambda a, b, positive=0.5, negative=0.4: match(a, b))
wrong(
    "match_anchors",
    "the best anchor alone",
    lambda a, b: torch.where(
        (
            torch.arange(len(a))[:, None]
            == (pairwise_iou(a, b).argmax(0) if len(a) and len(b) else 0)
        ).any(1),
        match(a, b),
        match(a, b).clamp(max=-1),
    ),
    "",
)


def targets(
    anchors: Tensor, boxes: Tensor, hard: Tensor, *, near: Version = torch.ge, code: int = -1
) -> Tensor:
    found = match(anchors, boxes * ~hard[:, None])
    excused = pairwise_iou(anchors, boxes * hard[:, None])
    excused = near(excused, 0.4).any(dim=1) if len(boxes) else torch.zeros(len(anchors)).bool()
    return torch.where((found == code) & excused, -2, found)


def only_others(anchors: Tensor, boxes: Tensor, hard: Tensor) -> Tensor:
    found = match(anchors, boxes[~hard])
    near = (
        pairwise_iou(anchors, boxes[hard]).amax(1) >= 0.4
        if hard.any()
        else torch.zeros(len(anchors)).bool()
    )
    return torch.where((found == -1) & near, -2, found)


def all_together(anchors: Tensor, boxes: Tensor, hard: Tensor) -> Tensor:
    found = match(anchors, boxes)
    return torch.where((found >= 0) & torch.cat([hard, hard.new_zeros(2)])[found], -2, found)


def near_or_not(anchors: Tensor, boxes: Tensor, hard: Tensor) -> Tensor:
    found = targets(anchors, boxes, hard)
    near = (pairwise_iou(anchors, boxes * hard[:, None]) >= 0.4).any(dim=1)
    return torch.where(near, -2, found)


RIGHT.append(("match_targets", targets))
wrong("match_targets", "difficult ones learned", lambda a, b, hard: match(a, b), "not learned")
wrong("match_targets", "numbers of the others alone", only_others, "counts all objects")
wrong("match_targets", "difficult ones are background",
      lambda a, b, hard: match(a, b * ~hard[:, None]), "is ignored")  # fmt: skip
wrong("match_targets", "difficult ones take anchors", all_together, "match the other objects first")
wrong("match_targets", "positives excused too", near_or_not, "stays positive")
wrong("match_targets", "> 0.4", partial(targets, near=torch.gt), "≥ 0.4")
wrong("match_targets", "0.5", partial(targets, near=lambda iou, _: iou >= 0.5), "≥ 0.4")
wrong("match_targets", "any overlap", partial(targets, near=lambda iou, _: iou > 0), "≥ 0.4")
wrong("match_targets", "the others ignored", lambda a, b, hard: targets(a, b, ~hard))


def one_hot(
    found: Tensor,
    labels: Tensor,
    k: int,
    *,
    mask: Version = lambda found: found >= 0,
    more: int = 0,
) -> Tensor:
    rows = torch.zeros(len(found), k + more)
    for i in mask(found).nonzero()[:, 0]:
        rows[i, labels[found[i]]] = 1
    return rows


RIGHT.append(("class_targets", one_hot))
wrong(
    "class_targets",
    "no mask",
    lambda m, labels, k: F.one_hot(labels[m], k).float(),
    r"labels\[-1\]",
)
wrong(
    "class_targets", "ignored not masked", partial(one_hot, mask=lambda m: m != -1), r"labels\[-1\]"
)
wrong(
    "class_targets",
    "background is class 0",
    lambda m, labels, k: F.one_hot(
        torch.where(m >= 0, labels[m], 0) if len(labels) else 0 * m, k
    ).float(),
    "row of zeros",
)
wrong("class_targets", "the object's number", lambda m, labels, k: one_hot(m, torch.arange(k), k),
      "not its index")  # fmt: skip
wrong("class_targets", "a column for background", partial(one_hot, more=1), "no column")
wrong("class_targets", "labels from 1", lambda m, labels, k: one_hot(m, labels - 1, k))
wrong("class_targets", "integers", lambda m, labels, k: one_hot(m, labels, k).long(), "float32")
wrong("class_targets", "object 0 is background", partial(one_hot, mask=lambda m: m > 0))
wrong(
    "class_targets", "labels of the anchors", lambda m, labels, k: one_hot(m, labels, k).argmax(1)
)
wrong("class_targets", "one class has no axis",
      lambda m, labels, k: one_hot(m, labels, k).squeeze(-1), "")  # fmt: skip

# --- box coding -----------------------------------------------------------------------------------


def parts(boxes: Tensor, one: float = 0) -> tuple[Tensor, ...]:
    x1, y1, x2, y2 = boxes.float().unbind(-1)
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1 + one, y2 - y1 + one


def encoded(formula: Version, one: float = 0) -> Version:
    return lambda boxes, anchors: stack(*formula(*parts(boxes, one), *parts(anchors, one)))


def offsets(x, y, w, h, xa, ya, wa, ha):  # type: ignore[no-untyped-def]
    return (x - xa) / wa, (y - ya) / ha, torch.log(w / wa), torch.log(h / ha)


RIGHT.append(("encode_boxes", encoded(offsets)))
for mistake, formula, hint in (
    ("shift in pixels", lambda x, y, w, h, xa, ya, wa, ha:
        (x - xa, y - ya, (w / wa).log(), (h / ha).log()), "sides of the anchor"),
    ("w and h swapped in the shift", lambda x, y, w, h, xa, ya, wa, ha:
        ((x - xa) / ha, (y - ya) / wa, (w / wa).log(), (h / ha).log()), "dx in its width"),
    ("in sides of the box", lambda x, y, w, h, xa, ya, wa, ha:
        ((x - xa) / w, (y - ya) / h, (w / wa).log(), (h / ha).log()), "the unit"),
    ("from box to anchor", lambda x, y, w, h, xa, ya, wa, ha:
        ((xa - x) / wa, (ya - y) / ha, (wa / w).log(), (ha / h).log()), ""),
    ("ratio inverted", lambda x, y, w, h, xa, ya, wa, ha:
        ((x - xa) / wa, (y - ya) / ha, (wa / w).log(), (ha / h).log()), "not of anchor / box"),
    ("no logarithm", lambda x, y, w, h, xa, ya, wa, ha:
        ((x - xa) / wa, (y - ya) / ha, w / wa, h / ha), "logarithm"),
    ("log2", lambda x, y, w, h, xa, ya, wa, ha:
        ((x - xa) / wa, (y - ya) / ha, (w / wa).log2(), (h / ha).log2()), "natural"),
    ("log1p", lambda x, y, w, h, xa, ya, wa, ha:
        ((x - xa) / wa, (y - ya) / ha, (w / wa).log1p(), (h / ha).log1p()), ""),
    ("corners shifted", lambda x, y, w, h, xa, ya, wa, ha:
        ((x - w / 2 - xa + wa / 2) / wa, (y - h / 2 - ya + ha / 2) / ha,
         (w / wa).log(), (h / ha).log()), "the centre"),
    ("standard deviations", lambda x, y, w, h, xa, ya, wa, ha:
        (10 * (x - xa) / wa, 10 * (y - ya) / ha, 5 * (w / wa).log(), 5 * (h / ha).log()),
        "standard deviations"),
    ("another order", lambda x, y, w, h, xa, ya, wa, ha:
        ((x - xa) / wa, (w / wa).log(), (y - ya) / ha, (h / ha).log()), "dx dy dw dh"),
    ("dw and dh swapped", lambda x, y, w, h, xa, ya, wa, ha:
        ((x - xa) / wa, (y - ya) / ha, (h / ha).log(), (w / wa).log()), "exchanged"),
    ("clamped", lambda x, y, w, h, xa, ya, wa, ha:
        ((x - xa) / wa, (y - ya) / ha, (w / wa).log().clamp(-4, 4), (h / ha).log().clamp(-4, 4)),
        "clamps nothing"),
    ("epsilon", lambda x, y, w, h, xa, ya, wa, ha:
        ((x - xa) / (wa + 1e-2), (y - ya) / (ha + 1e-2), (w / wa).log(), (h / ha).log()), ""),
):  # fmt: skip
    wrong("encode_boxes", mistake, encoded(formula), hint)
wrong("encode_boxes", "+1 widths", encoded(offsets, one=1), "no \\+ 1")
wrong("encode_boxes", "the other way round", lambda b, a: encode_boxes(a, b), "")
wrong("encode_boxes", "slope lost", lambda b, a: encode_boxes(b.detach(), a), "cuts it off")
wrong("encode_boxes", "slope of the size lost", lambda b, a: torch.cat(
    [encode_boxes(b, a)[:, :2], encode_boxes(b, a)[:, 2:].detach()], 1))  # fmt: skip

LIMIT = math.log(1000 / 16)


def decoded(
    deltas: Tensor,
    anchors: Tensor,
    *,
    stretch: Version = lambda d: d.clamp(max=LIMIT).exp(),
    shift: Version = lambda d, side, stretched: d * side,
    corners: Version = lambda x, y, w, h: (x - w / 2, y - h / 2, x + w / 2, y + h / 2),
    swap: bool = False,
    keep_corner: bool = False,
) -> Tensor:
    x, y, w, h = parts(anchors)
    dx, dy, dw, dh = deltas.float().unbind(-1)
    if swap:
        dw, dh = dh, dw
    wide, high = w * stretch(dw), h * stretch(dh)
    if keep_corner:
        x, y = x - w / 2 + wide / 2, y - h / 2 + high / 2
    return stack(*corners(x + shift(dx, w, wide), y + shift(dy, h, high), wide, high))


RIGHT.append(("decode_boxes", decoded))
wrong("decode_boxes", "no clamp", partial(decoded, stretch=torch.exp), "clamp dw and dh")
wrong(
    "decode_boxes",
    "clamp from below too",
    partial(decoded, stretch=lambda d: d.clamp(-LIMIT, LIMIT).exp()),
    "from above alone",
)
wrong("decode_boxes", "clamp at 4", partial(decoded, stretch=lambda d: d.clamp(max=4).exp()))
wrong(
    "decode_boxes", "clamp at ln 1000", partial(decoded, stretch=lambda d: d.clamp(max=6.9).exp())
)
wrong(
    "decode_boxes", "clamp after exp", partial(decoded, stretch=lambda d: d.exp().clamp(max=LIMIT))
)
wrong("decode_boxes", "stretch clamped", partial(
    decoded, stretch=lambda d: d.exp().clamp(max=math.exp(LIMIT))), "clamp first")  # fmt: skip
wrong(
    "decode_boxes",
    "shift clamped",
    partial(decoded, shift=lambda d, side, new: d.clamp(max=LIMIT) * side),
    "dx and dy are not",
)
wrong("decode_boxes", "clipped", lambda d, a: decoded(d, a).clamp(min=0), "does not clip")
wrong(
    "decode_boxes",
    "shift in pixels",
    partial(decoded, shift=lambda d, side, new: d),
    "of the anchor",
)
wrong("decode_boxes", "shift in new sides",
      partial(decoded, shift=lambda d, side, new: d * new), "does not grow")  # fmt: skip
wrong(
    "decode_boxes", "1 + dw", partial(decoded, stretch=lambda d: 1 + d.clamp(max=LIMIT)), "1 \\+ dw"
)
wrong(
    "decode_boxes", "centre and size", partial(decoded, corners=lambda *c: c), "not centre and size"
)
wrong("decode_boxes", "whole sides", partial(
    decoded, corners=lambda x, y, w, h: (x - w, y - h, x + w, y + h)), "half a side")  # fmt: skip
wrong("decode_boxes", "dw and dh swapped", partial(decoded, swap=True), "stretches the width")
wrong("decode_boxes", "corner kept", partial(decoded, keep_corner=True), "not the corner")
wrong("decode_boxes", "exp2", partial(decoded, stretch=lambda d: d.clamp(max=LIMIT).exp2()))
wrong("decode_boxes", "slope lost", lambda d, a: decoded(d.detach(), a), "cuts it off")
wrong("decode_boxes", "slope of the size lost",
      partial(decoded, stretch=lambda d: d.detach().clamp(max=LIMIT).exp()))  # fmt: skip
wrong("decode_boxes", "half precision", lambda d, a: decode_boxes(d, a).to(d.dtype), "float")

# --- losses ---------------------------------------------------------------------------------------


def smooth(
    predicted: Tensor,
    target: Tensor,
    beta: float = 1.0,
    *,
    below: Version = lambda e, beta: e**2 / (2 * beta),
    above: Version = lambda e, beta: e - beta / 2,
    size: Version = torch.abs,
    total: Version = torch.sum,
) -> Tensor:
    error = size(predicted.float() - target.float())
    small = error < beta
    return total(torch.where(small, below(error, beta if beta else 1.0), above(error, beta)))


def limit_at(limit: Version) -> Version:
    """The parabola and the line of beta, which meet at another place."""

    def moved(predicted: Tensor, target: Tensor, beta: float = 1.0) -> Tensor:
        e = (predicted - target).float().abs()
        parabola = e**2 / (2 * beta) if beta else e
        return torch.where(e <= limit(beta), parabola, e - beta / 2).sum()

    return moved


RIGHT.append(("smooth_l1_loss", smooth))
RIGHT.append(("smooth_l1_loss", limit_at(lambda beta: beta)))
wrong("smooth_l1_loss", "mean", partial(smooth, total=torch.mean), "the sum is asked")
wrong("smooth_l1_loss", "mean over rows", lambda p, t: smooth(p, t) / len(p))
wrong("smooth_l1_loss", "not added up", partial(smooth, total=lambda x: x), "")
wrong(
    "smooth_l1_loss",
    "line without offset",
    partial(smooth, above=lambda e, b: e),
    "both parts meet",
)
wrong("smooth_l1_loss", "square without half", partial(smooth, below=lambda e, b: e**2), "half the")
wrong("smooth_l1_loss", "signed", partial(smooth, size=lambda e: e), "absolute value")
wrong("smooth_l1_loss", "L1", lambda p, t: (p - t).abs().sum(), "L1 loss")
wrong("smooth_l1_loss", "L2", lambda p, t: ((p - t) ** 2).sum(), "L2 loss")
wrong("smooth_l1_loss", "half of L2", lambda p, t: F.mse_loss(p, t, reduction="sum") / 2, "L2 loss")
wrong("smooth_l1_loss", "Huber", lambda p, t, beta=1.0: F.huber_loss(
    p.float(), t.float(), reduction="sum", delta=beta or 1e-9), "Huber")  # fmt: skip
wrong("smooth_l1_loss", "beta without effect", lambda p, t, beta=1.0: smooth(p, t), "both form")
wrong("smooth_l1_loss", "beta moves the limit alone", partial(
    smooth, below=lambda e, b: e**2 / 2, above=lambda e, b: e - 0.5), "both formulas")  # fmt: skip
wrong("smooth_l1_loss", "limit at twice beta", limit_at(lambda b: 2 * b), "|e| − β/2, so")
wrong("smooth_l1_loss", "limit at beta + ½", limit_at(lambda b: b + 0.5), "|e| − β/2, so")
wrong("smooth_l1_loss", "limit always at 1", limit_at(lambda b: 1.0), "below β it is")
wrong("smooth_l1_loss", "always of 1/9", lambda p, t: smooth(p, t, beta=1 / 9))
wrong(
    "smooth_l1_loss",
    "0/0 at beta 0",
    lambda p, t, beta=1.0: (
        torch.where(
            (p - t).abs() <= beta,
            (p - t).float() ** 2 / (2 * beta),
            (p - t).float().abs() - beta / 2,
        ).sum()
        if beta
        else (p - t).sum() * math.nan
    ),
)
wrong(
    "smooth_l1_loss",
    "half precision",
    lambda p, t: F.smooth_l1_loss(p, t, reduction="none").sum(),
    "half precision",
)
wrong("smooth_l1_loss", "slope lost", lambda p, t: smooth(p.detach(), t), "cuts it off")
wrong("smooth_l1_loss", "slope of the square lost", lambda p, t: smooth(p, t) - smooth(
    p.clamp(t - 1, t + 1), t) + smooth(p.clamp(t - 1, t + 1), t).detach())  # fmt: skip


def focal(
    logits: Tensor,
    targets: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    *,
    cross_entropy: Version = lambda z, t: F.binary_cross_entropy_with_logits(
        z, t, reduction="none"
    ),
    weight: Version = lambda alpha, t: alpha * t + (1 - alpha) * (1 - t),
    fade: Version = lambda p, p_t: 1 - p_t,
    total: Version = torch.sum,
) -> Tensor:
    logits, targets = logits.float(), targets.float()
    p = logits.sigmoid()
    p_t = p * targets + (1 - p) * (1 - targets)
    loss = weight(alpha, targets) * fade(p, p_t) ** gamma * cross_entropy(logits, targets)
    return total(loss)


def naive(z: Tensor, t: Tensor) -> Tensor:
    p = z.sigmoid()
    return -(t * p.log() + (1 - t) * (1 - p).log())


def focal_of_p_t(
    z: Tensor, t: Tensor, alpha: float = 0.25, gamma: float = 2.0, keep: Version = torch.clone
) -> Tensor:
    p = z.float().sigmoid()
    p_t = keep(torch.where(t == 1, p, 1 - p))
    return -(torch.where(t == 1, alpha, 1 - alpha) * (1 - p_t) ** gamma * p_t.log()).sum()


def clamped(z: Tensor, t: Tensor) -> Tensor:
    p = z.sigmoid().clamp(1e-4, 1 - 1e-4)
    return -(t * p.log() + (1 - t) * (1 - p).log())


RIGHT.append(("focal_loss", focal))
wrong("focal_loss", "naive log(p)", partial(focal, cross_entropy=naive), "")
wrong("focal_loss", "p clamped at 1e-4", partial(focal, cross_entropy=clamped), "slope 0")
for least in (1e-2, 1e-3, 1e-6, 1e-12):
    wrong("focal_loss", f"p_t clamped at {least:g}", partial(
        focal_of_p_t, keep=partial(torch.clamp, min=least)), "kept from 0 by clamp")  # fmt: skip
wrong("focal_loss", "p_t + 1e-8", partial(focal_of_p_t, keep=lambda p_t: p_t + 1e-8), "slope 0")
wrong("focal_loss", "log(p_t)", focal_of_p_t, "is −inf")
wrong(
    "focal_loss",
    "log(p + 1e-6)",
    partial(
        focal,
        cross_entropy=lambda z, t: (
            -(t * (z.sigmoid() + 1e-6).log() + (1 - t) * (1 - z.sigmoid() + 1e-6).log())
        ),
    ),
    "slope 0",
)
wrong("focal_loss", "weight detached",
      partial(focal, fade=lambda p, p_t: (1 - p_t).detach()), "do not detach")  # fmt: skip
wrong("focal_loss", "alpha swapped", partial(focal, weight=lambda a, t: (1 - a) * t + a * (1 - t)),
      "exchanged")  # fmt: skip
wrong("focal_loss", "alpha for both", partial(focal, weight=lambda a, t: a), "weighs the ones")
wrong("focal_loss", "alpha for the ones alone",
      partial(focal, weight=lambda a, t: a * t + (1 - t)), "weighs the ones")  # fmt: skip
wrong("focal_loss", "no alpha", partial(focal, weight=lambda a, t: 1), "missing")
wrong("focal_loss", "gamma on p_t", partial(focal, fade=lambda p, p_t: p_t), "not of p_t")
wrong("focal_loss", "gamma on p", partial(focal, fade=lambda p, p_t: p))
wrong("focal_loss", "gamma on 1 - p", partial(focal, fade=lambda p, p_t: 1 - p), "true answer")
wrong("focal_loss", "no gamma", lambda z, t: focal(z, t, gamma=0), "cross entropy")
wrong("focal_loss", "gamma 1", lambda z, t: focal(z, t, gamma=1), "exponent")
wrong("focal_loss", "mean", partial(focal, total=torch.mean), "the sum is asked")
wrong(
    "focal_loss", "mean over anchors", lambda z, t: focal(z, t) / max(len(z), 1), "the sum is asked"
)
wrong("focal_loss", "not added up", partial(focal, total=lambda x: x))
wrong("focal_loss", "the ones alone", partial(focal, weight=lambda a, t: a * t), "zeros have")
wrong("focal_loss", "sign", lambda z, t: -focal(z, t), "sign")
wrong("focal_loss", "two sigmoids", lambda z, t: focal(z.sigmoid(), t), "twice")
wrong(
    "focal_loss",
    "alpha and gamma without effect",
    lambda z, t, alpha=0.25, gamma=2.0: focal(z, t),
    "no effect",
)
wrong("focal_loss", "half precision", lambda z, t: sigmoid_focal_loss(z, t, reduction="sum"),
      "half precision")  # fmt: skip
wrong("focal_loss", "slope lost", lambda z, t: focal(z.detach(), t), "cuts it off")
wrong("focal_loss", "softmax over classes", lambda z, t: -(
    t * 0.25 * (1 - z.softmax(-1)) ** 2 * z.log_softmax(-1)).sum())  # fmt: skip


def total_loss(
    predictions: Predictions,
    anchors: Tensor,
    targets: Targets,
    box_loss_weight: float = 1.0,
    normaliser: str = "image",
    *,
    divisor: Version = lambda n: max(n, 1),
    matched: Version = match_targets,
    asked: Version = lambda found: found != -2,
    located: Version = lambda found: found >= 0,
    label: Version = lambda labels, found: labels[found],
    box: Version = smooth_l1_loss,
    classify: Version = focal_loss,
    add: Version = lambda c, b, weight: c + weight * b,
    average: Version = torch.mean,
) -> tuple[Tensor, ...]:
    sums, counts = [], []
    for logits, deltas, boxes, labels, hard in zip(
        predictions.class_logits,
        predictions.box_deltas,
        targets.boxes,
        targets.labels,
        targets.difficult,
    ):
        found = matched(anchors, boxes, hard)
        hot = torch.zeros_like(logits)
        hit = found >= 0
        if hit.any():
            hot[hit, label(labels, found[hit])] = 1
        c = classify(logits[asked(found)], hot[asked(found)])
        at = located(found)
        b = deltas.sum() * 0
        if len(boxes) and at.any():
            b = box(deltas[at], encode_boxes(boxes[found[at]], anchors[at]))
        sums.append(torch.stack([c, b]))
        counts.append(int(hit.sum()))
    if normaliser == "batch":
        c, b = torch.stack(sums).sum(0) / divisor(sum(counts))
    else:
        c, b = (
            average(column)
            for column in torch.stack([s / divisor(n) for s, n in zip(sums, counts)]).T
        )
    return add(c, b, box_loss_weight), c, b


RIGHT.append(("criterion", total_loss))
wrong("criterion", "ignored ones asked", partial(total_loss, asked=lambda m: m > -9), "left out")
wrong("criterion", "background not asked", partial(total_loss, asked=lambda m: m >= 0))
wrong(
    "criterion",
    "positives of the batch",
    lambda p, a, t: total_loss(p, a, t, normaliser="batch"),
    "its own positives",
)
wrong("criterion", "not normalised", partial(total_loss, divisor=lambda n: 1), "its own positives")
wrong("criterion", "divided by all anchors", lambda p, a, t: total_loss(
    p, a, t, divisor=lambda n: len(a)), "not by all anchors")  # fmt: skip
wrong("criterion", "mean over the answers", partial(
    total_loss, classify=lambda z, t: focal_loss(z, t) / z.numel()),
    "not by all anchors")  # fmt: skip
wrong("criterion", "images added up", partial(total_loss, average=torch.sum), "averaged")
wrong(
    "criterion",
    "0/0 without objects",
    partial(total_loss, divisor=lambda n: torch.tensor(float(n))),
    "divided by 1",
)
wrong("criterion", "nothing lost without objects",
      partial(total_loss, divisor=lambda n: n or math.inf), "divided by 1")  # fmt: skip
wrong("criterion", "n + 1", partial(total_loss, divisor=lambda n: n + 1))
wrong("criterion", "boxes averaged", partial(total_loss, box=F.smooth_l1_loss), "not averaged")
wrong(
    "criterion",
    "always class 0",
    partial(total_loss, label=lambda labels, m: 0 * m),
    "labels\\[match\\]",
)
wrong(
    "criterion", "the object's number as its class", partial(total_loss, label=lambda labels, m: m)
)
wrong(
    "criterion",
    "boxes of all anchors",
    partial(total_loss, located=lambda m: m > -9),
    "positive anchors",
)
wrong(
    "criterion",
    "difficult ones learned",
    partial(total_loss, matched=lambda a, b, hard: match_targets(a, b, hard & False)),
    "neither",
)
wrong("criterion", "forced", partial(
    total_loss, matched=partial(match_targets, force_match=True)), "forced")  # fmt: skip
wrong("criterion", "λ twice", partial(total_loss, add=lambda c, b, w: w * (c + b)))
wrong("criterion", "no λ", partial(total_loss, add=lambda c, b, w: c + b))
wrong("criterion", "total without boxes", partial(total_loss, add=lambda c, b, w: c))
wrong("criterion", "cross entropy", partial(
    total_loss, classify=partial(F.binary_cross_entropy_with_logits, reduction="sum")))  # fmt: skip
wrong("criterion", "slope of the boxes lost", partial(
    total_loss, box=lambda d, t: smooth_l1_loss(d.detach(), t)))  # fmt: skip
wrong("criterion", "total alone", lambda p, a, t: total_loss(p, a, t)[0], "three scalar")

# --- suppression and detection --------------------------------------------------------------------


def suppress(
    boxes: Tensor,
    scores: Tensor,
    threshold: float,
    *,
    over: Version = torch.gt,
    order_of: Version = lambda scores: scores.argsort(descending=True, stable=True),
    overlap: Version = pairwise_iou,
    greedy: bool = True,
    window: int | None = None,
) -> Tensor:
    iou = overlap(boxes, boxes)
    kept: list[int] = []
    seen: list[int] = []
    for i in order_of(scores).tolist():
        rivals = kept if greedy else seen
        rivals = rivals[:window] if window else rivals
        if not over(iou[i, rivals], threshold).any():
            kept.append(i)
        seen.append(i)
    return torch.tensor(kept, dtype=torch.int64)


def with_one(a: Tensor, b: Tensor) -> Tensor:
    return iou(a, b, one=1)


def as_sorted(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    order = scores.argsort(descending=True, stable=True)
    return suppress(boxes[order], scores[order], threshold)


RIGHT.append(("nms", suppress))
wrong("nms", ">=", partial(suppress, over=torch.ge), ">, not ≥")
wrong("nms", "the other side kept", partial(suppress, over=torch.lt), "greater than")
wrong("nms", "gone boxes suppress", partial(suppress, greedy=False), "suppresses nobody")
wrong(
    "nms", "worst first", partial(suppress, order_of=lambda s: s.argsort(stable=True)), "descending"
)
wrong("nms", "not sorted", partial(suppress, order_of=lambda s: torch.arange(len(s))))
wrong(
    "nms",
    "the last of equals first",
    partial(suppress, order_of=lambda s: s.argsort(stable=True).flip(0)),
    "first box goes first",
)
wrong("nms", "+1 widths", partial(suppress, overlap=with_one))
wrong("nms", "compared with the best alone", partial(suppress, window=1), "every")
wrong("nms", "sorted by index", lambda b, s, t: suppress(b, s, t).sort()[0], "order of scores")
wrong("nms", "indices of the sorted boxes", as_sorted, "as given")
wrong("nms", "0/0", partial(suppress, overlap=box_iou, over=lambda iou, t: ~(iou <= t)), "0/0")
wrong("nms", "a mask", lambda b, s, t: torch.isin(torch.arange(len(s)), suppress(b, s, t)))
wrong("nms", "the boxes", lambda b, s, t: b[suppress(b, s, t)])
wrong("nms", "always 0.5", lambda b, s, t: suppress(b, s, 0.5))
wrong("nms", "empty raises", lambda b, s, t: torch.stack(list(suppress(b, s, t))), r"\(0,\)")


def each_class(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    threshold: float,
    *,
    by_score: bool = True,
    one: Version = suppress,
) -> Tensor:
    kept = [torch.zeros(0, dtype=torch.int64)]
    for label in labels.unique():
        own = (labels == label).nonzero()[:, 0]
        kept.append(own[one(boxes[own], scores[own], threshold)])
    merged = torch.cat(kept)
    return merged[scores[merged].argsort(descending=True, stable=True)] if by_score else merged


def moved(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, *,
          step: Version = lambda b: b.max() + 1) -> Tensor:  # fmt: skip
    if len(boxes) == 0:
        return labels
    return suppress(boxes + (labels * step(boxes))[:, None], scores, threshold)


RIGHT.append(("nms_per_class", each_class))
wrong("nms_per_class", "all classes together", lambda b, s, labels, t: suppress(b, s, t), "never")
wrong("nms_per_class", "class after class", partial(each_class, by_score=False), "all classes")
wrong("nms_per_class", "moved by the largest coordinate", moved, "")
wrong("nms_per_class", "moved by the span, in float32",
      partial(moved, step=lambda b: b.max() - b.min() + 1), "float64")  # fmt: skip
wrong("nms_per_class", "moved by 1000", partial(moved, step=lambda b: 1000))
wrong("nms_per_class", "torchvision's by coordinates", lambda b, s, labels, t: batched_nms(
    b.half().float(), s, labels, t))  # fmt: skip
wrong("nms_per_class", ">=", partial(each_class, one=partial(suppress, over=torch.ge)), ">, not ≥")
wrong(
    "nms_per_class", "gone boxes suppress", partial(each_class, one=partial(suppress, greedy=False))
)
wrong("nms_per_class", "+1 widths", partial(each_class, one=partial(suppress, overlap=with_one)))
wrong(
    "nms_per_class", "the best class first", lambda b, s, labels, t: each_class(b, s, labels, t)[:1]
)
wrong("nms_per_class", "empty raises", lambda b, s, labels, t: each_class(b, s, labels, t)[
    : int(labels.max()) + 9], r"\(0,\)")  # fmt: skip


def detect(
    predictions: Predictions,
    anchors: Tensor,
    image_sizes: list[tuple[int, int]],
    score_threshold: float = 0.05,
    top_k: int = 1000,
    iou_threshold: float = 0.5,
    max_detections: int = 100,
    *,
    above: Version = torch.gt,
    score: Version = torch.sigmoid,
    per_level: bool = True,
    one_class: bool = False,
    by_anchor: bool = False,
    decode: Version = decode_boxes,
    on_anchors: bool = False,
    clip_when: str = "first",
    clip_to: Version = lambda sizes, i: sizes[i],
    suppress_all: Version = nms_per_class,
    first_cut: bool = False,
) -> list[Detections]:
    found = []
    for i, (logits, deltas) in enumerate(
        zip(predictions.class_logits.float(), predictions.box_deltas.float())
    ):
        rows, start = [], 0
        for n in predictions.anchors_per_level if per_level else [len(anchors)]:
            p = score(logits[start : start + n])
            good = above(p, score_threshold)
            if one_class:
                good = good & (p == p.amax(1, keepdim=True))
            anchor, label = good.nonzero(as_tuple=True)
            best = p[anchor, label].argsort(descending=True)[:top_k]
            if by_anchor:
                chosen = p.amax(1).topk(min(top_k, n)).indices
                best = torch.isin(anchor, chosen).nonzero()[:, 0]
            rows.append((p[anchor, label][best], anchor[best] + start, label[best]))
            start += n
        s, anchor, label = (torch.cat(column) for column in zip(*rows))
        if first_cut:
            best = s.argsort(descending=True)[:max_detections]
            s, anchor, label = s[best], anchor[best], label[best]
        boxes = decode(deltas[anchor], anchors[anchor])
        if clip_when == "first":
            boxes = clip_boxes(boxes, clip_to(image_sizes, i))
        rivals = anchors[anchor] if on_anchors else boxes
        kept = suppress_all(rivals, s, label, iou_threshold)[:max_detections]
        if clip_when == "last":
            boxes = clip_boxes(boxes, clip_to(image_sizes, i))
        found.append(Detections(boxes[kept], s[kept], label[kept]))
    return found


RIGHT.append(("postprocess", detect))
wrong("postprocess", ">= the threshold", partial(detect, above=torch.ge), "must be greater")
wrong("postprocess", "no threshold", partial(detect, above=lambda p, t: p > 0), "must be greater")
wrong(
    "postprocess", "threshold on the logit", partial(detect, above=lambda p, t: torch.logit(p) > t)
)
wrong("postprocess", "one class an anchor", partial(detect, one_class=True), "every class")
wrong(
    "postprocess",
    "classes suppress each other",
    partial(detect, suppress_all=lambda b, s, labels, t: suppress(b, s, t)),
    "within each class",
)
wrong(
    "postprocess",
    "no suppression",
    partial(detect, suppress_all=lambda b, s, labels, t: s.argsort(descending=True)),
    "overlaps by more",
)
wrong("postprocess", "the best of all levels", partial(detect, per_level=False), "of each level")
wrong("postprocess", "anchors suppressed first", partial(detect, on_anchors=True), "decode first")
wrong("postprocess", "not decoded", partial(detect, decode=lambda d, a: a), "decode the offsets")
wrong("postprocess", "clipped last", partial(detect, clip_when="last"), "clip to the picture first")
wrong("postprocess", "not clipped", partial(detect, clip_when="never"), "clip")
wrong("postprocess", "size of the first image", partial(detect, clip_to=lambda sizes, i: sizes[0]),
      "its own")  # fmt: skip
wrong(
    "postprocess",
    "(W, H)",
    partial(detect, clip_to=lambda sizes, i: sizes[i][::-1]),
    "height, width",
)
wrong("postprocess", "padded size", partial(detect, clip_to=lambda sizes, i: (
    max(s[0] for s in sizes), max(s[1] for s in sizes))), "before padding")  # fmt: skip
wrong(
    "postprocess",
    "all of them",
    lambda p, a, s: detect(p, a, s, max_detections=10**6),
    "at most 100",
)
wrong(
    "postprocess", "300 of them", lambda p, a, s: detect(p, a, s, max_detections=300), "at most 100"
)
wrong("postprocess", "cut before suppression", partial(detect, first_cut=True))
wrong("postprocess", "logits as scores", partial(detect, score=lambda z: z))
wrong("postprocess", "softmax", partial(detect, score=lambda z: z.softmax(-1)))
wrong("postprocess", "no top k", lambda p, a, s, top_k=1000: detect(p, a, s), "of each level")
wrong("postprocess", "top 10000", lambda p, a, s: detect(p, a, s, top_k=10000), "best 1000")
wrong("postprocess", "top 100", lambda p, a, s: detect(p, a, s, top_k=100))
wrong("postprocess", "the best anchors", partial(detect, by_anchor=True), "pairs of anchor")
wrong("postprocess", "labels from 1", lambda p, a, s: [
    Detections(d.boxes, d.scores, d.labels + 1) for d in detect(p, a, s)])  # fmt: skip
wrong("postprocess", "one image", lambda p, a, s: detect(p, a, s)[0], "a list")

# --- evaluation -----------------------------------------------------------------------------------


def ledger(
    detections: list[Detections],
    truths: list[dict[str, Tensor]],
    label: int,
    iou_threshold: float = 0.5,
    *,
    near: Version = np.greater_equal,
    overlap: Version = pairwise_iou,
    once: bool = True,
    free: bool = False,
    first: bool = False,
    excuse: bool = True,
    excuse_once: bool = False,
    count: Version = lambda hard: (~hard).sum(),
    one_class: bool = True,
    sort: bool = True,
    sort_all: bool = True,
    share: bool = False,
) -> Ledger:
    rows, objects, difficult = [], 0, 0
    if share:  # objects of all images in one pot
        pot = {
            "boxes": torch.cat([t["boxes"] for t in truths]) if truths else torch.zeros(0, 4),
            "labels": torch.cat([t["labels"] for t in truths]) if truths else torch.zeros(0),
        }
        truths = [pot] * len(truths)
    for found, truth in zip(detections, truths):
        own = (truth["labels"] == label) | (not one_class)
        hard = truth.get("difficult", torch.zeros(len(own)).bool())[own].numpy()
        objects, difficult = objects + int(count(hard)), difficult + int(hard.sum())
        mine = ((found.labels == label) | (not one_class)).nonzero()[:, 0]
        if sort:
            mine = mine[found.scores[mine].argsort(descending=True, stable=True)]
        taken = np.zeros(len(hard), bool)
        for i in mine.tolist():
            row = overlap(found.boxes[i : i + 1].float(), truth["boxes"][own].float()).numpy()[0]
            if free:
                row = np.where(taken, 0, row)
            true = ignored = False
            if len(row):
                best = int(near(row, iou_threshold).argmax()) if first else int(row.argmax())
                if near(row[best], iou_threshold):
                    ignored = bool(excuse and hard[best] and not (excuse_once and taken[best]))
                    true = not (excuse and hard[best]) and not (once and taken[best])
                    taken[best] = True
            rows.append((float(found.scores[i]), true, ignored))
    if sort_all:
        rows.sort(key=lambda row: -row[0])
    scores, true, ignored = np.array(rows, dtype=float).reshape(-1, 3).T
    return Ledger(scores, true.astype(bool), ignored.astype(bool), objects, difficult)


RIGHT.append(("match_detections", ledger))
wrong("match_detections", "found again and again", partial(ledger, once=False), "found once")
wrong("match_detections", "the best free object", partial(ledger, free=True), "overlaps most")
wrong(
    "match_detections",
    "the first object that is near",
    partial(ledger, first=True),
    "overlaps most",
)
wrong("match_detections", "> 0.5", partial(ledger, near=np.greater), "≥")
wrong(
    "match_detections",
    "difficult ones counted",
    partial(ledger, excuse=False, count=len),
    "ignored",
)
wrong("match_detections", "difficult ones true", partial(ledger, excuse=False), "ignored")
wrong("match_detections", "excused once", partial(ledger, excuse_once=True), "any number")
wrong("match_detections", "difficult ones to be found", partial(ledger, count=len), "not among")
wrong("match_detections", "'difficult' must be there",
      lambda d, t, label: ledger(d, [one | {"difficult": one["difficult"]} for one in t], label),
      "may be missing")  # fmt: skip
wrong("match_detections", "any class", partial(ledger, one_class=False), "this label")
wrong("match_detections", "not sorted", partial(ledger, sort=False), "chooses first")
wrong("match_detections", "image by image", partial(ledger, sort_all=False), "over all images")
wrong("match_detections", "objects of all images", partial(ledger, share=True))
wrong("match_detections", "+1 widths", partial(ledger, overlap=with_one))
wrong("match_detections", "always 0.5", lambda d, t, label, iou_threshold=0.5: ledger(d, t, label))
wrong(
    "match_detections",
    "VOC's rule whatever is asked",
    lambda d, t, label, rule="voc": ledger(d, t, label),
    "free",
)
wrong("match_detections", "true positives alone",
      lambda d, t, label: ledger(d, t, label).true_positive, "a Ledger")  # fmt: skip


def curve(
    book: Ledger,
    *,
    keep: Version = lambda book: ~book.ignored,
    objects: Version = lambda book: book.objects,
    seen: Version = lambda n: np.arange(1, n + 1),
) -> tuple[np.ndarray, np.ndarray]:
    if book.objects == 0:
        return np.array([np.nan]), np.array([np.nan])
    true = np.cumsum(book.true_positive[keep(book)])
    return true / objects(book), true / seen(len(true))


RIGHT.append(("precision_recall", curve))
wrong("precision_recall", "exchanged", lambda book: curve(book)[::-1], "recall comes first")
wrong(
    "precision_recall",
    "ignored ones are false",
    partial(curve, keep=lambda b: b.ignored >= 0),
    "left out",
)
wrong("precision_recall", "difficult ones to be found",
      partial(curve, objects=lambda b: b.objects + b.difficult), "`objects` alone")  # fmt: skip
wrong(
    "precision_recall",
    "over those found",
    partial(curve, objects=lambda b: max(b.true_positive.sum(), 1)),
    "over all objects",
)
wrong("precision_recall", "over all detections",
      partial(curve, seen=lambda n: np.full(n, n)), "so far")  # fmt: skip
wrong("precision_recall", "from 0", partial(curve, seen=lambda n: np.arange(n).clip(1)))
wrong(
    "precision_recall", "over detections", partial(curve, objects=lambda b: max(len(b.scores), 1))
)
wrong(
    "precision_recall",
    "ignored ones are true",
    lambda b: curve(Ledger(b.scores, b.true_positive | b.ignored, b.ignored & False, b.objects, 0)),
    "left out",
)
wrong(
    "precision_recall",
    "no cumulative sum",
    lambda b: (b.true_positive[~b.ignored] / max(b.objects, 1), b.true_positive[~b.ignored] * 1.0),
)
wrong("precision_recall", "0 without objects", lambda b: curve(b) if b.objects else (
    np.zeros(1), np.zeros(1)), "0/0")  # fmt: skip
wrong(
    "precision_recall",
    "0/0 without objects",
    lambda b: tuple(
        x / (b.objects or math.nan) for x in (np.cumsum(b.true_positive[~b.ignored]),) * 2
    ),
)
wrong("precision_recall", "the curve starts at (0, 1)", lambda b: (
    np.append(0, curve(b)[0]), np.append(1, curve(b)[1])))  # fmt: skip
wrong("precision_recall", "recall alone", lambda b: curve(b)[0], "two arrays")


def envelope(precision: np.ndarray) -> np.ndarray:
    return np.maximum.accumulate(precision[::-1])[::-1]


def area_under(recall: np.ndarray, precision: np.ndarray, *, lift: Version = envelope,
               start: Any = 0) -> float:  # fmt: skip
    steps = np.diff(recall, prepend=start) if start is not None else np.diff(recall)
    return float((steps * lift(precision)[len(precision) - len(steps) :]).sum())


def points(
    recall: np.ndarray,
    precision: np.ndarray,
    *,
    at: Any = tuple(k / 10 for k in range(11)),
    reached: Version = np.greater_equal,
    best: Version = lambda p: p.max(initial=0.0),
    divide: Version = lambda total, n: total / n,
) -> float:
    if np.isnan(recall).any():
        return math.nan
    return float(divide(sum(best(precision[reached(recall, point)]) for point in at), len(at)))


def either(
    recall: np.ndarray, precision: np.ndarray, method: str = "area", *,
    of_area: Version = area_under, of_points: Version = points,
) -> float:  # fmt: skip
    return (of_area if method == "area" else of_points)(recall, precision)


def trapezia(recall: np.ndarray, precision: np.ndarray) -> float:
    r, p = np.append(0, recall), np.append(1, precision)
    return float((np.diff(r) * (p[1:] + p[:-1]) / 2).sum())


OF_AREA = [
    ("no envelope", partial(area_under, lift=lambda p: p), "from the right"),
    ("envelope from the left", partial(area_under, lift=np.maximum.accumulate), "from the right"),
    ("trapezia", trapezia, "not trapezia"),
    ("mean of precision", lambda r, p: float(np.mean(p)) if len(p) else 0.0, "mean over"),
    ("the first step left out", partial(area_under, start=None), "from recall 0"),
    (
        "the best precision throughout",
        partial(area_under, lift=lambda p: p.max(initial=0)[None].repeat(len(p))),
        "",
    ),
    ("0 for no objects", lambda r, p: np.nan_to_num(area_under(r, p)), "nan"),
    ("empty raises", lambda r, p: area_under(r, p) if len(r) else r[0], ""),
    ("eleven points", points, "area is asked"),
    ("101 points", partial(points, at=tuple(k / 100 for k in range(101))), ""),
]
OF_POINTS = [
    ("steps of np.arange", partial(points, at=np.arange(0, 1.1, 0.1)), "0.30000000000000004"),
    ("steps of np.linspace", partial(points, at=np.linspace(0, 1, 11)), "0.30000000000000004"),
    ("ten points", partial(points, at=[k / 10 for k in range(10)]), "eleven points"),
    ("without recall 0", partial(points, at=[k / 10 for k in range(1, 11)]), "eleven points"),
    ("recall beyond the point", partial(points, reached=np.greater), "≥"),
    ("no envelope", partial(points, best=lambda p: p[0] if len(p) else 0.0), ""),
    ("the worst beyond", partial(points, best=lambda p: p.min() if len(p) else 0.0), ""),
    ("the mean beyond", partial(points, best=lambda p: p.mean() if len(p) else 0.0), ""),
    ("divided by 10", partial(points, divide=lambda total, n: total / 10), "by 11"),
    ("the area", area_under, "eleven points"),
    ("101 points", partial(points, at=tuple(k / 100 for k in range(101))), "eleven points"),
    ("0 for no objects", lambda r, p: np.nan_to_num(points(r, p)), "nan"),
    ("empty raises", lambda r, p: points(r, p, best=np.max), ""),
]
RIGHT += [("average_precision", either), ("average_precision", area_under)]
RIGHT += [("average_precision_11_point", points)]
for mistake, version, hint in OF_AREA:
    wrong("average_precision", mistake, partial(either, of_area=version), hint)
for mistake, version, hint in OF_POINTS:
    wrong("average_precision_11_point", mistake, version, hint)
    wrong("average_precision", f"{mistake}, of 11", partial(either, of_points=version), hint)


# --- receptive field, schedule, COCO's JSON -------------------------------------------------------


def window(
    layers: list[tuple[int, int]], *, start: int = 1, less: int = 1, own: bool = False,
    move: Version = lambda apart, stride: apart * stride,
) -> int:  # fmt: skip
    side, apart = start, 1
    for kernel, stride in layers:
        before, apart = apart, move(apart, stride)
        side += (kernel - less) * (apart if own else before)
    return side


RIGHT.append(("receptive_field", window))
for mistake, version, hint in (
    ("strides ignored", partial(window, move=lambda apart, stride: 1), "reach twice"),
    ("a stride counts for its own layer", partial(window, own=True), "later layers"),
    ("the last stride alone", partial(window, move=lambda apart, stride: stride), "multiply"),
    ("strides added", partial(window, move=lambda apart, stride: apart + stride - 1), "multiply"),
    ("from 0", partial(window, start=0), "sees itself"),
    ("whole kernels", partial(window, less=0), "kernel − 1"),
    ("sum of kernels", partial(window, start=0, less=0), "kernel − 1"),
    ("product of kernels", lambda layers: math.prod(k for k, _ in layers), "add up"),
    ("all strides for each", lambda layers: 1 + math.prod(s for _, s in layers) * sum(
        k - 1 for k, _ in layers), ""),
    ("no layers raise", lambda layers: window(layers) if layers else layers[0], "is 1"),
):  # fmt: skip
    wrong("receptive_field", mistake, version, hint)


def warm_cosine(
    step: int, total_steps: int, warmup_steps: int, *,
    rise: Version = lambda s, w: (s + 1) / (w + 1),
    done: Version = lambda s, t, w: (s - w) / (t - w),
    fall: Version = lambda x: 0.5 * (1 + math.cos(math.pi * x)),
) -> float:  # fmt: skip
    if step < warmup_steps:
        return rise(step, warmup_steps)
    return fall(done(step, total_steps, warmup_steps))


RIGHT.append(("schedule", warm_cosine))
for mistake, how, hint in (
    ("first step at 0", {"rise": lambda s, w: s / w}, "does nothing"),
    ("first step at 0, of one more", {"rise": lambda s, w: s / (w + 1)}, "does nothing"),
    ("top too early", {"rise": lambda s, w: (s + 1) / w}, "there alone"),
    ("no warm-up", {"rise": lambda s, w: 1.0}, "rises first"),
    ("cosine from the start", {"done": lambda s, t, w: s / t}, "where the warm-up ends"),
    ("cosine over all steps", {"done": lambda s, t, w: (s - w) / t}, "where the warm-up ends"),
    ("0 at the last step", {"done": lambda s, t, w: (s - w) / max(1, t - w - 1)}, "last step"),
    ("down to −1", {"fall": lambda x: math.cos(math.pi * x)}, "ends at −1"),
    ("not halved", {"fall": lambda x: 1 + math.cos(math.pi * x)}, "begins at 2"),
    ("a quarter wave", {"fall": lambda x: math.cos(math.pi * x / 2)}, "quarter"),
    ("a line", {"fall": lambda x: 1 - x}, "straight line"),
    ("up", {"fall": lambda x: (1 - math.cos(math.pi * x)) / 2}, "falls"),
    ("degrees", {"fall": lambda x: (1 + math.cos(180 * x)) / 2}, "radians"),
    ("the paper's steps", {"fall": lambda x: 1 if x < 2 / 3 else 0.1}, "half a cosine"),
):
    wrong("schedule", mistake, partial(warm_cosine, **how), hint)
wrong("schedule", "0/0 in a run of one step",
      lambda s, t, w: warm_cosine(s, t, w) if t > 1 else s / (t - 1), "0/0")  # fmt: skip


def from_coco(
    content: dict[str, list], *,
    corners: Version = lambda x, y, w, h: [x, y, x + w, y + h],
    order: Version = lambda c: c["id"],
    label: Version = lambda place, number: place,
    hard: Version = lambda one: one.get("iscrowd", 0) == 1,
    keep: Version = lambda one: True,
    reshape: bool = True,
    every_image: bool = True,
    whole: Version = lambda classes, targets: (classes, targets),
) -> Any:  # fmt: skip
    categories = sorted(content["categories"], key=order)
    labels = {c["id"]: label(place, c["id"]) for place, c in enumerate(categories)}
    targets = {}
    for image in content["images"]:
        found = [a for a in content["annotations"] if a["image_id"] == image["id"] and keep(a)]
        if not found and not every_image:
            continue
        boxes = torch.tensor([corners(*a["bbox"]) for a in found], dtype=torch.float32)
        targets[image["id"]] = {
            "boxes": boxes.reshape(-1, 4) if reshape else boxes,
            "labels": torch.tensor([labels[a["category_id"]] for a in found], dtype=torch.int64),
            "difficult": torch.tensor([hard(a) for a in found], dtype=torch.bool),
        }
    return whole(tuple(c["name"] for c in categories), targets)


def typed(key: str, dtype: torch.dtype) -> Version:
    """One of a target's tensors in another type."""
    return lambda classes, targets: (
        classes, {i: t | {key: t[key].to(dtype)} for i, t in targets.items()})  # fmt: skip


RIGHT.append(("coco_targets", from_coco))
for mistake, how, hint in (
    ("x y w h kept", {"corners": lambda *xywh: list(xywh)}, "far corner"),
    ("centres", {"corners": lambda x, y, w, h: [x - w / 2, y - h / 2, x + w / 2, y + h / 2]},
     "not the centre"),
    ("-1", {"corners": lambda x, y, w, h: [x, y, x + w - 1, y + h - 1]}, "no − 1"),
    ("whole pixels", {"corners": lambda *b: [int(v) for v in (b[0], b[1], b[0] + b[2],
                                                              b[1] + b[3])]}, "rounded"),
    ("labels from 1", {"label": lambda place, number: place + 1}, "from 0"),
    ("ids as labels", {"label": lambda place, number: number}, ""),
    ("ids less 1 as labels", {"label": lambda place, number: number - 1}, "gaps"),
    ("in the file's order", {"order": lambda c: 0}, "order of their id"),
    ("by name", {"order": lambda c: c["name"]}, "order of their id"),
    ("crowds are ordinary", {"hard": lambda a: False}, "difficult"),
    ("iscrowd is there", {"hard": lambda a: "iscrowd" in a}, "difficult"),
    ("crowds are dropped", {"keep": lambda a: not a.get("iscrowd", 0)}, "stays"),
    ("iscrowd must be there", {"hard": lambda a: a["iscrowd"] == 1}, "missing"),
    ("no boxes are (0,)", {"reshape": False}, r"\(0, 4\)"),
    ("empty images left out", {"every_image": False}, "a target too"),
    ("difficult is a number", {"whole": typed("difficult", torch.int64)}, "bool"),
    ("labels are float", {"whole": typed("labels", torch.float32)}, "int64"),
    ("targets alone", {"whole": lambda classes, targets: targets}, "asked for are"),
    ("a list of targets", {"whole": lambda c, targets: (c, list(targets.values()))}, "asked for"),
):  # fmt: skip
    wrong("coco_targets", mistake, partial(from_coco, **how), hint)


# --- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("piece", "version"), RIGHT)
def test_the_versions_without_a_mistake_pass(piece: str, version: Version, capsys: Any) -> None:
    check(version, piece)
    assert re.match(rf"{piece}: \d+ cases passed", capsys.readouterr().out)


@pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:Mean of empty slice")
@pytest.mark.parametrize(
    ("piece", "version", "hint"),
    [pytest.param(p, version, hint, id=f"{p}: {mistake}") for p, mistake, version, hint in WRONG],
)
def test_a_plausible_mistake_is_rejected_with_a_message_that_helps(
    piece: str, version: Version, hint: str
) -> None:
    with pytest.raises(CheckFailed) as caught:
        check(version, piece)
    lines = str(caught.value).splitlines()
    assert re.fullmatch(rf"{piece} is not right yet: case \d+ of \d+, .+", lines[0])
    labels = [line[2:14].strip() for line in lines[1:]]
    order = [label for label in labels if label]
    assert order[:3] == ["input", "got", "expected"]
    assert order[-1] == ("again" if piece != "parse_voc_xml" else "hint")
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 150
    assert caught.value.hint
    assert " ".join(caught.value.hint.split()) in " ".join(str(caught.value).split())
    assert re.search(hint, caught.value.hint), caught.value.hint


@pytest.mark.parametrize("piece", names())
def test_at_least_six_mistakes_in_each_piece_are_tried(piece: str) -> None:
    mistakes = [mistake for p, mistake, _, _ in WRONG if p == piece]
    assert len(set(mistakes)) == len(mistakes) >= 6
    assert piece in {p for p, _ in RIGHT}
