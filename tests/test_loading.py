"""loading: what a batch holds, on what a draw depends, who takes which sample."""

from __future__ import annotations

import random
from collections import Counter
from itertools import chain
from math import inf
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from retinanet_edu.data.loading import (
    PAD_MULTIPLE,
    Batch,
    EpochBatches,
    SeededDataset,
    collate,
    complete,
    make_loader,
    pad_images,
    shape_groups,
)
from retinanet_edu.data.transforms import TrainTransform
from retinanet_edu.errors import DataError


class Noise:
    """Pictures of noise in several sizes; picture i has i % 3 objects."""

    classes = ("a", "b", "c")

    def __init__(self, length: int = 10) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(256, (3, 40 + index, 60), dtype=torch.uint8, generator=generator)
        boxes = torch.tensor([[5, 5, 30, 30], [10, 20, 60, 40]][: index % 3])
        return image, {"boxes": boxes, "labels": list(range(index % 3)), "image_id": f"n{index}"}


def draw_three(image: Tensor, target: dict) -> tuple[Tensor, dict]:
    """A transform that shows what it drew."""
    return torch.rand(3, 2, 2), target


def epoch_of(workers: int, epochs: tuple[int, ...] = (0,), seed: int = 0) -> list[Batch]:
    batches = EpochBatches(10, 4, seed=seed)
    loader = make_loader(Noise(), TrainTransform(64), batches, workers=workers)
    found: list[Batch] = []
    for epoch in epochs:
        batches.set_epoch(epoch)
        found += loader
    return found


# --- padding and collation ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(128, 128)], (128, 128)),
        ([(129, 1)], (160, 32)),
        ([(100, 300), (200, 50)], (224, 320)),
        ([(1, 1), (1, 1), (1, 1)], (32, 32)),
    ],
)
def test_images_lie_at_the_top_left_of_the_least_multiples_of_32(
    sizes: list[tuple[int, int]], expected: tuple[int, int]
) -> None:
    assert PAD_MULTIPLE == 32
    images = [torch.rand(3, *size) + 1 for size in sizes]
    batch = pad_images(images)
    assert batch.shape == (len(sizes), 3, *expected)
    for padded, image, (height, width) in zip(batch, images, sizes, strict=True):
        assert torch.equal(padded[:, :height, :width], image)
        assert padded[:, height:].eq(0).all()
        assert padded[:, :, width:].eq(0).all()


def test_another_multiple() -> None:
    assert pad_images([torch.rand(3, 33, 64)], 32).shape == (1, 3, 64, 64)


def test_a_batch_pads_its_targets_and_keeps_the_originals() -> None:
    samples = []
    for n, size in ((2, (30, 50)), (0, (140, 20)), (1, (10, 10))):
        target = {
            "boxes": torch.arange(4 * n, dtype=torch.float32).reshape(n, 4),
            "labels": torch.arange(n) + 5,
            "difficult": torch.ones(n, dtype=torch.bool),
        }
        samples.append((torch.rand(3, *size), target, {"image_id": str(n), "size": size}))
    batch = collate(samples)
    assert batch.images.shape == (3, 3, 160, 64)
    assert batch.image_sizes == [(30, 50), (140, 20), (10, 10)]
    assert [original["image_id"] for original in batch.originals] == ["2", "0", "1"]
    targets = batch.targets
    assert targets.count.tolist() == [2, 0, 1]
    assert targets.boxes.tolist() == [
        [[0, 1, 2, 3], [4, 5, 6, 7]], [[0] * 4, [0] * 4], [[0, 1, 2, 3], [0] * 4],
    ]  # fmt: skip
    assert targets.labels.tolist() == [[5, 6], [0, 0], [5, 0]]
    assert targets.difficult.tolist() == [[True, True], [False, False], [True, False]]


def test_a_batch_without_any_object() -> None:
    _, target = Noise()[0]
    sample = SeededDataset(Noise(), TrainTransform(32))[0, 0]
    assert target["boxes"].numel() == 0
    batch = collate([sample, sample])
    assert batch.targets.boxes.shape == (2, 0, 4)
    assert batch.targets.count.tolist() == [0, 0]


def test_originals_are_in_pixels_of_the_picture_as_it_was() -> None:
    image, _ = Noise()[2]
    _, target, original = SeededDataset(Noise(), TrainTransform(32, scale=(0.5, 0.5)))[0, 2]
    assert original["boxes"].tolist() == [[5, 5, 30, 30], [10, 20, 60, 40]]
    assert original["size"] == tuple(image.shape[1:]) == (42, 60)
    assert original["image_id"] == target["image_id"] == "n2"
    assert target["boxes"].max() <= 32


# --- draws ----------------------------------------------------------------------------------------


def test_a_draw_depends_on_seed_epoch_and_index_and_on_nothing_else() -> None:
    keys = [(seed, epoch, index) for seed in range(3) for epoch in range(3) for index in range(3)]
    drawn = {}
    for seed, epoch, index in keys:
        drawn[seed, epoch, index] = SeededDataset(Noise(), draw_three, seed)[epoch, index][0]
    assert len({tuple(noise.flatten().tolist()) for noise in drawn.values()}) == len(keys)
    torch.manual_seed(99)
    random.seed(99)
    for seed, epoch, index in reversed(keys):
        again = SeededDataset(Noise(5), draw_three, seed)[epoch, index][0]
        assert torch.equal(again, drawn[seed, epoch, index])


def test_the_global_generators_are_left_alone() -> None:
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    random.seed(7)
    expected = torch.rand(3), np.random.rand(), random.random()  # noqa: NPY002
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    random.seed(7)
    epoch_of(workers=0, epochs=(0, 1))
    assert torch.equal(torch.rand(3), expected[0])
    assert (np.random.rand(), random.random()) == expected[1:]  # noqa: NPY002


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_change_nothing() -> None:
    """Two epochs, so that workers that live on are told of the second."""
    torch.manual_seed(1)
    alone = epoch_of(workers=0, epochs=(0, 1))
    torch.manual_seed(2)
    shared = epoch_of(workers=2, epochs=(0, 1))
    assert len(alone) == len(shared) == 6
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one.images, other.images)
        for name in ("boxes", "labels", "difficult", "count"):
            assert torch.equal(getattr(one.targets, name), getattr(other.targets, name))
        assert one.image_sizes == other.image_sizes
        assert [o["image_id"] for o in one.originals] == [o["image_id"] for o in other.originals]


def test_a_later_epoch_alone_is_what_it_would_have_been() -> None:
    """As after a resume."""
    through, resumed = epoch_of(0, (0, 1, 2))[-3:], epoch_of(0, (2,))
    for one, other in zip(through, resumed, strict=True):
        assert torch.equal(one.images, other.images)


def test_another_seed_is_another_order_with_other_draws() -> None:
    def pictures(batches: list[Batch]) -> dict[str, Tensor]:
        return {
            o["image_id"]: image
            for batch in batches
            for o, image in zip(batch.originals, batch.images, strict=True)
        }

    a, b = pictures(epoch_of(0)), pictures(epoch_of(0, seed=1))
    assert list(a) != list(b)
    assert sorted(a) == sorted(b)
    assert not any(torch.equal(a[name], b[name]) for name in a)


# --- who takes which sample -----------------------------------------------------------------------


def keys_of(length: int, batch_size: int, epoch: int = 0, **settings: Any) -> list[list[int]]:
    batches = EpochBatches(length, batch_size, **settings)
    batches.set_epoch(epoch)
    found = list(batches)
    assert len(found) == len(batches)
    assert all(key[0] == epoch for batch in found for key in batch)
    return [[index for _, index in batch] for batch in found]


def test_an_epoch_has_every_sample_once_and_the_last_batch_is_the_shorter() -> None:
    batches = keys_of(10, 4)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(chain(*batches)) == list(range(10))
    assert keys_of(5, 2, shuffle=False) == [[0, 1], [2, 3], [4]]
    assert keys_of(0, 2) == []


def test_a_batch_is_of_one_group_but_for_what_is_left_of_each() -> None:
    groups = [int(i % 3 == 0) for i in range(50)]  # 33 and 17
    for world_size in (1, 2):
        ranks = [
            keys_of(50, 4, 3, groups=groups, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        assert len({len(batches) for batches in ranks}) == 1
        assert sorted(chain(*(chain(*batches) for batches in ranks))) == list(range(50))
        together = [list(chain(*parts)) for parts in zip(*ranks, strict=True)]
        mixed = [len({groups[i] for i in batch}) == 2 for batch in together]
        # 33 = 8 · 4 + 1 and 17 = 4 · 4 + 1; of 8: 4 · 8 + 1 and 2 · 8 + 1.
        assert sum(mixed) <= 1
        kinds = [groups[batch[0]] for batch, mix in zip(together, mixed, strict=True) if not mix]
        assert kinds not in (sorted(kinds), sorted(kinds, reverse=True))  # they take turns
    assert keys_of(50, 4, 3, groups=[0] * 50) == keys_of(50, 4, 3)
    assert keys_of(5, 2, shuffle=False, groups=[0, 1, 0, 1, 0]) == [[0, 2], [1, 3], [4]]


def test_high_and_wide_pictures_are_two_groups_where_sizes_are_known() -> None:
    assert shape_groups(SimpleNamespace(sizes=[(3, 4), (4, 3), (3, 3), (inf, inf)])) == [0, 1, 0, 0]
    assert shape_groups(Noise()) is None


def test_each_epoch_and_each_seed_has_its_own_order() -> None:
    orders = {
        (seed, epoch): tuple(chain(*keys_of(20, 20, epoch, seed=seed)))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(set(orders.values())) == 9
    assert orders[1, 2] == tuple(chain(*keys_of(20, 20, 2, seed=1)))


def test_every_sample_comes_first_about_equally_often() -> None:
    first = Counter(keys_of(5, 1, epoch)[0][0] for epoch in range(500))
    assert all(60 <= first[i] <= 140 for i in range(5))  # 100 ± 4 deviations of 9


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("length", [1, 2, 9, 24])
@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_share_an_epoch_and_all_take_equally_many_steps(
    world_size: int, length: int, shuffle: bool
) -> None:
    shares = [
        keys_of(length, 2, 3, seed=5, rank=r, world_size=world_size, shuffle=shuffle)
        for r in range(world_size)
    ]
    assert len({tuple(len(batch) for batch in share) for share in shares}) == 1
    times = Counter(index for share in shares for batch in share for index in batch)
    assert set(times) == set(range(length))
    assert times.total() - length == -length % world_size
    assert max(times.values()) - min(times.values()) <= 1


def test_ranks_together_take_the_order_of_one_process() -> None:
    """So a batch of 4 on one device and of 2 on each of two devices hold the same images."""
    alone = keys_of(12, 4, 1)
    first, second = (keys_of(12, 2, 1, rank=rank, world_size=2) for rank in range(2))
    for whole, one, other in zip(alone, first, second, strict=True):
        assert set(whole) == set(one) | set(other)


# --- one's own dataset ----------------------------------------------------------------------------

IMAGE = torch.zeros(3, 40, 60, dtype=torch.uint8)


def test_what_is_left_out_is_completed() -> None:
    full = complete(IMAGE, {"boxes": [[1, 2, 30, 40]], "labels": [2], "name": "mine"}, 7)
    assert full["boxes"].dtype == torch.float32
    assert full["boxes"].tolist() == [[1, 2, 30, 40]]
    assert full["labels"].dtype == torch.int64
    assert full["difficult"].dtype == torch.bool
    assert full["difficult"].tolist() == [False]
    assert full["image_id"] == "7"
    assert full["size"] == (40, 60)
    assert full["name"] == "mine"
    arrays = {"boxes": np.ones((1, 4)) * [0, 0, 9, 9], "labels": np.array([0]), "image_id": 12}
    assert complete(IMAGE, arrays, 0)["boxes"].dtype == torch.float32
    assert complete(IMAGE, arrays, 0)["image_id"] == "12"


@pytest.mark.parametrize("nothing", [[], torch.empty(0, 4), torch.empty(0), np.zeros((0, 4))])
def test_an_image_without_objects_is_complete(nothing: Any) -> None:
    full = complete(IMAGE, {"boxes": nothing, "labels": []}, 0, num_classes=2)
    assert full["boxes"].shape == (0, 4)
    assert full["labels"].shape == full["difficult"].shape == (0,)


GOOD = (1.0, 2.0, 30.0, 40.0)


@pytest.mark.parametrize(
    ("boxes", "labels", "message"),
    [
        ([GOOD, (30, 2, 1, 40)], [0, 0], r"\[30.0, 2.0, 1.0, 40.0\] is empty, inverted"),
        ([GOOD, (1, 40, 30, 2)], [0, 0], "empty, inverted"),
        ([GOOD, (5, 5, 5, 9)], [0, 0], "empty, inverted"),
        ([GOOD, (5, 5, 9, 5)], [0, 0], "empty, inverted"),
        ([GOOD, (float("nan"), 2, 30, 40)], [0, 0], "not a number"),
        ([GOOD, (1, 2, 30, float("nan"))], [0, 0], "not a number"),
        ([GOOD, (1, 2, float("inf"), 40)], [0, 0], "not a number"),
        ([GOOD, (float("-inf"), 2, 3, 40)], [0, 0], "not a number"),
        ([GOOD, (1, 2, 62, 40)], [0, 0], r"62.0, 40.0\] reaches outside .* 60 × 40"),
        ([GOOD, (1, 2, 30, 42)], [0, 0], "outside"),
        ([GOOD, (-2, 2, 30, 40)], [0, 0], "outside"),
        ([GOOD, (1, -2, 30, 40)], [0, 0], "outside"),
        ([GOOD], [0, 0], r"\(1, 4\), \(2,\) and \(1,\)"),
        ([GOOD], 0, r"\(1, 4\), \(\)"),
        ([(*GOOD, 0.5)] * 4, [0] * 4, r"\(4, 5\)"),
        (list(GOOD), [0], r"got \(4,\)"),
        ([GOOD], [2], "label 2, .* without a background class, and there are K = 2"),
        ([GOOD], [-1], "label -1"),
    ],
)
def test_a_wrong_target_names_its_image(boxes: Any, labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^image holiday: .*{message}"):
        complete(IMAGE, {"boxes": boxes, "labels": labels, "image_id": "holiday"}, 3, 2)
    with pytest.raises(DataError, match=r"^image 3: "):
        complete(IMAGE, {"boxes": boxes, "labels": labels}, 3, 2)


def test_a_box_may_reach_one_pixel_over_the_edge() -> None:
    boxes = [[-1, -1, 61, 41]]
    assert complete(IMAGE, {"boxes": boxes, "labels": [0]}, 0)["boxes"].tolist() == boxes


def test_flags_that_are_not_one_an_object_are_refused() -> None:
    target = {"boxes": [GOOD], "labels": [0], "difficult": [True, False]}
    with pytest.raises(DataError, match=r"^image 3: .*\(2,\)"):
        complete(IMAGE, target, 3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 40, 60), r"torch.float32 \(3, 40, 60\)"),
        (torch.zeros(40, 60, 3, dtype=torch.uint8), r"\(40, 60, 3\)"),
        (torch.zeros(1, 40, 60, dtype=torch.uint8), r"\(1, 40, 60\)"),
        (np.zeros((40, 60, 3), np.uint8), "numpy"),
    ],
)
def test_a_picture_of_another_kind_names_its_image(image: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^image 3: .*{message}"):
        complete(image, {"boxes": [GOOD], "labels": [0]}, 3)


class OneBad(Noise):
    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        image, target = super().__getitem__(index)
        return image, target | ({"labels": [3] * len(target["labels"])} if index == 5 else {})


def test_a_loader_checks_targets_against_the_classes_of_its_dataset() -> None:
    loader = make_loader(OneBad(), TrainTransform(32), EpochBatches(10, 4))
    with pytest.raises(DataError, match=r"image n5: label 3, .* K = 3"):
        list(loader)
