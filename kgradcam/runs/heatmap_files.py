"""Heatmap files: the maps of some hundred pictures, whatever their shapes, in flat arrays.

`image_id`, `category_id`, `height`, `width` (int64), `score` and `probability` (float32) have one
entry a map; `values` (float32) holds the maps one after another in row order.
"""

import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kgradcam.errors import UserError

_ARRAYS = {
    **dict.fromkeys(("image_id", "category_id", "height", "width"), "int64"),
    **dict.fromkeys(("score", "probability", "values"), "float32"),
}


@dataclass(frozen=True)
class ClassHeatmap:
    """The heatmap of one class on one image.

    Attributes:
        image_id: The image in `ground_truth.json`.
        category_id: The class in `ground_truth.json`.
        heatmap: float32 `[height, width]` at the layer's resolution, not normalized.
        score: The explained score, a logit.
        probability: The model's probability of the class.
    """

    image_id: int
    category_id: int
    heatmap: npt.NDArray[np.float32]
    score: float
    probability: float


def pack_heatmaps(records: Sequence[ClassHeatmap]) -> bytes:
    """Returns the content of a heatmap file."""
    arrays: dict[str, Any] = {
        "image_id": np.array([record.image_id for record in records], np.int64),
        "category_id": np.array([record.category_id for record in records], np.int64),
        "height": np.array([record.heatmap.shape[0] for record in records], np.int64),
        "width": np.array([record.heatmap.shape[1] for record in records], np.int64),
        "score": np.array([record.score for record in records], np.float32),
        "probability": np.array([record.probability for record in records], np.float32),
        "values": np.concatenate([record.heatmap.ravel() for record in records]),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def read_heatmaps(path: Path) -> Iterator[ClassHeatmap]:
    """Reads a heatmap file that may be anybody's.

    No more memory is taken than the file has bytes: arrays must be stored as `np.savez` does, not
    compressed, and of the type and the number of entries that they shall have.

    Raises:
        UserError: It is damaged, or something else.
    """
    try:
        with zipfile.ZipFile(path) as file:
            arrays = {name: _read_array(file, name, kind) for name, kind in _ARRAYS.items()}
    except Exception as error:  # zipfile and NumPy raise many kinds on damaged input
        raise UserError(f"{path} is no readable heatmap file: {error}") from error
    values = arrays.pop("values")
    height, width = arrays["height"], arrays["width"]
    sides = np.concatenate([height, width])
    if (
        len({len(array) for array in arrays.values()}) != 1
        # Bounded one by one first, so that no product leaves int64.
        or not ((sides > 0) & (sides <= len(values))).all()
        or (height.astype(np.float64) * width).sum() != len(values)
    ):
        raise UserError(f"{path} is no readable heatmap file: its arrays do not fit together.")
    scores = (arrays["score"], arrays["probability"])
    if not all(np.isfinite(each).all() for each in (values, *scores)):
        raise UserError(f"{path} holds NaN or infinite values.")
    ends = np.cumsum(height * width)
    for i, part in enumerate(np.split(values, ends[:-1]) if len(ends) else []):
        yield ClassHeatmap(
            image_id=int(arrays["image_id"][i]),
            category_id=int(arrays["category_id"][i]),
            heatmap=part.reshape(height[i], width[i]),
            score=float(arrays["score"][i]),
            probability=float(arrays["probability"][i]),
        )


def _read_array(file: zipfile.ZipFile, name: str, kind: str) -> npt.NDArray[Any]:
    entry = file.getinfo(f"{name}.npy")
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > file.start_dir:
        raise ValueError(f"{name} is compressed, or larger than the file.")
    content = io.BytesIO(file.read(entry))
    np.lib.format.read_magic(content)
    shape, _, dtype = np.lib.format.read_array_header_1_0(content)
    data = content.read()
    if dtype != np.dtype(kind) or shape != (len(data) // dtype.itemsize,):
        raise ValueError(f"{name} must be a row of {kind}. It is {dtype} of shape {shape}.")
    return np.frombuffer(data, dtype, shape[0])
