"""The content of `run.json`: the options, model, dataset and counts of a run."""

import json
import math
import re
import types
import typing
import warnings
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, Self

from kgradcam.data.split_names import HELD_OUT
from kgradcam.errors import DataWarning, UserError
from kgradcam.runs.configuration import Configuration

SCHEMA = 4


@dataclass(frozen=True)
class DatasetInfo:
    """The dataset of a run.

    Attributes:
        name: The name, or the folder.
        split: The split.
        images: The number of images in the split.
        digest: A hash of the annotations.
        files: A hash of the files of the images to explain.
        folder: The path from the run folder to a dataset that is a folder or a file.
        images_folder: The path from the run folder to the given folder of images.
    """

    name: str
    split: str
    images: int
    digest: str
    files: str
    folder: str | None = None
    images_folder: str | None = None


@dataclass(frozen=True)
class ModelInfo:
    """The model of a run.

    Attributes:
        name: The name, or the file.
        layer: The explained layer, or layers; `None` before the first batch of some models.
        parameters: The number of parameters.
        architecture: A hash of the layers and their connections.
        digest: A hash of the weights.
        outputs: The model's outputs for each class; see `Target`.
    """

    name: str
    layer: str | tuple[str, ...] | None
    parameters: int
    architecture: str
    digest: str
    outputs: dict[str, tuple[int | str, ...]]

    def __post_init__(self) -> None:
        for name, target in self.outputs.items():
            if any(isinstance(each, str) for each in target) and target != ("negative",):
                raise TypeError(f"run.json.model.outputs.{name} must be int; it is {target!r}")


@dataclass(frozen=True)
class Counts:
    """The size of a run.

    Attributes:
        images: Images that were explained.
        heatmaps: Heatmaps of all images and classes.
        objects: Annotated boxes.
        skipped: Images that could not be used.
    """

    images: int = 0
    heatmaps: int = 0
    objects: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class SkippedImage:
    """An image that could not be used.

    Attributes:
        file: Its file name.
        reason: One line.
    """

    file: str
    reason: str


@dataclass(frozen=True)
class RefinerInfo:
    """The refiner that made the boxes of a run.

    Attributes:
        file: Its file, as it was given.
        digest: A hash of that file.
    """

    file: str
    digest: str


@dataclass(frozen=True)
class RunInfo:
    """The content of `run.json`.

    It holds no time and no host name, so equal runs have equal files.

    Attributes:
        configuration: The options.
        dataset: The dataset that was read.
        model: The model that was loaded.
        versions: The version of kgradcam, of Python, and of each library that affects results.
        determinism: How far another run may differ, in one sentence.
        refiner: The refiner that made the boxes; `None` if the options of boxes did.
        counts: The size of the run; zeros until it is finished.
        skipped: The images that could not be used, in order of their file names.
        files: A hash of each other file of the finished run, by its name in the folder.
    """

    configuration: Configuration
    dataset: DatasetInfo
    model: ModelInfo
    versions: dict[str, str]
    determinism: str
    refiner: RefinerInfo | None = None
    counts: Counts = Counts()
    skipped: tuple[SkippedImage, ...] = ()
    files: dict[str, str] = field(default_factory=dict)

    @property
    def split(self) -> str:
        """The split for people: `"held-out"` for a part of the dataset's split, else this split."""
        return HELD_OUT if self.configuration.split == HELD_OUT else self.dataset.split

    def warn_if_empty(self) -> None:
        """Warns of a run without a heatmap: the model has predicted none of its classes."""
        if not self.counts.heatmaps:
            lowest = self.configuration.presence_threshold
            warnings.warn(
                f"No image has a class of the run with a probability of {lowest:g} or more, so "
                "there are no boxes. Lower --presence-threshold, or choose other classes.",
                DataWarning,
                stacklevel=2,
            )

    def to_json(self) -> dict[str, Any]:
        """Returns the content of `run.json`, ready for `json.dumps`."""
        return {"schema": SCHEMA, **asdict(self)}

    def to_text(self) -> str:
        """Returns the text of `run.json`: indented, each list of plain values on one line."""
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False)
        # Strings in JSON hold no line break, so this changes nothing inside them.
        lists = re.compile(r"\[\n\s+([^\[\]{}]*?)\n\s+\]")
        return lists.sub(lambda each: "[" + re.sub(r"\n\s+", " ", each[1]) + "]", text) + "\n"

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Checks and converts the parsed content of a `run.json` of this schema.

        Raises:
            KeyError: There is no schema.
            TypeError: A field is missing, unknown or of another type.
            UserError: The schema is another one, or an option is out of range.
        """
        if content["schema"] != SCHEMA:
            raise UserError(
                f"it has the schema {content['schema']!r}; this version of kgradcam reads "
                f"{SCHEMA}. Make the run anew with `kgradcam detect`, or read it with the version "
                "that wrote it."
            )
        fields = {name: value for name, value in content.items() if name != "schema"}
        return convert(cls, fields, "run.json")


def convert(kind: Any, value: Any, name: str) -> Any:
    """Converts parsed JSON to a type, strictly: JSON lists become tuples, objects dataclasses.

    Args:
        kind: A dataclass, `tuple[X, ...]`, `dict[str, X]`, a union, or a type of plain values.
        value: The parsed JSON.
        name: The path of the value, for messages.

    Raises:
        TypeError: A field is missing, unknown or of another type, or a number is not finite.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if is_dataclass(kind) and isinstance(value, dict):
        kinds = typing.get_type_hints(kind)
        if unknown := set(value) - set(kinds):
            raise TypeError(f"{name} has the unknown field {min(unknown)!r}")
        fields = {key: convert(kinds[key], each, f"{name}.{key}") for key, each in value.items()}
        return kind(**fields)  # type: ignore[operator]
    if origin is tuple and isinstance(value, list):
        return tuple(convert(arguments[0], each, name) for each in value)
    if origin is dict and isinstance(value, dict):
        return {key: convert(arguments[1], each, f"{name}.{key}") for key, each in value.items()}
    if origin is types.UnionType:
        matching = [each for each in arguments if _matches(each, value)]
        if matching:
            return convert(matching[0], value, name)
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if type(value) is kind and kind is not float:
        return value
    raise TypeError(f"{name} must be {getattr(kind, '__name__', kind)}; it is {value!r}")


def _matches(kind: Any, value: Any) -> bool:
    parsed = list if typing.get_origin(kind) is tuple else dict if is_dataclass(kind) else kind
    return isinstance(value, parsed)
