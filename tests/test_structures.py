"""structures: what padding adds, what it keeps, and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from retinanet_edu.structures import Detections, Predictions, Targets

pytestmark = pytest.mark.filterwarnings("error")

A, B, C = [1.0, 2, 3, 4], [5.0, 6, 7, 8], [0.5, 0.25, 9, 10]
NO_BOXES, NO_LABELS = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)


def test_padding_by_hand() -> None:
    targets = Targets.from_list(
        [torch.tensor([A, B]), NO_BOXES, torch.tensor([C])],
        [torch.tensor([4, 0]), NO_LABELS, torch.tensor([2])],
        [torch.tensor([False, True]), torch.zeros(0, dtype=torch.bool), torch.tensor([True])],
    )
    zero = [0.0] * 4
    assert targets.boxes.tolist() == [[A, B], [zero, zero], [C, zero]]
    assert targets.labels.tolist() == [[4, 0], [0, 0], [2, 0]]
    assert targets.difficult.tolist() == [[False, True], [False, False], [True, False]]
    assert targets.count.tolist() == [2, 0, 1]
    assert [t.dtype for t in vars(targets).values()] == [
        *[torch.float32, torch.int64],
        *[torch.bool, torch.int64],
    ]


def test_no_object_is_difficult_unless_it_is_said() -> None:
    targets = Targets.from_list([torch.tensor([A, B])], [torch.tensor([4, 0])])
    assert targets.difficult.tolist() == [[False, False]]


@pytest.mark.parametrize("seed", range(3))
def test_law_each_image_comes_back_and_nothing_lies_beyond_its_count(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 9, (8,), generator=g).tolist()
    boxes = [torch.rand(n, 4, generator=g) for n in counts]
    labels = [torch.randint(1, 20, (n,), generator=g) for n in counts]
    difficult = [torch.rand(n, generator=g) < 0.5 for n in counts]
    targets = Targets.from_list(boxes, labels, difficult)
    assert targets.boxes.shape == (8, max(counts), 4)
    assert targets.labels.shape == targets.difficult.shape == (8, max(counts))
    assert targets.count.tolist() == counts
    for i, n in enumerate(counts):
        assert torch.equal(targets.boxes[i, :n], boxes[i])
        assert torch.equal(targets.labels[i, :n], labels[i])
        assert torch.equal(targets.difficult[i, :n], difficult[i])
        for padded in (targets.boxes, targets.labels, targets.difficult):
            assert not padded[i, n:].any()


def test_padding_overlaps_nothing() -> None:
    targets = Targets.from_list([torch.tensor([A]), NO_BOXES], [torch.tensor([3]), NO_LABELS])
    everything = torch.tensor([[-1e4, -1e4, 1e4, 1e4], A, C])
    assert (box_iou(everything, targets.boxes[1]) == 0).all()


@pytest.mark.parametrize("empty", [NO_BOXES, torch.tensor([])])
def test_batches_without_objects_and_without_images(empty: Tensor) -> None:
    targets = Targets.from_list([empty, empty], [NO_LABELS, torch.tensor([])])
    assert targets.boxes.shape == (2, 0, 4)
    assert targets.labels.shape == targets.difficult.shape == (2, 0)
    assert targets.count.tolist() == [0, 0]
    none = Targets.from_list([], [])
    assert none.boxes.shape == (0, 0, 4)
    assert none.count.shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64])
def test_boxes_become_float32_and_labels_int64(dtype: torch.dtype) -> None:
    targets = Targets.from_list(
        [torch.tensor([A, B]).to(dtype)], [torch.tensor([4, 0], dtype=torch.int32)]
    )
    assert targets.boxes.dtype == torch.float32
    assert targets.boxes.tolist() == [[A, B]]
    assert targets.labels.dtype == torch.int64
    assert targets.labels.tolist() == [[4, 0]]


def test_targets_do_not_change_with_what_they_were_made_from() -> None:
    boxes, labels = torch.tensor([A]), torch.tensor([4])
    targets = Targets.from_list([boxes], [labels])
    boxes.zero_()
    labels.zero_()
    assert targets.boxes.tolist() == [[A]]
    assert targets.labels.tolist() == [[4]]


def test_targets_go_to_another_device_whole() -> None:
    targets = Targets.from_list([torch.tensor([A, B])], [torch.tensor([4, 0])])
    moved = targets.to("meta", non_blocking=True)
    for name, tensor in vars(targets).items():
        assert getattr(moved, name).device.type == "meta"
        assert getattr(moved, name).shape == tensor.shape
        assert getattr(moved, name).dtype == tensor.dtype
        assert tensor.device.type == "cpu"
    same = moved.to("meta").boxes.shape, targets.to("cpu").boxes.tolist()
    assert same == ((1, 2, 4), [[A, B]])


def test_targets_are_made_where_their_boxes_are() -> None:
    there = torch.zeros(2, 4, device="meta")
    targets = Targets.from_list([there], [torch.zeros(2, dtype=torch.int64, device="meta")])
    assert {tensor.device.type for tensor in vars(targets).values()} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="only CUDA pins memory")
def test_pinned_targets_are_the_same() -> None:
    targets = Targets.from_list([torch.tensor([A, B])], [torch.tensor([4, 0])])
    pinned = targets.pin_memory()
    for name, tensor in vars(targets).items():
        assert getattr(pinned, name).is_pinned()
        assert torch.equal(getattr(pinned, name), tensor)


def test_targets_and_detections_cannot_be_rebound() -> None:
    targets = Targets.from_list([torch.tensor([A])], [torch.tensor([4])])
    detections = Detections(torch.tensor([A]), torch.tensor([0.5]), torch.tensor([4]))
    for value in (targets, detections):
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.boxes = torch.zeros(1, 4)


def test_predictions_unpack_in_the_documented_order() -> None:
    logits, deltas = torch.zeros(2, 9, 3), torch.zeros(2, 9, 4)
    predictions = Predictions(logits, deltas, (6, 3))
    assert predictions.class_logits is logits
    assert predictions.box_deltas is deltas
    first, second, levels = predictions
    assert (first is logits, second is deltas, levels) == (True, True, (6, 3))


def test_detections_have_a_length_and_move_whole() -> None:
    detections = Detections(torch.tensor([A, B]), torch.tensor([0.9, 0.5]), torch.tensor([4, 0]))
    assert len(detections) == 2
    assert len(Detections(NO_BOXES, torch.zeros(0), NO_LABELS)) == 0
    moved = detections.to("meta")
    for name, tensor in vars(detections).items():
        assert getattr(moved, name).device.type == "meta"
        assert getattr(moved, name).shape == tensor.shape
        assert getattr(moved, name).dtype == tensor.dtype
    assert torch.equal(detections.to("cpu").scores, torch.tensor([0.9, 0.5]))


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "difficult", "message"),
    [
        (1, 2, "image 1 of the batch has 2 boxes, 1 labels and 2 difficult flags"),
        (2, 3, "image 1 of the batch has 2 boxes, 2 labels and 3 difficult flags"),
        (0, 0, "image 1 of the batch has 2 boxes, 0 labels and 0 difficult flags"),
    ],
)
def test_an_image_whose_numbers_disagree_is_named(
    labels: int, difficult: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Targets.from_list(
            [NO_BOXES, torch.tensor([A, B])],
            [NO_LABELS, torch.zeros(labels).long()],
            [torch.zeros(0).bool(), torch.zeros(difficult).bool()],
        )


@pytest.mark.parametrize("shape", [(2, 5), (2, 1), (2,), (2, 3)])
def test_boxes_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"image 0 of the batch has boxes \({shape[0]},.*\(M, 4"):
        Targets.from_list([torch.zeros(shape)], [torch.zeros(2).long()])


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Targets.from_list([NO_BOXES, NO_BOXES], [NO_LABELS])
    with pytest.raises(ValueError, match="longer"):
        Targets.from_list([NO_BOXES], [NO_LABELS], [NO_LABELS.bool(), NO_LABELS.bool()])
