"""Draws heatmaps and boxes on images, with matplotlib."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.overlap import Boxes
from kgradcam.pictures.blending import COLORMAP, Picture, overlay
from kgradcam.pictures.figures import DPI, drawable, shorten, text_extent
from kgradcam.pictures.grid import (
    DASHES,
    INK,
    MARGIN_INCHES,
    PICTURE_INCHES,
    TITLE_INCHES,
    Grid,
    draw_boxes,
    picture_size,
    show_picture,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

# They differ in brightness, in dashes, and in hues that colour-blind readers can distinguish.
# Neither occurs in the colormap of the heatmaps.
GROUND_TRUTH_COLOR = "#00e5ff"
PREDICTION_COLOR = "#ff3dbe"
_LABEL_INSET_INCHES = 0.04
_PALEST = 0.25  # opacity of a box with a lower share of the best score


@dataclass(frozen=True)
class Panel:
    """One image of a gallery, with its heatmap and boxes.

    Boxes are xyxy in pixels of the image, from 0, half-open.

    Attributes:
        image: uint8 `[height, width, 3]`, RGB.
        heatmap: float `[height, width]` in [0, 1].
        title: The text above the image.
        ground_truth: Annotated boxes, `[objects, 4]`.
        predictions: Predicted boxes, `[boxes, 4]`.
        scores: Confidences of the predicted boxes, `[boxes]` in [0, 1].
    """

    image: Picture
    heatmap: npt.NDArray[np.float32]
    title: str
    ground_truth: Boxes
    predictions: Boxes
    scores: npt.NDArray[np.float64]


@dataclass(frozen=True)
class ExplanationRow:
    """One image and its heatmaps.

    Attributes:
        image: uint8 `[height, width, 3]`, RGB.
        title: The text above the image.
        heatmaps: float `[heatmaps, height, width]` in [0, 1].
        heatmap_titles: The text above each heatmap.
        boxes: Boxes to draw on each heatmap, xyxy in pixels of the image. Default: none.
        scores: Their scores, in [0, 1].
    """

    image: Picture
    title: str
    heatmaps: npt.NDArray[np.float32]
    heatmap_titles: Sequence[str]
    boxes: Sequence[Boxes] = ()
    scores: Sequence[npt.NDArray[np.float64]] = ()


def draw_gallery(panels: Sequence[Panel], title: str, colormap: str = COLORMAP) -> "Figure":
    """Draws each image beside its heatmap, with annotated and predicted boxes on both.

    Args:
        panels: The images, at least one.
        title: The title of the figure.
        colormap: See `overlay`.

    Returns:
        A figure; see `figures.save`.
    """
    across = min(len(panels), 1 if len(panels) == 1 else 2 if len(panels) <= 4 else 3)
    rows = [panels[i : i + across] for i in range(0, len(panels), across)]
    grid = Grid([[panel.image.shape for panel in row] for row in rows], pictures=2)
    _title_and_legend(grid.figure, title)
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            grid.title(i, j, panel.title)
            plain = grid.axes(i, j, panel.image)
            hot = grid.axes(i, j, overlay(panel.image, panel.heatmap, colormap=colormap), place=1)
            for axes in (plain, hot):
                draw_boxes(axes, panel.ground_truth, GROUND_TRUTH_COLOR, dashed=True)
                _draw_scored_boxes(axes, panel.predictions, panel.scores)
            _label_boxes(plain, panel.predictions, panel.scores)
    return grid.figure


def draw_explanations(rows: Sequence[ExplanationRow], colormap: str = COLORMAP) -> "Figure":
    """Draws each image beside its heatmaps, several images in a row where there are many.

    Args:
        rows: The images, at least one, all with the same number of heatmaps.
        colormap: See `overlay`.

    Returns:
        A figure that is about square; see `figures.save`.
    """
    cells = [_cells(row, colormap) for row in rows]
    size = np.mean([picture_size(row.image.shape) for row in rows], axis=0)
    across = _cells_across(len(rows), len(cells[0]), size)
    together = max(1, across // len(cells[0]))
    groups = [list(chain(*cells[i : i + together])) for i in range(0, len(cells), together)]
    lines = [group[i : i + across] for group in groups for i in range(0, len(group), across)]
    grid = Grid([[picture.shape for picture, *_ in line] for line in lines], header=False)
    for i, line in enumerate(lines):
        for j, (picture, title, boxes, scores) in enumerate(line):
            _draw_scored_boxes(grid.axes(i, j, picture), boxes, scores)
            grid.title(i, j, title)
    return grid.figure


def draw_overlays(row: ExplanationRow, colormap: str = COLORMAP) -> "Figure":
    """Draws the heatmaps of an image over it, side by side, without titles and margins.

    A pixel of the image is a pixel of the figure.

    Args:
        row: The image and its heatmaps.
        colormap: See `overlay`.

    Returns:
        A figure; see `figures.save`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    _, *cells = _cells(row, colormap)
    height, width = row.image.shape[:2]
    # Matplotlib cuts fractions of a pixel off, and 451 / 160 * 160 may be a little below 451.
    size = ((len(cells) * width + 1e-6) / DPI, (height + 1e-6) / DPI)
    figure = Figure(figsize=size, dpi=DPI)
    FigureCanvasAgg(figure)
    for i, (picture, _, boxes, scores) in enumerate(cells):
        axes = figure.add_axes((i / len(cells), 0, 1 / len(cells), 1))
        show_picture(axes, picture)
        _draw_scored_boxes(axes, boxes, scores)
    return figure


_Cell = tuple[Picture, str, Boxes, npt.NDArray[np.float64]]


def _cells(row: ExplanationRow, colormap: str) -> list[_Cell]:
    """The image and its heatmaps, each with a title, boxes and their scores."""
    none = np.zeros((0, 4)), np.zeros(0)
    boxes = list(zip(row.boxes, row.scores, strict=True)) or [none] * len(row.heatmaps)
    heatmaps = zip(row.heatmaps, row.heatmap_titles, boxes, strict=True)
    overlays = [
        (overlay(row.image, heatmap, colormap=colormap), title, *drawn)
        for heatmap, title, drawn in heatmaps
    ]
    return [(row.image, row.title, *none), *overlays]


def _cells_across(rows: int, each: int, size: Sequence[float]) -> int:
    """The number of pictures side by side with which a figure is closest to a square.

    Args:
        rows: The number of images.
        each: The pictures of an image. They stay together, in one line if they are up to four.
        size: The mean width and height of a picture in inches.
    """

    def elongation(across: int) -> float:
        lines = math.ceil(each / across) * math.ceil(rows / max(1, across // each))
        width = across * (PICTURE_INCHES + MARGIN_INCHES)
        height = lines * (size[1] + TITLE_INCHES + MARGIN_INCHES)
        return abs(math.log(width / height))

    choices = [each * count for count in range(1, rows + 1)]
    choices += range(min(each, 4), each)
    return min(choices, key=elongation)


def _title_and_legend(figure: "Figure", title: str) -> None:
    from matplotlib.lines import Line2D

    height = figure.get_figheight()
    handles = [
        Line2D([], [], color=GROUND_TRUTH_COLOR, linewidth=2.5, linestyle=DASHES),
        Line2D([], [], color=PREDICTION_COLOR, linewidth=2.5),
    ]
    left = MARGIN_INCHES / figure.get_figwidth()
    label = figure.text(
        left,
        1 - 0.08 / height,
        drawable(title),
        fontsize=11,
        fontweight="bold",
        color=INK,
        va="top",
        parse_math=False,
    )
    shorten(label, figure.bbox.width * (1 - 2 * left))
    figure.legend(
        handles,
        ["ground truth", "prediction, with its score"],
        loc="upper left",
        bbox_to_anchor=(left, 1 - 0.3 / height),
        borderaxespad=0,
        borderpad=0,
        ncols=2,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
    )


def _draw_scored_boxes(axes: "Axes", boxes: Boxes, scores: npt.NDArray[np.float64]) -> None:
    """Draws boxes; the lower the score beside the best one, the paler."""
    opacities = np.maximum(scores / scores.max(initial=1e-9), _PALEST)
    for box, opacity in zip(boxes, opacities.tolist(), strict=True):
        draw_boxes(axes, box[np.newaxis], PREDICTION_COLOR, dashed=False, opacity=opacity)


def _label_boxes(axes: "Axes", boxes: Boxes, scores: npt.NDArray[np.float64]) -> None:
    """Writes each score into a corner of its box.

    A label must lie inside the image and not overlap another one. Labels are placed in order of
    falling score; one that fits in no corner is left out. The palest boxes have no label, so that
    many unlikely boxes do not hide the object.
    """
    taken: list[Bbox] = []
    # In pixels of the image, whose longer side is drawn `PICTURE_INCHES` long.
    inset = _LABEL_INSET_INCHES / PICTURE_INCHES * max(axes.get_xlim()[1], axes.get_ylim()[0])
    labelled = np.flatnonzero(scores >= _PALEST * scores.max(initial=0.0))
    for i in labelled[np.argsort(-scores[labelled], kind="stable")]:
        label = axes.text(
            0,
            0,
            f"{scores[i]:.2f}",
            fontsize=6.5,
            color="black",
            bbox={"boxstyle": "square,pad=0.15", "facecolor": PREDICTION_COLOR, "linewidth": 0},
        )
        for x, y, horizontal, vertical in _corners(boxes[i], inset):
            label.set(x=x, y=y, ha=horizontal, va=vertical)
            extent = text_extent(label).padded(4)
            frame = axes.get_window_extent().padded(1)
            inside = frame.x0 <= extent.x0 and extent.x1 <= frame.x1
            inside = inside and frame.y0 <= extent.y0 and extent.y1 <= frame.y1
            if inside and not extent.count_overlaps(taken):
                taken.append(extent)
                break
        else:
            label.remove()


def _corners(box: Boxes, inset: float) -> Iterator[tuple[float, float, str, str]]:
    xmin, ymin, xmax, ymax = box
    for y, vertical in ((ymin + inset, "top"), (ymax - inset, "bottom")):
        for x, horizontal in ((xmin + inset, "left"), (xmax - inset, "right")):
            yield x, y, horizontal, vertical
