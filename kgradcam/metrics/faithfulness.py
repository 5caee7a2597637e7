"""All measures of faithfulness at once: how well heatmaps explain the model that they come from."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.normalization import normalize
from kgradcam.heatmaps.explainer import Explainer, Explanation
from kgradcam.metrics.perturbation import average_drop, deletion, insertion, occlusion_correlation
from kgradcam.metrics.pointing_game import energy_inside, pointing_hit
from kgradcam.metrics.randomization import randomization_correlation

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
"""The measures of `measure`, and how to read them."""


def measure(
    explainer: Explainer,
    images: npt.NDArray[Any],
    explanation: Explanation,
    regions: Sequence[Sequence[npt.NDArray[Any]]] | None = None,
) -> dict[str, npt.NDArray[np.float64]]:
    """Takes all measures of `MEASURES`, with their default parameters.

    Args:
        explainer: The explainer of the heatmaps.
        images: Its images, `[batch, height, width, channels]`.
        explanation: Its heatmaps.
        regions: The boxes of each image and class, in pixels of `images`, or its mask; see
            `pointing_game.region_mask`. Without them, `pointing` and `energy` are left out.

    Returns:
        The measures by name, float64 `[batch, classes]` each.
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
        pointing, energy = np.zeros(drop.shape), np.zeros(drop.shape)
        for place in np.ndindex(drop.shape):
            size = (width, height)
            heatmap = normalize(explanation.heatmaps[place], size, explanation.extent)
            region = regions[place[0]][place[1]]
            pointing[place] = pointing_hit(heatmap, region)
            energy[place] = energy_inside(heatmap, region)
        measures |= {"pointing": pointing, "energy": energy}
    return measures
