"""The table that the 2021 scripts published, to six decimals, from the files in `results/2021`."""

import json
from pathlib import Path

import pytest

from kgradcam.metrics.average_precision import evaluate
from kgradcam.metrics.protocol import PROTOCOLS
from kgradcam.runs.coco_files import read_detections, read_ground_truth
from kgradcam.runs.tables import keep_rows

RESULTS = Path(__file__).resolve().parents[2] / "results" / "2021"
PROTOCOL = "2021"

# AP at IoU 0.3, 0.4 and 0.5, then recall. Published: the last stored box of each image.
PUBLISHED = {
    "0.01": ([48.880971, 34.132415, 17.308526], [62.075472, 51.698113, 36.226415]),
    "0.02": ([46.853608, 32.152346, 17.796862], [61.132075, 50.566038, 36.792453]),
    "0.06": ([47.716435, 32.736706, 18.843717], [61.698113, 50.566038, 37.547170]),
}
# The same evaluation of all stored boxes.
ALL_ROWS = {
    "0.01-all": ([43.896753, 29.992457, 14.996715], [66.792453, 55.094340, 38.490566]),
    "0.02-all": ([42.317974, 28.786971, 15.436118], [66.792453, 54.905660, 39.433962]),
    "0.06-all": ([43.152564, 29.240933, 16.567525], [66.981132, 54.528302, 40.377358]),
}


@pytest.mark.parametrize("name", [*PUBLISHED, *ALL_ROWS])
def test_the_tables_of_2021(name: str) -> None:
    truth = read_ground_truth(RESULTS / "ground_truth.json")
    assert (len(truth.images), len(truth.boxes), truth.categories) == (433, 530, ("dog",))
    found = read_detections(RESULTS / f"detections-{name}.json", truth)
    measured = evaluate(truth, found, PROTOCOLS[PROTOCOL], [0.3, 0.4, 0.5])
    ap, recall = {**PUBLISHED, **ALL_ROWS}[name]
    assert [round(100 * each.ap, 6) for each in measured] == ap
    assert [round(100 * each.recall, 6) for each in measured] == recall


@pytest.mark.parametrize("threshold", PUBLISHED)
def test_the_published_boxes_are_the_last_of_all_rows(threshold: str) -> None:
    truth = read_ground_truth(RESULTS / "ground_truth.json")
    every = read_detections(RESULTS / f"detections-{threshold}-all.json", truth)
    published = read_detections(RESULTS / f"detections-{threshold}.json", truth)
    last = keep_rows(every, "last")
    assert last.image_ids.tolist() == published.image_ids.tolist()
    assert last.boxes.tolist() == published.boxes.tolist()


def test_the_largest_box_of_each_image_beats_the_last() -> None:
    truth = read_ground_truth(RESULTS / "ground_truth.json")
    found = read_detections(RESULTS / "detections-0.01-all.json", truth)
    measured = evaluate(truth, keep_rows(found, "largest"), PROTOCOLS[PROTOCOL], [0.3, 0.4, 0.5])
    assert [round(100 * each.ap, 2) for each in measured] == [54.56, 37.28, 18.94]


def test_the_command_prints_the_published_row(kgradcam) -> None:
    result = kgradcam(
        *("evaluate", "--detections", RESULTS / "detections-0.06.json"),
        *("--ground-truth", RESULTS / "ground_truth.json", "--protocol", PROTOCOL, "--json"),
    )
    assert result.code == 0, result.err
    rows = json.loads(result.out)["rows"]
    ap, recall = PUBLISHED["0.06"]
    assert [row["iou"] for row in rows] == [0.3, 0.4, 0.5]
    assert [round(100 * row["ap"], 6) for row in rows] == ap
    assert [round(100 * row["recall"], 6) for row in rows] == recall
    assert {(row["class"], row["detections"], row["ground_truths"]) for row in rows} == {
        ("dog", 433, 530)
    }


def test_the_first_boxes_by_hand() -> None:
    """VOC2007's 000001.xml has the dog at 48, 240, 195, 371, counted from 1, ends included."""
    truth = read_ground_truth(RESULTS / "ground_truth.json")
    assert truth.images[0].file_name == "000001.jpg"
    assert truth.boxes[0].tolist() == [47, 239, 195, 371]
