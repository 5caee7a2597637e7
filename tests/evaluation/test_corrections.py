"""An old run against corrected boxes, and the precision of its boxes by score."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import found, truth

from kgradcam.errors import UserError
from kgradcam.evaluation.box_tables import boxes_of_run, given_boxes
from kgradcam.evaluation.corrections import against
from kgradcam.evaluation.score_precision import score_precision
from kgradcam.runs.run import Run
from kgradcam.runs.tables import Image

OBJECT = [10.0, 10.0, 30.0, 30.0]


def test_images_match_by_name_and_classes_by_name() -> None:
    boxes = given_boxes(truth((1, 1, OBJECT, False)), found((1, 1, OBJECT, 0.5)))
    corrected = replace(
        truth((1, 2, OBJECT, False), (2, 1, OBJECT, False)),
        images=(
            Image(1, "pictures/1.png", 50, 40),
            Image(2, "deadbeef-3.jpg", 0, 0),
            Image(3, "other.jpg", 5, 5),
        ),
        categories=("tiger", "cat"),
    )
    lines: list[str] = []
    both = against(boxes, corrected, lines.append)
    assert both.ground_truth.image_ids.tolist() == [1]
    assert both.ground_truth.category_ids.tolist() == [1]
    assert [image.id for image in both.ground_truth.images] == [1, 3]
    assert lines == [
        "Classes of the ground truth that the run lacks: tiger.",
        "2 images count: 3 in the ground truth, 3 in the run.",
    ]


@pytest.mark.parametrize(
    ("images", "categories", "message"),
    [
        ((Image(1, "x.jpg", 50, 40),), ("cat", "dog"), "No image of the ground truth"),
        ((Image(1, "1.jpg", 50, 40),), ("cta", "dgo"), "Did you mean 'cat'"),
        ((Image(1, "1.jpg", 51, 40),), ("cat", "dog"), "51x40 pixels in the ground truth"),
        ((Image(1, "1.jpg", 50, 40), Image(2, "1.png", 50, 40)), ("cat", "dog"), "fit one image"),
    ],
)
def test_what_does_not_match_is_one_line(images, categories, message: str) -> None:
    boxes = given_boxes(truth((1, 1, OBJECT, False)), found((1, 1, OBJECT, 0.5)))
    corrected = replace(
        truth((1, 1, OBJECT, False)), images=images, categories=categories, file_image_ids=()
    )
    with pytest.raises(UserError, match=message):
        against(boxes, corrected, lambda line: None)


def test_precision_by_score_by_hand() -> None:
    objects = truth((1, 1, OBJECT, False), (2, 1, OBJECT, False), (3, 2, OBJECT, False))
    wrong = [31.0, 0.0, 50.0, 9.0]
    boxes = found(
        (1, 1, OBJECT, 0.9), (1, 1, wrong, 0.6), (2, 1, OBJECT, 0.6), (3, 2, wrong, 0.3),
    )  # fmt: skip
    curve = score_precision(objects, boxes)
    assert curve.at(0.9) == (1, 1.0, pytest.approx(1 / 3))
    assert curve.at(0.5) == (3, pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert curve.at(0.0) == (4, 0.5, pytest.approx(2 / 3))
    # Boxes of one score stay together, so 2 of the first 3 are right at 0.6.
    assert curve.lowest_score(0.6) == 0.6
    assert curve.lowest_score(0.9) == 0.9
    with pytest.raises(UserError, match=r"precision of 1\.1\. The highest is 1\.00"):
        curve.lowest_score(1.1)
    with pytest.raises(UserError, match="no annotated box"):
        score_precision(truth(), boxes)


def test_the_command_scores_a_run_against_a_corrected_file(
    kgradcam, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "corrected.json"
    content = json.loads((run.folder / "ground_truth.json").read_text())
    path.write_text(json.dumps(content))
    same = kgradcam("evaluate", run.folder, "--ground-truth", path, "--iou", 0.5, "--csv")
    plain = kgradcam("evaluate", run.folder, "--iou", 0.5, "--csv")
    assert (same.code, same.out) == (0, plain.out), same.err
    for each in content["images"]:
        each["id"] += 100
        each["file_name"] = f"upload/0123abcd-{each['file_name']}"
    for each in content["annotations"]:
        each["image_id"] += 100
    path.write_text(json.dumps(content))
    moved = kgradcam("evaluate", run.folder, "--ground-truth", path, "--iou", 0.5, "--csv")
    assert moved.out == plain.out
    (tables,) = boxes_of_run(run).tables.values()
    assert np.isclose(float(kgradcam("scores", run.folder, "--min-precision", 0).out),
                      tables.scores.min(), atol=1e-4)  # fmt: skip
    assert "--ground-truth" in kgradcam("evaluate", "--ground-truth", path).err
