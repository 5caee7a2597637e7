"""Saves matplotlib figures, and fits text into them."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kgradcam.errors import UserError
from kgradcam.files import is_stream, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

SUFFIXES = (".png", ".jpg", ".jpeg", ".pdf", ".svg")
"""The suffixes of the files that `save` writes, lower case."""
DPI = 160
"""Resolution of saved figures, in pixels an inch."""


def save(figure: "Figure", path: Path) -> None:
    """Writes a figure in the format of the file's suffix, atomically; makes the folder if needed.

    Equal figures give equal files.

    Args:
        figure: The figure.
        path: The file. An existing one is replaced. A stream, such as `/dev/stdout`, gets PNG.

    Raises:
        UserError: The suffix is none of `SUFFIXES`.
    """
    suffix = ".png" if is_stream(path) else path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path} must end in one of {', '.join(SUFFIXES)}, which is its format.")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, encode(figure, suffix))


def encode(figure: "Figure", suffix: str) -> bytes:
    """Returns a figure as the bytes of a file with one of `SUFFIXES`."""
    import matplotlib

    # Without versions, dates and random ids.
    options: dict[str, dict[str, Any]] = {
        # A third of the time of the default level 6, for a file 2 percent larger.
        ".png": {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 4}},
        ".pdf": {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}},
        ".svg": {"metadata": {"Date": None}},
    }
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "kgradcam"}):
        figure.savefig(buffer, format=suffix[1:], dpi=DPI, **options.get(suffix, {}))
    return buffer.getvalue()


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
    r"""Escapes characters that no font of matplotlib's settings has, as `\u732b`.

    Class and file names may use any script. matplotlib draws an empty box for each character that
    it lacks, and warns. A font for them is set in `matplotlibrc`: `font.family: sans-serif, Noto
    Sans CJK JP`.
    """
    import matplotlib
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = {
        code
        for family in matplotlib.rcParams["font.family"]
        for code in get_font(findfont(FontProperties(family=[family]))).get_charmap()
    }
    return "".join(
        each if ord(each) in known else each.encode("unicode_escape").decode() for each in text
    )


def shorten(label: "Text", width: float) -> None:
    """Cuts a text to a width in pixels of its figure, and ends it with an ellipsis."""
    text = label.get_text()
    while text_extent(label).width > width and text:
        text = text[:-1]
        label.set_text(text.rstrip() + "…")


def text_extent(text: "Text") -> "Bbox":
    """Returns the bounding box of a text, in pixels of its figure."""
    return text.get_window_extent()
