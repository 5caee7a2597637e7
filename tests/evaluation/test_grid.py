"""Rows of measurements over grids of options, what is best among them, and how they print."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import PLAIN, found, truth

from kgradcam.boxes.options import DEFAULT_OPTIONS, BoxOptions
from kgradcam.errors import UserError
from kgradcam.evaluation.grid import (
    Evaluation,
    Row,
    evaluate_detections,
    evaluate_run,
    parse_metric,
)
from kgradcam.metrics.average_precision import PROTOCOLS
from kgradcam.runs.detection import Configuration, detect
from kgradcam.runs.run import Run

NAN = float("nan")
EVALUATION = Evaluation(
    PROTOCOLS["voc2010"],
    (
        Row("heatmap", "cat", 20, 0.06, 0.3, 0.5, 0.75, 7, 4),
        Row("heatmap", "cat", 20, 0.06, 0.5, 0.25, 0.5, 7, 4),
        Row("heatmap", "dog", 20, 0.06, 0.3, NAN, NAN, 1, 0),
        Row("heatmap", "dog", 20, 0.06, 0.5, NAN, NAN, 1, 0),
    ),
)


def test_json_is_one_object_and_undefined_is_null() -> None:
    content = json.loads(EVALUATION.to_json())
    assert content["schema"] == 1
    assert content["protocol"] == {
        "name": "voc2010",
        "ap": "area",
        "difficult": "ignore",
        "inclusive": True,
        "match": "devkit",
        "mixed_pixels": False,
    }
    assert content["best"] == {"radius": 20, "threshold": 0.06}
    assert content["rows"][0] == {
        "boxes": "heatmap",
        "class": "cat",
        "radius": 20,
        "threshold": 0.06,
        "iou": 0.3,
        "ap": 0.5,
        "recall": 0.75,
        "detections": 7,
        "ground_truths": 4,
        "ap_interval": None,
        "recall_interval": None,
    }
    assert content["rows"][2]["ap"] is None
    assert content["rows"][3]["recall"] is None


def test_markdown_has_a_line_for_each_class_and_threshold() -> None:
    assert EVALUATION.to_markdown().splitlines() == [
        "Protocol voc2010, percent.",
        "",
        "| class | threshold | boxes | objects | AP@0.3 | AP@0.5 | recall@0.3 | recall@0.5 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| cat | 0.06 | 7 | 4 | 50.00 | 25.00 | 75.00 | 50.00 |",
        "| dog | 0.06 | 1 | 0 | - | - | - | - |",
    ]


def test_csv_has_a_line_for_each_row() -> None:
    lines = list(csv.DictReader(io.StringIO(EVALUATION.to_csv())))
    assert len(lines) == 4
    assert (lines[1]["class_name"], lines[1]["ap"], lines[1]["ap_low"]) == ("cat", "0.25", "")
    assert lines[2]["ap"] == "nan"


def test_given_detections_have_no_threshold() -> None:
    result = evaluate_detections(
        truth((1, 1, [0, 0, 9, 9], False)),
        found((1, 1, [0, 0, 9, 9], 1.0)),
        [0.5],
        PROTOCOLS["voc2007"],
    )
    assert result.rows[0] == Row("given", "cat", None, None, 0.5, 1.0, 1.0, 1, 1)
    assert result.table()[1][0][:2] == ["cat", "given"]


def test_a_run_is_scored_by_class_then_threshold(run: Run) -> None:
    result = evaluate_run(run, [0.5, 0.4], [0.3, 0.7], PROTOCOLS["voc2010"])
    assert [(row.class_name, row.threshold, row.iou) for row in result.rows] == [
        (name, threshold, iou)
        for name in ("cat", "dog", "mean")
        for threshold in (0.5, 0.4)
        for iou in (0.3, 0.7)
    ]
    # One of the two cats is difficult, and b.jpg holds a dog where a cat is looked for too.
    cat, dog, mean = result.rows[0], result.rows[4], result.rows[8]
    assert (cat.detections, cat.ground_truths, cat.recall) == (3, 1, 1.0)
    assert (dog.detections, dog.ground_truths, dog.recall) == (5, 4, 1.0)
    assert (mean.detections, mean.ground_truths) == (8, 5)
    assert mean.ap == pytest.approx((cat.ap + dog.ap) / 2)


def test_stored_detections_are_what_is_scored(run: Run) -> None:
    before = evaluate_run(run, None, [0.3], PROTOCOLS["voc2010"])
    (run.folder / "detections-0.5.json").write_text("[]")
    after = evaluate_run(run, None, [0.3], PROTOCOLS["voc2010"])
    assert before.rows[0].detections == 3
    assert after.rows[0] == replace(before.rows[0], ap=0.0, recall=0.0, detections=0)


def test_one_row_for_each_image(run: Run) -> None:
    result = evaluate_run(run, None, [0.3], PROTOCOLS["voc2010"], rows="largest")
    assert [row.detections for row in result.rows] == [2, 3, 5]


def test_curves_end_at_the_recall(run: Run) -> None:
    result = evaluate_run(run, None, [0.3], PROTOCOLS["voc2010"])
    cat, dog = result.curves
    assert (cat.class_name, dog.class_name) == ("cat", "dog")
    assert dog.recall[-1] == result.rows[1].recall
    assert dog.precision[0] == 1.0
    assert len(dog.recall) == len(dog.precision) == 5
    assert dog.recall == sorted(dog.recall)


def test_a_grid_is_each_of_its_options_alone(run: Run, pets, tiny_model, tmp_path: Path) -> None:
    """Radii and thresholds in one pass give what a run made with these options stores."""
    grid = evaluate_run(
        run, [0.2, 0.5, 0.8], [0.3, 0.5], PROTOCOLS["voc2010"], radii=[0, 3, 8], quiet=True
    )
    assert len(grid.rows) == 3 * 3 * 3 * 2
    for radius in (0, 3, 8):
        alone = detect(
            Configuration(
                **PLAIN,
                dataset=str(pets.root),
                split="all",
                classes=("cat=0", "dog=2"),
                model=str(tiny_model),
                thresholds=(0.2, 0.5, 0.8),
                boxes=BoxOptions("single-threshold", radius, "heat"),
            ),
            tmp_path / f"alone{radius}",
        )
        expected = evaluate_run(alone, None, [0.3, 0.5], PROTOCOLS["voc2010"]).rows
        assert tuple(row for row in grid.rows if row.radius == radius) == expected


def test_the_best_option_is_the_highest_mean(run: Run) -> None:
    grid = evaluate_run(run, [0.2, 0.5, 0.8], [0.3, 0.5], PROTOCOLS["voc2010"], radii=[0, 8])
    means = {}
    for row in grid.rows:
        if row.class_name == "mean":
            means.setdefault(row.option, []).append(row.ap)
    assert sum(means[grid.best]) == pytest.approx(max(map(sum, means.values())))
    assert grid.chosen_on_the_test
    assert grid.value("ap@0.5") == means[grid.best][1]
    with pytest.raises(UserError, match="'ap@0.6' was not measured. IoU measured: 0.3, 0.5"):
        grid.value("ap@0.6")


def test_baselines_by_hand(run: Run) -> None:
    """`a` 40x30, one dog of 288 pixels in 1,200; the full frame never reaches a half of it."""
    result = evaluate_run(run, None, [0.0, 0.5], PROTOCOLS["voc2010"], baselines=True)
    rows = {(row.boxes, row.class_name, row.iou): row for row in result.rows}
    frame = rows["full frame", "dog", 0.0]
    assert (frame.detections, frame.ground_truths) == (3, 4)  # `e` has two dogs and one box
    assert frame.recall == 0.75
    assert rows["full frame", "dog", 0.5].recall == 0
    assert ("centre box", "mean", 0.5) in rows
    at_random = rows["random heatmap", "dog", 0.0]
    assert at_random.detections > 0
    again = evaluate_run(run, None, [0.0, 0.5], PROTOCOLS["voc2010"], baselines=True)
    assert again.rows == result.rows
    names = [line[1] for line in result.table()[1]]
    assert names[:4] == ["0.5", "full frame", "centre box", "random heatmap"]


def test_of_large_grids_the_table_shows_the_best(run: Run) -> None:
    thresholds = [i / 50 for i in range(50)]
    result = evaluate_run(run, thresholds, [0.5], PROTOCOLS["voc2010"], baselines=True)
    _, lines = result.table()
    assert len(lines) == 3 * (20 + 3)
    assert "the best 20 of 50 options" in result.title
    shown = {float(line[1]) for line in lines if line[1][0].isdigit()}
    assert result.best[2] in shown


def test_intervals_hold_the_measure(run: Run) -> None:
    result = evaluate_run(run, None, [0.3], PROTOCOLS["voc2010"], bootstrap=200)
    for row in result.rows:
        low, high = row.ap_interval
        assert 0 <= low <= high <= 1
    dog = result.rows[1]
    assert dog.ap_interval[0] <= dog.ap <= dog.ap_interval[1]
    assert "95 % of 200 bootstrap samples" in result.title
    assert "[" in result.table()[1][0][4]
    assert json.loads(result.to_json())["rows"][1]["ap_interval"] == list(dog.ap_interval)


@pytest.mark.parametrize(
    ("text", "expected"), [("ap@0.5", ("ap", 0.5)), ("Recall@.3", ("recall", 0.3))]
)
def test_metrics_by_name(text: str, expected: tuple[str, float]) -> None:
    assert parse_metric(text) == expected


@pytest.mark.parametrize("text", ["ap", "ap@", "map@0.5", "ap@1.5", "ap@x", ""])
def test_what_is_no_metric_is_told(text: str) -> None:
    with pytest.raises(UserError, match=r"metric must be ap@IOU or recall@IOU"):
        parse_metric(text)


def test_random_heatmaps_keep_mean_and_spectrum(run: Run) -> None:
    from kgradcam.evaluation.baselines import _surrogate, random_heatmaps

    generator = np.random.default_rng(0)
    heatmap = generator.uniform(1, 2, (9, 12)).astype(np.float32)  # far from 0: nothing is cut
    drawn = _surrogate(heatmap, generator)
    np.testing.assert_allclose(
        np.abs(np.fft.rfft2(drawn))[:, 1:-1], np.abs(np.fft.rfft2(heatmap))[:, 1:-1], rtol=1e-3
    )
    assert drawn.mean() == pytest.approx(heatmap.mean(), rel=1e-5)
    assert np.abs(drawn - heatmap).max() > 0.1
    records = list(run.heatmaps())
    first, again = ([each.heatmap for each in random_heatmaps(records, 3)] for _ in range(2))
    for one, other, record in zip(first, again, records, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.shape == record.heatmap.shape


def test_other_rules_are_drawn_from_the_same_heatmaps(run) -> None:
    levels = DEFAULT_OPTIONS["levels"]
    evaluation = evaluate_run(run, None, [0.3], PROTOCOLS["voc2010"], box_options=levels)
    assert {row.threshold for row in evaluation.rows} == {0.25}
    assert evaluation.source["score"] == "density"
    drawn = run.detections([0.25], options=levels)[0, 0.25]
    counts = [row.detections for row in evaluation.rows if row.class_name != "mean"]
    assert counts == [int((drawn.category_ids == i).sum()) for i in (1, 2)]
