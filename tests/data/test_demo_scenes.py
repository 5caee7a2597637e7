"""The demo dataset: reproducible, with exact boxes, in VOC layout."""

import functools
import operator
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from kgradcam.boxes.overlap import box_iou
from kgradcam.data.demo_scenes import SceneMaker, write_demo_dataset
from kgradcam.data.images import read_image
from kgradcam.data.voc import parse_annotation
from kgradcam.data.voc_folder import VocFolder
from kgradcam.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> VocFolder:
    root = tmp_path_factory.mktemp("data") / "demo"
    write_demo_dataset(root)
    return VocFolder(root)


def test_every_scene_is_in_one_split(folder: VocFolder) -> None:
    splits = {name: folder.image_ids(name) for name in ("train", "val", "test")}
    assert {name: len(ids) for name, ids in splits.items()} == {"train": 12, "val": 12, "test": 24}
    assert sorted(functools.reduce(operator.iadd, splits.values(), [])) == folder.image_ids("all")


def test_boxes_are_inside_large_and_apart(folder: VocFolder) -> None:
    counts, shapes, shares = [], set(), []
    for image_id in folder.image_ids("all"):
        height, width = read_image(folder.image_path(image_id)).shape[:2]
        objects = parse_annotation(folder.annotation_path(image_id))
        boxes = objects.boxes
        assert set(objects.names) == {"cat"}
        assert (boxes >= 0).all()
        assert (boxes <= [width, height, width, height]).all()
        sides = boxes[:, 2:] - boxes[:, :2]
        assert sides.min() >= 80
        assert box_iou(boxes, boxes)[~np.eye(len(boxes), dtype=bool)].sum() == 0
        counts.append(len(boxes))
        shapes.add((width, height))
        shares.extend(sides[:, 1] / height)
    assert shapes == {(500, 375), (375, 500), (448, 448), (480, 320)}
    assert {1, 2, 3} == set(counts)
    assert counts.count(1) >= 24
    assert min(shares) < 0.35
    assert max(shares) > 0.75


def test_the_same_seed_gives_the_same_bytes(folder: VocFolder, tmp_path: Path) -> None:
    write_demo_dataset(tmp_path / "again", scenes=48)
    write_demo_dataset(tmp_path / "other", seed=1, scenes=4)
    again, other = VocFolder(tmp_path / "again"), VocFolder(tmp_path / "other")
    for image_id in folder.image_ids("all"):
        for path in (VocFolder.image_path, VocFolder.annotation_path):
            assert path(folder, image_id).read_bytes() == path(again, image_id).read_bytes()
    first = other.image_path("000001").read_bytes()
    assert first != folder.image_path("000001").read_bytes()


def test_a_box_is_where_the_cat_is() -> None:
    """The same scene with and without its cat differs inside the box, up to its edges."""
    maker = SceneMaker()
    image, boxes = maker.compose(np.random.default_rng(7), cats=1)
    maker._cat = maker._cat * np.array([1, 1, 1, 0], np.float32)
    bare, none = maker.compose(np.random.default_rng(7), cats=1)
    assert len(none) == 1  # an empty mask still has its (empty) bounds
    changed = np.abs(image.astype(int) - bare).max(axis=2) > 3
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    around = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    np.testing.assert_allclose(boxes[0], around, atol=3)


@pytest.mark.parametrize("seed", range(4))
def test_a_box_holds_all_that_the_mask_covers_and_no_more(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks, place = [], SceneMaker._place_cat

    def watched(*arguments):
        pasted, alpha = place(*arguments)
        masks.append(alpha > 0.5)
        return pasted, alpha

    monkeypatch.setattr(SceneMaker, "_place_cat", watched)
    _, boxes = SceneMaker().compose(np.random.default_rng(seed), cats=1)
    rows, columns = np.nonzero(masks[0])
    bounds = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_array_equal(boxes, [bounds])


def test_cats_look_both_ways_tilt_a_little_and_differ_in_brightness() -> None:
    """Measured with a card, bright on its left and dark on its right, in place of the cat."""
    maker = SceneMaker()
    middle = maker._cat.shape[1] // 2
    maker._cat[:] = 255
    maker._cat[:, :middle, :3], maker._cat[:, middle:, :3] = 200, 50
    maker._backgrounds = [np.zeros((600, 600, 3), np.uint8)]
    across, brightness = [], []
    for seed in range(24):
        grey = maker.compose(np.random.default_rng(seed), cats=1)[0].mean(axis=2)
        bright, dark = grey > 120, (grey > 25) & (grey < 75)
        centers = [np.argwhere(part).mean(axis=0) for part in (bright, dark)]
        across.append(centers[1] - centers[0])
        brightness.append(np.median(grey[bright]) / 200)
    down, right = np.array(across).T
    tilts = np.abs(np.rad2deg(np.arctan(down / right)))
    assert 6 < (right > 0).sum() < 18
    assert 8 < tilts.max() < 16
    assert 0.74 < min(brightness) < 0.85
    assert 1.1 < max(brightness) < 1.21


def test_without_scikit_image_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(UserError, match=r"pip install 'kgradcam\[demo\]'"):
        write_demo_dataset(tmp_path / "demo")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_not_overwritten_and_a_failure_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    with pytest.raises(UserError, match="is already there"):
        write_demo_dataset(tmp_path / "demo")

    def fail(*arguments: object) -> None:
        raise RuntimeError("no more")

    monkeypatch.setattr(SceneMaker, "compose", fail)
    with pytest.raises(RuntimeError, match="no more"):
        write_demo_dataset(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_two_processes_write_one_dataset(
    folder: VocFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is the first to finish."""
    rename = Path.rename

    def after_the_other(path: Path, target: Path) -> Path:
        shutil.copytree(folder.root, target)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", after_the_other)
    write_demo_dataset(tmp_path / "demo")
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert len(VocFolder(tmp_path / "demo").image_ids("all")) == 48
