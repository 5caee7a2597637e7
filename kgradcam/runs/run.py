"""Reads a run folder.

==========================  =======================================================================
`run.json`                  the options, versions, dataset, model, layer, counts, and a digest of
                            each other file; see `RunInfo`
`ground_truth.json`         COCO ground truth of the images and classes of the run
`detections-0.25.json`      COCO results for one threshold
`heatmaps/00000.npz`        heatmaps at the layer's resolution, not normalized, with their scores
==========================  =======================================================================
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.options import DEFAULT_THRESHOLDS, BoxOptions
from kgradcam.boxes.overlap import Boxes
from kgradcam.data.images import check_size
from kgradcam.errors import UserError, errors_in_file
from kgradcam.files import read_json
from kgradcam.progress import Advance, ignore
from kgradcam.runs.coco_files import read_detections, read_ground_truth
from kgradcam.runs.drawn_boxes import draw_boxes
from kgradcam.runs.heatmap_files import ClassHeatmap, read_heatmaps
from kgradcam.runs.run_info import RunInfo
from kgradcam.runs.tables import Detections, GroundTruth, Image, join
from kgradcam.runs.whole_run import require_complete, require_unchanged
from kgradcam.storage import place, storage_errors

_MAX_INFO_BYTES = 2**28  # of run.json, with the reasons for some million skipped images


@dataclass(frozen=True)
class ImageResult:
    """The boxes and heatmaps of one image.

    Attributes:
        image: The image.
        class_names: The class of each box.
        boxes: float64 `[boxes, 4]`, xyxy in pixels from 0, half-open.
        scores: float64 `[boxes]`.
        heatmaps: float32 `[height, width]` at the layer's resolution, by class.
    """

    image: Image
    class_names: tuple[str, ...]
    boxes: Boxes
    scores: npt.NDArray[np.float64]
    heatmaps: dict[str, npt.NDArray[np.float32]]


class Run:
    """A finished run; iterating over it yields an `ImageResult` for each image.

    The folder may come from anyone: reading it executes nothing, opens no file outside it, and
    takes memory in proportion to its size.

    Args:
        folder: A folder that `kgradcam detect` has written, or its URL on an object store.

    Attributes:
        folder: The folder.
        info: The content of `run.json`.

    Raises:
        UserError: The folder is no run, its schema is another one, or a file of it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder = place(folder)
        path = folder / "run.json"
        with storage_errors(folder):
            if not path.exists():
                raise UserError(
                    f"{folder} is no run: it holds no run.json. `kgradcam detect --out {folder}` "
                    "makes one."
                )
            content = read_json(path, _MAX_INFO_BYTES)
            with errors_in_file(path, "description of a run"):
                self.info = RunInfo.from_json(content)
            require_complete(folder, self.info.files)

    @property
    def options(self) -> BoxOptions:
        """How the heatmaps of the run became boxes."""
        return self.info.configuration.boxes

    @property
    def thresholds(self) -> list[float]:
        """The thresholds whose detections are stored."""
        return list(self.info.configuration.thresholds)

    @cached_property
    def ground_truth(self) -> GroundTruth:
        """The annotated boxes of the run's images and classes.

        Raises:
            UserError: `ground_truth.json` has changed or is damaged, has another number of images
                or objects than `run.json`, or an image has no valid size.
        """
        path = self._unchanged("ground_truth.json")
        truth = read_ground_truth(path)
        self._require_count("images", len(truth.images))
        self._require_count("objects", len(truth.boxes))
        for image in truth.images:
            check_size(f"{path}: {image.file_name!r}", image.width, image.height)
        return truth

    def heatmaps(self) -> Iterator[ClassHeatmap]:
        """Yields every heatmap of the run, in the order in which the images were explained.

        Raises:
            UserError: A heatmap file has changed or is damaged, refers to an unknown image or
                class, or there are more or fewer heatmaps than `run.json` has.
        """
        count = 0
        image_ids = {image.id for image in self.ground_truth.images}
        categories = len(self.ground_truth.categories)
        paths = (self.folder / "heatmaps").glob("*.npz")
        # By number: names have five digits or more.
        for path in sorted(paths, key=lambda path: (len(path.name), path.name)):
            for record in read_heatmaps(self._unchanged(f"heatmaps/{path.name}")):
                if record.image_id not in image_ids or not 1 <= record.category_id <= categories:
                    raise UserError(f"{path} has a heatmap of an unknown image or class.")
                yield record
                count += 1
        self._require_count("heatmaps", count)

    def __iter__(self) -> Iterator[ImageResult]:
        """Yields the boxes and heatmaps of each image, at the highest threshold of the run.

        Images come in the order in which they were explained; those without a heatmap last.

        Raises:
            UserError: See `heatmaps`.
        """
        table = self._boxes(None)
        images = {image.id: image for image in self.ground_truth.images}
        starts = np.searchsorted(table.image_ids, list(images), "left")
        rows = dict(zip(images, starts.tolist(), strict=True))
        names = self.ground_truth.categories

        def result(image: Image, heatmaps: dict[str, npt.NDArray[np.float32]]) -> ImageResult:
            end = np.searchsorted(table.image_ids, image.id, "right")
            part = table.select(np.arange(rows[image.id], end))
            classes = tuple(names[i - 1] for i in part.category_ids)
            return ImageResult(image, classes, part.boxes, part.scores, heatmaps)

        # The heatmaps of an image are stored one after another.
        for image_id, records in itertools.groupby(self.heatmaps(), lambda each: each.image_id):
            heatmaps = {names[each.category_id - 1]: each.heatmap for each in records}
            yield result(images.pop(image_id), heatmaps)
        for image in images.values():
            yield result(image, {})

    def to_dataframe(self, threshold: float | None = None) -> Any:
        """Returns the boxes as a pandas `DataFrame`, a row for each.

        Args:
            threshold: A threshold of the run. Default: its highest.

        Returns:
            Columns `file_name`, `class_name`; `xmin`, `ymin`, `xmax`, `ymax` in pixels; `score`.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise UserError("A DataFrame needs pandas: pip install pandas") from None
        table = self._boxes(threshold)
        files = {image.id: image.file_name for image in self.ground_truth.images}
        names = self.ground_truth.categories
        corners = dict(zip(("xmin", "ymin", "xmax", "ymax"), table.boxes.T, strict=True))
        return pandas.DataFrame(
            {
                "file_name": [files[i] for i in table.image_ids.tolist()],
                "class_name": [names[i - 1] for i in table.category_ids.tolist()],
                **corners,
                "score": table.scores,
            }
        )

    def _boxes(self, threshold: float | None) -> Detections:
        threshold = max(self.thresholds) if threshold is None else threshold
        (found,) = self.detections([threshold]).values()
        return join([found])  # ordered by image

    def default_thresholds(self, options: BoxOptions) -> list[float]:
        """Returns the run's thresholds if `options` has the same rules, else their defaults."""
        same_rules = options.rules == self.options.rules
        return self.thresholds if same_rules else list(DEFAULT_THRESHOLDS[options.rules])

    def stores(
        self, thresholds: Sequence[float], radii: Sequence[int], options: BoxOptions
    ) -> bool:
        """Returns whether `detections` of these options are read, not drawn."""
        same_options = options == self.options and set(radii) == {options.smooth_radius}
        return same_options and set(thresholds) <= set(self.thresholds)

    def detections(
        self,
        thresholds: Sequence[float],
        radii: Sequence[int] | None = None,
        options: BoxOptions | None = None,
        advance: Advance = ignore,
    ) -> dict[tuple[int, float], Detections]:
        """Returns the boxes for some options: the stored ones, or drawn from the heatmaps.

        Those of a run with a refiner are refined as stored, not as drawn.

        Args:
            thresholds: Heat thresholds in [0, 1].
            radii: Smoothing radii in pixels. Default: the radius of `options`.
            options: How a heatmap becomes boxes. Default: the options of the run.
            advance: Called with 1 after each heatmap that is drawn.

        Returns:
            Detections by smoothing radius and threshold, ordered by image and class.
        """
        options = self.options if options is None else options
        radii = [options.smooth_radius] if radii is None else radii
        if self.stores(thresholds, radii, options):
            return {
                (options.smooth_radius, threshold): read_detections(
                    self._unchanged(detections_name(threshold)), self.ground_truth
                )
                for threshold in thresholds
            }
        images = self.ground_truth.images
        return draw_boxes(self.heatmaps(), images, thresholds, radii, options, advance)

    def _unchanged(self, name: str) -> Path:
        return require_unchanged(self.folder, name, self.info.files)

    def _require_count(self, name: str, count: int) -> None:
        listed = getattr(self.info.counts, name)
        if count != listed:
            raise UserError(f"{self.folder} has {count} {name}; its run.json has {listed}.")


def detections_name(threshold: float) -> str:
    """Returns the name of the file with the detections for a threshold."""
    return f"detections-{threshold!r}.json"
