"""Inputs that would hang or fill the memory: pipes, devices, sparse files, hostile heatmaps."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kgradcam.boxes import levels
from kgradcam.boxes.find import find_boxes
from kgradcam.boxes.options import BoxOptions
from kgradcam.data.examples import files_digest
from kgradcam.data.images import image_size, read_image
from kgradcam.data.sources import open_dataset
from kgradcam.data.voc import parse_annotation
from kgradcam.data.voc_folder import VocFolder, read_folder
from kgradcam.errors import UserError
from kgradcam.evaluation.tuning import read_choice
from kgradcam.files import file_digest, open_regular, read_bytes, read_json
from kgradcam.runs.coco_files import read_ground_truth
from kgradcam.runs.heatmap_files import read_heatmaps

READERS: list[Callable[[Path], Any]] = [
    read_bytes,
    open_regular,
    file_digest,
    read_json,
    image_size,
    read_image,
    parse_annotation,
    read_ground_truth,
    read_choice,
    lambda path: list(read_heatmaps(path)),
]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
@pytest.mark.parametrize("read", READERS)
def test_pipes_devices_and_folders_are_refused_at_once(
    tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises(UserError, match=f"{path} is (not a regular file|a folder)"):
            read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_a_prepared_dataset_with_a_pipe_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "voc/2007/5.0.0"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "dataset_info.json")
    with pytest.raises(UserError, match="dataset_info.json is not a regular file"):
        open_dataset("voc/2007", "test", tmp_path)


def test_names_that_no_file_can_have() -> None:
    for name in ("a\0b", "\ud800"):
        with pytest.raises(UserError, match="is no possible path"):
            read_bytes(Path(name))


def test_a_sparse_picture_is_named_and_the_rest_is_read(pets) -> None:
    path = pets.root / "JPEGImages/a.jpg"
    with path.open("r+b") as file:
        file.truncate(40 * 10**9)  # takes no space
    examples, skipped = read_folder(VocFolder(pets.root), "all")
    assert [each.file_name for each in examples] == ["b.jpg", "c.jpg", "d.jpg", "e.jpg"]
    assert skipped == [
        ("a.jpg", f"{path} has 40,000,000,000 bytes, more than 1,073,741,824."),
    ]
    before = files_digest(examples)
    (pets.root / "JPEGImages/b.jpg").unlink()
    assert files_digest(examples) != before


def test_limits_hold_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "big.json"
    path.write_text("[1, 2]")
    assert read_json(path, 6) == [1, 2]
    with pytest.raises(UserError, match="big.json has 6 bytes, more than 5"):
        read_json(path, 5)


@pytest.mark.parametrize(("score", "largest"), [("density", 1), ("expected-iou", 1.5)])
def test_a_checkerboard_has_a_bounded_number_of_boxes(
    monkeypatch: pytest.MonkeyPatch, score: str, largest: float
) -> None:
    """8192 regions at each of 12 levels: without bounds 25 seconds."""
    calls = 0
    iou = levels.box_iou

    def counted(*boxes: Any) -> Any:
        nonlocal calls
        calls += 1
        assert len(boxes[1]) < 10_000
        return iou(*boxes)

    monkeypatch.setattr(levels, "box_iou", counted)
    heatmap = (np.indices((128, 128)).sum(axis=0) % 2).astype(np.float32)
    boxes, scores = find_boxes(heatmap, (128, 128), options=BoxOptions(score=score))
    assert (boxes.shape, scores.shape, calls) == ((1000, 4), (1000,), 1000)
    assert (boxes[:, 2:] - boxes[:, :2] <= largest).all()
    if score == "density":
        assert (boxes == boxes.round()).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radius": "5"}, "box options.radius must be int; it is '5'"),
        ({"threshold": "0.2"}, "box options.threshold must be float; it is '0.2'"),
        ({"threshold": float("nan")}, "box options.threshold must be float; it is nan"),
        ({"threshold": float("inf")}, "box options.threshold must be float; it is inf"),
        ({"threshold": 2}, "has no valid box options: BoxChoice"),
        ({"rows": []}, "box options.rows must be str"),
        ({"value": None}, "box options.value must be float"),
        ({"more": 1}, "box options has the unknown field 'more'"),
    ],
)
def test_box_options_are_checked_by_their_types(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    texts = ("rows", "metric", "protocol", "dataset", "split", "images")
    content: dict[str, Any] = dict.fromkeys(texts, "all")
    content |= {"boxes": "levels", "radius": 0, "threshold": 0.25, "value": 1}
    path = tmp_path / "options.json"
    path.write_text(json.dumps(content))
    assert read_choice(path).threshold == 0.25
    path.write_text(json.dumps(content | change))
    with pytest.raises(UserError, match=message):
        read_choice(path)
    for text in ("[" * 100_000, "9" * 5000, "[]", "1e400", "{"):
        path.write_text(text)
        with pytest.raises(UserError, match="options.json has no valid box options"):
            read_choice(path)


def test_config_files_are_checked(kgradcam, tmp_path: Path) -> None:
    path = tmp_path / "options.toml"
    path.write_text("seed = " + "[" * 100_000)
    result = kgradcam("detect", "--config", path, "--out", tmp_path / "run")
    assert (result.code, "options.toml is not valid TOML" in result.err) == (1, True)
    path.write_text("#" * (2**20 + 1))
    result = kgradcam("detect", "--config", path, "--out", tmp_path / "run")
    assert (result.code, "options.toml has 1,048,577 bytes" in result.err) == (1, True)
    result = kgradcam("detect", "--config", "/dev/zero", "--out", tmp_path / "run")
    assert (result.code, "/dev/zero is not a regular file" in result.err) == (1, True)
