"""The confidence of a box, from the heat inside it."""

import cv2
import numpy as np
import numpy.typing as npt

from kgradcam.boxes.normalization import Heatmap
from kgradcam.boxes.overlap import Boxes

Scores = npt.NDArray[np.float64]


def score_boxes(heatmap: Heatmap, boxes: Boxes, probability: float, score: str) -> Scores:
    """Computes the confidence of each box of a heatmap.

    Args:
        heatmap: float32 `[height, width]` in [0, 1], at the image's size.
        boxes: `[boxes, 4]`, xyxy in whole pixels inside it.
        probability: The model's probability of the class, in [0, 1].
        score: `"density"`, `"heat"` or `"constant"`; see `BoxOptions`.

    Returns:
        float64 `[boxes]` in [0, 1]. In a heatmap without heat all are 0, except `"constant"`.
    """
    if score == "constant":
        return np.ones(len(boxes))
    shares, densities = heat_inside(heatmap, boxes)
    if score == "heat":
        return probability * shares
    return probability**0.2 * shares * densities


def heat_inside(heatmap: Heatmap, boxes: Boxes) -> tuple[Scores, Scores]:
    """Returns the share of all heat inside each box, and the mean heat there.

    Args:
        heatmap: float32 `[height, width]` in [0, 1].
        boxes: `[boxes, 4]`, xyxy in whole pixels inside it.

    Returns:
        Two float64 `[boxes]` in [0, 1]; zeros in a heatmap without heat.
    """
    inside, total = heat_of(heatmap, boxes)
    if total == 0:
        return np.zeros(len(boxes)), np.zeros(len(boxes))
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return np.clip(inside / total, 0, 1), np.clip(inside / areas, 0, 1)


def heat_of(heatmap: Heatmap, boxes: Boxes) -> tuple[Scores, float]:
    """Returns the sum of the heat in each box, and in the whole map.

    Args:
        heatmap: float32 `[height, width]`.
        boxes: `[boxes, 4]`, xyxy in whole pixels inside it; some may be empty.
    """
    # Summed-area table: the heat of a box is the sum of four entries.
    heat = cv2.integral(heatmap, sdepth=cv2.CV_64F)
    xmin, ymin, xmax, ymax = boxes.astype(int).T
    inside = heat[ymax, xmax] - heat[ymin, xmax] - heat[ymax, xmin] + heat[ymin, xmin]
    return inside, heat[-1, -1]
