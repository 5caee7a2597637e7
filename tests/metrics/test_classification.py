"""Classification AP of VOC: by hand."""

import numpy as np
import pytest

from kgradcam.metrics.classification import UNKNOWN, classification_ap


def test_by_hand() -> None:
    labels = np.array([[1, 0], [0, 1], [1, 0], [0, 0]], np.float32)
    scores = np.array([[0.9, 0.1], [0.8, 0.4], [0.7, 0.6], [0.1, 0.5]], np.float32)
    # The first class: hit, miss, hit, miss: precisions 1 and 2/3. The second: its one is third.
    np.testing.assert_allclose(classification_ap(labels, scores), [(1 + 2 / 3) / 2, 1 / 3])
    # At 11 recalls: six points at 1 and five at 2/3.
    np.testing.assert_allclose(
        classification_ap(labels, scores, "11"), [(6 + 5 * 2 / 3) / 11, 1 / 3]
    )


def test_an_image_with_difficult_objects_only_counts_neither_way() -> None:
    scores = np.array([[0.9], [0.5], [0.1]], np.float32)
    assert classification_ap(np.array([[0], [1], [0]], np.float32), scores) == pytest.approx(0.5)
    assert classification_ap(np.array([[UNKNOWN], [1], [0]], np.float32), scores) == 1.0


def test_a_class_that_no_image_holds_has_none() -> None:
    labels = np.array([[0, 1], [UNKNOWN, 0]], np.float32)
    values = classification_ap(labels, np.ones((2, 2), np.float32))
    assert np.isnan(values[0])
    assert values[1] == 1.0  # of equals, the earlier image leads
