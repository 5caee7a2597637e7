"""The images of a dataset and their annotated objects, whatever layout they were read from.

A layout is one module that reads its files into `Example`s and names each image that it skips;
see `voc_folder`. `dataset` then decodes the images of any layout.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kgradcam.data.images import MAX_IMAGE_BYTES
from kgradcam.errors import UserError
from kgradcam.files import file_digest


@dataclass(frozen=True, slots=True)
class Objects:
    """The annotated objects of one image.

    Attributes:
        names: The class name of each object.
        boxes: float64 `[objects, 4]`, xyxy in pixels from 0, half-open.
        difficult: bool `[objects]`; false if the annotation has no such field.
        poses: The pose of each object, one of `voc.POSES`; `"unspecified"` if the annotation has
            none of them.
        truncated: bool `[objects]`; false if the annotation has no such field.
        image_size: Width and height of the image according to the annotation; `None` without them.
    """

    names: tuple[str, ...]
    boxes: npt.NDArray[np.float64]
    difficult: npt.NDArray[np.bool_]
    poses: tuple[str, ...]
    truncated: npt.NDArray[np.bool_]
    image_size: tuple[int, int] | None = None


NO_OBJECTS = Objects((), np.zeros((0, 4)), np.zeros(0, bool), (), np.zeros(0, bool))
"""The objects of an image without annotation."""


@dataclass(frozen=True, slots=True)
class Example:
    """One image and its annotation.

    Attributes:
        index: Its position in the split, from 0.
        file_name: Its file name, as `"000001.jpg"`.
        width: Width in pixels.
        height: Height in pixels.
        objects: Its annotated objects.
        path: Its file; `None` if its bytes come from a tensorflow-datasets record.
    """

    index: int
    file_name: str
    width: int
    height: int
    objects: Objects
    path: Path | None = None


def files_digest(examples: Iterable[Example]) -> str:
    """Returns 16 hexadecimal digits that depend on each byte of the image files.

    Args:
        examples: The images. Those of prepared tensorflow-datasets have no files and are not read.
    """
    digest = hashlib.sha256()
    for path in (example.path for example in examples if example.path):
        try:
            digest.update(file_digest(path, MAX_IMAGE_BYTES).encode())
        except (OSError, UserError):  # left out later, with the reason
            digest.update(b"none")
    return digest.hexdigest()[:16]
