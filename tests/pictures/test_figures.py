"""Figures: text that fonts lack, and SVG that is the same each time."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import PIL.Image
import pytest
from matplotlib.figure import Figure

from kgradcam.errors import UserError
from kgradcam.pictures.figures import drawable, save, to_svg


def test_characters_without_a_glyph_are_replaced() -> None:
    assert drawable("caf\u00e9 \u2026") == "caf\u00e9 \u2026"
    assert drawable("\u732b cat\n") == r"\u732b cat\n"


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.png", b"\x89PNG\r\n"),
        ("a.JPG", b"\xff\xd8\xff"),
        ("a.jpeg", b"\xff\xd8\xff"),
        ("a.pdf", b"%PDF-1."),
        ("a.svg", b"<?xml version"),
    ],
)
def test_a_file_holds_the_format_of_its_suffix(tmp_path: Path, name: str, start: bytes) -> None:
    def draw(path: Path) -> bytes:
        figure = Figure(figsize=(2, 1))
        figure.subplots().plot([0, 1], [0, 1])
        save(figure, path)
        return path.read_bytes()

    content = draw(tmp_path / "new" / name)
    assert content.startswith(start)
    assert content == draw(tmp_path / name)
    if not name.endswith((".pdf", ".svg")):
        with PIL.Image.open(tmp_path / name) as image:
            assert image.size == (320, 160)


@pytest.mark.parametrize("name", ["a", "a.bmp", "a.png.txt"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"must end in one of .png, .jpg, .jpeg, .pdf, .svg"):
        save(Figure(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_svg_is_well_formed_transparent_and_always_the_same() -> None:
    def draw() -> str:
        figure = Figure(figsize=(4, 3))
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1])
        axes.set_title("</svg><script>alert(1)</script>", parse_math=False)
        return to_svg(figure)

    text = draw()
    assert text == draw()
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert float(root.attrib["width"].removesuffix("pt")) == pytest.approx(4 * 72)
    assert not [each for each in root.iter() if each.tag.endswith(("script", "text"))]
    assert "#ffffff" not in text
