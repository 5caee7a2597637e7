"""Folders in VOC layout, their image lists, and what is read of them."""

from pathlib import Path

import pytest

from kgradcam.data.voc_folder import VocFolder, read_folder
from kgradcam.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "VOCdevkit" / "VOC2007"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for name in ("000003", "000001"):
        (root / "Annotations" / f"{name}.xml").write_text("<annotation/>")
        (root / "JPEGImages" / f"{name}.jpg").touch()
    (root / "ImageSets/Main/val.txt").write_text("000003\n000001\n")
    (root / "ImageSets/Main/dog_val.txt").write_text("000003  1\n000001 -1\n")
    return root


def test_splits_are_the_lists_of_images(folder: Path) -> None:
    voc = VocFolder(folder)
    assert list(voc.split_files) == ["val"]
    assert voc.image_ids("val") == ["000003", "000001"]
    assert voc.image_ids("validation") == ["000003", "000001"]
    assert voc.image_ids("all") == ["000001", "000003"]


def test_a_devkit_with_one_year_is_found(folder: Path) -> None:
    assert VocFolder(folder.parent).root == folder
    (folder.parent / "VOC2012" / "JPEGImages").mkdir(parents=True)
    with pytest.raises(UserError, match=r"It holds several: .*VOC2007, .*VOC2012"):
        VocFolder(folder.parent)


def test_an_unknown_split_gets_a_hint(folder: Path) -> None:
    with pytest.raises(UserError, match=r"split='vall' .* Did you mean 'val'.* It has: val, all"):
        VocFolder(folder).image_ids("vall")


def test_pictures_may_be_png(folder: Path) -> None:
    (folder / "JPEGImages" / "000007.png").touch()
    voc = VocFolder(folder)
    assert voc.image_path("000007").name == "000007.png"
    assert voc.image_path("000008").name == "000008.jpg"


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not in VOC layout"):
        VocFolder(tmp_path)
    with pytest.raises(UserError, match="No folder"):
        VocFolder(tmp_path / "nowhere")


def test_examples_keep_their_files_and_count_only_the_usable_images(pets) -> None:
    (pets.root / "JPEGImages/b.jpg").unlink()
    pets.split("odd", "e", "b", "a")
    examples, skipped = read_folder(VocFolder(pets.root), "odd")
    assert [(each.index, each.path) for each in examples] == [
        (0, pets.root / "JPEGImages/e.jpg"),
        (1, pets.root / "JPEGImages/a.jpg"),
    ]
    assert skipped == [("b.jpg", f"No image {pets.root / 'JPEGImages/b.jpg'}.")]
    assert examples[0].objects.boxes.tolist() == [[5, 5, 15, 15], [20, 5, 35, 25]]


def test_without_annotations_no_xml_is_read(pets) -> None:
    (pets.root / "Annotations/a.xml").write_text("<annotation>")
    examples, skipped = read_folder(VocFolder(pets.root), "test", annotated=False)
    assert (len(examples), skipped) == (4, [])
    assert all(each.objects.names == () for each in examples)
