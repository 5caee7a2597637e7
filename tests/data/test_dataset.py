"""Datasets: folders and tensorflow-datasets, batches of equal shape, exact boxes."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kgradcam.data import dataset as datasets
from kgradcam.data import tfds_records as builders
from kgradcam.data.examples import Example
from kgradcam.data.images import read_image
from kgradcam.data.sources import open_dataset
from kgradcam.data.voc import parse_annotation
from kgradcam.data.voc_builder import prepare
from kgradcam.data.voc_folder import VocFolder
from kgradcam.errors import UserError
from kgradcam.training.batches import CachedFeatures, LabelledImages


def names(dataset: datasets.Dataset) -> list[str]:
    return [example.file_name for example in dataset.examples]


def test_a_folder_is_read_in_the_order_of_its_list(pets) -> None:
    pets.split("test", "c", "a", "d")
    dataset = open_dataset(str(pets.root))
    assert dataset.split == "test"
    assert dataset.class_names == ("cat", "dog")
    assert names(dataset) == ["c.jpg", "a.jpg", "d.jpg"]
    hard, plain, empty = dataset.examples
    assert (hard.width, hard.height) == (40, 30)
    assert hard.objects.difficult.tolist() == [True]
    assert plain.objects.names == ("dog",)
    assert plain.objects.boxes.tolist() == [[4, 6, 20, 24]]
    assert empty.objects.boxes.shape == (0, 4)


def test_a_folder_without_lists_is_read_whole(pets) -> None:
    (pets.root / "ImageSets" / "Main" / "test.txt").unlink()
    dataset = open_dataset(str(pets.root))
    assert dataset.split == "all"
    assert names(dataset) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"]


def test_batches_hold_images_of_one_shape_in_a_fixed_order(pets) -> None:
    dataset = open_dataset(str(pets.root), "all")
    batches = [
        ([example.file_name[0] for example in batch], images.shape)
        for batch, images, _ in dataset.batches(dataset.examples, batch_size=2)
    ]
    assert batches == [
        (["a", "c"], (2, 30, 40, 3)),
        (["d", "e"], (2, 30, 40, 3)),
        (["b"], (1, 40, 30, 3)),
    ]
    for batch, images, _ in dataset.batches(dataset.examples, batch_size=3):
        for example, image in zip(batch, images, strict=True):
            path = pets.root / "JPEGImages" / example.file_name
            np.testing.assert_array_equal(image, read_image(path))


def test_no_pipeline_is_tuned_while_it_runs(pets) -> None:
    """The end of an iterator would sometimes wait for the tuner, up to a minute."""
    dataset = open_dataset(str(pets.root))
    labels = np.zeros((4, 1))
    images = LabelledImages(dataset, dataset.examples, labels, lambda image: image, 8, 2)
    features = CachedFeatures(np.zeros((1, 4, 1, 1, 1)), np.zeros((1, 4, 1)), 2)
    for pipeline in (
        dataset.encoded(dataset.examples),
        images.batches(),
        features.batches(0),
        features.in_order(),
    ):
        assert pipeline.options().autotune.enabled is False


def test_the_bytes_of_files_are_read_only_to_be_decoded(pets) -> None:
    """Neither a group that waits for a full batch nor a shuffle buffer holds them."""
    dataset = open_dataset(str(pets.root), "all")
    chosen = [dataset.examples[4], dataset.examples[1]]
    assert list(dataset.encoded(chosen).as_numpy_iterator()) == [(1, b""), (4, b"")]


def test_resized_images_share_batches(pets) -> None:
    dataset = open_dataset(str(pets.root), "all")
    chosen = [dataset.examples[1], dataset.examples[4]]
    ((batch, images, _),) = dataset.batches(chosen, batch_size=16, size=24)
    assert [example.file_name for example in batch] == ["b.jpg", "e.jpg"]
    np.testing.assert_array_equal(images[0], read_image(pets.root / "JPEGImages/b.jpg", 24))


def test_unreadable_images_and_annotations_are_named_and_left_out(pets) -> None:
    (pets.root / "Annotations/a.xml").write_text("<annotation>")
    (pets.root / "JPEGImages/b.jpg").write_bytes(b"")
    (pets.root / "JPEGImages/d.jpg").unlink()
    whole = (pets.root / "JPEGImages/e.jpg").read_bytes()
    (pets.root / "JPEGImages/e.jpg").write_bytes(whole[:-60])
    dataset = open_dataset(str(pets.root), "all")
    assert names(dataset) == ["c.jpg", "e.jpg"]
    assert [name for name, _ in dataset.skipped] == ["a.jpg", "b.jpg", "d.jpg"]
    ((batch, images, damaged),) = dataset.batches(dataset.examples, batch_size=4)
    assert [example.file_name for example in batch] == ["c.jpg"]
    assert len(images) == 1
    ((example, reason),) = damaged
    assert example.file_name == "e.jpg"
    assert "does not decode" in reason
    assert dataset.left_out()[-1] == ("e.jpg", reason)


def test_large_images_share_batches_of_fewer(make_voc) -> None:
    folder = make_voc()
    for name in "abcde":
        folder.add(name, [("dog", (1, 1, 9, 9))], size=(1024, 512))
    dataset = open_dataset(str(folder.root))
    assert [len(batch.examples) for batch in dataset.batches(dataset.examples, 4)] == [2, 2, 1]
    assert [len(batch.examples) for batch in dataset.batches(dataset.examples, 4, 512)] == [4, 1]
    assert [len(batch.examples) for batch in dataset.batches(dataset.examples, 1)] == [1] * 5


def test_the_others_come_in_the_same_batches_when_whole_ones_are_done(make_voc) -> None:
    folder, generator = make_voc(), np.random.default_rng(3)
    sides = [(24, 16), (16, 24), (20, 20), (8, 40)]
    for i in range(40):
        folder.add(f"{i:02}", [("dog", (1, 1, 5, 5))], size=sides[generator.integers(4)])
    dataset = open_dataset(str(folder.root))

    def batches(waiting: list[Example]) -> list[list[int]]:
        return [[each.index for each in batch.examples] for batch in dataset.batches(waiting, 4)]

    all_at_once = batches(dataset.examples)
    assert len(all_at_once) >= 10
    for done in range(len(all_at_once)):
        seen = {index for batch in all_at_once[:done] for index in batch}
        waiting = [each for each in dataset.examples if each.index not in seen]
        assert batches(waiting) == all_at_once[done:]


def test_a_split_without_images_is_an_error(pets) -> None:
    pets.split("empty")
    with pytest.raises(UserError, match="split='empty' of .* has no usable image"):
        open_dataset(str(pets.root), "empty")


def test_unknown_datasets_get_a_hint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'vco/2007' is neither .* Did you mean 'voc/2007'"):
        open_dataset("vco/2007", data_dir=tmp_path)
    with pytest.raises(UserError, match="'voc/2009' is not in tensorflow-datasets, which has"):
        open_dataset("voc/2009", data_dir=tmp_path)


def test_without_network_the_error_offers_prepare_and_folders(tmp_path: Path, monkeypatch) -> None:
    def unreachable(*arguments: object, **options: object) -> None:
        raise OSError("name resolution failed")

    monkeypatch.setattr(builders.urllib.request, "urlopen", unreachable)
    with pytest.raises(
        UserError,
        match=r"mirror cannot be reached .*kgradcam prepare --devkit VOCdevkit --year 2012",
    ):
        open_dataset("voc/2012", data_dir=tmp_path)


@pytest.fixture
def devkit(make_voc: Callable, tmp_path: Path) -> Path:
    """A devkit of 2007 with sizes and integers that float32 fractions do not represent."""
    folder = make_voc("VOCdevkit/VOC2007")
    generator = np.random.default_rng(0)
    for i in range(12):
        width, height = (int(side) for side in generator.integers(101, 500, 2))
        objects = []
        for _ in range(4):
            (xmin, xmax), (ymin, ymax) = (
                sorted(map(int, generator.choice(side + 1, 2, replace=False)))
                for side in (width, height)
            )
            objects.append(("dog", (xmin, ymin, xmax, ymax)))
        folder.add(f"{i:06}", objects, size=(width, height), difficult=i == 3)
    folder.split("train", *(f"{i:06}" for i in range(8)))
    folder.split("test", *(f"{i:06}" for i in range(8, 12)))
    return tmp_path / "VOCdevkit"


def test_a_prepared_devkit_is_the_genuine_dataset(devkit: Path, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    path, counts, skipped = prepare(devkit, "2007", data_dir)
    assert path == data_dir / "voc" / "2007" / "5.0.0"
    assert (counts, skipped) == ({"train": 8, "test": 4}, [])
    folder = VocFolder(devkit / "VOC2007")
    for split in ("train", "test"):
        dataset = open_dataset("voc/2007", split, data_dir)
        assert sorted(names(dataset)) == [f"{each}.jpg" for each in folder.image_ids(split)]
        for example in dataset.examples:
            objects = parse_annotation(folder.annotation_path(Path(example.file_name).stem))
            assert example.objects.boxes.tolist() == objects.boxes.tolist()
            assert example.objects.names == objects.names
            assert example.objects.difficult.tolist() == objects.difficult.tolist()
            assert example.objects.truncated.tolist() == objects.truncated.tolist()
            assert example.objects.poses == objects.poses
    # tensorflow-datasets alone, in another process, without kgradcam.
    program = f"""
import tensorflow_datasets as tfds
for example in tfds.load("voc/2007", split="train", data_dir={str(data_dir)!r}, download=False):
    height, width = example["image"].shape[:2]
    ymin, xmin, ymax, xmax = (example["objects"]["bbox"].numpy().astype(float) *
                              [height, width, height, width]).T
    print(example["image/filename"].numpy().decode(), *xmin.round().astype(int),
          *example["objects"]["is_difficult"].numpy().astype(int),
          *example["objects"]["label"].numpy(), *example["labels_no_difficult"].numpy())
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    lines = sorted(result.stdout.splitlines())
    assert len(lines) == 8
    for line in lines:
        name, *values = line.split()
        objects = parse_annotation(folder.annotation_path(Path(name).stem))
        plain = [] if objects.difficult.all() else ["11"]
        expected = [f"{xmin + 1:.0f}" for xmin in objects.boxes[:, 0]]
        expected += [str(int(each)) for each in objects.difficult] + ["11"] * 4 + plain
        assert values == expected


def test_images_that_cannot_be_prepared_are_named(devkit: Path, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    annotation = devkit / "VOC2007/Annotations/000002.xml"
    annotation.write_text(annotation.read_text().replace("dog", "axolotl"))
    outside = devkit / "VOC2007/Annotations/000004.xml"
    outside.write_text(outside.read_text().replace("<xmax>", "<xmax>9"))
    with pytest.raises(UserError, match="--strict: 000004.jpg: .* leaves 000004.jpg"):
        prepare(devkit, "2007", data_dir, strict=True)
    assert not (data_dir / "voc" / "2007" / "5.0.0").exists()
    _, counts, skipped = prepare(devkit, "2007", data_dir)
    assert counts == {"train": 6, "test": 4}
    assert [name for name, _ in skipped] == ["000004.jpg", "000002.jpg"]
    assert "'axolotl' is not a class of VOC" in skipped[1][1]
    with pytest.raises(UserError, match="is already there"):
        prepare(devkit, "2007", data_dir)
    with pytest.raises(UserError, match="year='2010' is not one of 2007, 2012"):
        prepare(devkit, "2010", data_dir)
    with pytest.raises(UserError, match=r"No folder .*VOC2012"):
        prepare(devkit, "2012", data_dir)


def test_the_test_images_of_2012_have_no_annotation(make_voc: Callable, tmp_path: Path) -> None:
    folder = make_voc("VOCdevkit/VOC2012")
    folder.add("x", [("Dog", (1, 2, 20, 20))])
    folder.add("y")
    (folder.root / "Annotations/y.xml").unlink()
    folder.split("val", "x")
    folder.split("test", "y")
    _, counts, skipped = prepare(tmp_path / "VOCdevkit", "2012", tmp_path)
    assert (counts, skipped) == ({"validation": 1, "test": 1}, [])
    (annotated,) = open_dataset("voc/2012", "val", tmp_path).examples
    assert annotated.objects.names == ("dog",)
    assert annotated.objects.boxes.tolist() == [[1, 2, 20, 20]]
    (bare,) = open_dataset("voc/2012", "test", tmp_path).examples
    assert bare.objects.names == ()


def test_unknown_splits_of_voc_get_a_hint(devkit: Path, tmp_path: Path) -> None:
    prepare(devkit, "2007", tmp_path)
    with pytest.raises(UserError, match=r"'tset' is not a split of voc/2007. Did you mean 'test'"):
        open_dataset("voc/2007", "tset", tmp_path)
    with pytest.raises(UserError, match=r"'validation' is not a split .* It has: train, test"):
        open_dataset("voc/2007", "val", tmp_path)
    assert len(open_dataset("voc/2007", "train[:3]", tmp_path).examples) == 3


def test_real_annotations_survive_exactly(shared: Path) -> None:
    root = shared / "data/voc2007-sample/VOCdevkit/VOC2007"
    dataset = open_dataset(str(root), "test")
    assert (len(dataset.examples), dataset.skipped) == (103, [])
    folder = VocFolder(root)
    for example in dataset.examples:
        objects = parse_annotation(folder.annotation_path(Path(example.file_name).stem))
        assert example.objects.boxes.tolist() == objects.boxes.tolist()
