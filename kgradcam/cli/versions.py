"""Checks the installed libraries before the first import that an old one would break."""

import re
from collections.abc import Callable, Iterable
from importlib import metadata

from kgradcam.errors import UserError


def check_versions(
    requirements: Iterable[str] | None = None, installed: Callable[[str], str] = metadata.version
) -> None:
    """Raises if a library is older than kgradcam needs.

    Args:
        requirements: Requirements as `"keras>=3.11"`; others are ignored, as those of extras.
            Default: those of the installed kgradcam.
        installed: Returns the version of a library.

    Raises:
        UserError: Libraries are too old.
    """
    if requirements is None:
        try:
            requirements = metadata.requires("kgradcam") or ()
        except metadata.PackageNotFoundError:  # run from its source
            return
    found = filter(None, (re.fullmatch(r"([\w.-]+)>=([\d.]+)", each) for each in requirements))
    old = []
    for name, least in (match.groups() for match in found):
        try:
            version = installed(name)
        except metadata.PackageNotFoundError:  # installed under another name, as tensorflow-cpu
            continue
        if _numbers(version) < _numbers(least):
            old.append((f"{name} {version}", f"{name}>={least}"))
    if old:
        received, needed = (", ".join(each) for each in zip(*old, strict=True))
        upgrade = " ".join(f"'{each[1]}'" for each in old)
        raise UserError(
            f"kgradcam needs newer libraries: {needed}. Received: {received}. "
            f"pip install --upgrade {upgrade}"
        )


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with, without zeros at the end: 3.11.0rc1 is 3, 11."""
    start = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(each) for each in start[0].split(".")] if start else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
