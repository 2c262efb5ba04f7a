"""transforms: coloured rectangles found again by their colour, and torchvision's v2 on boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxes

from retinanet_edu.data.transforms import (
    MEAN,
    MIN_VISIBLE,
    STD,
    EvalTransform,
    TrainTransform,
    fit_size,
    flip,
    normalise,
    picture_size,
    place,
    resize,
    scale_boxes,
)

SEEDS = range(25)

# Far from one another, from the grey behind and from the mean colour of the padding.
COLOURS = torch.tensor(
    [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255)],
    dtype=torch.float32,
)
GREY = 110


def target_of(boxes: Tensor, **entries: Any) -> dict[str, Any]:
    return {
        "boxes": boxes,
        "labels": torch.arange(len(boxes)),
        "difficult": torch.zeros(len(boxes), dtype=torch.bool),
        "image_id": "a",
    } | entries


def picture_of(boxes: Tensor, height: int, width: int) -> Tensor:
    """On grey, box k filled with colour k."""
    image = torch.full((3, height, width), GREY, dtype=torch.uint8)
    for (x1, y1, x2, y2), colour in zip(boxes.int().tolist(), COLOURS, strict=False):
        image[:, y1:y2, x1:x2] = colour[:, None, None].to(torch.uint8)
    return image


def six_objects(height: int = 120, width: int = 200) -> tuple[Tensor, dict[str, Any]]:
    """Two rows of three that do not touch one another, one in a corner, one along an edge."""
    boxes = torch.tensor(
        [
            (0, 0, 40, 30), (60, 10, 120, 50), (150, 20, 200, 45),
            (10, 70, 35, 110), (70, 80, 90, 120), (130, 60, 190, 115),
        ],
        dtype=torch.float32,
    )  # fmt: skip
    return picture_of(boxes, height, width), target_of(boxes)


def colours_of(image: Tensor) -> Tensor:
    """Back from normalised (3, H, W) to 0…255."""
    return 255 * (image * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None])


def find_colour(image: Tensor, label: int) -> Tensor | None:
    """The box around the pixels nearer to colour `label` than halfway to what surrounds it."""
    away = (image.float() - COLOURS[label][:, None, None]).abs().amax(0)  # (H, W)
    return find(away < 73)  # half of what is between a colour and the grey


def find(mask: Tensor) -> Tensor | None:
    """The box around the pixels that are true."""
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    if not len(rows):
        return None
    return torch.cat([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()


def assert_boxes_on_colours(image: Tensor, target: dict[str, Any], tolerance: float) -> None:
    """Each box lies on its object, and nothing that one sees has lost its box."""
    boxes = dict(zip(target["labels"].tolist(), target["boxes"], strict=True))
    for label in range(len(COLOURS)):
        seen = find_colour(image, label)
        if seen is not None:
            assert label in boxes, f"object {label} is seen and has no box"
            torch.testing.assert_close(boxes[label], seen, rtol=0, atol=tolerance)
        elif label in boxes:  # a sliver that the scaling has blurred away
            sides = boxes[label][2:] - boxes[label][:2]
            assert sides.min() <= 1, f"object {label} has a box and is not seen"


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "longer_side", "expected"),
    [
        ((375, 500), 512, (384, 512)),
        ((500, 375), 512, (512, 384)),
        ((333, 500), 256, (170, 256)),  # 170.496
        ((335, 500), 256, (172, 256)),  # 171.52
        ((500, 500), 128, (128, 128)),
        ((10, 10_000), 512, (1, 512)),  # 0.512
        ((1, 10_000), 512, (1, 512)),  # 0.0512
        ((1, 1), 512, (512, 512)),
    ],
)
def test_the_longer_side_becomes_the_size_and_the_other_follows(
    size: tuple[int, int], longer_side: int, expected: tuple[int, int]
) -> None:
    assert fit_size(size, longer_side) == expected
    assert fit_size(expected, longer_side) == expected
    target = target_of(torch.empty(0, 4))
    image = torch.zeros(3, *size, dtype=torch.uint8)
    assert picture_size(EvalTransform(longer_side)(image, target)[0]) == expected
    assert picture_size(EvalTransform(longer_side).image(image)) == expected
    for seed in range(3):
        torch.manual_seed(seed)
        transformed, _ = TrainTransform(longer_side, scale=(0.5, 2))(image, target)
        assert picture_size(transformed) == expected


def test_boxes_are_scaled_on_each_axis_as_torchvision_does() -> None:
    boxes = torch.tensor([[0, 0, 10, 20], [3, 5, 500, 333.0]])
    expected = torch.tensor([[0, 0, 5.12, 20 * 170 / 333], [1.536, 5 * 170 / 333, 256, 170]])
    scaled = scale_boxes(boxes, (333, 500), (170, 256))
    torch.testing.assert_close(scaled, expected)
    theirs = BoundingBoxes(boxes, format="XYXY", canvas_size=(333, 500))
    torch.testing.assert_close(scaled, F.resize(theirs, [170, 256]).as_subclass(Tensor))
    torch.testing.assert_close(scale_boxes(scaled, (170, 256), (333, 500)), boxes)


def test_normalised_pixels_are_as_computed_by_hand() -> None:
    image = torch.tensor([[[0, 255]], [[0, 255]], [[0, 255]]], dtype=torch.uint8)
    expected = torch.tensor(
        [
            [[-0.485 / 0.229, 0.515 / 0.229]],
            [[-0.456 / 0.224, 0.544 / 0.224]],
            [[-0.406 / 0.225, 0.594 / 0.225]],
        ]
    )
    torch.testing.assert_close(normalise(image), expected)


# --- boxes stay on their objects ------------------------------------------------------------------


@pytest.mark.parametrize("image_size", [100, 200, 333])
def test_evaluation_scales_boxes_with_the_picture_and_draws_nothing(image_size: int) -> None:
    image, target = six_objects()
    before = torch.get_rng_state()
    transformed, moved = EvalTransform(image_size)(image, target)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(EvalTransform(image_size).image(image), transformed)
    assert len(moved["boxes"]) == 6
    assert_boxes_on_colours(colours_of(transformed), moved, tolerance=0.75)


def test_a_mirror_image_has_its_boxes_mirrored_as_torchvision_does() -> None:
    image, target = six_objects()
    mirrored, moved = flip(image, target)
    assert_boxes_on_colours(mirrored, moved, tolerance=0)
    theirs = BoundingBoxes(target["boxes"], format="XYXY", canvas_size=picture_size(image))
    assert torch.equal(moved["boxes"], F.horizontal_flip(theirs).as_subclass(Tensor))
    back, restored = flip(mirrored, moved)
    assert torch.equal(back, image)
    assert torch.equal(restored["boxes"], target["boxes"])


@pytest.mark.parametrize("longer_side", [57, 200, 311])
def test_resizing_moves_boxes_with_the_picture(longer_side: int) -> None:
    resized, moved = resize(*six_objects(), longer_side)
    assert resized.dtype == torch.uint8
    assert picture_size(resized) == fit_size((120, 200), longer_side)
    assert_boxes_on_colours(resized, moved, tolerance=0.75)


@pytest.mark.parametrize("canvas", [(60, 90), (150, 260), (80, 240), (200, 130), (120, 200)])
def test_cropping_and_padding_are_those_of_torchvision_at_the_drawn_corner(
    canvas: tuple[int, int],
) -> None:
    """Red and green count rows and columns, so one pixel tells where the picture was cut."""
    height, width = 120, 200
    image = torch.full((3, height, width), 255, dtype=torch.uint8)
    image[0] = torch.arange(height)[:, None]
    image[1] = torch.arange(width)
    _, target = six_objects()
    for seed in SEEDS:
        torch.manual_seed(seed)
        placed, moved = place(image, target, canvas)
        assert placed.dtype == torch.uint8
        assert picture_size(placed) == canvas
        y, x = (placed[2] == 255).nonzero()[0].tolist()  # the first pixel of the picture
        corner = int(placed[0, y, x]) - y, int(placed[1, y, x]) - x
        inside = placed[2] == 255
        assert torch.equal(placed[:, inside], F.crop(image, *corner, *canvas)[:, inside])
        assert int(inside.sum()) == min(height, canvas[0]) * min(width, canvas[1])
        mean = torch.tensor([124, 116, 104], dtype=torch.uint8)
        assert bool((placed[:, ~inside] == mean[:, None]).all())

        theirs = BoundingBoxes(target["boxes"], format="XYXY", canvas_size=(height, width))
        cut = F.crop(theirs, *corner, *canvas).as_subclass(Tensor)
        left = ((cut[:, 2:] - cut[:, :2]) > 0).all(dim=1)
        assert torch.equal(moved["boxes"], cut[left])
        assert torch.equal(moved["labels"], target["labels"][left])


def test_every_place_is_drawn_and_none_beyond() -> None:
    image = torch.zeros(3, 4, 10, dtype=torch.uint8)
    image[0] = torch.arange(4)[:, None]
    image[1] = torch.arange(10)
    target = target_of(torch.tensor([[0, 0, 10, 4.0]]))
    padded, cropped = set(), set()
    for seed in range(100):
        torch.manual_seed(seed)
        _, moved = place(image, target, (6, 13))
        padded.add(tuple(moved["boxes"][0, :2].tolist()))
        shown, _ = place(image, target, (2, 7))
        cropped.add(tuple(shown[:2, 0, 0].tolist()))
    assert padded == {(x, y) for x in range(4) for y in range(3)}
    assert cropped == {(y, x) for x in range(4) for y in range(3)}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("image_size", [96, 200, 256])
def test_training_keeps_each_box_on_its_object(seed: int, image_size: int) -> None:
    torch.manual_seed(seed)
    transform = TrainTransform(image_size, scale=(0.6, 1.7), colour=False)
    transformed, moved = transform(*six_objects())
    assert_boxes_on_colours(colours_of(transformed), moved, tolerance=0.75)
    height, width = picture_size(transformed)
    x1, y1, x2, y2 = moved["boxes"].unbind(1)
    assert bool(((x1 >= 0) & (x1 < x2) & (x2 <= width)).all())
    assert bool(((y1 >= 0) & (y1 < y2) & (y2 <= height)).all())


@pytest.mark.parametrize("seed", SEEDS)
def test_colours_change_and_the_box_stays_on_its_object(seed: int) -> None:
    """White on black stays the brighter of the two; without padding there is no third colour."""
    image = torch.zeros(3, 120, 200, dtype=torch.uint8)
    image[:, 30:90, 50:150] = 255
    torch.manual_seed(seed)
    transform = TrainTransform(150, scale=(1, 1.3))
    transformed, moved = transform(image, target_of(torch.tensor([[50, 30, 150, 90.0]])))
    shade = transformed.sum(0)
    seen = find(shade > (shade.min() + shade.max()) / 2)
    torch.testing.assert_close(moved["boxes"][0], seen, rtol=0, atol=1)
    colours = colours_of(transformed)
    assert bool(((colours >= -0.01) & (colours <= 255.01)).all())


# --- what is drawn --------------------------------------------------------------------------------


def draws(transform: Callable, image: Tensor, target: dict, number: int = 300) -> list[tuple]:
    torch.manual_seed(0)
    return [transform(image, target) for _ in range(number)]


def test_the_factor_is_even_in_its_logarithm() -> None:
    """Half of the factors are below 1; were they even themselves, a third would be."""
    image = torch.zeros(3, 60, 60, dtype=torch.uint8)
    target = target_of(torch.tensor([[0, 0, 60, 60.0]]))
    transform = TrainTransform(60, flip=0, scale=(0.5, 2), colour=False)
    samples = draws(transform, image, target)
    widths = torch.cat([moved["boxes"][:, 2] - moved["boxes"][:, 0] for _, moved in samples])
    assert 0.42 < float((widths < 60).float().mean()) < 0.58
    assert 30 <= float(widths.min()) < 32
    visible = torch.tensor([float(moved["difficult"].any()) for _, moved in samples])
    # Of the whole picture a crop shows 1/factor²: less than MIN_VISIBLE from 1.826 to 2.
    assert 0.02 < float(visible.mean()) < 0.13


@pytest.mark.parametrize(("probability", "low", "high"), [(0, 0, 0), (1, 1, 1), (0.5, 0.4, 0.6)])
def test_so_many_are_mirrored(probability: float, low: float, high: float) -> None:
    image = torch.zeros(3, 20, 60, dtype=torch.uint8)
    target = target_of(torch.tensor([[0, 0, 20, 20.0]]))
    transform = TrainTransform(60, flip=probability, scale=(1, 1), colour=False)
    mirrored = [moved["boxes"][0, 0] == 40 for _, moved in draws(transform, image, target)]
    assert low <= sum(mirrored) / len(mirrored) <= high


def test_colours_are_drawn_only_where_asked() -> None:
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    image[0] = 200
    target = target_of(torch.empty(0, 4))
    plain = draws(TrainTransform(8, scale=(1, 1)), image, target, 20)
    assert all(torch.equal(transformed, normalise(image)) for transformed, _ in plain)
    coloured = draws(TrainTransform(8, scale=(1, 1), colour=True), image, target, 20)
    assert len({tuple(transformed[:, 0, 0].tolist()) for transformed, _ in coloured}) > 10


def test_equal_seeds_give_equal_samples() -> None:
    image, target = six_objects()
    transform = TrainTransform(128, colour=True)
    samples = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        samples.append(transform(image, target))
    first, other, again = samples
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1]["boxes"], again[1]["boxes"])
    assert not torch.equal(first[0], other[0])


# --- what becomes of the objects ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "was_difficult", "is_difficult"),
    [(29, False, True), (31, False, False), (31, True, True), (100, False, False)],
)
def test_too_little_of_an_object_is_difficult(
    columns: int, was_difficult: bool, is_difficult: bool
) -> None:
    """The object is the whole picture, so every crop of 31 of 100 columns shows 31 % of it."""
    assert MIN_VISIBLE == 0.3
    image = torch.zeros(3, 4, 100, dtype=torch.uint8)
    target = target_of(torch.tensor([[0, 0, 100, 4.0]]), difficult=torch.tensor([was_difficult]))
    for seed in range(10):
        torch.manual_seed(seed)
        _, moved = place(image, target, (4, columns))
        assert moved["boxes"].tolist() == [[0, 0, columns, 4]]
        assert moved["difficult"].tolist() == [is_difficult]


def test_difficult_stays_with_its_object_when_others_are_cut_away() -> None:
    image, target = six_objects()
    target["difficult"] = torch.tensor([False, True, False, True, False, True])
    gone = 0
    for seed in SEEDS:
        torch.manual_seed(seed)
        _, moved = place(image, target, (60, 90))
        shares = {}
        for label, box, difficult in zip(
            moved["labels"].tolist(), moved["boxes"], moved["difficult"].tolist(), strict=True
        ):
            whole = target["boxes"][label]
            shares[label] = float((box[2:] - box[:2]).prod() / (whole[2:] - whole[:2]).prod())
            assert difficult == (label % 2 == 1 or shares[label] < MIN_VISIBLE)
        gone += 6 - len(shares)
    assert gone > 0


@pytest.mark.parametrize("transform", [EvalTransform(64), TrainTransform(64, colour=True)])
def test_nothing_is_changed_in_place_and_other_entries_go_along(transform: Callable) -> None:
    image, target = six_objects()
    kept_image, kept = six_objects()
    for seed in range(5):
        torch.manual_seed(seed)
        _, moved = transform(image, target)
        assert moved["image_id"] == "a"
    assert torch.equal(image, kept_image)
    assert all(torch.equal(target[k], kept[k]) for k in ("boxes", "labels", "difficult"))


@pytest.mark.parametrize("transform", [EvalTransform(64), TrainTransform(64, colour=True)])
@pytest.mark.parametrize("size", [(1, 1), (10, 1000), (1000, 10)])
def test_a_picture_without_objects_of_any_shape_passes(
    transform: Callable, size: tuple[int, int]
) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        image = torch.randint(256, (3, *size), dtype=torch.uint8)
        transformed, moved = transform(image, target_of(torch.empty(0, 4)))
        assert transformed.dtype == torch.float32
        assert bool(transformed.isfinite().all())
        assert moved["boxes"].shape == (0, 4)
        assert moved["labels"].shape == moved["difficult"].shape == (0,)
