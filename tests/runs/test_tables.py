"""Tables of boxes: columns that fit together, and rows to keep."""

import numpy as np
import pytest
from helpers import found, truth
from hypothesis import given
from hypothesis import strategies as st

from kgradcam.errors import UserError
from kgradcam.runs.tables import Detections, RowsByClass, keep_rows


def test_tables_are_checked() -> None:
    with pytest.raises(UserError, match="image_ids holds 4"):
        truth((1, 1, [0, 0, 1, 1], False), (4, 1, [0, 0, 1, 1], False))
    with pytest.raises(UserError, match=r"category_ids must be 1 to 2. Received: 3"):
        truth((1, 3, [0, 0, 1, 1], False))
    with pytest.raises(UserError, match=r"scores must have one entry for each of 1 boxes"):
        Detections(np.ones(1, np.int64), np.ones(1, np.int64), np.zeros((1, 4)), np.zeros(2))
    with pytest.raises(UserError, match=r"boxes must be \[boxes, 4\], xyxy. Received: \(4,\)"):
        Detections(np.ones(1, np.int64), np.ones(1, np.int64), np.zeros(4), np.zeros(1))


def test_rows_are_kept_for_each_image_and_class() -> None:
    detections = found(
        (1, 1, [0, 0, 4, 4], 0.1),
        (1, 1, [0, 0, 2, 8], 0.2),  # of equal area: the first of equals is kept
        (1, 2, [0, 0, 1, 1], 0.3),
        (2, 1, [0, 0, 1, 1], 0.4),
        (1, 1, [0, 0, 1, 2], 0.5),
    )
    assert keep_rows(detections, "all") is detections
    assert keep_rows(detections, "last").scores.tolist() == [0.3, 0.4, 0.5]
    assert keep_rows(detections, "largest").scores.tolist() == [0.1, 0.3, 0.4]
    with pytest.raises(UserError, match="'first'"):
        keep_rows(detections, "first")
    assert keep_rows(found(), "last").boxes.shape == (0, 4)


@given(st.lists(st.tuples(st.sampled_from([-(2**62), 1, 3, 2**62]), st.integers(1, 3))))
def test_rows_are_found_by_image_and_class(keys) -> None:
    rows_of = RowsByClass(found(*((*key, [0, 0, 1, 1], 0.5) for key in keys)))
    for key in [*keys, (1, 1), (2, 2), (2**62, 9), (2**63 - 1, 1)]:
        assert rows_of(*key).tolist() == [i for i, each in enumerate(keys) if each == key]
