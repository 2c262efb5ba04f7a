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


def fit_size(size: tuple[int, int], longer_side: int) -> tuple[int, int]:
    """The size of a picture of which the longer side is scaled to so many pixels.

    Args:
        size: (H, W) in pixels.
        longer_side: in pixels, at least 1.

    Returns:
        (H, W) of nearly the same shape, each rounded and at least 1.

    Law:
        max(fit_size(s, n)) = n, and fit_size(fit_size(s, n), n) is the same.
    """
    factor = longer_side / max(size)
    height, width = (max(1, round(side * factor)) for side in size)
    return height, width


def scale_boxes(boxes: Tensor, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
    """Boxes of a picture in pixels of the same picture at another size.

    Args:
        boxes: (..., 4) x1 y1 x2 y2 in pixels.
        before: (H, W) of the picture to which they belong.
        after: (H, W) of the other.

    Returns:
        (..., 4); each axis has its own factor, since sizes are whole pixels.

    Law:
        scale_boxes(scale_boxes(b, s, t), t, s) = b.
    """
    vertical, horizontal = after[0] / before[0], after[1] / before[1]
    return boxes * boxes.new_tensor([horizontal, vertical, horizontal, vertical])


def normalise(image: Tensor) -> Tensor:
    """A picture as the network wants it: ImageNet's pictures then have mean 0 and deviation 1.

    Args:
        image: (3, H, W) uint8.

    Returns:
        (3, H, W) float32.
    """
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
        image, target = resize(image, target, self.image_size)
        return normalise(image), target

    def image(self, image: Tensor) -> Tensor:
        """The picture alone."""
        return normalise(_resize(image, self.image_size))


class TrainTransform:
    """Mirror and scale at random, then normalise.

    The picture keeps the size that `EvalTransform` would give it. It is drawn larger and cropped
    at random, or smaller and set at a random place on the mean colour.

    Args:
        image_size: the longer side, in pixels.
        flip: probability of a mirror image, 0…1.
        scale: range of the factor on the picture's size, drawn evenly in its logarithm.
        colour: jitter brightness, contrast, saturation and hue, and exchange channels, each in
            half of the pictures (torchvision's photometric distortion, as for SSD). Pretrained
            layers expect usual colours: a short training is worse for it.

    Law:
        A box stays on its object, and every draw comes from torch's global generator.

    Source:
        Liu et al., "SSD" (arXiv 1512.02325), section 2.2, for the colours.
    """

    def __init__(
        self,
        image_size: int,
        *,
        flip: float = 0.5,
        scale: tuple[float, float] = (0.8, 1.25),
        colour: bool = False,
    ) -> None:
        self.image_size = image_size
        self.flip = flip
        self.scale = scale
        self.colour = v2.RandomPhotometricDistort() if colour else None

    def __call__(self, image: Tensor, target: dict) -> tuple[Tensor, dict]:
        """One sample: uint8 (3, H, W) in, float32 (3, H', W') out."""
        canvas = fit_size(picture_size(image), self.image_size)
        low, high = math.log(self.scale[0]), math.log(self.scale[1])
        factor = math.exp(low + (high - low) * float(torch.rand(())))
        # Scaled first: a photograph may have a hundred times the pixels.
        image, target = resize(image, target, max(1, round(self.image_size * factor)))
        if torch.rand(()) < self.flip:
            image, target = flip(image, target)
        if self.colour is not None:
            image = self.colour(image)
        image, target = place(image, target, canvas)
        return normalise(image), target


def flip(image: Tensor, target: dict) -> tuple[Tensor, dict]:
    """The mirror image, left and right exchanged.

    Args:
        image: (3, H, W).
        target: with `boxes` (M, 4).

    Returns:
        both, mirrored.

    Law:
        flip(flip(image, target)) is what it was.
    """
    x1, y1, x2, y2 = target["boxes"].unbind(-1)  # (M,) each
    width = image.shape[-1]
    boxes = torch.stack([width - x2, y1, width - x1, y2], dim=-1)  # (M, 4)
    return F.horizontal_flip(image), target | {"boxes": boxes}


def resize(image: Tensor, target: dict, longer_side: int) -> tuple[Tensor, dict]:
    """Scale so that the longer side has so many pixels, see `fit_size`.

    Args:
        image: (3, H, W) uint8.
        target: with `boxes` (M, 4).
        longer_side: in pixels.

    Returns:
        both, scaled.
    """
    resized = _resize(image, longer_side)
    boxes = scale_boxes(target["boxes"], picture_size(image), picture_size(resized))
    return resized, target | {"boxes": boxes}


def _resize(image: Tensor, longer_side: int) -> Tensor:
    return F.resize(image, list(fit_size(picture_size(image), longer_side)), antialias=True)


def place(image: Tensor, target: dict, canvas: tuple[int, int]) -> tuple[Tensor, dict]:
    """Cut a picture to the size of a canvas, or pad it with the mean colour, at a random place.

    Args:
        image: (3, H, W) uint8.
        target: with `boxes` (M, 4), `labels` (M,) and `difficult` (M,).
        canvas: (H', W') in pixels; each side may be shorter or longer than the picture's.

    Returns:
        (3, H', W') uint8 and the target: boxes are cut at the border, objects that lie beyond it
        are gone, and those of which less than `MIN_VISIBLE` is left are difficult.
    """
    (height, width), (rows, columns) = picture_size(image), canvas
    # Where the picture's corner falls on the canvas: not positive where the picture is larger.
    top, left = (
        int(torch.randint(abs(room) + 1, ())) * (1 if room > 0 else -1)
        for room in (rows - height, columns - width)
    )
    margins = (left, top, columns - width - left, rows - height - top)  # left, top, right, below
    colour = [round(255 * mean) for mean in MEAN]
    image = F.pad(image, [max(0, margin) for margin in margins], fill=colour)
    image = F.crop(image, max(0, -top), max(0, -left), rows, columns)

    boxes = target["boxes"] + target["boxes"].new_tensor([left, top, left, top])  # (M, 4)
    cut = clip_boxes(boxes, canvas)
    area = box_area(cut)  # (M,)
    kept = area > 0
    return image, target | {
        "boxes": cut[kept],
        "labels": target["labels"][kept],
        "difficult": (target["difficult"] | (area < MIN_VISIBLE * box_area(boxes)))[kept],
    }
