"""Draws images beside the heatmaps of some classes, for `kgradcam explain`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kgradcam.boxes.normalization import Heatmap
from kgradcam.data.images import read_image
from kgradcam.errors import UserError
from kgradcam.heatmaps.class_groups import ClassTarget
from kgradcam.heatmaps.frozen import freeze_if_possible
from kgradcam.heatmaps.methods import find_method
from kgradcam.heatmaps.precision import choose_precision
from kgradcam.metrics.faithfulness import measure
from kgradcam.models.class_targets import parse_target
from kgradcam.models.classifier import Classifier
from kgradcam.pictures.drawing import ExplanationRow, draw_explanations
from kgradcam.pictures.picture_explanation import visible_heatmap

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Finding:
    """One heatmap of the figure that `explain_images` draws.

    Attributes:
        image: The image file.
        model: The model's name.
        method: The method's name.
        class_name: The explained class.
        probability: The model's probability of the class, in [0, 1]; NaN for a regression.
        score: The explained score; the predicted value of a regression.
        precision: The precision of the forward pass; see `GradCAM.freeze`.
        measures: Faithfulness by name, empty unless measured; see `metrics.faithfulness.MEASURES`.
    """

    image: Path
    model: str
    method: str
    class_name: str
    probability: float
    score: float
    precision: str
    measures: dict[str, float]

    @property
    def certainty(self) -> str:
        """The probability in percent, or the predicted value of a regression."""
        if math.isnan(self.probability):
            return f"{self.score:.4g}"
        return f"{self.probability:.1%}"


def explain_images(
    paths: Sequence[Path],
    classifiers: Sequence[Classifier],
    classes: Sequence[str] = (),
    layer: str | Sequence[str] | None = None,
    image_size: int | None = None,
    methods: Sequence[str] = ("gradcam",),
    measured: bool = False,
    precision: str = "float32",
) -> tuple["Figure", list[Finding]]:
    """Draws each image beside its heatmaps: one for each model, method and class.

    Args:
        paths: Image files.
        classifiers: The models to explain.
        classes: The classes to explain, each in a form that `parse_target` accepts. Default: the
            top class of each image by the first model.
        layer: The layer to explain, or several. Default: see `GradCAM`.
        image_size: Side in pixels of the squares that images are resized to; `None` keeps their
            own size.
        methods: Names of methods, keys of `heatmaps.methods.METHODS`.
        measured: Also measures how faithful each heatmap is.
        precision: The precision of the forward pass; see `GradCAM.freeze`.

    Returns:
        A figure with a row for each image, and its heatmaps in reading order.

    Raises:
        UserError: An image cannot be read, a class is unknown, or `classes` is empty while the
            models have different numbers of outputs.
    """
    if not classes and len({each.model.output_shape[-1] for each in classifiers}) > 1:
        raise UserError(
            "Models with different outputs have no top class in common: give --class. Received: "
            + ", ".join(f"{each.name} of {each.model.output_shape[-1]}" for each in classifiers)
        )
    precision = choose_precision(precision)
    explainers = []
    for each in classifiers:
        for name in methods:
            live = find_method(name)(each.model, layer, preprocess=each.preprocess)
            if precision != "float32" and live.layer is None:
                # A model without known inputs cannot be frozen before its first call.
                live(read_image(paths[0], image_size, upright=True)[np.newaxis])
            fast = live if precision == "float32" else freeze_if_possible(live, precision)
            explainers.append((each, name, live, fast))
    rows, findings = [], []
    for path in paths:
        photograph = read_image(path, upright=True)
        seen = photograph if image_size is None else read_image(path, image_size, upright=True)
        seen = seen[np.newaxis]
        names = list(classes)
        top: list[ClassTarget] = []
        heatmaps: list[Heatmap] = []
        in_row: list[Finding] = []
        for classifier, method, live, explainer in explainers:
            count = classifier.model.output_shape[-1]
            targets = [parse_target(text, classifier.class_names, count) for text in classes]
            explanation = explainer(seen, classes=targets or top or None)
            if not names:
                top = explanation.classes[0]  # the other models and methods explain it too
                names = [_class_name(classifier, top[0])]
            # Measures shuffle weights, and only the live explainer follows them.
            measures = measure(live, seen, explanation) if measured else {}
            for j, name in enumerate(names):
                heatmaps.append(
                    visible_heatmap(
                        explanation.heatmaps[0, j],
                        photograph.shape[1::-1],
                        seen.shape[1:3],
                        explanation.extent,
                    )
                )
                in_row.append(
                    Finding(
                        path,
                        classifier.name,
                        method,
                        name,
                        float(explanation.probabilities[0, j]),
                        float(explanation.scores[0, j]),
                        explainer.precision,
                        {key: float(values[0, j]) for key, values in measures.items()},
                    )
                )
        titles = [_title(each, len(classifiers) > 1, len(methods) > 1) for each in in_row]
        rows.append(ExplanationRow(photograph, path.name, np.stack(heatmaps), titles))
        findings += in_row
    return draw_explanations(rows), findings


def _title(finding: Finding, with_model: bool, with_method: bool) -> str:
    """The parts that differ between heatmaps come first, so that a long class name is cut last."""
    parts = [finding.model] * with_model + [finding.method] * with_method
    if not parts:
        return f"{finding.class_name}  {finding.certainty}"
    return f"{'  '.join(parts)}  {finding.certainty}  {finding.class_name}"


def _class_name(classifier: Classifier, class_index: object) -> str:
    if isinstance(class_index, str):
        return class_index
    if classifier.class_names is None or not isinstance(class_index, int):
        return f"class {class_index}"
    return classifier.class_names[class_index]
