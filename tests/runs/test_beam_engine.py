"""Apache Beam computes the parts of a plan: the bytes of one process, also after failures."""

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from kgradcam.errors import UsageError, UserError
from kgradcam.runs import run_writer
from kgradcam.runs.detection import detect
from kgradcam.runs.merging import merge
from kgradcam.runs.planning import make_plan

pytestmark = pytest.mark.skipif(
    find_spec("apache_beam") is None, reason="needs the extra beam; make test-beam"
)

PROCESSES = (
    "--runner=FnApiRunner",
    "--direct_num_workers=2",
    "--direct_running_mode=multi_processing",
)
Contents = dict[str, bytes]


def run_beam(folder: Path, arguments: Sequence[str]) -> dict[str, int]:
    from kgradcam.runs.beam_engine import run_beam

    return run_beam(folder, arguments)


def contents(folder: Path) -> Contents:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def planned(
    configuration: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Contents]:
    """A planned run of three parts, and the files of the finished one."""
    monkeypatch.setattr(run_writer, "PART", 1)
    expected = contents(detect(configuration, tmp_path / "alone").folder)
    folder = tmp_path / "beam"
    assert make_plan(configuration, folder, 2).parts == 3
    return folder, expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["--runner=BundleBasedDirectRunner"],
        ["--runner=FnApiRunner", "--direct_num_workers=3", "--direct_running_mode=multi_threading"],
        [*PROCESSES],
    ],
)
def test_a_pipeline_computes_what_one_process_does(
    planned: tuple[Path, Contents], arguments: list[str]
) -> None:
    folder, expected = planned
    counters = run_beam(folder, arguments)
    assert counters.pop("images_per_hour") > 0
    assert counters == {"parts_computed": 3, "parts_found": 0, "images": 4}
    again = run_beam(folder, arguments)
    assert again["images"] == again["parts_computed"] == 0
    assert contents(merge(folder).folder) == expected


def test_a_part_that_fails_is_tried_again(
    planned: tuple[Path, Contents], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kgradcam.runs.shards import ShardWorker

    folder, expected = planned
    failed, run_part = [], ShardWorker.run_part

    def failing(worker: ShardWorker, number: int) -> bool:
        if number == 1 and len(failed) < 2:
            failed.append(number)
            raise OSError("The disk is full.")
        return run_part(worker, number)

    monkeypatch.setattr(ShardWorker, "run_part", failing)
    run_beam(folder, ["--runner=BundleBasedDirectRunner"])  # it has retries, as a cluster has
    assert failed == [1, 1]
    assert contents(merge(folder).folder) == expected


def test_a_worker_refuses_another_model(planned: tuple[Path, Contents]) -> None:
    folder, _ = planned
    start = folder.with_name(".beam.partial") / "start.json"
    content = json.loads(start.read_text())
    Path(content["info"]["configuration"]["model"]).rename(folder.with_name("gone"))
    with pytest.raises(UserError, match="pipeline failed"):
        run_beam(folder, ["--runner=FnApiRunner"])
    folder.with_name("gone").rename(content["info"]["configuration"]["model"])


def test_the_runner_has_a_name(planned: tuple[Path, Contents]) -> None:
    for arguments in ([], ["--direct_num_workers=2"], ["--runner=NoSuchRunner"]):
        with pytest.raises(UsageError, match="runner"):
            run_beam(planned[0], arguments)


def test_the_command_continues_after_a_kill(
    planned: tuple[Path, Contents], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, expected = planned
    mark = tmp_path / "died"
    (tmp_path / "dying.py").write_text(
        "import os, signal\n"
        "from kgradcam.runs.shards import ShardWorker\n"
        "run_part = ShardWorker.run_part\n"
        "def once(worker, number):\n"
        f"    if number == 1 and not os.path.exists({str(mark)!r}):\n"
        f"        open({str(mark)!r}, 'w').close()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return run_part(worker, number)\n"
        "ShardWorker.run_part = once\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    command = [sys.executable, "-m", "kgradcam", "detect", "--resume", str(folder)]
    command += ["--import", "dying", "--runner", "beam", "--", "--runner=FnApiRunner"]
    assert subprocess.run(command, capture_output=True, timeout=300).returncode == -9
    assert mark.exists()
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (again.returncode, again.stdout) == (0, f"{folder}\n"), again.stderr
    assert "Beam: " in again.stderr
    assert contents(folder) == expected
