"""What the datasets of pictures on a disk share: how boxes are kept, and how a picture is given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from retinanet_edu.data.images import read_image
from retinanet_edu.data.records.record import RecordObject
from retinanet_edu.data.voc_xml import VOCObject
from retinanet_edu.errors import DataError


class PictureDataset(torch.utils.data.Dataset):
    """Pictures that are read when they are asked for, with boxes that are in memory.

    Args:
        classes: K names, in the order of their labels.
        image_ids: one an image.
        pictures: where each lies.
        sizes: (H, W) of each as its annotation says; infinite where it says nothing.
        objects: of each image, of these classes.

    Attributes:
        classes: as above.
        image_ids: as above.
        sizes: as above.
    """

    def __init__(
        self,
        classes: Sequence[str],
        image_ids: Sequence[str],
        pictures: Sequence[Path],
        sizes: Sequence[tuple[float, float]],
        objects: Sequence[Sequence[VOCObject | RecordObject]],
    ) -> None:
        self.classes = tuple(classes)
        self.image_ids = list(image_ids)
        self._pictures = list(pictures)
        self.sizes = list(sizes)
        label_of = {name: label for label, name in enumerate(self.classes)}
        # One tensor for all images: workers are sent a handful of tensors, not thousands.
        every = [o for found in objects for o in found]
        self._boxes = torch.tensor([o.box for o in every], dtype=torch.float32).reshape(-1, 4)
        self._labels = torch.tensor([label_of[o.name] for o in every], dtype=torch.int64)
        self._difficult = torch.tensor([o.difficult for o in every], dtype=torch.bool)
        ends = list(accumulate(len(found) for found in objects))
        self._spans = list(zip([0, *ends], ends))

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> tuple[Tensor, dict]:
        """The picture, uint8 (3, H, W), and its target.

        Raises:
            DataError: the picture is damaged, or of another size than its annotation says.
        """
        path, (height, width) = self._pictures[index], self.sizes[index]
        image, target = read_image(path), self.target(index)
        # One pixel is rounding. More is another picture, and then the boxes lie elsewhere too.
        if max(height, width) < math.inf and (
            abs(image.shape[1] - height) > 1 or abs(image.shape[2] - width) > 1
        ):
            raise DataError(
                f"{path}: the picture is {image.shape[2]} × {image.shape[1]} pixels, but its "
                f"annotation says {width:g} × {height:g}; was it scaled or turned afterwards?"
            )
        return image, target

    def target(self, index: int) -> dict:
        """`boxes` (M, 4), `labels` (M,), `difficult` (M,) and `image_id`; no picture is read."""
        start, stop = self._spans[index]
        return {
            "boxes": self._boxes[start:stop].clone(),  # (M, 4)
            "labels": self._labels[start:stop].clone(),  # (M,)
            "difficult": self._difficult[start:stop].clone(),  # (M,)
            "image_id": self.image_ids[index],
        }

    def image_path(self, index: int) -> Path:
        """Where the picture lies."""
        return self._pictures[index]
