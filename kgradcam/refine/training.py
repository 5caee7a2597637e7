"""Trains a refiner by ridge regression on annotated boxes, in closed form."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, islice

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.levels import level_canvas
from kgradcam.boxes.overlap import box_iou
from kgradcam.errors import UsageError, UserError, require_known
from kgradcam.progress import Advance, ignore
from kgradcam.refine.candidates import all_features, scales
from kgradcam.refine.pooling import Reduction, fit_reduction
from kgradcam.refine.refiner import (
    Refiner,
    digests,
    open_network,
    sized_heatmaps,
    with_bias,
)
from kgradcam.refine.scene import Annotated, Scene
from kgradcam.runs.run import Run
from kgradcam.runs.tables import RowsByClass

POLICIES = ("imitation", "dqn")
NETWORK_RUNGS = ("network", *POLICIES)
"""Those that need the results of `add_network`."""
RUNGS = ("offsets", "score", "ridge", *NETWORK_RUNGS)
_PENALTIES = (np.inf, 1e9, *(10.0**power for power in range(3, -4, -1)))
"""Without end: nothing changes. 1e9: all candidates change by the same. Less: by their features."""
_FOLDS = 5
_IMAGES_OF_REDUCTION = 256
"""The number of images whose feature maps give the principal components."""
_NEAR = 0.5
"""The IoU from which a candidate is near enough to an object to learn its sides from."""

_Floats = npt.NDArray[np.float64]


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
    rows_of = RowsByClass(truth)
    found = []
    for record, size in sized_heatmaps(run):
        rows = rows_of(record.image_id, record.category_id)
        if len(rows) and (not classes or truth.categories[record.category_id - 1] in classes):
            scene = Scene(level_canvas(record.heatmap, size)[0], size, record.probability)
            name, objects = names[record.image_id], truth.boxes[rows]
            found.append(Annotated(name, scene.candidates(), objects, record.image_id, scene))
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


def add_network(
    run: Run, examples: Sequence[Annotated], advance: Advance = ignore
) -> tuple[list[Annotated], Reduction]:
    """Adds features of the network in the box; opens the model and the images of the run.

    Args:
        run: The run of the examples.
        examples: See `collect`.
        advance: Called with 1 after each image.

    Returns:
        The examples, and how feature maps became features.

    Raises:
        UserError: The model or an image is gone, or the model has changed since.
    """
    remaining = iter(open_network(run).maps({each.image_id for each in examples}))
    first = list(islice(remaining, _IMAGES_OF_REDUCTION))
    if not first:
        raise UserError("A refiner needs two images or more. Received: 0.")
    network = fit_reduction(run.info.model.digest, [maps for _, maps in first])
    reduced = {}
    for image_id, maps in chain(first, remaining):
        reduced[image_id] = network(maps)
        advance(1)
    found = []
    for each in examples:
        scene = replace(each.scene, network=network, maps=reduced[each.image_id])
        inputs = network.inputs(scene.maps, each.candidates.boxes, scene.size)
        candidates = replace(each.candidates, network=inputs)
        found.append(replace(each, candidates=candidates, scene=scene))
    return found, network


def fit(
    examples: Sequence[Annotated],
    rung: str = "ridge",
    network: Reduction | None = None,
    seed: int = 0,
    advance: Advance = ignore,
) -> Refiner:
    """Fits a refiner.

    A linear function of the features of a candidate is added to its score, so that the sum predicts
    its highest IoU with an object; offsets predict where the sides of that object are. The penalty
    is chosen by cross-validation on the images, with the one-standard-error rule (Hastie et al.,
    The Elements of Statistical Learning, section 7.10). The fewer boxes there are, the higher it
    is, and the nearer boxes and their order stay to those of `find_boxes`. Where nothing lowers
    the error surely, they stay as they are: `score` or `offset` is `None`.

    A policy moves boxes instead of offsets. Where its episodes end, boxes have other features than
    candidates, so the score is learned from both. The values of actions do not rank boxes.

    Args:
        examples: See `collect`.
        rung: `"offsets"`: mean offsets, the same for all boxes, four numbers. `"score"`: the score
            alone. `"ridge"`: score and offsets. `"network"`: both, with features of the network.
            `"imitation"`: a policy that learned the steps of a greedy expert. `"dqn"`: a policy by
            deep Q-learning.
        network: The second result of `add_network`, for those of `NETWORK_RUNGS`.
        seed: The random seed of a policy.
        advance: Called with 1 after each epoch of a policy; there are `policy.EPOCHS`.

    Raises:
        UserError: There are too few images.
        UsageError: `rung` is unknown.
    """
    require_known("rung", rung, RUNGS)
    if (rung in NETWORK_RUNGS) != (network is not None):
        raise UsageError(
            f"The rungs {', '.join(NETWORK_RUNGS)} need the results of add_network, and no other "
            f"does. Received: {rung!r}."
        )
    examples = [each for each in examples if len(each.candidates.boxes)]
    names = sorted({each.image for each in examples})
    if len(names) < 2:
        raise UserError(f"A refiner needs two images or more. Received: {len(names)}.")
    policy, objects = None, sum(len(each.objects) for each in examples)
    if rung in POLICIES:
        from kgradcam.refine.policy_training import DISCOUNT, train_policy

        policy = train_policy(examples, DISCOUNT if rung == "dqn" else 0.0, seed, advance)
        moved = [policy(each.scene, each.candidates) for each in examples]
        ends = [replace(each, candidates=end) for each, end in zip(examples, moved, strict=True)]
        examples = [*examples, *ends]
    features = np.concatenate([all_features(each.candidates) for each in examples])
    counts = [len(each.candidates.boxes) for each in examples]
    images = np.repeat([names.index(each.image) for each in examples], counts)
    ious, offsets = (np.concatenate(each) for each in zip(*map(_targets, examples), strict=True))
    mean, deviation = scales(features, examples[0].candidates.features.shape[1])
    inputs = with_bias((features - mean) / deviation)
    near = ious >= _NEAR
    if not near.any():
        raise UserError("No candidate is near an annotated object, so there is nothing to learn.")
    score = offset = None
    if rung != "offsets":
        before = np.concatenate([each.candidates.scores for each in examples])
        weights = _ridge(inputs, (ious - before)[:, np.newaxis], images)
        score = None if weights is None else weights[:, 0]
    if rung in ("ridge", "network"):
        offset = _ridge(inputs[near], offsets[near], images[near])
    if rung == "offsets":
        offset = np.zeros((inputs.shape[1], 4))
        offset[0] = offsets[near].mean(axis=0)
    return Refiner(mean, deviation, score, offset, digests(names), objects, network, policy)


def _targets(example: Annotated) -> tuple[_Floats, _Floats]:
    """The IoU of each candidate with its nearest object, and the moves of its sides to it."""
    boxes = example.candidates.boxes
    ious = box_iou(boxes, example.objects)
    nearest = example.objects[ious.argmax(axis=1)]
    return ious.max(axis=1), (nearest - boxes) / np.tile(boxes[:, 2:] - boxes[:, :2], 2)


def _ridge(inputs: _Floats, targets: _Floats, images: npt.NDArray[np.int64]) -> _Floats | None:
    """Weights of the linear functions of least squared error, with a penalty on all but the bias.

    Returns:
        float64 `[inputs, targets]`, the bias first; `None` for all 0, by an infinite penalty.
    """
    folds = [images % _FOLDS == fold for fold in range(_FOLDS)]
    # The products of a part of the rows are the sums of those of its folds.
    left = [inputs[fold].T @ inputs[fold] for fold in folds]
    right = [inputs[fold].T @ targets[fold] for fold in folds]
    all_left, all_right, count = sum(left), sum(right), len(inputs)

    def errors(penalty: float) -> _Floats:
        """The squared error on each image by the weights of the other folds."""
        residuals = targets.copy()
        for fold, one_left, one_right in zip(folds, left, right, strict=True):
            rest = count - int(fold.sum())
            if 0 < rest < count and penalty < np.inf:
                weights = _solve(all_left - one_left, all_right - one_right, penalty * rest)
                residuals[fold] -= inputs[fold] @ weights
        return np.bincount(images, (residuals**2).sum(axis=1)).astype(np.float64)

    found = {penalty: errors(penalty) for penalty in _PENALTIES}
    lowest = min(found.values(), key=np.sum)
    # The highest penalty whose error is within a standard error of the lowest. Errors of the same
    # images are compared, so that images that are hard with any penalty do not hide a gain.
    penalty = next(
        penalty
        for penalty, each in found.items()
        if (each - lowest).sum() <= np.linalg.norm(each - lowest)
    )
    return None if penalty == np.inf else _solve(all_left, all_right, penalty * count)


def _solve(left: _Floats, right: _Floats, penalty: float) -> _Floats:
    penalties = np.diag([0.0, *[penalty] * (len(left) - 1)])
    return np.asarray(np.linalg.solve(left + penalties, right), np.float64)
