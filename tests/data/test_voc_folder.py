"""Folders in VOC layout, their image lists, and what is read of them."""

from pathlib import Path

import PIL.Image
import pytest

from kgradcam.data.sources import open_dataset
from kgradcam.data.voc_folder import VocFolder, read_folder
from kgradcam.errors import DataWarning, UserError


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


def opened(pets, split: str | None = None, **options: bool) -> list[str]:
    dataset = open_dataset(str(pets.root), split, **options)
    assert dataset.skipped == []
    return [example.file_name for example in dataset.examples]


def test_names_that_end_in_a_number_are_no_list_of_a_class(pets) -> None:
    for name in ("photo 1", "photo 0", "photo 2"):
        pets.add(name, [("dog", (4, 6, 20, 24))])
    pets.split("test", "photo 1", "photo 0")
    pets.split("my_test", "photo 0", "photo 1")
    pets.split("dog_test", "a  1", "b -1")
    assert list(VocFolder(pets.root).split_files) == ["my_test", "test"]
    assert opened(pets) == ["photo 1.jpg", "photo 0.jpg"]
    assert opened(pets, "my_test") == ["photo 0.jpg", "photo 1.jpg"]


def test_lists_may_hold_suffixes_and_paths(pets) -> None:
    root = pets.root
    pets.split("odd", "a.jpg", "JPEGImages/b.jpg", "./c", f"{root}/JPEGImages/d.jpg", "e", "e.jpg")
    assert opened(pets, "odd") == [f"{name}.jpg" for name in "abcde"]


def test_pictures_and_annotations_may_be_in_subfolders(pets) -> None:
    for part in ("JPEGImages", "Annotations"):
        (pets.root / part / "day").mkdir()
    for name in ("a.jpg", "b.jpg"):
        image = pets.root / "JPEGImages" / name
        image.rename(image.parent / "day" / name)
        annotation = pets.root / "Annotations" / f"{name[0]}.xml"
        annotation.rename(annotation.parent / "day" / annotation.name)
    (pets.root / "Annotations/day/d.xml").write_bytes(
        (pets.root / "Annotations/d.xml").read_bytes()
    )
    (pets.root / "Annotations/d.xml").unlink()
    pets.split("odd", "day/a", "b", "c", "d")
    assert opened(pets, "odd") == ["day/a.jpg", "day/b.jpg", "c.jpg", "d.jpg"]
    assert sorted(opened(pets, "all")) == ["c.jpg", "d.jpg", "day/a.jpg", "day/b.jpg", "e.jpg"]


def test_every_picture_that_decodes_is_looked_for(pets) -> None:
    names = ("a.bmp", "b.webp", "c.tif", "d.Jpg", "e.gif")
    for name in names:
        path = pets.root / "JPEGImages" / f"{name[0]}.jpg"
        image = PIL.Image.open(path)
        path.unlink()
        image.save(pets.root / "JPEGImages" / name)
    assert opened(pets, "all") == list(names)


def test_annotations_may_be_named_xml_in_upper_case(pets) -> None:
    path = pets.root / "Annotations/a.xml"
    path.rename(path.with_suffix(".XML"))
    assert opened(pets, "all") == [f"{name}.jpg" for name in "abcde"]


def test_a_list_that_nobody_asks_for_may_be_anything(pets) -> None:
    lists = pets.root / "ImageSets/Main"
    (lists / "notes.txt").write_bytes("café\n".encode("latin-1"))
    assert opened(pets, "test") == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    with pytest.raises(UserError, match=r"notes.txt is not UTF-8 text"):
        open_dataset(str(pets.root), "notes")
    (lists / "wide.txt").write_bytes("a\r\nb\r\n".encode("utf-16"))
    assert opened(pets, "wide") == ["a.jpg", "b.jpg"]


def boxed(pets, *corners: float, size: str = "") -> None:
    tags = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(f"<{tag}>{each}</{tag}>" for tag, each in zip(tags, corners, strict=True))
    (pets.root / "Annotations/a.xml").write_text(
        f"<annotation>{size}<object><name>dog</name><bndbox>{box}</bndbox></object></annotation>"
    )


@pytest.mark.parametrize("box", [(0.1, 0.2, 0.5, 0.8), (0, 0, 1, 1), (0.0, 0.1, 1.0002, 1)])
def test_boxes_in_fractions_of_the_image_are_refused(pets, box: tuple[float, ...]) -> None:
    boxed(pets, *box)
    ((name, reason),) = open_dataset(str(pets.root), "all").skipped
    assert name == "a.jpg"
    assert "is in fractions of the image: [" in reason
    assert "VOC counts pixels from 1; a.jpg is 40x30." in reason


def test_the_first_pixel_is_no_fraction(pets) -> None:
    boxed(pets, 1, 1, 1, 1)
    assert opened(pets, "all")[0] == "a.jpg"


SIZE = "<size><width>{}</width><height>{}</height><depth>3</depth></size>"


def test_an_annotation_for_another_size_is_warned_of(pets) -> None:
    boxed(pets, 9, 13, 38, 28, size=SIZE.format(80, 60))
    with pytest.warns(
        DataWarning,
        match="1 of 5 annotations give another image size than the file, such as a.jpg: 80x60, "
        "but the file has 40x30. Their boxes are read as pixels of the file.",
    ):
        examples = open_dataset(str(pets.root), "all").examples
    assert examples[0].objects.boxes.tolist() == [[8, 12, 38, 28]]
    boxed(pets, 9, 13, 70, 28, size=SIZE.format(80, 60))
    ((_, reason),) = open_dataset(str(pets.root), "all").skipped
    assert "leaves a.jpg, which is 40x30, annotated as 80x60. --clip clips" in reason
    boxed(pets, 9, 13, 38, 28, size=SIZE.format(0, 0))  # unknown, for some tools
    assert len(opened(pets, "all")) == 5


def test_boxes_that_leave_the_image_can_be_clipped(pets) -> None:
    text = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
        f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box in (("cat", (-3, 7, 20, 24)), ("fox", (50, 1, 60, 9)), ("dog", (0, 1, 9, 44)))
    )
    (pets.root / "Annotations/a.xml").write_text(f"<annotation>{text}</annotation>")
    assert [name for name, _ in open_dataset(str(pets.root), "all").skipped] == ["a.jpg"]
    dataset = open_dataset(str(pets.root), "all", clip=True)
    assert dataset.skipped == []
    objects = dataset.examples[0].objects
    assert objects.names == ("cat", "dog")
    assert objects.boxes.tolist() == [[0, 6, 20, 24], [0, 0, 9, 30]]
    assert objects.difficult.tolist() == objects.truncated.tolist() == [False, False]
    assert objects.poses == ("unspecified", "unspecified")
