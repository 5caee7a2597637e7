"""The images of a dataset and their annotated objects, whatever layout they were read from.

A layout is one module that reads its files into `Example`s and names each image that it skips;
see `voc_folder`. `dataset` then decodes the images of any layout.
"""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kgradcam.data.images import MAX_IMAGE_BYTES
from kgradcam.errors import UserError
from kgradcam.files import file_digest

NO_DIGEST = "none"
"""The digest of an image file that cannot be read."""


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
        labels: Classes that are annotated on the image without a box.
    """

    names: tuple[str, ...]
    boxes: npt.NDArray[np.float64]
    difficult: npt.NDArray[np.bool_]
    poses: tuple[str, ...]
    truncated: npt.NDArray[np.bool_]
    image_size: tuple[int, int] | None = None
    labels: tuple[str, ...] = ()

    @property
    def classes(self) -> frozenset[str]:
        """The classes annotated on the image, with or without a box."""
        return frozenset((*self.names, *self.labels))


NO_OBJECTS = Objects((), np.zeros((0, 4)), np.zeros(0, bool), (), np.zeros(0, bool))
"""The objects of an image without annotation."""


def boxed(
    names: Sequence[str],
    boxes: npt.ArrayLike,
    size: tuple[int, int],
    clip: bool,
    difficult: Sequence[bool] = (),
    labels: Iterable[str] = (),
) -> Objects:
    """Returns objects whose boxes are inside their image, for layouts other than VOC.

    A box may exceed the image by one pixel, the rounding of some tools, and is then clipped.

    Args:
        names: The class of each object.
        boxes: `[objects, 4]`, xyxy in pixels from 0, half-open.
        size: Width and height of the image.
        clip: Clips boxes that leave the image, and drops those that keep no pixel.
        difficult: Whether each object is difficult. Default: none is.
        labels: Classes annotated without a box.

    Raises:
        UserError: A box is not finite, has no area, or leaves the image and `clip` is false.
    """
    given = np.asarray(boxes, np.float64).reshape(-1, 4)
    limits = np.array([*size, *size], np.float64)
    inside = np.clip(given, 0, limits)
    is_finite = np.isfinite(given).all(axis=1)
    has_area = (inside[:, :2] < inside[:, 2:]).all(axis=1)
    stays = (np.abs(given - inside) <= 1).all(axis=1)
    problems = [("is not finite", ~is_finite)]
    if not clip:
        advice = f"leaves the image, which is {size[0]}x{size[1]}; --clip clips such boxes"
        problems += [(advice, ~stays), ("has no area; --clip drops such boxes", ~has_area)]
    for problem, rows in problems:
        if rows.any():
            row = int(np.flatnonzero(rows)[0])
            raise UserError(f"The box {given[row].round(2).tolist()} of {names[row]!r} {problem}.")
    flags = np.array(difficult or [False] * len(given), bool)
    kept = tuple(names[row] for row in np.flatnonzero(has_area).tolist())
    count = len(kept)
    return Objects(
        names=kept,
        boxes=inside[has_area],
        difficult=flags[has_area],
        poses=("unspecified",) * count,
        truncated=np.zeros(count, bool),
        labels=tuple(dict.fromkeys(labels)),
    )


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
    paths = (each.path for each in examples if each.path)
    with ThreadPoolExecutor(16) as pool:  # an object store answers many requests at a time
        blocks = iter(lambda: list(islice(paths, 4096)), [])
        return joined_digest(chain.from_iterable(pool.map(image_digest, each) for each in blocks))


def image_digest(path: Path) -> str:
    """Returns a digest of an image file; `NO_DIGEST` if it cannot be read."""
    try:
        return file_digest(path, MAX_IMAGE_BYTES)
    except (OSError, UserError):  # left out later, with the reason
        return NO_DIGEST


def joined_digest(digests: Iterable[str]) -> str:
    """Returns one digest of the digests of many files."""
    digest = hashlib.sha256()
    for each in digests:
        digest.update(each.encode())
    return digest.hexdigest()[:16]
