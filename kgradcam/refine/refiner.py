"""A refiner: moves candidates to where objects end, and scores them by the IoU to expect."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.levels import suppress
from kgradcam.boxes.options import BoxOptions
from kgradcam.boxes.overlap import Boxes
from kgradcam.boxes.scores import Scores
from kgradcam.errors import UserError
from kgradcam.files import read_json, write_atomically
from kgradcam.progress import Advance, ignore
from kgradcam.refine.candidates import Candidates, find_candidates
from kgradcam.runs.run import Run
from kgradcam.runs.tables import Detections, join

SCHEMA = 1
_LARGEST_MOVE = 0.5  # of the box's side
_SUPPRESSION = BoxOptions()


@dataclass(frozen=True)
class Refiner:
    """Two linear functions of the features of a candidate.

    Attributes:
        mean: float64 `[features]`, subtracted from features.
        deviation: float64 `[features]`, divides them.
        score: float64 `[1 + features]`, bias and weights: added to the score of `find_boxes`, it is
            the IoU to expect. `None` keeps those scores.
        offset: float64 `[1 + features, 4]`: the moves of the four sides, in parts of the width and
            height of the box; `None` keeps boxes.
        images: Digests of the names of the images that it was trained on.
        objects: The number of annotated objects that it was trained on.
    """

    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64] | None
    offset: npt.NDArray[np.float64] | None
    images: frozenset[str]
    objects: int

    def __call__(self, candidates: Candidates, size: tuple[int, int]) -> tuple[Boxes, Scores]:
        """Returns the refined boxes of a heatmap, best first, overlaps removed, and their scores.

        Args:
            candidates: See `find_candidates`.
            size: `(width, height)` of the image in pixels. No box leaves it.
        """
        boxes = candidates.boxes
        if not len(boxes):
            return boxes, np.zeros(0)
        inputs = with_bias((candidates.features - self.mean) / self.deviation)
        if self.offset is not None:
            moves = np.clip(inputs @ self.offset, -_LARGEST_MOVE, _LARGEST_MOVE)
            # At half of its side from each end, a box would vanish.
            moves = np.clip(moves, [-1, -1, -0.45, -0.45], [0.45, 0.45, 1, 1])
            boxes = boxes + moves * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
            boxes = np.clip(boxes, 0, np.tile(size, 2))
        scores = candidates.scores
        if self.score is not None:
            scores = np.clip(scores + inputs @ self.score, 0, 1)
        kept = suppress(np.arange(len(boxes)), boxes, scores, None, _SUPPRESSION)
        return boxes[kept], scores[kept]

    def save(self, path: Path) -> None:
        """Writes a JSON file, atomically."""
        content: dict[str, Any] = {"schema": SCHEMA, **asdict(self)}
        for name, value in content.items():
            if isinstance(value, np.ndarray):
                content[name] = value.tolist()
        content["images"] = sorted(self.images)
        write_atomically(path, json.dumps(content) + "\n")


def load_refiner(path: Path) -> Refiner:
    """Reads a refiner that `Refiner.save` wrote.

    Raises:
        UserError: The file is missing or holds something else.
    """
    content = read_json(path)
    try:
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']!r}")
        count = len(content["mean"])
        mean, deviation = (_array(content, name, (count,)) for name in ("mean", "deviation"))
        score = content["score"] and _array(content, "score", (count + 1,))
        offset = content["offset"] and _array(content, "offset", (count + 1, 4))
        images = frozenset(map(str, content["images"]))
        return Refiner(mean, deviation, score, offset, images, int(content["objects"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is no refiner: {error}. `kgradcam train-refiner` makes one."
        ) from error


def _array(content: Any, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    array = np.array(content[name], np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{name} has another shape, or numbers that are not finite")
    return array


def refine_run(run: Run, refiner: Refiner, advance: Advance = ignore) -> Detections:
    """Returns the refined boxes of a run, from its stored heatmaps.

    Args:
        run: The run.
        refiner: The refiner.
        advance: Called with 1 after each heatmap.

    Raises:
        UserError: The refiner was trained on an image of the run, or for other features.
    """
    seen = refiner.images & digests(image.file_name for image in run.ground_truth.images)
    if seen:
        raise UserError(
            f"The refiner was trained on {len(seen)} of the {len(run.ground_truth.images)} images "
            f"of {run.folder}, so its boxes there would say nothing. Use another split."
        )
    tables = []
    for record, size in sized_heatmaps(run):
        found = find_candidates(record.heatmap, size, record.probability)
        if found.features.shape[1] != len(refiner.mean):
            raise UserError("The refiner is of another version of kgradcam: train it again.")
        boxes, scores = refiner(found, size)
        ids = np.ones(len(boxes), np.int64)
        tables.append(Detections(record.image_id * ids, record.category_id * ids, boxes, scores))
        advance(1)
    return join(tables)


def sized_heatmaps(run: Run) -> Iterator[tuple[Any, tuple[int, int]]]:
    """Yields each heatmap of a run and the `(width, height)` of its image."""
    sizes = {image.id: (image.width, image.height) for image in run.ground_truth.images}
    for record in run.heatmaps():
        yield record, sizes[record.image_id]


def digests(names: Iterable[str]) -> frozenset[str]:
    """Returns a short digest of each name: a refiner names no file of its user."""
    return frozenset(hashlib.sha256(name.encode()).hexdigest()[:16] for name in names)


def with_bias(features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns features with a column of ones before them."""
    return np.concatenate([np.ones((len(features), 1)), features], axis=1)
