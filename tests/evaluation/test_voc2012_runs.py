"""The runs in `results/`: the published numbers, from the stored heatmaps, without a model."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from kgradcam.evaluation.grid import evaluate_run
from kgradcam.metrics.protocol import find_protocol
from kgradcam.runs.drawn_boxes import draw_boxes
from kgradcam.runs.run import Run

ROOT = Path(__file__).resolve().parents[2]
ANIMALS = ("dogs", "cats", "horses", "sheep", "cows")


@pytest.fixture(params=ANIMALS)
def run(request: pytest.FixtureRequest) -> Run:
    return Run(ROOT / "results" / f"voc2012-{request.param}")


def ap(run: Run) -> float:
    """AP at IoU .5 of the stored boxes, in percent."""
    (row,) = evaluate_run(run, None, [0.5], find_protocol("voc2010")).rows
    return 100 * row.measures["ap"]


def test_the_published_accuracy_is_that_of_the_stored_runs() -> None:
    page = (ROOT / "docs/localization.md").read_text("utf-8")
    (row,) = re.findall(r"^\| annotated \| (.*) \|$", page, re.MULTILINE)
    *published, mean = (float(each) for each in row.split(" | "))
    measured = [ap(Run(ROOT / "results" / f"voc2012-{animals}")) for animals in ANIMALS]
    assert [round(each, 1) for each in measured] == published
    assert round(float(np.mean(measured)), 1) == mean
    assert published[0] == 61.4


def test_the_stored_boxes_are_those_of_the_stored_heatmaps(run: Run) -> None:
    images = run.ground_truth.images
    drawn = draw_boxes(run.heatmaps(), images, run.thresholds, [0], run.options)
    stored = run.detections(run.thresholds)
    for name, values in vars(stored[0, 0.35]).items():
        # Other versions of OpenCV may round in another way.
        np.testing.assert_allclose(getattr(drawn[0, 0.35], name), values, rtol=1e-5, err_msg=name)


def test_a_run_names_no_path_and_holds_numbers_only(run: Run) -> None:
    info = run.info
    assert (info.dataset.name, info.dataset.split) == ("VOC2012", "check")
    assert info.configuration.dataset == "VOC2012"
    assert info.counts.skipped == 0
    assert info.counts.heatmaps == info.counts.images == len(run.ground_truth.images)
    text = json.dumps(info.to_json()).replace('"heatmaps/', '"')  # the run's own files
    assert not re.search(r'"[^"]*[/\\][^"]*"', text)
    assert {path.suffix for path in run.folder.rglob("*") if path.is_file()} == {".json", ".npz"}
    listed = set((ROOT / "results/voc2012-check.txt").read_text("utf-8").split())
    assert {Path(image.file_name).stem for image in run.ground_truth.images} <= listed
