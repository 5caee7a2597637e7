"""Saves matplotlib figures as PNG and SVG, and fits text into them."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kgradcam.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

DPI = 160
"""Resolution of saved figures, in pixels an inch."""


def save(figure: "Figure", path: Path) -> None:
    """Writes a figure as PNG, atomically; makes the folder if needed.

    Args:
        figure: The figure.
        path: The file. An existing one is replaced.
    """
    buffer = io.BytesIO()
    # Without matplotlib's version in the metadata, equal figures give equal files.
    options: dict[str, Any] = {"metadata": {"Software": None}}
    # A third of the time of the default level 6, for a file 2 percent larger.
    options["pil_kwargs"] = {"compress_level": 4}
    figure.savefig(buffer, format="png", dpi=DPI, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def to_svg(figure: "Figure") -> str:
    """Returns a figure as SVG with a transparent background.

    Text becomes outlines, so that it looks the same wherever fonts differ. Equal figures give
    equal text.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "kgradcam"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def drawable(text: str) -> str:
    """Replaces characters that no font of matplotlib's settings has by U+FFFD.

    Class and file names may use any script. matplotlib warns about each character that it
    cannot draw, in the middle of the layout.
    """
    import matplotlib
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = {
        code
        for family in matplotlib.rcParams["font.family"]
        for code in get_font(findfont(FontProperties(family=[family]))).get_charmap()
    }
    return "".join(each if ord(each) in known else "\N{REPLACEMENT CHARACTER}" for each in text)


def shorten(label: "Text", width: float) -> None:
    """Cuts a text to a width in pixels of its figure, and ends it with an ellipsis."""
    text = label.get_text()
    while text_extent(label).width > width and text:
        text = text[:-1]
        label.set_text(text.rstrip() + "…")


def text_extent(text: "Text") -> "Bbox":
    """Returns the bounding box of a text, in pixels of its figure."""
    return text.get_window_extent()
