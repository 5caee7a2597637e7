"""Interrupted runs: stopped at every step, and resumed to the same bytes."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from helpers import made_up_info

from kgradcam.boxes.options import BoxOptions
from kgradcam.errors import UserError
from kgradcam.runs import detection, run_writer
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.detection import detect
from kgradcam.runs.drawn_boxes import draw_boxes
from kgradcam.runs.heatmap_files import ClassHeatmap
from kgradcam.runs.partial_run import interrupted_configuration, is_interrupted, read_start
from kgradcam.runs.run import Run
from kgradcam.runs.run_info import Counts, SkippedImage
from kgradcam.runs.run_writer import RunWriter, write_run
from kgradcam.runs.tables import GroundTruth, Image
from kgradcam.runs.unfinished_part import BatchResult, read_pieces, write_piece

INFO = made_up_info(batch_size=2)
IMAGES = [Image(i, f"{i}.jpg", 40, 30) for i in range(1, 10)]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def write_batches(writer: RunWriter, count: int = 9) -> None:
    """Like `detect`, with random heatmaps; image 4 is damaged."""
    writer.begin(INFO)
    known = writer.done | set(writer.skipped)
    waiting = [image for image in IMAGES if image.id not in known]
    for start in range(0, len(waiting), 2)[:count]:
        batch = waiting[start : start + 2]
        good = [image for image in batch if image.id != 4]
        records = [
            ClassHeatmap(
                image.id,
                category,
                np.random.default_rng([image.id, category]).random((6, 8), np.float32),
                1.5,
                0.25,
            )
            for image in good
            for category in range(1, 1 + image.id % 3)  # every third image has none
        ]
        writer.add(good, records, {4: "It is damaged."} if len(good) < len(batch) else {})


def write_rest(writer: RunWriter) -> Run:
    write_batches(writer)
    writer.end_parts()
    truth = GroundTruth(
        tuple(image for image in IMAGES if image.id in writer.done),
        ("cat", "dog"),
        np.array([1, 2]),
        np.array([1, 2]),
        np.array([[1.0, 2, 30, 20], [0, 0, 40, 30]]),
        np.array([False, True]),
    )
    counts = Counts(len(writer.done), writer.heatmaps, len(truth.boxes), len(writer.skipped))
    skipped = [SkippedImage(f"{i}.jpg", reason) for i, reason in writer.skipped.items()]
    return writer.finish(replace(INFO, counts=counts, skipped=tuple(skipped)), truth)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_writer, "PART", 3)


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """The files of a run without interruption."""
    with write_run(tmp_path / "whole") as writer:
        run = write_rest(writer)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole"]
    found = files(run.folder)
    assert sorted(found) == [
        "detections-0.3.json",
        "detections-0.6.json",
        "ground_truth.json",
        "heatmaps/00000.npz",
        "heatmaps/00001.npz",
        "run.json",
    ]
    shutil.rmtree(run.folder)
    return found


def test_parts_add_up_to_the_boxes_of_the_whole(tmp_path: Path) -> None:
    with write_run(tmp_path / "run") as writer:
        run = write_rest(writer)
    assert run.info.counts == Counts(images=8, heatmaps=8, objects=2, skipped=1)
    assert run.info.skipped == (SkippedImage("4.jpg", "It is damaged."),)
    assert [record.image_id for record in run.heatmaps()] == [1, 2, 2, 5, 5, 7, 8, 8]
    stored = run.detections([0.3, 0.6])
    drawn = draw_boxes(run.heatmaps(), run.ground_truth.images, [0.3, 0.6], [0], run.options)
    for option in ((0, 0.3), (0, 0.6)):
        assert len(drawn[option].boxes) > 8
        for name, values in vars(drawn[option]).items():
            np.testing.assert_array_equal(getattr(stored[option], name), values, err_msg=name)


def test_a_kill_at_any_step_ends_in_the_same_bytes(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is copied before and after each rename, mkdir and rmtree; each copy is resumed."""
    place, states = tmp_path / "place", tmp_path / "states"
    place.mkdir()
    states.mkdir()
    lock = threading.Lock()

    def keep() -> None:
        with lock:
            shutil.copytree(place, states / f"{len(list(states.iterdir())):03}")

    def stepwise(owner: Any, name: str) -> None:
        step = getattr(owner, name)

        def kept(*arguments: Any, **options: Any) -> Any:
            keep()
            result = step(*arguments, **options)
            keep()
            return result

        monkeypatch.setattr(owner, name, kept)

    for owner, name in [(os, "replace"), (Path, "rename"), (Path, "mkdir"), (shutil, "rmtree")]:
        stepwise(owner, name)
    with write_run(place / "run") as writer:
        write_rest(writer)
    monkeypatch.undo()
    monkeypatch.setattr(run_writer, "PART", 3)
    assert files(place / "run") == whole
    found = sorted(states.iterdir())
    assert len(found) >= 30
    resumed = finished = 0
    for state in found:
        folder = state / "run"
        if (folder / "run.json").exists():
            finished += 1
            with pytest.raises(UserError, match="no interrupted run .* It is finished."):
                read_start(folder)
            assert files(folder) == whole
            continue
        begun = (state / ".run.partial/run/heatmaps").exists() and (
            state / ".run.partial/start.json"
        ).exists()
        resumed += begun
        with write_run(folder, resume=begun) as writer:
            write_rest(writer)
        assert files(folder) == whole, state.name
        assert [path.name for path in state.iterdir()] == ["run"]
    assert resumed >= 20
    assert finished >= 1


@pytest.mark.parametrize("kills", [1, 2, 3])
def test_a_slow_run_that_is_killed_loses_no_saved_batch(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    """Each batch is saved, as if it took half a minute; the folder of each moment is resumed."""
    monkeypatch.setattr(run_writer, "SAVE_SECONDS", 0)
    monkeypatch.setattr(run_writer, "PART", 5)
    folder, kept = tmp_path / "run", tmp_path / "kept"
    with write_run(tmp_path / "without") as writer:
        expected = files(write_rest(writer).folder)
    for batches in range(1, 5):
        for kill in range(kills):
            with write_run(folder, resume=kill > 0) as writer:
                write_batches(writer, batches)
                before = writer.done | set(writer.skipped)
                while writer._writing and not writer._writing.done():
                    time.sleep(0.001)
                shutil.copytree(tmp_path / ".run.partial", kept)  # a kill keeps what is there now
            shutil.rmtree(tmp_path / ".run.partial")
            kept.rename(tmp_path / ".run.partial")
            with write_run(folder, resume=True) as writer:
                writer.begin(INFO)
                assert len(writer.done | set(writer.skipped)) == min(9, 2 * batches * (kill + 1))
                assert before <= writer.done | set(writer.skipped)
        with write_run(folder, resume=True) as writer:
            assert files(write_rest(writer).folder) == expected
        shutil.rmtree(folder)


def test_heatmaps_are_saved_to_the_last_bit(tmp_path: Path) -> None:
    heatmap = np.array([[-0.0, 0.0, 1e-45, -3.4e38]], np.float32)
    result = BatchResult(IMAGES[:1], [ClassHeatmap(1, 2, heatmap, -0.5, 1.0)], {2: "No."})
    write_piece(tmp_path, 3, 0, result)
    ((part, read),) = read_pieces(tmp_path)
    assert part == 3
    assert (read.images, read.skipped) == (IMAGES[:1], {2: "No."})
    assert read.heatmaps[0].heatmap.tobytes() == heatmap.tobytes()
    assert vars(read.heatmaps[0]) | {"heatmap": 0} == vars(result.heatmaps[0]) | {"heatmap": 0}


@pytest.mark.parametrize("write", range(1, 13))
def test_a_full_disk_costs_a_part_at_most(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    count = 0

    def fill(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count >= write:
            raise OSError(28, "No space left on device")

    def run(resume: bool) -> None:
        with write_run(tmp_path / "run", resume=resume) as writer:
            write_rest(writer)

    with monkeypatch.context() as full:
        full.setattr("kgradcam.files.os.fsync", fill)
        with pytest.raises(OSError, match="No space left on device"):
            run(resume=False)
    assert not (tmp_path / "run").exists()
    resume = is_interrupted(tmp_path / "run")
    assert resume == (write >= 6)  # fsyncs of file and folder, for: start, heatmaps, part
    run(resume)
    assert files(tmp_path / "run") == whole


def interrupt(folder: Path, force: bool = False, batches: int = 2) -> None:
    """Leaves an interrupted run with one finished part."""
    with write_run(folder, force=force) as writer:
        write_batches(writer, batches)
    assert is_interrupted(folder)


def test_an_interrupted_run_is_neither_lost_nor_mixed_with_another(
    whole: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    interrupt(folder)
    with pytest.raises(UserError, match=r"was interrupted. Resume it with `kgradcam detect"):
        write_run(folder).__enter__()
    assert is_interrupted(folder)
    with write_run(folder, resume=True) as writer:
        assert files(write_rest(writer).folder) == whole
    interrupt(folder, force=True)
    with write_run(folder, force=True) as writer:
        writer.begin(INFO)
        assert writer.done == set()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # the last run finished no part


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    interrupt(folder)
    with write_run(folder, resume=True) as writer:
        writer.begin(INFO)
        for options in ({}, {"force": True}, {"resume": True}):
            with pytest.raises(UserError, match=r"Another process is writing .*run; choose"):
                write_run(folder, **options).__enter__()
        assert writer.done == {1, 2, 3}
        assert writer.skipped == {4: "It is damaged."}


def test_a_run_is_not_resumed_with_other_options(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    interrupt(folder)
    other = made_up_info(thresholds=[0.3], batch_size=3)
    with (
        pytest.raises(
            UserError,
            match=r"configuration.batch_size: 2 then, 3 now; "
            r"configuration.thresholds: \[0.3, 0.6\] then, \[0.3\] now",
        ),
        write_run(folder, resume=True) as writer,
    ):
        writer.begin(other)
    assert is_interrupted(folder)


def test_a_run_that_replaces_another_leaves_it_until_the_end(
    whole: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    interrupt(folder, force=True)
    assert files(folder) == {"run.json": b"{}"}
    with write_run(folder, resume=True) as writer:
        write_rest(writer)
    assert files(folder) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_that_appeared_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    interrupt(folder)
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    with (
        pytest.raises(UserError, match="is already there"),
        write_run(folder, resume=True) as writer,
    ):
        write_rest(writer)
    assert files(folder) == {"run.json": b"{}"}
    assert is_interrupted(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("start.json", "{"),
        ("start.json", "[]"),
        ("parts/00000.json", "7"),
        ("parts/00000.json", "{"),
        ("pieces/00001-00000.json", "{"),
        ("pieces/00001-00000.json", '{"images": [[1]], "heatmaps": 0, "skipped": []}'),
    ],
)
def test_damaged_files_of_a_partial_run_are_named(tmp_path: Path, name: str, content: str) -> None:
    interrupt(tmp_path / "run")
    (tmp_path / ".run.partial" / name).write_text(content)
    with (
        pytest.raises(UserError, match=f"{name} is no (start|part|piece|readable JSON)"),
        write_run(tmp_path / "run", resume=True) as writer,
    ):
        writer.begin(INFO)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("run/heatmaps/00000.npz", lambda data: data[:-1] + b"?"),
        ("run/heatmaps/00000.npz", None),
        ("parts/00000.json", lambda data: data.replace(b'"images": [1,', b'"images": [9,')),
        ("parts/00000.json", lambda data: data.replace(b"[[1.0, 1.0,", b"[[1.0, 2.0,")),
        ("pieces/00001-00000.npz", lambda data: data[:-1] + b"?"),
        ("pieces/00001-00000.npz", None),
        ("pieces/00001-00000.json", lambda data: data.replace(b"5.jpg", b"6.jpg")),
    ],
)
def test_finished_results_are_compared_with_their_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: Any
) -> None:
    monkeypatch.setattr(run_writer, "PART", 4)
    interrupt(tmp_path / "run", batches=3)
    path = tmp_path / ".run.partial" / name
    before = path.read_bytes()
    if damage:
        path.write_bytes(damage(before))
        assert path.read_bytes() != before
    else:
        path.unlink()
    with (
        pytest.raises(UserError, match=r"0000\d(-00000)?.json.* damaged"),
        write_run(tmp_path / "run", resume=True) as writer,
    ):
        writer.begin(INFO)
    if damage is None:
        path.write_bytes(before)
        with write_run(tmp_path / "run", resume=True) as writer:
            writer.begin(INFO)
            assert {1, 2, 3} <= writer.done


@pytest.fixture
def configuration(configuration: Configuration) -> Configuration:
    return replace(configuration, boxes=BoxOptions(), batch_size=1)


@pytest.fixture
def stopped(
    configuration: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A run interrupted after the third of four images; its parts have three."""
    add, added = RunWriter.add, []

    def stop(writer: RunWriter, *arguments: Any) -> None:
        add(writer, *arguments)
        added.append(arguments)
        if len(added) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr(RunWriter, "add", stop)
        with pytest.raises(KeyboardInterrupt):
            detect(configuration, tmp_path / "run")
    return tmp_path / "run"


def test_detect_resumes_after_the_last_batch(
    configuration: Configuration, stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    explain = detection.explain_batch

    def watched(cam: Any, batch: Any, *others: Any) -> Any:
        seen.extend(example.file_name for example in batch.examples)
        return explain(cam, batch, *others)

    monkeypatch.setattr(detection, "explain_batch", watched)
    assert interrupted_configuration(stopped) == (configuration, None, None)
    detect(configuration, stopped, resume=True)
    assert seen == ["e.jpg"]
    detect(configuration, tmp_path / "whole")
    assert files(stopped) == files(tmp_path / "whole")


def test_detect_resumes_with_equal_inputs_only(
    configuration: Configuration, stopped: Path, pets, tiny_model: Path
) -> None:
    def refused(**changes: Any) -> str:
        with pytest.raises(UserError, match="was begun with other options") as error:
            detect(replace(configuration, **changes), stopped, resume=True)
        return str(error.value)

    assert "configuration.batch_size: 1 then, 2 now" in refused(batch_size=2)
    assert "configuration.thresholds: [0.3, 0.5] then, [0.3] now" in refused(thresholds=(0.3,))
    path = pets.root / "Annotations/d.xml"
    kept = path.read_bytes()
    path.write_text(path.read_text().replace("d.jpg", "other.jpg"))  # an ignored field
    pets.add("f", [("dog", (1, 1, 9, 9))])
    assert "dataset.digest" in (told := refused())
    assert "dataset.images: 5 then, 6 now" in told
    for name in ("Annotations/f.xml", "JPEGImages/f.jpg"):
        (pets.root / name).unlink()
    path.write_bytes(kept)
    picture = pets.root / "JPEGImages/a.jpg"
    shown = picture.read_bytes()
    picture.write_bytes(shown + b"?")
    assert re.search(r"dataset.files: \"[0-9a-f]{16}\" then, \"[0-9a-f]{16}\" now", refused())
    picture.write_bytes(shown)
    import keras

    model_bytes = tiny_model.read_bytes()
    model = keras.models.load_model(tiny_model)
    model.layers[-1].activation = keras.activations.tanh
    model.save(tiny_model)
    told = refused()  # other values from the same weights
    assert "model.architecture" in told
    assert "model.digest" not in told
    tiny_model.write_bytes(model_bytes)
    model = keras.models.load_model(tiny_model)
    model.layers[-1].kernel.assign(2 * model.layers[-1].kernel)
    model.save(tiny_model)
    assert "model.digest" in refused()
    tiny_model.write_bytes(model_bytes)


COMMAND = "import sys\nfrom kgradcam.runs import run_writer\nrun_writer.PART = 16\n"
COMMAND += "from kgradcam.cli import main\nmain()"


@pytest.mark.slow
def test_a_process_that_is_killed_again_and_again_ends_in_the_same_bytes(
    make_voc, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times by default; `KGRADCAM_KILLS=100` makes it a hundred. Two runs go on side by side.

    SIGKILL comes at any moment of the process, Ctrl-C and SIGTERM soon after a part was written:
    before Python has come to the program they are not ours to catch.
    """
    folder = make_voc("many")
    draw = random.Random(int(os.environ.get("KGRADCAM_SEED", "0")))
    for i in range(240):
        folder.add(f"{i:04}", [("dog", (2, 2, 9, 9))], size=draw.choice([(40, 30), (30, 40)]))
    options = ["--dataset", str(folder.root), "--class", "dog=2", "--model", str(tiny_model)]
    options += ["--image-size", "native", "--scale", "1", "--batch-size", "4"]

    def start(*arguments: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, "detect", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Tests in the background inherit an ignored SIGINT, which this process must not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def finish(process: subprocess.Popen[str]) -> None:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said

    beside = start(*options, "--out", tmp_path / "beside")
    begin = time.monotonic()
    finish(start(*options, "--out", tmp_path / "whole"))
    duration = time.monotonic() - begin
    finish(beside)
    assert files(tmp_path / "beside") == files(tmp_path / "whole")
    run, partial = tmp_path / "run", tmp_path / ".run.partial"
    kills = int(os.environ.get("KGRADCAM_KILLS", "3"))
    signals = [signal.SIGKILL, signal.SIGINT, signal.SIGTERM]
    survived = finished = 0
    while survived < kills:
        sent = signals[survived % 3]
        resume = partial.is_dir() and (partial / "start.json").exists()
        before = len(list(partial.glob("parts/*.json")))
        process = start("--resume", run) if resume else start(*options, "--out", run)
        deadline = time.monotonic() + 120
        if sent == signal.SIGKILL:
            time.sleep(draw.uniform(0, duration))
        else:
            while process.poll() is None and len(list(partial.glob("parts/*.json"))) <= before:
                assert time.monotonic() < deadline
                time.sleep(0.002)
            time.sleep(draw.uniform(0, 0.1))
        process.send_signal(sent)
        out, said = process.communicate(timeout=60)
        assert "Traceback" not in said
        if process.returncode == 0:
            assert out == f"{run}\n"
        if run.exists():  # too late: the run was finished
            finished += 1
            assert finished <= kills, "no signal comes in time"
            assert files(run) == files(tmp_path / "whole")
            shutil.rmtree(run)
            shutil.rmtree(partial, ignore_errors=True)
            continue
        survived += 1
        assert process.returncode == (-sent if sent == signal.SIGKILL else 130), said
        if sent != signal.SIGKILL:
            assert f"Continue with `kgradcam detect --resume {run}`" in said
            assert "kgradcam: interrupted; no partial file is left behind." in said
    begun = (partial / "start.json").exists()
    finish(start("--resume", run) if begun else start(*options, "--out", run))
    assert files(run) == files(tmp_path / "whole")
    assert not partial.exists()


def test_resume_on_the_command_line(
    kgradcam, configuration: Configuration, stopped: Path, pets, tiny_model: Path, tmp_path: Path
) -> None:
    common = ["--dataset", pets.root, "--class", "dog=2", "--model", tiny_model]
    result = kgradcam("detect", *common, "--out", stopped)
    assert (result.code, result.out) == (1, "")
    assert f"Continue with `kgradcam detect --resume {stopped}`" in result.err
    result = kgradcam("detect", *common, "--resume", stopped)
    assert (result.code, result.out) == (1, "")
    assert "configuration.batch_size: 1 then, 16 now" in result.err
    result = kgradcam("detect", "--resume", stopped, "--batch-size", "1")
    assert result.code == 1
    assert 'then, "voc/2007" now' in result.err
    result = kgradcam("detect", "--resume", tmp_path / "other")
    assert (result.code, "There is no interrupted run to" in result.err) == (1, True)
    result = kgradcam("detect", "--resume", stopped, "--dry-run")
    assert (result.code, json.loads(result.out)["batch_size"]) == (0, 1)
    for wrong in (["--out", stopped, "--resume", stopped], []):
        result = kgradcam("detect", *wrong)
        assert (result.code, "Give either --out RUN" in result.err) == (2, True)
    result = kgradcam("detect", "--resume", stopped, "--json")
    assert result.code == 0
    assert json.loads(result.out)["counts"]["images"] == 4
    assert Run(stopped).info.configuration.batch_size == 1
    result = kgradcam("detect", "--resume", stopped)
    assert (result.code, "It is finished." in result.err) == (1, True)


def test_the_limit_of_pixels_is_kept(kgradcam, stopped: Path) -> None:
    path = stopped.with_name(".run.partial") / "start.json"
    content = json.loads(path.read_text())
    content["info"]["configuration"]["max_pixels"] = 2000
    path.write_text(json.dumps(content))
    result = kgradcam("detect", "--resume", stopped, "--max-pixels", "3000")
    assert result.code == 1
    assert "configuration.max_pixels: 2000 then, 3000 now" in result.err
    assert kgradcam("detect", "--resume", stopped).code == 0
    assert PIL.Image.MAX_IMAGE_PIXELS == 2000
    assert Run(stopped).info.configuration.max_pixels == 2000
