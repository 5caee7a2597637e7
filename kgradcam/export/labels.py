"""The boxes of a run by image, in the order in which people should review them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.overlap import Boxes
from kgradcam.errors import UsageError, UserError, did_you_mean
from kgradcam.runs.run import Run
from kgradcam.runs.tables import Image

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


@dataclass(frozen=True)
class Labels:
    """The labels to export.

    Attributes:
        images: The images, in the order of review.
        categories: The class names.
        source: The model and the method, as the version of predictions.
    """

    images: Sequence[LabelledImage]
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
    if order not in ORDERS:
        raise UsageError(
            f"order must be {' or '.join(ORDERS)}. Received: {order!r}."
            f"{did_you_mean(order, ORDERS)}"
        )
    threshold = max(run.thresholds) if threshold is None else threshold
    if threshold not in run.thresholds:
        raise UserError(
            f"threshold must be one of the run's: {', '.join(map(str, run.thresholds))}. "
            f"Received: {threshold}."
        )
    truth = run.ground_truth
    (found,) = run.detections([threshold]).values()
    used = sorted({*found.category_ids.tolist(), *truth.category_ids.tolist()})
    place = {category_id: i for i, category_id in enumerate(used)}
    names = _export_names([image.file_name for image in truth.images])
    kept = found.select(found.scores >= min_score)
    by_image = np.argsort(kept.image_ids, kind="stable")
    ids = kept.image_ids[by_image]
    images = []
    for image, name in zip(truth.images, names, strict=True):
        rows = by_image[np.searchsorted(ids, image.id) : np.searchsorted(ids, image.id, "right")]
        rows = rows[np.argsort(-kept.scores[rows], kind="stable")]
        images.append(
            LabelledImage(
                image,
                name,
                np.array([place[each] for each in kept.category_ids[rows].tolist()], np.int64),
                kept.boxes[rows],
                kept.scores[rows],
                float(np.clip(1 - kept.scores[rows], 0, None).sum()),
            )
        )
    if order == "doubt":
        images.sort(key=lambda each: -each.doubt)
    info = run.info
    source = f"{info.model.name}-{info.model.digest[:8]}-{info.configuration.method}"
    return Labels(images, tuple(truth.categories[i - 1] for i in used), source)


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
