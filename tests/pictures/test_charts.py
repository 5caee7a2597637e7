"""Charts: the measured points, the best one marked, and no text cut off."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from kgradcam.evaluation.results import PrecisionRecallCurve, Result
from kgradcam.evaluation.rows import Row
from kgradcam.pictures.charts import draw_charts

NAN = float("nan")
THRESHOLDS, RADII, IOUS = (0.1, 0.2, 0.3), (0, 20), (0.3, 0.4, 0.5, 0.6, 0.7)


def ap(threshold: float, radius: int, iou: float) -> float:
    """The best is at 0.2 and 20."""
    return 0.9 - iou - abs(threshold - 0.2) + radius / 1000


def row(boxes: str, ap: float, **option) -> Row:
    counts = {"detections": 9, "ground_truths": 8}
    return Row("dog", {"ap": ap, "recall": 0.5}, counts, boxes=boxes, **option)


@pytest.fixture
def evaluation() -> Result:
    rows = [
        row("heatmap", ap(threshold, radius, iou), radius=radius, threshold=threshold, iou=iou)
        for radius in RADII
        for threshold in THRESHOLDS
        for iou in IOUS
    ]
    rows += [row("full frame", 0.05, iou=iou) for iou in IOUS]
    curves = tuple(
        PrecisionRecallCurve("dog", iou, [0.125, 0.125, 0.25], [1.0, 0.5, 2 / 3]) for iou in IOUS
    )
    source = {"dataset": "voc/2007", "split": "test"}
    return Result("AP", {"name": "voc2010"}, tuple(rows), source, curves)


def panels(figure, title: str):
    return [axes for axes in figure.axes if axes.get_title().startswith(title)]


def test_a_line_for_each_radius_and_the_best_marked(evaluation: Result) -> None:
    figure = draw_charts(evaluation)["thresholds"]
    shown = panels(figure, "IoU")
    assert [axes.get_title() for axes in shown] == [
        f"IoU {iou:g}: best {100 * ap(0.2, 20, iou):.1f} at 0.2" for iou in (0.3, 0.5, 0.7)
    ]
    for axes, iou in zip(shown, (0.3, 0.5, 0.7), strict=True):
        lines = {line.get_label(): line for line in axes.get_lines()}
        for radius in RADII:
            x, y = lines[f"radius {radius}"].get_data()
            np.testing.assert_allclose(x, THRESHOLDS)
            np.testing.assert_allclose(y, [100 * ap(each, radius, iou) for each in THRESHOLDS])
        assert set(lines["full frame"].get_ydata()) == {5.0}


def test_a_map_of_the_options(evaluation: Result) -> None:
    figure = draw_charts(evaluation)["options"]
    axes = panels(figure, "IoU 0.5")[0]
    assert axes.get_title() == "IoU 0.5: best 42.0 at 0.2, radius 20"
    values = np.asarray(axes.images[0].get_array())
    assert values.shape == (2, 3)
    assert values[1, 1] == pytest.approx(42)
    assert axes.get_lines()[0].get_data() == ([1], [1])


def test_precision_over_recall(evaluation: Result) -> None:
    figure = draw_charts(evaluation)["precision-recall"]
    (axes,) = panels(figure, "dog")
    assert len(axes.get_lines()) == len(IOUS)
    x, y = axes.get_lines()[0].get_data()
    np.testing.assert_allclose(x, [12.5, 12.5, 25])
    np.testing.assert_allclose(y, [100, 50, 200 / 3])


@pytest.mark.parametrize("dataset", ["voc/2007", "/a/very/long/way/to/a/folder/VOCdevkit/VOC2012"])
def test_titles_fit(evaluation: Result, dataset: str) -> None:
    evaluation.source["dataset"] = dataset
    for figure in draw_charts(evaluation).values():
        figure.draw_without_rendering()
        frame = figure.bbox
        for text in [figure._suptitle, *(axes.title for axes in figure.axes)]:
            extent = text.get_window_extent()
            assert frame.x0 <= extent.x0 <= extent.x1 <= frame.x1, text.get_text()


def test_one_option_needs_no_chart_of_options(evaluation: Result) -> None:
    rows = tuple(row for row in evaluation.rows if row.option == ("heatmap", 20, 0.2))
    assert set(draw_charts(replace(evaluation, rows=rows))) == {"precision-recall"}


def test_a_class_name_is_text_and_fits(evaluation: Result) -> None:
    name = "\u732b $\\frac$ " + "of a very long kind " * 5
    curves = tuple(replace(each, class_name=name) for each in evaluation.curves)
    figure = draw_charts(replace(evaluation, curves=curves))["precision-recall"]
    figure.draw_without_rendering()
    (axes,) = panels(figure, r"\u732b $\frac$ of a very long")
    assert axes.get_title().endswith("\u2026")
    extent = axes.title.get_window_extent()
    assert figure.bbox.x0 <= extent.x0 <= extent.x1 <= figure.bbox.x1


def test_equal_curves_do_not_hide_one_another_and_empty_panels_are_left_out(
    evaluation: Result,
) -> None:
    empty = PrecisionRecallCurve("cat", 0.5, [], [])
    figure = draw_charts(replace(evaluation, curves=(*evaluation.curves, empty)))[
        "precision-recall"
    ]
    assert not panels(figure, "cat")
    (axes,) = panels(figure, "dog")
    widths = [line.get_linewidth() for line in axes.get_lines()]
    assert all(upper < lower for lower, upper in itertools.pairwise(widths))
    assert min(widths) == 1.4


def test_differences_of_compared_runs() -> None:
    rows = [
        Row(
            name,
            {"ap": 0.5, "difference": NAN if run == "runs/a" else difference},
            {"images": 9},
            {"difference": None if run == "runs/a" else (difference - 0.1, difference + 0.2)},
            run=run,
            iou=0.5,
        )
        for name, difference in (("cat", 0.25), ("mean", -0.125))
        for run in ("runs/a", "runs/b")
    ]
    figure = draw_charts(Result("", {"name": "voc2010"}, tuple(rows)))["differences"]
    (axes,) = panels(figure, "IoU 0.5")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["mean", "cat"]
    (points,) = axes.containers
    assert points.get_label() == "b"
    x, y = (np.asarray(each, np.float64) for each in points[0].get_data())
    np.testing.assert_allclose((x, y), ([25, -12.5], [1, 0]), atol=1e-9)
    (bars,) = points[2]
    np.testing.assert_allclose(
        [segment[:, 0] for segment in bars.get_segments()], [[15, 45], [-22.5, 7.5]]
    )


def test_results_without_curves_have_no_chart() -> None:
    assert draw_charts(Result("", {"name": "x"}, (Row("cat", {"CorLoc": 0.5}),))) == {}


def test_panels_share_their_scales(evaluation: Result) -> None:
    charts = draw_charts(evaluation)
    assert len({axes.get_ylim() for axes in panels(charts["thresholds"], "IoU")}) == 1
    images = [axes.images[0] for axes in panels(charts["options"], "IoU")]
    assert [image.get_clim() for image in images] == [(0, pytest.approx(62))] * 3
    assert len(charts["options"].axes) == 4  # three panels and one scale of colours


def test_the_ap_is_beside_its_curve(evaluation: Result) -> None:
    figure = draw_charts(evaluation)["precision-recall"]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[0] == "IoU 0.3: AP 62.0"
    few = evaluation.curves[:2]
    both = [replace(each, class_name=name) for name in ("dog", "cat") for each in few]
    rows = [replace(each, class_name="cat") for each in evaluation.rows if each.iou in (0.3, 0.4)]
    rows += [each for each in evaluation.rows if each.iou in (0.3, 0.4)]
    several = replace(evaluation, curves=tuple(both), rows=tuple(rows))
    figure = draw_charts(several)["precision-recall"]
    assert [axes.get_title() for axes in figure.axes[:2]] == [
        "dog: AP 62.0, 52.0",
        "cat: AP 62.0, 52.0",
    ]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["IoU 0.3", "IoU 0.4"]
