"""The requirements of every export: a free place, and a model whose input is known."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf

from kgradcam.errors import UserError
from kgradcam.files import move, partial_path
from kgradcam.serving.pictures import PictureInput

_MAX_PIXELS = {"resized": 2**24, "as they are": 2**22}


def require_new(folder: Path) -> None:
    """Checks that nothing is at the path of an export.

    Raises:
        UserError: Something is there.
    """
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} is already there. Choose another folder, such as a new version.")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yields a path to write a folder at, which is then moved to its place, or removed."""
    partial = partial_path(folder)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        move(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def picture_input(specs: Any, size: int | None, max_pixels: int | None) -> PictureInput | None:
    """Returns how pictures become the input of a model, or `None` if it takes no pictures.

    Args:
        specs: The specs of the inputs of the model.
        size: The side to resize pictures to, for a model that takes any size.
        max_pixels: The pixels that a picture may have, or `None` for the default.

    Raises:
        UserError: The size is out of range, or not that of the model.
    """
    flat = tf.nest.flatten(specs)
    shape = flat[0].shape
    if len(flat) > 1 or shape.rank != 4 or shape[-1] not in (1, 3):
        if size is not None:
            raise UserError(f"size needs a model of one picture. This one takes {specs}.")
        return None
    fixed = tuple(shape[1:3])
    if size is not None and not (isinstance(size, int) and 1 <= size <= 4096):
        raise UserError(f"size must be 1 to 4096 pixels. Received: {size!r}.")
    if size is not None and any(side not in (None, size) for side in fixed):
        raise UserError(f"size={size} is not the size of this model, {fixed[0]}x{fixed[1]}.")
    sides = (size, size) if size is not None else None if None in fixed else fixed
    default = _MAX_PIXELS["as they are" if sides is None else "resized"]
    return PictureInput(shape[-1], sides, max_pixels or default)
