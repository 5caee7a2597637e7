"""Groups of options that several commands share: a dataclass is one parameter of a command."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from typing_extensions import override

from kgradcam.cli import options
from kgradcam.cli.output import print_result, require_absent
from kgradcam.cli.parsing import pixel_scale
from kgradcam.errors import UsageError


def flatten(command: Callable[..., None]) -> Callable[..., None]:
    """Returns a command whose groups are replaced by their fields, since Typer has no groups."""
    signature = inspect.signature(command)

    @wraps(command)
    def flat(**values: Any) -> None:
        command(
            **{
                name: _take(name, values, each.annotation)
                for name, each in signature.parameters.items()
            }
        )

    parameters = [one for each in signature.parameters.values() for one in _expand(each)]
    flat.__annotations__ = {each.name: each.annotation for each in parameters}
    flat.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return flat


def _expand(parameter: inspect.Parameter) -> Iterator[inspect.Parameter]:
    """Yields the parameter, or those of the fields of a group, which may be groups too."""
    if not is_dataclass(parameter.annotation):
        yield parameter.replace(kind=parameter.KEYWORD_ONLY)
        return
    for each in fields(parameter.annotation):
        yield from _expand(
            inspect.Parameter(
                each.name, parameter.KEYWORD_ONLY, default=each.default, annotation=each.type
            )
        )


def _take(name: str, values: dict[str, Any], kind: Any) -> Any:
    """Returns a value, or the group of the values of its fields."""
    if not is_dataclass(kind):
        return values[name]
    group: Any = kind
    return group(**{each.name: _take(each.name, values, each.type) for each in fields(kind)})


@dataclass(frozen=True)
class ModelOptions:
    """How a model is loaded, its name aside."""

    weights: options.Weights = "imagenet"
    preprocess: options.Preprocess = None
    scale_pixels: options.ScalePixels = False
    names: options.Names = None
    output: options.Output = None
    imports: options.Imports = None
    trust_model: options.TrustModel = False

    def __post_init__(self) -> None:
        """Fails before the work if options contradict one another."""
        pixel_scale(self.preprocess, self.scale_pixels)

    def load(self, model: str, image_size: Any) -> Any:
        """Imports the modules of `--import`, and loads a `Classifier`."""
        from kgradcam.models.classifier import load_classifier
        from kgradcam.models.own_layers import import_modules

        import_modules(self.imports or ())
        return load_classifier(
            model,
            self.weights,
            image_size,
            pixel_scale(self.preprocess, self.scale_pixels),
            self.trust_model,
            names=self.names,
            output=self.output,
        )


@dataclass(frozen=True)
class ResultForm:
    """The form in which a result is printed: at most one; a table by default."""

    as_json: options.AsJson = False
    as_csv: options.AsCsv = False
    as_markdown: options.AsMarkdown = False
    as_latex: options.AsLatex = False

    def __post_init__(self) -> None:
        """Fails before the work if several forms are given."""
        if len(given := self._given()) > 1:
            raise UsageError(f"Give one of --{' and --'.join(given)}.")

    def print(self, result: Any, quiet: bool = False, out: Path | None = None) -> None:
        """Prints a `Result`, and writes its files to the folder `out`, if any."""
        print_result(result, next(iter(self._given()), "table"), out, quiet)

    def _given(self) -> list[str]:
        return [
            each.name.removeprefix("as_") for each in fields(ResultForm) if getattr(self, each.name)
        ]


@dataclass(frozen=True)
class ResultOptions(ResultForm):
    """The form of a result, and the folder that keeps it."""

    out: options.ResultFolder = None
    force: options.Force = False

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        require_absent(self.out and self.out / "evaluation.json", self.force)

    @override
    def print(self, result: Any, quiet: bool = False, out: Path | None = None) -> None:
        super().print(result, quiet, out or self.out)
