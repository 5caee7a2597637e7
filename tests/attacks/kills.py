"""Kills of a command at a random moment, and the same command again."""

import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from attacks.place import COMMANDS, DETECT, TRAIN

PROGRAM = [sys.executable, "-c", "from kgradcam.cli import main; main()"]
# The command, and the file whose presence marks its complete output.
KILLED = {
    **{name: (COMMANDS[name], "out.png") for name in ("explain", "visualize")},
    "detect": (f"{DETECT} --out out", "out/run.json"),
    "evaluate": (COMMANDS["evaluate"], "out/evaluation.json"),
    "tune": (COMMANDS["tune"], "out.json"),
    "report": (COMMANDS["report"], "out.html"),
    "train": (f"{TRAIN} --epochs 1 --head-epochs 1 --out out", "out/card.json"),
    "prepare": (COMMANDS["prepare"], "out/voc/2007/5.0.0/dataset_info.json"),
    "demo": ("demo --out out --data-dir demo-data", "out/ten.png"),
}
# These hold times, or maps whose order varies from process to process (records of tfds).
_VARYING = (".keras", "card.json", "dataset_info.json", "curves.png", "-of-00001")
_seconds: dict[str, float] = {}
_expected: dict[str, dict[str, bytes]] = {}


def kill_command(place: Path, seed: int) -> Counter[str]:
    """Kills a command once or twice, and finishes it; its output must be that of a single run.

    Args:
        place: The folder of `make_place`.
        seed: The seed of the command, the signals and the moments.

    Returns:
        The number of processes by command and signal.
    """
    chance = random.Random(seed)
    name = sorted(KILLED)[seed % len(KILLED)]
    command, mark = KILLED[name]
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        if name not in _expected:
            shutil.copytree(place, whole := Path(folder, "whole"), symlinks=True)
            started = time.monotonic()
            code, err = _run(command, whole)
            assert code == 0, (command, err[-2000:])
            _seconds[name], _expected[name] = time.monotonic() - started, _output(whole)
        shutil.copytree(place, work := Path(folder, "work"), symlinks=True)
        for _ in range(chance.randint(1, 2)):
            number = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            if (work / mark).exists() and "--force" not in command:
                break  # a finished output is not replaced
            code, err = _run(_again(command, work), work, number, chance.random() * _seconds[name])
            assert "Traceback" not in err or code == -number, err[-2000:]
            assert code in (0, 130, -number), (code, err[-2000:])
            if (work / mark).exists() and name != "prepare":
                assert _output(work) == _expected[name], f"{name}: {mark} is there, others differ"
            counts[f"{name} {'finished' if code == 0 else number.name}"] += 1
        code, err = _run(_again(command, work), work)
        done = code == 1 and "already" in err  # a finished output is not replaced
        assert code == 0 or done, (command, err[-2000:])
        differing = set(_output(work).items()) ^ set(_expected[name].items())
        names = sorted({each for each, _ in differing})
        assert not names, f"{name} differs after a kill, seed {seed}: {names}"
    return counts


def _again(command: str, work: Path) -> str:
    """The command to give after a kill: the same one, or its continuation."""
    if "detect" in command and list(work.glob(".out.partial/p*s/*.json")):
        return "detect --resume out"
    if "train" in command and (work / "out/training.json").is_file():
        return "train --resume --out out"
    return command


def _run(
    command: str, folder: Path, number: int | None = None, seconds: float = 600
) -> tuple[int, str]:
    process = subprocess.Popen(
        [*PROGRAM, *command.split(), *(["--quiet"] if "prepare" not in command else [])],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        return process.wait(seconds) or 0, process.communicate()[1]
    except subprocess.TimeoutExpired:
        if number is None:
            process.kill()
            raise
        process.send_signal(number)
        err = process.communicate(timeout=120)[1]
        return process.returncode, err


def _output(folder: Path) -> dict[str, bytes]:
    """The files of the output by name; without the bytes of those that hold times."""
    return {
        path.relative_to(folder).as_posix(): b""
        if path.name.endswith(_VARYING)
        else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and path.relative_to(folder).parts[0].startswith(("out", ".out"))
        and "logs" not in path.parts  # those of TensorBoard have times in their names
    }
