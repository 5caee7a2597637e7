"""From a dataset to a run: heatmaps once, boxes for every threshold."""

import hashlib
import platform
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import keras
import numpy as np
import numpy.typing as npt
import PIL
import tensorflow as tf

from kgradcam import __version__, progress
from kgradcam.boxes.options import DEFAULT_THRESHOLDS, BoxOptions
from kgradcam.data.dataset import Batch, Dataset, open_dataset
from kgradcam.data.examples import Example
from kgradcam.devices import all_gpus
from kgradcam.errors import UsageError, UserError, did_you_mean
from kgradcam.heatmaps.explainer import Explainer
from kgradcam.heatmaps.frozen import freeze_if_possible
from kgradcam.heatmaps.methods import find_method
from kgradcam.heatmaps.precision import choose_precision
from kgradcam.models.class_targets import ALL, dataset_targets
from kgradcam.models.classifier import Classifier, load_classifier
from kgradcam.models.network import IMAGENET, require_model
from kgradcam.runs.heatmap_files import ClassHeatmap
from kgradcam.runs.run import Run
from kgradcam.runs.run_writer import read_start, write_run
from kgradcam.runs.tables import GroundTruth, Image

ANNOTATED, PREDICTED = "annotated", "predicted"

FREEZE_FROM = 1000
"""Runs of so many images freeze the weights in float32.

Freezing ResNet50 at 224 px takes seconds and pays off after about as many images.
"""

REDUCE_FROM = 500
"""With precision `"auto"`, runs of so many images freeze the weights in the reduced precision.

ResNet50 at 224 px pays off after some 100 images, smaller networks later.
"""


@dataclass(frozen=True)
class Configuration:
    """What a run is made from; `run.json` keeps it.

    Attributes:
        dataset: A VOC dataset of tensorflow-datasets, a folder in VOC layout, or `"demo"`.
        split: Its split. Default: see `datasets.open_dataset`.
        classes: The dataset's classes to detect: `NAME`, `NAME=TARGET` or `"all"`; see
            `targets.dataset_targets`.
        model: See `models.load_classifier`, as for `weights` and `preprocess`.
        weights: See there.
        preprocess: See there.
        method: One of `methods.METHODS`.
        layer: The layer to explain, or several. Default: see `GradCAM`.
        precision: See `GradCAM.freeze`; `"auto"` is float32 for fewer than `REDUCE_FROM` images.
            `run.json` keeps what was used.
        jit_compile: Whether to compile with XLA. Default: see `GradCAM`.
        image_size: Side of the squares that images are resized to; `None` keeps native sizes.
        scales: See `GradCAM`.
        refine: See there.
        batch_size: Images of equal shape that go through the model together, at most.
        thresholds: Heat thresholds in [0, 1] to draw boxes for.
        boxes: How a heatmap becomes boxes.
        presence: Which classes an image is asked for: `"annotated"`, those annotated on it
            (GT-known localization); or `"predicted"`, those that the model believes in, which is
            detection.
        presence_threshold: From which probability on the model believes, if it decides.
        limit: How many images to take, at most, drawn at random.
        seed: For that draw.
        strict: Stops at the first image that cannot be read, where it would be left out.
        trusted: See `models.load_classifier`.
    """

    dataset: str = "voc/2007"
    split: str | None = None
    classes: tuple[str, ...] = ("all",)
    model: str = "resnet50"
    weights: str | None = IMAGENET
    preprocess: str | None = None
    method: str = "gradcam"
    layer: str | tuple[str, ...] | None = None
    precision: str = "float32"
    jit_compile: bool | None = None
    image_size: int | None = 448
    scales: tuple[float, ...] = (1.0, 0.5)
    refine: bool = True
    batch_size: int = 16
    thresholds: tuple[float, ...] = DEFAULT_THRESHOLDS["levels"]
    boxes: BoxOptions = field(default_factory=BoxOptions)
    presence: str = ANNOTATED
    presence_threshold: float = 0.05
    limit: int | None = None
    seed: int = 0
    strict: bool = False
    trusted: bool = False

    def __post_init__(self) -> None:
        for name in ("classes", "layer", "scales", "thresholds"):  # JSON knows lists only
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))
        if self.presence not in (ANNOTATED, PREDICTED):
            raise UsageError(
                f"presence must be {ANNOTATED} or {PREDICTED}. Received: {self.presence!r}."
                f"{did_you_mean(self.presence, (ANNOTATED, PREDICTED))}"
            )


def detect(
    configuration: Configuration,
    folder: Path,
    *,
    data_dir: Path | None = None,
    force: bool = False,
    resume: bool = False,
    quiet: bool = True,
) -> Run:
    """Localizes the annotated classes of each image of a dataset, and writes a run folder.

    By default it answers "given that a dog is there, where is it" (GT-known localization): an image
    is asked for the classes annotated on it, difficult objects included. With
    `presence="predicted"` the model also has to find out which classes are there, on every image of
    the split.

    While the model sees a batch, the next are decoded, and boxes of the last are drawn and written.
    An interrupted run goes on with `resume`, and ends in the same bytes as one that was not.

    Args:
        configuration: What to run.
        folder: Where the run shall be; it appears when it is finished.
        data_dir: Where tensorflow-datasets keeps its data.
        force: Replaces a run that is already there.
        resume: Goes on with a run to this folder that was interrupted; see
            `interrupted_configuration`.
        quiet: Shows no progress on stderr.

    Returns:
        The run.

    Raises:
        UserError: Something in the configuration does not exist or does not fit, no image holds
            the classes, the folder exists, or what is to be resumed was begun otherwise.
    """
    find_method(configuration.method)  # slips in names are told before any work
    require_model(configuration.model)
    with write_run(folder, force=force, resume=resume) as writer:
        if resume:
            settings = _settings(configuration)
            del settings["configuration"]["precision"]  # "auto" is known later
            writer.require_same(settings)
        dataset = open_dataset(configuration.dataset, configuration.split, data_dir, quiet)
        _stop_if_strict(configuration, dataset.skipped)
        classifier = load_model(configuration)
        targets = dataset_targets(
            _expand(configuration.classes, dataset),
            dataset.class_names,
            classifier.class_names,
            classifier.model.output_shape[-1],
        )
        examples = _choose(dataset, targets, configuration)
        images = {
            example.index: Image(i, example.file_name, example.width, example.height)
            for i, example in enumerate(examples, start=1)
        }
        precision = _choose_precision(configuration.precision, len(examples))
        # Frozen or not from the first image on: no result depends on where a run was interrupted.
        cam = make_explainer(
            replace(configuration, precision=precision), classifier, len(examples) >= FREEZE_FROM
        )
        info = _describe(configuration, dataset, classifier, cam, targets)
        writer.begin(info, data_dir)
        known = writer.done | set(writer.skipped)
        waiting = [each for each in examples if images[each.index].id not in known]
        with progress.bar("heatmaps", len(waiting), "images", quiet) as advance:
            for batch in dataset.batches(
                waiting, configuration.batch_size, configuration.image_size
            ):
                found = _explain(cam, batch, targets, configuration, images)
                _stop_if_strict(
                    configuration, [(each.file_name, why) for each, why in found.skipped]
                )
                writer.add(
                    [images[each.index] for each in found.explained],
                    found.records,
                    {images[each.index].id: why for each, why in found.skipped},
                )
                advance(len(batch.examples) + len(batch.damaged))
        writer.end_parts()
        names = {image.id: image.file_name for image in images.values()}
        skipped = [*dataset.skipped, *((names[i], why) for i, why in writer.skipped.items())]
        if not writer.done:
            name, reason = skipped[-1]
            raise UserError(
                f"None of the {len(examples)} images could be explained. {name}: {reason}"
            )
        seen = [each for each in examples if images[each.index].id in writer.done]
        ground_truth = _ground_truth(seen, list(targets), images)
        counts = {
            "images": len(seen),
            "heatmaps": writer.maps,
            "objects": len(ground_truth.boxes),
            "skipped": len(skipped),
        }
        left_out = [{"file": name, "reason": why} for name, why in sorted(skipped)]
        # Some models tell these by their first call only.
        info["configuration"]["precision"], info["model"]["layer"] = cam.precision, cam.layer
        return writer.finish({**info, "counts": counts, "skipped": left_out}, ground_truth)


def interrupted_configuration(folder: Path) -> tuple[Configuration, Path | None]:
    """Returns what an interrupted run is made from, and where its data are kept.

    Models are not trusted because a file says so: `trusted` is false.

    Raises:
        UserError: There is no interrupted run to this folder.
    """
    start = read_start(folder)
    data_dir = start["data_dir"]
    return read_configuration(start["info"], folder), None if data_dir is None else Path(data_dir)


def read_configuration(info: dict[str, Any], folder: Path) -> Configuration:
    """Returns what a run is made from, as its `run.json` says; its models are not trusted.

    Raises:
        UserError: It does not say it, or not so that this version could read it.
    """
    try:
        configuration = Configuration(
            **info["configuration"],
            thresholds=tuple(info["thresholds"]),
            boxes=BoxOptions(**info["boxes"]),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"The run in {folder} does not say how it was made: {error}") from error
    return replace(configuration, trusted=False)


def load_model(configuration: Configuration) -> Classifier:
    """Loads the classifier of a run on all GPUs, for pictures of the sizes that it will see."""
    one_size = configuration.image_size if configuration.scales == (1.0,) else None
    with all_gpus().scope():
        return load_classifier(
            configuration.model,
            configuration.weights,
            one_size,
            configuration.preprocess,
            configuration.trusted,
        )


def make_explainer(
    configuration: Configuration, classifier: Classifier, freeze: bool = False
) -> Explainer:
    """Returns the explainer of a run; frozen if `freeze` is true or the precision is reduced."""
    explainer = find_method(configuration.method)(
        classifier.model,
        configuration.layer,
        preprocess=classifier.preprocess,
        scales=configuration.scales,
        refine=configuration.refine,
        jit_compile=configuration.jit_compile,
    )
    precision = choose_precision(configuration.precision)
    if not freeze and precision == "float32":
        return explainer
    if explainer.layer is None:  # the model's inputs are known after its first call
        side = configuration.image_size or 224
        explainer(np.zeros((1, side, side, 3), np.uint8))
    return freeze_if_possible(explainer, precision)


def _stop_if_strict(configuration: Configuration, skipped: Sequence[tuple[str, str]]) -> None:
    if configuration.strict and skipped:
        name, reason = skipped[0]
        raise UserError(f"--strict: {name}: {reason}")


def _expand(classes: Sequence[str], dataset: Dataset) -> list[str]:
    """Replaces "all" by the classes that the split has objects of."""
    present = {name for example in dataset.examples for name in example.objects.names}
    everything = [name for name in dataset.class_names if name in present]
    return [name for each in classes for name in (everything if each == ALL else [each])]


def _asked(
    example: Example, targets: dict[str, tuple[int, ...]], configuration: Configuration
) -> list[str]:
    """The classes to explain on an image, in the order of the run's categories."""
    if configuration.presence == PREDICTED:
        return list(targets)
    return [name for name in targets if name in example.objects.names]


def _choose(
    dataset: Dataset, targets: dict[str, tuple[int, ...]], configuration: Configuration
) -> list[Example]:
    for name in targets:
        if not any(name in example.objects.names for example in dataset.examples):
            raise UserError(
                f"No image of split {dataset.split!r} of {dataset.name} holds an object of class "
                f"{name!r}."
            )
    examples = [each for each in dataset.examples if _asked(each, targets, configuration)]
    if configuration.limit is not None and configuration.limit < len(examples):
        examples = random.Random(configuration.seed).sample(examples, configuration.limit)
        examples.sort(key=lambda example: example.index)
    return examples


def _choose_precision(precision: str, images: int) -> str:
    return "float32" if precision == "auto" and images < REDUCE_FROM else precision


class _Found(NamedTuple):
    """What a batch came to."""

    explained: list[Example]
    records: list[ClassHeatmap]
    skipped: list[tuple[Example, str]]


def _explain(
    cam: Explainer,
    batch: Batch,
    targets: dict[str, tuple[int, ...]],
    configuration: Configuration,
    images: dict[int, Image],
) -> _Found:
    if not batch.examples:
        return _Found([], [], batch.damaged)
    names = [_asked(example, targets, configuration) for example in batch.examples]
    most = max(map(len, names))
    # All images of a batch need the same number of classes: the last one is repeated, then dropped.
    padded = [[*each, *each[-1:] * (most - len(each))] for each in names]
    classes = [[targets[name] for name in row] for row in padded]
    try:
        explanation = cam(batch.images, classes_per_image=classes)
    except tf.errors.InvalidArgumentError as error:
        height, width = batch.images.shape[1:3]
        reason = (
            f"The model does not take images of {width}x{height} at these scales; give "
            f"--image-size or --scale. TensorFlow says: {error.message.splitlines()[0]}"
        )
        return _Found([], [], [*batch.damaged, *((each, reason) for each in batch.examples)])
    found = _Found([], [], list(batch.damaged))
    least = configuration.presence_threshold if configuration.presence == PREDICTED else 0.0
    category_ids = {name: i for i, name in enumerate(targets, start=1)}
    for i, example in enumerate(batch.examples):
        records = [
            ClassHeatmap(
                image_id=images[example.index].id,
                category_id=category_ids[name],
                heatmap=explanation.heatmaps[i, j],
                score=float(explanation.scores[i, j]),
                probability=float(explanation.probabilities[i, j]),
            )
            for j, name in enumerate(names[i])
            if not explanation.probabilities[i, j] < least  # what is no number is told later
        ]
        if reason := _flaw(records, example):
            found.skipped.append((example, reason))
        else:
            found.explained.append(example)
            found.records.extend(records)
    return found


def _flaw(records: Sequence[ClassHeatmap], example: Example) -> str:
    """Why an image's heatmaps cannot be kept, or nothing."""
    if any(record.heatmap.size == 0 for record in records):
        return f"{example.width}x{example.height} leaves no heatmap at this layer."
    if not all(
        np.isfinite([record.score, record.probability]).all() and np.isfinite(record.heatmap).all()
        for record in records
    ):
        return "The model's scores or heatmaps are not finite; its weights may hold NaN."
    return ""


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


def _describe(
    configuration: Configuration,
    dataset: Dataset,
    classifier: Classifier,
    cam: Explainer,
    targets: dict[str, tuple[int, ...]],
) -> dict[str, Any]:
    """What `run.json` says of a run, besides counts.

    No time and no host: equal runs, equal bytes. Digests tell other weights and annotations.
    """
    return {
        **_settings(replace(configuration, precision=cam.precision)),
        "dataset": {
            "name": dataset.name,
            "split": dataset.split,
            "images": len(dataset.examples),
            "digest": dataset.digest(),
        },
        "model": {
            "name": classifier.name,
            "layer": cam.layer,
            "parameters": classifier.model.count_params(),
            "digest": _digest(variable.numpy() for variable in classifier.model.variables),
            "outputs": {name: list(indices) for name, indices in targets.items()},
        },
        "versions": {
            "kgradcam": __version__,
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            "opencv": cv2.__version__,
            "pillow": PIL.__version__,
        },
        "determinism": _determinism(),
    }


def _settings(configuration: Configuration) -> dict[str, Any]:
    described = asdict(configuration)
    boxes, thresholds = described.pop("boxes"), described.pop("thresholds")
    return {"configuration": described, "boxes": boxes, "thresholds": thresholds}


def _determinism() -> str:
    if tf.config.list_logical_devices("GPU"):
        return "A GPU may add in another order at each run, so the last bits may differ."
    return (
        "Equal to the last bit on processors of this kind with as many cores, interrupted or not. "
        "With another batch size heatmaps differ by less than 1e-4 of their highest value."
    )


def _digest(arrays: Iterable[npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
