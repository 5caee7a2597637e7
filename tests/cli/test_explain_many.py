"""`explain` of several images: folders, globs, files that are no images, and where results go."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from kgradcam.pictures.drawing import ExplanationRow, draw_explanations


@pytest.fixture
def photos(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.jpg", "c.png"):
        PIL.Image.new("RGB", (40, 30), "white").save(folder / name)
    (folder / "a.txt").write_text("no image")
    (folder / "bad.png").write_bytes(b"no image")
    return folder


def test_a_folder_gives_a_file_for_each_image(kgradcam, photos: Path, tiny_model: Path) -> None:
    result = kgradcam("explain", "photos", "--model", tiny_model)
    names = ["a.png", "b.png", "c.png", "contact-sheet.png"]
    assert (result.code, result.out.split()) == (0, [f"explained/{name}" for name in names])
    assert "left out photos/bad.png: photos/bad.png is not a readable image" in result.err
    assert sorted(path.name for path in Path("explained").iterdir()) == names
    before = Path("explained/a.png").read_bytes()
    again = kgradcam("explain", "photos/a.png", "--model", tiny_model)
    assert again.code == 1
    assert "explained/a.png already exists" in again.err
    assert Path("explained/a.png").read_bytes() == before


def test_globs_and_names_that_occur_twice(kgradcam, photos: Path, tiny_model: Path) -> None:
    PIL.Image.new("RGB", (40, 30)).save(photos / "a.jpg")
    result = kgradcam("explain", "photos/a.*g", "photos/a.png", "--model", tiny_model, "--out",
                      "new/folder", "--json")  # fmt: skip
    assert result.code == 0, result.err
    content = json.loads(result.out)
    assert content["pictures"] == [
        "new/folder/a.png",
        "new/folder/a-2.png",
        "new/folder/contact-sheet.png",
    ]
    assert [each["image"] for each in content["findings"]] == ["photos/a.jpg", "photos/a.png"]


def test_images_are_never_replaced(kgradcam, photos: Path, tiny_model: Path) -> None:
    before = (photos / "a.png").read_bytes()
    result = kgradcam("explain", "photos/a.png", "--model", tiny_model, "--out", "photos",
                      "--force")  # fmt: skip
    assert result.code == 1
    assert "photos/a.png is an input of this command" in result.err
    assert (photos / "a.png").read_bytes() == before


def test_without_any_image_it_fails(kgradcam, photos: Path, tiny_model: Path, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "worse.png").write_bytes(b"")
    for arguments, message in (
        (["empty"], "empty is a folder without images"),
        (["photos/*.gif"], "photos/*.gif matches no file"),
        (["photos/bad.png"], "photos/bad.png is not a readable image"),
        (["photos/bad.png", "worse.png"], "None of the 2 images can be read. photos/bad.png is"),
    ):
        result = kgradcam("explain", *arguments, "--model", tiny_model)
        assert (result.code, result.out) == (1, "")
        assert message in result.err
    assert not Path("explained").exists()


@pytest.mark.parametrize(("rows", "heatmaps"), [(1, 1), (1, 9), (10, 1), (12, 2), (60, 1), (3, 3)])
def test_sheets_are_about_square(rows: int, heatmaps: int) -> None:
    image = np.zeros((30, 40, 3), np.uint8)
    heat = np.zeros((heatmaps, 30, 40), np.float32)
    row = ExplanationRow(image, "a.jpg", heat, ["class"] * heatmaps)
    figure = draw_explanations([row] * rows)
    assert len(figure.axes) == rows * (1 + heatmaps)
    if rows * heatmaps > 1:
        assert 0.55 < figure.get_figwidth() / figure.get_figheight() < 1.8
