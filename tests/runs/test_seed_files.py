"""The seed's result files: its two tables to six decimals, and nothing else let in."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kgradcam.errors import UserError
from kgradcam.metrics.average_precision import PROTOCOLS, evaluate
from kgradcam.runs.seed_files import read_seed_detections, read_seed_ground_truth
from kgradcam.runs.tables import keep_rows

# Its README, January 2021: one box for each image, the last one stored. AP, then recall.
PUBLISHED = {
    0.01: ([48.880971, 34.132415, 17.308526], [62.075472, 51.698113, 36.226415]),
    0.02: ([46.853608, 32.152346, 17.796862], [61.132075, 50.566038, 36.792453]),
    0.06: ([47.716435, 32.736706, 18.843717], [61.698113, 50.566038, 37.547170]),
}
# What its evaluation gives for all boxes of the same files.
ALL_ROWS = {
    0.01: ([43.896753, 29.992457, 14.996715], [66.792453, 55.094340, 38.490566]),
    0.02: ([42.317974, 28.786971, 15.436118], [66.792453, 54.905660, 39.433962]),
    0.06: ([43.152564, 29.240933, 16.567525], [66.981132, 54.528302, 40.377358]),
}


@pytest.fixture
def results(shared: Path) -> Path:
    return shared / "seed" / "results"


@pytest.mark.parametrize("threshold", [0.01, 0.02, 0.06])
@pytest.mark.parametrize(("rows", "table"), [("last", PUBLISHED), ("all", ALL_ROWS)])
def test_the_tables(results: Path, rows: str, table, threshold: float) -> None:
    truth = read_seed_ground_truth(results / "all_gt_dogs.pickle")
    assert (len(truth.images), len(truth.boxes)) == (433, 530)
    path = results / f"all_detected_dogs{threshold}.pickle"
    found = keep_rows(read_seed_detections(path, truth), rows)
    measured = evaluate(truth, found, PROTOCOLS["seed"], [0.3, 0.4, 0.5])
    ap, recall = table[threshold]
    assert [round(100 * each.ap, 6) for each in measured] == ap
    assert [round(100 * each.recall, 6) for each in measured] == recall


def test_keeping_the_largest_box_is_better_than_the_last(results: Path) -> None:
    truth = read_seed_ground_truth(results / "all_gt_dogs.pickle")
    found = read_seed_detections(results / "all_detected_dogs0.01.pickle", truth)
    measured = evaluate(truth, keep_rows(found, "largest"), PROTOCOLS["seed"], [0.3, 0.4, 0.5])
    assert [round(100 * each.ap, 2) for each in measured] == [54.56, 37.28, 18.94]


def write(path: Path, content: object) -> Path:
    path.write_bytes(pickle.dumps(content, 5))
    return path


def test_boxes_become_half_open(tmp_path: Path) -> None:
    name = "voc\\JPEGImages\\000001.jpg"
    truth = read_seed_ground_truth(
        write(tmp_path / "gt.pickle", {name: np.array([[1, 1, 50, 40]], np.int32)})
    )
    assert truth.boxes.tolist() == [[0, 0, 50, 40]]
    assert truth.images[0].file_name == "000001.jpg"
    assert truth.categories == ("dog",)
    found = read_seed_detections(
        write(tmp_path / "det.pickle", {name: np.array([[0, 0, 50, 40, 4.0]])}), truth
    )
    assert found.boxes.tolist() == [[0, 0, 50, 40]]
    assert found.scores.tolist() == [4.0]


class Evil:
    def __reduce__(self):
        return print, ("hello",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "a dict from file names to arrays"),
        ({"a.jpg": 1}, "a dict from file names to arrays"),
        ({"a.jpg": np.zeros((2, 3))}, "arrays of 4 columns"),
        ({"a.jpg": np.zeros(4)}, "no plain table of numbers"),
        ({"a.jpg": np.array([[None] * 4], object)}, "refers to|no plain table"),
        ({"a.jpg": np.zeros((1, 4), ">f8")}, "no plain table of numbers"),
        ({"a.jpg": np.zeros((1, 4), "c16")}, "no plain table of numbers"),
        ({"a.jpg": Evil()}, "refers to builtins.print"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_seed_ground_truth(write(tmp_path / "gt.pickle", content))


def test_an_array_larger_than_its_bytes_is_refused(tmp_path: Path) -> None:
    data = pickle.dumps({"a.jpg": np.zeros((3, 4))}, 5)
    assert data.count(b"K\x03K\x04") == 1
    (tmp_path / "gt.pickle").write_bytes(data.replace(b"K\x03K\x04", b"K\x04K\x04"))
    with pytest.raises(UserError, match="damaged array"):
        read_seed_ground_truth(tmp_path / "gt.pickle")


# Opcodes by hand, since no honest writer makes these.
FROMBUFFER = b"cnumpy._core.numeric\n_frombuffer\n"
F8 = b"cnumpy\ndtype\n\x8c\x02f8\x85R"
EMPTY = FROMBUFFER + b"(C\x00" + F8 + b"K\x00K\x04\x86\x8c\x01CtR"  # an array [0, 4]


def forge(path: Path, array: bytes) -> Path:
    """Writes a dict from a.jpg to what the opcodes leave."""
    path.write_bytes(b"\x80\x04}\x8c\x05a.jpg" + array + b"s.")
    return path


def test_a_pickle_cannot_hide_a_method_of_its_array(tmp_path: Path) -> None:
    assert len(read_seed_ground_truth(forge(tmp_path / "plain", EMPTY)).boxes) == 0
    with pytest.raises(UserError, match="gives state to an object that takes none"):
        read_seed_ground_truth(forge(tmp_path / "gt", EMPTY + b"}\x8c\x06decodeK\x01sb"))


def test_a_pickle_leaves_nothing_behind(tmp_path: Path) -> None:
    """BUILD sets attributes on anything, the stand-ins for globals as well."""
    set_decode_to_1 = b"N}\x8c\x06decodeK\x01s\x86b"
    with pytest.raises(UserError, match="gives state to an object that takes none"):
        read_seed_ground_truth(forge(tmp_path / "gt", FROMBUFFER + set_decode_to_1))
    assert len(read_seed_ground_truth(forge(tmp_path / "plain", EMPTY)).boxes) == 0


def test_two_folders_with_one_file_name_are_not_mixed_up(tmp_path: Path) -> None:
    path = write(tmp_path / "gt.pickle", {f"{c}:\\a.jpg": np.ones((1, 4)) for c in "CD"})
    with pytest.raises(UserError, match="the image 'a.jpg' twice"):
        read_seed_ground_truth(path)


def test_impossible_boxes_are_refused_by_the_files_name(tmp_path: Path) -> None:
    path = write(tmp_path / "gt.pickle", {"a.jpg": np.array([[9, 9, 1, 1]], np.int32)})
    with pytest.raises(UserError, match=r"gt.pickle: boxes must be finite, with xmin <= xmax"):
        read_seed_ground_truth(path)
    truth = read_seed_ground_truth(write(tmp_path / "gt.pickle", {"a.jpg": np.ones((1, 4))}))
    path = write(tmp_path / "det.pickle", {"a.jpg": np.array([[0, 0, 1, 1, np.nan]])})
    with pytest.raises(UserError, match=r"det.pickle: scores must be numbers"):
        read_seed_detections(path, truth)


def test_dogs_are_the_dogs_of_any_ground_truth(tmp_path: Path) -> None:
    path = write(tmp_path / "det.pickle", {"VOC\\a.jpg": np.array([[0, 0, 1, 1, 4.0]])})
    dogs = read_seed_ground_truth(write(tmp_path / "gt.pickle", {"a.jpg": np.ones((1, 4))}))
    cats_too = replace(dogs, categories=("cat", "dog"), file_category_ids=())
    assert read_seed_detections(path, cats_too).category_ids.tolist() == [2]
    with pytest.raises(UserError, match="'dog', which is none of the ground truth's classes: cat"):
        read_seed_detections(path, replace(dogs, categories=("cat",)))


def test_unknown_images_and_missing_files_are_named(tmp_path: Path) -> None:
    truth = read_seed_ground_truth(write(tmp_path / "gt.pickle", {"a.jpg": np.ones((1, 4))}))
    path = write(tmp_path / "det.pickle", {"b.jpg": np.zeros((1, 5))})
    with pytest.raises(UserError, match=r"det.pickle refers to the image 'b.jpg'"):
        read_seed_detections(path, truth)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_seed_ground_truth(tmp_path / "nowhere.pickle")
