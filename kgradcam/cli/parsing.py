"""Parses the values of options: numbers, ranges, sizes, and names of rules."""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import typer

from kgradcam.errors import UsageError, UserError, require_known
from kgradcam.files import home_folder, read_bounded


def expand_home(argument: str) -> str:
    """Replaces a leading ~, also of a value as in --out=~/x, where no shell has done so."""
    return re.sub(r"(^|=)~(?=[/\\]|$)", lambda found: found[1] + str(home_folder()), argument)


LARGEST_NUMBER = 2**31 - 1
"""The largest number of any option; TensorFlow counts in int32."""


class Numbers(list[float]):
    """The parsed value of an option of numbers."""


def numbers(text: str | Numbers) -> Numbers:
    """Parses a number, several with commas, or a range START:STOP:STEP with both ends."""
    if isinstance(text, Numbers):
        return text
    found = Numbers()
    for item in text.split(","):
        try:
            start, *rest = map(Decimal, item.split(":"))
            stop, step = rest or (start, Decimal(1))
        except (ArithmeticError, ValueError):
            raise typer.BadParameter(
                f"{item!r:.80} is neither a number nor START:STOP:STEP."
            ) from None
        if not (start.is_finite() and stop.is_finite() and step > 0 and start <= stop):
            raise typer.BadParameter(
                f"{item!r:.80} is not an increasing range with a positive step."
            )
        if max(-start, stop) > LARGEST_NUMBER:
            raise typer.BadParameter(f"{item!r:.80} is larger than {LARGEST_NUMBER:,}.")
        count = int((stop - start) / step) + 1
        if count > 10_000:
            raise typer.BadParameter(f"{item!r:.80} has more than 10,000 numbers.")
        # Decimal arithmetic: 0.1:0.3:0.1 must end in 0.3, not in 0.30000000000000004.
        found += [float(start + i * step) for i in range(count)]
    return found


def fractions(text: str | Numbers) -> Numbers:
    """Parses numbers in [0, 1]."""
    found = numbers(text)
    if not all(0 <= each <= 1 for each in found):
        raise typer.BadParameter(f"{text:.80} is not in the range 0 to 1.")
    return found


def pixels(text: str | Numbers) -> Numbers:
    """Parses smoothing radii."""
    from kgradcam.boxes.options import MAX_RADIUS

    found = numbers(text)
    if not all(0 <= each <= MAX_RADIUS and each == int(each) for each in found):
        raise typer.BadParameter(
            f"{text:.80} is not a whole number of pixels from 0 to {MAX_RADIUS:,}."
        )
    return found


def joined(lists: Sequence[Numbers] | None) -> list[float]:
    """Returns the numbers of a repeated option without duplicates, in the order given."""
    return list(dict.fromkeys(each for given in lists or () for each in given))


def whole_numbers(lists: Sequence[Numbers] | None) -> list[int] | None:
    """Returns the numbers of a repeated option as integers, or `None` if it is absent."""
    return [int(each) for each in joined(lists)] or None


def layer_paths(names: Sequence[str] | None) -> str | tuple[str, ...] | None:
    """Parses `--layer`: none, one, or several layers to fuse."""
    if not names:
        return None
    return names[0] if len(names) == 1 else tuple(names)


def class_mapping(path: Path | None) -> dict[str, str]:
    """Reads a TOML file of targets by class: `"Felis catus" = "281-285"`, a number, or a list."""
    if path is None:
        return {}
    try:
        content = tomllib.loads(read_bounded(path, 2**24).decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error
    mapping = {}
    for name, value in content.items():
        parts = value if isinstance(value, list) else [value]
        if not parts or not all(type(part) in (str, int) for part in parts):
            raise UserError(
                f"{path}: {name!r} must be a target, such as 104, '151-268' or ['tabby', 'tiger "
                f"cat']. Received: {value!r}."
            )
        mapping[name] = ",".join(map(str, parts))
    if not mapping:
        raise UserError(f"{path} holds no class. Expected lines such as dog = '151-268'.")
    return mapping


def image_size(text: str) -> int | tuple[int, ...] | None:
    """Parses `--image-size`: N, WxH, or native, which is `None`."""
    if text == "native":
        return None
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text, re.ASCII)
    if match is None or int(match[1]) == 0 or (match[2] and int(match[2]) == 0):
        raise UsageError(
            "--image-size must be native, a number of pixels, or WIDTHxHEIGHT, at most 99999. "
            f"Received: {text!r:.80}."
        )
    width, height = int(match[1]), int(match[2] or match[1])
    return width if width == height else (width, height)


def pixel_scale(preprocess: str | None, scale_pixels: bool) -> str | None:
    """Returns the preprocessing that `--preprocess` or `--scale-pixels` names."""
    if preprocess and scale_pixels:
        raise UsageError("Give one of --preprocess and --scale-pixels.")
    return "0..1" if scale_pixels else preprocess


def box_rules(boxes: str, radius: int | None = None, score: str | None = None) -> Any:
    """Returns the default box options of `--boxes`, with radius and score replaced if given."""
    from kgradcam.boxes.options import DEFAULT_OPTIONS

    require_known("--boxes", boxes, DEFAULT_OPTIONS)
    rules = DEFAULT_OPTIONS[boxes]
    return replace(
        rules,
        smooth_radius=rules.smooth_radius if radius is None else radius,
        score=score or rules.score,
    )
