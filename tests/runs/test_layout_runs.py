"""Runs over other layouts than VOC: the same boxes, where the same classes are given."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import TinyVoc

from kgradcam.errors import DataWarning, UserError
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.detection import detect
from kgradcam.runs.run import Run
from kgradcam.runs.run_dataset import open_run_dataset


def boxes(run: Run) -> dict[tuple[str, str], list[list[float]]]:
    """The boxes of each picture, without its folders, and class."""
    truth, found = run.ground_truth, run.detections([0.5]).popitem()[1]
    names = {image.id: Path(image.file_name).name for image in truth.images}
    rows: dict[tuple[str, str], list[list[float]]] = {}
    for image_id, category_id, box in zip(
        found.image_ids.tolist(), found.category_ids.tolist(), found.boxes.tolist(), strict=True
    ):
        key = names[image_id], truth.categories[category_id - 1]
        rows.setdefault(key, []).append(box)
    return rows


def as_coco(pets: TinyVoc, run: Run, folder: Path) -> Path:
    """The run's ground truth beside its images."""
    shutil.copytree(pets.root / "JPEGImages", folder / "images")
    shutil.copy(run.folder / "ground_truth.json", folder / "instances.json")
    return folder


def as_yolo(pets: TinyVoc, run: Run, folder: Path) -> Path:
    shutil.copytree(pets.root / "JPEGImages", folder / "images")
    (folder / "labels").mkdir()
    truth = run.ground_truth
    for image in truth.images:
        size = np.array([image.width, image.height])
        lines = []
        for row in np.flatnonzero(truth.image_ids == image.id):
            low, high = truth.boxes[row][:2], truth.boxes[row][2:]
            numbers = [*((low + high) / 2 / size), *((high - low) / size)]
            lines.append(" ".join(map(str, [truth.category_ids[row] - 1, *numbers])))
        path = (folder / "labels" / image.file_name).with_suffix(".txt")
        path.write_text("\n".join(lines))
    (folder / "data.yaml").write_text("names: [cat, dog]\n")
    return folder


def test_coco_and_yolo_give_the_boxes_of_voc(
    run: Run, pets: TinyVoc, configuration: Configuration, tmp_path: Path
) -> None:
    for make in (as_coco, as_yolo):
        folder = make(pets, run, tmp_path / make.__name__)
        options = replace(configuration, dataset=str(folder), thresholds=(0.5,))
        other = detect(options, tmp_path / f"{make.__name__}_run")
        assert boxes(other) == boxes(run)
        np.testing.assert_allclose(other.ground_truth.boxes, run.ground_truth.boxes, atol=1e-9)


def test_a_folder_for_each_class_asks_for_its_class(
    run: Run, pets: TinyVoc, configuration: Configuration, tmp_path: Path
) -> None:
    for name, pictures in (("dog", "ae"), ("cat", "c")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for each in pictures:
            shutil.copy(pets.root / "JPEGImages" / f"{each}.jpg", tmp_path / "set" / name)
    options = replace(
        configuration,
        dataset=str(tmp_path / "set"),
        classes=("all",),
        class_map={"dog": "2", "cat": "0", "cow": "1"},
        thresholds=(0.5,),
    )
    other = detect(options, tmp_path / "other")
    expected = {key: value for key, value in boxes(run).items() if key[0] != "b.jpg"}
    assert boxes(other) == expected
    assert len(other.ground_truth.boxes) == 0
    with pytest.raises(UserError, match=r"No class of .* is in the mapping.*Did you mean 'dogs'"):
        detect(replace(options, class_map={"dogs": "2"}), tmp_path / "none")


def test_plain_pictures_are_explained_for_what_the_model_predicts(
    run: Run, pets: TinyVoc, configuration: Configuration, tmp_path: Path
) -> None:
    options = replace(
        configuration,
        dataset=str(pets.root / "JPEGImages"),
        split=None,
        presence_threshold=0.0,
        thresholds=(0.5,),
    )
    lines: list[str] = []
    other = detect(options, tmp_path / "plain", quiet=False, report=lines.append)
    assert any("is pictures without annotation: 5 images" in line for line in lines)
    assert other.info.configuration.presence == "predicted"
    found = boxes(other)
    assert {key: found[key] for key in boxes(run)} == boxes(run)
    assert open_run_dataset(other).examples[0].file_name == "a.jpg"


def test_without_classes_the_outputs_of_the_model_are_the_classes(
    pets: TinyVoc, configuration: Configuration, tmp_path: Path
) -> None:
    options = replace(
        configuration,
        dataset=str(pets.root / "JPEGImages"),
        split=None,
        classes=("all",),
        presence_threshold=0.42,
        thresholds=(0.5,),
    )
    run = detect(options, tmp_path / "plain")
    assert run.ground_truth.categories == ("0", "1", "2")
    assert {record.category_id for record in run.heatmaps()} == {3}  # the only one above a third
    assert json.loads((run.folder / "run.json").read_text())["model"]["outputs"]["2"] == [2]


def test_of_many_classes_only_predicted_ones_are_explained(
    pets: TinyVoc,
    configuration: Configuration,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = replace(
        configuration,
        dataset=str(pets.root / "JPEGImages"),
        split=None,
        classes=("all",),
        presence_threshold=0.42,
        score_scales=(0.5,),
        thresholds=(0.5,),
    )
    slow = detect(options, tmp_path / "slow")
    monkeypatch.setattr("kgradcam.runs.explaining._FEW_CLASSES", 0)
    fast = detect(options, tmp_path / "fast")
    assert boxes(fast) == boxes(slow)
    assert fast.info.counts == slow.info.counts
    strict = replace(options, presence_threshold=1.0)
    with pytest.warns(DataWarning, match="No image has a class of the run"):
        assert detect(strict, tmp_path / "none").info.counts.heatmaps == 0


def test_a_run_without_any_heatmap_is_not_drawn(
    kgradcam, pets: TinyVoc, configuration: Configuration, tmp_path: Path
) -> None:
    options = replace(configuration, presence="predicted", presence_threshold=1.0)
    with pytest.warns(DataWarning, match="a probability of 1 or more, so there are no boxes"):
        run = detect(options, tmp_path / "run")
    result = kgradcam("visualize", run.folder, "--out", tmp_path / "x.png")
    assert (result.code, "no heatmap to draw" in result.err) == (1, True)
