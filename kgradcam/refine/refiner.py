"""A refiner: moves candidates to where objects end, and scores them by the IoU to expect."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.levels import compete, level_canvas
from kgradcam.boxes.options import BoxOptions
from kgradcam.boxes.overlap import Boxes
from kgradcam.boxes.scores import Scores
from kgradcam.errors import UserError
from kgradcam.files import read_json, write_atomically
from kgradcam.progress import Advance, ignore
from kgradcam.refine.candidates import Candidates, all_features
from kgradcam.refine.policy import Policy, policy_of
from kgradcam.refine.pooling import Reduction
from kgradcam.refine.scene import Scene
from kgradcam.runs.heatmap_files import ClassHeatmap
from kgradcam.runs.run import Run
from kgradcam.runs.tables import Detections, Image, join, sizes_by_id

if TYPE_CHECKING:
    from kgradcam.refine.network import Network

SCHEMA = 3
_LARGEST_MOVE = 0.5  # of the box's side
# Boxes that fit may overlap more: those of neighbours in a herd do.
_COMPETITION = BoxOptions(iou_threshold=0.4)
_BLOCK = 512


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
        network: How feature maps of the network become features; `None` uses heatmaps alone.
        policy: Moves candidates in steps, before they are scored.
    """

    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64] | None
    offset: npt.NDArray[np.float64] | None
    images: frozenset[str]
    objects: int
    network: Reduction | None = None
    policy: Policy | None = None

    def __call__(
        self, candidates: Candidates, size: tuple[int, int], scene: Scene | None = None
    ) -> tuple[Boxes, Scores]:
        """Returns the refined boxes of a heatmap, best first, overlaps removed, and their scores.

        Args:
            candidates: See `find_candidates`.
            size: `(width, height)` of the image in pixels. No box leaves it.
            scene: Describes boxes that are no candidates; a policy needs it.
        """
        if self.policy and scene:
            candidates = self.policy(scene, candidates)
        boxes, scores = candidates.boxes, candidates.scores
        if not len(boxes):
            return boxes, np.zeros(0)
        inputs = with_bias((all_features(candidates) - self.mean) / self.deviation)
        if self.score is not None:
            scores = np.clip(scores + inputs @ self.score, 0, 1)
        if self.offset is not None:
            moves = np.clip(inputs @ self.offset, -_LARGEST_MOVE, _LARGEST_MOVE)
            # At half of its side from each end, a box would vanish.
            moves = np.clip(moves, [-1, -1, -0.45, -0.45], [0.45, 0.45, 1, 1])
            boxes = boxes + moves * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
            boxes = np.clip(boxes, 0, np.tile(size, 2))
        parts = (self.score, self.offset, self.policy)
        learned = any(each is not None for each in parts)
        return compete(boxes, scores, _COMPETITION if learned else BoxOptions())

    def save(self, path: Path) -> None:
        """Writes a JSON file, atomically."""
        content: dict[str, Any] = {"schema": SCHEMA}
        for each in fields(self):
            value = getattr(self, each.name)
            content[each.name] = value.tolist() if isinstance(value, np.ndarray) else value
        content["images"] = sorted(self.images)
        if self.network:
            content["network"] = {
                "model": self.network.model,
                "means": [each.tolist() for each in self.network.means],
                "projections": [each.tolist() for each in self.network.projections],
            }
        content["policy"] = self.policy and self.policy.as_json()
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
        network = content["network"] and _reduction(content["network"])
        policy = content.get("policy") and policy_of(content["policy"])
        objects = int(content["objects"])
        return Refiner(mean, deviation, score, offset, images, objects, network, policy)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is no refiner: {error}. `kgradcam train-refiner` makes one."
        ) from error


def _array(content: Any, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    array = np.array(content[name], np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{name} has another shape, or numbers that are not finite")
    return array


def _reduction(content: Any) -> Reduction:
    channels = [len(each) for each in content["means"]]
    means = [
        _array({"mean": mean}, "mean", (count,))
        for mean, count in zip(content["means"], channels, strict=True)
    ]
    projections = [
        _array({"projection": each}, "projection", (count, len(each[0])))
        for each, count in zip(content["projections"], channels, strict=True)
    ]
    return Reduction(str(content["model"]), tuple(means), tuple(projections))


def refine_run(run: Run, refiner: Refiner, advance: Advance = ignore) -> Detections:
    """Returns the refined boxes of a run, from its stored heatmaps.

    A refiner with features of the network opens the model and the images of the run.

    Args:
        run: The run.
        refiner: The refiner.
        advance: Called with 1 after each heatmap.

    Raises:
        UserError: The refiner was trained on an image of the run, or for other features or
            another model.
    """
    images = run.ground_truth.images
    require_fitting(refiner, run.folder, run.info.model.digest, images)
    network = open_network(run) if refiner.network else None
    return refine_heatmaps(refiner, run.heatmaps(), images, network, advance)


def require_fitting(refiner: Refiner, folder: Path, model: str, images: Iterable[Image]) -> None:
    """Checks that a refiner may refine a run.

    Args:
        refiner: The refiner.
        folder: The run folder.
        model: The digest of the weights of the run's model.
        images: The images of the run.

    Raises:
        UserError: The refiner was trained on one of the images, or needs another model.
    """
    names = {image.file_name for image in images}
    if seen := refiner.images & digests(names):
        raise UserError(
            f"The refiner was trained on {len(seen)} of the {len(names)} images of {folder}, so "
            "its boxes there would say nothing. Use another split."
        )
    if refiner.network and refiner.network.model != model:
        raise UserError(
            f"The refiner needs the model that it was trained with, and {folder} is of another."
        )


def refine_heatmaps(
    refiner: Refiner,
    heatmaps: Iterable[ClassHeatmap],
    images: Iterable[Image],
    network: "Network | None",
    advance: Advance = ignore,
) -> Detections:
    """Returns the refined boxes of heatmaps.

    Args:
        refiner: The refiner.
        heatmaps: The heatmaps.
        images: Their images.
        network: Has the feature maps of the images, if the refiner needs them.
        advance: Called with 1 after each heatmap.

    Raises:
        UserError: The refiner is for other features.
    """
    sizes = sizes_by_id(images)
    tables = []
    remaining = iter(heatmaps)
    while block := list(islice(remaining, _BLOCK)):
        maps = {}
        if network and refiner.network:
            wanted = {record.image_id for record in block}
            maps = {i: refiner.network(each) for i, each in network.maps(wanted)}
        for record in block:
            size = sizes[record.image_id]
            canvas, _ = level_canvas(record.heatmap, size)
            reduced = maps[record.image_id] if refiner.network else ()
            scene = Scene(canvas, size, record.probability, refiner.network, reduced)
            found = scene.candidates()
            if all_features(found).shape[1] != len(refiner.mean):
                raise UserError("The refiner is of another version of kgradcam: train it again.")
            boxes, scores = refiner(found, size, scene)
            ids = np.ones(len(boxes), np.int64)
            row = (record.image_id * ids, record.category_id * ids, boxes, scores)
            tables.append(Detections(*row))
            advance(1)
    return join(tables)


def open_network(run: Run) -> "Network":
    """Opens the model and the images of a run; see `Network.of_run`. Imports TensorFlow."""
    from kgradcam.refine.network import Network

    return Network.of_run(run)


def sized_heatmaps(run: Run) -> Iterator[tuple[Any, tuple[int, int]]]:
    """Yields each heatmap of a run and the `(width, height)` of its image."""
    sizes = sizes_by_id(run.ground_truth.images)
    for record in run.heatmaps():
        yield record, sizes[record.image_id]


def digests(names: Iterable[str]) -> frozenset[str]:
    """Returns a short digest of each name: a refiner names no file of its user."""
    return frozenset(hashlib.sha256(name.encode()).hexdigest()[:16] for name in names)


def with_bias(features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns features with a column of ones before them."""
    return np.concatenate([np.ones((len(features), 1)), features], axis=1)
