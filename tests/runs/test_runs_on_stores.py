"""Planned runs on an object store: the bytes of a local run, whatever the store does meanwhile."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import TinyVoc
from object_store import SECRETS, Store

from kgradcam.errors import UserError
from kgradcam.runs import run_writer
from kgradcam.runs.detection import detect
from kgradcam.runs.merging import merge
from kgradcam.runs.plan import read_plan
from kgradcam.runs.planning import make_plan
from kgradcam.runs.run import Run
from kgradcam.runs.shards import run_shard
from kgradcam.storage import place


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_writer, "PART", 1)


@pytest.fixture
def remote(configuration: Any, pets: TinyVoc, store: Store) -> Any:
    """The configuration of a run on the pets in the store."""
    return replace(configuration, dataset=store.upload(pets.root, "pets"))


def shards(folder: Path) -> None:
    for i in range(read_plan(folder).shards):
        run_shard(read_plan(folder), i)


@pytest.mark.parametrize(
    "fails",
    [
        lambda number: False,
        pytest.param(lambda number: number % 9 == 1, marks=pytest.mark.slow),  # waits repeatedly
    ],
)
def test_a_run_on_a_store_has_the_bytes_of_a_local_one(
    remote: Any, store: Store, tmp_path: Path, fails: Callable[[int], bool]
) -> None:
    local = detect(remote, tmp_path / "local")
    folder = Path(f"{store.url}/runs/pets")
    store.fails = fails
    plan = make_plan(remote, folder, 2)
    assert plan.parts > 2
    planned = store.files("runs/.pets.partial")
    assert planned.keys() >= {"plan.json", "plan.jsonl.gz", "start.json"}
    with pytest.raises(UserError, match=rf"--resume {store.url}/runs/pets --shard 1/2"):
        merge(folder)
    shards(folder)
    written = [each for each in store.requests if each.startswith("PUT")]
    shards(folder)
    assert [each for each in store.requests if each.startswith("PUT")] == written
    merged = merge(folder)
    assert store.files("runs/pets") == contents(local.folder)
    assert store.files("runs/.pets.partial") == {}
    assert [each.boxes.tolist() for each in merged] == [each.boxes.tolist() for each in local]
    assert str(merge(folder).folder) == f"{store.url}/runs/pets"  # once more changes nothing
    for content in (*planned.values(), *store.files("runs/pets").values()):
        assert not any(secret.encode() in content for secret in SECRETS)


def test_a_plan_reads_the_headers_of_pictures_and_a_shard_each_picture_once(
    configuration: Any, pets: TinyVoc, store: Store
) -> None:
    sizes = {}
    for path in sorted((pets.root / "JPEGImages").iterdir()):
        path.write_bytes(path.read_bytes() + bytes(200_000))  # what follows the image is ignored
        sizes[path.name] = path.stat().st_size
    remote = replace(configuration, dataset=store.upload(pets.root, "pets"))
    folder = Path(f"{store.url}/run")

    def read() -> dict[str, list[int]]:
        sent, store.sent[:] = list(store.sent), []
        found = [each for each in sent if each[0].startswith("GET") and each[0].endswith(".jpg")]
        return {
            name: [size for request, size in found if request.endswith(f"/{name}")]
            for name in sorted({request.rpartition("/")[2] for request, _ in found})
        }

    read()
    make_plan(remote, folder, 1)
    assert read() == {f"{name}.jpg": [2**16] for name in "abcde"}
    run_shard(read_plan(folder), 0)
    assert read() == {f"{name}.jpg": [sizes[f"{name}.jpg"]] for name in "abce"}  # no object on d


@pytest.mark.slow
def test_a_damaged_part_is_removed_from_the_store_and_named(remote: Any, store: Store) -> None:
    folder = Path(f"{store.url}/run")
    plan = make_plan(remote, folder, 2)
    shards(folder)
    place(plan.part_file(0, ".npz")).write_bytes(b"damaged")
    with pytest.raises(UserError, match=rf"(?s)are damaged.*--resume {store.url}/run --shard 1/2"):
        merge(folder)
    shards(folder)
    assert merge(folder).info.counts.images == 4


@pytest.mark.slow
def test_plans_and_runs_are_replaced_with_force_only(remote: Any, store: Store) -> None:
    folder = Path(f"{store.url}/run")
    make_plan(remote, folder, 1)
    with pytest.raises(UserError, match="is planned already"):
        make_plan(remote, folder, 1)
    make_plan(replace(remote, thresholds=(0.5,)), folder, 1, force=True)
    shards(folder)
    merge(folder)
    with pytest.raises(UserError, match="is already there"):
        make_plan(remote, folder, 1)
    make_plan(remote, folder, 1, force=True)
    assert Run(folder).thresholds == [0.5]  # until the new one is merged
    shards(folder)
    assert merge(folder).thresholds == [0.3, 0.5]
    assert sorted(name for name in store.files("run") if name.startswith("detections")) == [
        "detections-0.3.json",
        "detections-0.5.json",
    ]


def test_a_local_dataset_of_a_run_on_a_store(
    configuration: Any, pets: TinyVoc, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pets.root.parent)
    folder = Path(f"{store.url}/run")
    make_plan(replace(configuration, dataset="pets"), folder, 1)
    monkeypatch.chdir("/")
    shards(folder)
    assert merge(folder).info.dataset.folder == pets.root.as_posix()


def test_a_run_without_shards_and_a_bucket_are_refused(remote: Any, store: Store) -> None:
    with pytest.raises(UserError, match="--shards"):
        detect(remote, Path(f"{store.url}/run"))
    with pytest.raises(UserError, match="Give a folder in it"):
        make_plan(remote, Path(store.url), 1)
    assert store.files("run") == {}


def test_a_plan_names_the_dataset_by_its_url(remote: Any, store: Store) -> None:
    make_plan(remote, Path(f"{store.url}/run"), 1)
    start = json.loads(store.files(".run.partial")["start.json"])
    assert start["info"]["dataset"]["name"] == f"{store.url}/pets"
    assert start["info"]["dataset"]["folder"] is None
