"""Runs on an object store: read as local ones, by range and by copy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Result
from object_store import SECRETS, Store

from kgradcam.errors import UserError
from kgradcam.runs.run import Run
from kgradcam.storage import StorageError

Command = Callable[..., Result]


def test_a_run_on_a_store_is_the_local_one(run: Run, store: Store) -> None:
    remote = Run(store.upload(run.folder, "runs/pets"))
    assert remote.info == run.info
    assert [box.boxes.tolist() for box in remote] == [box.boxes.tolist() for box in run]
    for here, there in zip(run.heatmaps(), remote.heatmaps(), strict=True):
        np.testing.assert_array_equal(here.heatmap, there.heatmap)
    downloads = [each for each in store.requests if each.startswith("GET") and "npz" in each]
    assert len(downloads) == len(list((run.folder / "heatmaps").glob("*.npz")))


def test_evaluate_prints_the_same_for_both(run: Run, store: Store, kgradcam: Command) -> None:
    url = store.upload(run.folder, "run")
    store.fails = lambda number: number % 3 == 0
    here, there = (kgradcam("evaluate", each, "--json") for each in (run.folder, url))
    assert (here.code, there.code) == (0, 0)
    assert there.out == here.out != ""
    assert not any(secret in there.err + there.out for secret in SECRETS)


@pytest.mark.parametrize("url", ["s3://no-such-bucket/run", "{}/none"])
def test_a_run_that_is_not_there(url: str, store: Store, kgradcam: Command) -> None:
    url = url.format(store.url)
    found = kgradcam("evaluate", url)
    assert found.code == 1
    assert f"{url} is no run" in found.err


def test_a_run_with_a_damaged_or_missing_object(run: Run, store: Store) -> None:
    name = next((run.folder / "heatmaps").glob("*.npz"))
    name.write_bytes(name.read_bytes() + b"0")
    url = store.upload(run.folder, "run")
    with pytest.raises(UserError, match="has changed since the run was made"):
        list(Run(url).heatmaps())
    name.unlink()
    with pytest.raises(UserError, match="is not complete"):
        Run(store.upload(run.folder, "other"))


def test_a_store_that_fails_is_one_line(run: Run, store: Store, kgradcam: Command) -> None:
    url = store.upload(run.folder, "run")
    store.fails = lambda number: True
    found = kgradcam("evaluate", url)
    assert found.code == 1
    assert found.err.startswith(f"kgradcam: {url}")
    assert "Traceback" not in found.err
    with pytest.raises(StorageError):
        Run(url)


def test_pictures_are_written_to_local_paths(
    run: Run, store: Store, kgradcam: Command, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    for command in (["report", run.folder], ["evaluate", run.folder], ["visualize", run.folder]):
        found = kgradcam(*command, "--out", f"{store.url}/report.html")
        assert found.code == 1
        assert "must be a local path" in found.err, command
    assert sorted(tmp_path.iterdir()) == before
