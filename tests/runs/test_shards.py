"""A planned run: any shards in any order give the bytes of one process."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from kgradcam.data.batch_order import batch_order
from kgradcam.data.sources import open_dataset
from kgradcam.errors import UserError
from kgradcam.runs import merging, run_writer
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.detection import detect
from kgradcam.runs.merging import merge
from kgradcam.runs.partial_run import partial_folder
from kgradcam.runs.plan import Plan, read_plan
from kgradcam.runs.planning import make_plan
from kgradcam.runs.shards import ShardWorker, run_shard

SIZES = ((24, 16), (16, 24), (20, 20), (18, 14))
COUNT = 41


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_writer, "PART", 5)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Random pictures of four sizes, with one that has no header and one that ends early."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for i in range(COUNT):
        width, height = SIZES[generator.integers(len(SIZES))]
        pixels = generator.integers(0, 255, (height, width, 3), np.uint8)
        name = f"more/{i:02}.jpg" if i % 3 else f"{i:02}.jpg"
        PIL.Image.fromarray(pixels).save(folder / name)
    (folder / "03.jpg").write_bytes(b"no picture")
    whole = (folder / "06.jpg").read_bytes()
    (folder / "06.jpg").write_bytes(whole[: len(whole) * 3 // 4])
    return folder


@pytest.fixture
def options(pictures: Path, tiny_model: Path) -> Configuration:
    return Configuration(
        dataset=str(pictures),
        model=str(tiny_model),
        image_size=None,
        score_scales=(),
        refine=False,
        presence_threshold=0.3,
        thresholds=(0.3, 0.6),
        batch_size=4,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def compute(folder: Path, order: Callable[[range], Any] = reversed) -> Path:
    """Computes each shard by its own worker, in an order, and merges."""
    for index in order(range(read_plan(folder).shards)):
        run_shard(read_plan(folder), index)
    return merge(folder).folder


@pytest.mark.parametrize("size", [None, 16])
def test_shards_give_the_bytes_of_one_process(
    options: Configuration, size: int | None, tmp_path: Path
) -> None:
    options = replace(options, image_size=size)
    whole = files(detect(options, tmp_path / "whole").folder)
    plan = make_plan(options, tmp_path / "run", 3)
    assert (plan.images, len(plan.skipped), plan.ordered) == (COUNT - 1, 1, size is not None)
    assert [len(plan.part(i)) for i in range(plan.parts)] == np.diff(plan.starts).tolist()
    assert files(compute(tmp_path / "run")) == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "run", "whole"]
    info = json.loads(whole["run.json"])
    assert info["counts"]["images"] + info["counts"]["skipped"] == COUNT
    assert info["counts"]["skipped"] == 2
    assert len(info["files"]) == 3 + plan.parts  # no part is without a heatmap here


def test_annotated_classes_a_limit_and_rounded_heatmaps(
    configuration: Configuration, tmp_path: Path
) -> None:
    options = replace(configuration, limit=3, seed=5, heatmap_dtype="uint16")
    whole = files(detect(options, tmp_path / "whole").folder)
    make_plan(options, tmp_path / "run", 2)
    assert files(compute(tmp_path / "run")) == whole
    assert json.loads(whole["run.json"])["counts"]["objects"] > 0


def test_a_dataset_may_move_with_its_run(
    options: Configuration, pictures: Path, tmp_path: Path
) -> None:
    whole = files(detect(options, tmp_path / "whole").folder)
    make_plan(options, tmp_path / "run", 2)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("pictures", ".run.partial"):
        (tmp_path / name).rename(moved / name)
    assert files(compute(moved / "run")) == whole


def test_the_order_of_batches_is_that_of_the_dataset(pictures: Path) -> None:
    dataset = open_dataset(str(pictures))
    shapes = [(each.height, each.width) for each in dataset.examples]
    expected = list(batch_order(shapes, 4))
    batches = dataset.batches(dataset.examples, 4)
    found = [
        sorted(each.index for each in (*batch.examples, *(bad for bad, _ in batch.damaged)))
        for batch in batches
    ]
    assert found == expected
    assert sorted(map(len, expected))[-1] == 4


def test_missing_and_damaged_parts_are_named_with_their_commands(
    options: Configuration, tmp_path: Path
) -> None:
    plan = make_plan(replace(options, image_size=16), tmp_path / "run", 4)
    assert plan.parts == 5  # of 8 images each: a part ends with a batch
    run_shard(plan, 1)
    run_shard(plan, 3)
    with pytest.raises(UserError) as raised:
        merge(tmp_path / "run")
    assert str(raised.value).splitlines() == [
        f"2 of 5 parts of {tmp_path}/run are missing: 0, 2. Compute them, and merge again:",
        f"kgradcam detect --resume {tmp_path}/run --shard 1/4",
        f"kgradcam detect --resume {tmp_path}/run --shard 3/4",
    ]
    run_shard(plan, 0)
    run_shard(plan, 2)
    heatmaps = plan.part_file(2, ".npz")
    heatmaps.write_bytes(heatmaps.read_bytes()[:-1])
    with pytest.raises(UserError, match="1 of 5 parts .* are damaged, and removed: 2"):
        merge(tmp_path / "run")
    assert [run_shard(plan, i) for i in range(4)] == [0, 0, 1, 0]
    whole = detect(replace(options, image_size=16), tmp_path / "whole").folder
    assert files(merge(tmp_path / "run").folder) == files(whole)


def test_a_merge_may_be_killed_repeated_and_raced(
    options: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = files(detect(options, tmp_path / "whole").folder)
    plan = make_plan(options, tmp_path / "run", 1)
    worker = ShardWorker(plan)
    assert worker.run_parts(range(plan.parts)) == plan.parts

    def stopped(*_: Any) -> None:
        # While it merges, another merge is refused, and a worker may compute parts again.
        with pytest.raises(UserError, match="Another process is writing"):
            merge(tmp_path / "run")
        plan.part_file(0).unlink()
        assert worker.run_part(0)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(merging, "write_annotations", stopped)
        with pytest.raises(KeyboardInterrupt):
            merge(tmp_path / "run")
    assert files(merge(tmp_path / "run").folder) == whole
    lines: list[str] = []
    assert files(merge(tmp_path / "run", report=lines.append).folder) == whole
    assert lines == [f"{tmp_path}/run is merged already."]
    assert worker.run_part(0) is False  # a straggler: nothing is left to write to
    assert not partial_folder(tmp_path / "run").exists()


def test_a_stale_or_foreign_plan_is_refused(options: Configuration, tmp_path: Path) -> None:
    plan = make_plan(options, tmp_path / "run", 2)
    old = ShardWorker(plan)
    with pytest.raises(UserError, match="was interrupted. Resume it"):
        make_plan(options, tmp_path / "run", 2)
    new = make_plan(replace(options, batch_size=3), tmp_path / "run", 2, force=True)
    assert old.run_part(0)  # by a worker that still has the old plan
    assert new.digest != plan.digest
    assert new.done() == set()
    start = partial_folder(tmp_path / "run") / "start.json"
    start.write_text(start.read_text().replace('"batch_size": 3', '"batch_size": 2'))
    with pytest.raises(UserError, match="it belongs to another version of kgradcam, or to another"):
        read_plan(tmp_path / "run")


def test_workers_need_the_model_and_the_versions_of_the_plan(
    options: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(options, tmp_path / "run", 2)
    now = {**plan.info.versions, "keras": "0.0"}
    monkeypatch.setattr("kgradcam.runs.shards.versions", lambda: now)
    with pytest.raises(UserError, match=r'versions.keras: "3.* then, "0.0" now. Use the same'):
        run_shard(plan, 0)
    with pytest.raises(UserError, match="has 2 shards. Received: 2"):
        run_shard(plan, 2)


def test_a_full_disk_in_one_worker_harms_no_other(
    options: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = files(detect(options, tmp_path / "whole").folder)
    plan = make_plan(options, tmp_path / "run", 2)
    with monkeypatch.context() as patch:

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr("kgradcam.files.os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            run_shard(plan, 0)
    assert plan.done() == set()
    assert not list(plan.part_file(0).parent.iterdir())
    assert files(compute(tmp_path / "run")) == whole


def test_more_shards_than_parts_and_strict_runs(options: Configuration, tmp_path: Path) -> None:
    plan: Plan = make_plan(replace(options, image_size=16), tmp_path / "run", 12)
    shards = [plan.shard(i) for i in range(12)]
    assert [part for shard in shards for part in shard] == list(range(plan.parts))
    assert max(map(len, shards)) == 1
    with pytest.raises(UserError, match=r"--strict: 03.jpg"):
        make_plan(replace(options, strict=True), tmp_path / "strict", 2)
    assert not partial_folder(tmp_path / "strict").exists()
