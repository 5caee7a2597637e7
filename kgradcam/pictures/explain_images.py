"""Draws images beside the heatmaps of some classes, for `kgradcam explain`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kgradcam.boxes.find import find_boxes
from kgradcam.boxes.normalization import Heatmap
from kgradcam.boxes.overlap import Boxes
from kgradcam.data.images import Size, resize, to_channels
from kgradcam.errors import BatchError, UserError
from kgradcam.heatmaps.class_groups import SIDES, ClassTarget, names_of_outputs
from kgradcam.heatmaps.explainer import Explainer, require_height_and_width
from kgradcam.heatmaps.frozen import freeze_if_possible
from kgradcam.heatmaps.methods import find_method
from kgradcam.heatmaps.precision import choose_precision
from kgradcam.heatmaps.targets import difference
from kgradcam.metrics.faithfulness import measure
from kgradcam.models.class_targets import parse_target
from kgradcam.models.classifier import OWN, Classifier
from kgradcam.pictures.blending import Picture
from kgradcam.pictures.drawing import ExplanationRow
from kgradcam.pictures.picture_explanation import visible_heatmap

NO_HEAT = "no heat"
"""In the title of a heatmap that has the same value everywhere."""
LARGEST_SIDE = 448
"""The longer side in pixels of images for a model whose own size is unknown."""
LARGEST_DRAWN = 1024
"""The longer side in pixels of images to draw; a panel of a figure has 448 pixels."""


@dataclass(frozen=True)
class Finding:
    """One heatmap that `ImageExplainer` makes.

    Attributes:
        image: The image file.
        model: The model's name.
        method: The method's name.
        class_name: The explained class.
        class_index: Its output, or outputs; `None` for a difference of classes.
        probability: The model's probability of the class, in [0, 1]; NaN for a regression.
        score: The explained score; the predicted value of a regression.
        precision: The precision of the forward pass; see `GradCAM.freeze`.
        size: Width and height in pixels of the image as the model saw it.
        pixels: Its preprocessing, in words.
        layer: The explained layer, or layers.
        boxes: Boxes around the heat, the best first, xyxy in pixels of the upright image.
        box_scores: Their scores, see `find_boxes`.
        picture_size: Width and height of the upright image in pixels.
        is_empty: Whether the heatmap has the same value everywhere, so that nothing is drawn.
        measures: Faithfulness by name, empty unless measured; see `metrics.faithfulness.MEASURES`.
    """

    image: Path
    model: str
    method: str
    class_name: str
    class_index: ClassTarget | None
    probability: float
    score: float
    precision: str
    size: tuple[int, int]
    pixels: str
    layer: str | tuple[str, ...] | None
    boxes: Boxes
    box_scores: npt.NDArray[np.float64]
    picture_size: tuple[int, int]
    is_empty: bool
    measures: dict[str, float]

    @property
    def certainty(self) -> str:
        """The probability in percent, or the predicted value of a regression."""
        if math.isnan(self.probability):
            return f"{self.score:.4g}"
        return f"{self.probability:.1%}"

    @property
    def conditions(self) -> str:
        """The conditions of the forward pass in one line."""
        layers = [self.layer] if isinstance(self.layer, str) else self.layer or ()
        size = "x".join(map(str, self.size))
        return (
            f"{Path(self.model).name}: images at {size}, {self.pixels}, layer {', '.join(layers)}, "
            f"{self.precision}."
        )


@dataclass(frozen=True)
class ExplainedImage:
    """An image with its heatmaps.

    Attributes:
        row: For `draw_explanations`.
        findings: The heatmaps, in the order of the row.
    """

    row: ExplanationRow
    findings: list[Finding]


class ImageExplainer:
    """Explains images by some models and methods: one heatmap for each, and for each class.

    Args:
        classifiers: The models to explain.
        classes: The classes to explain, each in a form that `parse_target` accepts. Default: the
            top class of each image by the first model.
        layer: The layer to explain, or several. Default: see `GradCAM`.
        image_size: The size that images are resized to; `None` keeps their own size. `"own"` is
            the size that each model was trained at, or, if it is unknown, that of the image, at
            most `LARGEST_SIDE` pixels.
        methods: Names of methods, keys of `heatmaps.methods.METHODS`.
        measured: Also measures how faithful each heatmap is.
        precision: The precision of the forward pass; see `GradCAM.freeze`.
        against: Classes that each of `classes` is compared with; see `targets.difference`.
        largest_drawn: The longer side in pixels of the image and heatmaps to draw; larger ones are
            scaled. `None` keeps the size of the image.
        boxes: Also draws the boxes around the heat.

    Raises:
        UserError: A method or layer is unknown, or `classes` is empty while the models have
            different numbers of outputs.
    """

    def __init__(
        self,
        classifiers: Sequence[Classifier],
        classes: Sequence[str] = (),
        layer: str | Sequence[str] | None = None,
        image_size: Size | str | None = OWN,
        methods: Sequence[str] = ("gradcam",),
        measured: bool = False,
        precision: str = "float32",
        against: Sequence[str] = (),
        largest_drawn: int | None = LARGEST_DRAWN,
        boxes: bool = False,
    ) -> None:
        if not classes and len({each.class_count for each in classifiers}) > 1:
            counts = ", ".join(f"{each.name} of {each.class_count}" for each in classifiers)
            raise UserError(
                "Models with different outputs have no top class in common: give --class. "
                f"Received: {counts}"
            )
        self._classes, self._against = classes, against
        self._size = image_size
        self._measured = measured
        self._largest_drawn, self._boxes = largest_drawn, boxes
        self._precision = choose_precision(precision)
        self._several = (len(classifiers) > 1, len(methods) > 1)
        scores = [_differences(each, classes, against) if against else None for each in classifiers]
        self._live = [
            (
                each,
                name,
                find_method(name)(each.model, layer, preprocess=each.preprocess, score=score),
            )
            for each, score in zip(classifiers, scores, strict=True)
            for name in methods
        ]
        self._fast: list[Explainer] = []

    def __call__(self, path: Path, photograph: Picture) -> ExplainedImage:
        """Explains one image.

        Args:
            path: Its file.
            photograph: uint8 `[height, width, 3]`, RGB, upright.

        Returns:
            The image with its heatmaps.

        Raises:
            UserError: A class is unknown, or a model does not take images of this size.
        """
        names = [" not ".join([each, *self._against]) for each in self._classes]
        top: list[ClassTarget] = []
        heatmaps: list[Heatmap] = []
        findings: list[Finding] = []
        size = photograph.shape[1::-1]
        drawn = resize(photograph, bounded(photograph, self._largest_drawn or max(size)))
        for i, (classifier, method, live) in enumerate(self._live):
            seen = as_input(photograph, classifier, self._size)
            targets = [
                parse_target(text, classifier.class_names, classifier.class_count)
                for text in self._classes
            ]
            try:
                explainer = self._explainer(i, seen)
                chosen = None if self._against else targets or top or None
                explanation = explainer(seen, classes=chosen)
            except BatchError as error:
                height, width = seen.shape[1:3]
                raise UserError(
                    f"The model does not take images of {width}x{height}; give --image-size. "
                    f"{error}"
                ) from error
            require_height_and_width(explanation, explainer.layer)
            if not names:
                top = explanation.classes[0]  # the other models and methods explain it too
                names = [_class_name(classifier, top[0])]
            # Measures shuffle weights, and only the live explainer follows them.
            measures = measure(live, seen, explanation) if self._measured else {}
            for j, name in enumerate(names):
                heatmap = explanation.heatmaps[0, j]
                heatmaps.append(
                    visible_heatmap(
                        heatmap, drawn.shape[1::-1], seen.shape[1:3], explanation.extent
                    )
                )
                probability = float(explanation.probabilities[0, j])
                boxes, box_scores = find_boxes(
                    *(heatmap, size, 1.0 if math.isnan(probability) else probability),
                    extent=explanation.extent,
                )
                findings.append(
                    Finding(
                        image=path,
                        model=classifier.name,
                        method=method,
                        class_name=name,
                        class_index=None if self._against else (targets or top)[j],
                        probability=probability,
                        score=float(explanation.scores[0, j]),
                        precision=explainer.precision,
                        size=(seen.shape[2], seen.shape[1]),
                        pixels=classifier.pixels,
                        layer=explainer.layer,
                        boxes=boxes,
                        box_scores=box_scores,
                        picture_size=size,
                        is_empty=bool(np.ptp(heatmap) == 0),
                        measures={key: float(values[0, j]) for key, values in measures.items()},
                    )
                )
        titles = [_title(each, *self._several) for each in findings]
        row = ExplanationRow(drawn, path.name, np.stack(heatmaps), titles)
        if self._boxes:
            scale = drawn.shape[1] / size[0]
            row = replace(
                row,
                boxes=[scale * each.boxes for each in findings],
                scores=[each.box_scores for each in findings],
            )
        return ExplainedImage(row, findings)

    def _explainer(self, index: int, seen: npt.NDArray[np.uint8]) -> Explainer:
        """The explainer in the chosen precision, made at the first image."""
        live = self._live[index][2]
        if self._precision == "float32":
            return live
        if len(self._fast) == index:
            if live.layer is None:  # a model without known inputs cannot be frozen before a call
                live(seen)
            self._fast.append(freeze_if_possible(live, self._precision))
        return self._fast[index]


def as_input(
    photograph: Picture, classifier: Classifier, image_size: Size | str | None = OWN
) -> npt.NDArray[np.uint8]:
    """Returns an image as a batch of one for a model; `image_size` as in `ImageExplainer`."""
    size = image_size
    if size == OWN:
        size = classifier.own_size or bounded(photograph, LARGEST_SIDE)
    assert not isinstance(size, str)
    seen = photograph if size is None else resize(photograph, size)
    return to_channels(seen[np.newaxis], classifier.channels)


def bounded(photograph: Picture, side: int) -> tuple[int, int]:
    """Returns the width and height of an image with its longer side at most `side`."""
    height, width = photograph.shape[:2]
    factor = min(1.0, side / max(height, width))
    return max(1, round(factor * width)), max(1, round(factor * height))


def _differences(
    classifier: Classifier, classes: Sequence[str], against: Sequence[str]
) -> Callable[[Any], Any]:
    """Returns the score of each class less that of others, as a function of the outputs."""

    def indices(text: str) -> list[int]:
        found = parse_target(text, classifier.class_names, classifier.class_count)
        return [each for each in found if isinstance(each, int)]  # not a side of one unit

    if not classes or any(len(indices(text)) != 1 for text in classes):
        raise UserError(
            "--against compares classes of one output each: give --class. Received: "
            f"{', '.join(classes) or 'no class'}."
        )
    others = [index for text in against for index in indices(text)]
    scores = [difference(indices(text)[0], others) for text in classes]
    return lambda outputs: tf.stack([score(outputs) for score in scores], axis=-1)


def _title(finding: Finding, with_model: bool, with_method: bool) -> str:
    """The parts that differ between heatmaps come first, so that a long class name is cut last."""
    parts = [finding.model] * with_model + [finding.method] * with_method
    parts += [NO_HEAT] * finding.is_empty
    if not parts:
        return f"{finding.class_name}  {finding.certainty}"
    return f"{'  '.join(parts)}  {finding.certainty}  {finding.class_name}"


def _class_name(classifier: Classifier, target: ClassTarget) -> str:
    """The name of a top class: of an output, or of a side of one unit."""
    sided = isinstance(target, str)
    names = names_of_outputs(classifier.class_names, classifier.class_count, sided)
    if isinstance(target, str):
        return names[SIDES.index(target)]
    return names[target] if names and isinstance(target, int) else f"class {target}"
