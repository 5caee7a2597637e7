"""Reads options from a TOML file, and passes them on by name."""

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import typer

from kgradcam.cli.parsing import expand_home
from kgradcam.errors import UsageError, UserError, did_you_mean
from kgradcam.files import read_bounded


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Makes the values of a TOML file the defaults of a command."""
    if path is None:
        return None
    text = read_bounded(path, 2**20)
    try:
        content = tomllib.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error
    options: Any = context.command.params
    names = {
        option.removeprefix("--"): each.name
        for each in options
        for option in each.opts
        if option.startswith("--") and each.name not in ("config", "dry_run", "help")
    }
    defaults: dict[str, Any] = {}
    for key, value in content.items():
        name = key.replace("_", "-")
        if name not in names:
            raise UsageError(
                f"{path}: {key!r} is not an option of {context.command.name}."
                f"{did_you_mean(name, names)} Options: {', '.join(sorted(names))}."
            )
        if isinstance(value, dict):
            raise UsageError(f"{path}: {key!r} must be a value or a list. Received: a table.")
        # Values become text, so that the parser of the command line reads them too.
        repeats = any(each.name == names[name] and each.multiple for each in options)
        texts = [expand_home(str(each)) for each in (value if isinstance(value, list) else [value])]
        defaults[names[name]] = texts if repeats else ",".join(texts)
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


def given_options(context: typer.Context) -> list[str]:
    """Returns the options set on the command line, in a file or in the environment."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source and source.name != "DEFAULT"]


def options_of(context: typer.Context, configuration: Any) -> dict[str, Any]:
    """Returns the values of the options that have the name of a field of a dataclass."""
    names = {field.name for field in fields(configuration)}
    return {name: value for name, value in context.params.items() if name in names}
