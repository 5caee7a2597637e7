"""A figure of pictures in cells with titles, and boxes on pictures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kgradcam.boxes.overlap import Boxes
from kgradcam.pictures.blending import Picture
from kgradcam.pictures.figures import DPI, drawable, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#1b1b1b"
"""The colour of text."""
PICTURE_INCHES = 2.8
"""The longer side of a picture."""
TITLE_INCHES = 0.27
_HEADER_INCHES = 0.55
_GAP_INCHES = 0.06
MARGIN_INCHES = 0.16
DASHES = (0, (3, 1.2))


class Grid:
    """A figure of cells. Each has a title above one picture, or above several side by side.

    Positions are computed in inches from the top left, so that nothing can overlap.
    """

    def __init__(
        self, shapes: Sequence[Sequence[Sequence[int]]], pictures: int = 1, header: bool = True
    ) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self._cell = pictures * PICTURE_INCHES + (pictures - 1) * _GAP_INCHES
        self._heights = [max(picture_size(shape)[1] for shape in row) for row in shapes]
        self._header = _HEADER_INCHES if header else MARGIN_INCHES / 2
        self._width = self._left(max(map(len, shapes)))
        self._height = self._top(len(shapes))
        self.figure = Figure(figsize=(self._width, self._height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)

    def _left(self, column: int) -> float:
        return MARGIN_INCHES + column * (self._cell + MARGIN_INCHES)

    def _top(self, row: int) -> float:
        return self._header + sum(self._heights[:row]) + row * (TITLE_INCHES + MARGIN_INCHES)

    def axes(self, row: int, column: int, picture: Picture, place: int = 0) -> "Axes":
        """Shows a picture in a cell, at a place from the left; its axes are in its pixels."""
        width, height = picture_size(picture.shape)
        left = self._left(column) + place * (width + _GAP_INCHES)
        bottom = self._height - self._top(row) - TITLE_INCHES - height
        axes = self.figure.add_axes(
            (
                left / self._width,
                bottom / self._height,
                width / self._width,
                height / self._height,
            )
        )
        show_picture(axes, picture)
        return axes

    def title(self, row: int, column: int, text: str) -> None:
        """Writes a title above a cell, shortened to its width."""
        label = self.figure.text(
            self._left(column) / self._width,
            1 - (self._top(row) + TITLE_INCHES - 0.06) / self._height,
            drawable(text),
            fontsize=9,
            color=INK,
            va="bottom",
            parse_math=False,
        )
        shorten(label, self._cell * DPI)


def show_picture(axes: "Axes", picture: Picture) -> None:
    """Fills axes with a picture; their coordinates are its pixels."""
    # Pixel edges lie at whole numbers, as the coordinates of half-open boxes do.
    extent = (0, picture.shape[1], picture.shape[0], 0)
    axes.imshow(picture, extent=extent, interpolation="antialiased", aspect="auto")
    axes.set_axis_off()


def picture_size(shape: Sequence[int]) -> tuple[float, float]:
    """Width and height in inches; the longer side is `PICTURE_INCHES`."""
    height, width = shape[:2]
    scale = PICTURE_INCHES / max(height, width)
    return width * scale, height * scale


def draw_boxes(axes: "Axes", boxes: Boxes, color: str, dashed: bool, opacity: float = 1.0) -> None:
    """Draws boxes as lines with a dark rim.

    Args:
        axes: The axes of a picture.
        boxes: `[boxes, 4]`, xyxy in pixels of the picture.
        color: The colour of the lines.
        dashed: Whether they are dashed.
        opacity: Their opacity, in [0, 1].
    """
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
                alpha=opacity,
                linestyle=DASHES if dashed else "solid",
                # Unclipped, a box on the border keeps its full line width. The dark rim keeps
                # a box visible on a background of its own colour.
                clip_on=False,
                path_effects=[
                    Stroke(linewidth=2.6, foreground="black", alpha=0.55 * opacity),
                    Normal(),
                ],
            )
        )
