"""Image files as arrays: RGB, uint8, `[height, width, 3]`.

Files are untrusted. Any decoding failure is a `UserError`, and an image of more pixels than
`PIL.Image.MAX_IMAGE_PIXELS` (`--max-pixels`) is rejected from its header.
"""

import io
import threading
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps

from kgradcam.errors import UserError
from kgradcam.files import open_regular
from kgradcam.storage import StorageError

PIL.Image.init()
# Only the formats of photographs. Pillow would run Ghostscript for an EPS file named .jpg.
_FORMATS = tuple(
    name
    for name in ("JPEG", "PNG", "BMP", "GIF", "JPEG2000", "MPO", "PPM", "TIFF", "WEBP", "AVIF")
    if name in PIL.Image.OPEN
)
SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    *(
        suffix
        for suffix, name in PIL.Image.registered_extensions().items()
        if name in _FORMATS and suffix not in (".jpg", ".jpeg", ".png")
    ),
)
"""The suffixes of image files that can be decoded, lower case; the most common first."""
MAX_IMAGE_BYTES = 2**30
"""The largest encoded image. As many pixels as Pillow allows, as RGBA in 16 bits, have 0.7 GB."""
_DRAFT = 2
"""Times the target size that a JPEG is decoded to at least."""
Size = int | tuple[int, ...]
"""The size that images are resized to: the side of a square, or `(width, height)`, in pixels."""
_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)
# `warnings.catch_warnings` is not thread-safe: it changes filters of the whole process.
_WARNING_FILTERS = threading.Lock()


def image_size(source: Path | bytes) -> tuple[int, int]:
    """Returns `(width, height)` of an encoded image from its header.

    Raises:
        UserError: The image is missing, too large, or not an image.
    """
    with _open(source) as image:
        return image.size


def image_sizes(paths: Iterable[Path]) -> Iterator[tuple[int, int] | UserError]:
    """Yields `(width, height)` of each image, or the error of one that cannot be read.

    Headers are read in parallel, in the order of the paths.
    """

    def size(path: Path) -> tuple[int, int] | UserError:
        try:
            with _open(path, filtered=True) as image:
                return image.size
        except UserError as error:
            return error

    with ThreadPoolExecutor(16) as pool:
        remaining = iter(paths)
        while block := list(islice(remaining, 4096)):  # a future takes more memory than a size
            with _bombs_are_errors():
                sizes = list(pool.map(size, block))
            yield from sizes


def is_turned(source: Path | bytes) -> bool:
    """Whether the EXIF orientation of an image swaps its width and height."""
    with _open(source) as image:
        try:
            return image.getexif().get(_ORIENTATION) in _QUARTER_TURNS
        except Exception:  # damaged EXIF data count as none
            return False


def read_image(
    source: Path | bytes, size: Size | None = None, upright: bool = False
) -> npt.NDArray[np.uint8]:
    """Decodes an image.

    Grey and CMYK are converted to RGB. 16-bit channels keep their upper 8 bits. Transparent pixels
    are blended with white, as in a browser. An animation gives its first frame.

    Args:
        source: A file, or its bytes.
        size: Resizes to a square of this side or to `(width, height)`, bicubic with antialiasing,
            ignoring the aspect ratio. A JPEG whose sides are four times that size is decoded at
            1/2, 1/4 or 1/8, to at least twice the size: pixels differ by about 0.4 in the mean.
            Default: the native size.
        upright: Applies the EXIF orientation. Default: the pixels as stored, which annotations
            refer to.

    Returns:
        uint8 `[height, width, 3]`, RGB, in [0, 255].

    Raises:
        UserError: The image is missing, damaged, too large, or not an image.
    """
    with _open(source) as image:
        try:
            if size is not None:
                width, height = sides(size)
                image.draft(None, (_DRAFT * width, _DRAFT * height))
            rgb = to_rgb(PIL.ImageOps.exif_transpose(image) if upright else image)
        except Exception as error:  # Pillow's decoders raise many kinds on damaged input
            raise UserError(f"{_name(source)} does not decode: {_reason(error)}.") from error
    if size is not None:
        rgb = rgb.resize(sides(size), PIL.Image.Resampling.BICUBIC)
    return np.asarray(rgb)


def sides(size: Size) -> tuple[int, int]:
    """Returns the width and height of a size."""
    width, height = (size, size) if isinstance(size, int) else size
    return width, height


def resize(image: npt.NDArray[np.uint8], size: Size) -> npt.NDArray[np.uint8]:
    """Resizes a decoded image as `read_image` does."""
    if image.shape[1::-1] == sides(size):
        return image
    scaled = PIL.Image.fromarray(image).resize(sides(size), PIL.Image.Resampling.BICUBIC)
    return np.asarray(scaled)


def to_channels(images: npt.NDArray[np.uint8], channels: int | None) -> npt.NDArray[np.uint8]:
    """Converts RGB images to the channels of a model.

    Args:
        images: uint8 `[batch, height, width, 3]`, RGB.
        channels: The channels that the model takes. With 1 the images become grey, by the weights
            of ITU-R 601-2 as Pillow's mode `"L"`; else they stay as they are.

    Returns:
        uint8 `[batch, height, width, 1 or 3]`.

    Example:
        >>> to_channels(np.array([[[[255, 0, 0], [9, 9, 9]]]], np.uint8), 1).ravel().tolist()
        [76, 9]
    """
    if channels != 1:
        return images
    grey = (images @ np.array([19595, 38470, 7471]) + 0x8000) >> 16
    return grey[..., np.newaxis].astype(np.uint8)


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Converts a picture of Pillow to RGB, by the rules of `read_image`.

    Raises:
        ValueError: Its pixels have no defined range.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return PIL.Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels have no defined range")
    if image.has_transparency_data:
        opaque = PIL.Image.new("RGBA", image.size, "white")
        return PIL.Image.alpha_composite(opaque, image.convert("RGBA")).convert("RGB")
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")


def read_labels(path: Path) -> npt.NDArray[np.uint8]:
    """Decodes an image of labels: palette indices or grey levels.

    Returns:
        uint8 `[height, width]`.

    Raises:
        UserError: The image is missing, damaged, too large, or neither palette nor grey.
    """
    with _open(path) as image:
        if image.mode not in ("P", "L"):
            raise UserError(f"{path} must hold labels, palette or grey. Received: {image.mode}.")
        try:
            return np.asarray(image)
        except Exception as error:
            raise UserError(f"{path} does not decode: {_reason(error)}.") from error


@contextmanager
def _bombs_are_errors() -> Iterator[None]:
    """Rejects images above Pillow's limit; it warns above it and raises only above twice that."""
    with _WARNING_FILTERS, warnings.catch_warnings():
        warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
        yield


@contextmanager
def _open(source: Path | bytes, filtered: bool = False) -> Iterator[Any]:
    """Opens an image; with `filtered`, the caller is inside `_bombs_are_errors`."""
    if isinstance(source, Path) and source.is_dir():
        raise UserError(f"{source!s} is a folder. Give its images: {source!s}/*.jpg")
    with ExitStack() as opened:
        try:
            file = (
                io.BytesIO(source)
                if isinstance(source, bytes)
                else opened.enter_context(open_regular(source, MAX_IMAGE_BYTES))
            )
            with nullcontext() if filtered else _bombs_are_errors():
                image = opened.enter_context(PIL.Image.open(file, formats=_FORMATS))
        except FileNotFoundError:
            raise UserError(f"No image {_name(source)}.") from None
        except (PIL.Image.DecompressionBombWarning, PIL.Image.DecompressionBombError):
            raise _too_large(_name(source)) from None
        except (UserError, StorageError):
            raise
        except Exception as error:
            advice = ""
            if isinstance(source, Path) and source.suffix.lower() in (".npy", ".npz"):
                advice = " It holds an array. Save it as PNG, or use kgradcam.explain in Python."
            raise UserError(
                f"{_name(source)} is not a readable image: {_reason(error)}.{advice}"
            ) from error
        yield image


def check_size(name: str, width: int, height: int) -> None:
    """Checks that an image size read from a file is positive and within the pixel limit.

    Raises:
        UserError: It is not.
    """
    if width < 1 or height < 1:
        raise UserError(f"{name} is not an image: its size is {width}x{height}.")
    if PIL.Image.MAX_IMAGE_PIXELS and width * height > PIL.Image.MAX_IMAGE_PIXELS:
        raise _too_large(name)


def _too_large(name: str) -> UserError:
    return UserError(
        f"{name} has more than {PIL.Image.MAX_IMAGE_PIXELS:,} pixels; --max-pixels admits more."
    )


def _reason(error: Exception) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):
        return "unknown format"
    return str(error) or type(error).__name__


def _name(source: Path | bytes) -> str:
    return "The image" if isinstance(source, bytes) else str(source)
