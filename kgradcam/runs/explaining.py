"""From the options of a run to its explainer, and from a batch of images to heatmaps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kgradcam.boxes.normalization import WHOLE, fit
from kgradcam.data.dataset import Batch
from kgradcam.data.examples import Example
from kgradcam.data.images import Size, sides, to_channels
from kgradcam.devices import all_gpus
from kgradcam.errors import BatchError, UserError
from kgradcam.heatmaps.explainer import Explainer, require_height_and_width
from kgradcam.heatmaps.frozen import freeze_if_possible
from kgradcam.heatmaps.methods import find_method
from kgradcam.heatmaps.precision import choose_precision
from kgradcam.models.class_targets import Target
from kgradcam.models.classifier import OWN, Classifier, load_classifier, takes_any_size
from kgradcam.models.hub import is_preset
from kgradcam.models.keras_file import is_model_file
from kgradcam.models.model_card import read_card
from kgradcam.models.network import is_model_folder
from kgradcam.runs.configuration import PREDICTED, Configuration
from kgradcam.runs.heatmap_files import ClassHeatmap

Targets = Mapping[str, Target]
"""For each class, in the order of the run's categories, the model's outputs that stand for it."""

_FEW_CLASSES = 8
"""Of more classes, only those that the model predicts on an image are explained at all."""


def open_model(configuration: Configuration) -> Classifier:
    """Loads the classifier of a run on all GPUs; its input is as it was built."""
    with all_gpus().scope():
        return load_classifier(
            configuration.model,
            configuration.weights,
            OWN,
            configuration.preprocess,
            configuration.trusted,
            names=configuration.names,
            output=configuration.output,
        )


def load_model(configuration: Configuration, opened: Classifier | None = None) -> Classifier:
    """Returns the classifier of a run, for its images.

    Networks of fixed input size are built for the image size of the run, if it has only one.

    Args:
        configuration: The options.
        opened: The result of `open_model` for them. Default: the model is loaded.
    """
    one_scale = (*configuration.scales, *configuration.score_scales) == (1.0,)
    one_size = configuration.image_size if one_scale else None
    opened = opened or open_model(configuration)
    with all_gpus().scope():
        return opened.resized(one_size)


def default_size(
    configuration: Configuration, limit: int
) -> tuple[Size, float | None, Classifier | None]:
    """Returns the size for heatmaps, and the factor of it at which classes are scored.

    Heatmaps are finer at twice the size that a model was trained at, and classes surer at that
    size itself.

    Args:
        configuration: The options; those of size do not count.
        limit: The maximum side in pixels, unless the model was trained at a larger one. It is the
            size for a model whose own size is unknown, and for networks of ImageNet.

    Returns:
        The size; the factor, `None` if the model takes this size only; and the model, if it had to
        be loaded.
    """
    model, opened = configuration.model, None
    own: tuple[int, int] | None = None
    if is_model_folder(model):
        side = read_card(Path(model)).get("image_size")
        own = (side, side) if side else None
    elif is_model_file(model) or is_preset(model):
        opened = open_model(configuration)
        own = opened.own_size
        if own and not takes_any_size(opened):
            return own if own[0] != own[1] else own[0], None, opened
    if own is None:
        return limit, 0.5, opened
    factor = max(1.0, min(2.0, limit / max(own)))
    width, height = (round(factor * side) for side in own)
    size = width if width == height else (width, height)
    return size, max(own) / max(width, height), opened


def make_explainer(
    configuration: Configuration, classifier: Classifier, freeze: bool = False
) -> Explainer:
    """Returns the explainer of a run; frozen if `freeze` is true or the precision is reduced."""
    explainer = find_method(configuration.method)(
        classifier.model,
        configuration.layer,
        preprocess=classifier.preprocess,
        scales=configuration.scales,
        score_scales=configuration.score_scales,
        refine=configuration.refine,
        jit_compile=configuration.jit_compile,
    )
    precision = choose_precision(configuration.precision)
    if not freeze and precision == "float32":
        return explainer
    if explainer.layer is None:  # the model's inputs are known after its first call
        width, height = sides(configuration.image_size or 224)
        explainer(np.zeros((1, height, width, classifier.channels), np.uint8))
    return freeze_if_possible(explainer, precision)


@dataclass(frozen=True)
class ExplainedBatch:
    """The results of one batch.

    Attributes:
        explained: The images that were explained.
        heatmaps: Their heatmaps.
        skipped: The images that were not, and the reasons.
    """

    explained: list[Example] = field(default_factory=list)
    heatmaps: list[ClassHeatmap] = field(default_factory=list)
    skipped: list[tuple[Example, str]] = field(default_factory=list)


def classes_to_explain(
    example: Example, targets: Targets, configuration: Configuration
) -> list[str]:
    """Returns the classes to explain on an image, in the order of the run's categories."""
    if configuration.presence == PREDICTED:
        return list(targets)
    return [name for name in targets if name in example.objects.classes]


def explain_batch(
    explainer: Explainer,
    batch: Batch,
    targets: Targets,
    configuration: Configuration,
    image_ids: Mapping[int, int],
) -> ExplainedBatch:
    """Explains the images of one batch.

    Args:
        explainer: Makes the heatmaps.
        batch: Images of one shape.
        targets: The classes of the run.
        configuration: The options of the run.
        image_ids: The ids of the images by their index in the dataset.

    Returns:
        The heatmaps, and the images that could not be explained.
    """
    found = ExplainedBatch(skipped=list(batch.damaged))
    if not batch.examples:
        return found
    names = [classes_to_explain(each, targets, configuration) for each in batch.examples]
    try:
        images = to_channels(batch.images, explainer.model.input_shape[-1])
        if configuration.presence == PREDICTED and len(targets) > _FEW_CLASSES:
            names = _predicted(explainer, images, targets, configuration)
            if not any(names):
                found.explained.extend(batch.examples)
                return found
        explanation = explainer(images, classes_per_image=_padded(names, targets))
    except BatchError as error:
        height, width = batch.images.shape[1:3]
        reason = (
            f"The model does not take images of {width}x{height} at these scales; give "
            f"--image-size, --scale or --score-scale. {error}"
        )
        found.skipped.extend((example, reason) for example in batch.examples)
        return found
    require_height_and_width(explanation, explainer.layer)
    if np.isnan(explanation.probabilities).all() and np.isfinite(explanation.scores).all():
        raise UserError(
            f"{configuration.model} has no class probabilities: its output is one number without "
            "an activation, as of a regression. detect needs a classifier; `kgradcam explain` "
            "explains a regression."
        )
    lowest = configuration.presence_threshold if configuration.presence == PREDICTED else 0.0
    category_ids = {name: i for i, name in enumerate(targets, start=1)}
    for i, example in enumerate(batch.examples):
        heatmaps = [
            ClassHeatmap(
                image_id=image_ids[example.index],
                category_id=category_ids[name],
                heatmap=_on_whole_image(explanation.heatmaps[i, j], explanation.extent),
                score=float(explanation.scores[i, j]),
                probability=float(explanation.probabilities[i, j]),
            )
            for j, name in enumerate(names[i])
            # Not "probability >= lowest": a NaN has to reach the check below.
            if not explanation.probabilities[i, j] < lowest
        ]
        if reason := _unusable(heatmaps, example):
            found.skipped.append((example, reason))
        else:
            found.explained.append(example)
            found.heatmaps.extend(heatmaps)
    return found


def _on_whole_image(
    heatmap: npt.NDArray[np.float32], extent: Sequence[float]
) -> npt.NDArray[np.float32]:
    """The heatmap with cells of about the same size that tile the whole image, as runs store it."""
    if tuple(extent) == WHOLE or not heatmap.size:
        return heatmap
    sides = (extent[2] - extent[0], extent[3] - extent[1])
    width, height = (round(n / side) for n, side in zip(heatmap.shape[::-1], sides, strict=True))
    return fit(heatmap, (width, height), extent)


def _predicted(
    explainer: Explainer,
    images: npt.NDArray[np.uint8],
    targets: Targets,
    configuration: Configuration,
) -> list[list[str]]:
    """The classes that the model predicts on each image; the others need no heatmap.

    At the scale of the scores, where the probabilities of heatmaps come from.
    """
    factors = configuration.score_scales or configuration.scales
    height, width = images.shape[1:3]
    found = []
    for factor in factors:
        size = (max(1, round(height * factor)), max(1, round(width * factor)))
        scaled = images
        if size != (height, width):
            scaled = tf.image.resize(images, size).numpy().round().astype(images.dtype)
        found.append(explainer.predict(scaled, list(targets.values()))[1])
    # A NaN counts as predicted, so that it reaches the check of what can be stored.
    lowest = configuration.presence_threshold
    return [
        [name for name, each in zip(targets, row, strict=True) if not each < lowest]
        for row in np.mean(found, axis=0)
    ]


def _padded(names: Sequence[Sequence[str]], targets: Targets) -> list[list[Target]]:
    """The targets of each image; the last one is repeated until all have the same number."""
    most = max(map(len, names))
    anything = next(iter(targets))  # for an image without any class, whose heatmap is not stored
    rows = [[*each, *[each[-1] if each else anything] * (most - len(each))] for each in names]
    return [[targets[name] for name in row] for row in rows]


def _unusable(heatmaps: Sequence[ClassHeatmap], example: Example) -> str:
    """The reason why the heatmaps of an image cannot be stored, or an empty string."""
    if any(each.heatmap.size == 0 for each in heatmaps):
        return f"{example.width}x{example.height} leaves no heatmap at this layer."
    if not all(
        np.isfinite([each.score, each.probability]).all() and np.isfinite(each.heatmap).all()
        for each in heatmaps
    ):
        return "The model's scores or heatmaps are not finite; its weights may hold NaN."
    return ""
