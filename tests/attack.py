"""Attacks every command: hostile options and files, and kills; not a test by itself.

    python tests/attack.py --minutes 10 --seed 1

Cases are drawn by hypothesis. `test_attack.py` runs a few of each kind. A command may end with 0, 1
or 2, or with 130 after Ctrl-C. It prints no traceback and no control characters, and changes no
file but its output.
"""

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
from attacks.changes import TEXTS, Draw, change_archive, change_document, change_place
from attacks.kills import kill_command
from attacks.place import COMMANDS, READERS, make_place, run
from helpers import sign
from hypothesis import strategies as st

from kgradcam.cli.commands import app


def options(draw: Draw) -> str | list[str]:
    """A hostile value of an option."""
    name = draw(st.sampled_from(list(COMMANDS)))
    (function,) = (
        each.callback for each in app.registered_commands if each.callback.__name__ == name
    )
    hints = get_type_hints(function)
    names = [
        each
        for each in hints
        if hints[each] is not bool and each not in ("return", "context", "out", "data_dir")
    ]
    option = draw(st.sampled_from(names)).replace("_", "-")
    option = {"classes": "class", "image": "images"}.get(option, option)
    return [*COMMANDS[name].split(), f"--{option}={draw(st.sampled_from(TEXTS))}"]


def documents(draw: Draw) -> str:
    """A JSON document with values of other types, names and sizes, or with other bytes."""
    return _attacked(draw, (".json", ".toml", ".txt", ".xml"), change_document)


def archives(draw: Draw) -> str:
    """A zip file (`.npz`, `.keras`) or picture with other entries, headers or bytes."""
    return _attacked(draw, (".npz", ".keras", ".jpg"), change_archive)


def places(draw: Draw) -> str:
    """A pipe, device, folder, endless or missing file in the place of an input."""
    return _attacked(draw, ("",), change_place)


def _attacked(draw: Draw, suffixes: tuple[str, ...], change: Callable[[Draw, Path], None]) -> str:
    name = draw(st.sampled_from([each for each in READERS if each.endswith(suffixes)]))
    change(draw, Path(name))
    if name.startswith("run/") and Path("run/run.json").is_file() and draw(st.booleans()):
        with contextlib.suppress(OSError, ValueError, TypeError):
            sign(Path("run"))  # a stranger can list the digests of the changed files
    command: str = draw(st.sampled_from(READERS[name]))
    return command


KINDS: dict[str, Callable[[Draw], Any]] = {
    each.__name__: each for each in (options, documents, archives, places)
}


def attack(kind: str, place: Path, cases: int, seed: int) -> Counter[Any]:
    """Tries so many cases of a kind; raises at the first one that breaks a promise.

    Args:
        kind: A key of `KINDS`.
        place: The folder of `make_place`; each case gets a copy.
        cases: The number of cases.
        seed: The random seed.

    Returns:
        The number of cases by their exit code.
    """
    codes: Counter[Any] = Counter()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],  # cases are small; to reduce one takes minutes
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(st.data())
    def case(data: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(place, work := Path(folder, "work"), symlinks=True)
            with contextlib.chdir(work):
                command = KINDS[kind](data.draw)
                hypothesis.note(f"{command!r:.500}")
                before = _files(work)
                ended = run(command)
                codes[ended.code] += 1
                ended.check()
                changed = set(_files(work).items()) ^ set(before.items())
                assert not changed, (command, sorted(changed))
                assert [each.name for each in Path(folder).iterdir()] == ["work"]

    case()
    return codes


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file, except those that a command writes."""
    written = ("out", "half", ".half", ".out", "__")
    return {
        path.relative_to(folder).as_posix(): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).as_posix().startswith(written)
    }


def report(minutes: float, seed: int) -> int:
    """Tries all kinds in turn for so many minutes, and prints counts and what broke."""
    counts: dict[str, Counter[Any]] = {}
    end, broken = time.monotonic() + 60 * minutes, 0
    with tempfile.TemporaryDirectory() as folder:
        make_place(place := Path(folder, "place"))
        while time.monotonic() < end:
            for kind in [*KINDS, "kills"]:
                try:
                    found = (
                        kill_command(place, seed)
                        if kind == "kills"
                        else attack(kind, place, 50, seed)
                    )
                except Exception as error:
                    broken += 1
                    notes = "\n".join(getattr(error, "__notes__", []))
                    print(f"{kind}, seed {seed}: {str(error)[-1500:]}\n{notes[-1500:]}", flush=True)
                else:
                    counts[kind] = counts.get(kind, Counter()) + found
            seed += 1
    for kind, codes in counts.items():
        ended = ", ".join(f"{count} with {code}" for code, count in sorted(codes.items(), key=str))
        print(f"{kind}: {codes.total()} cases: {ended}")
    print(f"{broken} rounds broke a promise.")
    return min(broken, 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    sys.exit(report(arguments.minutes, arguments.seed))
