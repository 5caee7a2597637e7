"""Heatmap files in float32 and in uint16."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import made_up_info, truth
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kgradcam.boxes.options import DEFAULT_OPTIONS
from kgradcam.errors import UsageError
from kgradcam.evaluation.grid import evaluate_run
from kgradcam.metrics.protocol import find_protocol
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.drawn_boxes import draw_boxes
from kgradcam.runs.heatmap_files import ClassHeatmap, pack_heatmaps, read_heatmaps
from kgradcam.runs.run import Run
from kgradcam.runs.run_info import Counts
from kgradcam.runs.run_writer import write_run

VALUES = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)


@given(
    st.lists(
        hnp.arrays(
            np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=4), elements=VALUES
        ),
        min_size=1,
        max_size=3,
    )
)
def test_float32_is_exact_and_uint16_within_half_a_step(tmp_path_factory, maps) -> None:
    path = tmp_path_factory.mktemp("heatmaps") / "0.npz"
    heatmaps = [ClassHeatmap(i, 1, each, 2.5, 0.25) for i, each in enumerate(maps)]
    path.write_bytes(pack_heatmaps(heatmaps))
    for stored, each in zip(read_heatmaps(path), heatmaps, strict=True):
        np.testing.assert_array_equal(stored.heatmap, each.heatmap)
        assert (stored.image_id, stored.score, stored.probability) == (each.image_id, 2.5, 0.25)
    path.write_bytes(pack_heatmaps(heatmaps, "uint16"))
    for stored, each in zip(read_heatmaps(path), heatmaps, strict=True):
        assert stored.heatmap.dtype == np.float32
        # Half a step, and some ulps of float32 by dividing and multiplying. Below the smallest
        # normal number steps are flushed to zero.
        bound = np.ptp(each.heatmap) / 131070 + 2.0**-22 * np.abs(each.heatmap).max()
        bound += np.finfo(np.float32).tiny
        assert np.abs(stored.heatmap.astype(np.float64) - each.heatmap).max() <= bound


def test_tiny_heatmaps_keep_their_contrast_in_uint16(tmp_path: Path) -> None:
    """Gradients of a confident class are tiny: without a step of its own, 1e-9 would become 0."""
    heatmap = np.array([[1e-9, 5e-10, 0.0]], np.float32)
    (tmp_path / "0.npz").write_bytes(
        pack_heatmaps([ClassHeatmap(1, 1, heatmap, 1.0, 1.0)], "uint16")
    )
    (stored,) = read_heatmaps(tmp_path / "0.npz")
    np.testing.assert_allclose(stored.heatmap, heatmap, atol=1e-9 / 131070)


def write(folder: Path, dtype: str) -> Run:
    """A run of 60 blurred heatmaps on images of 500 x 375."""
    generator = np.random.default_rng(0)
    info = made_up_info([0.25], boxes=DEFAULT_OPTIONS["levels"], heatmap_dtype=dtype)
    rows = []
    with write_run(folder) as writer:
        writer.begin(info)
        shapes = truth(images=60)
        images = [replace(each, width=500, height=375) for each in shapes.images]
        for image in images:
            y, x = np.mgrid[:28, :28]
            centre, width = generator.uniform(8, 20, 2), generator.uniform(3, 6)
            blob = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / width**2)
            heatmap = (blob + generator.uniform(0, 0.1, (28, 28))).astype(np.float32)
            writer.add([image], [ClassHeatmap(image.id, 1, heatmap, 1.0, 0.5)], {})
            box = np.array([*(centre[::-1] - width), *(centre[::-1] + width)])
            rows.append((image.id, 1, box * np.array([500, 375, 500, 375]) / 28, False))
        table = replace(truth(*rows, images=60), images=tuple(images))
        return writer.finish(replace(info, counts=Counts(60, 60, 60, 0)), table)


def test_uint16_halves_a_run_and_keeps_its_boxes_and_ap(tmp_path: Path) -> None:
    exact, rounded = write(tmp_path / "exact", "float32"), write(tmp_path / "rounded", "uint16")
    sizes = [(run.folder / "heatmaps/00000.npz").stat().st_size - 4000 for run in (exact, rounded)]
    assert sizes[1] < 0.55 * sizes[0]
    one, other = exact.detections([0.25])[0, 0.25], rounded.detections([0.25])[0, 0.25]
    drawn = draw_boxes(
        rounded.heatmaps(), rounded.ground_truth.images, [0.25], [0], rounded.options
    )
    # COCO stores widths: the sum with the corner may differ in the last bit.
    np.testing.assert_allclose(drawn[0, 0.25].boxes, other.boxes, rtol=1e-12)
    best = [
        {int(i): box for i, box in zip(each.image_ids[::-1], each.boxes[::-1], strict=True)}
        for each in (one, other)
    ]
    moved = [np.abs(best[0][i] - best[1][i]).max() for i in best[0]]
    assert np.median(moved) < 1e-3  # sides move by the heat beside them
    assert max(moved) < 8  # two cells of the 128-pixel canvas
    found = [
        [row.measures["ap"] for row in evaluate_run(run, None, [0.3, 0.5, 0.7], VOC2010).rows]
        for run in (exact, rounded)
    ]
    assert found[0][0] > 0.5
    np.testing.assert_allclose(found[0], found[1], atol=0.01)


VOC2010 = find_protocol("voc2010")


def test_an_unknown_dtype() -> None:
    with pytest.raises(UsageError, match=r"heatmap_dtype .* Did you mean 'uint16'"):
        Configuration(heatmap_dtype="uint17")
