"""Ground truth of VOC folders, and detections as the devkit writes them."""

import json
from pathlib import Path

import pytest

from kgradcam.errors import UserError
from kgradcam.runs.coco_files import read_detections
from kgradcam.runs.voc_files import (
    read_voc_detections,
    read_voc_ground_truth,
    split_of,
    voc_result_files,
)


def test_a_folder_is_ground_truth(pets) -> None:
    truth = read_voc_ground_truth(pets.root)
    assert [(each.id, each.file_name, each.width) for each in truth.images] == [
        (1, "a.jpg", 40),
        (2, "b.jpg", 30),
        (3, "c.jpg", 40),
        (4, "d.jpg", 40),
    ]
    assert truth.categories == ("cat", "dog")
    assert truth.image_ids.tolist() == [1, 2, 2, 3]
    assert truth.category_ids.tolist() == [2, 1, 2, 1]
    assert truth.boxes.tolist() == [
        [4, 6, 20, 24],
        [10, 2, 30, 12],
        [0, 15, 10, 30],
        [1, 1, 39, 29],
    ]
    assert truth.difficult.tolist() == [False, False, False, True]
    assert len(read_voc_ground_truth(pets.root, "all").images) == 5


def test_what_cannot_be_read_is_no_ground_truth(pets) -> None:
    (pets.root / "Annotations/b.xml").write_text("<annotation>")
    with pytest.raises(UserError, match=r"1 images of split 'test' .* b.jpg: .*not readable XML"):
        read_voc_ground_truth(pets.root)


def test_detections_of_the_devkit_are_read(pets, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "comp4_det_test_dog.txt").write_text("b 0.9 1 16 10 30\r\na 0.25 5.5 7 20 24\n\n")
    (results / "comp4_3f-1_det_test_cat.txt").write_text("")
    (results / "notes.txt").write_text("not mine")
    files = voc_result_files(results)
    assert [path.name for path in files] == [
        "comp4_3f-1_det_test_cat.txt",
        "comp4_det_test_dog.txt",
    ]
    assert split_of(files[0], pets.root) == "test"
    truth, found = read_voc_detections(files, read_voc_ground_truth(pets.root))
    assert truth.categories == ("cat", "dog")
    assert found.image_ids.tolist() == [2, 1]
    assert found.category_ids.tolist() == [2, 2]
    assert found.scores.tolist() == [0.9, 0.25]
    assert found.boxes.tolist() == [[0, 15, 10, 30], [4.5, 6, 20, 24]]


def test_only_the_classes_with_a_file_are_measured(pets, tmp_path: Path) -> None:
    path = tmp_path / "comp4_det_test_dog.txt"
    path.write_text("a 0.9 5 7 20 24\n")
    truth, found = read_voc_detections([path], read_voc_ground_truth(pets.root))
    assert truth.categories == truth.file_category_ids == ("dog",)
    assert truth.image_ids.tolist() == [1, 2]
    assert set(truth.category_ids.tolist()) == set(found.category_ids.tolist()) == {1}
    assert len(truth.images) == 4


def test_coco_results_may_name_images_and_classes_of_a_folder(pets, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    row = {"image_id": "b", "category_id": "dog", "bbox": [0, 0, 9, 9], "score": 1}
    path.write_text(json.dumps([row, row | {"image_id": "c", "category_id": "cat"}]))
    truth = read_voc_ground_truth(pets.root)
    found = read_detections(path, truth)
    assert (found.image_ids.tolist(), found.category_ids.tolist()) == ([2, 3], [2, 1])
    path.write_text(json.dumps([row | {"category_id": 1}]))
    with pytest.raises(UserError, match="category_id must be .* such as cat. Received: 1"):
        read_detections(path, truth)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("comp4_det_test_dgo.txt", "a 1 1 1 2 2", "must end in a class .* Did you mean 'dog'"),
        ("dog.txt", "a 1 1 1 2", "dog.txt, line 2 must be IMAGE SCORE XMIN YMIN XMAX YMAX"),
        ("dog.txt", "a high 1 1 2 2", "Received: 'a high 1 1 2 2'"),
        ("dog.txt", "a 1 9 1 2 2", "line 2 must be IMAGE"),
        ("dog.txt", "a nan 1 1 2 2", "line 2 must be IMAGE"),
        ("dog.txt", "z 1 1 1 2 2", "line 2: 'z' is no image of the ground truth, such as a"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(
    pets, tmp_path: Path, name: str, line: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(f"a 0.5 1 1 2 2\n{line}\n")
    with pytest.raises(UserError, match=message):
        read_voc_detections([path], read_voc_ground_truth(pets.root))
    with pytest.raises(UserError, match="holds no detections of VOC"):
        voc_result_files(pets.root)


def test_the_command_evaluates_both(pets, kgradcam, tmp_path: Path) -> None:
    path = tmp_path / "comp4_det_test_dog.txt"
    path.write_text("a 0.9 5 7 20 24\nb 0.8 30 1 31 2\n")
    given = ("--detections", path, "--ground-truth", pets.root, "--iou", "0.5", "--json")

    def ap(*more: str) -> float:
        result = kgradcam("evaluate", *given, *more)
        assert (result.code, result.err) == (0, "")
        (row,) = [row for row in json.loads(result.out)["rows"] if row["class"] == "dog"]
        return row["ap"]

    assert ap() == 0.5  # one of two dogs
    assert ap("--split", "all") == 0.25  # one of four
    usage = kgradcam("evaluate", pets.root, "--split", "all")
    assert usage.code == 2
    assert "--split needs --ground-truth FOLDER" in usage.err
