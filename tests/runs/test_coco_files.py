"""Ground truth and detections as COCO JSON: exact, readable by pycocotools, from any writer."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from helpers import found, truth
from hypothesis import given
from hypothesis import strategies as st

from kgradcam.data import json_lists
from kgradcam.errors import UserError
from kgradcam.runs.coco_files import (
    read_detections,
    read_ground_truth,
    write_detections,
    write_ground_truth,
)
from kgradcam.runs.tables import Image


def assert_equal_tables(one: Any, other: Any) -> None:
    for name, value in vars(one).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)
        else:
            assert value == getattr(other, name), name


TRUTH = truth((1, 2, [0, 0, 10, 20], False), (3, 1, [5, 6.5, 50, 40], True))


def test_ground_truth_comes_back(tmp_path: Path) -> None:
    write_ground_truth(tmp_path / "truth.json", TRUTH)
    assert_equal_tables(read_ground_truth(tmp_path / "truth.json"), TRUTH)
    written = json.loads((tmp_path / "truth.json").read_text())["annotations"]
    assert written[0] == {
        "id": 1,
        "image_id": 1,
        "category_id": 2,
        "bbox": [0, 0, 10, 20],
        "area": 200,
        "iscrowd": 0,
        "difficult": 0,
    }
    assert written[1]["bbox"] == [5, 6.5, 45, 33.5]


@given(
    st.lists(
        st.tuples(
            st.integers(1, 3),
            st.integers(1, 2),
            st.tuples(*[st.integers(0, 40)] * 4).map(
                lambda c: [min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])]
            ),
            st.floats(0, 1),
        ),
        max_size=6,
    )
)
def test_detections_come_back(tmp_path_factory: Any, rows: Any) -> None:
    path = tmp_path_factory.mktemp("coco") / "found.json"
    write_detections(path, found(*rows))
    assert_equal_tables(read_detections(path, TRUTH), found(*rows))


extent = st.floats(0, 1000, allow_subnormal=False)


@given(st.lists(st.tuples(extent, extent, extent, extent), max_size=4))
def test_boxes_that_were_read_are_written_back_exactly(tmp_path_factory: Any, boxes: Any) -> None:
    path = tmp_path_factory.mktemp("coco") / "found.json"
    path.write_text(
        json.dumps([{"image_id": 1, "category_id": 2, "bbox": b, "score": 0.1} for b in boxes])
    )
    once = read_detections(path, TRUTH)
    np.testing.assert_array_equal(
        once.boxes, np.array([(x, y, x + w, y + h) for x, y, w, h in boxes]).reshape(-1, 4)
    )
    write_detections(path, once)
    assert_equal_tables(read_detections(path, TRUTH), once)


@pytest.mark.parametrize("name", ["images", "annotations", "categories", "results"])
def test_an_entry_of_a_later_part_is_named_by_its_place(tmp_path: Path, name: str) -> None:
    write_ground_truth(tmp_path / "truth.json", TRUTH)
    write_detections(tmp_path / "found.json", found(*[(1, 2, [0, 0, 1, 1], 0.5)] * 3))
    path = tmp_path / ("found.json" if name == "results" else "truth.json")
    content = json.loads(path.read_text())
    rows = content if name == "results" else content[name]
    rows[-1] = [] if name in ("images", "categories") else {**rows[-1], "image_id": 9}
    path.write_text(json.dumps(content))
    with patch.object(json_lists, "ROWS", 1), pytest.raises(UserError) as failure:
        read_detections(tmp_path / "found.json", read_ground_truth(tmp_path / "truth.json"))
    assert f"{name}[{len(rows) - 1}]" in str(failure.value)


MIXED = {
    "images": [
        {"id": 3, "file_name": "x.jpg", "width": 50, "height": 40},
        {"id": 5.0, "file_name": 12, "width": 50.0, "height": None},
    ],
    "categories": [{"id": 2, "name": "cat"}],
    "annotations": [
        {"image_id": 3, "category_id": 2, "bbox": [1, 2, 3, 4], "difficult": 0, "iscrowd": 1},
        {"image_id": "5", "category_id": 2.0, "bbox": [0.5, 0, 1e1, 4], "iscrowd": "1"},
        {"image_id": 5, "category_id": "2", "bbox": [0, 0, 0, 0], "difficult": True},
    ],
}


@given(st.permutations([0, 1, 2]), st.permutations(list(MIXED)), st.integers(1, 4))
def test_plain_rows_and_others_are_read_alike(tmp_path_factory, order, names, rows) -> None:
    """In parts of any size, with the lists of the file in any order."""
    path = tmp_path_factory.mktemp("coco") / "truth.json"
    content = {name: MIXED[name] for name in names}
    content["annotations"] = [MIXED["annotations"][i] for i in order]
    path.write_text(json.dumps(content))
    with patch.object(json_lists, "ROWS", rows):
        ground_truth = read_ground_truth(path)
    assert ground_truth.images == (Image(3, "x.jpg", 50, 40), Image(5, "12", 50, 0))
    expected = {
        "image_ids": np.array([3, 5, 5]),
        "category_ids": np.array([1, 1, 1]),
        "boxes": np.array([[1, 2, 4, 6], [0.5, 0, 10.5, 4], [0, 0, 0, 0]]),
        "difficult": np.array([False, True, True]),
        "crowd": np.array([True, True, False]),
    }
    for name, column in expected.items():
        np.testing.assert_array_equal(getattr(ground_truth, name), column[list(order)])


def test_pycocotools_reads_both_and_finds_perfect_boxes_perfect(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    plain = truth((1, 2, [0, 0, 10, 20], False), (3, 1, [5, 6, 50, 40], False))
    write_ground_truth(tmp_path / "truth.json", plain)
    write_detections(
        tmp_path / "found.json",
        found((1, 2, [0, 0, 10, 20], 0.5), (3, 1, [5, 6, 50, 40], 0.4), (2, 1, [0, 0, 9, 9], 0.1)),
    )
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = coco.COCO(str(tmp_path / "truth.json"))
        results = ground_truth.loadRes(str(tmp_path / "found.json"))
        evaluation = cocoeval.COCOeval(ground_truth, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[:3].tolist() == pytest.approx([1, 1, 1])


def test_category_ids_of_any_file_are_mapped(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text(
        json.dumps(
            {
                "images": [{"id": 7, "file_name": "x.jpg"}],
                "categories": [{"id": 90, "name": "dog"}, {"id": 17, "name": "cat"}],
                "annotations": [
                    {"image_id": 7, "category_id": 90, "bbox": [1, 2, 3, 4], "iscrowd": 1},
                    {"image_id": 7, "category_id": 17, "bbox": [1, 2, 3, 4]},
                ],
            }
        )
    )
    (tmp_path / "found.json").write_text(
        json.dumps([{"image_id": 7, "category_id": 90, "bbox": [0.25, 0, 1, 1], "score": 1}])
    )
    ground_truth = read_ground_truth(tmp_path / "truth.json")
    assert ground_truth.categories == ("cat", "dog")
    assert ground_truth.category_ids.tolist() == [2, 1]
    assert ground_truth.difficult.tolist() == [True, False]
    assert ground_truth.images == (Image(7, "x.jpg", 0, 0),)
    detections = read_detections(tmp_path / "found.json", ground_truth)
    assert detections.category_ids.tolist() == [2]
    assert detections.boxes.tolist() == [[0.25, 0, 1.25, 1]]


@pytest.mark.parametrize(
    ("flags", "difficult"),
    [
        ({}, False),
        ({"iscrowd": 1}, True),
        ({"ignore": 1}, True),
        ({"ignore": 0, "iscrowd": 1}, True),
        ({"difficult": 1, "ignore": 0, "iscrowd": 0}, True),
        ({"difficult": 0, "ignore": 1, "iscrowd": 1}, False),  # explicit
        ({"difficult": "0"}, False),
        ({"difficult": "1"}, True),
        ({"difficult": False, "iscrowd": "1"}, False),
        ({"difficult": "True"}, True),
        ({"ignore": None, "iscrowd": "0"}, False),
        ({"difficult": True}, True),
        ({"iscrowd": "0", "ignore": "false"}, False),
        ({"iscrowd": "True"}, True),
    ],
)
def test_flags_of_difficult_objects(tmp_path: Path, flags: dict[str, int], difficult: bool) -> None:
    write_ground_truth(tmp_path / "truth.json", truth((1, 1, [0, 0, 1, 1], False)))
    content = json.loads((tmp_path / "truth.json").read_text())
    content["annotations"] = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], **flags}]
    (tmp_path / "truth.json").write_text(json.dumps(content))
    assert read_ground_truth(tmp_path / "truth.json").difficult.tolist() == [difficult]


def test_quirks_of_other_writers_are_read(tmp_path: Path) -> None:
    """Whole numbers as floats, unknown sizes as null, annotations without an area."""
    (tmp_path / "truth.json").write_text(
        json.dumps(
            {
                "images": [{"id": 4.0, "file_name": "x.jpg", "width": None, "height": 30.0}],
                "categories": [{"id": 3.0, "name": "cat", "supercategory": "animal"}],
                "annotations": [{"image_id": 4, "category_id": 3, "bbox": [0.5, 1e0, 2.25, 4]}],
            }
        )
    )
    ground_truth = read_ground_truth(tmp_path / "truth.json")
    assert ground_truth.images == (Image(4, "x.jpg", 0, 30),)
    assert (ground_truth.file_category_ids, ground_truth.category_ids.tolist()) == ((3,), [1])
    assert ground_truth.boxes.tolist() == [[0.5, 1, 2.75, 5]]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            {"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]},
            r"categories\[1\].id must",
        ),
        (
            {"images": [{"id": 1, "file_name": "a"}, {"id": "1", "file_name": "b"}]},
            r"images\[1\].id must be an id of its own. Received: '1', the id of images\[0\] too",
        ),
        (
            {"images": [{"id": float("inf"), "file_name": "a"}]},
            r"images\[0\].id must be a whole number or a string. Received: inf",
        ),
        ({"images": [{"id": 1}]}, r"images\[0\] has no 'file_name', a string. .*'id'.* without it"),
        (
            {"images": [{"id": 1, "file_name": "a", "width": -4}]},
            r"images\[0\].width must be a num",
        ),
        ({"images": None}, "images must be a list of objects. Received: None"),
        ({"categories": [{"id": 1, "name": None}]}, r"categories\[0\] has no 'name'.* null"),
        (
            {"annotations": [{"image_id": 2, "category_id": 1, "bbox": [0] * 4}]},
            r"annotations\[0\].image_id must be the id of a listed image, such as 1. Received: 2",
        ),
        (
            {"annotations": [{"image_id": 1, "category_id": "01", "bbox": [0] * 4}]},
            r"annotations\[0\].category_id must .* listed category, such as 1. Received: '01'",
        ),
        (
            {"annotations": [{"image_id": 1, "category_id": 1}]},
            r"annotations\[0\] has no 'bbox', \[x, y, width, height\]",
        ),
        (
            {"annotations": [{"image_id": 1, "category_id": 1, "bbox": []}]},
            r"annotations\[0\].bbox must be \[x, y, width, height\].* Received: list \[\]",
        ),
        (
            {
                "annotations": [
                    {"image_id": 1, "category_id": 1, "bbox": [0] * 4, "iscrowd": "perhaps"}
                ]
            },
            r"annotations\[0\].iscrowd must be 0 or 1. Received: 'perhaps'",
        ),
    ],
)
def test_errors_in_ground_truth_are_reported(
    tmp_path: Path, part: dict[str, Any], message: str
) -> None:
    content = {
        "images": [{"id": 1, "file_name": "a"}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content | part))
    with pytest.raises(UserError, match=f"truth.json.*{message}"):
        read_ground_truth(tmp_path / "truth.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "no readable JSON"),
        ("{}", "no list of COCO results"),
        ("[1]", r"results\[0\] must be an object. Received: 1"),
        (
            '[{"image_id": 9, "category_id": 1, "bbox": [0,0,1,1], "score": 1}]',
            r"results\[0\].image_id must be the id of a listed image, such as 1. Received: 9",
        ),
        (
            '[{"image_id": 1, "category_id": 9, "bbox": [0,0,1,1], "score": 1}]',
            r"results\[0\].category_id must be .* such as 1. Received: 9",
        ),
        (
            '[{"image_id": 1, "category_id": 1, "bbox": [0,0,1], "score": 1}]',
            r"results\[0\].bbox must be \[x, y, width, height\].* Received: list \[0, 0, 1\]",
        ),
        (
            '[{"image_id": 1, "category_id": 1, "bbox": [0,0,1,1], "score": 1}, {"image_id": 1, '
            '"category_id": 1, "bbox": [0,0,-1,1], "score": 1}]',
            r"results\[1\].bbox must be .*no negative width or height. Received: list \[0, 0, -1",
        ),
        (
            '[{"image_id": 1, "category_id": 1, "bbox": [0,0,1,1], "score": NaN}]',
            r"results\[0\].score must be a finite number. Received: nan",
        ),
        ('[{"image_id": 1, "category_id": 1, "bbox": [0,0,1,NaN], "score": 1}]', "four finite"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [0,0,1,"1"], "score": 1}]', "four finite"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [0,0,1,1]}]', r"results\[0\] has no 'score'"),
        (
            '[{"image_id": [1], "category_id": 1, "bbox": [0,0,1,1], "score": 1}]',
            r"results\[0\].image_id must be a whole number or a string. Received: list \[1\]",
        ),
        (
            f'[{{"image_id": 1, "category_id": 1, "bbox": [0,0,1,1{"0" * 400}], "score": 1}}]',
            r"results\[0\].bbox must be .*four finite numbers",
        ),
    ],
)
def test_errors_in_results_are_reported(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "found.json").write_text(content)
    with pytest.raises(UserError, match=f"found.json.*{message}"):
        read_detections(tmp_path / "found.json", TRUTH)


def test_missing_files_and_other_content_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No file .*nowhere.json"):
        read_ground_truth(tmp_path / "nowhere.json")
    (tmp_path / "truth.json").write_text("[]")
    with pytest.raises(UserError, match=r"truth.json is no COCO ground truth.* Received: a list"):
        read_ground_truth(tmp_path / "truth.json")
    (tmp_path / "truth.json").write_text('{"images": [], "categories": []}')
    with pytest.raises(
        UserError,
        match="it must be an object with 'images', 'annotations', 'categories'. "
        "Received: 'images', 'categories'.",
    ):
        read_ground_truth(tmp_path / "truth.json")


def files(tmp_path: Path, image_ids: list[Any], result_ids: list[Any]) -> tuple[Any, Any]:
    """Ground truth and results of two images by some ids, with a cat and a dog."""
    content = {
        "images": [
            {"id": each, "file_name": f"{name}.jpg"}
            for each, name in zip(image_ids, ("img_1", "img_2"), strict=True)
        ],
        "categories": [{"id": "c", "name": "cat"}, {"id": 10, "name": "dog"}],
        "annotations": [{"image_id": image_ids[1], "category_id": 10, "bbox": [0, 0, 9, 9]}],
    }
    rows = [
        {"image_id": each, "category_id": category, "bbox": [0, 0, 9, 9], "score": 0.5}
        for each, category in zip(result_ids, ("c", "10"), strict=True)
    ]
    (tmp_path / "truth.json").write_text(json.dumps(content))
    (tmp_path / "found.json").write_text(json.dumps(rows))
    ground_truth = read_ground_truth(tmp_path / "truth.json")
    return ground_truth, read_detections(tmp_path / "found.json", ground_truth)


@pytest.mark.parametrize(
    ("image_ids", "result_ids", "ids"),
    [
        ([7, 5], [7, 5], [7, 5]),
        ([7, 5], ["7", 5.0], [7, 5]),
        (["7", "5"], [7, 5], [1, 2]),
        (["x", "y"], ["x", "y"], [1, 2]),
        (["007", 7], ["007", 7], [1, 2]),
        ([7, 2**70], [7, 2**70], [1, 2]),
        ([7, 5], ["img_1", "img_2.jpg"], [7, 5]),
        (["img_2", "img_1"], ["img_2", "img_1"], [1, 2]),  # ids win over file names
    ],
)
def test_ids_are_numbers_or_strings(tmp_path: Path, image_ids, result_ids, ids) -> None:
    ground_truth, detections = files(tmp_path, image_ids, result_ids)
    assert [image.id for image in ground_truth.images] == ids
    assert ground_truth.file_image_ids == tuple(image_ids)
    assert ground_truth.categories == ("dog", "cat")
    assert ground_truth.image_ids.tolist() == [ids[1]]
    assert ground_truth.category_ids.tolist() == [1]
    assert detections.image_ids.tolist() == ids
    assert detections.category_ids.tolist() == [2, 1]


def test_an_id_of_another_form_is_another_id(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"found.json: results\[0\].image_id .* such as 7. Received: '007'"
    ):
        files(tmp_path, [7, 5], ["007", 5])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_read(tmp_path: Path, encoding: str) -> None:
    write_ground_truth(tmp_path / "truth.json", TRUTH)
    text = (tmp_path / "truth.json").read_text("utf-8")
    (tmp_path / "truth.json").write_bytes(text.encode(encoding))
    assert_equal_tables(read_ground_truth(tmp_path / "truth.json"), TRUTH)


def test_flags_of_a_file_without_annotations_are_flags(tmp_path: Path) -> None:
    """As of a run on pictures without annotation, whose report masks objects by these flags."""
    images = [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    found = read_ground_truth(tmp_path / "truth.json")
    assert (found.difficult.dtype, found.crowd.dtype) == (bool, bool)
    assert found.boxes.shape == (0, 4)
