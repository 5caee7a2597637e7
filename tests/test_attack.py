"""A few cases of each kind of attack, the same ones at each run; see `attack.py`."""

from pathlib import Path

import pytest
from attack import KINDS, attack
from attacks.kills import KILLED, kill_command
from attacks.place import make_place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    make_place(folder := tmp_path_factory.mktemp("attack") / "place")
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_commands_end_in_order(place: Path, kind: str) -> None:
    assert attack(kind, place, 15, seed=0).total() >= 15


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2 * len(KILLED)))
def test_a_killed_command_begins_again(place: Path, seed: int) -> None:
    assert kill_command(place, seed).total() >= 1
