"""Pictures: the blend by value, boxes where they belong, nothing overlapping."""

import dataclasses
import io

import matplotlib
import numpy as np
import PIL.Image
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from kgradcam.errors import UserError
from kgradcam.pictures.blending import overlay
from kgradcam.pictures.drawing import (
    GROUND_TRUTH_COLOR,
    PREDICTION_COLOR,
    ExplanationRow,
    Panel,
    draw_explanations,
    draw_gallery,
)
from kgradcam.pictures.figures import save

GREY = np.full((30, 40, 3), 100, np.uint8)


def test_no_heat_is_the_photograph() -> None:
    np.testing.assert_array_equal(overlay(GREY, np.zeros((3, 4))), GREY)


def test_full_heat_is_the_hottest_colour_at_the_opacity() -> None:
    for name, options in (("viridis", {}), ("inferno", {"colormap": "inferno"})):
        hottest = np.array(matplotlib.colormaps[name](1.0)[:3]) * 255
        mixed = overlay(GREY, np.ones((3, 4)), opacity=0.7, **options)
        np.testing.assert_allclose(mixed[0, 0], 0.7 * hottest + 0.3 * 100, atol=0.51)
        assert (mixed == mixed[0, 0]).all()
    with pytest.raises(UserError, match="Received: 'virdis'.*viridis"):
        overlay(GREY, np.ones((3, 4)), colormap="virdis")


def test_heat_grows_smoothly_across_the_picture() -> None:
    mixed = overlay(GREY, np.array([[0.0, 1.0]])).astype(int)
    green = mixed[15, :, 1]
    assert green[0] == 100
    assert green[-1] > 180
    assert np.abs(np.diff(green)).max() < 15


def panel(shape: tuple[int, int] = (30, 40), boxes: int = 1, title: str = "cat 90%  1") -> Panel:
    height, width = shape
    steps = np.linspace(0, 0.5, boxes)[:, None] if boxes else np.zeros((0, 1))
    box = np.array([[0.1, 0.1, 0.45, 0.45]]) + steps
    predictions = box * [width, height, width, height]
    return Panel(
        image=np.full((height, width, 3), 100, np.uint8),
        heatmap=np.linspace(0, 1, height * width, dtype=np.float32).reshape(shape),
        title=title,
        ground_truth=np.array([[0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height]]),
        predictions=predictions,
        scores=np.linspace(0.9, 0.1, boxes) if boxes else np.zeros(0),
    )


def rendered(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def test_boxes_are_drawn_at_their_pixels() -> None:
    figure = draw_gallery([panel()], "title")
    pixels = rendered(figure).astype(int)
    for axes in figure.axes:
        for (xmin, ymin, xmax, ymax), color in (
            ((10, 7.5, 30, 22.5), GROUND_TRUTH_COLOR),
            ((4, 3, 18, 13.5), PREDICTION_COLOR),
        ):
            wanted = np.array(to_rgb(color)) * 255
            # Along the upper and the left edge, the box's colour is the nearest line.
            for x, y in (((xmin + xmax) / 2, ymin), (xmin, (ymin + ymax) / 2)):
                column, row = axes.transData.transform((x, y))
                row = pixels.shape[0] - row
                near = pixels[int(row) - 10 : int(row) + 11, int(column) - 10 : int(column) + 11]
                assert np.abs(near - wanted).sum(axis=2).min() < 30, (x, y, color)


@pytest.mark.parametrize("count", [1, 2, 4, 10, 13])
def test_nothing_overlaps_and_all_is_inside(count: int) -> None:
    shapes = [(30, 40), (40, 30), (40, 40), (20, 60)]
    panels = [
        panel(shapes[i % 4], boxes=i % 4, title="cat 90%  2008_000123 " * (1 + i % 3))
        for i in range(count)
    ]
    figure = draw_gallery(panels, "a title " * 3)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    frames = [axes.get_window_extent(renderer) for axes in figure.axes]
    assert len(frames) == 2 * count
    titles = [text.get_window_extent(renderer) for text in figure.texts]
    legend = figure.legends[0].get_window_extent(renderer)
    for i, one in enumerate(things := [*frames, *titles, legend]):
        assert one.x0 >= 0
        assert one.y0 >= 0
        assert one.x1 <= figure.bbox.width
        assert one.y1 <= figure.bbox.height
        assert not one.count_overlaps(things[i + 1 :])


def score_labels(figure: Figure) -> list[Text]:
    """The scores, all on the plain picture; the most confident first."""
    figure.canvas.draw()
    plain, hot = figure.axes
    assert not [text for text in hot.findobj(Text) if text.get_text()]
    return [text for text in plain.findobj(Text) if text.get_text()]


def test_scores_stay_inside_and_apart() -> None:
    # Boxes on one another, and slim ones along each border.
    boxes = [[x, y, x + 14, y + 10] for x, y in ((5, 5), (5.2, 5.2), (5.4, 5.4), (6, 5), (5, 6))]
    boxes += [[0, 0, 40, 0.5], [39, 0, 40, 30], [10, 29.5, 30, 30], [0, 0, 0.5, 30]]
    scores = np.linspace(0.9, 0.5, len(boxes))
    crowded = dataclasses.replace(panel(), predictions=np.array(boxes), scores=scores)
    figure = draw_gallery([crowded], "title")
    labels = score_labels(figure)
    # Each box has four corners: of five that share them, the least confident goes without.
    assert [text.get_text() for text in labels[:4]] == ["0.90", "0.85", "0.80", "0.75"]
    assert "0.70" not in [text.get_text() for text in labels]
    assert len(labels) == 8  # one for each slim box
    extents = [text.get_bbox_patch().get_window_extent() for text in labels]
    frame = figure.axes[0].get_window_extent().padded(1)
    for i, extent in enumerate(extents):
        assert not extent.count_overlaps(extents[i + 1 :])
        assert frame.x0 <= extent.x0 <= extent.x1 <= frame.x1
        assert frame.y0 <= extent.y0 <= extent.y1 <= frame.y1


@pytest.mark.parametrize(
    ("confident", "slim"),
    [
        pytest.param([1, 10, 20, 25], [0, 10, 0.5, 11], id="left"),
        pytest.param([10, 1, 25, 20], [10, 0, 13, 0.5], id="top"),
    ],
)
def test_a_score_that_fits_only_outside_is_left_out(
    confident: list[float], slim: list[float]
) -> None:
    boxes = np.array([slim, confident], np.float64)
    both = dataclasses.replace(panel(), predictions=boxes, scores=np.array([0.5, 0.9]))
    assert [each.get_text() for each in score_labels(draw_gallery([both], ""))] == ["0.90"]
    alone = dataclasses.replace(both, predictions=boxes[:1], scores=np.array([0.5]))
    assert [each.get_text() for each in score_labels(draw_gallery([alone], ""))] == ["0.50"]


def test_boxes_of_less_than_a_quarter_of_the_best_score_have_no_label() -> None:
    boxes = np.array([[1.0, 1, 12, 12], [14, 1, 25, 12], [27, 1, 38, 12]])
    three = dataclasses.replace(panel(), predictions=boxes, scores=np.array([0.8, 0.19, 0.21]))
    labels = score_labels(draw_gallery([three], ""))
    assert [each.get_text() for each in labels] == ["0.80", "0.21"]


def test_scores_keep_their_distance_from_the_line_at_any_resolution() -> None:
    coarse, fine = panel((30, 40)), panel((600, 800))
    (small,), (large,) = (score_labels(draw_gallery([each], "title")) for each in (coarse, fine))
    np.testing.assert_allclose(small.get_window_extent(), large.get_window_extent(), atol=1)
    # The label's background lies inside the box, whose upper left corner is at (4, 3).
    axes = small.axes
    left, top = axes.transData.transform((4, 3))
    background = small.get_bbox_patch().get_window_extent()
    assert left + 1 < background.x0 < left + 9
    assert top - 9 < background.y1 < top - 1


def test_ground_truth_is_dashed_and_predictions_are_solid() -> None:
    figure = draw_gallery([panel()], "title")
    pixels = rendered(figure).astype(int)
    axes = figure.axes[0]
    painted = {}
    for color, xmin, xmax, y in (
        (GROUND_TRUTH_COLOR, 11, 29, 22.5),
        (PREDICTION_COLOR, 5, 17, 13.5),
    ):
        (left, row), (right, _) = axes.transData.transform([(xmin, y), (xmax, y)])
        row = round(pixels.shape[0] - row)
        line = pixels[row - 4 : row + 5, round(left) : round(right)]
        distance = np.abs(line - np.array(to_rgb(color)) * 255).sum(axis=2).min(axis=0)
        painted[color] = (distance < 60).mean()
    assert 0.4 < painted[GROUND_TRUTH_COLOR] < 0.85
    assert painted[PREDICTION_COLOR] > 0.9


def test_a_title_is_text_and_no_formula() -> None:
    """As a formula these would fail: a fraction of nothing."""
    figure = draw_gallery([panel(title=r"$\frac$")], r"cost: $\frac$")
    rendered(figure)
    assert [text.get_text() for text in figure.texts] == [r"cost: $\frac$", r"$\frac$"]


def test_explanations_are_rows_of_pictures_with_titles() -> None:
    row = ExplanationRow(GREY, "a.jpg", np.zeros((2, 30, 40), np.float32), ["cat  90.0%", "dog"])
    figure = draw_explanations([row, row])
    assert len(figure.axes) == 6
    texts = [text.get_text() for text in figure.texts]
    assert texts == ["a.jpg", "cat  90.0%", "dog"] * 2


def test_a_saved_picture_is_a_png_and_always_the_same(tmp_path) -> None:
    for name in ("one.png", "folder/two.png"):
        save(draw_gallery([panel()], "title"), tmp_path / name)
    data = (tmp_path / "one.png").read_bytes()
    assert data == (tmp_path / "folder/two.png").read_bytes()
    image = PIL.Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    assert image.width > 900
