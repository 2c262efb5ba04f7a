"""The embedded dataset: pictures from (seed, index) alone, boxes that lie where the objects are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.datasets import VOCDetection
from torchvision.ops import box_iou

from retinanet_edu import ShapesDataset, VOCDataset
from retinanet_edu.data import drawing
from retinanet_edu.data.drawing import MIN_SIDE, SHAPES, draw_picture
from retinanet_edu.data.shapes import write_voc
from retinanet_edu.demo import shapes_model

COUNT = 150


@pytest.fixture(scope="module")
def drawn() -> list[tuple[np.ndarray, list[drawing.Shape]]]:
    return [draw_picture(0, index) for index in range(COUNT)]


@pytest.fixture(scope="module")
def anchors() -> torch.Tensor:
    return shapes_model().anchors((128, 128))


def best_iou(anchors: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    return box_iou(anchors, boxes).amax(dim=0)


def test_a_picture_depends_on_seed_and_index_alone(drawn) -> None:
    again = [draw_picture(0, index) for index in (9, 3)]
    for (picture, found), index in zip(again, (9, 3), strict=True):
        assert np.array_equal(picture, drawn[index][0])
        assert found == drawn[index][1]
    assert not np.array_equal(draw_picture(1, 3)[0], drawn[3][0])
    torch.manual_seed(5)
    assert np.array_equal(draw_picture(0, 3)[0], drawn[3][0])


def test_splits_share_no_picture_and_orders_do_not_matter() -> None:
    train, val = ShapesDataset("train", length=4), ShapesDataset("val", length=4)
    backwards = [ShapesDataset("train", length=4)[i][0] for i in (3, 2, 1, 0)][::-1]
    pictures = [train[i][0] for i in range(4)] + [val[i][0] for i in range(4)]
    assert all(torch.equal(a, b) for a, b in zip(pictures, backwards, strict=False))
    assert len({picture.numpy().tobytes() for picture in pictures}) == 8


def test_a_sample_is_what_a_dataset_gives() -> None:
    data = ShapesDataset("val")
    image, target = data[7]
    assert image.dtype == torch.uint8
    assert image.shape == (3, 128, 128)
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].dtype == torch.int64
    assert target["difficult"].dtype == torch.bool
    assert target["image_id"] == "shapes_val_0007"
    image[:] = 0  # a caller's writing does not reach the picture that is kept
    target["boxes"][:] = 0
    assert data[7][0].any()
    assert data[7][1]["boxes"].any()
    with pytest.raises(IndexError):
        data[len(data)]
    with pytest.raises(ValueError, match="'train' or 'val'"):
        ShapesDataset("test")  # type: ignore[arg-type]


def test_boxes_are_whole_pixels_inside_and_hold_something(drawn) -> None:
    for picture, found in drawn:
        assert picture.shape == (128, 128, 3)
        for shape in found:
            x1, y1, x2, y2 = shape.box
            assert 0 <= x1 < x2 <= 128
            assert 0 <= y1 < y2 <= 128
            assert shape.name in SHAPES


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_alone_fills_its_box_exactly(name: str) -> None:
    """Painted white on black, it touches each side of its box and nothing beyond."""
    for x, y, span in ((64.0, 64.0, 60.0), (40.3, 71.9, 33.3), (10.0, 100.0, 50.0)):
        coverage, area = drawing._draw_shape(SHAPES[name], x, y, span, 0.2, 128)
        visible = coverage >= 0.5
        box = drawing._shape(name, visible, area, 128).box
        rows, columns = visible.nonzero()
        assert box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert max(box[2] - box[0], box[3] - box[1]) <= span + 2
        assert area >= visible.sum()
        inside = min(box[0], box[1]) > 0 and max(box[2], box[3]) < 128
        assert (area == visible.sum()) == inside


def test_areas_are_those_of_geometry() -> None:
    """In units of a shape's half span, from the formulas of circles and squares."""
    expected = {
        "disc": np.pi * 0.9**2,
        "ring": np.pi * (0.9**2 - 0.5**2),
        "square": 1.6**2,
        "cross": 2 * 1.8 * 0.56 - 0.56**2,
        "triangle": 1.7 * 1.48 / 2,
    }
    for name, area in expected.items():
        _, pixels = drawing._draw_shape(SHAPES[name], 64, 64, 100, 0.1, 128)
        assert pixels == pytest.approx(area * 50**2, rel=0.01), name


def test_the_smallest_object_is_what_the_models_anchors_can_match(anchors) -> None:
    """A square of MIN_SIDE reaches IoU 0.5 wherever it lies, one a pixel smaller does not."""
    y, x = torch.meshgrid(*[torch.arange(48.0, 64, 0.5)] * 2, indexing="ij")
    corner = torch.stack([x, y], dim=-1).reshape(-1, 2)
    assert best_iou(anchors, torch.cat([corner, corner + MIN_SIDE], 1)).min() >= 0.5
    assert best_iou(anchors, torch.cat([corner, corner + MIN_SIDE - 1], 1)).min() < 0.5


def test_an_anchor_reaches_every_object_that_is_not_difficult(drawn, anchors) -> None:
    boxes = [s.box for _, found in drawn for s in found if not s.difficult]
    iou = best_iou(anchors, torch.tensor(boxes, dtype=torch.float32))
    assert (iou >= 0.5).all()


def test_what_is_small_narrow_or_hidden_is_difficult() -> None:
    whole = np.zeros((128, 128), bool)
    whole[10:50, 10:50] = True

    def shape(mask: np.ndarray) -> drawing.Shape:
        return drawing._shape("square", mask, 40 * 40, 128)

    assert not shape(whole).difficult
    hidden = whole.copy()
    hidden[10:50, 10:24] = False  # 65 % is left, 40 × 26 pixels
    assert shape(hidden).difficult
    assert shape(hidden).box == (24, 10, 50, 50)
    small = np.zeros((128, 128), bool)
    small[0 : MIN_SIDE - 1, 0:30] = True
    assert drawing._shape("square", small, small.sum(), 128).difficult
    small[0:MIN_SIDE, 0:30] = True
    assert not drawing._shape("square", small, small.sum(), 128).difficult
    assert drawing._shape("square", small, small.sum(), 128).truncated
    sliver = np.zeros((128, 128), bool)
    sliver[30:52, 1:100] = True
    assert drawing._shape("square", sliver, sliver.sum(), 128).difficult
    assert not drawing._shape("square", sliver, sliver.sum(), 128).truncated


def test_the_data_is_varied(drawn) -> None:
    """All kinds, in all sizes, some difficult, some cut off, some over one another."""
    every = [shape for _, found in drawn for shape in found]
    easy = [s for s in every if not s.difficult]
    sides = [max(s.box[2] - s.box[0], s.box[3] - s.box[1]) for s in easy]
    assert min(sides) <= 24
    assert max(sides) >= 100
    assert {s.name for s in easy} == set(SHAPES)
    assert 0.05 < 1 - len(easy) / len(every) < 0.4
    assert any(s.truncated and not s.difficult for s in every)
    overlaps = [
        np.triu(box_iou(boxes, boxes).numpy(), 1).max()
        for _, found in drawn
        if len(found) > 1
        for boxes in [torch.tensor([s.box for s in found], dtype=torch.float32)]
    ]
    assert 0.2 < np.mean(np.array(overlaps) > 0.05) < 0.9
    counts = [len(found) for _, found in drawn]
    assert max(counts) == 4


def test_no_kind_is_told_by_its_colour_or_size(drawn) -> None:
    """The mean colour at the middle of the box, and the side, are the same for all kinds."""
    values: dict[str, list[np.ndarray]] = {name: [] for name in SHAPES}
    for picture, found in drawn:
        for s in found:
            if not s.difficult:
                colour = picture[s.box[1] : s.box[3], s.box[0] : s.box[2]].mean(axis=(0, 1))
                values[s.name].append(np.append(colour, s.box[2] - s.box[0]))
    means = np.array([np.mean(rows, axis=0) for rows in values.values()])
    spread = np.std(np.concatenate(list(values.values())), axis=0)
    assert (np.ptp(means, axis=0) < spread).all()


def test_written_as_a_vocdevkit_it_reads_back(tmp_path) -> None:
    write_voc(tmp_path, train=5, val=3)
    for split, count in (("train", 5), ("val", 3)):
        ours, read = ShapesDataset(split, length=count), VOCDataset(tmp_path, split=split)
        theirs = VOCDetection(str(tmp_path), year="2007", image_set=split, download=False)
        assert read.classes == tuple(n for n in sorted(SHAPES) if n in read.classes)
        assert len(read) == len(theirs) == count
        for i in range(count):
            (image, target), (picture, got) = ours[i], read[i]
            assert got["image_id"] == target["image_id"]
            assert torch.equal(got["boxes"], target["boxes"])
            assert torch.equal(got["difficult"], target["difficult"])
            names = [read.classes[k] for k in got["labels"]]
            assert names == [ours.classes[k] for k in target["labels"]]
            assert (picture.float() - image.float()).abs().mean() < 6  # what JPEG loses
            annotation = theirs[i][1]["annotation"]
            assert annotation["filename"] == f"{target['image_id']}.jpg"
            objects = annotation.get("object", [])
            assert [o["name"] for o in objects] == names
            for o, box in zip(objects, target["boxes"].int().tolist(), strict=True):
                bounds = {key: int(value) for key, value in o["bndbox"].items()}
                assert (bounds["xmin"], bounds["ymin"]) == (box[0] + 1, box[1] + 1)
                assert (bounds["xmax"], bounds["ymax"]) == (box[2], box[3])
    listed = (tmp_path / "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt").read_text().split()
    assert len(listed) == 8
