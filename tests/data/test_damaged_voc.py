"""A prepared voc/2007 that was cut short or lost a file, and downloads that fail: one line each."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kgradcam.data import tfds_records
from kgradcam.data.sources import open_dataset
from kgradcam.data.voc_builder import prepare
from kgradcam.errors import UserError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from helpers import TinyVoc

    root = tmp_path_factory.mktemp("devkit")
    folder = TinyVoc(root / "VOC2007")
    for part in ("JPEGImages", "Annotations"):
        (folder.root / part).mkdir(parents=True)
    for name in ("a", "b", "c"):
        folder.add(name, [("dog", (4, 6, 20, 24))])
    folder.split("test", "a", "b", "c")
    data_dir = tmp_path_factory.mktemp("data")
    prepare(root, "2007", data_dir)
    return data_dir


def shard(folder: Path) -> Path:
    return next(folder.glob("*test.tfrecord*"))


def cut(folder: Path) -> None:
    shard(folder).write_bytes(shard(folder).read_bytes()[:1200])


def lose(folder: Path) -> None:
    shard(folder).unlink()


def empty(folder: Path) -> None:
    shard(folder).write_bytes(b"")


def flip(folder: Path) -> None:
    content = bytearray(shard(folder).read_bytes())
    content[300] ^= 255
    shard(folder).write_bytes(content)


def break_info(folder: Path) -> None:
    (folder / "dataset_info.json").write_text("{")


def empty_info(folder: Path) -> None:
    (folder / "dataset_info.json").write_text("{}")


def lose_info(folder: Path) -> None:
    (folder / "dataset_info.json").unlink()


@pytest.mark.parametrize("damage", [cut, lose, empty, flip, break_info, empty_info, lose_info])
def test_damage_is_named_with_the_folder_to_remove(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable
) -> None:
    shutil.copytree(prepared, tmp_path / "data")
    damage(tmp_path / "data/voc/2007/5.0.0")
    monkeypatch.setattr(
        tfds_records.urllib.request, "urlopen", lambda *given, **options: pytest.fail("a download")
    )
    with pytest.raises(UserError) as caught:
        open_dataset("voc/2007", "test", tmp_path / "data")
    message = str(caught.value)
    assert f"voc/2007 in {tmp_path}/data/voc/2007" in message
    assert "is damaged: " in message
    assert "Remove this folder to download it anew, or make it" in message
    assert len(message.splitlines()) == 1
    assert len(message) < 700


def test_the_whole_is_read(prepared: Path) -> None:
    assert len(open_dataset("voc/2007", "test", prepared).examples) == 3


def test_a_download_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(builder: object) -> None:
        raise ValueError("Artifact x.tar, downloaded to y, has wrong checksum:\n* Expected: 1")

    monkeypatch.setattr(tfds_records, "_require_mirror", lambda name: None)
    monkeypatch.setattr(tfds_records, "download_and_prepare", fail)
    with pytest.raises(
        UserError,
        match=r"voc/2007 cannot be downloaded and prepared: Artifact .* has wrong checksum:. "
        r"Remove .*/downloads and try again, or make it from an unpacked VOCdevkit",
    ):
        open_dataset("voc/2007", "test", tmp_path)
