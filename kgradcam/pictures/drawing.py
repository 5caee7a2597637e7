"""Draws heatmaps and boxes on images, with matplotlib."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.normalization import WHOLE, fit
from kgradcam.errors import UserError
from kgradcam.pictures.figures import DPI, drawable, shorten, text_extent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

Picture = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.float64]

# They differ in brightness, in dashes, and in hues that colour-blind readers can distinguish.
# Neither occurs in the colormap of the heatmaps.
GROUND_TRUTH_COLOR = "#00e5ff"
PREDICTION_COLOR = "#ff3dbe"
OPACITY = 0.7
"""The default opacity of the hottest pixel of a heatmap over an image."""
_COLORMAP = "inferno"
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


def overlay(
    image: npt.ArrayLike,
    heatmap: npt.ArrayLike,
    opacity: float = OPACITY,
    extent: Sequence[float] = WHOLE,
) -> Picture:
    """Blends a heatmap over an image; hotter pixels are more opaque.

    Args:
        image: `[height, width, 3]`, RGB; or grey, or RGBA, whose opacity is ignored; or a PIL
            picture, or a batch of one. uint8, or floats in [0, 1], or else in [0, 255].
        heatmap: float `[rows, columns]` in [0, 1], at any resolution; resized bilinearly. NaN
            counts as 0. Or a batch of one.
        opacity: The opacity of heat 1, in [0, 1]. Heat 0 leaves the image as it is.
        extent: The part of the image that the cells of the heatmap tile; see `normalize`.

    Returns:
        uint8 `[height, width, 3]`, RGB.

    Raises:
        UserError: The picture or the heatmap has another shape or range.

    Example:
        >>> image = np.full((2, 2, 3), 100, np.uint8)
        >>> overlay(image, np.array([[0.0, 1.0]]))[0].tolist()
        [[100, 100, 100], [206, 208, 145]]
    """
    picture = _as_picture(image)
    height, width = picture.shape[:2]
    heat = np.nan_to_num(np.asarray(heatmap, np.float32))
    heat = heat[0] if heat.ndim == 3 and len(heat) == 1 else heat
    if heat.ndim != 2 or not heat.size:
        raise UserError(f"heatmap must be [height, width]. Received: shape {np.shape(heatmap)}.")
    heat = fit(np.clip(heat, 0, 1), (width, height), extent)
    weight = opacity * heat[..., np.newaxis]
    return np.round(picture * (1 - weight) + heat_colors(heat) * weight).astype(np.uint8)


def _as_picture(image: npt.ArrayLike) -> npt.NDArray[Any]:
    """A picture as `[height, width, 3]` in [0, 255]."""
    values = np.asarray(image)
    picture = values[0] if values.ndim == 4 and len(values) == 1 else values
    picture = picture[..., np.newaxis] if picture.ndim == 2 else picture
    if picture.ndim != 3 or picture.shape[2] not in (1, 3, 4) or not picture.size:
        raise UserError(
            "image must be one picture, [height, width] or [height, width, 1, 3 or 4]. Received: "
            f"shape {values.shape}."
        )
    if picture.dtype.kind not in "buif":
        raise UserError(f"image must hold integers or floats. Received: {picture.dtype}.")
    low, high = picture.min(), picture.max()
    if not (low >= 0 and high <= 255):
        raise UserError(
            f"image must be in [0, 1] or [0, 255]. Received: values from {low:g} to {high:g}."
        )
    picture = np.broadcast_to(picture[..., :3], (*picture.shape[:2], 3))
    in_unit = picture.dtype.kind in "bf" and high <= 1
    return picture.astype(np.float64) * 255 if in_unit else picture


def heat_colors(heat: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Returns the colour of each value of heat: `[..., 3]`, RGB in [0, 255], for [0, 1]."""
    import matplotlib

    return np.asarray(matplotlib.colormaps[_COLORMAP](heat)[..., :3] * 255, np.float64)


def draw_gallery(panels: Sequence[Panel], title: str) -> "Figure":
    """Draws each image beside its heatmap, with annotated and predicted boxes on both.

    Args:
        panels: The images, at least one.
        title: The title of the figure.

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
            hot = grid.axes(i, j, overlay(panel.image, panel.heatmap), place=1)
            for axes in (plain, hot):
                _draw_boxes(axes, panel.ground_truth, GROUND_TRUTH_COLOR, dashed=True)
                _draw_boxes(axes, panel.predictions, PREDICTION_COLOR, dashed=False)
            _label_boxes(plain, panel.predictions, panel.scores)
    return grid.figure


def draw_explanations(rows: Sequence[ExplanationRow]) -> "Figure":
    """Draws each image beside its heatmaps.

    Args:
        rows: The images, at least one, all with the same number of heatmaps.

    Returns:
        A figure; see `figures.save`.
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
