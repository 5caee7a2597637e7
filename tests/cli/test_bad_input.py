"""Whatever a dataset holds: one clear line for each file, and the rest of the run unharmed."""

import io
import json
import os
import re
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import PIL.Image
import pytest

from kgradcam import GradCAM, normalize, overlay
from kgradcam.boxes.single_threshold import single_threshold_boxes
from kgradcam.data.images import image_size, read_image
from kgradcam.data.sources import open_dataset
from kgradcam.data.voc import parse_annotation
from kgradcam.data.voc_builder import prepare
from kgradcam.data.voc_folder import VocFolder
from kgradcam.errors import DataWarning, UserError
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.detection import detect
from kgradcam.runs.run_info import SkippedImage
from kgradcam.runs.tables import Image

DOG = "<annotation>{}<object><name>dog</name>{}</object></annotation>"
BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
GOOD = DOG.format("", BOX.format(5, 7, 20, 24))


def encoded(image: PIL.Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photograph(width: int = 40, height: int = 30, mode: str = "RGB") -> PIL.Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return PIL.Image.fromarray(noise).convert(mode)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header alone is large: the bomb decodes to gigabytes, or not at all."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def turned(width: int = 40, height: int = 30, orientation: int = 6) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return encoded(photograph(width, height), "JPEG", exif=exif.tobytes())


JPEG = encoded(photograph(), "JPEG")
GIF = encoded(
    PIL.Image.new("RGB", (40, 30), "red"),
    "GIF",
    save_all=True,
    append_images=[PIL.Image.new("RGB", (40, 30), "blue")],
)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\nshowpage\n"


@pytest.fixture
def configuration(configuration: Configuration) -> Configuration:
    return replace(configuration, thresholds=(0.5,), batch_size=16)


# A picture named x.jpg: its bytes, and what is said of it.
UNREADABLE = {
    "truncated": (JPEG[:-60], "does not decode: .*truncated"),
    "only a header": (JPEG[:200], "is not a readable image|does not decode"),
    "zero bytes": (b"", "is not a readable image: unknown format"),
    "text": (b"<html>404</html>", "is not a readable image: unknown format"),
    "a PostScript file, which Pillow would give to Ghostscript": (EPS, "unknown format"),
    "a decompression bomb": (png_of_size(50_000, 50_000), "more than 89,478,485 pixels"),
    "a smaller bomb, of which Pillow only warns": (png_of_size(10_000, 9_000), "more than 89,"),
    "pixels that end early": (png_of_size(400, 300), "does not decode"),
    "floats": (encoded(PIL.Image.new("F", (40, 30)), "TIFF"), "32-bit pixels have no defined"),
}


@pytest.mark.parametrize(("content", "reason"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_unreadable_picture_is_named_and_the_rest_is_unharmed(
    configuration: Configuration, pets, tmp_path: Path, content: bytes, reason: str
) -> None:
    whole = detect(configuration, tmp_path / "whole")
    (pets.root / "JPEGImages/x.jpg").write_bytes(content)
    (pets.root / "Annotations/x.xml").write_text(GOOD)
    run = detect(configuration, tmp_path / "run")
    (skipped,) = run.info.skipped
    assert skipped.file == "x.jpg"
    assert re.search(reason, skipped.reason), skipped.reason
    assert len(skipped.reason.splitlines()) == 1
    assert run.info.counts.skipped == 1
    for name in ("detections-0.5.json", "ground_truth.json", "heatmaps/00000.npz"):
        assert (run.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    with pytest.raises(UserError, match="--strict: x.jpg: "):
        detect(replace(configuration, strict=True), tmp_path / "strict")
    assert not (tmp_path / "strict").exists()


READABLE = {
    "a PNG named jpg": encoded(photograph()),
    "CMYK": encoded(photograph(mode="CMYK"), "JPEG"),
    "grayscale": encoded(photograph(mode="L"), "JPEG"),
    "16 bits": encoded(PIL.Image.fromarray(np.full((30, 40), 40_000, np.uint16))),
    "alpha": encoded(photograph(mode="RGBA")),
    "palette with transparency": encoded(photograph(mode="P"), transparency=b"\x00\x80\xff"),
    "animated": GIF,
    "turned by EXIF": turned(),
    "1x1": encoded(photograph(1, 1)),
    "1xN": encoded(photograph(1, 50)),
    "Nx1": encoded(photograph(50, 1)),
}


@pytest.mark.parametrize("content", READABLE.values(), ids=READABLE.keys())
def test_an_unusual_picture_is_a_picture(
    configuration: Configuration, pets, tmp_path: Path, content: bytes
) -> None:
    (pets.root / "JPEGImages/x.jpg").write_bytes(content)
    width, height = image_size(content)
    (pets.root / "Annotations/x.xml").write_text(DOG.format("", BOX.format(1, 1, width, height)))
    run = detect(replace(configuration, strict=True), tmp_path / "run")
    assert run.info.skipped == ()
    assert run.ground_truth.images[-1] == Image(5, "x.jpg", width, height)
    (heatmap,) = [record.heatmap for record in run.heatmaps() if record.image_id == 5]
    assert heatmap.shape == (-(-height // 2), -(-width // 2))
    assert len(run.detections([0.5])[0, 0.5].boxes)


def test_depths_and_transparency_become_what_a_page_shows() -> None:
    deep = PIL.Image.fromarray(np.array([[0, 256, 40_000, 65_535]], np.uint16))
    assert read_image(encoded(deep))[0, :, 0].tolist() == [0, 1, 156, 255]
    clear = PIL.Image.new("RGBA", (2, 1), (200, 0, 0, 0))
    clear.putpixel((1, 0), (200, 0, 0, 255))
    assert read_image(encoded(clear))[0].tolist() == [[255, 255, 255], [200, 0, 0]]
    assert read_image(GIF)[0, 0].tolist() == [255, 0, 0]  # the first frame


def test_exif_turns_what_is_explained_but_not_what_is_annotated() -> None:
    """Annotations count the pixels of the file; a viewer, and `explain`, shows it upright."""
    assert image_size(turned()) == (40, 30)
    assert read_image(turned()).shape == (30, 40, 3)
    assert read_image(turned(), upright=True).shape == (40, 30, 3)
    np.testing.assert_array_equal(
        read_image(turned(), upright=True), np.rot90(read_image(turned()), -1)
    )


def test_what_was_annotated_on_the_turned_picture_is_left_out(
    configuration: Configuration, pets, tmp_path: Path
) -> None:
    (pets.root / "JPEGImages/x.jpg").write_bytes(turned())
    annotation = pets.root / "Annotations/x.xml"
    size = "<size><width>{}</width><height>{}</height></size>"
    annotation.write_text(DOG.format(size.format(40, 30), BOX.format(5, 7, 20, 24)))
    assert open_dataset(str(pets.root), "all").skipped == []
    annotation.write_text(DOG.format(size.format(30, 40), BOX.format(5, 7, 20, 24)))
    ((name, reason),) = open_dataset(str(pets.root), "all").skipped
    assert name == "x.jpg"
    assert "stored as 40x30 for viewers to turn, and annotated as 30x40. Save it upright" in reason
    # Without an orientation a size that is wrong is no evidence.
    (pets.root / "JPEGImages/x.jpg").write_bytes(JPEG)
    with pytest.warns(DataWarning, match="1 of 6 annotations give another image size"):
        assert open_dataset(str(pets.root), "all").skipped == []


def test_the_limit_of_pixels_is_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = encoded(photograph(40, 30))
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1199)
    with pytest.raises(UserError, match="more than 1,199 pixels; --max-pixels admits more"):
        image_size(picture)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1200)
    assert image_size(picture) == (40, 30)


def test_the_limit_holds_in_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = encoded(photograph(40, 30))
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1199)

    def is_refused(_: int) -> bool:
        try:
            image_size(picture)
        except UserError:
            return True
        return False

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with warnings.catch_warnings(), ThreadPoolExecutor(8) as pool:
            warnings.simplefilter("ignore")  # as without pytest: nothing is an error by itself
            before = list(warnings.filters)
            refused = list(pool.map(is_refused, range(5000)))
            assert warnings.filters == before
    finally:
        sys.setswitchinterval(interval)
    assert all(refused)


LAUGHS = '<!DOCTYPE a [<!ENTITY l0 "ha">{}]>{}'.format(
    "".join(f'<!ENTITY l{i + 1} "{f"&l{i};" * 10}">' for i in range(12)),
    GOOD.replace("dog", "&l12;"),
)
ANNOTATIONS = {
    "no XML": ("<annotation>", "not readable XML"),
    "nothing": ("", "not readable XML"),
    "no name": (GOOD.replace("<name>dog</name>", ""), "an object has no name"),
    "no box": (DOG.format("", ""), "a bndbox needs four numbers"),
    "a field of the box missing": (GOOD.replace("<xmax>20</xmax>", ""), "four numbers"),
    "an inverted box": (DOG.format("", BOX.format(20, 7, 5, 24)), "inverted"),
    "an infinite box": (DOG.format("", BOX.format(5, 7, "1e999", 24)), "not finite"),
    "a box outside": (DOG.format("", BOX.format(50, 7, 60, 24)), r"leaves x.jpg, which is 40x30"),
    "a box that sticks out": (DOG.format("", BOX.format(5, 7, 42, 24)), "leaves x.jpg"),
    "an unknown encoding": ('<?xml version="1.0" encoding="klingon"?>' + GOOD, "not readable XML"),
    "bytes of another encoding": (GOOD.encode().replace(b"dog", b"ch\xe8vre"), "not readable XML"),
    "an entity-expansion bomb": (LAUGHS, "has a document type"),
    "an external entity": (
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + GOOD.replace("dog", "&x;"),
        "has a document type",
    ),
    "an external document type": ('<!DOCTYPE a SYSTEM "http://x.test/a.dtd">' + GOOD, "document"),
    "an unknown entity": (GOOD.replace("dog", "&x;"), "not readable XML"),
    "too many bytes": ("<a>" + " " * 2**24 + "</a>", "too large for an annotation"),
}


@pytest.mark.parametrize(("text", "reason"), ANNOTATIONS.values(), ids=ANNOTATIONS.keys())
def test_a_bad_annotation_is_named_and_the_rest_is_unharmed(
    pets, text: str | bytes, reason: str
) -> None:
    (pets.root / "JPEGImages/x.jpg").write_bytes(JPEG)
    (pets.root / "Annotations/x.xml").write_bytes(
        text if isinstance(text, bytes) else text.encode()
    )
    dataset = open_dataset(str(pets.root), "all")
    assert [example.file_name for example in dataset.examples] == [f"{x}.jpg" for x in "abcde"]
    ((name, why),) = dataset.skipped
    assert name == "x.jpg"
    assert reason.replace("\\", "") in why
    assert len(why.splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "\ufeff" + GOOD,
        '<?xml version="1.0" encoding="ISO-8859-1"?>' + GOOD.replace("dog", "chèvre"),
        '<?xml version="1.0" encoding="UTF-16"?>' + GOOD.replace("dog", "山羊"),
        GOOD.replace("dog", "chèvre &amp; &#x5c71;"),
        GOOD.replace("<object>", "<filename>../a.jpg</filename><path>/etc/passwd</path><object>"),
    ],
)
def test_other_encodings_and_other_names_are_read(tmp_path: Path, text: str) -> None:
    encoding = "latin-1" if "8859" in text else "utf-16" if "UTF-16" in text else "utf-8"
    path = tmp_path / "x.xml"
    path.write_bytes(text.encode(encoding))
    (name,) = parse_annotation(path).names
    assert name in ("dog", "chèvre", "山羊", "chèvre & 山")


def test_a_million_elements_deep_is_no_danger(tmp_path: Path) -> None:
    path = tmp_path / "x.xml"
    deep = "<a>" * 1_000_000 + "</a>" * 1_000_000
    path.write_text(deep)
    with pytest.raises(UserError, match="must hold one <annotation>. Received: 0, in <a>"):
        parse_annotation(path)
    path.write_text(f"<annotation>{deep}</annotation>")
    assert parse_annotation(path).names == ()


def test_in_voc_one_number_twice_is_one_pixel(pets) -> None:
    """VOC's boxes include their last pixel, so that none has a zero area."""
    (pets.root / "JPEGImages/x.jpg").write_bytes(JPEG)
    (pets.root / "Annotations/x.xml").write_text(DOG.format("", BOX.format(5, 7, 5, 7)))
    assert open_dataset(str(pets.root), "all").examples[-1].objects.boxes.tolist() == [[4, 6, 5, 7]]


def test_a_tool_that_counts_from_zero_sticks_out_by_a_pixel(pets) -> None:
    (pets.root / "JPEGImages/x.jpg").write_bytes(JPEG)
    (pets.root / "Annotations/x.xml").write_text(DOG.format("", BOX.format(0, 0, 41, 31)))
    (example,) = open_dataset(str(pets.root), "all").examples[-1:]
    assert example.objects.boxes.tolist() == [[-1, -1, 41, 31]]


def test_classes_of_any_name_are_classes(pets, configuration, tmp_path: Path) -> None:
    names = ["<script>", "a b", "山羊", "../x", "=", "\u202eevil"]
    for i, name in enumerate(names):
        pets.add(f"x{i}", [(name, (1, 1, 20, 20))])
    dataset = open_dataset(str(pets.root), "all")
    assert set(names) < set(dataset.class_names)
    run = detect(replace(configuration, classes=("../x=0", "山羊=1")), tmp_path / "run")
    assert run.ground_truth.categories == ("../x", "山羊")


@pytest.mark.parametrize(
    "name", ["two words", "é 山羊", "<script>", "a'b\"c", "x&y", "%2e%2e", "..x"]
)
def test_pictures_of_any_name_are_found(pets, name: str) -> None:
    pets.add(name, [("dog", (4, 6, 20, 24))])
    pets.split("odd", "a", name)
    for split in ("odd", "all"):
        dataset = open_dataset(str(pets.root), split)
        assert (dataset.skipped, f"{name}.jpg" in [e.file_name for e in dataset.examples]) == (
            [],
            True,
        )


def test_image_lists_never_lead_out_of_the_folder(pets, tmp_path: Path) -> None:
    """Pictures outside that would be read, if a list's names were followed."""
    secret = tmp_path / "JPEGImages"
    secret.mkdir()
    (secret / "secret.jpg").write_bytes(JPEG)
    (pets.root / "JPEGImages/secret.jpg").write_bytes(JPEG)
    ways = ["../../JPEGImages/secret", f"{secret}/secret", "..\\secret", "C:\\secret", "a\0b"]
    pets.split("odd", "a", *ways)
    dataset = open_dataset(str(pets.root), "odd")
    assert [example.file_name for example in dataset.examples] == ["a.jpg"]
    assert len(dataset.skipped) == len(ways)
    assert all("is not a file name in" in reason for _, reason in dataset.skipped)


def test_missing_images_and_annotations_are_named(pets) -> None:
    (pets.root / "Annotations/b.xml").unlink()
    pets.split("odd", "a", "nowhere", "b", "a" * 300)
    dataset = open_dataset(str(pets.root), "odd")
    assert [example.file_name for example in dataset.examples] == ["a.jpg"]
    reasons = [reason for _, reason in dataset.skipped]
    assert reasons[0] == f"No image {pets.root / 'JPEGImages/nowhere.jpg'}."
    assert reasons[1] == f"No annotation {pets.root / 'Annotations/b.xml'}."
    assert "name too long" in reasons[2]


def test_a_name_that_is_no_text_is_named(pets) -> None:
    (pets.root / "Annotations" / os.fsdecode(b"caf\xe9.xml")).write_text(GOOD)
    dataset = open_dataset(str(pets.root), "all")
    assert dataset.skipped == [("caf\\udce9", "Its name is not UTF-8.")]
    json.dumps(dataset.skipped, ensure_ascii=False).encode()


def test_a_list_that_is_no_text_is_an_error_of_one_line(pets) -> None:
    (pets.root / "ImageSets/Main/noise.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"noise.txt is not UTF-8 text"):
        open_dataset(str(pets.root), "noise")


def test_where_nothing_is_usable_the_first_reason_is_told(pets) -> None:
    pets.split("odd", "nowhere")
    with pytest.raises(UserError, match=r"no usable image. Skipped nowhere.jpg: No image"):
        open_dataset(str(pets.root), "odd")


def test_a_picture_that_goes_during_the_run_is_named(
    configuration: Configuration, pets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*arguments: object, **options: object) -> object:
        (pets.root / "JPEGImages/e.jpg").unlink()
        (pets.root / "JPEGImages/a.jpg").write_bytes(encoded(photograph(7, 7)))
        return original(*arguments, **options)

    from kgradcam.runs import explaining

    original = explaining.load_classifier
    monkeypatch.setattr(explaining, "load_classifier", load)
    run = detect(configuration, tmp_path / "run")
    assert run.info.skipped == (
        SkippedImage("a.jpg", "The file has changed: its size was 40x30."),
        SkippedImage("e.jpg", "The image cannot be read: No such file or directory."),
    )
    assert [image.file_name for image in run.ground_truth.images] == ["b.jpg", "c.jpg"]


def test_prepare_leaves_out_what_it_cannot_write(make_voc: Callable, tmp_path: Path) -> None:
    folder = make_voc("VOCdevkit/VOC2007")
    for name in "abc":
        folder.add(name, [("dog", (4, 6, 20, 24))])
    (folder.root / "Annotations/b.xml").write_text(LAUGHS)
    (folder.root / "JPEGImages/c.jpg").write_bytes(png_of_size(50_000, 50_000))
    folder.split("train", "a", "b", "c", "../a")
    _, counts, skipped = prepare(tmp_path / "VOCdevkit", "2007", tmp_path / "data")
    assert counts == {"train": 1}
    assert [name for name, _ in skipped] == ["b.jpg", "c.jpg", "../a"]


def model_of(kernel: float, path: Path, padding: str = "same", size: int = 2) -> str:
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(2, size, padding=padding, name="maps"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )
    model.get_layer("maps").set_weights(
        [np.full((size, size, 3, 2), kernel, np.float32), np.zeros(2, np.float32)]
    )
    model.save(path)
    return str(path)


def test_a_model_with_nan_weights_is_an_error_that_says_so(
    configuration: Configuration, tmp_path: Path
) -> None:
    broken = replace(configuration, model=model_of(float("nan"), tmp_path / "nan.keras"))
    with pytest.raises(
        UserError, match=r"None of the 4 images could be explained. .*jpg: .*weights may hold NaN"
    ):
        detect(broken, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_picture_too_small_for_the_model_is_left_out(
    configuration: Configuration, pets, tmp_path: Path
) -> None:
    pets.add("x", [("dog", (0, 0, 3, 3))], size=(3, 3))
    model = model_of(0.01, tmp_path / "valid.keras", "valid", 5)
    run = detect(replace(configuration, model=model), tmp_path / "run")
    (skipped,) = run.info.skipped
    assert skipped.file == "x.jpg"
    assert "3x3" in skipped.reason
    assert run.info.counts.images == 4


def test_a_heatmap_of_zeros_is_a_box_around_everything_that_nothing_speaks_for(
    configuration: Configuration, tmp_path: Path
) -> None:
    black = replace(configuration, model=model_of(0.0, tmp_path / "zero.keras"))
    run = detect(black, tmp_path / "run")
    assert all(not record.heatmap.any() for record in run.heatmaps())
    found = run.detections([0.5])[0, 0.5]
    sizes = {image.id: [0, 0, image.width, image.height] for image in run.ground_truth.images}
    assert found.boxes.tolist() == [sizes[int(each)] for each in found.image_ids]
    assert set(found.scores) == {0.0}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_refused(tiny_model: Path, value: float) -> None:
    cam = GradCAM(keras.models.load_model(tiny_model))
    images = np.zeros((3, 4, 4, 3), np.float32)
    images[1, 2, 2, 0] = value
    images[2, 0, 0, 0] = -value
    with pytest.raises(UserError, match=r"images must be finite. images\[1\] holds NaN or infin"):
        cam(images, classes=[0])
    with pytest.raises(UserError, match="images must be finite"):
        cam.predict(images)
    assert cam(np.full((1, 4, 4, 3), 3e38, np.float32), classes=[0]).heatmaps.shape == (1, 1, 2, 2)


@pytest.mark.parametrize(
    ("heatmap", "message"),
    [
        ([[np.nan, 1.0]], r"heatmap must be \[height, width\] of finite values"),
        ([[np.inf, 0.0]], r"heatmap must be \[height, width\] of finite values"),
        (np.zeros((0, 3)), r"heatmap must be \[height, width\] of finite values"),
        ([1.0, 2.0], r"size must be \(length,\) .* Received: \(4, 4\)"),  # a series
    ],
)
def test_heatmaps_that_are_none_are_refused(heatmap: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        normalize(heatmap, (4, 4))


def test_an_overlay_of_no_heat_is_the_photograph() -> None:
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    for heatmap in (np.zeros((2, 2)), np.full((2, 2), np.nan), normalize(np.ones((2, 2)), (4, 4))):
        np.testing.assert_array_equal(overlay(picture, heatmap), picture)
    assert overlay(picture, np.array([[np.inf, -np.inf]])).shape == (4, 4, 3)
    blank = single_threshold_boxes(np.full((4, 6), np.nan, np.float32), 0.5)
    assert blank.tolist() == [[0, 0, 6, 4]]


def test_a_run_over_a_cabinet_of_horrors(make_voc: Callable, tiny_model: Path, tmp_path) -> None:
    """All of the above in one folder: the run ends, and every file is accounted for."""
    folder = make_voc("horrors")
    for i, content in enumerate([c for c, _ in UNREADABLE.values()] + list(READABLE.values())):
        (folder.root / f"JPEGImages/p{i:02}.jpg").write_bytes(content)
        (folder.root / f"Annotations/p{i:02}.xml").write_text(
            DOG.format("", BOX.format(1, 1, 1, 1))
        )
    for i, (text, _) in enumerate(ANNOTATIONS.values()):
        (folder.root / f"JPEGImages/x{i:02}.jpg").write_bytes(JPEG)
        (folder.root / f"Annotations/x{i:02}.xml").write_bytes(
            text if isinstance(text, bytes) else text.encode()
        )
    configuration = Configuration(
        dataset=str(folder.root), classes=("dog=2",), model=str(tiny_model), thresholds=(0.5,)
    )
    run = detect(configuration, tmp_path / "run")
    counts = run.info.counts
    assert counts.images == len(READABLE)
    assert counts.skipped == len(UNREADABLE) + len(ANNOTATIONS)
    assert counts.images + counts.skipped == len(VocFolder(folder.root).image_ids("all"))


@pytest.mark.parametrize("backend", ["jax", "no such backend"])
def test_another_backend_of_keras_is_an_error_in_one_line(backend: str) -> None:
    """JAX is not installed here; where it is, the message names it in the same way."""
    command = [sys.executable, "-c", "from kgradcam.cli import main; main()", "env"]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("kgradcam: kgradcam needs the backend tensorflow of Keras.")
    assert (done.stderr.count("\n"), backend in done.stderr) == (1, True)
