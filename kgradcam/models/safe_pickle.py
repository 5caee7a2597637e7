"""Reads pickles that somebody else made, without running anything of theirs.

A pickle is a program. This reader first walks through its opcodes and admits only those that build
plain containers, numbers and strings, and then resolves a global name only if the caller has listed
it, to a function that the caller wrote.
"""

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, ClassVar

from kgradcam.errors import UserError

_OPCODES = frozenset(
    # The frame of a pickle and its memo. The protocol-0 forms are text, rare, and not admitted.
    "PROTO STOP MARK BINPUT LONG_BINPUT BINGET LONG_BINGET MEMOIZE FRAME POP POP_MARK "
    # Scalars and strings.
    "NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT "
    "BINUNICODE SHORT_BINUNICODE BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BYTEARRAY8 "
    # Containers.
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS "
    # Names and calls, which the caller's table then limits.
    "GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID".split()
)


# The hash of a tuple descends through all tuples within, in C: deep enough ones crash Python.
_Key = str | bytes | int | float | None


class Stateful:
    """A stand-in that takes the state which a pickle gives it, by its `__setstate__`.

    A pickle may try to give state to anything, a function of the reader's included. Nothing but
    instances of this class ever gets any.
    """

    def __setstate__(self, state: Any) -> None:
        """Takes the state; here, lets it go."""


class UnsafePickleError(UserError):
    """A pickle asks for more than the reader admits, or is no pickle at all."""


def load(
    file: BinaryIO,
    allowed: Mapping[tuple[str, str], Callable[..., Any]],
    persistent_load: Callable[[Any], Any] | None = None,
) -> Any:
    """Reads the next pickle of an open file, and leaves the position behind it.

    Args:
        file: A seekable binary file; several pickles may follow one another in it.
        allowed: For each `(module, name)` that the pickle may refer to, the function or type that
            stands for it. Give functions of your own that check their arguments before they hash
            or compare them: the pickle chooses what they are called with.
        persistent_load: Resolves persistent ids; without it a pickle that holds one is refused.

    Returns:
        What the pickle describes, built from plain Python values and the results of `allowed`.

    Raises:
        UnsafePickleError: The pickle uses an opcode or a global that is not admitted, has a dict
            with keys other than numbers and strings, or is damaged.

    Example:
        >>> load(io.BytesIO(pickle.dumps([1, "a"])), allowed={})
        [1, 'a']
    """
    start = file.tell()
    try:
        opcodes = pickletools.genops(_Rest(file))  # type: ignore[arg-type] # it has what they call
        for opcode, _, _ in opcodes:
            if opcode.name not in _OPCODES:
                raise UnsafePickleError(f"The pickle uses the opcode {opcode.name}, not admitted.")
        size = file.tell() - start
    except UnsafePickleError:
        raise
    except Exception as error:  # pickletools raises many kinds on damaged input
        raise UnsafePickleError(f"Not a readable pickle: {error}") from error
    file.seek(start)
    reader = _Unpickler(io.BytesIO(file.read(size)), allowed, persistent_load)
    try:
        return reader.load()
    except UnsafePickleError:
        raise
    except Exception as error:  # as above: whatever damaged input provokes
        raise UnsafePickleError(f"Not a readable pickle: {error}") from error


class _Rest:
    """What is left of a file: a length that a pickle claims takes no memory beyond it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, start = file, file.tell()
        self._end = file.seek(0, io.SEEK_END)
        file.seek(start)
        self.tell, self.readline = file.tell, file.readline

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._end - self._file.tell()))


class _Unpickler(pickle._Unpickler):
    """The unpickler in Python: a huge memo index costs it no table, and opcodes can be kept in."""

    stack: list[Any]

    def __init__(
        self,
        file: BinaryIO,
        allowed: Mapping[tuple[str, str], Callable[..., Any]],
        persistent_load: Callable[[Any], Any] | None,
    ) -> None:
        super().__init__(file, encoding="latin1")
        self._allowed = allowed
        self._persistent_load = persistent_load

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return self._allowed[module_name, global_name]
        except KeyError:
            # Escaped, for a stranger's text may hold what commands a terminal.
            name = f"{module_name}.{global_name}".encode("unicode_escape").decode()
            raise UnsafePickleError(
                f"The pickle refers to {name}, which is not admitted."
            ) from None

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], Stateful):
            raise UnsafePickleError("The pickle gives state to an object that takes none.")
        self.stack[-1].__setstate__(state)

    def load_setitem(self) -> None:
        _check_keys(self.stack[-2:-1])
        super().load_setitem()  # type: ignore[misc] # typeshed lacks it

    def load_setitems(self) -> None:
        _check_keys(self.stack[::2])
        super().load_setitems()  # type: ignore[misc]

    dispatch: ClassVar[dict[int, Callable[..., Any]]] = {
        **pickle._Unpickler.dispatch,
        pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent_load is None:
            raise UnsafePickleError("The pickle holds a persistent id, which is not admitted.")
        return self._persistent_load(pid)


def _check_keys(keys: list[Any]) -> None:
    if not all(isinstance(key, _Key) for key in keys):
        raise UnsafePickleError("The pickle has a dict with a key that is no number or string.")
