"""Draws heatmaps and boxes on images, with matplotlib."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kgradcam.pictures.blending import COLORMAP, Picture, overlay
from kgradcam.pictures.figures import DPI, drawable, shorten, text_extent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

Boxes = npt.NDArray[np.float64]

# They differ in brightness, in dashes, and in hues that colour-blind readers can distinguish.
# Neither occurs in the colormap of the heatmaps.
GROUND_TRUTH_COLOR = "#00e5ff"
PREDICTION_COLOR = "#ff3dbe"
_INK = "#1b1b1b"
_PICTURE_INCHES = 2.8
_TITLE_INCHES = 0.27
_HEADER_INCHES = 0.55
_GAP_INCHES = 0.06
_MARGIN_INCHES = 0.16
_LABEL_INSET_INCHES = 0.04
_DASHES = (0, (3, 1.2))


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
    """

    image: Picture
    title: str
    heatmaps: npt.NDArray[np.float32]
    heatmap_titles: Sequence[str]


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
    grid = _Grid([[panel.image.shape for panel in row] for row in rows], pictures=2)
    _title_and_legend(grid.figure, title)
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            grid.title(i, j, panel.title)
            plain = grid.axes(i, j, panel.image)
            hot = grid.axes(i, j, overlay(panel.image, panel.heatmap, colormap=colormap), place=1)
            for axes in (plain, hot):
                _draw_boxes(axes, panel.ground_truth, GROUND_TRUTH_COLOR, dashed=True)
                _draw_boxes(axes, panel.predictions, PREDICTION_COLOR, dashed=False)
            _label_boxes(plain, panel.predictions, panel.scores)
    return grid.figure


def draw_explanations(rows: Sequence[ExplanationRow]) -> "Figure":
    """Draws each image beside its heatmaps, several images in a row where there are many.

    Args:
        rows: The images, at least one, all with the same number of heatmaps.

    Returns:
        A figure that is about square; see `figures.save`.
    """
    cells = [
        [
            (row.image, row.title),
            *(
                (overlay(row.image, heatmap), title)
                for heatmap, title in zip(row.heatmaps, row.heatmap_titles, strict=True)
            ),
        ]
        for row in rows
    ]
    size = np.mean([_picture_size(row.image.shape) for row in rows], axis=0)
    across = _cells_across(len(rows), len(cells[0]), size)
    together = max(1, across // len(cells[0]))
    groups = [list(chain(*cells[i : i + together])) for i in range(0, len(cells), together)]
    lines = [group[i : i + across] for group in groups for i in range(0, len(group), across)]
    grid = _Grid([[picture.shape for picture, _ in line] for line in lines], header=False)
    for i, line in enumerate(lines):
        for j, (picture, title) in enumerate(line):
            grid.axes(i, j, picture)
            grid.title(i, j, title)
    return grid.figure


def _cells_across(rows: int, each: int, size: Sequence[float]) -> int:
    """The number of pictures side by side with which a figure is closest to a square.

    Args:
        rows: The number of images.
        each: The pictures of an image. They stay together, in one line if they are up to four.
        size: The mean width and height of a picture in inches.
    """

    def elongation(across: int) -> float:
        lines = math.ceil(each / across) * math.ceil(rows / max(1, across // each))
        width = across * (_PICTURE_INCHES + _MARGIN_INCHES)
        height = lines * (size[1] + _TITLE_INCHES + _MARGIN_INCHES)
        return abs(math.log(width / height))

    choices = [each * count for count in range(1, rows + 1)]
    choices += range(min(each, 4), each)
    return min(choices, key=elongation)


class _Grid:
    """A figure of cells. Each has a title above one picture, or above several side by side.

    Positions are computed in inches from the top left, so that nothing can overlap.
    """

    def __init__(
        self, shapes: Sequence[Sequence[Sequence[int]]], pictures: int = 1, header: bool = True
    ) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self._cell = pictures * _PICTURE_INCHES + (pictures - 1) * _GAP_INCHES
        self._heights = [max(_picture_size(shape)[1] for shape in row) for row in shapes]
        self._header = _HEADER_INCHES if header else _MARGIN_INCHES / 2
        self._width = self._left(max(map(len, shapes)))
        self._height = self._top(len(shapes))
        self.figure = Figure(figsize=(self._width, self._height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)

    def _left(self, column: int) -> float:
        return _MARGIN_INCHES + column * (self._cell + _MARGIN_INCHES)

    def _top(self, row: int) -> float:
        return self._header + sum(self._heights[:row]) + row * (_TITLE_INCHES + _MARGIN_INCHES)

    def axes(self, row: int, column: int, picture: Picture, place: int = 0) -> "Axes":
        """Shows a picture in a cell, at a place from the left; its axes are in its pixels."""
        width, height = _picture_size(picture.shape)
        left = self._left(column) + place * (width + _GAP_INCHES)
        bottom = self._height - self._top(row) - _TITLE_INCHES - height
        axes = self.figure.add_axes(
            (
                left / self._width,
                bottom / self._height,
                width / self._width,
                height / self._height,
            )
        )
        # Pixel edges lie at whole numbers, as the coordinates of half-open boxes do.
        extent = (0, picture.shape[1], picture.shape[0], 0)
        axes.imshow(picture, extent=extent, interpolation="antialiased", aspect="auto")
        axes.set_axis_off()
        return axes

    def title(self, row: int, column: int, text: str) -> None:
        """Writes a title above a cell, shortened to its width."""
        label = self.figure.text(
            self._left(column) / self._width,
            1 - (self._top(row) + _TITLE_INCHES - 0.06) / self._height,
            drawable(text),
            fontsize=9,
            color=_INK,
            va="bottom",
            parse_math=False,
        )
        shorten(label, self._cell * DPI)


def _picture_size(shape: Sequence[int]) -> tuple[float, float]:
    """Width and height in inches; the longer side is `_PICTURE_INCHES`."""
    height, width = shape[:2]
    scale = _PICTURE_INCHES / max(height, width)
    return width * scale, height * scale


def _title_and_legend(figure: "Figure", title: str) -> None:
    from matplotlib.lines import Line2D

    height = figure.get_figheight()
    handles = [
        Line2D([], [], color=GROUND_TRUTH_COLOR, linewidth=2.5, linestyle=_DASHES),
        Line2D([], [], color=PREDICTION_COLOR, linewidth=2.5),
    ]
    left = _MARGIN_INCHES / figure.get_figwidth()
    label = figure.text(
        left,
        1 - 0.08 / height,
        drawable(title),
        fontsize=11,
        fontweight="bold",
        color=_INK,
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
        labelcolor=_INK,
    )


def _draw_boxes(axes: "Axes", boxes: Boxes, color: str, dashed: bool) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import Normal, Stroke

    for xmin, ymin, xmax, ymax in boxes:
        axes.add_patch(
            Rectangle(
                (xmin, ymin),
                xmax - xmin,
                ymax - ymin,
                fill=False,
                edgecolor=color,
                linewidth=1.4,
                linestyle=_DASHES if dashed else "solid",
                # Unclipped, a box on the border keeps its full line width. The dark rim keeps
                # a box visible on a background of its own colour.
                clip_on=False,
                path_effects=[Stroke(linewidth=2.6, foreground="black", alpha=0.55), Normal()],
            )
        )


def _label_boxes(axes: "Axes", boxes: Boxes, scores: npt.NDArray[np.float64]) -> None:
    """Writes each score into a corner of its box.

    A label must lie inside the image and not overlap another one. Labels are placed in order of
    falling score; one that fits in no corner is left out.
    """
    taken: list[Bbox] = []
    # In pixels of the image, whose longer side is drawn `_PICTURE_INCHES` long.
    inset = _LABEL_INSET_INCHES / _PICTURE_INCHES * max(axes.get_xlim()[1], axes.get_ylim()[0])
    for i in np.argsort(-scores, kind="stable"):
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
