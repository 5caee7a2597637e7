"""`detect --plan`, `--shard` and `--workers`, and `merge`."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from kgradcam.cli.sharding import shard_index
from kgradcam.errors import UsageError
from kgradcam.runs import run_writer

PAGE = Path(__file__).resolve().parents[2] / "docs/scale.md"


def slurm(task: int, first: int, count: int) -> dict[str, str]:
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT")
    return dict(zip(names, map(str, (task, first, count)), strict=True))


@pytest.mark.parametrize(
    ("text", "environment", "index"),
    [
        ("3/8", {}, 2),
        ("8/8", slurm(1, 1, 8), 7),
        ("auto", slurm(1, 1, 8), 0),
        ("auto", slurm(10, 10, 8), 0),
        ("auto", slurm(7, 0, 8), 7),
        ("auto", {"JOB_COMPLETION_INDEX": "7"}, 7),
        ("auto", {"AWS_BATCH_JOB_ARRAY_INDEX": "2", "AWS_BATCH_JOB_ARRAY_SIZE": "8"}, 2),
        ("auto", {"AWS_BATCH_JOB_ARRAY_INDEX": "2"}, 2),
    ],
)
def test_a_shard(text: str, environment: dict[str, str], index: int) -> None:
    assert shard_index(text, 8, environment) == index


@pytest.mark.parametrize(
    ("text", "environment", "reason"),
    [
        ("0/8", {}, "must be 1/8 to 8/8. Received: 0/8"),
        ("3/64", {}, "must be 1/8 to 8/8. Received: 3/64"),
        ("3", {}, "must be K/N, such as 1/8, or auto. Received: 3"),
        ("auto", {}, "--shard auto needs one of SLURM_ARRAY_TASK_ID"),
        ("auto", slurm(3, 3, 2), "The array has 2 tasks, and this is SLURM_ARRAY_TASK_ID=3"),
        ("auto", {"JOB_COMPLETION_INDEX": "8"}, "the plan has 8 shards. Give the shard itself"),
        ("auto", {"JOB_COMPLETION_INDEX": "x"}, "JOB_COMPLETION_INDEX must be a number"),
    ],
)
def test_no_shard(text: str, environment: dict[str, str], reason: str) -> None:
    with pytest.raises(UsageError, match=re.escape(reason)):
        shard_index(text, 8, environment)


@pytest.fixture
def photos(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 40 pictures and a model under the names of the page, in parts of 5."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_writer, "PART", 5)
    Path("photos").mkdir()
    Path("runs").mkdir()
    generator = np.random.default_rng(0)
    for i in range(40):
        PIL.Image.fromarray(generator.integers(0, 255, (16, 24, 3), np.uint8)).save(
            f"photos/{i:02}.jpg"
        )
    Path("mine.keras").write_bytes(tiny_model.read_bytes())
    return tmp_path


SMALL = ("--image-size", 16, "--score-scale", 1, "--batch-size", 5, "--quiet")


def files(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def page_commands(heading: str) -> list[str]:
    section = PAGE.read_text("utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[0].splitlines()


def test_the_commands_of_the_page(kgradcam: Any, photos: Path) -> None:
    plan, loop, merge = page_commands("On many machines")
    whole = ("--dataset", "photos", "--model", "mine.keras", "--out", "runs/whole")
    assert kgradcam("detect", *whole, *SMALL).code == 0
    _, *words = plan.split()
    planned = kgradcam(*words, *SMALL, "--json")
    assert json.loads(planned.out)["parts"] == 8
    assert kgradcam(*words, *SMALL).code == 1  # it is planned
    early = kgradcam(*merge.split()[1:])
    assert early.code == 1
    assert "8 of 8 parts of runs/photos are missing: 0-7" in early.err
    (shard,) = re.findall(r"do kgradcam (.*); done", loop)
    for k in reversed(range(1, 9)):
        assert kgradcam(*shard.replace("$k", str(k)).split(), "--quiet").code == 0
    refused = kgradcam(*shard.replace("$k", "1").split(), "--batch-size", 3)
    assert (refused.code, "Leave out --batch-size" in refused.err) == (2, True)
    assert kgradcam(*merge.split()[1:], "--quiet").code == 0
    assert files("runs/photos") == files("runs/whole")
    again = kgradcam(*shard.replace("$k", "1").split())
    assert (again.code, "is merged already" in again.err) == (0, True)
    scored = kgradcam("evaluate", "runs/photos")
    assert (scored.code, "Nothing is annotated with a box" in scored.err) == (0, True)


@pytest.mark.slow
def test_killed_workers(kgradcam: Any, photos: Path) -> None:
    """Two workers a shard, killed while they start, compute or write; then all again."""
    whole = ("--dataset", "photos", "--model", "mine.keras", "--out", "runs/whole")
    assert kgradcam("detect", *whole, *SMALL).code == 0
    assert kgradcam(*page_commands("On many machines")[0].split()[1:], *SMALL).code == 0
    times = random.Random(0)
    resume = ("detect", "--resume", "runs/photos", "--quiet", "--shard")
    for k in range(1, 9, 2):
        command = [sys.executable, "-m", "kgradcam", *resume, f"{k}/8"]
        for process in [subprocess.Popen(command) for _ in range(2)]:
            try:
                assert process.wait(times.uniform(2, 10)) == 0
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    for k in range(1, 9):
        assert kgradcam(*resume, f"{k}/8").code == 0
    assert kgradcam("merge", "runs/photos", "--quiet").code == 0
    assert files("runs/photos") == files("runs/whole")


@pytest.mark.slow
def test_workers(kgradcam: Any, photos: Path) -> None:
    """Parts have 256 images in new processes, so that one part is all; the other worker idles."""
    (command,) = page_commands("On one machine")
    result = kgradcam(*command.split()[1:], *SMALL)
    assert result.code == 0
    assert Path("runs/photos/run.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--out", "run", "--shards", "2"], "--shards N needs --plan"),
        (["--out", "run", "--shard", "1/2"], "--shard K/N needs --resume RUN"),
        (["--resume", "run", "--plan"], "--plan needs --out RUN"),
        (["--resume", "run", "--shard", "1/2", "--workers", "2"], "--shard K/N needs"),
    ],
)
def test_options_that_contradict_one_another(
    kgradcam: Any, arguments: list[str], reason: str
) -> None:
    result = kgradcam("detect", *arguments)
    assert (result.code, reason in result.err) == (2, True)
