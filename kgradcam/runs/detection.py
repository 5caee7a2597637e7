"""From a dataset to a run folder: one heatmap per image and class, boxes for every threshold."""

import platform
import random
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import keras
import numpy as np
import PIL
import tensorflow as tf

from kgradcam import __version__, progress
from kgradcam.data.dataset import Dataset
from kgradcam.data.examples import Example, files_digest
from kgradcam.data.images import Size
from kgradcam.errors import DataWarning, UserError
from kgradcam.heatmaps.explainer import Explainer
from kgradcam.heatmaps.methods import find_method
from kgradcam.models.class_targets import dataset_targets
from kgradcam.models.classifier import Classifier
from kgradcam.models.digests import architecture_digest, weights_digest
from kgradcam.models.network import require_model
from kgradcam.runs.configuration import PREDICTED, Configuration
from kgradcam.runs.dataset_folder import relative_folder
from kgradcam.runs.explaining import (
    Targets,
    classes_to_explain,
    explain_batch,
    load_model,
    make_explainer,
)
from kgradcam.runs.partial_run import read_start
from kgradcam.runs.run import Run
from kgradcam.runs.run_classes import run_classes
from kgradcam.runs.run_dataset import open_configured, open_to_resume
from kgradcam.runs.run_info import Counts, DatasetInfo, ModelInfo, RunInfo, SkippedImage
from kgradcam.runs.run_writer import Report, RunWriter, write_run
from kgradcam.runs.tables import GroundTruth, Image

FREEZE_FROM = 1000
"""Runs of so many images freeze the weights in float32.

Freezing ResNet50 at 224 px takes seconds and pays off after about as many images.
"""

REDUCE_FROM = 500
"""With precision `"auto"`, runs of so many images freeze the weights in the reduced precision.

ResNet50 at 224 px pays off after some 100 images, smaller networks later.
"""

_LARGE_MEGAPIXELS, _GB_PER_MEGAPIXEL = 8, 0.3
"""Images from this size on are warned of, with the memory that ResNet50 takes in float32."""


def detect(
    configuration: Configuration,
    folder: Path,
    *,
    data_dir: Path | None = None,
    force: bool = False,
    resume: bool = False,
    quiet: bool = True,
    report: Report = lambda line: None,
) -> Run:
    """Localizes classes on each image of a dataset, and writes a run folder.

    By default each image is explained for the classes annotated on it, difficult objects included
    (GT-known localization). With `presence="predicted"` each image of the split is explained for
    the classes that the model predicts, as in detection.

    Decoding, the model, and the drawing and writing of boxes run at the same time. A resumed run
    ends in the same bytes as one without interruption.

    Args:
        configuration: The options.
        folder: The run folder to be; it appears when the run is finished.
        data_dir: The folder of tensorflow-datasets.
        force: Replaces an existing run.
        resume: Resumes an interrupted run to this folder; see `interrupted_configuration`.
        quiet: Shows no progress on stderr.
        report: Called with a line of text on the layout, and on removed leftovers of a killed
            process.

    Returns:
        The run.

    Raises:
        UserError: An option names something unknown, no image has an object of the classes, the
            folder exists, or the run to resume has other options.
    """
    # Mistyped names are reported before any work.
    find_method(configuration.method)
    require_model(configuration.model)
    with write_run(folder, force=force, resume=resume, report=report) as writer:
        if resume:
            options = asdict(configuration)
            del options["precision"]  # "auto" is resolved only when the images are counted
            writer.require_same({"configuration": options})
        dataset = (
            open_to_resume(folder, read_start(folder).info, data_dir, quiet)
            if resume
            else open_configured(configuration, data_dir, quiet)
        )
        if not dataset.annotated:  # so there is nothing but what the model predicts
            configuration = replace(configuration, presence=PREDICTED)
        if not quiet:
            report(f"{dataset.name} is {dataset.description}: {len(dataset.examples)} images.")
        _stop_if_strict(configuration, dataset.skipped)
        with progress.step(f"loading and tracing {configuration.model}", quiet):
            plan = _make_plan(configuration, dataset, load_model(configuration))
        info = _describe(plan, folder)
        writer.begin(info, data_dir)
        _explain_images(plan, writer, quiet)
        return _finish(plan, info, writer)


@dataclass(frozen=True)
class _Plan:
    """The loaded parts of a run.

    Attributes:
        configuration: The options.
        dataset: The split.
        classifier: The model.
        explainer: Makes the heatmaps.
        targets: The classes of the run.
        examples: The images to explain.
        images: Their entries in `ground_truth.json`, by index in the dataset.
    """

    configuration: Configuration
    dataset: Dataset
    classifier: Classifier
    explainer: Explainer
    targets: Targets
    examples: list[Example]
    images: dict[int, Image]


def _make_plan(configuration: Configuration, dataset: Dataset, classifier: Classifier) -> _Plan:
    classes = run_classes(configuration, dataset, classifier)
    if not classes:
        raise UserError(
            f"None of the {len(dataset.examples)} images of split {dataset.split!r} of "
            f"{dataset.name} has an annotated object, so there is no class to detect."
        )
    targets = dataset_targets(
        classes,
        dataset.class_names if dataset.annotated else [each.partition("=")[0] for each in classes],
        classifier.class_names,
        classifier.model.output_shape[-1],
    )
    examples = _choose_examples(dataset, targets, configuration)
    _warn_of_large_images(examples, configuration.image_size)
    precision = _choose_precision(configuration.precision, len(examples))
    # Frozen from the first image on or never: no result depends on where a run was interrupted.
    explainer = make_explainer(
        replace(configuration, precision=precision), classifier, len(examples) >= FREEZE_FROM
    )
    images = {
        example.index: Image(i, example.file_name, example.width, example.height)
        for i, example in enumerate(examples, start=1)
    }
    return _Plan(configuration, dataset, classifier, explainer, targets, examples, images)


def _choose_examples(
    dataset: Dataset, targets: Targets, configuration: Configuration
) -> list[Example]:
    for name in targets:
        if dataset.annotated and not any(
            name in example.objects.classes for example in dataset.examples
        ):
            raise UserError(
                f"No image of split {dataset.split!r} of {dataset.name} has an object of class "
                f"{name!r}."
            )
    examples = [
        example
        for example in dataset.examples
        if classes_to_explain(example, targets, configuration)
    ]
    if configuration.limit is not None and configuration.limit < len(examples):
        examples = random.Random(configuration.seed).sample(examples, configuration.limit)
        examples.sort(key=lambda example: example.index)
    return examples


def _warn_of_large_images(examples: Sequence[Example], image_size: Size | None) -> None:
    """Warns of images at native size that may take more memory than the machine has."""
    if image_size is not None or not examples:
        return
    largest = max(examples, key=lambda each: each.width * each.height)
    megapixels = largest.width * largest.height / 1e6
    if megapixels > _LARGE_MEGAPIXELS:
        warnings.warn(
            f"{largest.file_name} has {megapixels:.0f} megapixels. At its native size it takes "
            f"about {megapixels * _GB_PER_MEGAPIXEL:.0f} GB of memory in ResNet50. If the process "
            "is killed, give --image-size.",
            DataWarning,
            stacklevel=2,
        )


def _choose_precision(precision: str, images: int) -> str:
    return "float32" if precision == "auto" and images < REDUCE_FROM else precision


def _explain_images(plan: _Plan, writer: RunWriter, quiet: bool) -> None:
    """Explains the images that the writer does not have yet."""
    configuration, images = plan.configuration, plan.images
    image_ids = {index: image.id for index, image in images.items()}
    finished = writer.done | set(writer.skipped)
    remaining = [each for each in plan.examples if image_ids[each.index] not in finished]
    batches = plan.dataset.batches(remaining, configuration.batch_size, configuration.image_size)
    with progress.bar("heatmaps", len(remaining), "images", quiet) as advance:
        for batch in batches:
            found = explain_batch(plan.explainer, batch, plan.targets, configuration, image_ids)
            _stop_if_strict(configuration, [(each.file_name, why) for each, why in found.skipped])
            writer.add(
                [images[each.index] for each in found.explained],
                found.heatmaps,
                {image_ids[each.index]: why for each, why in found.skipped},
            )
            advance(len(batch.examples) + len(batch.damaged))
    writer.end_parts()


def _stop_if_strict(configuration: Configuration, skipped: Sequence[tuple[str, str]]) -> None:
    if configuration.strict and skipped:
        name, reason = skipped[0]
        raise UserError(f"--strict: {name}: {reason}")


def _finish(plan: _Plan, info: RunInfo, writer: RunWriter) -> Run:
    names = {image.id: image.file_name for image in plan.images.values()}
    skipped = [*plan.dataset.skipped, *((names[i], why) for i, why in writer.skipped.items())]
    if not writer.done:
        name, reason = skipped[-1]
        raise UserError(
            f"None of the {len(plan.examples)} images could be explained. {name}: {reason}"
        )
    explained = [each for each in plan.examples if plan.images[each.index].id in writer.done]
    ground_truth = _ground_truth(explained, list(plan.targets), plan.images)
    info = replace(
        info,
        # The first batch decides these for some models: the fallback where a model cannot be
        # frozen, and the layer of a subclassed model.
        configuration=replace(info.configuration, precision=plan.explainer.precision),
        model=replace(info.model, layer=plan.explainer.layer),
        counts=Counts(len(explained), writer.heatmaps, len(ground_truth.boxes), len(skipped)),
        skipped=tuple(SkippedImage(name, why) for name, why in sorted(skipped)),
    )
    return writer.finish(info, ground_truth)


def _ground_truth(
    examples: Sequence[Example], categories: Sequence[str], images: dict[int, Image]
) -> GroundTruth:
    category_ids = {name: i for i, name in enumerate(categories, start=1)}
    rows = [
        (images[example.index].id, category_ids[name], box, difficult)
        for example in examples
        for name, box, difficult in zip(
            example.objects.names, example.objects.boxes, example.objects.difficult, strict=True
        )
        if name in category_ids
    ]
    return GroundTruth(
        images=tuple(images[example.index] for example in examples),
        categories=tuple(categories),
        image_ids=np.array([row[0] for row in rows], np.int64),
        category_ids=np.array([row[1] for row in rows], np.int64),
        boxes=np.array([row[2] for row in rows], np.float64).reshape(-1, 4),
        difficult=np.array([row[3] for row in rows], bool),
    )


def _describe(plan: _Plan, folder: Path) -> RunInfo:
    """The content of `run.json` before the first batch."""
    dataset, classifier = plan.dataset, plan.classifier
    return RunInfo(
        configuration=replace(plan.configuration, precision=plan.explainer.precision),
        dataset=DatasetInfo(
            name=plan.configuration.dataset,
            split=dataset.split,
            images=len(dataset.examples),
            digest=dataset.digest(),
            files=files_digest(plan.examples),
            folder=relative_folder(dataset.name, folder),
            images_folder=relative_folder(plan.configuration.images or "", folder),
        ),
        model=ModelInfo(
            name=classifier.name,
            layer=plan.explainer.layer,
            parameters=classifier.model.count_params(),
            architecture=architecture_digest(classifier.model),
            digest=weights_digest(classifier.model.variables),
            outputs={name: tuple(indices) for name, indices in plan.targets.items()},
        ),
        versions={
            "kgradcam": __version__,
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            "opencv": cv2.__version__,
            "pillow": PIL.__version__,
        },
        determinism=_determinism(),
    )


def _determinism() -> str:
    if tf.config.list_logical_devices("GPU"):
        return "A GPU may add in another order at each run, so the last bits may differ."
    return (
        "Equal to the last bit on processors of this kind with as many cores, interrupted or not. "
        "With another batch size heatmaps differ by less than 1e-4 of their highest value."
    )
