"""Loading: batches whose every random draw depends on (seed, epoch, index) alone.

So a run that is resumed sees what it would have seen, with any number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from retinanet_edu.data.transforms import picture_size
from retinanet_edu.errors import DataError
from retinanet_edu.structures import Targets

# The coarsest stride: a multiple of it makes every level's grid exact.
PAD_MULTIPLE = 128


class Batch(NamedTuple):
    """What a step needs.

    Attributes:
        images: (B, 3, H, W) float32, normalised and padded.
        targets: of the B images, in pixels of `images`.
        image_sizes: (H, W) of each before padding.
        originals: the targets before the transform, in pixels of the picture as it was read,
            with `image_id` and `size` (H, W).
    """

    images: Tensor
    targets: Targets
    image_sizes: list[tuple[int, int]]
    originals: list[dict]


def pad_images(images: Sequence[Tensor], multiple: int = PAD_MULTIPLE) -> Tensor:
    """Images (3, H_i, W_i) as one (B, 3, H, W), padded at the right and below.

    The padding is 0, the mean colour after normalisation; H and W are multiples of `multiple`.
    """
    height = max(image.shape[-2] for image in images)
    width = max(image.shape[-1] for image in images)
    height += -height % multiple
    width += -width % multiple
    return torch.stack(
        [F.pad(i, (0, width - i.shape[-1], 0, height - i.shape[-2])) for i in images]
    )


def collate(samples: Sequence[tuple[Tensor, dict, dict]]) -> Batch:
    """Samples of a `SeededDataset` as one `Batch`."""
    images, targets, originals = zip(*samples, strict=True)
    return Batch(
        pad_images(images),
        Targets.from_list(
            [t["boxes"] for t in targets],
            [t["labels"] for t in targets],
            [t["difficult"] for t in targets],
        ),
        [picture_size(image) for image in images],
        list(originals),
    )


class SeededDataset(Dataset):
    """A dataset asked by (epoch, index), whose transform draws from (seed, epoch, index).

    Args:
        dataset: gives (uint8 image (3, H, W), target) for an index.
        transform: of image and target.
        seed: of the run.
    """

    def __init__(self, dataset: Any, transform: Callable, seed: int = 0) -> None:
        self.dataset = dataset
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, dict, dict]:
        epoch, index = key
        image, target = self.dataset[index]
        original = complete(target, index) | {"size": picture_size(image)}
        sequence = np.random.SeedSequence([self.seed, epoch, index])
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
            return *self.transform(image, original), original


def complete(target: dict, index: int) -> dict:
    """A target checked, with `difficult` and `image_id`, which one's own dataset may leave out."""
    boxes = torch.as_tensor(target["boxes"], dtype=torch.float32).reshape(-1, 4)
    if not boxes.isfinite().all() or bool((boxes[:, 2:] <= boxes[:, :2]).any()):
        raise DataError(
            f"image {target.get('image_id', index)}: a box is empty, inverted or not a number: "
            f"{boxes.tolist()}; boxes are x1 y1 x2 y2 in pixels with x1 < x2 and y1 < y2"
        )
    return target | {
        "boxes": boxes,
        "labels": torch.as_tensor(target["labels"], dtype=torch.int64),
        "difficult": torch.as_tensor(
            target.get("difficult", torch.zeros(len(boxes))), dtype=torch.bool
        ),
        "image_id": str(target.get("image_id", index)),
    }


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) keys, shuffled anew each epoch from (seed, epoch).

    Of several processes each takes every `world_size`-th sample of the same order, and the order
    is wrapped so that all take equally many. Call `set_epoch` before each epoch.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self._per_process // self.batch_size)

    @property
    def _per_process(self) -> int:
        return -(-self.length // self.world_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.arange(self.length)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        wrapped = np.resize(order, self._per_process * self.world_size)
        own = wrapped[self.rank :: self.world_size]
        for start in range(0, len(own), self.batch_size):
            yield [(self.epoch, int(i)) for i in own[start : start + self.batch_size]]


def make_loader(
    dataset: Any,
    transform: Callable,
    batches: EpochBatches,
    *,
    workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader:
    """A DataLoader of `Batch` over the keys that `batches` draws."""
    return DataLoader(
        SeededDataset(dataset, transform, batches.seed),
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
    )
