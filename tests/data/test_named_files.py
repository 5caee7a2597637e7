"""Files by the names in an image list: spaces, suffixes, paths, case, and never outside."""

import unicodedata
from pathlib import Path

import pytest

from kgradcam.data.images import SUFFIXES
from kgradcam.data.named_files import NamedFiles
from kgradcam.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = (
        *("photo 1.jpg", "b.PNG", "c.d.jpg", "IMG_7.JPG", "twice.jpg", "twice.png", "notes.txt"),
        *("day/e.webp", "day/f.jpg", "night/f.jpg", unicodedata.normalize("NFD", "é.jpg")),
        *("._b.jpg", "deep/er/g.jpg"),
    )
    for name in names:
        path = tmp_path / "VOC" / "JPEGImages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "VOC" / "JPEGImages"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("photo 1", "photo 1.jpg"),
        ("photo 1.jpg", "photo 1.jpg"),
        ("b", "b.PNG"),
        ("b.jpg", "b.PNG"),
        ("c.d", "c.d.jpg"),
        ("img_7", "IMG_7.JPG"),
        ("IMG_7.jpg", "IMG_7.JPG"),
        ("twice", "twice.jpg"),
        ("twice.png", "twice.png"),
        ("day/e", "day/e.webp"),
        ("day\\e", "day/e.webp"),
        ("./day/e.webp", "day/e.webp"),
        ("JPEGImages/day/e.webp", "day/e.webp"),
        ("VOC/JPEGImages/b.png", "b.PNG"),
        ("e", "day/e.webp"),  # only one file fits
        ("er/g", "deep/er/g.jpg"),
        ("train/b", "b.PNG"),
        ("day/f", "day/f.jpg"),
        ("\u00e9", "e\u0301.jpg"),
    ],
)
def test_a_name_finds_its_file(folder: Path, name: str, file: str) -> None:
    assert NamedFiles(folder, SUFFIXES).find(name) == folder / file


@pytest.mark.parametrize("name", ["photo", "photo 2", "notes", "notes.txt", "night/e", "c", "d"])
def test_other_names_find_nothing(folder: Path, name: str) -> None:
    assert NamedFiles(folder, SUFFIXES).find(name) is None


def test_a_name_that_fits_two_files_is_ambiguous(folder: Path) -> None:
    with pytest.raises(UserError, match=r"'f' is ambiguous: .*day/f.jpg or .*night/f.jpg"):
        NamedFiles(folder, SUFFIXES).find("f")


def test_no_name_leads_out(folder: Path) -> None:
    files = NamedFiles(folder, SUFFIXES)
    (folder.parent / "b.jpg").touch()
    for name in ("../b", "../JPEGImages/b", "/b", f"{folder.parent}/b", "C:\\b", "b\0", ""):
        with pytest.raises(UserError, match="is not a file name in"):
            files.find(name)
    assert files.find(str(folder / "b.PNG")) == folder / "b.PNG"  # its own full path
    assert "../b" not in files
    assert "b" in files


def test_links_to_folders_are_followed_once(folder: Path) -> None:
    (folder / "day/loop").symlink_to(folder)
    (folder / "more").symlink_to(folder / "day")
    files = NamedFiles(folder, SUFFIXES)
    assert files.find("day/e") == folder / "day/e.webp"
    assert len(files.stems) == 10


def test_a_folder_that_is_missing_has_no_files(tmp_path: Path) -> None:
    assert NamedFiles(tmp_path / "nowhere", SUFFIXES).find("a") is None
