"""Heatmaps against masks of the objects, pixel by pixel."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 1000


@dataclass
class PixelCounts:
    """How many pixels of how much heat lie on an object, and how many beside it.

    Attributes:
        inside: int64 `[BINS]`, by heat in steps of 1 / `BINS`.
        outside: Likewise.
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
            mask: bool `[height, width]`, where the object is.
            void: bool `[height, width]`, what does not count, as the rims of VOC's objects.
        """
        steps = np.minimum((np.asarray(heatmap) * BINS).astype(np.int64), BINS - 1)
        self.inside += np.bincount(steps[mask & ~void], minlength=BINS)
        self.outside += np.bincount(steps[~mask & ~void], minlength=BINS)

    def pixel_ap(self) -> float:
        """Returns PxAP (Choe et al., CVPR 2020): the area under precision over recall of pixels.

        Returns:
            0 to 1; NaN if there is no object.
        """
        found, seen = self._above()
        if not found[-1]:
            return float("nan")
        precision = np.divide(found, seen, out=np.zeros(BINS), where=seen > 0)
        recall = found / found[-1]
        return float((precision * np.diff(recall, prepend=0.0)).sum())

    def best_iou(self) -> tuple[float, float]:
        """Returns the highest IoU of thresholded heat with the objects, all pixels together.

        Returns:
            The IoU, 0 to 1, and the threshold: heat from there on is taken for the object. NaN if
            there is no object.
        """
        found, seen = self._above()
        if not found[-1]:
            return float("nan"), float("nan")
        iou = found / (seen + found[-1] - found)
        best = int(iou.argmax())
        return float(iou[best]), (BINS - 1 - best) / BINS

    def _above(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Pixels on objects, and all pixels, from the hottest step downwards."""
        found = np.cumsum(self.inside[::-1])
        return found, found + np.cumsum(self.outside[::-1])
