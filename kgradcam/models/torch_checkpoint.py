"""Reads tensors from PyTorch's legacy checkpoint files, without PyTorch.

Such a file holds five pickles: a magic number, a version, facts about the writing machine, the
state dict, and the keys of its storages. Each storage follows as an int64 count and its raw
elements. The state dict refers to storages by persistent ids.

A pickle is a program that may call any function. The unpickler here resolves a fixed list of names
(https://docs.python.org/3/library/pickle.html#restricting-globals), each to a stand-in that checks
its arguments. The stand-ins are immutable, because a pickle may also assign attributes.
"""

import io
import math
import pickle
import pickletools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from kgradcam.errors import UserError
from kgradcam.files import read_bounded

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_MAX_BYTES = 2**28  # the checkpoint of EfficientNet-Lite0 has 18 MB
_MAX_DIMENSIONS = 32  # the limit of NumPy 1


def read_checkpoint(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Reads the tensors of a state dict.

    Args:
        path: A file that `torch.save` wrote before PyTorch 1.6, or later with
            `_use_new_zipfile_serialization=False`. At most 256 MiB.

    Returns:
        The arrays by name, in the order of the file. Names of the same tensor share one array.

    Raises:
        UserError: The file is missing, too large, damaged or of another format, or its pickles
            refer to anything but tensors.
    """
    content = read_bounded(path, _MAX_BYTES)
    try:
        return _read(content)
    except UserError as error:
        raise UserError(f"{path} is not a checkpoint that kgradcam can read: {error}") from error


class _StorageType(NamedTuple):
    """Stands for a class such as `torch.FloatStorage`."""

    dtype: str


class _Storage(NamedTuple):
    """A storage as the state dict describes it; its elements follow after the pickles."""

    key: str
    dtype: str
    length: int

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize


class _Tensor(NamedTuple):
    """A tensor as the state dict describes it: a strided view of a storage, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.storage.itemsize

    def copy_from(self, elements: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Copies the tensor out of the elements of its storage; checks the bounds first."""
        if 0 in self.shape:
            try:
                return np.zeros(self.shape, elements.dtype)
            except ValueError as error:  # NumPy refuses (0, 2**62, 2**62) although it is empty
                raise UserError("a tensor has an impossible shape.") from error
        # The stride of a dimension of size 1 is never used, so any value is allowed there.
        steps = [
            step if side > 1 else 0 for side, step in zip(self.shape, self.strides, strict=True)
        ]
        last = sum((side - 1) * step for side, step in zip(self.shape, steps, strict=True))
        # Strides of 0 repeat elements; a tensor larger than its storage would be a memory bomb.
        if self.offset + last >= len(elements) or math.prod(self.shape) > len(elements):
            raise UserError("a tensor reaches beyond its storage.")
        return np.lib.stride_tricks.as_strided(
            elements[self.offset :], self.shape, [step * self.storage.itemsize for step in steps]
        ).copy()


class _RebuildTensor:
    """Stands for `torch._utils._rebuild_tensor_v2`."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> _Tensor:
        if not isinstance(storage, _Storage):
            raise UserError("a tensor has no storage.")
        if not (
            isinstance(shape, tuple)
            and isinstance(strides, tuple)
            and len(shape) == len(strides) <= _MAX_DIMENSIONS
            and all(type(number) is int and number >= 0 for number in (offset, *shape, *strides))
        ):
            raise UserError("a tensor has an impossible shape.")
        return _Tensor(storage, offset, shape, strides)


class _StateDict(dict[str, Any]):
    """Stands for `collections.OrderedDict`; drops the attributes that PyTorch adds to it."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        for name, value in items:
            self[name] = value

    @override
    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str):
            raise UserError("the name of a tensor is not a string.")
        super().__setitem__(name, value)

    def __setstate__(self, state: Any) -> None:
        """Ignores the state, which holds version numbers of PyTorch's layers."""


_STAND_INS: dict[tuple[str, str], Callable[..., Any] | _StorageType] = {
    ("collections", "OrderedDict"): _StateDict,
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch", "DoubleStorage"): _StorageType("<f8"),
    ("torch", "FloatStorage"): _StorageType("<f4"),
    ("torch", "HalfStorage"): _StorageType("<f2"),
    ("torch", "LongStorage"): _StorageType("<i8"),
    ("torch", "IntStorage"): _StorageType("<i4"),
    ("torch", "ShortStorage"): _StorageType("<i2"),
    ("torch", "CharStorage"): _StorageType("i1"),
    ("torch", "ByteStorage"): _StorageType("u1"),
    ("torch", "BoolStorage"): _StorageType("?"),
}


class _Unpickler(pickle.Unpickler):
    @override
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return _STAND_INS[module_name, global_name]
        except KeyError:
            # `!a` escapes control characters, which would act on a terminal.
            name = f"{module_name}.{global_name}"
            raise UserError(f"its pickle refers to {name!a}, which is not allowed.") from None

    @override
    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", _StorageType(dtype), str(key), str(), int(length), None):
                return _Storage(key, dtype, length)
        raise UserError("a storage is described in an unknown way.")


def _load_pickle(stream: io.BytesIO) -> Any:
    """Loads the next pickle of a stream."""
    start, size = stream.tell(), len(stream.getbuffer())
    try:
        # The unpickler allocates the size that an opcode declares: the stream must be as large.
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name.endswith("PUT") and isinstance(argument, int) and argument > size:
                raise UserError(f"its pickle has a memo entry {argument:,}.")
        stream.seek(start)
        return _Unpickler(stream).load()
    except UserError:
        raise
    except Exception as error:  # damaged pickles raise errors of many types
        raise UserError(f"its pickle is damaged: {error}") from error


def _read(content: bytes) -> dict[str, npt.NDArray[Any]]:
    if content.startswith(b"PK\x03\x04"):
        raise UserError(
            "it is in PyTorch's zip format. Save it again with "
            "torch.save(..., _use_new_zipfile_serialization=False)."
        )
    stream = io.BytesIO(content)
    match [_load_pickle(stream) for _ in range(3)]:
        case [magic, version, {"little_endian": True}] if (magic, version) == (_MAGIC, _VERSION):
            pass
        case _:
            raise UserError("it does not begin as a legacy checkpoint does.")
    tensors, keys = _load_pickle(stream), _load_pickle(stream)
    if not isinstance(tensors, dict) or not isinstance(keys, list):
        raise UserError("it holds no state dict.")
    if not all(isinstance(k, str) and isinstance(v, _Tensor) for k, v in tensors.items()):
        raise UserError("its state dict holds other things than tensors.")
    if not all(isinstance(key, str) for key in keys):
        raise UserError("its list of storages holds other things than names.")
    distinct = set(tensors.values())
    # A thousand different views of one small storage could add up to gigabytes.
    if sum(tensor.nbytes for tensor in distinct) > len(content):
        raise UserError("its tensors together are larger than the file.")
    storages = {tensor.storage for tensor in distinct}
    elements = _read_storages(stream, len(content), keys, storages)
    arrays = {tensor: tensor.copy_from(elements[tensor.storage.key]) for tensor in distinct}
    return {name: arrays[tensor] for name, tensor in tensors.items()}


def _read_storages(
    stream: io.BytesIO, size: int, keys: list[str], storages: set[_Storage]
) -> dict[str, npt.NDArray[Any]]:
    """Reads the elements of the storages, which are stored in the order of `keys`."""
    described = {storage.key: storage for storage in storages}
    if len(described) != len(storages):
        raise UserError("a storage is described twice, in different ways.")
    elements = {}
    for key in keys:
        if key not in described:
            raise UserError(f"the storage {key!r} belongs to no tensor.")
        storage = described[key]
        length = int.from_bytes(stream.read(8), "little")
        nbytes = storage.length * storage.itemsize
        if length != storage.length or nbytes > size - stream.tell():
            raise UserError("a storage is shorter than described.")
        elements[key] = np.frombuffer(stream.read(nbytes), storage.dtype)
    missing = described.keys() - elements.keys()
    if missing:
        raise UserError(f"the storage {min(missing)!r} is missing.")
    return elements
