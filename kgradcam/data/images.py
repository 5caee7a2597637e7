"""Photographs as arrays: RGB, uint8, `[height, width, 3]`.

Files may be anybody's: what does not decode is a `UserError`, whatever is wrong with it, and a
picture of more pixels than `PIL.Image.MAX_IMAGE_PIXELS` (`--max-pixels`) is refused by its header.
"""

import io
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps

from kgradcam.errors import UserError

PIL.Image.init()
# Of Pillow's formats those of photographs: it would run Ghostscript for an EPS named .jpg.
_FORMATS = tuple(
    name
    for name in ("JPEG", "PNG", "BMP", "GIF", "JPEG2000", "MPO", "PPM", "TIFF", "WEBP", "AVIF")
    if name in PIL.Image.OPEN
)
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
_HEADERS = threading.Lock()
"""Filters of warnings belong to the process: a thread would take away those of another."""


def image_size(source: Path | bytes) -> tuple[int, int]:
    """Returns `(width, height)` of an encoded image, read from its header.

    Raises:
        UserError: It is missing, too large, or no image.
    """
    with _open(source) as image:
        return image.size


def is_turned(source: Path | bytes) -> bool:
    """Whether the EXIF data of an image tell viewers to swap its width and height."""
    with _open(source) as image:
        try:
            return image.getexif().get(_ORIENTATION) in _TURNED
        except Exception:  # damaged EXIF tells nothing
            return False


def read_image(
    source: Path | bytes, size: int | None = None, upright: bool = False
) -> npt.NDArray[np.uint8]:
    """Decodes an image.

    Grey becomes RGB, CMYK is converted, and of 16 bits the upper 8 are taken. What is transparent
    lies on white, as a page shows it. Of an animation it is the first frame.

    Args:
        source: A file, or its bytes.
        size: Resizes to `size` x `size` pixels, bicubic with antialiasing, whatever the shape was.
        upright: Turns the picture as its EXIF data ask. Default: the pixels as they are stored,
            which is what annotations count.

    Returns:
        uint8 `[height, width, 3]`, RGB.

    Raises:
        UserError: It is missing, damaged, too large, or no image.
    """
    with _open(source) as image:
        try:
            rgb = _to_rgb(PIL.ImageOps.exif_transpose(image) if upright else image)
        except Exception as error:  # Pillow's decoders raise many kinds on damaged input
            raise UserError(f"{_name(source)} does not decode: {_reason(error)}.") from error
    if size is not None:
        rgb = rgb.resize((size, size), PIL.Image.Resampling.BICUBIC)
    return np.asarray(rgb)


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return PIL.Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("its 32-bit numbers have no range that is known")
    if image.has_transparency_data:
        opaque = PIL.Image.new("RGBA", image.size, "white")
        return PIL.Image.alpha_composite(opaque, image.convert("RGBA")).convert("RGB")
    image.load()  # where it is RGB already, nothing is left to copy
    return image if image.mode == "RGB" else image.convert("RGB")


def read_labels(path: Path) -> npt.NDArray[np.uint8]:
    """Decodes an image whose pixels are labels: the indices of a palette, or grey levels.

    Raises:
        UserError: It is missing, damaged, too large, or of another kind.
    """
    with _open(path) as image:
        if image.mode not in ("P", "L"):
            raise UserError(f"{path} must hold labels, palette or grey. Received: {image.mode}.")
        try:
            return np.asarray(image)
        except Exception as error:
            raise UserError(f"{path} does not decode: {_reason(error)}.") from error


def _open(source: Path | bytes) -> Any:
    try:
        with _HEADERS, warnings.catch_warnings():
            # Pillow warns from its limit on, and refuses twice as much.
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            return PIL.Image.open(
                io.BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS
            )
    except FileNotFoundError:
        raise UserError(f"No image {_name(source)}.") from None
    except (PIL.Image.DecompressionBombWarning, PIL.Image.DecompressionBombError):
        raise _too_large(_name(source)) from None
    except Exception as error:
        raise UserError(f"{_name(source)} is no readable image: {_reason(error)}.") from error


def check_size(name: str, width: int, height: int) -> None:
    """Holds a size that a file tells to what a picture can have.

    Raises:
        UserError: There is no such picture, or it is too large.
    """
    if width < 1 or height < 1:
        raise UserError(f"{name} is no picture: its size is {width}x{height}.")
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
