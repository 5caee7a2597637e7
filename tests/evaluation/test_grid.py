"""AP and recall over grids of options: the rows, the best of them, baselines, intervals."""

import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from helpers import PLAIN, found, sign, truth

from kgradcam.boxes.options import DEFAULT_OPTIONS, BoxOptions
from kgradcam.errors import UserError
from kgradcam.evaluation import box_tables, grid
from kgradcam.evaluation.box_tables import boxes_of_run, given_boxes
from kgradcam.evaluation.grid import evaluate_boxes, evaluate_run
from kgradcam.evaluation.rows import Row
from kgradcam.metrics.protocol import PROTOCOLS
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.detection import detect
from kgradcam.runs.run import Run


def test_given_detections_have_no_threshold() -> None:
    boxes = given_boxes(truth((1, 1, [0, 0, 9, 9], False)), found((1, 1, [0, 0, 9, 9], 1.0)))
    result = evaluate_boxes(boxes, [0.5], PROTOCOLS["voc2007"])
    assert result.rows[0] == Row(
        "cat",
        {"ap": 1.0, "recall": 1.0},
        {"detections": 1, "ground_truths": 1},
        {"ap": None, "recall": None},
        boxes="given",
        iou=0.5,
    )
    assert result.table()[1][1][:2] == ["cat", "given"]


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
    assert cat.counts == {"detections": 3, "ground_truths": 1}
    assert dog.counts == {"detections": 5, "ground_truths": 4}
    assert mean.counts == {"detections": 8, "ground_truths": 5}
    assert cat.measures["recall"] == dog.measures["recall"] == 1
    aps = [each.measures["ap"] for each in (cat, dog)]
    assert mean.measures["ap"] == pytest.approx(sum(aps) / 2)


def test_stored_detections_are_what_is_scored(run: Run) -> None:
    before = evaluate_run(run, None, [0.3], PROTOCOLS["voc2010"])
    (run.folder / "detections-0.5.json").write_text("[]")
    after = evaluate_run(Run(sign(run.folder)), None, [0.3], PROTOCOLS["voc2010"])
    assert before.rows[0].counts["detections"] == 3
    assert after.rows[0] == replace(
        before.rows[0],
        measures={"ap": 0.0, "recall": 0.0},
        counts={"detections": 0, "ground_truths": 1},
    )


def test_one_row_for_each_image(run: Run) -> None:
    result = evaluate_run(run, None, [0.3], PROTOCOLS["voc2010"], rows="largest")
    assert [row.counts["detections"] for row in result.rows] == [2, 3, 5]


def test_curves_end_at_the_recall(run: Run) -> None:
    result = evaluate_run(run, None, [0.3], PROTOCOLS["voc2010"])
    cat, dog = result.curves
    assert (cat.class_name, dog.class_name) == ("cat", "dog")
    assert dog.recall[-1] == result.rows[1].measures["recall"]
    assert dog.precision[0] == 1.0
    assert len(dog.recall) == len(dog.precision) == 5
    assert dog.recall == sorted(dog.recall)


def test_a_grid_of_several_passes_is_that_of_one(run: Run) -> None:
    """As of runs with so many heatmaps that the boxes of all options would not fit into memory."""
    options = ([0.5, 0.2, 0.3], [0.3], PROTOCOLS["voc2010"])
    whole, heatmaps, passes = evaluate_run(run, *options, radii=[3, 0]), run.heatmaps, []
    run.heatmaps = lambda: passes.append(1) or heatmaps()
    with patch.object(box_tables, "AT_ONCE", 2 * run.info.counts.heatmaps):
        boxes = boxes_of_run(run, options[0], [3, 0])
        in_parts = evaluate_boxes(boxes, *options[1:])
    levels = [[option[1:] for option in group] for group in boxes.tables.groups]
    assert levels == [[(3, 0.5), (3, 0.2)], [(3, 0.3)], [(0, 0.5), (0, 0.2)], [(0, 0.3)]]
    assert in_parts.rows == whole.rows
    assert in_parts.curves == whole.curves
    assert len(passes) == 5  # the last one for the curves of the best option


def test_a_long_curve_keeps_its_first_points_and_some_of_the_others(run: Run) -> None:
    whole = evaluate_run(run, None, [0.3], PROTOCOLS["voc2010"]).curves
    with patch.object(grid, "HALF_A_CURVE", 2):
        some = evaluate_run(run, None, [0.3], PROTOCOLS["voc2010"]).curves
    assert [len(curve.recall) for curve in whole] == [2, 5]
    assert some[0] == whole[0]
    assert some[1].recall == [whole[1].recall[i] for i in (0, 1, 4)]
    assert some[1].precision == [whole[1].precision[i] for i in (0, 1, 4)]


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
            means.setdefault(row.option, []).append(row.measures["ap"])
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
    assert frame.counts == {"detections": 3, "ground_truths": 4}  # `e` has two dogs and one box
    assert frame.measures["recall"] == 0.75
    assert rows["full frame", "dog", 0.5].measures["recall"] == 0
    assert ("centre box", "mean", 0.5) in rows
    at_random = rows["random heatmap", "dog", 0.0]
    assert at_random.counts["detections"] > 0
    again = evaluate_run(run, None, [0.0, 0.5], PROTOCOLS["voc2010"], baselines=True)
    assert again.rows == result.rows
    names = [line[1] for line in result.table()[1]]
    assert names[:4] == ["0.5", "full frame", "centre box", "random heatmap"]


def test_of_large_grids_the_table_shows_the_best(run: Run) -> None:
    thresholds = [i / 50 for i in range(50)]
    result = evaluate_run(run, thresholds, [0.5], PROTOCOLS["voc2010"], baselines=True)
    _, lines = result.table()
    assert "the best 20 of 50 options, best first" in result.title
    assert {line[0] for line in lines} == {"mean"}
    assert float(lines[0][1].split()[0]) == result.best[2]
    assert [line[1] for line in lines[-3:]] == ["full frame", "centre box", "random heatmap"]
    options = lines[:-3]
    assert len(options) <= 20
    scores = [float(line[4]) for line in options]
    assert scores == sorted(scores, reverse=True)
    of_best = result.of_best_option()
    assert [line[0] for line in of_best.table()[1]] == ["mean", "cat", "dog"]
    assert of_best.value("ap@0.5") == result.value("ap@0.5")


def test_intervals_hold_the_measure(run: Run) -> None:
    result = evaluate_run(run, None, [0.3], PROTOCOLS["voc2010"], bootstrap=200)
    for row in result.rows:
        low, high = row.intervals["ap"]
        assert 0 <= low <= high <= 1
    dog = result.rows[1]
    assert dog.intervals["ap"][0] <= dog.measures["ap"] <= dog.intervals["ap"][1]
    assert "95 % intervals of 200 bootstrap samples" in result.title
    assert "[" in result.table()[1][0][4]
    assert json.loads(result.to_json())["rows"][1]["ap_interval"] == list(dog.intervals["ap"])


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
    assert {row.threshold for row in evaluation.rows} == {0.35}
    assert evaluation.source["score"] == "expected-iou"
    drawn = run.detections([0.35], options=levels)[0, 0.35]
    counts = [row.counts["detections"] for row in evaluation.rows if row.class_name != "mean"]
    assert counts == [int((drawn.category_ids == i).sum()) for i in (1, 2)]
