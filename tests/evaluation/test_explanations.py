"""Measures of a run's heatmaps, from its folder, its dataset and its model."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import PLAIN

from kgradcam.data.sources import open_dataset
from kgradcam.errors import UserError
from kgradcam.evaluation.explanations import faithfulness_of_run
from kgradcam.heatmaps.gradcam import GradCAM
from kgradcam.metrics.faithfulness import MEASURES, measure
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.detection import detect
from kgradcam.runs.run import Run


@pytest.fixture
def run(pets, tiny_model: Path, tmp_path: Path) -> Run:
    configuration = Configuration(
        **PLAIN,
        dataset=str(pets.root),
        split="all",
        classes=("cat=0", "dog=1"),
        model=str(tiny_model),
        batch_size=2,
    )
    return detect(configuration, tmp_path / "run")


def test_a_run_is_measured_as_its_images_are_one_by_one(run: Run, pets, tiny_model: Path) -> None:
    """`a` and `e` of one shape go together, `b` has two classes, `c` is difficult."""
    result = faithfulness_of_run(run)
    counts = {row.class_name: row.counts["heatmaps"] for row in result.rows}
    assert counts == {"cat": 2, "dog": 3, "mean": 5}
    measures = {row.class_name: row.measures for row in result.rows}
    cam = GradCAM(keras.models.load_model(tiny_model))
    dataset = open_dataset(str(pets.root), "all")
    found: dict[str, list[dict[str, np.ndarray]]] = {"cat": [], "dog": []}
    for batch, images, _ in dataset.batches(dataset.examples, 1):
        objects = batch[0].objects
        for place, name in enumerate(("cat", "dog")):
            boxes = objects.boxes[[each == name for each in objects.names]]
            if len(boxes):
                explanation = cam(images, classes=[place])
                found[name].append(measure(cam, images, explanation, [[boxes]]))
    for name, measured in found.items():
        for key in set(MEASURES) - {"pointing", "energy"}:
            mean = np.mean([each[key][0, 0] for each in measured])
            assert measures[name][key] == pytest.approx(mean, abs=1e-4), key
    # The cat of `c` is difficult: that of `b` counts alone.
    assert measures["cat"]["energy"] == pytest.approx(found["cat"][0]["energy"][0, 0])
    for key in MEASURES:
        by_class = [measures[name][key] for name in ("cat", "dog")]
        assert measures["mean"][key] == pytest.approx(np.mean(by_class))


def test_a_draw_of_images(run: Run) -> None:
    for seed in range(4):
        rows = faithfulness_of_run(run, limit=1, seed=seed).rows
        drawn = sum(row.counts["heatmaps"] for row in rows if row.class_name != "mean")
        assert drawn in (1, 2)
    assert faithfulness_of_run(run, limit=1, seed=3) == faithfulness_of_run(run, limit=1, seed=3)


def test_it_prints_in_three_ways(run: Run) -> None:
    result = faithfulness_of_run(run)
    header, lines = result.table()
    assert header == ["class", "heatmaps", *MEASURES]
    assert [line[0] for line in lines] == ["mean", "cat", "dog"]
    parsed = json.loads(result.to_json())
    assert parsed["source"]["method"] == "gradcam"
    assert parsed["rows"][1]["class"] == "dog"
    assert parsed["rows"][1]["deletion"] == pytest.approx(result.rows[1].measures["deletion"])
    assert result.to_markdown().splitlines()[2] == f"| {' | '.join(header)} |"


def test_an_image_that_is_gone_is_named(run: Run, pets) -> None:
    (pets.root / "JPEGImages/e.jpg").unlink()
    (pets.root / "Annotations/e.xml").unlink()
    with pytest.raises(UserError, match=r"no longer holds e.jpg"):
        faithfulness_of_run(run)


def test_refined_heatmaps_are_measured_against_refined_ones(
    pets, tiny_model: Path, tmp_path: Path
) -> None:
    """Refined, as `detect` makes them by default: the explainer is the run's own."""
    configuration = Configuration(
        dataset=str(pets.root),
        split="all",
        classes=("dog=1",),
        model=str(tiny_model),
        image_size=16,
    )
    result = faithfulness_of_run(detect(configuration, tmp_path / "run"))
    (row,) = result.rows
    assert row.counts == {"heatmaps": 3}
    measures = row.measures
    assert 0 <= measures["energy"] <= 1
    assert set(measures) == set(MEASURES)
