"""Heatmap files: the heatmaps of some hundred images, of any shapes, in flat arrays.

`image_id`, `category_id`, `height`, `width` (int64), `score`, `probability`, `offset` and `step`
(float32) have one entry a heatmap. `values` (float32 or uint16) holds the heatmaps one after
another in row order; a heatmap is `offset + step * values`.

In float32 the offset is 0 and the step 1. In uint16 the values of a heatmap span 0 to 65535, so an
error is at most half a step, 2^-17 of the range. Float16 has the same size and errors up to 2^-12,
enough to move a box now and then.
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
from kgradcam.files import open_regular

_TYPES = {
    **dict.fromkeys(("image_id", "category_id", "height", "width"), ("int64",)),
    **dict.fromkeys(("score", "probability", "offset", "step"), ("float32",)),
    "values": ("float32", "uint16"),
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


def pack_heatmaps(heatmaps: Sequence[ClassHeatmap], dtype: str = "float32") -> bytes:
    """Returns the content of a heatmap file.

    Args:
        heatmaps: One or more heatmaps of finite values.
        dtype: `"float32"`, exact; or `"uint16"`, rounded in half the size.
    """
    maps = [each.heatmap for each in heatmaps]
    offsets, steps = np.zeros(len(maps), np.float32), np.ones(len(maps), np.float32)
    values = np.concatenate([each.ravel() for each in maps])
    if dtype == "uint16":
        ranges = np.array([(each.min(), each.max()) for each in maps], np.float64)
        offsets = ranges[:, 0].astype(np.float32)
        steps = ((ranges[:, 1] - ranges[:, 0]) / 65535).astype(np.float32)
        steps[steps == 0] = 1
        sizes = [each.size for each in maps]
        values = np.round((values - np.repeat(offsets, sizes)) / np.repeat(steps, sizes))
    arrays: dict[str, Any] = {
        "image_id": np.array([each.image_id for each in heatmaps], np.int64),
        "category_id": np.array([each.category_id for each in heatmaps], np.int64),
        "height": np.array([each.shape[0] for each in maps], np.int64),
        "width": np.array([each.shape[1] for each in maps], np.int64),
        "score": np.array([each.score for each in heatmaps], np.float32),
        "probability": np.array([each.probability for each in heatmaps], np.float32),
        "offset": offsets,
        "step": steps,
        "values": values.astype(dtype),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def read_heatmaps(path: Path) -> Iterator[ClassHeatmap]:
    """Reads a heatmap file, which may come from anyone.

    It takes memory in proportion to the file's size: arrays must be stored uncompressed, as by
    `np.savez`, and have the expected types and numbers of entries.

    Raises:
        UserError: The file is damaged, or is no heatmap file.
    """
    try:
        with open_regular(path, 2**36) as opened, zipfile.ZipFile(opened) as file:
            arrays = {name: _read_array(file, name, types) for name, types in _TYPES.items()}
    except Exception as error:  # zipfile and NumPy raise many kinds on damaged input
        raise UserError(f"{path} is no readable heatmap file: {error}") from error
    values = arrays.pop("values")
    height, width = arrays["height"], arrays["width"]
    sides = np.concatenate([height, width])
    if (
        len({len(array) for array in arrays.values()}) != 1
        # Each side is bounded first, so that no product overflows int64.
        or not ((sides > 0) & (sides <= len(values))).all()
        or (height.astype(np.float64) * width).sum() != len(values)
    ):
        raise UserError(f"{path} is no readable heatmap file: its arrays do not fit together.")
    numbers = (arrays[name] for name in ("score", "probability", "offset", "step"))
    if not all(np.isfinite(each).all() for each in (values, *numbers)):
        raise UserError(f"{path} holds NaN or infinite values.")
    ends = np.cumsum(height * width)
    for i, part in enumerate(np.split(values, ends[:-1]) if len(ends) else []):
        heatmap = part
        # Exact, also for the sign of a zero, where nothing was rounded.
        if part.dtype != np.float32 or arrays["offset"][i] != 0 or arrays["step"][i] != 1:
            with np.errstate(over="ignore"):
                heatmap = arrays["offset"][i] + arrays["step"][i] * part.astype(np.float32)
        if not np.isfinite(heatmap).all():
            raise UserError(f"{path} holds values that overflow float32.")
        yield ClassHeatmap(
            image_id=int(arrays["image_id"][i]),
            category_id=int(arrays["category_id"][i]),
            heatmap=heatmap.reshape(height[i], width[i]),
            score=float(arrays["score"][i]),
            probability=float(arrays["probability"][i]),
        )


def _read_array(file: zipfile.ZipFile, name: str, types: Sequence[str]) -> npt.NDArray[Any]:
    entry = file.getinfo(f"{name}.npy")
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > file.start_dir:
        raise ValueError(f"{name} is compressed, or larger than the file.")
    content = io.BytesIO(file.read(entry))
    np.lib.format.read_magic(content)
    shape, _, dtype = np.lib.format.read_array_header_1_0(content)
    data = content.read()
    if dtype not in map(np.dtype, types) or shape != (len(data) // dtype.itemsize,):
        expected = " or ".join(types)
        raise ValueError(f"{name} must be a row of {expected}. It is {dtype} of shape {shape}.")
    return np.frombuffer(data, dtype, shape[0])
