"""Figures: text that fonts lack, and SVG that is the same each time."""

import xml.etree.ElementTree as ElementTree

import pytest
from matplotlib.figure import Figure

from kgradcam.pictures.figures import drawable, to_svg


def test_characters_without_a_glyph_are_replaced() -> None:
    assert drawable("caf\u00e9 \u2026") == "caf\u00e9 \u2026"
    assert drawable("\u732b cat\n") == "\ufffd cat\ufffd"


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
