"""Choosing options on one run, and holding runs against each other."""

import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from helpers import PLAIN

from kgradcam.boxes.options import DEFAULT_OPTIONS, BoxOptions
from kgradcam.errors import UserError
from kgradcam.evaluation import box_tables
from kgradcam.evaluation.comparison import compare_runs
from kgradcam.evaluation.grid import evaluate_run
from kgradcam.evaluation.tuning import read_choice, tune, write_choice
from kgradcam.metrics.bootstrap import draw_samples
from kgradcam.metrics.protocol import PROTOCOLS
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.detection import detect
from kgradcam.runs.run import Run

VOC2010 = PROTOCOLS["voc2010"]


@pytest.fixture
def configuration(make_voc, tiny_model: Path) -> Configuration:
    """Bright squares on a ground that grows brighter: each picture has a threshold of its own."""
    folder = make_voc("squares")
    for i in range(12):
        folder.add(f"{i:02}", [("dog", (4 + i, 5, 22 + i, 25))], size=(48, 32))
    folder.split("tune", *(f"{i:02}" for i in range(6)))
    folder.split("check", *(f"{i:02}" for i in range(6, 12)))
    return Configuration(
        **PLAIN,
        dataset=str(folder.root),
        split="tune",
        classes=("dog=2",),
        model=str(tiny_model),
        thresholds=(0.05, 0.9),
        boxes=BoxOptions("single-threshold", 20, "heat"),
    )


def test_tuning_is_the_highest_cell_of_the_grid(configuration, tmp_path: Path) -> None:
    run = detect(configuration, tmp_path / "run")
    thresholds, radii = [0.05, 0.3, 0.6], [0, 10, 20]
    choice, grid = tune(run, "ap@0.8", thresholds, radii, VOC2010)
    every = {
        (rows, *row.option[1:]): row.measures["ap"]
        for rows in ("all", "largest", "top")
        for row in evaluate_run(run, thresholds, [0.8], VOC2010, rows, radii=radii).rows
    }
    assert choice.value == max(every.values()) > min(every.values())
    assert every[choice.rows, choice.radius, choice.threshold] == choice.value
    assert (choice.dataset, choice.split) == (configuration.dataset, "tune")
    assert len(grid.rows) == 9
    with patch.object(box_tables, "AT_ONCE", 1):  # a pass over the heatmaps for each option
        assert tune(run, "ap@0.8", thresholds, radii, VOC2010) == (choice, grid)


@pytest.mark.parametrize("rules", sorted(DEFAULT_OPTIONS))
def test_grid_tuning_and_comparison_are_single_evaluations(
    configuration: Configuration, tmp_path: Path, rules: str
) -> None:
    """Heatmaps, thresholds and radii at random, for each set of rules."""
    generator = np.random.default_rng(18)
    run = detect(replace(configuration, boxes=DEFAULT_OPTIONS[rules]), tmp_path / "run")
    records = [
        replace(record, heatmap=generator.random((5, 7), np.float32)) for record in run.heatmaps()
    ]
    run.heatmaps = lambda: iter(records)
    thresholds = [0.3, 0.52, *generator.uniform(0.1, 0.8, 4).round(2).tolist()]
    radii = [0, *generator.integers(1, 30, 2).tolist()]
    alone = {
        (rows, "heatmap", radius, threshold): evaluate_run(
            run, [threshold], [0.3], VOC2010, rows, radii=[radius]
        )
        for rows in ("all", "largest", "top")
        for radius in radii
        for threshold in thresholds
    }
    values = {key: result.value("ap@0.3") for key, result in alone.items()}
    grid = evaluate_run(run, thresholds, [0.3], VOC2010, radii=radii)
    assert {("all", *row.option): row for row in grid.rows} == {
        key: result.rows[0] for key, result in alone.items() if key[0] == "all"
    }
    assert len(set(values.values())) > 3
    choice, _ = tune(run, "ap@0.3", thresholds, radii, VOC2010)
    assert choice.value == max(values.values())
    assert values[choice.rows, "heatmap", choice.radius, choice.threshold] == choice.value
    compared = compare_runs([run, run], [0.3], VOC2010, thresholds, radii, samples=10)
    assert [row.measures["ap"] for row in compared.rows] == [grid.value("ap@0.3")] * 2


def test_a_choice_is_written_and_knows_its_images(configuration, tmp_path: Path) -> None:
    run = detect(configuration, tmp_path / "run")
    other = detect(replace(configuration, split="check"), tmp_path / "other")
    choice, _ = tune(run, "recall@0.5", [0.3], [0], VOC2010)
    write_choice(tmp_path / "new" / "options.json", choice)
    again = read_choice(tmp_path / "new" / "options.json")
    assert again == choice
    assert again.chosen_on(run)
    assert not again.chosen_on(other)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no valid box options"),
        ("[1]", "has no valid box options"),
        ('{"radius": 3}', "has no valid box options"),
        (None, "No file"),
    ],
)
def test_what_is_no_choice_is_told(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_choice(tmp_path / "x.json")


def test_a_threshold_out_of_range_is_no_choice(configuration, tmp_path: Path) -> None:
    choice, _ = tune(detect(configuration, tmp_path / "run"), "ap@0.5", [0.3], [0], VOC2010)
    write_choice(tmp_path / "x.json", replace(choice, threshold=3.0))
    with pytest.raises(UserError, match="has no valid box options"):
        read_choice(tmp_path / "x.json")


@pytest.fixture
def runs(configuration, tmp_path: Path) -> list[Run]:
    return [
        detect(configuration, tmp_path / "a"),
        detect(replace(configuration, method="layercam"), tmp_path / "b"),
        detect(
            replace(configuration, boxes=BoxOptions("single-threshold", 0, "heat")), tmp_path / "c"
        ),
    ]


def test_a_run_does_not_differ_from_itself(runs: list[Run]) -> None:
    result = compare_runs([runs[0], runs[0]], [0.5], VOC2010, thresholds=[0.3], samples=50)
    first, second = result.rows
    assert np.isnan(first.measures["difference"])
    assert first.intervals["difference"] is None
    assert (second.measures["difference"], second.intervals["difference"]) == (0, (0, 0))
    assert "*" not in result.table()[1][-1][-1]


def test_differences_are_those_of_the_evaluations(runs: list[Run]) -> None:
    result = compare_runs(runs, [0.5, 0.8], VOC2010, thresholds=[0.3], samples=100)
    for row in result.rows:
        run = next(each for each in runs if str(each.folder) == row.run)
        expected = evaluate_run(run, [0.3], [row.iou], VOC2010).rows[0].measures["ap"]
        assert row.measures["ap"] == expected
    of_c = [row for row in result.rows if row.run == str(runs[2].folder)]
    firsts = [row for row in result.rows if row.run == str(runs[0].folder)]
    for one, other in zip(firsts, of_c, strict=True):
        difference = other.measures["difference"]
        assert difference == other.measures["ap"] - one.measures["ap"]
        low, high = other.intervals["difference"]
        assert low <= difference <= high
    # Unsmoothed, the squares are found to the pixel: that differs in every sample.
    assert of_c[1].intervals["difference"][0] > 0
    assert of_c[1].measures["difference"] > 0.5
    assert "*" in result.table()[1][2][-1]
    rows = json.loads(result.to_json())["rows"]
    assert rows[0]["class"] == "dog"
    assert np.isclose(rows[-1]["ap"], of_c[1].measures["ap"])
    assert result.to_markdown().startswith(
        "Protocol voc2010, percent; differences from the first run"
    )


@pytest.mark.parametrize(("images", "mark"), [(1, ""), (5, ""), (6, " *")])
def test_a_difference_on_few_images_may_be_luck(runs: list[Run], images: int, mark: str) -> None:
    for run in runs:
        truth = run.ground_truth
        run.ground_truth = replace(
            truth, difficult=truth.image_ids > sorted(truth.image_ids)[images - 1]
        )
    result = compare_runs([runs[0], runs[2]], [0.8], VOC2010, thresholds=[0.3], samples=200)
    assert result.rows[1].measures["difference"] == 1
    assert result.rows[1].counts == {"images": images}
    assert result.table()[1][1][-1] == f"+100.0 [+100.0, +100.0]{mark}"


def test_a_class_in_no_sample_has_no_interval(runs: list[Run]) -> None:
    """Each of two samples misses the only picture with an object that counts."""
    for run in runs:
        truth = run.ground_truth
        run.ground_truth = replace(truth, difficult=truth.image_ids != truth.image_ids[0])
    seed = next(seed for seed in range(1000) if not draw_samples(6, 2, seed)[:, 0].any())
    result = compare_runs(
        [runs[0], runs[2]], [0.8], VOC2010, thresholds=[0.3], samples=2, seed=seed
    )
    assert result.rows[1].intervals == {"difference": None}
    assert result.table()[1][1][-1] == "100.00"
    assert json.loads(result.to_json())["rows"][1]["difference_interval"] is None


def test_runs_on_other_images_are_not_compared(runs: list[Run], configuration, tmp_path) -> None:
    other = detect(replace(configuration, split="check"), tmp_path / "d")
    with pytest.raises(UserError, match=r"must have the same images. .*jpg is in one only"):
        compare_runs([runs[0], other], [0.5], VOC2010)
