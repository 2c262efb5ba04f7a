"""The three values that travel: what the network says, what is true, and what was found.

Symbols: B images, N anchors in all, M objects, K classes, D detections.
Boxes are float32 `x1 y1 x2 y2` in pixels, continuous: width = x2 − x1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Predictions(NamedTuple):
    """What the network says about every anchor, before any threshold.

    Attributes:
        class_logits: (B, N, K) float, one logit a class; the score is its sigmoid.
        box_deltas: (B, N, 4) float, dx dy dw dh of eqs. 2–5, see `coding`.
        anchors_per_level: five integers that sum to N, for the top-k of each level.
    """

    class_logits: Tensor
    box_deltas: Tensor
    anchors_per_level: tuple[int, ...]


@dataclass(frozen=True)
class Targets:
    """What is true of a batch, padded to the image with the most objects.

    Rows beyond `count` are zero boxes: their IoU with anything is 0, so they match nothing.

    Attributes:
        boxes: (B, M, 4) float32.
        labels: (B, M) int64 in 0…K−1.
        difficult: (B, M) bool, objects that are neither trained on nor punished.
        count: (B,) int64, objects of each image.
    """

    boxes: Tensor
    labels: Tensor
    difficult: Tensor
    count: Tensor

    @classmethod
    def from_list(
        cls,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        difficult: Sequence[Tensor] | None = None,
    ) -> Targets:
        """Pad one tensor of each kind an image into one value for the batch.

        Args:
            boxes: (M_i, 4) x1 y1 x2 y2 in pixels of image i, an empty tensor for no objects.
            labels: (M_i,) integers in 0…K−1.
            difficult: (M_i,) bool; by default no object is.

        Returns:
            `Targets` of B = len(boxes) images, M = the largest M_i.

        Raises:
            ValueError: lists of different lengths, or an image whose numbers do not agree.

        Law:
            Row by row up to `count`, the padded tensors are the given ones; zero beyond.
        """
        if difficult is None:
            difficult = [torch.zeros(len(b), dtype=torch.bool) for b in boxes]
        for i, (b, l, d) in enumerate(zip(boxes, labels, difficult, strict=True)):
            if not len(b) == len(l) == len(d):
                raise ValueError(
                    f"image {i} of the batch has {len(b)} boxes, {len(l)} labels "
                    f"and {len(d)} difficult flags; it needs one of each an object"
                )
            if b.numel() != 4 * len(b):
                raise ValueError(
                    f"image {i} of the batch has boxes {tuple(b.shape)}; they must be (M, 4)"
                )
        most = max((len(b) for b in boxes), default=0)
        shape = (len(boxes), most)
        device = boxes[0].device if boxes else None
        padded = cls(
            boxes=torch.zeros(*shape, 4, device=device),
            labels=torch.zeros(shape, dtype=torch.int64, device=device),
            difficult=torch.zeros(shape, dtype=torch.bool, device=device),
            count=torch.tensor([len(b) for b in boxes], dtype=torch.int64, device=device),
        )
        for i, (b, l, d) in enumerate(zip(boxes, labels, difficult, strict=True)):
            padded.boxes[i, : len(b)] = b.reshape(-1, 4)
            padded.labels[i, : len(b)] = l
            padded.difficult[i, : len(b)] = d
        return padded

    def __getitem__(self, images: Sequence[int]) -> Targets:
        """The targets of some images of the batch, a list of their places in it."""
        return Targets(*(t[images] for t in (self.boxes, self.labels, self.difficult, self.count)))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Targets:
        """The same targets on another device."""
        return Targets(
            *(
                t.to(device, non_blocking=non_blocking)
                for t in (self.boxes, self.labels, self.difficult, self.count)
            )
        )

    def pin_memory(self) -> Targets:
        """The same targets in pinned memory; the DataLoader calls this."""
        return Targets(
            *(t.pin_memory() for t in (self.boxes, self.labels, self.difficult, self.count))
        )


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best score first.

    Attributes:
        boxes: (D, 4) float32.
        scores: (D,) float32 in 0…1, descending.
        labels: (D,) int64 in 0…K−1.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def to(self, device: torch.device | str) -> Detections:
        """The same detections on another device."""
        return Detections(self.boxes.to(device), self.scores.to(device), self.labels.to(device))
