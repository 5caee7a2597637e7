"""Precision and recall of heatmap pixels against masks of objects."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 1000


@dataclass
class PixelCounts:
    """Histograms of heat over all images, on and off the objects.

    Attributes:
        inside: int64 `[BINS]`, pixels on an object by heat, in steps of 1 / `BINS`.
        outside: int64 `[BINS]`, pixels beside all objects by heat.
    """

    inside: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    outside: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(
        self,
        heatmap: npt.NDArray[Any],
        mask: npt.NDArray[np.bool_],
        void: npt.NDArray[np.bool_],
    ) -> None:
        """Counts the pixels of a heatmap.

        Args:
            heatmap: `[height, width]` in [0, 1].
            mask: bool `[height, width]`, the pixels of the object.
            void: bool `[height, width]`, pixels that do not count, such as the rims of VOC's
                objects.
        """
        steps = np.minimum((np.asarray(heatmap) * BINS).astype(np.int64), BINS - 1)
        self.inside += np.bincount(steps[mask & ~void], minlength=BINS)
        self.outside += np.bincount(steps[~mask & ~void], minlength=BINS)

    def pixel_ap(self) -> float:
        """Returns PxAP (Choe et al., CVPR 2020), the area under the pixels' precision-recall curve.

        Returns:
            A value in [0, 1]; NaN without objects.
        """
        found, seen = self._above()
        if not found[-1]:
            return float("nan")
        precision = np.divide(found, seen, out=np.zeros(BINS), where=seen > 0)
        recall = found / found[-1]
        return float((precision * np.diff(recall, prepend=0.0)).sum())

    def best_iou(self) -> tuple[float, float]:
        """Returns the highest IoU of a thresholded heatmap with the masks, over all pixels.

        Returns:
            The IoU in [0, 1], and its threshold: the lowest heat of object pixels. NaN without
            objects.
        """
        found, seen = self._above()
        if not found[-1]:
            return float("nan"), float("nan")
        iou = found / (seen + found[-1] - found)
        best = int(iou.argmax())
        return float(iou[best]), (BINS - 1 - best) / BINS

    def _above(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Cumulated pixels on objects, and of all pixels, from the hottest bin downwards."""
        found = np.cumsum(self.inside[::-1])
        return found, found + np.cumsum(self.outside[::-1])
