"""docs/gallery.py: each picture of the page has its command and its small file."""

import runpy
from pathlib import Path

import PIL.Image
import pytest

from kgradcam.cli.completion import METHODS

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_page_has_each_method_and_its_pictures_are_small() -> None:
    blocks = runpy.run_path(str(DOCS / "gallery.py"))["blocks"]()
    assert sorted(blocks[0][1]) == sorted(METHODS)
    names = {name for _, pictures in blocks for name in pictures}
    files = {path for path in (DOCS / "pictures/gallery").rglob("*") if path.is_file()}
    assert files == {DOCS / f"pictures/gallery/{name}.jpg" for name in names}
    assert sum(path.stat().st_size for path in files) < 1.5e6


@pytest.mark.slow
def test_the_script_makes_a_picture(tmp_path: Path) -> None:
    runpy.run_path(str(DOCS / "gallery.py"))["make"](["layercam"], tmp_path)
    (made,) = tmp_path.rglob("*.*")
    assert made.name == "layercam.jpg"
    with PIL.Image.open(made) as picture:
        assert picture.size == (451, 300)
