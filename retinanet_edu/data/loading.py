"""Loading: batches whose every random draw depends on (seed, epoch, index) alone.

So a run that is resumed sees what it would have seen, with any number of workers.
"""

from __future__ import annotations

import math
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

# The stride of C5: a map of the top-down path is then exactly twice as large as the one above it.
# More, up to the coarsest stride, would only be more padding to compute on.
PAD_MULTIPLE = 32


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
    """Images of several sizes as one tensor, padded at the right and below.

    The padding is 0, the mean colour after normalisation. Boxes stay where they are.

    Args:
        images: B tensors (3, H_i, W_i), at least one.
        multiple: in pixels.

    Returns:
        (B, 3, H, W), where H and W are the least multiples that hold all images.
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
        dataset: gives (uint8 image (3, H, W), target) for an index, see `retinanet_edu.data`.
        transform: of image and target; draws from torch's global generator, if at all.
        seed: of the run.

    Law:
        Equal (seed, epoch, index) give equal samples, whatever was drawn before, and the global
        generator is left as it was.
    """

    def __init__(self, dataset: Any, transform: Callable, seed: int = 0) -> None:
        self.dataset = dataset
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, dict, dict]:
        """The transformed image and target, and the target as it was."""
        epoch, index = key
        image, target = self.dataset[index]
        classes = getattr(self.dataset, "classes", None)
        original = complete(image, target, index, None if classes is None else len(classes))
        sequence = np.random.SeedSequence([self.seed, epoch, index])
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
            return *self.transform(image, original), original


def complete(image: Tensor, target: dict, index: int, num_classes: int | None = None) -> dict:
    """A target checked, with all entries that one's own dataset may leave out.

    Args:
        image: to which it belongs, as the dataset gives it.
        target: `boxes`, `labels` and, where there are any, `difficult` and `image_id`; tensors,
            arrays or lists.
        index: names the image for want of an `image_id`.
        num_classes: K, where it is known.

    Returns:
        the target with `boxes` (M, 4) float32, `labels` (M,) int64, `difficult` (M,) bool,
        `image_id` a string and `size` (H, W).

    Raises:
        DataError: the image is not uint8 (3, H, W), the entries are not one an object, a box is
            empty, inverted, not finite or outside of the image, or a label is not in 0…K−1. The
            message names the image.
    """
    name = f"image {target.get('image_id', index)}"
    if not isinstance(image, Tensor):
        raise DataError(f"{name}: a picture must be a tensor, got {type(image)}")
    if image.dtype != torch.uint8 or image.ndim != 3 or len(image) != 3:
        raise DataError(
            f"{name}: a picture must be uint8 (3, H, W), got {image.dtype} {tuple(image.shape)}"
        )
    boxes = torch.as_tensor(target["boxes"], dtype=torch.float32)
    if boxes.numel() == 0:
        boxes = boxes.reshape(0, 4)  # an empty list has no second axis
    labels = torch.as_tensor(target["labels"], dtype=torch.int64)
    difficult = torch.as_tensor(target.get("difficult", [False] * len(boxes)), dtype=torch.bool)
    if boxes.shape != (len(boxes), 4) or not labels.shape == difficult.shape == boxes.shape[:1]:
        raise DataError(
            f"{name}: boxes, labels and difficult must be (M, 4), (M,) and (M,) of M objects, got "
            f"{tuple(boxes.shape)}, {tuple(labels.shape)} and {tuple(difficult.shape)}"
        )
    height, width = picture_size(image)
    for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
        x1, y1, x2, y2 = box
        if not (x1 < x2 and y1 < y2 and all(map(math.isfinite, box))):
            raise DataError(
                f"{name}: the box {box} is empty, inverted or not a number; boxes are x1 y1 x2 y2 "
                "in pixels with x1 < x2 and y1 < y2"
            )
        if min(x1, y1) < -1 or x2 > width + 1 or y2 > height + 1:  # one pixel is rounding
            raise DataError(
                f"{name}: the box {box} reaches outside of the picture of {width} × {height} "
                "pixels; boxes are in pixels of the picture as the dataset gives it"
            )
        if label < 0 or (num_classes is not None and label >= num_classes):
            raise DataError(
                f"{name}: label {label}, but labels are 0…K−1 without a background class"
                + ("" if num_classes is None else f", and there are K = {num_classes} classes")
            )
    return target | {
        "boxes": boxes,
        "labels": labels,
        "difficult": difficult,
        "image_id": str(target.get("image_id", index)),
        "size": (height, width),
    }


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) keys, shuffled anew each epoch from (seed, epoch).

    Of several processes each takes every `world_size`-th sample of the same order, and the order
    is wrapped so that all take equally many. Call `set_epoch` before each epoch.

    Where samples are of several groups, such as wide and high pictures, a batch is of one group,
    but for what is left over of each: less padding than a mixture needs.

    Args:
        length: of the dataset.
        batch_size: images a batch of this process; the last of an epoch may have fewer.
        seed: of the run.
        shuffle: else the order is that of the dataset, group by group.
        rank, world_size: this process, and how many there are.
        groups: a number a sample; None where all belong together.

    Law:
        Over all ranks an epoch has every sample, and fewer than `world_size` repeats.
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
        groups: Sequence[int] | None = None,
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self.groups = np.asarray([0] * length if groups is None else groups)
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
        random = np.random.default_rng([self.seed, self.epoch])
        if self.shuffle:
            order = random.permutation(self.length)
        order = np.resize(order, self._per_process * self.world_size)
        size = self.batch_size * self.world_size
        groups, batches, rest = np.unique(self.groups), [], order[:0]
        for group in groups:
            members = order[self.groups[order] == group]
            whole = len(members) // size * size
            batches += [members[i : i + size] for i in range(0, whole, size)]
            rest = np.append(rest, members[whole:])
        batches += [rest[i : i + size] for i in range(0, len(rest), size)]
        if self.shuffle and len(groups) > 1:  # else one group would come after the other
            batches = [batches[i] for i in random.permutation(len(batches))]
        for batch in batches:
            yield [(self.epoch, int(i)) for i in batch[self.rank :: self.world_size]]


def shape_groups(data: Any) -> list[int] | None:
    """Which pictures are higher than wide, for `EpochBatches`.

    Args:
        data: a dataset; it is asked for `sizes`, (H, W) of each picture.

    Returns:
        0 or 1 for each picture, or None where the dataset does not know.
    """
    sizes = getattr(data, "sizes", None)
    return None if sizes is None else [int(height > width) for height, width in sizes]


def make_loader(
    dataset: Any,
    transform: Callable,
    batches: EpochBatches,
    *,
    workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader:
    """A DataLoader of `Batch` over the keys that `batches` draws.

    Args:
        dataset: see `retinanet_edu.data`.
        transform: of image and target, such as `TrainTransform`.
        batches: which samples; its seed is that of the transform too.
        workers: processes that load; 0 for none.
        pin_memory: for quicker copies to a GPU.

    Returns:
        a loader; each pass over it is an epoch.

    Law:
        The batches do not depend on `workers`.
    """
    return DataLoader(
        SeededDataset(dataset, transform, batches.seed),
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # or each epoch would draw from the global one
    )
