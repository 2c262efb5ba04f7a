"""images: files of every kind, with colours known beforehand."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from retinanet_edu.data.images import image_size, read_image
from retinanet_edu.errors import DataError

pytestmark = pytest.mark.filterwarnings("error")

WHITE = (255, 255, 255)


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def pixels(image: torch.Tensor) -> list[list[tuple[int, ...]]]:
    """Rows of (r, g, b)."""
    return [[tuple(pixel) for pixel in row] for row in image.movedim(0, -1).tolist()]


def saved(picture: Image.Image, path: Path, **settings: object) -> Path:
    picture.save(path, **settings)
    return path


def test_an_rgb_picture_is_channels_first_and_exact(tmp_path: Path) -> None:
    array = noise(5, 7)
    image = read_image(saved(Image.fromarray(array), tmp_path / "a.png"))
    assert image.dtype == torch.uint8
    assert image.shape == (3, 5, 7)
    assert image.is_contiguous()
    assert all(image[c, y, x] == array[y, x, c] for c in range(3) for y in range(5) for x in (0, 6))
    image += 1  # the memory is its own and can be written


def _palette() -> Image.Image:
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    return picture


def _alpha() -> Image.Image:
    row = [(10, 20, 30, 255), (10, 20, 30, 0), (0, 0, 0, 128)]
    return Image.fromarray(np.array([row], np.uint8))


def _grey_alpha() -> Image.Image:
    return Image.fromarray(np.array([[(90, 255), (90, 0), (0, 128)]], np.uint8))


def _cmyk() -> Image.Image:
    """No ink, all cyan, all black, in blocks as large as a JPEG's."""
    inks = [(0, 0, 0, 0), (255, 0, 0, 0), (0, 0, 0, 255)]
    array = np.array([inks], np.uint8).repeat(16, 0).repeat(16, 1)
    return Image.frombytes("CMYK", (48, 16), array.tobytes())


@pytest.mark.parametrize(
    ("picture", "name", "settings", "expected"),
    [
        pytest.param(
            lambda: Image.fromarray(np.array([[0, 77, 255]], np.uint8)), "a.png", {},
            [(0, 0, 0), (77, 77, 77), WHITE], id="grey",
        ),
        pytest.param(
            lambda: Image.fromarray(np.array([[True, False, True]])), "a.png", {},
            [WHITE, (0, 0, 0), WHITE], id="1 bit",
        ),
        pytest.param(
            _palette, "a.png", {}, [(255, 0, 0), (0, 255, 0), (0, 0, 255)], id="palette",
        ),
        pytest.param(
            _palette, "a.gif", {}, [(255, 0, 0), (0, 255, 0), (0, 0, 255)], id="palette of a GIF",
        ),
        pytest.param(
            _palette, "a.png", {"transparency": 1}, [(255, 0, 0), WHITE, (0, 0, 255)],
            id="palette with a transparent colour",
        ),
        pytest.param(
            _palette, "a.png", {"transparency": bytes([255, 0, 51])},
            [(255, 0, 0), WHITE, (204, 204, 255)], id="palette with shades of transparency",
        ),
        pytest.param(
            _alpha, "a.png", {}, [(10, 20, 30), WHITE, (127, 127, 127)], id="RGBA lies on white",
        ),
        pytest.param(
            _grey_alpha, "a.png", {}, [(90, 90, 90), WHITE, (127, 127, 127)],
            id="grey with alpha lies on white",
        ),
        pytest.param(
            lambda: Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16)), "a.png", {},
            [(0, 0, 0), (100, 100, 100), WHITE], id="16 bits are scaled, not cut at 255",
        ),
        pytest.param(
            lambda: Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16)), "a.tif", {},
            [(0, 0, 0), (100, 100, 100), WHITE], id="16 bits of a TIFF",
        ),
    ],
)  # fmt: skip
def test_every_mode_becomes_the_rgb_that_one_sees(
    tmp_path: Path,
    picture: Callable[[], Image.Image],
    name: str,
    settings: dict,
    expected: list[tuple[int, int, int]],
) -> None:
    path = saved(picture(), tmp_path / name, **settings)
    assert pixels(read_image(path)) == [expected]
    assert image_size(path) == (1, 3)


def test_cmyk_has_the_colours_of_its_inks(tmp_path: Path) -> None:
    image = read_image(saved(_cmyk(), tmp_path / "a.jpg", quality=95))
    assert image.shape == (3, 16, 48)
    expected = torch.tensor([WHITE, (0, 255, 255), (0, 0, 0)])
    assert (image[:, 8, [8, 24, 40]].T - expected).abs().max() <= 3


def _quarters() -> np.ndarray:
    """Red, green / blue, grey, of 32 × 16 pixels: no turn and no mirror image is the same."""
    colours = np.array([[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (99, 99, 99)]], np.uint8)
    return colours.repeat(16, 0).repeat(8, 1)


# As the standard says which side of what is stored is the visual top and the visual left.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_a_camera_orientation_is_applied_once(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    fine = {"quality": 95, "subsampling": 0} if suffix == "jpg" else {}
    path = saved(Image.fromarray(_quarters()), tmp_path / f"a.{suffix}", exif=exif, **fine)
    image = read_image(path)
    expected = torch.from_numpy(UPRIGHT[orientation](_quarters()).copy()).movedim(-1, 0)
    assert image.shape == expected.shape
    assert image_size(path) == expected.shape[1:]
    difference = (image.int() - expected.int()).abs()
    assert difference.max() <= (8 if suffix == "jpg" else 0)


def test_a_damaged_orientation_does_not_cost_the_picture(tmp_path: Path) -> None:
    array = np.full((8, 16, 3), 200, np.uint8)
    path = saved(Image.fromarray(array), tmp_path / "a.jpg", exif=b"Exif\0\0junk")
    assert read_image(path).shape == (3, 8, 16)
    assert image_size(path) == (8, 16)


@pytest.mark.parametrize("size", [(1, 1), (10, 10_000), (10_000, 10)])
def test_the_smallest_and_the_longest(tmp_path: Path, size: tuple[int, int]) -> None:
    path = saved(Image.fromarray(noise(*size)), tmp_path / "a.png")
    assert read_image(path).shape == (3, *size)
    assert image_size(path) == size


def _png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(k, d) for k, d in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    )


def _bytes(name: str) -> bytes:
    """A file as it lies about after a full disk, a broken download, or a bad joke."""
    if name == "bomb.png":
        return _png_that_claims(60_000, 60_000)
    if name == "empty.jpg":
        return b""
    if name == "text.jpg":
        return b"<html>404 not found</html>"
    whole = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(whole, "png" if name.endswith("png") else "jpeg")
    share = 0.02 if name == "header.jpg" else 0.5
    return whole.getvalue()[: int(len(whole.getvalue()) * share)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("half.jpg", "truncated"),
        ("half.png", "truncated"),
        ("header.jpg", "copy it again"),
        ("empty.jpg", "empty, or not a picture"),
        ("text.jpg", "empty, or not a picture"),
        ("bomb.png", "too many pixels"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(_bytes(name))
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_of_a_jpeg_the_header_is_enough_for_the_size(tmp_path: Path) -> None:
    path = tmp_path / "half.jpg"
    path.write_bytes(_bytes("half.jpg"))
    assert image_size(path) == (64, 64)


@pytest.mark.parametrize("read", [read_image, image_size])
def test_a_missing_file_a_folder_and_floats_are_named(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    with pytest.raises(DataError, match=r"gone\.jpg: no such picture"):
        read(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match=f"{tmp_path.name}: a folder"):
        read(tmp_path)
    path = tmp_path / "bomb.png"
    path.write_bytes(_bytes("bomb.png"))
    with pytest.raises(DataError, match=r"bomb\.png: too many pixels"):
        read(path)


def test_floats_are_refused_for_want_of_a_white(tmp_path: Path) -> None:
    path = saved(Image.fromarray(np.ones((4, 4), np.float32)), tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: .*floats"):
        read_image(path)
