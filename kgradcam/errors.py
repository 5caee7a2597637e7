"""Errors that the user can correct, and hints for mistyped names."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any


class UserError(ValueError):
    """A mistake that the user can correct.

    The message names the received value, the expected one, and a way out. The command line prints
    the message without a traceback and exits with 1.
    """


class UsageError(UserError):
    """A wrong option or argument; the command line exits with 2."""


class BatchError(UserError):
    """A model does not take images of the size or number in this batch; it may take others."""


class DataWarning(UserWarning):
    """Data that can be read, but may be meant otherwise; the command line prints one line."""


def did_you_mean(name: str, options: Iterable[str], count: int = 3) -> str:
    """Returns a hint with the names closest to a mistyped one.

    Args:
        name: The mistyped name.
        options: The valid names.
        count: The maximum number of names in the hint.

    Returns:
        A sentence with a leading space, `" Did you mean 'dog'?"`; an empty string if no name is
        close.

    Example:
        >>> did_you_mean("dgo", ["cat", "dog"])
        " Did you mean 'dog'?"
    """
    by_lower = {option.lower(): option for option in options}
    close = get_close_matches(name.lower(), by_lower, n=count)
    if not close:
        return ""
    return f" Did you mean {' or '.join(repr(by_lower[match]) for match in close)}?"


def require_known(name: str, value: str, known: Collection[str]) -> None:
    """Raises if a value is not one of the known ones, and names the closest of them.

    Args:
        name: The argument or option.
        value: The value received.
        known: The values expected.

    Raises:
        UsageError: `value` is none of them.
    """
    if value not in known:
        *first, last = known
        expected = f"{', '.join(first)} or {last}" if first else last
        raise UsageError(
            f"{name} must be {expected}. Received: {value!r:.80}.{did_you_mean(str(value), known)}"
        )


def differences(then: Any, now: Any, name: str = "") -> list[str]:
    """Lists the differences between stored values and those of today, for an error message.

    Args:
        then: The stored value, as read from JSON. Dictionaries are compared key by key.
        now: The value of today. Keys that only `then` has are ignored.
        name: The path of the values.

    Returns:
        A text for each difference, such as `"options.seed: 0 then, 1 now"`.

    Example:
        >>> differences({"options": {"seed": 0, "size": 8}}, {"options": {"seed": 1, "size": 8}})
        ['options.seed: 0 then, 1 now']
    """
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        return [
            text
            for key, value in now.items()
            for text in differences(then.get(key), value, f"{name}.{key}" if name else key)
        ]
    return [] if then == now else [f"{name}: {json.dumps(then)} then, {json.dumps(now)} now"]


@contextmanager
def errors_in_file(path: Path, expected: str) -> Iterator[None]:
    """Turns errors in the content of a file into a `UserError` that names the file.

    Args:
        path: The file.
        expected: The kind of its content, such as `"COCO ground truth"`.

    Raises:
        UserError: The block raised an error that malformed content causes.
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except KeyError as error:
        raise UserError(f"{path} is no {expected}: it has no {error}.") from error
    # OverflowError and RecursionError come from huge numbers and deep nesting.
    except (TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} is no {expected}: {error}") from error
