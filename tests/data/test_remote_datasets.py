"""Datasets on an object store: each layout as on a disk, and a store that fails."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from helpers import TinyVoc
from object_store import Store

from kgradcam.data.dataset import Dataset
from kgradcam.data.sources import open_dataset, split_names
from kgradcam.errors import UserError
from kgradcam.storage import StorageError

NAMES = ("a.jpg", "b.png", "sub/c.jpg")


def pictures(folder: Path) -> None:
    for i, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (40 + i, 30), (80 * i, 9, 9)).save(folder / name)


def coco(root: Path) -> None:
    pictures(root / "images")
    images = [{"id": i, "file_name": name} for i, name in enumerate(NAMES)]
    annotations = [{"id": 1, "image_id": 2, "category_id": 3, "bbox": [4, 6, 16, 18]}]
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 3, "name": "dog"}]
    (root / "instances.json").write_text(json.dumps(content))


def yolo(root: Path) -> None:
    pictures(root / "images")
    (root / "labels/sub").mkdir(parents=True)
    (root / "labels/sub/c.txt").write_text("0 0.3 0.5 0.4 0.6")
    (root / "data.yaml").write_text("test: images\nnames: [cat, dog]\n")


def classes(root: Path) -> None:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            pictures(root / split / name)


def listed(root: Path) -> None:
    pictures(root / "here")
    (root / "list.txt").write_text("here/sub/c.jpg\nhere/none.jpg\nhere/a.jpg\n")


def seen(dataset: Dataset) -> Any:
    pixels = [batch.images.tolist() for batch in dataset.batches(dataset.examples, 2, 8)]
    examples = [
        (each.file_name, each.width, each.height, each.objects.classes, each.objects.boxes.tolist())
        for each in dataset.examples
    ]
    names = [name for name, _ in dataset.skipped]
    return dataset.description, dataset.class_names, examples, names, pixels, dataset.digest()


@pytest.mark.parametrize(
    ("make", "split", "name"),
    [
        (coco, None, ""),
        (coco, None, "/instances.json"),
        (yolo, "test", ""),
        (classes, "val", ""),
        (pictures, None, ""),
        (listed, None, "/list.txt"),
    ],
)
def test_a_layout_is_read_as_on_a_disk(
    make: Callable[[Path], None], split: str, name: str, store: Store, tmp_path: Path
) -> None:
    make(tmp_path)
    here = seen(open_dataset(f"{tmp_path}{name}", split))
    url = store.upload(tmp_path, "set")
    assert split_names(url + name) == split_names(f"{tmp_path}{name}")
    assert seen(open_dataset(f"{url}{name}", split)) == here
    assert len(here[2]) > 1


def test_voc(store: Store, pets: TinyVoc) -> None:
    url = store.upload(pets.root, "pets")
    assert seen(open_dataset(url)) == seen(open_dataset(str(pets.root)))
    assert len(open_dataset(url, "all").examples) == 5


def test_requests_that_fail_or_end_half_way_leave_no_image_out(
    store: Store, tmp_path: Path
) -> None:
    pictures(tmp_path)
    here = seen(open_dataset(str(tmp_path)))
    url = store.upload(tmp_path, "set")
    store.fails = lambda number: number % 4 == 1
    store.cuts = lambda number: number % 7 == 2
    assert seen(open_dataset(url)) == here


def test_images_elsewhere_on_the_store(store: Store, tmp_path: Path) -> None:
    coco(tmp_path / "set")
    images = store.upload(tmp_path / "set/images", "elsewhere")
    dataset = open_dataset(str(tmp_path / "set/instances.json"), images=Path(images))
    assert [str(each.path) for each in dataset.examples] == [f"{images}/{name}" for name in NAMES]


def test_an_image_that_is_gone_is_damaged_but_a_store_that_fails_ends_the_run(
    store: Store, tmp_path: Path
) -> None:
    pictures(tmp_path)
    url = store.upload(tmp_path, "set")
    dataset = open_dataset(url)
    dataset.examples[0].path.unlink()  # type: ignore[union-attr]
    batches = list(dataset.batches(dataset.examples, 2, 8))
    assert sum(len(batch.examples) for batch in batches) == len(NAMES) - 1
    ((example, _),) = batches[0].damaged
    assert example.file_name == "a.jpg"
    store.fails = lambda number: True
    with pytest.raises(StorageError, match="the store failed"):
        list(dataset.batches(dataset.examples, 2, 8))
    with pytest.raises(StorageError, match="the store failed"):
        open_dataset(url)


def test_a_place_that_is_not_there(store: Store) -> None:
    with pytest.raises(UserError, match="is neither a folder or file of images"):
        open_dataset(f"{store.url}/none")


def test_images_of_a_size_share_a_batch(store: Store, tmp_path: Path) -> None:
    pictures(tmp_path)
    dataset = open_dataset(store.upload(tmp_path, "set"))
    shapes = [batch.images.shape for batch in dataset.batches(dataset.examples, 4)]
    assert shapes == [(1, 30, 40 + i, 3) for i in range(3)]
    assert np.array([batch.images[0, 0, 0] for batch in dataset.batches(dataset.examples, 4)]).any()
