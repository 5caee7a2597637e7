"""Reads tensors from PyTorch's legacy checkpoint files, without PyTorch and without trusting them.

Such a file is a row of pickles: a magic number, a version, facts on the writing machine, the state
dict, the keys of its storages; then each storage, as an int64 count and its raw elements. The state
dict refers to storages by persistent ids.
"""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from kgradcam.errors import UserError
from kgradcam.models import safe_pickle

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_STORAGE_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_MOST_DIMENSIONS = 32  # what NumPy 1 allows


def read_checkpoint(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Reads the tensors of a state dict.

    Args:
        path: A file that `torch.save` wrote before PyTorch 1.6, or since then with
            `_use_new_zipfile_serialization=False`.

    Returns:
        The arrays by name, in the file's order. Names of the same tensor share one array.

    Raises:
        UserError: The file is missing, of another format, damaged, or asks for more than tensors.
    """
    try:
        with path.open("rb") as file:
            return _read(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except UserError as error:
        raise UserError(f"{path} is no checkpoint that kgradcam reads: {error}") from error


@dataclass(frozen=True)
class _Storage:
    """What the state dict says of a storage."""

    key: str
    dtype: str
    count: int

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class _Tensor:
    """What the state dict says of a tensor: a view of a storage that is yet to be read."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of the tensor by itself."""
        return math.prod(self.shape) * self.storage.itemsize

    def view(self, storage: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Copies the tensor out of its storage, of which it must not leave the bounds."""
        if 0 in self.shape:
            try:
                return np.zeros(self.shape, storage.dtype)
            except ValueError as error:  # (0, 2**62, 2**62) is too large even so
                raise UserError("a tensor has an impossible shape.") from error
        # The step along a side of 1 is never taken, whatever it may be.
        steps = [
            step if side > 1 else 0 for side, step in zip(self.shape, self.strides, strict=True)
        ]
        last = sum((side - 1) * step for side, step in zip(self.shape, steps, strict=True))
        # A view may repeat elements, but a state dict's tensors never outgrow their storage.
        if self.offset + last >= len(storage) or math.prod(self.shape) > len(storage):
            raise UserError("a tensor reaches beyond its storage.")
        return np.lib.stride_tricks.as_strided(
            storage[self.offset :], self.shape, [step * storage.itemsize for step in steps]
        ).copy()


class _StateDict(dict[str, Any], safe_pickle.Stateful):
    """Stands for `OrderedDict`; what PyTorch hangs onto it is let go."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        for name, value in items:
            if not isinstance(name, str):
                raise UserError("a tensor's name is no string.")
            self[name] = value


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise UserError("a tensor has no storage.")
    if not (
        isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and len(shape) == len(strides) <= _MOST_DIMENSIONS
        and all(type(number) is int and number >= 0 for number in (offset, *shape, *strides))
    ):
        raise UserError("a tensor has an impossible shape.")
    return _Tensor(storage, offset, shape, strides)


def _storage(persistent_id: Any) -> _Storage:
    match persistent_id:
        case ("storage", _StorageType(dtype), str(key), str(), int(count), None):
            return _Storage(key, dtype, count)
    raise UserError("a storage is described in an unknown way.")


@dataclass(frozen=True)
class _StorageType:
    dtype: str

    def __call__(self) -> None:
        raise UserError("a storage type is called.")


_ADMITTED: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _StateDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    **{("torch", name): _StorageType(dtype) for name, dtype in _STORAGE_DTYPES.items()},
}


def _read(file: BinaryIO, size: int) -> dict[str, npt.NDArray[Any]]:
    if file.read(4) == b"PK\x03\x04":
        raise UserError(
            "it is in PyTorch's zip format. Save it again with "
            "torch.save(..., _use_new_zipfile_serialization=False)."
        )
    file.seek(0)
    header = [safe_pickle.load(file, {}) for _ in range(3)]
    match header:
        case [magic, version, {"little_endian": True}] if (magic, version) == (_MAGIC, _VERSION):
            pass
        case _:
            raise UserError("it does not begin as a legacy checkpoint does.")
    tensors = safe_pickle.load(file, _ADMITTED, _storage)
    keys = safe_pickle.load(file, {})
    if not isinstance(tensors, dict) or not isinstance(keys, list):
        raise UserError("it holds no state dict.")
    if not all(isinstance(k, str) and isinstance(v, _Tensor) for k, v in tensors.items()):
        raise UserError("its state dict holds other things than tensors.")
    if not all(isinstance(key, str) for key in keys):
        raise UserError("its list of storages holds other things than names.")
    distinct = set(tensors.values())
    # A small storage that a thousand tensors share would grow into gigabytes.
    if sum(tensor.size for tensor in distinct) > size:
        raise UserError("its tensors together are larger than the file.")
    storages = _read_storages(file, size, keys, {tensor.storage for tensor in distinct})
    arrays = {tensor: tensor.view(storages[tensor.storage.key]) for tensor in distinct}
    return {name: arrays[tensor] for name, tensor in tensors.items()}


def _read_storages(
    file: BinaryIO, size: int, keys: list[str], storages: set[_Storage]
) -> dict[str, npt.NDArray[Any]]:
    """Reads the storages, which lie in the order of `keys`, by key."""
    described = {storage.key: storage for storage in storages}
    if len(described) != len(storages):
        raise UserError("a storage is described twice, in different ways.")
    elements = {}
    for key in keys:
        if key not in described:
            raise UserError(f"the storage {key!r} belongs to no tensor.")
        storage = described[key]
        written = int.from_bytes(file.read(8), "little")
        length = storage.count * storage.itemsize
        if written != storage.count or length > size - file.tell():
            raise UserError("a storage is shorter than described.")
        elements[key] = np.frombuffer(file.read(length), storage.dtype)
    missing = described.keys() - elements.keys()
    if missing:
        raise UserError(f"the storage {min(missing)!r} is missing.")
    return elements
