"""Reads the names of a model's outputs from a file."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kgradcam.errors import UserError
from kgradcam.files import read_bounded
from kgradcam.models import imagenet

IMAGENET = "imagenet"
_MAX_BYTES = 2**26


def read_class_names(source: str, outputs: int) -> tuple[str, ...]:
    """Reads one name for each output of a model.

    Args:
        source: `"imagenet"`, or a file: a name on each line, in the order of the outputs, also
            with its number before it (`0 oak`); or JSON: a list of names, an object from names to
            numbers (the `class_indices` of Keras), or from numbers to names.
        outputs: The number of outputs. One output may have two names: of its classes below and
            above one half.

    Returns:
        The names.

    Raises:
        UserError: The file cannot be read, or has another number of names.

    Example:
        >>> read_class_names("imagenet", 1000)[281]
        'tabby'
    """
    if source == IMAGENET:
        names: Sequence[str] = imagenet.CLASS_NAMES
    else:
        path = Path(source)
        try:
            text = read_bounded(path, _MAX_BYTES).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise UserError(f"{path} is not UTF-8 text. Save it as UTF-8.") from None
        names = _parse_json(text, path) if text.lstrip()[:1] in ("[", "{") else _parse_lines(text)
    if len(names) != outputs and (outputs, len(names)) != (1, 2):
        raise UserError(
            f"--names must have a name for each of the {outputs} outputs of the model. Received: "
            f"{len(names)} in {source}."
        )
    return tuple(names)


def _parse_lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.strip().splitlines()]
    numbered = [re.fullmatch(r"(\d+)[\s:,]+(.+)", line) for line in lines]
    numbers = [int(each[1]) for each in numbered if each]
    if len(numbers) == len(lines) and numbers in (_count(lines), _count(lines, 1)):
        return [each[2] for each in numbered if each]
    return lines


def _count(lines: list[str], start: int = 0) -> list[int]:
    return list(range(start, start + len(lines)))


def _parse_json(text: str, path: Path) -> list[str]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no readable JSON: {error}") from error
    if isinstance(content, dict):
        pairs = list(content.items())
        if all(type(value) is int for _, value in pairs):
            pairs = [(value, key) for key, value in pairs]
        by_index: dict[str, Any] = {str(key): value for key, value in pairs}
        content = [by_index.get(str(i)) for i in range(len(pairs))]
    # ["n01440764", "tench"], as in the ImageNet index of Keras
    content = [each[-1] if isinstance(each, list) and each else each for each in content]
    if not all(isinstance(each, str) for each in content):
        raise UserError(
            f"{path} must be a list of names, or an object of names and numbers from 0 on."
        )
    return content
