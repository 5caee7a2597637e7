"""The forms in which a result prints, and the names of measures."""

import csv
import io
import json
from dataclasses import asdict

import pytest

from kgradcam.errors import UserError
from kgradcam.evaluation.results import Result, parse_metric
from kgradcam.evaluation.rows import Row
from kgradcam.metrics.protocol import PROTOCOLS

NAN = float("nan")


def row(class_name: str, iou: float, ap: float, recall: float, counts: tuple[int, int]) -> Row:
    return Row(
        class_name,
        {"ap": ap, "recall": recall},
        dict(zip(("detections", "ground_truths"), counts, strict=True)),
        {"ap": None, "recall": None},
        boxes="heatmap",
        radius=20,
        threshold=0.06,
        iou=iou,
    )


RESULT = Result(
    "Protocol voc2010, percent",
    asdict(PROTOCOLS["voc2010"]),
    (
        row("cat", 0.3, 0.5, 0.75, (7, 4)),
        row("cat", 0.5, 0.25, 0.5, (7, 4)),
        row("dog", 0.3, NAN, NAN, (1, 0)),
        row("dog", 0.5, NAN, NAN, (1, 0)),
    ),
)


def test_json_is_one_object_and_undefined_is_null() -> None:
    content = json.loads(RESULT.to_json())
    assert content["schema"] == 2
    assert content["protocol"] == {
        "name": "voc2010",
        "ap": "area",
        "difficult": "ignore",
        "inclusive": True,
        "mixed_pixels": False,
    }
    assert content["rows"][0] == {
        "boxes": "heatmap",
        "class": "cat",
        "radius": 20,
        "threshold": 0.06,
        "iou": 0.3,
        "ap": 0.5,
        "recall": 0.75,
        "detections": 7,
        "ground_truths": 4,
        "ap_interval": None,
        "recall_interval": None,
    }
    assert content["rows"][2]["ap"] is None
    assert content["rows"][3]["recall"] is None


def test_markdown_has_a_line_for_each_class_and_threshold() -> None:
    assert RESULT.to_markdown().splitlines() == [
        "Protocol voc2010, percent.",
        "",
        "| class | threshold | boxes | objects | AP@0.3 | AP@0.5 | recall@0.3 | recall@0.5 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| cat | 0.06 | 7 | 4 | 50.00 | 25.00 | 75.00 | 50.00 |",
        "| dog | 0.06 | 1 | 0 | - | - | - | - |",
    ]


def test_csv_has_a_line_for_each_row() -> None:
    lines = list(csv.DictReader(io.StringIO(RESULT.to_csv())))
    assert len(lines) == 4
    assert (lines[1]["class"], lines[1]["ap"], lines[1]["ap_low"]) == ("cat", "0.25", "")
    assert lines[2]["ap"] == "nan"


def test_csv_has_two_columns_for_an_interval() -> None:
    rows = (Row("cat", {"ap": 0.5}, intervals={"ap": (0.25, 0.75)}),)
    assert (
        Result("", {"name": "x"}, rows).to_csv() == "class,ap,ap_low,ap_high\ncat,0.5,0.25,0.75\n"
    )


def test_a_measure_is_found_in_a_large_result() -> None:
    """300 options and 21 classes, each asked for: with a search over all rows it takes minutes."""
    rows = tuple(
        Row(name, {"ap": i / 300}, boxes="heatmap", radius=i // 60, threshold=i % 60 / 60, iou=0.5)
        for name in [*(f"c{k}" for k in range(20)), "mean"]
        for i in range(300)
    )
    result = Result("", {"name": "x"}, rows)
    scored = []
    for i, row in enumerate(rows[:300]):
        scored.append(result.value("ap@0.5", row.option))
        assert scored[i] == i / 300
    assert result.value("ap@0.5") == 299 / 300
    assert result.best == rows[299].option


def test_fields_that_do_not_apply_are_left_out() -> None:
    result = Result("Faithfulness", {"name": "x"}, (Row("cat", {"deletion": 0.25}, {"maps": 3}),))
    content = json.loads(result.to_json())
    assert content["rows"] == [{"class": "cat", "deletion": 0.25, "maps": 3}]
    assert "best" not in content
    assert "curves" not in content


def test_measures_that_are_no_fractions_print_with_three_decimals() -> None:
    rows = (Row("cat", {"energy": 0.0625}), Row("dog", {"energy": NAN}))
    result = Result("Faithfulness", {"name": "x"}, rows, percent=False)
    assert result.table() == (["class", "energy"], [["cat", "0.062"], ["dog", "-"]])


@pytest.mark.parametrize(
    ("limits", "cell"),
    [((-0.1, 0.3), "+12.5 [-10.0, +30.0]"), ((0.1, 0.3), "+12.5 [+10.0, +30.0] *")],
)
def test_a_difference_is_signed_and_marked_where_its_interval_excludes_zero(limits, cell) -> None:
    rows = (Row("cat", {"difference": 0.125}, intervals={"difference": limits}, run="b"),)
    header, lines = Result("", {"name": "x"}, rows).table()
    assert header == ["class", "run", "radius", "difference"]
    assert lines == [["cat", "b", "-", cell]]


@pytest.mark.parametrize(
    ("text", "expected"), [("ap@0.5", ("ap", 0.5)), ("Recall@.3", ("recall", 0.3))]
)
def test_metrics_by_name(text: str, expected: tuple[str, float]) -> None:
    assert parse_metric(text) == expected


@pytest.mark.parametrize("text", ["ap", "ap@", "map@0.5", "ap@1.5", "ap@x", ""])
def test_an_unknown_metric_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"metric must be ap@IOU or recall@IOU"):
        parse_metric(text)


GRID = Result(
    "Protocol voc2010, percent",
    asdict(PROTOCOLS["voc2010"]),
    tuple(
        Row(name, {"ap": ap}, {"detections": 9}, boxes="heatmap", radius=0, threshold=t, iou=0.5)
        for name in ("cat", "dog", "mean")
        for t, ap in ((0.1, 0.25), (0.2, 0.5), (0.3, 0.25), (0.4, 0.25))
    ),
)


def test_a_grid_has_its_means_best_first_and_equal_ones_in_one_line() -> None:
    header, lines = GRID.table()
    assert header == ["class", "threshold", "boxes", "AP@0.5"]
    assert lines == [["mean", "0.2", "9", "50.00"], ["mean", "0.1 and 2 more", "9", "25.00"]]
    assert [line[:2] for line in GRID.of_best_option().table()[1]] == [
        ["mean", "0.2"],
        ["cat", "0.2"],
        ["dog", "0.2"],
    ]


def test_narrower_layouts_have_a_line_for_each_iou_or_measure() -> None:
    header, lines = RESULT.table("by iou")
    assert header == ["class", "threshold", "boxes", "objects", "IoU", "AP", "recall"]
    assert lines[:2] == [
        ["cat", "0.06", "7", "4", "0.3", "50.00", "75.00"],
        ["cat", "0.06", "7", "4", "0.5", "25.00", "50.00"],
    ]
    header, lines = RESULT.table("by measure")
    assert header == ["class", "threshold", "boxes", "objects", "IoU", "measure", "value"]
    assert lines[:3] == [
        ["cat", "0.06", "7", "4", "0.3", "AP", "50.00"],
        ["cat", "0.06", "7", "4", "0.3", "recall", "75.00"],
        ["cat", "0.06", "7", "4", "0.5", "AP", "25.00"],
    ]
    flat = Result("", {"name": "x"}, (Row("cat", {"energy": 0.5, "pointing": 1.0}),))
    assert flat.table("by iou") == flat.table()
    assert flat.table("by measure") == (
        ["class", "measure", "value"],
        [["cat", "energy", "50.00"], ["cat", "pointing", "100.00"]],
    )


def test_latex_escapes_names() -> None:
    rows = (Row("big_dog & cat", {"ap": 0.5}, iou=0.5, boxes="given"),)
    assert Result("T", {"name": "x"}, rows).to_latex() == (
        "% T\n\\begin{tabular}{lrr}\n\\toprule\nclass & threshold & AP@0.5 \\\\\n\\midrule\n"
        "big\\_dog \\& cat & given & 50.00 \\\\\n\\bottomrule\n\\end{tabular}"
    )
