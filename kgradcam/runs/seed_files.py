"""The result files of the scripts that kgradcam grew from, read without running their pickles.

The files hold the dogs of VOC2007 test: a dict from an image's Windows path to an array, VOC's own
integers `[n, 4]` for the ground truth, and rows of xmin, ymin, xmax, ymax, score for detections
(half-open slices, and a constant score).
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt

from kgradcam.errors import UserError
from kgradcam.models import safe_pickle
from kgradcam.runs.tables import Detections, GroundTruth, Image, errors_name

CATEGORY = "dog"
_DTYPES = frozenset({"i4", "i8", "f4", "f8"})


def read_seed_ground_truth(path: Path) -> GroundTruth:
    """Reads annotated boxes.

    The file does not tell the images' sizes: they are 0.

    Raises:
        UserError: The file is missing, damaged, or holds something else.
    """
    arrays = _read_arrays(path, columns=4)
    boxes = np.concatenate([np.zeros((0, 4)), *arrays.values()])
    counts = [len(rows) for rows in arrays.values()]
    with errors_name(path, "ground truth of the seed"):
        return GroundTruth(
            images=tuple(Image(i, name, 0, 0) for i, name in enumerate(arrays, start=1)),
            categories=(CATEGORY,),
            image_ids=np.repeat(np.arange(1, len(arrays) + 1), counts),
            category_ids=np.ones(len(boxes), np.int64),
            boxes=boxes - np.array([1.0, 1.0, 0.0, 0.0]),  # VOC counts from 1
            difficult=np.zeros(len(boxes), bool),
        )


def read_seed_detections(path: Path, ground_truth: GroundTruth) -> Detections:
    """Reads detections, in the order of the file.

    Args:
        path: The file.
        ground_truth: What they refer to; its categories must include `"dog"`.

    Raises:
        UserError: The file is missing, damaged, holds something else, or names an unknown image.
    """
    if CATEGORY not in ground_truth.categories:
        raise UserError(
            f"{path} holds boxes of {CATEGORY!r}, which is none of the ground truth's classes: "
            f"{', '.join(ground_truth.categories)}."
        )
    category_id = ground_truth.categories.index(CATEGORY) + 1
    arrays = _read_arrays(path, columns=5)
    ids = {image.file_name: image.id for image in ground_truth.images}
    unknown = [name for name in arrays if name not in ids]
    if unknown:
        raise UserError(f"{path} refers to the image {unknown[0]!r}, which is not there.")
    rows = np.concatenate([np.zeros((0, 5)), *arrays.values()])
    counts = [len(each) for each in arrays.values()]
    with errors_name(path, "detections of the seed"):
        return Detections(
            image_ids=np.repeat(np.array([ids[name] for name in arrays], np.int64), counts),
            category_ids=np.full(len(rows), category_id, np.int64),
            boxes=rows[:, :4],
            scores=rows[:, 4],
        )


def _read_arrays(path: Path, columns: int) -> dict[str, npt.NDArray[np.float64]]:
    allowed = {
        ("numpy.core.numeric", "_frombuffer"): _Array,
        ("numpy._core.numeric", "_frombuffer"): _Array,
        ("numpy", "dtype"): _DType,
    }
    try:
        with path.open("rb") as file:
            content = safe_pickle.load(file, allowed)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except safe_pickle.UnsafePickleError as error:
        raise UserError(f"{path}: {error}") from error
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(array, _Array) for name, array in content.items()
    ):
        raise UserError(f"{path} must hold a dict from file names to arrays.")
    names = Counter(PureWindowsPath(name).name for name in content)
    if names and max(names.values()) > 1:
        raise UserError(f"{path} holds the image {names.most_common(1)[0][0]!r} twice.")
    arrays = {PureWindowsPath(name).name: array.decode(path) for name, array in content.items()}
    if any(array.shape[1] != columns for array in arrays.values()):
        raise UserError(f"{path} must hold arrays of {columns} columns.")
    return arrays


class _DType(safe_pickle.Stateful):
    """What a pickle says of a dtype; nothing of it ever reaches NumPy but a checked name."""

    def __init__(self, name: Any, *rest: Any) -> None:
        self.name = name
        self.byte_order = "<"

    def __setstate__(self, state: Any) -> None:
        self.byte_order = state[1]


@dataclass(frozen=True)
class _Array:
    """What a pickle says of an array."""

    data: Any
    dtype: Any
    shape: Any
    order: Any

    def decode(self, path: Path) -> npt.NDArray[np.float64]:
        """Returns the array; what does not fit together raises."""
        well_formed = (
            isinstance(self.data, bytes | bytearray)
            and isinstance(self.dtype, _DType)
            and isinstance(self.dtype.name, str)
            and self.dtype.name in _DTYPES
            and self.dtype.byte_order == "<"
            and isinstance(self.shape, tuple)
            and len(self.shape) == 2
            and all(isinstance(side, int) and side >= 0 for side in self.shape)
            and self.order == "C"
        )
        if not well_formed:
            raise UserError(f"{path} holds an array that is no plain table of numbers.")
        try:
            values = np.frombuffer(self.data, f"<{self.dtype.name}").reshape(self.shape)
        except ValueError as error:
            raise UserError(f"{path} holds a damaged array: {error}") from error
        return values.astype(np.float64)
