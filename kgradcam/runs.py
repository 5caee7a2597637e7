"""A run folder: what `kgradcam detect` found, in files that others can read.

==========================  =======================================================================
`run.json`                  the effective configuration, versions, model, layer, dataset and counts
`ground_truth.json`         COCO ground truth of the images and classes of the run
`detections-0.25.json`      COCO results for one threshold
`heatmaps/00000.npz`        raw heatmaps at the layer's own resolution, with their scores
==========================  =======================================================================

A heatmap file packs the maps of some hundred pictures, whatever their shapes, into flat arrays:
`image_id`, `category_id`, `height`, `width` (int64), `score`, `probability` (float32), one entry a
map, and `values` (float32), the maps one after another in row order.
"""

import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kgradcam.boxes import THRESHOLDS, Boxes, BoxOptions, boxes_by_option
from kgradcam.errors import UsageError, UserError
from kgradcam.files import write_atomically
from kgradcam.images import check_size
from kgradcam.progress import Advance, ignore
from kgradcam.records import (
    Detections,
    GroundTruth,
    read_detections,
    read_ground_truth,
    write_detections,
    write_ground_truth,
)

SCHEMA = 2
MAPS_PER_FILE = 512
_SAID = {"dataset": ("name", "split"), "model": ("name", "layer"), "counts": ("heatmaps",)}
_WIDEST_FILTER = 10_000
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


class Run:
    """A finished run.

    Its files may come from anybody: nothing in them is run, none leads out of the folder, and
    reading them takes memory in proportion to their size.

    Args:
        folder: What `kgradcam detect` wrote.

    Attributes:
        info: The content of `run.json`.
        options: How its heatmaps became boxes.
        thresholds: The thresholds whose detections are stored.

    Raises:
        UserError: The folder is no run, or one of another version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.info: dict[str, Any] = json.loads((folder / "run.json").read_text("utf-8"))
            if self.info["schema"] != SCHEMA:
                raise UserError(
                    f"{folder} has the schema {self.info['schema']!r}; this version reads {SCHEMA}."
                )
            self.options = BoxOptions(**self.info["boxes"])
            self.thresholds = [float(threshold) for threshold in self.info["thresholds"]]
            _check(self.info, self.options, self.thresholds)
        except FileNotFoundError:
            raise UserError(
                f"{folder} is no run: it holds no run.json. `kgradcam detect --out {folder}` "
                "makes one."
            ) from None
        except UsageError as error:  # of options, that here nobody has typed
            raise UserError(f"{folder}/run.json cannot be read: {error}") from error
        except UserError:
            raise
        except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
            raise UserError(f"{folder}/run.json cannot be read: {error!r}") from error

    @cached_property
    def ground_truth(self) -> GroundTruth:
        """The annotated boxes of the run's images and classes."""
        path = self.folder / "ground_truth.json"
        truth = read_ground_truth(path)
        for image in truth.images:
            check_size(f"{path}: {image.file_name!r}", image.width, image.height)
        return truth

    def heatmaps(self) -> Iterator[ClassHeatmap]:
        """Yields every heatmap of the run, in the order in which the model saw the images."""
        image_ids = {image.id for image in self.ground_truth.images}
        for path in sorted((self.folder / "heatmaps").glob("*.npz")):
            for record in _read_heatmaps(path):
                if record.image_id not in image_ids or not 1 <= record.category_id <= len(
                    self.ground_truth.categories
                ):
                    raise UserError(f"{path} has a heatmap of an image or class that is not there.")
                yield record

    def default_thresholds(self, options: BoxOptions) -> list[float]:
        """Returns the run's own thresholds, or those that other rules have by default."""
        own = options.rules == self.options.rules
        return self.thresholds if own else list(THRESHOLDS[options.rules])

    def detections(
        self,
        thresholds: Sequence[float],
        radii: Sequence[int] | None = None,
        options: BoxOptions | None = None,
        advance: Advance = ignore,
    ) -> dict[tuple[int, float], Detections]:
        """Returns the boxes for some options: stored ones, or drawn from the heatmaps.

        Args:
            thresholds: Any heat thresholds in [0, 1].
            radii: Widths of the smoothing filter in pixels. Default: that of the options.
            options: How heatmaps become boxes. Default: the run's own.
            advance: Called with the number of heatmaps done, if any are needed.

        Returns:
            By smoothing radius and threshold.
        """
        options = self.options if options is None else options
        radii = [options.smooth_radius] if radii is None else radii
        own = self.options.smooth_radius
        stored = options == self.options and set(radii) == {own}
        if stored and set(thresholds) <= set(self.thresholds):
            return {
                (own, threshold): read_detections(
                    self.folder / detections_name(threshold), self.ground_truth
                )
                for threshold in thresholds
            }
        return draw_boxes(self.heatmaps(), self.ground_truth, thresholds, radii, options, advance)


def draw_boxes(
    records: Iterable[ClassHeatmap],
    ground_truth: GroundTruth,
    thresholds: Sequence[float],
    radii: Sequence[int],
    box_options: BoxOptions,
    advance: Advance = ignore,
) -> dict[tuple[int, float], Detections]:
    """Draws the boxes of heatmaps, all options in one pass.

    Args:
        records: The heatmaps.
        ground_truth: Holds the sizes of their images.
        thresholds: Heat thresholds in [0, 1].
        radii: Widths of the smoothing filter in pixels.
        box_options: How heatmaps become boxes, but for these two.
        advance: Called with the number of heatmaps done.

    Returns:
        By smoothing radius and threshold.
    """
    sizes = {image.id: (image.width, image.height) for image in ground_truth.images}
    options = [(radius, threshold) for radius in radii for threshold in thresholds]
    rows: dict[tuple[int, float], list[_Row]] = {option: [] for option in options}

    def draw(record: ClassHeatmap) -> list[_Row]:
        found = boxes_by_option(
            record.heatmap,
            sizes[record.image_id],
            record.probability,
            thresholds,
            radii,
            box_options,
        )
        return [(record.image_id, record.category_id, boxes, scores) for boxes, scores in found]

    waiting = iter(records)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # A block at a time, so that the maps of a long run are never all in memory.
        while block := list(islice(waiting, MAPS_PER_FILE)):
            for found in pool.map(draw, block):
                for option, row in zip(options, found, strict=True):
                    rows[option].append(row)
                advance(1)
    return {option: _table(rows[option]) for option in options}


_Row = tuple[int, int, Boxes, Boxes]


def _table(rows: list[_Row]) -> Detections:
    """Joins the boxes of many heatmaps, ordered by image and class."""
    rows = sorted(rows, key=lambda row: row[:2])
    counts = [len(boxes) for _, _, boxes, _ in rows]
    ids = np.array([row[:2] for row in rows], np.int64).reshape(-1, 2)
    image_ids, category_ids = np.repeat(ids, counts, axis=0).T
    return Detections(
        image_ids=image_ids,
        category_ids=category_ids,
        boxes=np.concatenate([np.zeros((0, 4)), *(boxes for _, _, boxes, _ in rows)]),
        scores=np.concatenate([np.zeros(0), *(scores for _, _, _, scores in rows)]),
    )


def _check(info: dict[str, Any], options: BoxOptions, thresholds: Sequence[float]) -> None:
    """Raises what `Run` tells of a run.json that lacks something or has it of another type."""
    for part, names in _SAID.items():
        for name in names:
            if not isinstance(info[part][name], str | int | list):
                raise TypeError(f"{part}.{name}={info[part][name]!r}")
    radius = options.smooth_radius
    if type(radius) is not int or not 0 <= radius <= _WIDEST_FILTER:
        raise ValueError(f"smooth_radius={radius!r}")
    for name in ("overlap", "least"):
        if not 0 <= float(getattr(options, name)) <= 1:
            raise ValueError(f"{name}={getattr(options, name)!r}")
    if not thresholds or not all(0 <= threshold <= 1 for threshold in thresholds):
        raise ValueError(f"thresholds={thresholds!r}")


def detections_name(threshold: float) -> str:
    """Returns the name of the file with the detections for a threshold."""
    return f"detections-{threshold!r}.json"


class RunWriter:
    """Writes a run beside its final place, and moves it there when it is whole.

    Use it as a context manager: `finish` makes the run appear; leaving without it leaves nothing.

    Args:
        folder: Where the run shall be.
        force: Replaces a run that is already there. Anything else there is never touched.

    Raises:
        UserError: The folder exists.
    """

    def __init__(self, folder: Path, force: bool = False) -> None:
        self.folder = folder
        if folder.exists() and not (force and _replaceable(folder)):
            advice = "Choose another --out, or replace it with --force."
            if force:
                advice = "It holds other files than a run, so --force does not replace it."
            raise UserError(f"{folder} is already there. {advice}")
        self._partial = folder.with_name(f".{folder.name}.partial")
        self._heatmaps: list[ClassHeatmap] = []
        self._files = 0

    def __enter__(self) -> "RunWriter":
        shutil.rmtree(self._partial, ignore_errors=True)  # left behind by a run that was killed
        (self._partial / "heatmaps").mkdir(parents=True)
        return self

    def __exit__(self, *exception: object) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)  # gone already if the run is finished

    def add(self, record: ClassHeatmap) -> None:
        """Stores a heatmap."""
        self._heatmaps.append(record)
        if len(self._heatmaps) == MAPS_PER_FILE:
            self._flush()

    def _flush(self) -> None:
        path = self._partial / "heatmaps" / f"{self._files:05}.npz"
        write_atomically(path, _pack_heatmaps(self._heatmaps))
        self._heatmaps = []
        self._files += 1

    def finish(
        self, info: dict[str, Any], ground_truth: GroundTruth, advance: Advance = ignore
    ) -> Run:
        """Draws the boxes for `info["thresholds"]`, writes what is left, and publishes the run.

        Args:
            info: The content of `run.json`, with at least `boxes` (see `BoxOptions`) and
                `thresholds`.
            ground_truth: The annotated boxes of the run's images and classes.
            advance: Called with the number of heatmaps whose boxes are drawn.
        """
        if self._heatmaps:
            self._flush()
        text = json.dumps({"schema": SCHEMA, **info}, indent=2, ensure_ascii=False) + "\n"
        write_atomically(self._partial / "run.json", text)
        write_ground_truth(self._partial / "ground_truth.json", ground_truth)
        run = Run(self._partial)
        drawn = draw_boxes(
            run.heatmaps(),
            ground_truth,
            run.thresholds,
            [run.options.smooth_radius],
            run.options,
            advance,
        )
        for (_, threshold), detections in drawn.items():
            write_detections(self._partial / detections_name(threshold), detections)
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self._partial.rename(self.folder)
        return Run(self.folder)


def _replaceable(folder: Path) -> bool:
    return folder.is_dir() and ((folder / "run.json").is_file() or not any(folder.iterdir()))


def _pack_heatmaps(records: Sequence[ClassHeatmap]) -> bytes:
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


def _read_heatmaps(path: Path) -> Iterator[ClassHeatmap]:
    """Reads a heatmap file that may be anybody's.

    No more memory is taken than the file has bytes: arrays must be stored as `np.savez` does, not
    compressed, and of the type and the number of entries that they shall have.
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
