"""Spearman's rank correlation."""

from typing import Any

import numpy as np
import numpy.typing as npt


def rank_correlation(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Returns Spearman's rank correlation; ties share their mean rank.

    A constant array has no correlation: the result is 0.

    Example:
        >>> rank_correlation(np.array([1, 2, 3]), np.array([10, 30, 20]))
        0.5
    """
    x, y = (_ranks(np.nan_to_num(np.ravel(each))) for each in (a, b))
    x, y = x - x.mean(), y - y.mean()
    spread = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / spread) if spread > 0 else 0.0


def _ranks(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
