"""From a heatmap to boxes with scores, by either set of rules."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.levels import level_boxes
from kgradcam.boxes.normalization import WHOLE, check_size, normalize
from kgradcam.boxes.options import BoxOptions
from kgradcam.boxes.overlap import Boxes
from kgradcam.boxes.scores import Scores, score_boxes
from kgradcam.boxes.single_threshold import single_threshold_boxes_at
from kgradcam.errors import UserError

_DEFAULTS = BoxOptions()


def find_boxes(
    heatmap: npt.ArrayLike,
    size: tuple[int, int],
    probability: float = 1.0,
    threshold: float = 0.35,
    options: BoxOptions = _DEFAULTS,
    extent: Sequence[float] = WHOLE,
) -> tuple[Boxes, Scores]:
    """Draws boxes around the hot regions of a heatmap, and scores them.

    By default:

    1. The heatmap is resized to the image and stretched to [0, 1].
    2. At each level from the threshold up, in steps of .05 to .8, each 4-connected region above
       the level gives its bounding box.
    3. A box is scored by the IoU to expect with an object: by its heat, and by how many other
       boxes agree with it (see `BoxOptions.score`). Its sides move to where an object of such
       heat would end.
    4. Soft non-maximum suppression: of boxes that overlap, those with the lower score lose score.
       Boxes with a low score are dropped.

    Args:
        heatmap: `[height, width]`, at any resolution, not negative.
        size: `(width, height)` of the image in pixels.
        probability: The model's probability of the class, in [0, 1].
        threshold: The lowest heat level, in [0, 1].
        options: The rules and their limits.
        extent: The part of the image that the cells of the heatmap tile; see `normalize`.

    Returns:
        Boxes, float64 `[boxes, 4]`, xyxy in pixels from 0, half-open; and their scores, float64
        `[boxes]` in [0, 1]. With the rules `"levels"` the best box comes first, and a heatmap
        without heat has no box.

    Raises:
        UserError: `heatmap` is not two-dimensional, is empty, or holds NaN or infinite values.

    Example:
        >>> heatmap = np.zeros((4, 8), np.float32)
        >>> heatmap[1:3, 2:5] = 1.0
        >>> boxes, scores = find_boxes(heatmap, (80, 40), threshold=0.5)
        >>> boxes.round()
        array([[21., 10., 49., 30.]])
    """
    return boxes_by_option(
        heatmap, size, probability, [threshold], [options.smooth_radius], options, extent
    )[0]


def boxes_by_option(
    heatmap: npt.ArrayLike,
    size: tuple[int, int],
    probability: float,
    thresholds: Sequence[float],
    radii: Sequence[int],
    options: BoxOptions,
    extent: Sequence[float] = WHOLE,
) -> list[tuple[Boxes, Scores]]:
    """Runs `find_boxes` for every pair of smoothing radius and threshold, sharing the work.

    Args:
        heatmap: `[height, width]`, at any resolution, not negative.
        size: `(width, height)` of the image in pixels.
        probability: The model's probability of the class, in [0, 1].
        thresholds: Heat thresholds, in [0, 1].
        radii: Smoothing radii in pixels; they replace `options.smooth_radius`.
        options: The rules and their limits.
        extent: The part of the image that the cells of the heatmap tile; see `normalize`.

    Returns:
        Boxes and scores for each radius and, within it, each threshold.
    """
    check_size(size)
    if np.ndim(heatmap) != 2:
        raise UserError(f"heatmap must be [height, width]. It is of shape {np.shape(heatmap)}.")
    if options.rules == "levels":
        boxes = level_boxes(heatmap, size, probability, thresholds, radii, options, extent)
        return list(boxes)
    resized = normalize(heatmap, size, extent)
    found = [
        boxes
        for radius in radii
        for boxes in single_threshold_boxes_at(resized, thresholds, radius)
    ]
    # Scored together, since the summed-area table of the heatmap serves all.
    scores = score_boxes(resized, np.concatenate(found), probability, options.score)
    parts = np.split(scores, np.cumsum([len(boxes) for boxes in found])[:-1])
    return list(zip(found, parts, strict=True))
