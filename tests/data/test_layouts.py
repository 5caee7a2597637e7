"""Datasets in other layouts than VOC: the same boxes, recognized, and their bad inputs named."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
from helpers import TinyVoc

from kgradcam.data.sources import open_dataset, split_names
from kgradcam.errors import UsageError, UserError

BOX = [4.0, 6.0, 20.0, 24.0]


def picture(path: Path, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size, "gray").save(path)
    return path


def coco(folder: Path, **changes: Any) -> Path:
    """Two images, a dog on the first, and a COCO file in which parts can be replaced."""
    for name in ("a.jpg", "sub/a.jpg"):
        picture(folder / "images" / name)
    content = {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 40, "height": 30},
            {"id": 9, "file_name": "sub/a.jpg"},
        ],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [4, 6, 16, 18]}],
        "categories": [{"id": 3, "name": "dog"}, {"id": 5, "name": "cat"}],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content | changes))
    return path


def yolo(folder: Path, label: str = "1 0.3 0.5 0.4 0.6", extra: str = "") -> Path:
    picture(folder / "images" / "test" / "a.jpg")
    picture(folder / "images" / "test" / "b.jpg")
    (folder / "labels" / "test").mkdir(parents=True)
    (folder / "labels" / "test" / "a.txt").write_text(label)
    (folder / "data.yaml").write_text(f"test: images/test\nnames: [cat, dog]\n{extra}")
    return folder


@pytest.mark.parametrize("as_folder", [True, False])
def test_coco_json(tmp_path: Path, as_folder: bool) -> None:
    path = coco(tmp_path)
    dataset = open_dataset(str(tmp_path if as_folder else path))
    assert dataset.description == "COCO JSON"
    assert [each.file_name for each in dataset.examples] == ["a.jpg", "sub/a.jpg"]
    assert dataset.examples[0].objects.boxes.tolist() == [BOX]
    assert dataset.class_names == ("dog", "cat")
    assert len(dataset.examples[1].objects.names) == 0


def test_coco_labels_crowds_and_string_ids(tmp_path: Path) -> None:
    images = [{"id": "x", "file_name": "a.jpg"}, {"id": "07", "file_name": "sub/a.jpg"}]
    annotations = [
        {"image_id": "x", "category_id": 3},
        {"image_id": "07", "category_id": 5, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ]
    dataset = open_dataset(str(coco(tmp_path, images=images, annotations=annotations)))
    first, second = (each.objects for each in dataset.examples)
    assert (first.labels, first.names, first.classes) == (("dog",), (), {"dog"})
    assert (second.names, second.difficult.tolist()) == (("cat",), [True])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": [{"id": 7, "file_name": "a.jpg"}] * 2},
            r"\[1\].id must be an id of its",
        ),
        ({"categories": [{"id": 3}]}, "categories\\[0\\] has no 'name'"),
        ({"categories": [{"id": 3, "name": " "}]}, "must be the name of a class"),
        ({"annotations": [{"image_id": 8}]}, "must be the id of a listed image"),
        ({"images": 5}, "images must be a list"),
    ],
)
def test_a_coco_file_with_a_wrong_structure_is_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        open_dataset(str(coco(tmp_path, **changes)))


@pytest.mark.parametrize(
    ("bbox", "reason"),
    [
        ([4, 6, float("nan"), 8], "bbox must be"),
        ([4, 6, 0, 8], "has no area"),
        ([4, 6, 100, 8], "leaves the image, which is 40x30; --clip"),
        ("4 6 1 1", "bbox must be"),
    ],
)
def test_an_image_with_an_unusable_coco_box_is_left_out(
    tmp_path: Path, bbox: Any, reason: str
) -> None:
    annotations = [{"id": 1, "image_id": 7, "category_id": 3, "bbox": bbox}]
    dataset = open_dataset(str(coco(tmp_path, annotations=annotations)))
    ((name, why),) = dataset.skipped
    assert name == "a.jpg"
    assert reason in why


def test_clip_drops_and_clips_boxes(tmp_path: Path) -> None:
    annotations = [
        {"image_id": 7, "category_id": 3, "bbox": [30, 6, 100, 8]},
        {"image_id": 7, "category_id": 3, "bbox": [4, 6, 0, 8]},
    ]
    dataset = open_dataset(str(coco(tmp_path, annotations=annotations)), clip=True)
    assert dataset.examples[0].objects.boxes.tolist() == [[30, 6, 40, 14]]


def test_missing_images_of_coco_are_named_and_their_folder_can_be_given(tmp_path: Path) -> None:
    path = coco(tmp_path / "set")
    (tmp_path / "set" / "images" / "a.jpg").unlink()
    ((name, reason),) = open_dataset(str(path)).skipped
    assert name == "a.jpg"  # sub/a.jpg is another image, although its name ends so
    assert "No image" in reason
    (tmp_path / "set" / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="--images DIR"):
        open_dataset(str(path))
    assert open_dataset(str(path), images=tmp_path / "elsewhere").examples


def test_a_coco_name_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    picture(tmp_path / "secret.jpg")
    images = [{"id": 7, "file_name": "../../secret.jpg"}, {"id": 9, "file_name": "sub/a.jpg"}]
    dataset = open_dataset(str(coco(tmp_path / "set", images=images)))
    assert [name for name, _ in dataset.skipped] == ["../../secret.jpg"]


def test_yolo(tmp_path: Path) -> None:
    dataset = open_dataset(str(yolo(tmp_path)))
    assert (dataset.description, dataset.split) == ("YOLO", "test")
    assert dataset.class_names == ("cat", "dog")
    np.testing.assert_allclose(dataset.examples[0].objects.boxes, [[4, 6, 20, 24]], atol=1e-9)
    assert len(dataset.examples[1].objects.names) == 0  # without a label file


def test_yolo_polygons_and_classes_txt(tmp_path: Path) -> None:
    yolo(tmp_path, "0 0.1 0.2 0.5 0.2 0.5 0.8")
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    dataset = open_dataset(str(tmp_path))
    np.testing.assert_allclose(dataset.examples[0].objects.boxes, [[4, 6, 20, 24]], atol=1e-9)


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("2 0.3 0.5 0.4 0.6", "class 2 is not one of 0 to 1"),
        ("1 0.9 0.5 0.4 0.6", "leaves the image"),
        ("1 0.3 0.5 0 0.6", "has no area"),
        ("1 nan 0.5 0.4 0.6", "is not finite"),
        ("1 20 30 5 8", "fractions"),
        ("dog 0.3 0.5 0.4 0.6", "CLASS X Y WIDTH HEIGHT"),
        ("1 0.3 0.5", "CLASS X Y WIDTH HEIGHT"),
    ],
)
def test_a_bad_yolo_label_is_named(tmp_path: Path, label: str, reason: str) -> None:
    ((name, why),) = open_dataset(str(yolo(tmp_path, label))).skipped
    assert name == "a.jpg"
    assert reason in why


@pytest.mark.parametrize("text", ["[", "names: []\n", "test: images/test\n", "names: {1: cat}\n"])
def test_a_bad_data_yaml_is_one_line(tmp_path: Path, text: str) -> None:
    (yolo(tmp_path) / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=r"data\.yaml"):
        open_dataset(str(tmp_path))


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    for name in ("dog/a.jpg", "dog/b.jpg", "cat/a.jpg"):
        picture(tmp_path / name)
    dataset = open_dataset(str(tmp_path))
    assert dataset.description == "a folder for each class"
    found = [(each.file_name, each.objects.labels) for each in dataset.examples]
    assert found == [("cat/a.jpg", ("cat",)), ("dog/a.jpg", ("dog",)), ("dog/b.jpg", ("dog",))]
    plain = open_dataset(str(tmp_path), layout="images")
    assert not plain.annotated
    assert len(plain.examples) == 3


def test_folders_for_each_class_in_splits(tmp_path: Path) -> None:
    for name in ("train/dog/a.jpg", "train/cat/a.jpg", "val/dog/a.jpg", "val/cat/a.jpg"):
        picture(tmp_path / name)
    assert split_names(str(tmp_path)) == ("train", "val")
    dataset = open_dataset(str(tmp_path), "validation")
    assert [each.file_name for each in dataset.examples] == ["val/cat/a.jpg", "val/dog/a.jpg"]
    with pytest.raises(UserError, match="needs one of its splits: train, val"):
        open_dataset(str(tmp_path))


def test_a_plain_folder_and_a_list(tmp_path: Path) -> None:
    for name in ("b.png", "day 1/a.jpg", "day 1/b.jpg", ".cache/c.jpg"):
        picture(tmp_path / "set" / name)
    (tmp_path / "set" / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "set" / "notes.txt").write_text("no image")
    dataset = open_dataset(str(tmp_path / "set"))
    assert not dataset.annotated
    names = [each.file_name for each in dataset.examples]
    assert names == ["b.png", "day 1/a.jpg", "day 1/b.jpg"]
    assert [name for name, _ in dataset.skipped] == ["broken.jpg"]
    (tmp_path / "list.txt").write_text("set/day 1/b.jpg\nset/missing.jpg\nset/b.png\n")
    listed = open_dataset(str(tmp_path / "list.txt"))
    assert [each.file_name for each in listed.examples] == ["set/day 1/b.jpg", "set/b.png"]
    assert [name for name, _ in listed.skipped] == ["set/missing.jpg"]


def test_unknown_layouts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'yolo'"):
        open_dataset(str(tmp_path), layout="yollo")
    with pytest.raises(UserError, match="needs JPEGImages/"):
        open_dataset(str(tmp_path))
    with pytest.raises(UserError, match="is not COCO JSON"):
        open_dataset(str(picture(tmp_path / "a.jpg").parent), layout="coco")


def test_a_voc_folder_read_as_other_layouts_has_its_images(pets: TinyVoc) -> None:
    plain = open_dataset(str(pets.root), layout="images")
    assert [each.file_name for each in plain.examples] == [f"JPEGImages/{c}.jpg" for c in "abcde"]
    root = pets.root.parent / "classes"
    for name in ("dog", "cat"):
        shutil.copytree(pets.root / "JPEGImages", root / name)
    assert open_dataset(str(root)).class_names == ("cat", "dog")


def builder(features: dict[str, Any], record: dict[str, Any], tmp_path: Path) -> str:
    """Prepares a dataset of one record, as tensorflow-datasets would after its download."""
    image = picture(tmp_path / "x.png")

    class Fake(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        MANUAL_DOWNLOAD_INSTRUCTIONS = None

        def _info(self):
            all_features = {"image": tfds.features.Image(), **features}
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(all_features))

        def _split_generators(self, dl_manager):
            return {"test": iter([("0", {"image": image, **record})])}

        def _generate_examples(self):
            yield from ()

    fake = type(f"Fake{'_'.join(features)}", (Fake,), {"__module__": __name__})
    fake(data_dir=tmp_path / "data").download_and_prepare()
    return str(fake.name)


LABELS = tfds.features.ClassLabel(names=["cat", "dog"])
BBOX = tfds.features.BBox(ymin=0.2, xmin=0.1, ymax=0.8, xmax=0.5)


@pytest.mark.parametrize(
    ("features", "record", "expected"),
    [
        (
            {"objects": tfds.features.Sequence(
                {"bbox": tfds.features.BBoxFeature(), "label": LABELS, "is_crowd": np.bool_})},
            {"objects": [{"bbox": BBOX, "label": "dog", "is_crowd": True}]},
            (("dog",), [BOX], ()),
        ),
        (
            {"faces": tfds.features.Sequence({"bbox": tfds.features.BBoxFeature()})},
            {"faces": [{"bbox": BBOX}]},
            (("face",), [BOX], ()),
        ),
        (
            {"bbox": tfds.features.BBoxFeature(), "label": LABELS},
            {"bbox": BBOX, "label": "dog"},
            (("dog",), [BOX], ()),
        ),
        ({"label": LABELS}, {"label": "cat"}, ((), [], ("cat",))),
    ],
)  # fmt: skip
def test_datasets_of_tensorflow_datasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, features: Any, record: Any, expected: Any
) -> None:
    name = builder(features, record, tmp_path)
    (example,) = open_dataset(name, "test", tmp_path / "data").examples
    objects = example.objects
    assert (objects.names, objects.boxes.tolist(), objects.labels) == expected
    assert example.file_name == "test-000000.jpg"
