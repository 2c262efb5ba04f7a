"""Reading pictures: whatever the file holds, RGB comes out, or a message that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from retinanet_edu.errors import DataError


def read_image(path: str | Path) -> Tensor:
    """A picture as RGB, upright.

    A camera's orientation tag is applied. Grey, palette, CMYK and 1-bit pictures become RGB, 16
    bits are scaled to 8, and transparency is laid on white.

    Args:
        path: of any file that Pillow reads.

    Returns:
        (3, H, W) uint8.

    Raises:
        DataError: the file is missing, is no picture, is cut short, or has too many pixels.
    """
    with _open(path) as picture:
        rgb = np.array(as_rgb(ImageOps.exif_transpose(picture)))  # (H, W, 3)
    return torch.from_numpy(rgb).permute(2, 0, 1).contiguous()  # (3, H, W)


def image_size(path: str | Path) -> tuple[int, int]:
    """(H, W) of the picture that `read_image` gives, from a JPEG's header alone.

    Args:
        path: of any file that Pillow reads.

    Returns:
        (H, W) in pixels, after the orientation tag.

    Raises:
        DataError: as `read_image`, but a JPEG's missing pixels go unnoticed.

    Law:
        image_size(path) = read_image(path).shape[1:].
    """
    with _open(path) as picture:
        if picture.format == "TIFF":
            picture.load()  # Pillow turns a TIFF by itself, and then forgets that it was turned
        turned = picture.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        width, height = picture.size
    return (width, height) if turned else (height, width)


@contextmanager
def _open(path: str | Path) -> Iterator[Image.Image]:
    """An opened picture; what goes wrong while it is open becomes a DataError."""
    try:
        with Image.open(path) as picture:
            yield picture
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such picture; check the path") from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{path}: empty, or not a picture that Pillow reads; copy it again, or save it as JPEG"
        ) from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: too many pixels ({error}); scale the picture down") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: a folder; name the pictures that are in it") from error
    except Exception as error:  # a damaged file makes Pillow's decoders raise of many kinds
        raise DataError(
            f"{path}: the picture cannot be read ({error}); copy it again, or save it as JPEG"
        ) from error


def as_rgb(picture: Image.Image) -> Image.Image:
    """A picture of any mode as RGB, see `read_image`.

    Args:
        picture: as Pillow has it.

    Returns:
        the same in mode RGB.

    Raises:
        ValueError: its values are floats.
    """
    if picture.mode == "F":
        raise ValueError("its values are floats, of which nobody knows what white is")
    if picture.mode.startswith("I"):  # 16 bits; convert() would clip all above 255 to white
        array = np.asarray(picture).clip(0, 65535)
        picture = Image.fromarray((array / 257).round().astype(np.uint8))  # 257 = 65535 / 255
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert("RGB")
