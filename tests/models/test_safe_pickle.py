"""Pickles of strangers: what is plain is read, what could act is refused before it acts."""

import contextlib
import io
import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgradcam.models.safe_pickle import Stateful, UnsafePickleError, load

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner)
        ),
        max_leaves=12,
    )


@given(nested(scalars | st.binary()), st.sampled_from([3, 4, 5]))
def test_plain_values_come_back(value: Any, protocol: int) -> None:
    assert load(io.BytesIO(pickle.dumps(value, protocol)), {}) == value


@given(nested(scalars))
def test_protocol_2_comes_back_where_it_needs_no_call(value: Any) -> None:
    assert load(io.BytesIO(pickle.dumps(value, 2)), {}) == value


def test_one_object_in_two_places_and_a_list_in_itself() -> None:
    twice = load(io.BytesIO(pickle.dumps([[1]] * 2, 2)), {})
    assert twice[0] is twice[1]
    endless: list[Any] = []
    endless.append(endless)
    ring = load(io.BytesIO(pickle.dumps(endless, 2)), {})
    assert ring[0] is ring


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


def test_a_name_made_on_the_stack_is_refused_like_any_other(tmp_path: Path) -> None:
    """Strings that are joined only in the unpickler: no GLOBAL tells the name beforehand."""
    trace = tmp_path / "trace"
    hostile = b"\x80\x04\x8c\x02os\x8c\x06system\x93X"
    command = f"touch {trace}".encode()
    hostile += struct.pack("<I", len(command)) + command + b"\x85R."
    with pytest.raises(UnsafePickleError, match="refers to os.system"):
        load(io.BytesIO(hostile), {("os", "getcwd"): os.getcwd})
    assert not trace.exists()


def test_a_dotted_name_reaches_no_attribute_of_an_admitted_one() -> None:
    hostile = b"\x80\x04\x8c\x01m\x8c\x0etext.__class__\x93."
    with pytest.raises(UnsafePickleError, match="refers to m.text.__class__"):
        load(io.BytesIO(hostile), {("m", "text"): str})


def test_a_refused_name_is_escaped_for_the_terminal() -> None:
    with pytest.raises(UnsafePickleError) as refused:
        load(io.BytesIO(b"\x80\x04\x8c\x04\x1b[2J\x8c\x03\xed\xa0\x80\x93."), {})
    assert str(refused.value).isascii()
    assert str(refused.value).isprintable()


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


DEEP = 200_000
DEEP_TUPLE = b")" + b"\x85" * DEEP


@pytest.mark.parametrize(
    ("opcodes", "kind"), [(b"]" * DEEP + b"a" * (DEEP - 1), list), (DEEP_TUPLE, tuple)]
)
def test_depth_is_no_danger(opcodes: bytes, kind: type) -> None:
    value = load(io.BytesIO(b"\x80\x02" + opcodes + b"."), {})
    depth = 1
    while value:
        assert type(value) is kind
        value, depth = value[0], depth + 1
    assert depth >= DEEP


SHARED_TUPLE = b")q\x00" + b"h\x00h\x00\x86q\x00" * 200  # 2 ** 200 steps to hash


@pytest.mark.parametrize(
    "item",
    [
        DEEP_TUPLE + b"K\x01s",  # hashing it would crash Python
        b"(" + DEEP_TUPLE + b"K\x01u",
        b"(K\x01K\x01" + DEEP_TUPLE + b"K\x01u",
        b"(" + SHARED_TUPLE + b"K\x01u",
        b"(]K\x01u",
    ],
)
def test_keys_are_numbers_and_strings(item: bytes) -> None:
    with pytest.raises(UnsafePickleError):
        load(io.BytesIO(b"\x80\x02}" + item + b"."), {})


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


@pytest.mark.parametrize(
    "opcodes",
    [
        b"X" + struct.pack("<I", 2**31 - 1) + b"short.",
        b"B" + struct.pack("<I", 2**31 - 1) + b"short.",
        b"\x96" + struct.pack("<Q", 2**40) + b"short.",
        b"T" + struct.pack("<i", 2**31 - 1) + b"short.",
    ],
)
def test_a_length_that_is_claimed_takes_no_memory(tmp_path: Path, opcodes: bytes) -> None:
    """A buffered file sets aside what it is asked for, whether it is there or not."""
    path = tmp_path / "x.pickle"
    path.write_bytes(b"\x80\x05" + opcodes)
    tracemalloc.start()
    try:
        with path.open("rb") as file, pytest.raises(UnsafePickleError):
            load(file, {})
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


def test_laughter_that_doubles_a_hundred_times_stays_small() -> None:
    """Lists of two references to the list before: 2 ** 100 leaves, if ever anything walked them."""
    laughs = b"]q\x00" + b"]q\x01(h\x00h\x00eq\x00" * 100
    value = load(io.BytesIO(b"\x80\x02" + laughs + b"."), {})
    for _ in range(100):
        assert value[0] is value[1]
        value = value[0]
    assert value == []
