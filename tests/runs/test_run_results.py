"""A run in Python: its images one by one, and its boxes as a table."""

import numpy as np
import pytest

from kgradcam.runs.run import Run


def test_images_with_their_boxes_and_heatmaps(run: Run) -> None:
    results = {each.image.file_name: each for each in run}
    assert sorted(results) == ["a.jpg", "b.jpg", "c.jpg", "e.jpg"]
    (table,) = run.detections([0.5]).values()
    both = results["b.jpg"]
    rows = table.image_ids == both.image.id
    np.testing.assert_array_equal(both.boxes, table.boxes[rows])
    np.testing.assert_array_equal(both.scores, table.scores[rows])
    assert set(both.class_names) == {"cat", "dog"} == set(both.heatmaps)
    assert both.heatmaps["cat"].shape == (20, 15)  # half of 40 x 30


def test_a_dataframe(run: Run) -> None:
    pytest.importorskip("pandas")
    frame = run.to_dataframe()
    (table,) = run.detections([0.5]).values()
    assert list(frame.columns) == [
        "file_name", "class_name", "xmin", "ymin", "xmax", "ymax", "score"
    ]  # fmt: skip
    np.testing.assert_array_equal(frame[["xmin", "ymin", "xmax", "ymax"]], table.boxes)
    assert frame[frame.file_name == "a.jpg"].class_name.tolist() == ["dog"]
