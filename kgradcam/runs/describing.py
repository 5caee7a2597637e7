"""The description of a run before its first batch: options, dataset, model and versions."""

import platform
import random
import warnings
from pathlib import Path

import cv2
import keras
import numpy as np
import PIL
import tensorflow as tf

from kgradcam import __version__
from kgradcam.data.splits import Summary
from kgradcam.errors import DataWarning, UserError
from kgradcam.models.classifier import Classifier
from kgradcam.models.digests import architecture_digest, weights_digest
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.dataset_folder import relative_folder
from kgradcam.runs.explaining import Targets
from kgradcam.runs.run_info import DatasetInfo, ModelInfo, RunInfo

_LARGE_MEGAPIXELS, _GB_PER_MEGAPIXEL = 8, 0.3
"""Images from this size on are warned of, with the memory that ResNet50 takes in float32."""


def describe(
    configuration: Configuration, dataset: Summary, files: str, model: ModelInfo, folder: Path
) -> RunInfo:
    """Returns the content of `run.json` before the first batch.

    Args:
        configuration: The options.
        dataset: The split.
        files: A digest of the files of the images to explain.
        model: The model.
        folder: The run folder.
    """
    return RunInfo(
        configuration=configuration,
        dataset=DatasetInfo(
            name=configuration.dataset,
            split=dataset.split,
            images=dataset.images,
            digest=dataset.digest,
            files=files,
            folder=relative_folder(dataset.name, folder),
            images_folder=relative_folder(configuration.images or "", folder),
        ),
        model=model,
        versions=versions(),
        determinism=determinism(),
    )


def describe_model(
    classifier: Classifier, layer: str | tuple[str, ...] | None, targets: Targets
) -> ModelInfo:
    """Returns the description of a loaded model, which digests its weights."""
    return ModelInfo(
        name=classifier.name,
        layer=layer,
        parameters=classifier.model.count_params(),
        architecture=architecture_digest(classifier.model),
        digest=weights_digest(classifier.model.variables),
        outputs={name: tuple(indices) for name, indices in targets.items()},
    )


def versions() -> dict[str, str]:
    """Returns the version of each library that affects results."""
    return {
        "kgradcam": __version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "pillow": PIL.__version__,
    }


def determinism() -> str:
    """Returns how far another run on this machine may differ, in a sentence or two."""
    if tf.config.list_logical_devices("GPU"):
        return "A GPU may add in another order at each run, so the last bits may differ."
    return (
        "Equal to the last bit on processors of this kind with as many cores, interrupted or not. "
        "With another batch size heatmaps differ by less than 1e-4 of their highest value."
    )


def draw(count: int, configuration: Configuration) -> list[int] | None:
    """Returns the sorted positions of the images that `limit` draws; `None` for all."""
    if configuration.limit is None or configuration.limit >= count:
        return None
    # Sorted, so that images keep the order of the data set.
    return sorted(random.Random(configuration.seed).sample(range(count), configuration.limit))


def warn_if_large(file_name: str, width: int, height: int) -> None:
    """Warns of an image at native size that may take more memory than the machine has."""
    megapixels = width * height / 1e6
    if megapixels > _LARGE_MEGAPIXELS:
        warnings.warn(
            f"{file_name} has {megapixels:.0f} megapixels. At its native size it takes "
            f"about {megapixels * _GB_PER_MEGAPIXEL:.0f} GB of memory in ResNet50. If the process "
            "is killed, give --image-size.",
            DataWarning,
            stacklevel=2,
        )


def stop_if_strict(configuration: Configuration, skipped: list[tuple[str, str]]) -> None:
    """Raises for the first image that cannot be used, if the run is strict."""
    if configuration.strict and skipped:
        name, reason = skipped[0]
        raise UserError(f"--strict: {name}: {reason}")
