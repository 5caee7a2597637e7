"""Are heatmaps faithful to the model: what becomes of its score where they are hot?

Each function takes the explainer that made an `Explanation`, the images as the explainer got them,
`[batch, height, width, channels]`, and the explanation; and returns a value for each image and
class, `[batch, classes]`. What is measured is the probability of the class; with `score=`, and for
occlusion, the score itself. What is taken from an image is replaced by a baseline: `"mean"`, the
mean colour of the image; `"blur"`, the image out of focus; or a number for all channels.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import cv2
import keras
import numpy as np
import numpy.typing as npt

from kgradcam.boxes.normalization import normalize
from kgradcam.errors import UserError
from kgradcam.heatmaps.explainer import Explainer, Explanation
from kgradcam.heatmaps.frozen import FrozenExplainer
from kgradcam.metrics.pointing_game import energy_inside, pointing_hit

Baseline = Literal["mean", "blur"] | float
Values = npt.NDArray[np.float64]
Images = npt.NDArray[Any]


@dataclass(frozen=True)
class Curve:
    """The score while an image is taken apart, or put together.

    Attributes:
        fractions: `[steps + 1]`, the share of the pixels done, from 0 to 1.
        values: `[batch, classes, steps + 1]`, the probability, or score, there.
    """

    fractions: Values
    values: Values

    @property
    def auc(self) -> Values:
        """`[batch, classes]`, the area under the curve by trapezoids."""
        widths = np.diff(self.fractions)
        area: Values = ((self.values[..., 1:] + self.values[..., :-1]) / 2 * widths).sum(axis=-1)
        return area


def deletion(
    explainer: Explainer,
    images: Images,
    explanation: Explanation,
    *,
    steps: int = 10,
    baseline: Baseline = "mean",
) -> Curve:
    """Takes the hottest pixels away first (RISE; Petsiuk et al., BMVC 2018): low is good.

    Args:
        explainer: See the module, as for `images` and `explanation`.
        images: See there.
        explanation: See there.
        steps: In how many steps, of equally many pixels but for the last.
        baseline: What takes their place.

    Returns:
        A `Curve`; its `auc` is the measure.
    """
    replaced = _baseline(images, baseline)
    return _curve(explainer, images, replaced, explanation, steps)


def insertion(
    explainer: Explainer,
    images: Images,
    explanation: Explanation,
    *,
    steps: int = 10,
    baseline: Baseline = "blur",
) -> Curve:
    """Brings the hottest pixels in first (RISE; Petsiuk et al., BMVC 2018): high is good.

    Args:
        explainer: See the module, as for `images` and `explanation`.
        images: See there.
        explanation: See there.
        steps: In how many steps, of equally many pixels but for the last.
        baseline: What they are brought into.

    Returns:
        A `Curve`; its `auc` is the measure.
    """
    return _curve(explainer, _baseline(images, baseline), images, explanation, steps)


def _curve(
    explainer: Explainer, start: Images, end: Images, explanation: Explanation, steps: int
) -> Curve:
    places = start.shape[1] * start.shape[2]
    done = np.minimum(np.arange(steps + 1) * -(-places // steps), places)
    values = []
    for class_place in range(explanation.heatmaps.shape[1]):
        heat = _heat(explanation, class_place, start.shape).reshape(len(start), -1)
        ranks = np.argsort(np.argsort(-heat, axis=1, kind="stable"), axis=1)
        ranks = ranks.reshape(*start.shape[:3], 1)
        values.append(
            [
                _score(explainer, np.where(ranks < count, end, start), explanation, class_place)
                for count in done
            ]
        )
    return Curve(done / places, np.transpose(np.array(values), (2, 0, 1)))


def average_drop(
    explainer: Explainer,
    images: Images,
    explanation: Explanation,
    *,
    baseline: Baseline = "mean",
) -> tuple[Values, npt.NDArray[np.bool_]]:
    """Keeps of an image what its heatmap keeps (Grad-CAM++; Chattopadhyay et al., section 4.1).

    Args:
        explainer: See the module, as for `images` and `explanation`.
        images: See there.
        explanation: See there.
        baseline: What shows where there is no heat.

    Returns:
        By which share of itself the score drops, 0 to 1: its mean is the average drop, low is
        good. And whether it grows: its mean is the increase in confidence, high is good.
    """
    replaced = _baseline(images, baseline)
    drops, grown = [], []
    for class_place in range(explanation.heatmaps.shape[1]):
        heat = _heat(explanation, class_place, images.shape)[..., np.newaxis]
        before = _score(explainer, images, explanation, class_place)
        after = _score(explainer, replaced + (images - replaced) * heat, explanation, class_place)
        lost = np.maximum(before - after, 0)
        drops.append(np.divide(lost, before, out=np.zeros_like(lost), where=before > 0))
        grown.append(after > before)
    return np.stack(drops, axis=1), np.stack(grown, axis=1)


def occlusion_correlation(
    explainer: Explainer,
    images: Images,
    explanation: Explanation,
    *,
    patches: int = 7,
    baseline: Baseline = "mean",
) -> Values:
    """Does the score suffer most where it is hottest (Selvaraju et al., section 5.3)?

    Args:
        explainer: See the module, as for `images` and `explanation`.
        images: See there.
        explanation: See there.
        patches: How many patches along each side are covered, one at a time.
        baseline: What covers them.

    Returns:
        The rank correlation of a patch's mean heat with what the score loses without it, -1 to 1.
    """
    rows, columns = (
        np.linspace(0, side, min(patches, side) + 1).astype(int) for side in images.shape[1:3]
    )
    replaced = _baseline(images, baseline)
    correlations = []
    for class_place in range(explanation.heatmaps.shape[1]):
        heat = _heat(explanation, class_place, images.shape)
        kept, within = [], []
        for top, bottom in pairwise(rows):
            for left, right in pairwise(columns):
                covered = images.astype(np.float32)
                patch = np.s_[:, top:bottom, left:right]
                covered[patch] = replaced[patch]
                kept.append(_score(explainer, covered, explanation, class_place, logit=True))
                within.append(heat[patch].mean(axis=(1, 2)))
        pairs = zip(np.transpose(within), -np.transpose(kept), strict=True)
        correlations.append([rank_correlation(hot, lost) for hot, lost in pairs])
    return np.transpose(correlations)


def randomization_correlation(
    explainer: Explainer,
    images: Images,
    explanation: Explanation,
    *,
    stages: int = 1,
    seed: int = 0,
) -> Values:
    """Do heatmaps change with the weights (sanity check; Adebayo et al., NeurIPS 2018)?

    The entries of each weight of the model are shuffled, and the weights put back at the end. The
    model is used as it is for that long: no other thread should use it.

    Args:
        explainer: See the module, as for `images` and `explanation`.
        images: See there.
        explanation: See there.
        stages: In so many stages, those near the output first, as in the paper's cascade.
        seed: For the shuffling.

    Returns:
        `[stages, batch, classes]`, the rank correlation of each heatmap with what it becomes, -1
        to 1, 0 if it becomes flat. A method whose heatmaps hardly change does not explain the
        model.
    """
    if isinstance(explainer, FrozenExplainer):
        raise UserError(
            "randomization_correlation shuffles the weights of the model, and a frozen explainer "
            "does not follow them. Received: a FrozenExplainer. Pass the GradCAM that it was made "
            "from."
        )
    correlations = []
    with _restored(explainer.model) as weights:
        generator = np.random.default_rng(seed)
        for stage in np.array_split(np.arange(len(weights))[::-1], stages):
            for i in stage:
                shuffled = generator.permutation(weights[i].numpy().ravel())
                weights[i].assign(shuffled.reshape(weights[i].shape))
            again = explainer(images, **_classes(explanation)).heatmaps
            correlations.append(
                [
                    [rank_correlation(*pair) for pair in zip(before, after, strict=True)]
                    for before, after in zip(explanation.heatmaps, again, strict=True)
                ]
            )
    return np.array(correlations)


@contextmanager
def _restored(model: keras.Model) -> Iterator[list[Any]]:
    weights = [weight for weight in model.weights if weight.dtype.startswith(("float", "bfloat"))]
    values = [weight.numpy() for weight in weights]
    try:
        yield weights
    finally:
        for weight, value in zip(weights, values, strict=True):
            weight.assign(value)


def rank_correlation(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Returns Spearman's rank correlation; ties share their mean rank, and 0 if either is flat.

    Example:
        >>> rank_correlation(np.array([1, 2, 3]), np.array([10, 30, 20]))
        0.5
    """
    x, y = (_ranks(np.nan_to_num(np.ravel(each))) for each in (a, b))
    x, y = x - x.mean(), y - y.mean()
    spread = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / spread) if spread > 0 else 0.0


def _ranks(values: npt.NDArray[Any]) -> Values:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


MEASURES = {
    "deletion": "AUC, low is good",
    "insertion": "AUC, high is good",
    "average drop": "low is good",
    "increase": "share of images, high is good",
    "occlusion": "rank correlation, high is good",
    "randomized": "rank correlation with shuffled weights, near 0 is good",
    "pointing": "share of hits, high is good",
    "energy": "share of the heat in the boxes, high is good",
}
"""What `measure` measures, and how to read it."""


def measure(
    explainer: Explainer,
    images: Images,
    explanation: Explanation,
    regions: Sequence[Sequence[npt.NDArray[Any]]] | None = None,
) -> dict[str, Values]:
    """Takes all measures of `MEASURES`, with their defaults.

    Args:
        explainer: See the module, as for `images` and `explanation`.
        images: See there.
        explanation: See there.
        regions: For each image and class its boxes, in the pixels of `images`, or its mask; see
            `heatmaps.region_mask`. Without them `pointing` and `energy` are left out.

    Returns:
        By name, `[batch, classes]`.
    """
    drop, grown = average_drop(explainer, images, explanation)
    measures = {
        "deletion": deletion(explainer, images, explanation).auc,
        "insertion": insertion(explainer, images, explanation).auc,
        "average drop": drop,
        "increase": grown.astype(np.float64),
        "occlusion": occlusion_correlation(explainer, images, explanation),
        "randomized": randomization_correlation(explainer, images, explanation)[0],
    }
    if regions is not None:
        height, width = images.shape[1:3]
        pairs = [
            [
                (normalize(heatmap, (width, height)), region)
                for heatmap, region in zip(heatmaps, of_image, strict=True)
            ]
            for heatmaps, of_image in zip(explanation.heatmaps, regions, strict=True)
        ]
        measures["pointing"] = np.array(
            [[float(pointing_hit(*each)) for each in row] for row in pairs]
        )
        measures["energy"] = np.array([[energy_inside(*each) for each in row] for row in pairs])
    return measures


def _score(
    explainer: Explainer,
    images: Images,
    explanation: Explanation,
    class_place: int,
    logit: bool = False,
) -> Values:
    scores, probabilities = explainer.predict(images, **_classes(explanation, class_place))
    if not explanation.classes:  # the scores of score=, all of them
        return scores[:, class_place].astype(np.float64)
    return (scores if logit else probabilities)[:, 0].astype(np.float64)


def _classes(explanation: Explanation, class_place: int | None = None) -> dict[str, Any]:
    if not explanation.classes:
        return {}
    if class_place is None:
        return {"classes_per_image": explanation.classes}
    return {"class_per_image": [row[class_place] for row in explanation.classes]}


def _heat(explanation: Explanation, class_place: int, shape: Sequence[int]) -> Values:
    """Heatmaps of a class, in [0, 1] at the images' size: `[batch, height, width]`."""
    size = (shape[2], shape[1])
    return np.array([normalize(each, size) for each in explanation.heatmaps[:, class_place]])


def _baseline(images: Images, baseline: Baseline) -> Images:
    if images.ndim != 4:
        raise UserError(
            f"images must be [batch, height, width, channels]. Received: shape {images.shape}."
        )
    if baseline == "mean":
        return np.broadcast_to(images.mean(axis=(1, 2), keepdims=True), images.shape)
    if baseline == "blur":
        sigma = max(images.shape[1:3]) / 20
        blurred = [cv2.GaussianBlur(each.astype(np.float32), (0, 0), sigma) for each in images]
        return np.reshape(blurred, images.shape)
    if isinstance(baseline, str):
        raise UserError(f"baseline must be 'mean', 'blur' or a number. Received: {baseline!r}.")
    return np.full_like(images, baseline)
