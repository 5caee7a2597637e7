"""Photographs as arrays: RGB, uint8, `[height, width, 3]`."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image

from kgradcam.errors import UserError


def image_size(source: Path | bytes) -> tuple[int, int]:
    """Returns `(width, height)` of an encoded image, read from its header.

    Raises:
        UserError: It is missing, or no image.
    """
    with _open(source) as image:
        return image.size


def read_image(source: Path | bytes, size: int | None = None) -> npt.NDArray[np.uint8]:
    """Decodes an image.

    Args:
        source: A file, or its bytes.
        size: Resizes to `size` x `size` pixels, bicubic with antialiasing, whatever the shape was.

    Returns:
        uint8 `[height, width, 3]`, RGB.

    Raises:
        UserError: It is missing, damaged, or no image.
    """
    with _open(source) as image:
        try:
            rgb = image.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:  # Pillow's answers to damaged files
            raise UserError(f"{_name(source)} does not decode: {error}.") from error
    if size is not None:
        rgb = rgb.resize((size, size), PIL.Image.Resampling.BICUBIC)
    return np.asarray(rgb)


def read_labels(path: Path) -> npt.NDArray[np.uint8]:
    """Decodes an image whose pixels are labels: the indices of a palette, or grey levels.

    Raises:
        UserError: It is missing, damaged, or of another kind.
    """
    with _open(path) as image:
        if image.mode not in ("P", "L"):
            raise UserError(f"{path} must hold labels, palette or grey. Received: {image.mode}.")
        try:
            return np.asarray(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{path} does not decode: {error}.") from error


def _open(source: Path | bytes) -> PIL.Image.Image:
    try:
        return PIL.Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except FileNotFoundError:
        raise UserError(f"No image {_name(source)}.") from None
    except (OSError, SyntaxError, ValueError) as error:
        reason = "unknown format" if isinstance(error, PIL.UnidentifiedImageError) else error
        raise UserError(f"{_name(source)} is no readable image: {reason}.") from error


def _name(source: Path | bytes) -> str:
    return "The image" if isinstance(source, bytes) else str(source)
