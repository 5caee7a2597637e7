"""Photographs as arrays."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from kgradcam.data.images import image_size, read_image
from kgradcam.errors import UserError


def encoded(image: PIL.Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_pixels_are_rgb_rows_first() -> None:
    image = PIL.Image.new("RGB", (3, 2), (10, 20, 30))
    image.putpixel((2, 1), (1, 2, 3))
    array = read_image(encoded(image))
    assert array.shape == (2, 3, 3)
    assert array.dtype == np.uint8
    assert array[0, 0].tolist() == [10, 20, 30]
    assert array[1, 2].tolist() == [1, 2, 3]
    assert image_size(encoded(image)) == (3, 2)


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [("L", 7, [7, 7, 7]), ("CMYK", (0, 255, 255, 0), [255, 0, 0]), ("1", 1, [255, 255, 255])],
)
def test_other_modes_become_rgb(mode: str, color: object, expected: list[int]) -> None:
    image = PIL.Image.new(mode, (8, 8), color)
    array = read_image(encoded(image, "TIFF"))
    assert array[4, 4].tolist() == expected


def test_resizing_is_square_and_antialiased() -> None:
    stripes = np.zeros((64, 128, 3), np.uint8)
    stripes[:, ::2] = 200
    array = read_image(encoded(PIL.Image.fromarray(stripes)), size=16)
    assert array.shape == (16, 16, 3)
    assert np.abs(array.astype(int)[:, 1:-1] - 100).max() <= 1  # not a few stripes picked out


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size() -> None:
    """To at least twice the size asked for, with pixels close to those of the whole image."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    image = PIL.Image.fromarray(coarse).resize((640, 480), PIL.Image.Resampling.BICUBIC)
    file = encoded(image, "JPEG", quality=95)
    whole = PIL.Image.fromarray(read_image(file))
    for size, exact in ((300, True), (121, True), (120, False), (48, False)):
        expected = np.asarray(whole.resize((size, size), PIL.Image.Resampling.BICUBIC))
        differences = np.abs(read_image(file, size).astype(int) - expected)
        assert (differences.max() == 0) == exact
        assert differences.mean() < 0.5
    half = PIL.Image.open(io.BytesIO(file))
    half.draft(None, (240, 240))
    assert half.size == (320, 240)
    expected = np.asarray(half.resize((120, 120), PIL.Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(read_image(file, 120), expected)


def test_broken_files_are_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / "half.jpg"
    path.write_bytes(encoded(PIL.Image.fromarray(noise), "JPEG")[:1500])
    assert image_size(path) == (64, 64)
    with pytest.raises(UserError, match=r"half.jpg does not decode: .*truncated"):
        read_image(path)
    path.write_bytes(b"text")
    with pytest.raises(UserError, match=r"half.jpg is not a readable image: unknown format"):
        read_image(path)
    with pytest.raises(UserError, match=r"No image .*nowhere"):
        read_image(tmp_path / "nowhere.jpg")
    with pytest.raises(UserError, match="The image is not a readable image"):
        image_size(b"")


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder. Give its images: .*/\*\.jpg"):
        read_image(tmp_path)
