"""Legacy checkpoints, valid, damaged and hostile, written here opcode by opcode."""

import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kgradcam.errors import UserError
from kgradcam.models.torch_checkpoint import read_checkpoint

MAGIC = 0x1950A86A20F9469CFC6C


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x14" + value.to_bytes(20, "little", signed=True)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    key: str,
    count: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int = 0,
    storage: str = "FloatStorage",
) -> bytes:
    """The opcodes of a valid tensor."""
    persistent_id = b"(" + text("storage") + f"ctorch\n{storage}\n".encode()
    persistent_id += text(key) + text("cpu") + number(count) + b"NtQ"
    return rebuild(persistent_id, number(offset), numbers(shape), numbers(strides))


def rebuild(storage: bytes, offset: bytes, shape: bytes, strides: bytes) -> bytes:
    """The opcodes of a call of `_rebuild_tensor_v2`."""
    arguments = storage + offset + shape + strides + b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def checkpoint(
    path: Path,
    tensors: dict[str, bytes],
    storages: dict[str, Any],
    magic: int = MAGIC,
    little_endian: bool = True,
    keys: bytes | None = None,
    state: bytes | None = None,
) -> Path:
    given, state = state, b"\x80\x02ccollections\nOrderedDict\n)R("
    state += b"".join(text(name) + opcodes for name, opcodes in tensors.items()) + b"u"
    state += b"}" + text("_metadata") + b"}sb."
    facts = {"protocol_version": 1001, "little_endian": little_endian}
    header = [pickle.dumps(value, 2) for value in (magic, 1001, facts)]
    raw = [struct.pack("<q", len(array)) + array.tobytes() for array in storages.values()]
    keys = pickle.dumps(list(storages), 2) if keys is None else keys
    path.write_bytes(b"".join([*header, state if given is None else given, keys, *raw]))
    return path


SIX = np.arange(6, dtype="<f4")
DEEP_TUPLE = b")" + b"\x85" * 200_000  # hashing it would crash Python


def test_tensors_are_views_of_their_storages(tmp_path: Path) -> None:
    path = checkpoint(
        tmp_path / "a.pth",
        {
            "whole": tensor("1", 6, (2, 3), (3, 1)),
            "transposed": tensor("1", 6, (3, 2), (1, 3)),
            "part": tensor("1", 6, (2,), (2,), offset=3),
            "scalar": tensor("2", 1, (), (), storage="LongStorage"),
            "empty": tensor("1", 6, (0, 4), (4, 1)),
        },
        {"2": np.array([7], "<i8"), "1": SIX},
    )
    tensors = read_checkpoint(path)
    assert tensors["whole"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tensors["transposed"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert tensors["part"].tolist() == [3, 5]
    assert (tensors["scalar"].tolist(), tensors["scalar"].dtype) == (7, np.int64)
    assert tensors["empty"].shape == (0, 4)


@pytest.mark.parametrize(
    ("storage", "array"),
    [
        ("DoubleStorage", np.array([-1.5, 1e300], "<f8")),
        ("FloatStorage", np.array([-1.5, 1e30], "<f4")),
        ("HalfStorage", np.array([-1.5, 6e4], "<f2")),
        ("LongStorage", np.array([-(2**63), 2**63 - 1], "<i8")),
        ("IntStorage", np.array([-(2**31), 2**31 - 1], "<i4")),
        ("ShortStorage", np.array([-(2**15), 2**15 - 1], "<i2")),
        ("CharStorage", np.array([-128, 127], "i1")),
        ("ByteStorage", np.array([0, 255], "u1")),
        ("BoolStorage", np.array([False, True])),
    ],
)
def test_every_type_of_storage(tmp_path: Path, storage: str, array: Any) -> None:
    opcodes = tensor("1", 2, (2,), (1,), storage=storage)
    read = read_checkpoint(checkpoint(tmp_path / "a.pth", {"a": opcodes}, {"1": array}))["a"]
    assert read.dtype == array.dtype
    assert read.tolist() == array.tolist()


def test_unusual_but_valid_tensors(tmp_path: Path) -> None:
    """Unused strides, empty storages, repeated elements, and two names of one tensor."""
    tensors = {
        "tied": tensor("1", 6, (6,), (1,)),
        "tied too": tensor("1", 6, (6,), (1,)),
        "one": tensor("1", 6, (1, 2), (10**40, 1), offset=4),
        "repeated": tensor("1", 6, (2, 3), (0, 1)),
        "none": tensor("2", 0, (0,), (1,)),
    }
    storages = {"1": SIX, "2": np.zeros(0, "<f4")}
    read = read_checkpoint(checkpoint(tmp_path / "a.pth", tensors, storages))
    assert read["tied"] is read["tied too"]
    assert read["one"].tolist() == [[4, 5]]
    assert read["repeated"].tolist() == [[0, 1, 2], [0, 1, 2]]
    assert read["none"].tolist() == []


def test_an_ordered_dict_made_of_pairs_as_python_2_wrote_it(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.pth", {"a": tensor("1", 6, (6,), (1,))}, {"1": SIX})
    pair = text("a") + tensor("1", 6, (6,), (1,)) + b"\x86"
    whole = path.read_bytes()
    start, end = whole.index(b"ccollections"), whole.index(b"}" + text("_metadata"))
    path.write_bytes(
        whole[:start] + b"ccollections\nOrderedDict\n](" + pair + b"e\x85R" + whole[end:]
    )
    assert read_checkpoint(path)["a"].tolist() == [0, 1, 2, 3, 4, 5]
    path.write_bytes(
        whole[:start]
        + b"ccollections\nOrderedDict\n]("
        + (DEEP_TUPLE + b"K\x01\x86")
        + b"e\x85R"
        + whole[end:]
    )
    with pytest.raises(UserError, match="name of a tensor is not a string"):
        read_checkpoint(path)


def test_tensors_that_share_a_storage_cannot_outgrow_the_file(tmp_path: Path) -> None:
    storage = np.zeros(10_000, "<f4")
    views = {f"{i}": tensor("1", 10_000, (9_000,), (1,), offset=i) for i in range(100)}
    path = checkpoint(tmp_path / "a.pth", views, {"1": storage})
    with pytest.raises(UserError, match="tensors together are larger than the file"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": tensor("1", 6, (7,), (1,))}, "beyond its storage"),
        ({"a": tensor("1", 6, (2, 3), (4, 1))}, "beyond its storage"),
        ({"a": tensor("1", 6, (6,), (1,), offset=1)}, "beyond its storage"),
        ({"a": tensor("1", 6, (7, 1), (0, 0))}, "beyond its storage"),
        ({"a": tensor("1", 6, (100_000, 100_000), (0, 0))}, "larger than the file"),
        ({"a": tensor("1", 6, (-1,), (1,))}, "impossible shape"),
        ({"a": tensor("1", 6, (2,), (-1,), offset=3)}, "impossible shape"),
        ({"a": tensor("1", 6, (2, 3), (1,))}, "impossible shape"),
        ({"a": tensor("1", 10**9, (6,), (1,))}, "shorter than described"),
        ({"a": tensor("2", 6, (6,), (1,))}, "belongs to no tensor"),
        (
            {"a": tensor("1", 6, (6,), (1,)), "b": tensor("3", 6, (6,), (1,))},
            "storage '3' is missing",
        ),
        (
            {"a": tensor("1", 6, (6,), (1,)), "b": tensor("1", 5, (5,), (1,))},
            "described twice",
        ),
        ({"a": b"K\x01"}, "other things than tensors"),
        ({"a": tensor("1", 6, (1,) * 33, (1,) * 33)}, "impossible shape"),
        ({"a": tensor("1", 6, (0, 2**62, 2**62), (1, 1, 1))}, "impossible shape"),
        ({"a": tensor("1", 6, (10**40, 2), (1, 1))}, "larger than the file"),
        ({"a": tensor("1", 6, (2,), (10**40,))}, "beyond its storage"),
        ({"a": tensor("1", 6, (6,), (1,), offset=10**40)}, "beyond its storage"),
        ({"a": rebuild(tensor("1", 6, (6,), (1,)), *[b"K\x00"] * 3)}, "has no storage"),
        ({"a": rebuild(b"K\x01", b"K\x00", b")", b")")}, "has no storage"),
        ({"a": rebuild(DEEP_TUPLE, b"K\x00", b")", b")")}, "has no storage"),
        (
            {"a": rebuild(b"(" + text("1") + text("f8") + b"K\x06t", b"K\x00", b")", b")")},
            "has no storage",
        ),
        ({"a": tensor("1", -1, (0,), (1,))}, "shorter than described"),
        # State would slip past the checks on strides, into memory beyond the storage.
        (
            {"a": tensor("1", 6, (2,), (1,)) + b"}" + text("strides") + numbers((-1000,)) + b"sb"},
            "has no attribute '__dict__'",
        ),
        ({"a": tensor("1", 6, (6,), (1,), storage="EvilStorage")}, "torch.EvilStorage"),
        ({"a": b"cos\nsystem\n" + text("touch pwned") + b"\x85R"}, "os.system"),
        ({"a": b"ctorch\nFloatStorage\n)R"}, "not callable"),
    ],
)
def test_invalid_tensors_are_refused(
    tmp_path: Path, tensors: dict[str, bytes], message: str
) -> None:
    path = checkpoint(tmp_path / "a.pth", tensors, {"1": SIX})
    with pytest.raises(UserError, match=f"a.pth is not a checkpoint .*{message}"):
        read_checkpoint(path)


@pytest.mark.parametrize("entry", [b"K\x01", b"]", DEEP_TUPLE])
def test_keys_of_storages_are_names(tmp_path: Path, entry: bytes) -> None:
    good, keys = {"a": tensor("1", 6, (6,), (1,))}, b"\x80\x02]" + entry + b"a."
    with pytest.raises(UserError, match="list of storages holds other things"):
        read_checkpoint(checkpoint(tmp_path / "a.pth", good, {"1": SIX}, keys=keys))


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch {}",)),
        (eval, ("open('{}', 'w')",)),
        (open, ("{}", "w")),
        (getattr, (os, "system")),
    ],
)
def test_a_function_that_a_pickle_names_is_never_called(
    tmp_path: Path, protocol: int, function: Any, arguments: tuple[Any, ...]
) -> None:
    trace = tmp_path / "trace"
    filled = [text.format(trace) if isinstance(text, str) else 0 for text in arguments]
    state = pickle.dumps(Call(function, *filled), protocol)
    with pytest.raises(UserError, match="refers to .*, which is not allowed"):
        read_checkpoint(checkpoint(tmp_path / "a.pth", {}, {}, state=state))
    header = tmp_path / "header.pth"
    header.write_bytes(state)
    with pytest.raises(UserError, match="refers to .*, which is not allowed"):
        read_checkpoint(header)
    assert not trace.exists()


@pytest.mark.parametrize(
    "opcodes",
    [
        b"(ios\nsystem\n.",  # INST
        b"(cos\nsystem\no.",  # OBJ
        b"\x80\x02cos\nsystem\n)\x81.",  # NEWOBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
        b"\x80\x04\x8c\x0bcollections\x8c\x15OrderedDict.__class__\x93.",
    ],
)
def test_no_opcode_reaches_another_name(tmp_path: Path, opcodes: bytes) -> None:
    with pytest.raises(UserError, match="is not allowed"):
        read_checkpoint(checkpoint(tmp_path / "a.pth", {}, {}, state=opcodes))


def test_a_refused_name_is_escaped_for_the_terminal(tmp_path: Path) -> None:
    state = b"\x80\x04\x8c\x04\x1b[2J\x8c\x03\xed\xa0\x80\x93."
    with pytest.raises(UserError) as refused:
        read_checkpoint(checkpoint(tmp_path / "a.pth", {}, {}, state=state))
    assert "[2J" in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "change",
    [
        b"}" + text("dtype") + text("<f8") + b"sb",  # into __dict__
        b"N}" + text("dtype") + text("<f8") + b"s\x86b",  # by setattr
        b"N}" + text("__call__") + b"Ns\x86b",
        b"N}" + text("__setitem__") + b"Ns\x86b",
    ],
)
@pytest.mark.parametrize(
    "target",
    [
        b"ctorch\nFloatStorage\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ccollections\nOrderedDict\n",
    ],
)
def test_a_pickle_cannot_change_the_stand_ins(tmp_path: Path, target: bytes, change: bytes) -> None:
    """The stand-ins are shared by all checkpoints that the process reads."""
    path = checkpoint(tmp_path / "a.pth", {}, {}, state=b"\x80\x02" + target + change + b".")
    with pytest.raises(UserError, match="its pickle is damaged"):
        read_checkpoint(path)
    valid = checkpoint(tmp_path / "b.pth", {"a": tensor("1", 6, (6,), (1,))}, {"1": SIX})
    assert read_checkpoint(valid)["a"].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("opcodes", "message"),
    [
        (b"X" + struct.pack("<I", 2**31 - 1) + b"short.", "damaged"),
        (b"B" + struct.pack("<I", 2**31 - 1) + b"short.", "damaged"),
        (b"\x8e" + struct.pack("<Q", 2**40) + b"short.", "damaged"),
        (b"\x96" + struct.pack("<Q", 2**40) + b"short.", "damaged"),
        (b"T" + struct.pack("<i", 2**31 - 1) + b"short.", "damaged"),
        (b"\x8b" + struct.pack("<i", 2**31 - 1) + b"short.", "damaged"),
        (b"\x95" + struct.pack("<Q", 2**40) + b"N.", "damaged"),
        # The C unpickler of Python 3.13 makes a table of all entries up to this one: 16 GB.
        (b"Nr" + struct.pack("<I", 2**31 - 1) + b".", "memo entry 2,147,483,647"),
        (b"Np2147483647\n.", "memo entry 2,147,483,647"),
    ],
)
def test_a_claimed_length_takes_no_memory(tmp_path: Path, opcodes: bytes, message: str) -> None:
    path = checkpoint(tmp_path / "a.pth", {}, {}, state=b"\x80\x05" + opcodes)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=message):
            read_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


def test_a_file_above_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.pth"
    with path.open("wb") as file:
        file.truncate(2**28 + 1)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="268,435,457 bytes, more than 268,435,456"):
            read_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


def test_other_files_are_refused(tmp_path: Path) -> None:
    good = {"a": tensor("1", 6, (6,), (1,))}
    with pytest.raises(UserError, match="does not begin as"):
        read_checkpoint(checkpoint(tmp_path / "a.pth", good, {"1": SIX}, magic=1))
    with pytest.raises(UserError, match="does not begin as"):
        read_checkpoint(checkpoint(tmp_path / "a.pth", good, {"1": SIX}, little_endian=False))
    (tmp_path / "zip.pth").write_bytes(b"PK\x03\x04rest")
    with pytest.raises(UserError, match="zip format. Save it again"):
        read_checkpoint(tmp_path / "zip.pth")
    with pytest.raises(UserError, match="No file .*nowhere.pth"):
        read_checkpoint(tmp_path / "nowhere.pth")


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.pth", {"a": tensor("1", 6, (6,), (1,))}, {"1": SIX})
    whole = path.read_bytes()
    for end in range(0, len(whole) - 1, 3):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"a\.pth"):
            read_checkpoint(path)


def test_files_written_by_pytorch_are_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not a dependency")
    state = {"w": torch.arange(6.0).reshape(2, 3).t(), "n": torch.tensor(3)}
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    tensors = read_checkpoint(tmp_path / "a.pth")
    assert tensors["w"].tolist() == state["w"].tolist()
    assert tensors["n"].tolist() == 3
