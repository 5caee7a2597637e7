"""Pictures of heatmaps and boxes, with matplotlib."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from kgradcam.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

Picture = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.float64]

# Told apart by brightness, by hue for colour-blind eyes, and by dashes; none is a colour of heat.
GROUND_TRUTH_COLOR = "#00e5ff"
PREDICTION_COLOR = "#ff3dbe"
_COLORMAP = "inferno"
_DPI = 160
_INK = "#1b1b1b"
_PICTURE_INCHES = 2.8
_TITLE_INCHES = 0.27
_HEADER_INCHES = 0.55
_GAP_INCHES = 0.06
_MARGIN_INCHES = 0.16
_LABEL_INSET_INCHES = 0.04


@dataclass(frozen=True)
class Panel:
    """One image of a gallery.

    Attributes:
        image: uint8 `[height, width, 3]`, RGB.
        heatmap: float `[height, width]` in [0, 1].
        title: What it is.
        ground_truth: `[n, 4]`, xyxy in pixels from 0, half-open.
        predictions: `[m, 4]`, likewise.
        scores: `[m]`, the confidences of the predictions.
    """

    image: Picture
    heatmap: npt.NDArray[np.float32]
    title: str
    ground_truth: Boxes
    predictions: Boxes
    scores: npt.NDArray[np.float64]


@dataclass(frozen=True)
class ExplanationRow:
    """One image with the heatmaps of some classes.

    Attributes:
        image: uint8 `[height, width, 3]`, RGB.
        title: What it is.
        heatmaps: float `[classes, height, width]` in [0, 1].
        heatmap_titles: A title for each heatmap.
    """

    image: Picture
    title: str
    heatmaps: npt.NDArray[np.float32]
    heatmap_titles: Sequence[str]


def overlay(image: Picture, heatmap: npt.NDArray[Any], opacity: float = 0.7) -> Picture:
    """Lays a heatmap over a photograph, the more opaque the hotter.

    Args:
        image: uint8 `[height, width, 3]`, RGB.
        heatmap: float in [0, 1], at any resolution; resized bilinearly. NaN is no heat.
        opacity: Of the hottest places, in [0, 1]; where there is no heat the photograph is bare.

    Returns:
        uint8 `[height, width, 3]`.
    """
    import matplotlib

    height, width = image.shape[:2]
    heat = np.clip(np.nan_to_num(np.asarray(heatmap, np.float32)), 0, 1)
    heat = cv2.resize(heat, (width, height))
    colors = matplotlib.colormaps[_COLORMAP](heat)[..., :3] * 255
    weight = opacity * heat[..., np.newaxis]
    return np.round(image * (1 - weight) + colors * weight).astype(np.uint8)


def draw_gallery(panels: Sequence[Panel], title: str) -> "Figure":
    """Draws pictures beside their heatmaps, with annotated and predicted boxes on both.

    Args:
        panels: What to draw, at least one.
        title: For the whole figure.

    Returns:
        A figure; see `save`.
    """
    across = min(len(panels), 1 if len(panels) == 1 else 2 if len(panels) <= 4 else 3)
    rows = [panels[i : i + across] for i in range(0, len(panels), across)]
    grid = _Grid([[panel.image.shape for panel in row] for row in rows], pictures=2)
    _title_and_legend(grid.figure, title)
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            grid.title(i, j, panel.title)
            plain = grid.axes(i, j, panel.image)
            hot = grid.axes(i, j, overlay(panel.image, panel.heatmap), place=1)
            for axes in (plain, hot):
                _draw_boxes(axes, panel.ground_truth, GROUND_TRUTH_COLOR, dashed=True)
                _draw_boxes(axes, panel.predictions, PREDICTION_COLOR, dashed=False)
            _label_boxes(plain, panel.predictions, panel.scores)
    return grid.figure


def draw_explanations(rows: Sequence[ExplanationRow]) -> "Figure":
    """Draws each picture beside the heatmaps of some classes.

    Args:
        rows: What to draw, at least one, all with as many classes.

    Returns:
        A figure; see `save`.
    """
    shapes = [[row.image.shape] * (1 + len(row.heatmaps)) for row in rows]
    grid = _Grid(shapes, header=False)
    for i, row in enumerate(rows):
        grid.axes(i, 0, row.image)
        grid.title(i, 0, row.title)
        for j, heatmap in enumerate(row.heatmaps, start=1):
            grid.axes(i, j, overlay(row.image, heatmap))
            grid.title(i, j, row.heatmap_titles[j - 1])
    return grid.figure


def save(figure: "Figure", path: Path) -> None:
    """Writes a figure as PNG, atomically."""
    buffer = io.BytesIO()
    # Without the version of matplotlib in it, equal pictures are equal files.
    options: dict[str, Any] = {"metadata": {"Software": None}}
    # A third of the time of the usual level 6, for a file larger by a fiftieth.
    options["pil_kwargs"] = {"compress_level": 4}
    figure.savefig(buffer, format="png", dpi=_DPI, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


class _Grid:
    """A figure of cells, each with a title above one picture or several side by side.

    All is placed in inches from the top left, so that nothing can overlap.
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
        self.figure = Figure(figsize=(self._width, self._height), dpi=_DPI, facecolor="white")
        FigureCanvasAgg(self.figure)

    def _left(self, column: int) -> float:
        return _MARGIN_INCHES + column * (self._cell + _MARGIN_INCHES)

    def _top(self, row: int) -> float:
        return self._header + sum(self._heights[:row]) + row * (_TITLE_INCHES + _MARGIN_INCHES)

    def axes(self, row: int, column: int, picture: Picture, place: int = 0) -> "Axes":
        """Shows a picture in a place of a cell, and returns its axes, in the picture's pixels."""
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
        # Pixel edges at whole numbers, as in half-open boxes.
        extent = (0, picture.shape[1], picture.shape[0], 0)
        axes.imshow(picture, extent=extent, interpolation="antialiased", aspect="auto")
        axes.set_axis_off()
        return axes

    def title(self, row: int, column: int, text: str) -> None:
        """Writes above a cell, shortened to its width."""
        label = self.figure.text(
            self._left(column) / self._width,
            1 - (self._top(row) + _TITLE_INCHES - 0.06) / self._height,
            text,
            fontsize=9,
            color=_INK,
            va="bottom",
            parse_math=False,
        )
        _shorten(label, self._cell * _DPI)


def _picture_size(shape: Sequence[int]) -> tuple[float, float]:
    """Width and height in inches: the longer side fills its place."""
    height, width = shape[:2]
    scale = _PICTURE_INCHES / max(height, width)
    return width * scale, height * scale


def _shorten(label: Any, width: float) -> None:
    """Cuts a text to a width in pixels, with an ellipsis."""
    text = label.get_text()
    while _extent(label).width > width and text:
        text = text[:-1]
        label.set_text(text.rstrip() + "…")


def _extent(text: Any) -> "Bbox":
    """Where a text is drawn, in pixels of the figure."""
    extent: Bbox = text.get_window_extent(text.figure.canvas.get_renderer())
    return extent


def _title_and_legend(figure: "Figure", title: str) -> None:
    from matplotlib.lines import Line2D

    height = figure.get_figheight()
    handles = [
        Line2D([], [], color=GROUND_TRUTH_COLOR, linewidth=2.5, linestyle=(0, (3, 1.2))),
        Line2D([], [], color=PREDICTION_COLOR, linewidth=2.5),
    ]
    left = _MARGIN_INCHES / figure.get_figwidth()
    label = figure.text(
        left,
        1 - 0.08 / height,
        title,
        fontsize=11,
        fontweight="bold",
        color=_INK,
        va="top",
        parse_math=False,
    )
    _shorten(label, figure.bbox.width * (1 - 2 * left))
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
                linestyle=(0, (3, 1.2)) if dashed else "solid",
                # A box along the border stays whole; a dark rim keeps it visible on anything.
                clip_on=False,
                path_effects=[Stroke(linewidth=2.6, foreground="black", alpha=0.55), Normal()],
            )
        )


def _label_boxes(axes: "Axes", boxes: Boxes, scores: npt.NDArray[np.float64]) -> None:
    """Writes each score in a corner of its box where it fits; the least confident may find none."""
    taken: list[Bbox] = []
    # The longer side fills its place, whatever the picture's resolution.
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
            extent = _extent(label).padded(4)
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
