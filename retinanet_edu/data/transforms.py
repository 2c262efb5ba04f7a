"""Transforms: from a picture of any size to what the network wants, with boxes kept right.

All draw from torch's global generator, as torchvision's transforms do; `loading` seeds it for
each sample from (seed, epoch, index).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from retinanet_edu.boxes import box_area, clip_boxes

# Mean and deviation of ImageNet's pictures, the input that torchvision's backbones know.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# An object of which a crop leaves less than this share is treated as difficult: too little to
# demand that it is found, too much to punish it if it is.
MIN_VISIBLE = 0.3


def picture_size(image: Tensor) -> tuple[int, int]:
    """(H, W) of an image (..., H, W)."""
    return image.shape[-2], image.shape[-1]


def fit_size(size: tuple[int, int], image_size: int) -> tuple[int, int]:
    """(H, W) scaled so that the longer side is `image_size`, at least one pixel each."""
    factor = image_size / max(size)
    height, width = (max(1, round(side * factor)) for side in size)
    return height, width


def scale_boxes(boxes: Tensor, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
    """Boxes (..., 4) of an image of (H, W) `before` in one of (H, W) `after`, in pixels."""
    vertical, horizontal = after[0] / before[0], after[1] / before[1]
    return boxes * boxes.new_tensor([horizontal, vertical, horizontal, vertical])


def normalise(image: Tensor) -> Tensor:
    """uint8 (3, H, W) to float32 around zero."""
    return F.normalize(F.to_dtype(image, torch.float32, scale=True), list(MEAN), list(STD))


class EvalTransform:
    """Scale the longer side to `image_size` pixels and normalise; nothing random.

    Args:
        image_size: the longer side, in pixels.
    """

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size

    def __call__(self, image: Tensor, target: dict) -> tuple[Tensor, dict]:
        """One sample: uint8 (3, H, W) in, float32 (3, H', W') out."""
        before = picture_size(image)
        after = fit_size(before, self.image_size)
        boxes = scale_boxes(target["boxes"], before, after)
        return self.image(image), target | {"boxes": boxes}

    def image(self, image: Tensor) -> Tensor:
        """The picture alone."""
        size = fit_size(picture_size(image), self.image_size)
        return normalise(F.resize(image, list(size), antialias=True))


class TrainTransform:
    """Flip, colour and scale jitter, then normalise.

    The picture keeps the size that `EvalTransform` would give it. It is drawn larger and cropped
    at random, or smaller and set at a random place on the mean colour.

    Args:
        image_size: the longer side, in pixels.
        flip: probability of a mirror image.
        scale: range of the factor on the picture's size, drawn evenly in its logarithm.
        colour: jitter brightness, contrast, saturation and hue (torchvision's photometric
            distortion, as for SSD).
    """

    def __init__(
        self,
        image_size: int,
        *,
        flip: float = 0.5,
        scale: tuple[float, float] = (0.8, 1.25),
        colour: bool = True,
    ) -> None:
        self.image_size = image_size
        self.flip = flip
        self.scale = scale
        self.colour = v2.RandomPhotometricDistort() if colour else None

    def __call__(self, image: Tensor, target: dict) -> tuple[Tensor, dict]:
        """One sample: uint8 (3, H, W) in, float32 (3, H', W') out."""
        if self.colour is not None:
            image = self.colour(image)
        if torch.rand(()) < self.flip:
            image, target = flip(image, target)
        image, target = jitter_scale(image, target, self.image_size, self.scale)
        return normalise(image), target


def flip(image: Tensor, target: dict) -> tuple[Tensor, dict]:
    """The mirror image, left and right exchanged."""
    x1, y1, x2, y2 = target["boxes"].unbind(-1)
    width = image.shape[-1]
    return image.flip(-1), target | {"boxes": torch.stack([width - x2, y1, width - x1, y2], -1)}


def jitter_scale(
    image: Tensor, target: dict, image_size: int, scale: tuple[float, float]
) -> tuple[Tensor, dict]:
    """Fit to `image_size`, times a random factor, then crop or pad to the size without it."""
    before = picture_size(image)
    canvas_size = fit_size(before, image_size)
    low, high = math.log(scale[0]), math.log(scale[1])
    factor = math.exp(low + (high - low) * float(torch.rand(())))
    height, width = fit_size(before, max(1, round(image_size * factor)))
    image = F.resize(image, [height, width], antialias=True)

    # Where the picture's corner falls on the canvas: not positive where the picture is larger.
    top, left = (
        int(torch.randint(abs(room) + 1, ())) * (1 if room > 0 else -1)
        for room in (canvas_size[0] - height, canvas_size[1] - width)
    )
    canvas = torch.empty(3, *canvas_size, dtype=torch.uint8)
    canvas[:] = (torch.tensor(MEAN) * 255).to(torch.uint8)[:, None, None]
    seen = image[:, max(0, -top) :, max(0, -left) :][:, : canvas_size[0], : canvas_size[1]]
    y, x = max(0, top), max(0, left)
    canvas[:, y : y + seen.shape[1], x : x + seen.shape[2]] = seen

    boxes = scale_boxes(target["boxes"], before, (height, width))
    boxes = boxes + boxes.new_tensor([left, top, left, top])
    clipped = clip_boxes(boxes, canvas_size)
    visible = box_area(clipped) / box_area(boxes)  # (M,)
    kept = box_area(clipped) > 0
    return canvas, target | {
        "boxes": clipped[kept],
        "labels": target["labels"][kept],
        "difficult": (target["difficult"] | (visible < MIN_VISIBLE))[kept],
    }
