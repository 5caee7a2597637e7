"""Checks libraries and processor before the first import that would break on them."""

import re
import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

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


def check_processor(description: Path = Path("/proc/cpuinfo")) -> None:
    """Raises if the processor lacks AVX, without which the import of TensorFlow ends the process.

    Args:
        description: The file in which Linux describes the processor.

    Raises:
        UserError: It is an x86 processor without AVX.
    """
    if not sys.platform.startswith("linux") or not description.is_file():
        return
    flags = re.search(r"^flags\s*:(.*)$", description.read_text("utf-8", "replace"), re.MULTILINE)
    if flags and "avx" not in flags[1].split():
        raise UserError(
            "TensorFlow needs a processor with AVX instructions, and this one has none. On a "
            "virtual machine, select a newer processor type, or use another machine."
        )


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with, without zeros at the end: 3.11.0rc1 is 3, 11."""
    start = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(each) for each in start[0].split(".")] if start else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
