"""Mistakes that a user can mend, told in one sentence."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake that the user can mend.

    The message names what was received, what was expected and what to try. The command line prints
    it alone, without a traceback, and exits with 1.
    """


class UsageError(UserError):
    """A wrong option or argument; the command line exits with 2."""


def did_you_mean(name: str, options: Iterable[str], count: int = 3) -> str:
    """Returns a hint with the names closest to a mistyped one.

    Args:
        name: What the user wrote.
        options: The names that exist.
        count: How many names to offer at most.

    Returns:
        A sentence with a leading space, `" Did you mean 'dog'?"`, or an empty string where nothing
        is close.

    Example:
        >>> did_you_mean("dgo", ["cat", "dog"])
        " Did you mean 'dog'?"
    """
    by_lower = {option.lower(): option for option in options}
    close = get_close_matches(name.lower(), by_lower, n=count)
    if not close:
        return ""
    return f" Did you mean {' or '.join(repr(by_lower[match]) for match in close)}?"
