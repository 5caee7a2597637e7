"""Rows of measurements, and how they print."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_records import found, truth

from kgradcam.boxes import BoxOptions
from kgradcam.detection import Configuration, detect
from kgradcam.evaluation import Evaluation, Row, evaluate_detections, evaluate_run
from kgradcam.metrics.boxes import PROTOCOLS
from kgradcam.runs import Run

EVALUATION = Evaluation(
    "voc2010",
    (
        Row("cat", 0.06, 0.3, 0.5, 0.75, 7, 4),
        Row("cat", 0.06, 0.5, 0.25, 0.5, 7, 4),
        Row("dog", 0.06, 0.3, float("nan"), float("nan"), 1, 0),
        Row("dog", 0.06, 0.5, float("nan"), float("nan"), 1, 0),
    ),
)


def test_json_is_one_object_and_undefined_is_null() -> None:
    content = json.loads(EVALUATION.to_json())
    assert content["protocol"] == "voc2010"
    assert content["rows"][0] == {
        "class": "cat",
        "threshold": 0.06,
        "iou": 0.3,
        "ap": 0.5,
        "recall": 0.75,
        "detections": 7,
        "ground_truths": 4,
    }
    assert content["rows"][2]["ap"] is None
    assert content["rows"][3]["recall"] is None


def test_markdown_has_a_line_for_each_class_and_threshold() -> None:
    assert EVALUATION.to_markdown().splitlines() == [
        "Protocol `voc2010`, percent.",
        "",
        "| class | threshold | boxes | objects | AP@0.3 | AP@0.5 | recall@0.3 | recall@0.5 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| cat | 0.06 | 7 | 4 | 50.00 | 25.00 | 75.00 | 50.00 |",
        "| dog | 0.06 | 1 | 0 | - | - | - | - |",
    ]


def test_given_detections_have_no_threshold() -> None:
    result = evaluate_detections(
        truth((1, 1, [0, 0, 9, 9], False)),
        found((1, 1, [0, 0, 9, 9], 1.0)),
        [0.5],
        PROTOCOLS["voc2007"],
    )
    assert result.rows[0] == Row("cat", None, 0.5, 1.0, 1.0, 1, 1)
    assert result.table()[1][0][:2] == ["cat", "given"]


@pytest.fixture
def run(pets, tiny_model: Path, tmp_path: Path) -> Run:
    configuration = Configuration(
        dataset=str(pets.root),
        split="all",
        classes=("cat=0", "dog=2"),
        model=str(tiny_model),
        thresholds=(0.5,),
        boxes=BoxOptions(smooth_radius=0),
    )
    return detect(configuration, tmp_path / "run")


def test_a_run_is_scored_by_class_then_threshold(run: Run) -> None:
    result = evaluate_run(run, [0.5, 0.4], [0.3, 0.7], PROTOCOLS["voc2010"])
    assert [(row.class_name, row.threshold, row.iou) for row in result.rows] == [
        (name, threshold, iou)
        for name in ("cat", "dog")
        for threshold in (0.5, 0.4)
        for iou in (0.3, 0.7)
    ]
    # One of the two cats is difficult, and b.jpg holds a dog where a cat is looked for too.
    cat, dog = result.rows[0], result.rows[4]
    assert (cat.detections, cat.ground_truths, cat.recall) == (3, 1, 1.0)
    assert (dog.detections, dog.ground_truths, dog.recall) == (5, 4, 1.0)


def test_stored_detections_are_what_is_scored(run: Run) -> None:
    before = evaluate_run(run, None, [0.3], PROTOCOLS["voc2010"])
    (run.folder / "detections-0.5.json").write_text("[]")
    after = evaluate_run(run, None, [0.3], PROTOCOLS["voc2010"])
    assert before.rows[0].detections == 3
    assert after.rows[0] == replace(before.rows[0], ap=0.0, recall=0.0, detections=0)


def test_one_row_for_each_image(run: Run) -> None:
    result = evaluate_run(run, None, [0.3], PROTOCOLS["voc2010"], rows="largest")
    assert [row.detections for row in result.rows] == [2, 3]


def test_curves_stay_within_reach(run: Run) -> None:
    """Precision and recall after each detection follow from the hits that a result keeps."""
    from kgradcam.metrics.boxes import evaluate

    detections = run.detections([0.5])[0.5]
    dog = evaluate(run.ground_truth, detections, PROTOCOLS["voc2010"], [0.3])[1]
    found_so_far = np.cumsum(dog.hits)
    assert (found_so_far / dog.ground_truths)[-1] == dog.recall
