"""Average precision of image classification, as VOC defines it (Everingham et al., IJCV 2010).

For each class, images are ranked by their score. An image is a hit if it shows a non-difficult
object of the class. An image that shows only difficult objects of the class is left out.
"""

import numpy as np
import numpy.typing as npt

from kgradcam.metrics.average_precision import average_precision
from kgradcam.metrics.protocol import AveragePrecision

UNKNOWN = -1.0
"""The label of a class on an image that does not count for it."""


def classification_ap(
    labels: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], ap: AveragePrecision = "area"
) -> npt.NDArray[np.float64]:
    """Returns the average precision of each class.

    Args:
        labels: float32 `[images, classes]`: 1 where the class is present, 0 where it is absent,
            `UNKNOWN` where the image does not count for it.
        scores: `[images, classes]`, higher for a more confident presence. Ties keep the order of
            the images.
        ap: `"area"`, as VOC from 2010 on, or `"11"`, as VOC2007; see `Protocol.ap`.

    Returns:
        float64 `[classes]` in [0, 1]; NaN for a class that no image shows.

    Example:
        >>> labels = np.array([[1, 0], [0, 0], [1, -1]], np.float32)
        >>> classification_ap(labels, np.array([[3, 1], [2, 2], [1, 3]], np.float32))
        array([0.83333333,        nan])
    """
    values = []
    for truth, score in zip(labels.T, scores.T, strict=True):
        known = truth != UNKNOWN
        hits = truth[known][np.argsort(-score[known], kind="stable")] == 1
        values.append(average_precision(hits, int(hits.sum()), ap))
    return np.array(values)
