"""Pickles of strangers: what is plain is read, what could act is refused before it acts."""

import contextlib
import io
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgradcam.safe_pickle import Stateful, UnsafePickleError, load

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=12,
)


@given(plain, st.sampled_from([3, 4, 5]))
def test_plain_values_come_back(value: Any, protocol: int) -> None:
    assert load(io.BytesIO(pickle.dumps(value, protocol)), {}) == value


def test_several_pickles_in_a_row() -> None:
    file = io.BytesIO(pickle.dumps(1) + pickle.dumps("two") + b"rest")
    assert load(file, {}) == 1
    assert load(file, {}) == "two"
    assert file.read() == b"rest"


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch {}",)),
        (eval, ("open('{}', 'w')",)),
        (open, ("{}", "w")),
        (getattr, (os, "system")),
    ],
)
def test_calls_are_refused_before_they_run(
    tmp_path: Path, protocol: int, function: Any, arguments: tuple[Any, ...]
) -> None:
    trace = tmp_path / "trace"
    told = [text.format(trace) if isinstance(text, str) else 0 for text in arguments]
    hostile = pickle.dumps(Call(function, *told), protocol)
    with pytest.raises(UnsafePickleError, match="refers to"):
        load(io.BytesIO(hostile), {("collections", "OrderedDict"): dict})
    assert not trace.exists()


def test_only_the_admitted_name_is_admitted_and_stood_for() -> None:
    data = pickle.dumps(Call(os.getcwd), 4)
    assert load(io.BytesIO(data), {("posix", "getcwd"): lambda: "stand-in"}) == "stand-in"


@pytest.mark.parametrize(
    ("opcodes", "name"),
    [
        (b"(i__main__\nCall\n.", "INST"),
        (b"(cposix\nsystem\no.", "OBJ"),
        (b"\x80\x02cposix\nsystem\n)\x81.", "NEWOBJ"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"I1\n.", "INT"),
        (b"(lp0\n.", "LIST"),
        (b"\x80\x04\x8f(K\x01\x90.", "EMPTY_SET"),
    ],
)
def test_other_opcodes_are_refused(opcodes: bytes, name: str) -> None:
    with pytest.raises(UnsafePickleError, match=name):
        load(io.BytesIO(opcodes), {("posix", "system"): print})


def test_a_memo_bomb_does_not_go_off() -> None:
    """The unpickler in C would make a table for every entry up to this one: 16 GB."""
    bomb = b"\x80\x02K\x01r" + struct.pack("<I", 2**31 - 1) + b"."
    assert load(io.BytesIO(bomb), {}) == 1


class Taker(Stateful):
    def __setstate__(self, state: Any) -> None:
        self.taken = state


def test_state_goes_to_stateful_stand_ins_only() -> None:
    taker = load(io.BytesIO(b"\x80\x02cm\nTaker\n)RK\x07b."), {("m", "Taker"): Taker})
    assert taker.taken == 7


@pytest.mark.parametrize(
    "state",
    [
        b"}X\x05\x00\x00\x00taken\x4e\x73",  # {"taken": None}, into the __dict__
        b"N}X\x05\x00\x00\x00taken\x4e\x73\x86",  # (None, {"taken": None}), by setattr
    ],
)
@pytest.mark.parametrize("target", [b"cm\nTaker\n", b"cm\nhelper\n", b"cm\nhelper\n)R"])
def test_state_changes_no_class_no_function_and_no_other_object(
    target: bytes, state: bytes
) -> None:
    def helper() -> list[int]:
        return []

    allowed = {("m", "Taker"): Taker, ("m", "helper"): helper}
    with pytest.raises(UnsafePickleError, match="gives state to an object that takes none"):
        load(io.BytesIO(b"\x80\x02" + target + state + b"b."), allowed)
    assert not hasattr(Taker, "taken")
    assert not hasattr(helper, "taken")


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"PK\x03\x04",
        b"\x80\x04",
        pickle.dumps(list(range(100)))[:-20],
        b"\x80\x02h\x05.",  # reads a memo entry that nobody wrote
        b"\x80\x02R.",  # calls with nothing on the stack
        b"\x80\x04B" + struct.pack("<I", 2**31) + b"short.",
    ],
)
def test_damaged_pickles_raise_the_one_error(damaged: bytes) -> None:
    with pytest.raises(UnsafePickleError):
        load(io.BytesIO(damaged), {})


@given(st.binary(max_size=200))
def test_noise_never_escapes_as_another_error(noise: bytes) -> None:
    with contextlib.suppress(UnsafePickleError):
        load(io.BytesIO(b"\x80\x04" + noise), {})


def test_a_persistent_id_needs_a_resolver() -> None:
    data = b"\x80\x02X\x01\x00\x00\x00kQ."
    with pytest.raises(UnsafePickleError, match="persistent id"):
        load(io.BytesIO(data), {})
    assert load(io.BytesIO(data), {}, persistent_load=str.upper) == "K"
