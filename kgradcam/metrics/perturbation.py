"""Measures of faithfulness that change an image where its heatmap is hot, and watch the score.

Each function takes the explainer of an `Explanation`, its images and the explanation. It measures
each image and class, `[batch, classes]`. The score is the probability of the class; for occlusion
and for score functions it is the score itself. `baseline` replaces pixels: `"mean"` by the mean
colour of the image, `"blur"` by the blurred image, or a number in all channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from kgradcam.boxes.normalization import normalize
from kgradcam.errors import UserError
from kgradcam.metrics.rank_correlation import rank_correlation

if TYPE_CHECKING:  # they import TensorFlow
    from kgradcam.heatmaps.explainer import Explainer, Explanation

Baseline = Literal["mean", "blur"] | float
Values = npt.NDArray[np.float64]
Images = npt.NDArray[Any]


@dataclass(frozen=True)
class ScoreCurve:
    """The score while pixels of an image are replaced, hottest first.

    Attributes:
        fractions: `[steps + 1]`, the share of replaced pixels, from 0 to 1.
        values: `[batch, classes, steps + 1]`, the probability or score at each.
    """

    fractions: Values
    values: Values

    @property
    def auc(self) -> Values:
        """The area under the curve by trapezoids, `[batch, classes]`."""
        widths = np.diff(self.fractions)
        area: Values = ((self.values[..., 1:] + self.values[..., :-1]) / 2 * widths).sum(axis=-1)
        return area


def deletion(
    explainer: "Explainer",
    images: Images,
    explanation: "Explanation",
    *,
    steps: int = 10,
    baseline: Baseline = "mean",
) -> ScoreCurve:
    """Measures deletion (RISE; Petsiuk et al., BMVC 2018): low is good.

    Replaces the hottest pixels first.

    Args:
        explainer: The explainer of the heatmaps.
        images: Its images, `[batch, height, width, channels]`.
        explanation: Its heatmaps.
        steps: The number of steps, of equally many pixels except for the last.
        baseline: The replacement; see the module.

    Returns:
        A curve; its `auc` is the measure.
    """
    return _curve(explainer, images, _baseline(images, baseline), explanation, steps)


def insertion(
    explainer: "Explainer",
    images: Images,
    explanation: "Explanation",
    *,
    steps: int = 10,
    baseline: Baseline = "blur",
) -> ScoreCurve:
    """Measures insertion (RISE; Petsiuk et al., BMVC 2018): high is good.

    Inserts the hottest pixels first into a replaced image. Arguments and result are those of
    `deletion`.
    """
    return _curve(explainer, _baseline(images, baseline), images, explanation, steps)


def _curve(
    explainer: "Explainer", start: Images, end: Images, explanation: "Explanation", steps: int
) -> ScoreCurve:
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
    return ScoreCurve(done / places, np.transpose(np.array(values), (2, 0, 1)))


def average_drop(
    explainer: "Explainer",
    images: Images,
    explanation: "Explanation",
    *,
    baseline: Baseline = "mean",
) -> tuple[Values, npt.NDArray[np.bool_]]:
    """Measures average drop and increase in confidence (Chattopadhyay et al., section 4.1).

    Blends the image with the baseline, weighted by the heatmap. With the score y before and o
    after, the drop is max(0, y - o) / y.

    Args:
        explainer: The explainer of the heatmaps.
        images: Its images, `[batch, height, width, channels]`.
        explanation: Its heatmaps.
        baseline: The replacement where there is no heat; see the module.

    Returns:
        The drop in [0, 1], `[batch, classes]`: its mean is the average drop, low is good. And
        whether the score grows: its mean is the increase in confidence, high is good.
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
    explainer: "Explainer",
    images: Images,
    explanation: "Explanation",
    *,
    patches: int = 7,
    baseline: Baseline = "mean",
) -> Values:
    """Measures the rank correlation of heat and occlusion (Selvaraju et al., section 5.3).

    Args:
        explainer: The explainer of the heatmaps.
        images: Its images, `[batch, height, width, channels]`.
        explanation: Its heatmaps.
        patches: The number of patches along each side; each is occluded alone.
        baseline: The replacement of a patch; see the module.

    Returns:
        The rank correlation of the mean heat of patches and the loss of score without them, in
        [-1, 1], `[batch, classes]`; high is good.
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


def _score(
    explainer: "Explainer",
    images: Images,
    explanation: "Explanation",
    class_place: int,
    logit: bool = False,
) -> Values:
    scores, probabilities = explainer.predict(images, **class_arguments(explanation, class_place))
    if not explanation.classes:  # the scores of a score function, all of them
        return scores[:, class_place].astype(np.float64)
    return (scores if logit else probabilities)[:, 0].astype(np.float64)


def class_arguments(explanation: "Explanation", class_place: int | None = None) -> dict[str, Any]:
    """Returns the arguments by which an explainer gets the classes of an explanation."""
    if not explanation.classes:
        return {}
    if class_place is None:
        return {"classes_per_image": explanation.classes}
    return {"class_per_image": [row[class_place] for row in explanation.classes]}


def _heat(explanation: "Explanation", class_place: int, shape: Sequence[int]) -> Values:
    """The heatmaps of a class in [0, 1] at the images' size, `[batch, height, width]`."""
    size = (shape[2], shape[1])
    heatmaps = explanation.heatmaps[:, class_place]
    return np.array([normalize(each, size, explanation.extent) for each in heatmaps])


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
