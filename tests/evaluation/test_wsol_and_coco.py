"""Protocols of weakly supervised localization by hand, and their way through a run."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
from helpers import found, truth

from kgradcam.boxes.normalization import normalize
from kgradcam.boxes.options import DEFAULT_OPTIONS
from kgradcam.boxes.overlap import box_iou
from kgradcam.data.voc import CLASSES
from kgradcam.evaluation.box_tables import boxes_of_run, given_boxes
from kgradcam.evaluation.wsol_and_coco import coco_of_boxes, wsol_of_boxes
from kgradcam.metrics import wsol
from kgradcam.runs.run import Run

A, FAR = [0, 0, 10, 10], [30, 30, 40, 40]
HALF = [0, 0, 10, 5]  # IoU 1/2 with A


def test_corloc_asks_the_most_confident_box_and_gt_known_the_largest() -> None:
    ground_truth = truth((1, 1, A, False), (2, 1, A, False), (3, 1, A, False))
    boxes = found(
        (1, 1, A, 0.9),
        (1, 1, [20, 20, 45, 40], 0.1),  # larger, elsewhere, less confident
        (2, 1, HALF, 0.1),
        (2, 1, [30, 30, 32, 32], 0.9),  # confident, elsewhere, smaller
    )
    assert wsol.corloc(ground_truth, boxes, 1) == pytest.approx(1 / 3)
    assert wsol.gt_known_loc(ground_truth, boxes, 1) == pytest.approx(1 / 3)
    assert wsol.corloc(ground_truth, boxes, 1, iou=0.51) == pytest.approx(1 / 3)
    assert wsol.gt_known_loc(ground_truth, boxes, 1, iou=0.51) == 0


def test_difficult_objects_and_absent_classes_do_not_count() -> None:
    ground_truth = truth((1, 1, A, True), (2, 1, A, False), (2, 1, FAR, True))
    boxes = found((1, 1, A, 0.9), (2, 1, FAR, 0.9))
    assert wsol.corloc(ground_truth, boxes, 1) == 0  # image 1 does not count, FAR is no target
    assert np.isnan(wsol.corloc(ground_truth, boxes, 2))


def test_max_box_acc_takes_the_best_threshold() -> None:
    ground_truth = truth((1, 1, A, False), (2, 1, A, False))
    first, second = [[FAR], [A], [A]], [[HALF], [HALF], [A, [20, 20, 45, 40]]]

    def accuracy(thresholds: list[float]) -> wsol.BoxAccuracy:
        measured = wsol.BoxAccuracy(ground_truth, thresholds)
        for image_id, boxes in ((1, first), (2, second)):
            of_image = [np.array(each, float) for each in boxes[: len(thresholds)]]
            measured.add(image_id, 1, of_image)
        return measured

    assert accuracy([0.1, 0.2, 0.3]).max_box_acc(1) == (1.0, 0.2)
    # Any box may hit: all at .3 and .5, and at .7 both only with the threshold 0.3.
    assert accuracy([0.1, 0.2, 0.3]).max_box_acc_v2(1) == 1.0
    assert accuracy([0.1, 0.2]).max_box_acc_v2(1) == pytest.approx((1 + 1 + 0.5) / 3)
    assert np.isnan(accuracy([0.1]).max_box_acc_v2(2))


@pytest.mark.parametrize("box_options", [None, DEFAULT_OPTIONS["levels"]])
@pytest.mark.parametrize("rows", ["all", "top"])
def test_a_run_by_wsol_is_the_largest_contour_of_each_map(run: Run, box_options, rows) -> None:
    """Once more with contours, as the benchmark of Choe et al. draws its boxes."""
    result = wsol_of_boxes(boxes_of_run(run, rows=rows, box_options=box_options))
    measured = {row.class_name: row.measures for row in result.rows}
    assert list(measured) == ["cat", "dog", "mean"]
    ground_truth = run.ground_truth
    sizes = {image.id: (image.width, image.height) for image in ground_truth.images}
    for category_id, name in ((1, "cat"), (2, "dog")):
        best = np.zeros(100)
        records = [each for each in run.heatmaps() if each.category_id == category_id]
        counted = 0
        for record in records:
            here = (ground_truth.image_ids == record.image_id) & ~ground_truth.difficult
            here &= ground_truth.category_ids == category_id
            if not here.any():
                continue
            counted += 1
            heatmap = normalize(record.heatmap, sizes[record.image_id])
            for i in range(100):
                mask = (heatmap > i / 100).astype(np.uint8)
                contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
                boxes = [cv2.boundingRect(contour) for contour in contours]
                x, y, w, h = max(boxes, key=lambda box: box[2] * box[3])
                box = np.array([[x, y, x + w, y + h]], float)
                best[i] += box_iou(box, ground_truth.boxes[here]).max() >= 0.5
        assert measured[name]["MaxBoxAcc"] == pytest.approx(best.max() / counted)
        assert measured[name]["pointing"] == 1.0
    assert measured["mean"]["MaxBoxAcc"] == pytest.approx(
        (measured["cat"]["MaxBoxAcc"] + measured["dog"]["MaxBoxAcc"]) / 2
    )


def test_a_map_without_heat_hits_nothing(run: Run) -> None:
    """Its single-threshold box is the whole image, which would hit large objects."""
    records = [replace(each, heatmap=np.zeros_like(each.heatmap)) for each in run.heatmaps()]
    run.heatmaps = lambda: iter(records)
    images = run.ground_truth.images
    sizes = {image.id: [0.0, 0.0, image.width, image.height] for image in images}
    boxes = np.array([sizes[int(i)] for i in run.ground_truth.image_ids])
    run.ground_truth = replace(run.ground_truth, boxes=boxes)
    assert {row.measures["MaxBoxAcc"] for row in wsol_of_boxes(boxes_of_run(run)).rows} == {0.0}


def test_masks_are_measured_where_there_are_some(run: Run, pets) -> None:
    """The boxes drawn as masks: a dog's pixels are bright, so that its heat is on it."""
    assert "PxAP" not in wsol_of_boxes(boxes_of_run(run)).rows[0].measures
    folder = pets.root / "SegmentationClass"
    folder.mkdir()
    ground_truth = run.ground_truth
    label = {1: CLASSES.index("cat") + 1, 2: CLASSES.index("dog") + 1}
    for image in ground_truth.images:
        labels = np.zeros((image.height, image.width), np.uint8)
        for row in np.flatnonzero(ground_truth.image_ids == image.id):
            xmin, ymin, xmax, ymax = ground_truth.boxes[row].astype(int)
            labels[ymin:ymax, xmin:xmax] = label[int(ground_truth.category_ids[row])]
        PIL.Image.fromarray(labels).save(folder / f"{Path(image.file_name).stem}.png")
    measured = {row.class_name: row.measures for row in wsol_of_boxes(boxes_of_run(run)).rows}
    for name in ("cat", "dog", "mean"):
        assert 0.6 < measured[name]["PxAP"] <= 1
        assert 0.5 < measured[name]["mask IoU"] <= 1


def test_it_prints_in_three_ways(run: Run) -> None:
    result = wsol_of_boxes(boxes_of_run(run, thresholds=[0.4, 0.5]))
    header, lines = result.table()
    assert header[:4] == ["class", "threshold", "CorLoc", "GT-known Loc"]
    assert [line[:2] for line in lines[1:4]] == [["mean", "0.5"], ["cat", "0.4"], ["cat", "0.5"]]
    assert lines[0][header.index("at")] == "-"  # the mean has no threshold of its own
    rows = json.loads(result.to_json())["rows"]
    assert rows[0]["CorLoc"] == result.rows[0].measures["CorLoc"]
    columns = ["class", "boxes", "radius", *header[1:]]
    assert result.to_csv().splitlines()[0] == ",".join(columns)
    assert result.to_markdown().startswith("Protocol wsol, percent.")


def test_coco_of_a_run_and_of_its_files_agree(run: Run) -> None:
    of_run = coco_of_boxes(boxes_of_run(run))
    given = run.detections([0.5])[0, 0.5]
    of_boxes = coco_of_boxes(given_boxes(run.ground_truth, given))
    assert [each.measures for each in of_run.rows] == [each.measures for each in of_boxes.rows]
    assert of_run.rows[0].measures["AP50"] > 0


def test_other_rules_are_drawn_from_the_same_heatmaps(run: Run) -> None:
    """The run has the single-threshold rules; `levels` has another default threshold."""
    by_levels = wsol_of_boxes(boxes_of_run(run, box_options=DEFAULT_OPTIONS["levels"]))
    assert {row.threshold for row in by_levels.rows} == {0.35}
    drawn = run.detections([0.35], options=DEFAULT_OPTIONS["levels"])[0, 0.35]
    for i, name in enumerate(run.ground_truth.categories, start=1):
        expected = wsol.corloc(run.ground_truth, drawn, i)
        rows = [row.measures for row in by_levels.rows if row.class_name == name]
        assert [row["CorLoc"] for row in rows] == [expected]
