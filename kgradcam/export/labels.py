"""The boxes of a run by image, in the order in which people should review them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from kgradcam.boxes.overlap import Boxes
from kgradcam.errors import UserError, require_known
from kgradcam.runs.run import Run
from kgradcam.runs.tables import Detections, Image

ORDERS = ("name", "doubt")
_REPLACED = str.maketrans(dict.fromkeys('\\:*?"<>|', "_"))


@dataclass(frozen=True)
class LabelledImage:
    """An image with its boxes, the most confident first.

    Attributes:
        image: The image of the run.
        name: Its path in the export, with `/`; another one than in the run if only the suffix
            distinguished it from another image.
        classes: int64 `[boxes]`, positions in `Labels.categories`, from 0.
        boxes: float64 `[boxes, 4]`, xyxy in pixels from 0, half-open.
        scores: float64 `[boxes]`.
        doubt: The sum of 1 - score over its boxes: many boxes of low scores come first.
    """

    image: Image
    name: str
    classes: npt.NDArray[np.int64]
    boxes: Boxes
    scores: npt.NDArray[np.float64]
    doubt: float


class LabelledImages(Sequence[LabelledImage]):
    """Images with their boxes; each is made when it is used.

    Args:
        images: The images.
        names: Their names in the export.
        starts: int64 `[images + 1]`: the rows of image i are `starts[i]` to `starts[i + 1]`.
        classes: int64 `[boxes]`, from 0.
        table: The boxes of one image after another, the most confident first.
    """

    def __init__(
        self,
        images: Sequence[Image],
        names: Sequence[str],
        starts: npt.NDArray[np.int64],
        classes: npt.NDArray[np.int64],
        table: Detections,
    ) -> None:
        self._images, self._names, self._starts = images, names, starts
        self._classes, self._table = classes, table
        self._order = np.arange(len(images))

    @property
    def boxes(self) -> int:
        """The number of boxes of all images."""
        return len(self._table.boxes)

    @override
    def __len__(self) -> int:
        return len(self._images)

    @override
    def __getitem__(self, place: Any) -> Any:
        i = self._order[place]
        rows = slice(self._starts[i], self._starts[i + 1])
        scores = self._table.scores[rows]
        return LabelledImage(
            self._images[i],
            self._names[i],
            self._classes[rows],
            self._table.boxes[rows],
            scores,
            float(np.clip(1 - scores, 0, None).sum()),
        )

    def table(self) -> Detections:
        """Returns all boxes, image by image; images and classes are numbered from 1."""
        counts = np.diff(self._starts)[self._order]
        before = np.cumsum(counts) - counts
        rows = np.repeat(self._starts[self._order] - before, counts) + np.arange(counts.sum())
        ids = np.repeat(np.arange(1, len(counts) + 1), counts)
        boxes, scores = self._table.boxes[rows], self._table.scores[rows]
        return Detections(ids, self._classes[rows] + 1, boxes, scores)

    def sort_by_doubt(self) -> None:
        """Puts the most doubtful images first; equal ones keep their order."""
        self._order = self._order[np.argsort([-each.doubt for each in self], kind="stable")]


@dataclass(frozen=True)
class Labels:
    """The labels to export.

    Attributes:
        images: The images, in the order of review.
        categories: The class names.
        source: The model and the method, as the version of predictions.
    """

    images: LabelledImages
    categories: tuple[str, ...]
    source: str


def labels_of_run(
    run: Run, min_score: float = 0.0, threshold: float | None = None, order: str = "name"
) -> Labels:
    """Returns the boxes of a run by image.

    Args:
        run: The run.
        min_score: The lowest score of a box to export.
        threshold: The heat threshold, one of the run's. Default: its highest.
        order: `"name"`, the order of the run; or `"doubt"`, the most doubtful first.

    Returns:
        All images of the run, also those without a box; and its classes that have a box at any
        score, or an object.

    Raises:
        UserError: The threshold is not one of the run, an image has no safe name, or the run is
            damaged.
    """
    require_known("order", order, ORDERS)
    threshold = max(run.thresholds) if threshold is None else threshold
    if threshold not in run.thresholds:
        raise UserError(
            f"threshold must be one of the run's: {', '.join(map(str, run.thresholds))}. "
            f"Received: {threshold}."
        )
    truth = run.ground_truth
    (found,) = run.detections([threshold]).values()
    used = np.union1d(found.category_ids, truth.category_ids)
    kept = found.select(found.scores >= min_score)
    ids = np.array([image.id for image in truth.images], np.int64)
    by_id = np.argsort(ids)
    places = by_id[np.searchsorted(ids[by_id], kept.image_ids)]
    in_order = np.lexsort((-kept.scores, places))  # stable
    kept, places = kept.select(in_order), places[in_order]
    images = LabelledImages(
        truth.images,
        _export_names([image.file_name for image in truth.images]),
        np.searchsorted(places, np.arange(len(ids) + 1)),
        np.searchsorted(used, kept.category_ids),
        kept,
    )
    if order == "doubt":
        images.sort_by_doubt()
    info = run.info
    source = f"{info.model.name}-{info.model.digest[:8]}-{info.configuration.method}"
    return Labels(images, tuple(truth.categories[i - 1] for i in used.tolist()), source)


def _export_names(file_names: Sequence[str]) -> list[str]:
    """Names that are safe on every system, with a path without suffix of their own."""
    names, taken = [], set()
    for file_name in file_names:
        path = PurePosixPath(file_name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or not path.name or "\0" in file_name:
            raise UserError(f"{file_name!r} is not a file name inside a dataset.")
        path = PurePosixPath(str(path).translate(_REPLACED))
        if str(path.with_suffix("")) in taken:
            path = path.with_name(f"{path.stem}-{path.suffix.lstrip('.')}{path.suffix}")
        while str(path.with_suffix("")) in taken:
            path = path.with_stem(f"{path.stem}-2")
        taken.add(str(path.with_suffix("")))
        names.append(str(path))
    return names
