"""Legacy checkpoints, their bytes written here by hand, honest and hostile."""

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kgradcam.checkpoints import read_checkpoint
from kgradcam.errors import UserError

MAGIC = 0x1950A86A20F9469CFC6C


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


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
    """The opcodes of a call of `_rebuild_tensor_v2`."""
    persistent_id = b"(" + text("storage") + f"ctorch\n{storage}\n".encode()
    persistent_id += text(key) + text("cpu") + number(count) + b"NtQ"
    arguments = persistent_id + number(offset) + numbers(shape) + numbers(strides)
    arguments += b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def checkpoint(
    path: Path,
    tensors: dict[str, bytes],
    storages: dict[str, Any],
    magic: int = MAGIC,
    little_endian: bool = True,
) -> Path:
    state = b"\x80\x02ccollections\nOrderedDict\n)R("
    state += b"".join(text(name) + opcodes for name, opcodes in tensors.items()) + b"u"
    state += b"}" + text("_metadata") + b"}sb."
    facts = {"protocol_version": 1001, "little_endian": little_endian}
    header = [pickle.dumps(value, 2) for value in (magic, 1001, facts)]
    raw = [struct.pack("<q", len(array)) + array.tobytes() for array in storages.values()]
    path.write_bytes(b"".join([*header, state, pickle.dumps(list(storages), 2), *raw]))
    return path


SIX = np.arange(6, dtype="<f4")


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
    ("tensors", "message"),
    [
        ({"a": tensor("1", 6, (7,), (1,))}, "beyond its storage"),
        ({"a": tensor("1", 6, (2, 3), (4, 1))}, "beyond its storage"),
        ({"a": tensor("1", 6, (6,), (1,), offset=1)}, "beyond its storage"),
        ({"a": tensor("1", 6, (100_000, 100_000), (0, 0))}, "beyond its storage"),
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
        # State would slip past the checks on strides, into memory beyond the storage.
        (
            {"a": tensor("1", 6, (2,), (1,)) + b"}" + text("strides") + numbers((-1000,)) + b"sb"},
            "gives state to an object that takes none",
        ),
        ({"a": tensor("1", 6, (6,), (1,), storage="EvilStorage")}, "torch.EvilStorage"),
        ({"a": b"cos\nsystem\n" + text("touch pwned") + b"\x85R"}, "os.system"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, tensors: dict[str, bytes], message: str
) -> None:
    path = checkpoint(tmp_path / "a.pth", tensors, {"1": SIX})
    with pytest.raises(UserError, match=f"a.pth is no checkpoint .*{message}"):
        read_checkpoint(path)


def test_other_files_are_told_apart(tmp_path: Path) -> None:
    good = {"a": tensor("1", 6, (6,), (1,))}
    with pytest.raises(UserError, match="does not begin as"):
        read_checkpoint(checkpoint(tmp_path / "a.pth", good, {"1": SIX}, magic=1))
    with pytest.raises(UserError, match="does not begin as"):
        read_checkpoint(checkpoint(tmp_path / "a.pth", good, {"1": SIX}, little_endian=False))
    (tmp_path / "zip.pth").write_bytes(b"PK\x03\x04rest")
    with pytest.raises(UserError, match="zip format. Save it again"):
        read_checkpoint(tmp_path / "zip.pth")
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_checkpoint(tmp_path / "nowhere.pth")


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.pth", {"a": tensor("1", 6, (6,), (1,))}, {"1": SIX})
    whole = path.read_bytes()
    for end in range(0, len(whole) - 1, 3):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"a\.pth"):
            read_checkpoint(path)


def test_pytorch_writes_what_is_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not needed, but would be compared with")
    state = {"w": torch.arange(6.0).reshape(2, 3).t(), "n": torch.tensor(3)}
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    tensors = read_checkpoint(tmp_path / "a.pth")
    assert tensors["w"].tolist() == state["w"].tolist()
    assert tensors["n"].tolist() == 3
