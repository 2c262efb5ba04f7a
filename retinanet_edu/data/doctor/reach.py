"""Reach: which objects no anchor overlaps enough, and which anchors would."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from retinanet_edu.anchors import AnchorGenerator
from retinanet_edu.boxes import pairwise_iou
from retinanet_edu.data.doctor.cluster import cluster_shapes
from retinanet_edu.data.doctor.findings import Finding, Table
from retinanet_edu.data.doctor.survey import Survey
from retinanet_edu.data.loading import PAD_MULTIPLE
from retinanet_edu.data.transforms import fit_size
from retinanet_edu.matching import NEGATIVE_IOU, POSITIVE_IOU

# COCO's bounds of small, medium and large, in square pixels; here of the scaled picture.
_BINS = (("small, to 32²", 0.0, 32.0**2), ("medium, to 96²", 32.0**2, 96.0**2),
         ("large", 96.0**2, math.inf))  # fmt: skip
_HOPELESS = 0.5  # so many objects, of all or of a class, without a positive anchor are an error
_FEW = 5  # objects of a class from which on that is said of a class
_CHUNK = 1 << 14  # objects whose overlaps are computed at a time
# What else to try: base anchors of so many strides, and larger pictures.
_STRIDES_WIDE = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_LARGER = (1.5, 2.0)
_MEASURED = 20_000  # objects, spread evenly, on which changes are measured
_LONG = 3.0  # times as long as wide: more than the ratios ½ and 2 reach easily


class Scaled(NamedTuple):
    """Objects as the network sees them.

    Attributes:
        boxes: (O, 4) x1 y1 x2 y2 in pixels of the scaled picture.
        canvas: (O, 2) H and W of the scaled and padded picture.
    """

    boxes: Tensor
    canvas: Tensor


def scale_objects(boxes: np.ndarray, frames: np.ndarray, image_size: int) -> Scaled:
    """Boxes in their pictures, scaled so that the longer side has so many pixels, and padded.

    Args:
        boxes: (O, 4) in pixels of the picture.
        frames: (O, 2) H and W of each one's picture.
        image_size: in pixels.

    Returns:
        `Scaled`.
    """
    different, which = np.unique(frames, axis=0, return_inverse=True)
    sizes = [fit_size((h, w), image_size) for h, w in different.tolist()]
    after = np.array(sizes, dtype=np.float64).reshape(-1, 2)[which.reshape(-1)]
    factors = after / frames  # (O, 2)
    canvas = np.ceil(after / PAD_MULTIPLE) * PAD_MULTIPLE
    scaled = boxes * factors[:, [1, 0, 1, 0]]
    return Scaled(torch.from_numpy(scaled).float(), torch.from_numpy(canvas).float())


def best_overlaps(objects: Scaled, anchors: AnchorGenerator) -> Tensor:
    """The IoU of each object with the anchor that overlaps it most.

    Of the anchors of one level and shape that one is best whose centre is nearest: moving it
    away shrinks the intersection and nothing else. So not all N anchors are tried, but one of
    each level and shape.

    Args:
        objects: in pixels of the scaled pictures.
        anchors: of the model.

    Returns:
        (O,) float32.

    Law:
        pairwise_iou(objects, all anchors).max(dim=1).
    """
    best = torch.zeros(len(objects.boxes))
    shapes = [anchors.cell_anchors(size) for size in anchors.sizes]  # (A, 4) each
    for start in range(0, len(best), _CHUNK):
        part = slice(start, start + _CHUNK)
        boxes, canvas = objects.boxes[part], objects.canvas[part]
        centre = (boxes[:, 2:] + boxes[:, :2]) / 2  # (O, 2) x y
        for stride, shape in zip(anchors.strides, shapes, strict=True):
            cells = (canvas.flip(1) / stride).ceil()  # (O, 2) columns, rows
            step: Tensor = torch.tensor(float(stride))
            if anchors.stride_from_grid:
                step = (canvas.flip(1) / cells).floor()
            # An anchor lies around its centre, but for torchvision's rounding.
            cell = (centre / step - anchors.offset).round().clamp(min=0).minimum(cells - 1)
            at = ((cell + anchors.offset) * step).repeat(1, 2)[:, None]  # (O, 1, 4)
            iou = pairwise_iou(boxes[:, None], at + shape)  # (O, 1, A)
            best[part] = torch.maximum(best[part], iou.amax(dim=(1, 2)))
    return best


def check_reach(survey: Survey, image_size: int, anchors: AnchorGenerator) -> Iterator[Finding]:
    """Objects that no anchor overlaps enough to learn them.

    Args:
        survey: of the data set.
        image_size: to which the longer side of the pictures is scaled, in pixels.
        anchors: of the model.

    Returns:
        findings "no-anchor", below IoU 0.4, where the object is learned as background, and
        "ignored-object", from 0.4 to 0.5, where it is not learned; the worse one has the anchors
        that would reach more.
    """
    wanted = survey.is_sound & ~survey.difficult & np.isfinite(survey.frames[survey.image]).all(1)
    if not wanted.any():
        return
    boxes, frames = survey.boxes[wanted], survey.frames[survey.image][wanted]
    objects = scale_objects(boxes, frames, image_size)
    best = best_overlaps(objects, anchors)
    out = best < NEGATIVE_IOU
    between = ~out & (best < POSITIVE_IOU)
    if not (out.any() or between.any()):
        return
    names = survey.names[wanted]
    options = _options(boxes, frames, image_size, anchors, best)
    tables = [
        _by_class(names, best),
        _by_size(objects, best),
        _typical(objects, best, anchors),
        _measured(options, anchors),
    ]
    lost, total = int((out | between).sum()), len(best)
    hopeless = [n for n in sorted(set(names)) if _is_hopeless(best[torch.from_numpy(names == n)])]
    is_error = lost >= _HOPELESS * total or bool(hopeless)
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]  # (O, 2)
    is_small = sides.prod(dim=1) < _BINS[0][2]
    is_long = sides.amax(dim=1) > _LONG * sides.amin(dim=1)
    for which, kind, words in (
        (out, "no-anchor", f"below {NEGATIVE_IOU}: they are learned as background"),
        (between, "ignored-object",
         f"from {NEGATIVE_IOU} to {POSITIVE_IOU}: they are neither learned nor unlearned"),
    ):  # fmt: skip
        if not which.any():
            continue
        count = int(which.sum())
        mask = np.zeros(len(wanted), dtype=bool)
        mask[np.flatnonzero(wanted)[which.numpy()]] = True
        said = f"; of {', '.join(map(str, hopeless[:6]))} none can be learned" if hopeless else ""
        yield Finding(
            "error" if is_error else "warning", kind,
            f"{count} of {total} objects ({100 * count / total:.1f} %) are overlapped by no anchor "
            f"enough at {image_size} pixels, their best IoU is {words}. "
            f"{int(is_small[which].sum())} of them are small, less than 32² pixels, of the others "
            f"{int((is_long & ~is_small)[which].sum())} more than {_LONG:g} times as long as wide"
            f"{said}",
            _advice(options),
            count, _with_best(survey, mask, best[which]), harm=0.5 + lost / total / 2,
            tables=tables, is_small=True,
        )  # fmt: skip
        tables = []  # once is enough


def _with_best(survey: Survey, mask: np.ndarray, best: Tensor) -> list:
    places = survey.places(mask)
    order = best.argsort().tolist()  # the worst first
    return [
        places[i]._replace(says=f"{places[i].says}, best IoU {float(best[i]):.2f}") for i in order
    ]


def _is_hopeless(best: Tensor) -> bool:
    return len(best) >= _FEW and bool((best < POSITIVE_IOU).all())


def _row(name: str, best: Tensor) -> tuple:
    few, some = int((best < NEGATIVE_IOU).sum()), int((best < POSITIVE_IOU).sum())
    return (name, len(best), few, some, round(some / max(1, len(best)), 3))


_HEAD = ("objects", f"best IoU < {NEGATIVE_IOU}", f"< {POSITIVE_IOU}", "share of these")


def _by_class(names: np.ndarray, best: Tensor) -> Table:
    rows = [_row(str(n), best[torch.from_numpy(names == n)]) for n in sorted(set(names))]
    rows.sort(key=lambda row: -row[-1])
    return Table("objects without an anchor, by class", ("class", *_HEAD), rows)


def _by_size(objects: Scaled, best: Tensor) -> Table:
    area = (objects.boxes[:, 2:] - objects.boxes[:, :2]).prod(dim=1)
    rows = [_row(name, best[(area >= low) & (area < high)]) for name, low, high in _BINS]
    return Table("objects without an anchor, by size in the scaled picture", ("size", *_HEAD), rows)


def _typical(objects: Scaled, best: Tensor, anchors: AnchorGenerator) -> Table:
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]  # (O, 2) w h
    rows = []
    for name, some in (("all", sides), ("out of reach", sides[best < POSITIVE_IOU])):
        shapes, share = cluster_shapes(some, k=anchors.anchors_per_cell if name == "all" else 3)
        pairs = zip(shapes.tolist(), share.tolist(), strict=True)
        for (w, h), part in sorted(pairs, key=lambda pair: math.prod(pair[0])):
            rows.append((name, round(w), round(h), round(h / w, 2), round(part, 3)))
    return Table(
        "typical objects: clusters of width and height by IoU, in pixels of the scaled picture",
        ("objects", "width", "height", "height / width", "share"), rows,
    )  # fmt: skip


class _Option(NamedTuple):
    """A change, what it makes of anchors and pictures, and the best IoU of each object then."""

    change: str
    image_size: int
    anchors: AnchorGenerator
    best: Tensor

    @property
    def reached(self) -> float:
        return _share(self.best)


def _options(
    boxes: np.ndarray,
    frames: np.ndarray,
    image_size: int,
    anchors: AnchorGenerator,
    best: Tensor,
) -> list[_Option]:
    """What other anchors and other sizes of picture would reach, measured on the same objects."""
    some = slice(None, None, -(-len(boxes) // _MEASURED))
    boxes, frames, best = boxes[some], frames[some], best[some]
    objects = scale_objects(boxes, frames, image_size)
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]  # (O, 2) w h

    def changed(base: float | None, ratios: Sequence[float]) -> tuple[AnchorGenerator, Tensor]:
        sizes = anchors.sizes if base is None else [base * s for s in anchors.strides]
        new = AnchorGenerator(**(anchors.settings | {"sizes": sizes, "ratios": ratios}))
        return new, best_overlaps(objects, new)

    options = [_Option("none", image_size, anchors, best)]
    bases: list[float | None] = [None]
    for base in _STRIDES_WIDE:
        if any(abs(base * s - t) > 1e-6 for s, t in zip(anchors.strides, anchors.sizes)):
            bases.append(base)
            change = f"--anchor-strides {base:g}"
            options.append(_Option(change, image_size, *changed(base, anchors.ratios)))
    for factor in _LARGER:
        larger = max(1, round(image_size * factor / PAD_MULTIPLE)) * PAD_MULTIPLE
        far = best_overlaps(scale_objects(boxes, frames, larger), anchors)
        options.append(_Option(f"--image-size {larger}", larger, anchors, far))
    far_off = sides[best < POSITIVE_IOU]
    ends = ratios_that_fit(far_off, 2) if len(far_off) else ()
    for words, ratios in (
        ("3 ratios of clusters", ratios_that_fit(sides, 3)),
        ("5 ratios of clusters", ratios_that_fit(sides, 5)),
        ("ratios of those out of reach added", tuple(sorted({*anchors.ratios, *ends}))),
    ):
        tried = [changed(base, ratios) for base in bases]
        top = max(range(len(bases)), key=lambda i: (_share(tried[i][1]), -i))
        for i in sorted({0, top}):
            wide = "" if bases[i] is None else f", --anchor-strides {bases[i]:g}"
            options.append(_Option(words + wide, image_size, *tried[i]))
    return options


def _measured(options: list[_Option], anchors: AnchorGenerator) -> Table:
    head = (
        "change", f"IoU ≥ {POSITIVE_IOU}", f"IoU ≥ {NEGATIVE_IOU}", "mean best IoU", "ratios",
        "anchors a cell", "smallest base", "longer side",
    )  # fmt: skip
    rows = [
        (o.change, round(o.reached, 4), round(_share(o.best, NEGATIVE_IOU), 4),
         round(float(o.best.mean()), 3), _numbers(o.anchors.ratios), o.anchors.anchors_per_cell,
         round(min(o.anchors.sizes)), o.image_size)
        for o in options
    ]  # fmt: skip
    return Table(
        f"what would reach how many, measured on {len(options[0].best)} objects "
        f"(ratios are height / width; scales stay {_numbers(anchors.scales)})", head, rows,
    )  # fmt: skip


def _advice(options: list[_Option]) -> str:
    """The best option of those with as many anchors a cell, and the best of all."""
    now, *others = options
    cheap = max(
        (o for o in others if o.anchors.anchors_per_cell <= now.anchors.anchors_per_cell),
        key=lambda o: o.reached,
    )
    dear = max(others, key=lambda o: o.reached)
    said = []
    if cheap.reached > now.reached:
        said.append(f"{cheap.change} would reach {_percent(cheap)}")
    if dear.reached > max(now.reached, cheap.reached):
        sizes, ratios = _list(dear.anchors.sizes), _list(dear.anchors.ratios)
        code = f"AnchorGenerator(sizes={sizes}, ratios={ratios})"
        said.append(f"{dear.change}, which is {code}, would reach {_percent(dear)}")
    if not said:
        return "nothing that was tried reaches more; few such objects do little harm."
    return f"{'; '.join(said)}; now it is {_percent(now)}."


def _percent(option: _Option) -> str:
    return f"{100 * option.reached:.1f} %"


def _list(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})"


def _share(best: Tensor, threshold: float = POSITIVE_IOU) -> float:
    return float((best >= threshold).float().mean())


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values)


def ratios_that_fit(sides: Tensor, k: int) -> tuple[float, ...]:
    """The k ratios that fit the shapes of the objects best, whatever their size.

    Args:
        sides: (O, 2) width and height.
        k: how many.

    Returns:
        height / width to two digits, ascending; fewer than k where there are not as many
        different objects.
    """
    flat = (sides[:, 1] / sides[:, 0]).sqrt()  # of a box of area 1
    shapes, _ = cluster_shapes(torch.stack([1 / flat, flat], dim=1), k)
    # Digits and not decimals, of which a rope or a wire would leave none.
    return tuple(sorted({float(f"{h / w:.2g}") for w, h in shapes.tolist()}))
