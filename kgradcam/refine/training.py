"""Trains a refiner by ridge regression on annotated boxes, in closed form."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.overlap import Boxes, box_iou
from kgradcam.errors import UsageError, UserError
from kgradcam.progress import Advance, ignore
from kgradcam.refine.candidates import Candidates, find_candidates
from kgradcam.refine.refiner import Refiner, digests, sized_heatmaps, with_bias
from kgradcam.runs.run import Run

RUNGS = ("offsets", "score", "ridge")
_PENALTIES = tuple(10.0**power for power in range(-4, 3))
_FOLDS = 5
_NEAR = 0.35
"""The IoU from which a candidate is near enough to an object to learn its sides from."""

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Annotated:
    """The candidates of one heatmap, and the objects of its class.

    Attributes:
        image: The file name of the image.
        candidates: The candidates.
        objects: float64 `[objects, 4]`, xyxy in pixels.
    """

    image: str
    candidates: Candidates
    objects: Boxes


def collect(
    run: Run,
    count: int | None = None,
    seed: int = 0,
    classes: Sequence[str] = (),
    advance: Advance = ignore,
) -> list[Annotated]:
    """Finds the candidates of a run's heatmaps, with their annotated objects.

    Args:
        run: The run.
        count: The number of annotated objects to use, drawn at random, all of an image together.
            Default: all.
        seed: The random seed.
        classes: The classes to learn from. Default: all.
        advance: Called with 1 after each heatmap.

    Raises:
        UserError: A class is not in the run, or there are fewer objects.
    """
    truth = run.ground_truth
    if unknown := set(classes) - set(truth.categories):
        raise UserError(
            f"class {min(unknown)!r} is not in {run.folder}. Its classes: "
            f"{', '.join(truth.categories)}."
        )
    names = {image.id: image.file_name for image in truth.images}
    found = []
    for record, size in sized_heatmaps(run):
        rows = (truth.image_ids == record.image_id) & (truth.category_ids == record.category_id)
        if rows.any() and (not classes or truth.categories[record.category_id - 1] in classes):
            candidates = find_candidates(record.heatmap, size, record.probability)
            found.append(Annotated(names[record.image_id], candidates, truth.boxes[rows]))
        advance(1)
    if count is None:
        return found
    chosen: list[Annotated] = []
    for i in np.random.default_rng(seed).permutation(len(found)):
        if sum(len(each.objects) for each in chosen) >= count:
            return chosen
        chosen.append(found[i])
    if sum(len(each.objects) for each in chosen) < count:
        raise UserError(
            f"boxes={count} is more than the {sum(len(each.objects) for each in chosen)} annotated "
            f"objects of {run.folder}."
        )
    return chosen


def fit(examples: Sequence[Annotated], rung: str = "ridge") -> Refiner:
    """Fits a refiner.

    A linear function of the features of a candidate is added to its score, so that the sum predicts
    its highest IoU with an object; offsets predict where the sides of that object are. The penalty
    is chosen by cross-validation on the images. The fewer boxes there are, the higher it is, and
    the nearer the order of boxes stays to that of `find_boxes`.

    Args:
        examples: See `collect`.
        rung: `"offsets"`: mean offsets, the same for all boxes, four numbers. `"score"`: the score
            alone. `"ridge"`: score and offsets.

    Raises:
        UserError: There are too few images.
        UsageError: `rung` is unknown.
    """
    if rung not in RUNGS:
        raise UsageError(f"rung must be {', '.join(RUNGS)}. Received: {rung!r}.")
    examples = [each for each in examples if len(each.candidates.boxes)]
    names = sorted({each.image for each in examples})
    if len(names) < 2:
        raise UserError(f"A refiner needs two images or more. Received: {len(names)}.")
    features = np.concatenate([each.candidates.features for each in examples])
    counts = [len(each.candidates.boxes) for each in examples]
    images = np.repeat([names.index(each.image) for each in examples], counts)
    ious, offsets = (np.concatenate(each) for each in zip(*map(_targets, examples), strict=True))
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    inputs = with_bias((features - mean) / deviation)
    near = ious >= _NEAR
    if not near.any():
        raise UserError("No candidate is near an annotated object, so there is nothing to learn.")
    score = offset = None
    if rung != "offsets":
        before = np.concatenate([each.candidates.scores for each in examples])
        score = _ridge(inputs, (ious - before)[:, np.newaxis], images)[:, 0]
    if rung == "ridge":
        offset = _ridge(inputs[near], offsets[near], images[near])
    if rung == "offsets":
        offset = np.zeros((inputs.shape[1], 4))
        offset[0] = offsets[near].mean(axis=0)
    objects = sum(len(each.objects) for each in examples)
    return Refiner(mean, deviation, score, offset, digests(names), objects)


def _targets(example: Annotated) -> tuple[_Floats, _Floats]:
    """The IoU of each candidate with its nearest object, and the moves of its sides to it."""
    boxes = example.candidates.boxes
    ious = box_iou(boxes, example.objects)
    nearest = example.objects[ious.argmax(axis=1)]
    return ious.max(axis=1), (nearest - boxes) / np.tile(boxes[:, 2:] - boxes[:, :2], 2)


def _ridge(inputs: _Floats, targets: _Floats, images: npt.NDArray[np.int64]) -> _Floats:
    """Weights of the linear functions of least squared error, with a penalty on all of them."""
    folds = [images % _FOLDS == fold for fold in range(_FOLDS)]
    # The products of a part of the rows are the sums of those of its folds.
    left = [inputs[fold].T @ inputs[fold] for fold in folds]
    right = [inputs[fold].T @ targets[fold] for fold in folds]
    all_left, all_right, count = sum(left), sum(right), len(inputs)

    def error(penalty: float) -> float:
        """The squared error on each fold by the weights of the others."""
        total = 0.0
        for fold, one_left, one_right in zip(folds, left, right, strict=True):
            rest = count - int(fold.sum())
            if 0 < rest < count:
                weights = _solve(all_left - one_left, all_right - one_right, penalty * rest)
                total += float(((inputs[fold] @ weights - targets[fold]) ** 2).sum())
        return total

    return _solve(all_left, all_right, min(_PENALTIES, key=error) * count)


def _solve(left: _Floats, right: _Floats, penalty: float) -> _Floats:
    return np.asarray(np.linalg.solve(left + penalty * np.eye(len(left)), right), np.float64)
