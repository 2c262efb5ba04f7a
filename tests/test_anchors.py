"""anchors: counted and placed by hand, and torchvision's generator with its conventions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator as TorchvisionAnchors
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_convert, box_iou

from retinanet_edu.anchors import AnchorGenerator

pytestmark = pytest.mark.filterwarnings("error")

# Square, wide, high, odd, tiny; most of them no multiples of 128 or even of 8.
SIZES = [(512, 512), (256, 384), (200, 333), (137, 251), (65, 190), (1, 1), (7, 9), (129, 128)]
LIKE_TORCHVISION = {"offset": 0, "rounded": True, "stride_from_grid": True}
THIRD = 2 ** (1 / 3)


def grids_by_halving(size: tuple[int, int]) -> list[tuple[int, int]]:
    """What convolutions of stride 2 leave of an image: C1 to C5, P6, P7, without C1 and C2."""
    grids = [size]
    for _ in range(7):
        grids.append(tuple(side // 2 + side % 2 for side in grids[-1]))
    return grids[3:]


def of_torchvision(
    size: tuple[int, int], sizes: Sequence[Sequence[int]], ratios: Sequence[float]
) -> Tensor:
    generator = TorchvisionAnchors(
        tuple(tuple(level) for level in sizes), (tuple(ratios),) * len(sizes)
    )
    features = [torch.zeros(1, 1, *grid) for grid in grids_by_halving(size)]
    return generator(ImageList(torch.zeros(1, 3, *size), [size]), features)[0]


def centres(anchors: Tensor) -> Tensor:
    return (anchors[:, :2] + anchors[:, 2:]) / 2


# --- count and order ------------------------------------------------------------------------------


def test_an_image_of_512_has_49104_anchors() -> None:
    anchors = AnchorGenerator()((512, 512))
    assert anchors.shape == (49_104, 4)
    assert anchors.dtype == torch.float32
    assert AnchorGenerator().anchors_per_cell == 9


def test_grids_by_hand_where_128_does_not_divide_the_image() -> None:
    grids = AnchorGenerator().grid_sizes((800, 1344))
    assert grids == [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)]
    assert AnchorGenerator().grid_sizes((137, 251)) == [(18, 32), (9, 16), (5, 8), (3, 4), (2, 2)]
    assert AnchorGenerator().grid_sizes((1, 129)) == [(1, 17), (1, 9), (1, 5), (1, 3), (1, 2)]


@pytest.mark.parametrize("size", SIZES)
def test_grids_are_what_convolutions_of_stride_2_leave(size: tuple[int, int]) -> None:
    generator = AnchorGenerator()
    grids = grids_by_halving(size)
    assert generator.grid_sizes(size) == grids
    assert len(generator(size)) == 9 * sum(rows * columns for rows, columns in grids)


def test_order_is_level_row_column_ratio_scale() -> None:
    """Each anchor from five loops in the order that the conventions name."""
    size = (40, 24)
    expected = []
    for side, stride in zip((32, 64, 128, 256, 512), (8, 16, 32, 64, 128), strict=True):
        for row in range(math.ceil(size[0] / stride)):
            for column in range(math.ceil(size[1] / stride)):
                for ratio in (0.5, 1, 2):
                    for scale in (1, THIRD, THIRD**2):
                        width = side * scale / math.sqrt(ratio)
                        height = side * scale * math.sqrt(ratio)
                        x, y = (column + 0.5) * stride, (row + 0.5) * stride
                        expected.append(
                            [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
                        )
    assert len(expected) == 9 * (15 + 6 + 2 + 1 + 1)
    torch.testing.assert_close(
        AnchorGenerator()(size), torch.tensor(expected), rtol=1e-5, atol=1e-4
    )


def test_the_first_anchors_by_hand() -> None:
    anchors = AnchorGenerator()((128, 128))
    wide, square, high = anchors[0], anchors[3], anchors[6]
    assert square.tolist() == [4 - 16, 4 - 16, 4 + 16, 4 + 16]
    a, b = 16 * math.sqrt(2), 16 / math.sqrt(2)
    torch.testing.assert_close(wide, torch.tensor([4 - a, 4 - b, 4 + a, 4 + b]))
    torch.testing.assert_close(high, torch.tensor([4 - b, 4 - a, 4 + b, 4 + a]))
    # The next cell is to the right, the next row is 16 cells on, the next level after 16 rows.
    assert anchors[9 + 3].tolist() == [12 - 16, 4 - 16, 12 + 16, 4 + 16]
    assert anchors[9 * 16 + 3].tolist() == [4 - 16, 12 - 16, 4 + 16, 12 + 16]
    assert anchors[9 * 256 + 3].tolist() == [8 - 32, 8 - 32, 8 + 32, 8 + 32]
    assert anchors[-9 + 3].tolist() == [64 - 256, 64 - 256, 64 + 256, 64 + 256]


# --- shape and place ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(128, 128), (137, 251)])
def test_areas_are_kept_and_ratios_are_height_over_width(size: tuple[int, int]) -> None:
    generator = AnchorGenerator()
    anchors = generator(size).double()
    counts = [9 * rows * columns for rows, columns in generator.grid_sizes(size)]
    for level, side in zip(anchors.split(counts), (32, 64, 128, 256, 512), strict=True):
        width, height = (level[:, 2:] - level[:, :2]).view(-1, 3, 3, 2).unbind(dim=-1)
        areas = torch.tensor([(side * scale) ** 2 for scale in (1, THIRD, THIRD**2)]).double()
        torch.testing.assert_close(width * height, areas.expand_as(width), rtol=1e-5, atol=0)
        ratios = torch.tensor([0.5, 1, 2]).double()[:, None]
        torch.testing.assert_close(height / width, ratios.expand_as(width), rtol=1e-5, atol=0)


def test_centres_are_those_of_the_cells_and_lie_in_any_image_that_128_divides() -> None:
    anchors = AnchorGenerator()((256, 384))
    centre = centres(anchors)
    torch.testing.assert_close(centre, centre[::9].repeat_interleave(9, dim=0), rtol=0, atol=1e-4)
    assert centre.min() > 3.9
    assert centre[:, 0].max() < 384
    assert centre[:, 1].max() < 256
    # Centred in the image as a whole: mirrored, each level is itself.
    for level in anchors.split([9 * r * c for r, c in AnchorGenerator().grid_sizes((256, 384))]):
        mirrored = torch.tensor([384, 256]) - centres(level)
        torch.testing.assert_close(mirrored.flip(0), centres(level), rtol=0, atol=1e-3)


def test_strides_do_not_depend_on_the_image() -> None:
    small, large = AnchorGenerator()((128, 128)), AnchorGenerator()((800, 1344))
    # The first row of P3: as long as it is, it is the same.
    assert torch.equal(small[: 9 * 16], large[: 9 * 16])


def test_arguments_by_hand() -> None:
    generator = AnchorGenerator([20], [1, 3], [4], [10], offset=0)
    assert generator.anchors_per_cell == 2
    assert generator((11, 10)).tolist() == [
        [-5, -20, 5, 20],
        [-15, -60, 15, 60],
        [-5, -10, 5, 30],
        [-15, -50, 15, 70],
    ]
    assert generator.cell_anchors(10).tolist() == [[-2.5, -10, 2.5, 10], [-7.5, -30, 7.5, 30]]
    quarter = AnchorGenerator([20], [1], [1], [10], offset=0.25)
    assert quarter((10, 20)).tolist() == [[-7.5, -7.5, 12.5, 12.5], [2.5, -7.5, 22.5, 12.5]]


def test_settings_make_an_equal_generator() -> None:
    settings = {
        "sizes": (24.0, 48.0),
        "scales": (1.0, 1.5),
        "ratios": (0.4, 1.0, 2.5),
        "strides": (8, 16),
        "offset": 0.25,
        "rounded": True,
        "stride_from_grid": True,
    }
    generator = AnchorGenerator(**settings)
    assert generator.settings == settings
    assert torch.equal(AnchorGenerator(**generator.settings)((50, 70)), generator((50, 70)))


# --- torchvision ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*SIZES, (800, 1344)])
@pytest.mark.parametrize("ratios", [(0.5, 1.0, 2.0), (1.0,), (1 / 3, 3.0)])
def test_with_its_conventions_anchors_are_torchvisions_bit_for_bit(
    size: tuple[int, int], ratios: tuple[float, ...]
) -> None:
    sizes = [[int(x), int(x * THIRD), int(x * THIRD**2)] for x in (32, 64, 128, 256, 512)]
    assert sizes[2] == [128, 161, 203]
    ours = AnchorGenerator(ratios=ratios, **LIKE_TORCHVISION)(size)
    assert torch.equal(ours, of_torchvision(size, sizes, ratios))


def test_each_of_torchvisions_conventions_matters_where_it_should() -> None:
    size = (800, 1344)
    everything = AnchorGenerator(**LIKE_TORCHVISION)(size)
    for name, without in (("offset", 0.5), ("rounded", False), ("stride_from_grid", False)):
        assert not torch.equal(
            AnchorGenerator(**{**LIKE_TORCHVISION, name: without})(size), everything
        )
    # 128 divides the image: there the stride from the grid is the stride.
    assert torch.equal(
        AnchorGenerator(stride_from_grid=True)((256, 384)), AnchorGenerator()((256, 384))
    )


def test_stride_from_grid_at_800_by_1344_by_hand() -> None:
    generator = AnchorGenerator(offset=0, stride_from_grid=True)
    *_, p6, p7 = generator((800, 1344)).split(
        [9 * rows * columns for rows, columns in generator.grid_sizes((800, 1344))]
    )
    steps = []
    for level, columns in ((p6, 21), (p7, 11)):
        centre = centres(level)[3::9].view(-1, columns, 2)
        across = (centre[0, 1] - centre[0, 0])[0].item()
        down = (centre[1, 0] - centre[0, 0])[1].item()
        steps.append((down, across))
    assert steps == [(61, 64), (114, 122)]


def test_rounding_costs_up_to_4_percent_of_overlap_on_p3() -> None:
    exact, rounded = AnchorGenerator(), AnchorGenerator(rounded=True)
    overlaps = [
        box_iou(exact.cell_anchors(size), rounded.cell_anchors(size)).diagonal().min().item()
        for size in (32, 512)
    ]
    assert overlaps[0] == pytest.approx(0.957, abs=5e-4)
    assert overlaps[1] > 0.99
    # 32 · 2^⅔ = 50.797 is cut to 50 and √½ · 50 / 2 = 17.68 is rounded: 18 and 35.
    assert rounded.cell_anchors(32)[2].tolist() == [-35, -18, 35, 18]


# --- the cache ------------------------------------------------------------------------------------


def test_the_same_image_size_gives_the_same_tensor_and_another_size_its_own() -> None:
    generator = AnchorGenerator()
    first = generator((64, 96))
    assert generator((64, 96)) is first
    assert generator(torch.Size([64, 96])) is first
    assert not torch.equal(generator((96, 64)), first)
    assert len(generator((96, 64))) == len(first)
    assert generator((64, 96)) is first


def test_the_cache_is_bounded_and_what_left_it_comes_back_equal() -> None:
    generator = AnchorGenerator()
    first = generator((8, 8))
    for side in range(9, 109):
        assert len(generator((side, side))) == 9 * sum(
            math.ceil(side / stride) ** 2 for stride in (8, 16, 32, 64, 128)
        )
    assert len(generator._cache) <= 16
    again = generator((8, 8))
    assert again is not first
    assert torch.equal(again, first)


def test_generators_do_not_share_their_cache() -> None:
    assert not torch.equal(AnchorGenerator()((64, 64)), AnchorGenerator(offset=0)((64, 64)))


def test_devices_do_not_share_their_cache() -> None:
    generator = AnchorGenerator()
    here = generator((64, 64))
    elsewhere = generator((64, 64), device="meta")
    assert elsewhere.device.type == "meta"
    assert elsewhere.shape == here.shape
    assert generator((64, 64), torch.device("cpu")) is here


def test_anchors_made_in_inference_mode_serve_a_gradient_later() -> None:
    generator = AnchorGenerator()
    with torch.inference_mode():
        anchors = generator((64, 64))
        assert generator((64, 64)) is anchors
    assert not anchors.is_inference()
    shift = torch.zeros(4, requires_grad=True)
    ((generator((64, 64)) + shift) * generator((64, 64))).sum().backward()  # saves the anchors
    torch.testing.assert_close(shift.grad, anchors.sum(dim=0))
    assert not anchors.requires_grad


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sizes", "scales", "ratios", "strides"])
@pytest.mark.parametrize("wrong", [(), (0,), (-1,)])
def test_numbers_that_are_not_positive_are_refused(name: str, wrong: tuple[float, ...]) -> None:
    numbers = {"sizes": (32,), "scales": (1,), "ratios": (1,), "strides": (8,)}
    both = ("sizes", "strides") if name in ("sizes", "strides") and not wrong else (name,)
    with pytest.raises(ValueError, match="at least one each, positive"):
        AnchorGenerator(**{**numbers, **dict.fromkeys(both, wrong)})


def test_one_size_a_level_or_an_error_that_says_so() -> None:
    with pytest.raises(ValueError, match="2 anchor sizes for 5 strides"):
        AnchorGenerator(sizes=[32, 64])


@pytest.mark.parametrize("ratio", [0.2, 0.5, 1, 3])
def test_a_box_of_an_anchors_shape_overlaps_it_wholly(ratio: float) -> None:
    """Corners, not centre and sides: read as corners, the anchor covers its own box."""
    generator = AnchorGenerator([40], [1], [ratio], [16])
    width, height = 40 / math.sqrt(ratio), 40 * math.sqrt(ratio)
    box = box_convert(torch.tensor([[24.0, 8, width, height]]), "cxcywh", "xyxy")
    iou = box_iou(generator((32, 48)), box)[:, 0]
    assert iou.argmax() == 1  # first row, second column
    assert iou[1].item() == pytest.approx(1, abs=1e-5)
