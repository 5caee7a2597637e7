"""The state behind the page of `kgradcam explore`: heat and boxes of a choice, from caches."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from kgradcam.boxes.find import find_boxes
from kgradcam.boxes.options import DEFAULT_THRESHOLDS
from kgradcam.boxes.overlap import Boxes
from kgradcam.data.dataset import Dataset
from kgradcam.data.images import read_image, resize
from kgradcam.errors import UserError
from kgradcam.heatmaps.class_groups import ClassTarget, names_of_outputs
from kgradcam.heatmaps.default_layer import last_of_each_stride, list_layers
from kgradcam.heatmaps.explainer import Explainer
from kgradcam.heatmaps.methods import find_method
from kgradcam.models.classifier import Classifier
from kgradcam.pictures.blending import OPACITY, Picture
from kgradcam.pictures.drawing import PREDICTION_COLOR
from kgradcam.pictures.explain_images import as_input, bounded
from kgradcam.pictures.picture_explanation import PictureExplanation

COSTLY = ("guided-gradcam", "scorecam", "ablationcam")
"""Methods of which each class costs further passes through the network."""
THRESHOLD = DEFAULT_THRESHOLDS["levels"][0]
_LARGEST_SHOWN = 1024  # pixels of the longer side
_TOP = 5

Source = Path | int
"""An image file, or the position of an image in the dataset."""


@dataclass(frozen=True, eq=False)
class Photograph:
    """A picture that was read, with the outputs of the model.

    Attributes:
        name: The name of its file.
        size: Width and height of the file in pixels.
        pixels: uint8 `[height, width, 3]`, RGB, with a longer side of at most 1024.
        seen: The batch of one that the model gets.
        probabilities: Of each target of the explorer; NaN for a regression.
        top: The targets with the highest probabilities, by position, the best first.
    """

    name: str
    size: tuple[int, int]
    pixels: Picture
    seen: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]
    top: tuple[int, ...]


@dataclass(frozen=True)
class Choice:
    """The options of an explanation.

    Attributes:
        target: The position of a target of the explorer. Default: the top class of the picture.
        layer: A path of `Explorer.layers`. Default: the first of them.
        method: The name of a method.
        threshold: The lowest heat of a box, in [0, 1].
        opacity: The opacity of the hottest pixel, in [0, 1].
    """

    target: int | None = None
    layer: str | None = None
    method: str = "gradcam"
    threshold: float = THRESHOLD
    opacity: float = OPACITY


@dataclass(frozen=True)
class View:
    """The results that the page shows for a choice.

    Attributes:
        photograph: The picture.
        target: The position of the explained target.
        label: The class with its probability, or the value of a regression.
        overlay: uint8 `[height, width, 3]`, RGB: `photograph.pixels` with heat and boxes.
        boxes: `[boxes, 4]`, xyxy in pixels of the file, from 0, half-open; the best first.
        scores: `[boxes]` in [0, 1].
        facts: Names and numbers of the choice, for JSON.
    """

    photograph: Photograph
    target: int
    label: str
    overlay: Picture
    boxes: Boxes
    scores: npt.NDArray[np.float64]
    facts: dict[str, Any]

    def to_json(self) -> str:
        """Returns the facts and the boxes as JSON."""
        rows = zip(self.boxes.round(2).tolist(), self.scores.round(4).tolist(), strict=True)
        boxes = [{"xyxy": box, "score": score} for box, score in rows]
        return json.dumps({**self.facts, "boxes": boxes}, indent=1)


class Explorer:
    """Explains pictures by one model, and caches results that another choice can use again.

    A new threshold or opacity runs no model. The top classes of a picture share one pass, except
    for the methods of `COSTLY`.

    Args:
        classifier: The model.
        dataset: Images to choose from.

    Attributes:
        name: The name of the model.
        dataset: As given.
        layers: The path and the shape of each layer to choose from, the default one first.
        targets: The name of each class, and its index or the side of one unit.

    Raises:
        UserError: The model has no layer with a feature map.
    """

    def __init__(self, classifier: Classifier, dataset: Dataset | None = None) -> None:
        self.name, self.dataset = classifier.name, dataset
        self._classifier = classifier
        calls, default = list_layers(classifier.model)
        chosen = last_of_each_stride(calls, default)
        self.layers = {call.path: call.shape for call in (default, *reversed(chosen))}
        self.photograph = lru_cache(16)(self._photograph)
        self._explainer = lru_cache(16)(self._make_explainer)
        self._explanation = lru_cache(64)(self._explain)
        self._overlay = lru_cache(16)(self._blend)
        # Also traces the model, before the first picture.
        grey = np.full((64, 64, 3), 127, np.uint8)
        found = self._explainer(default.path, "gradcam")(as_input(grey, classifier))
        self.targets = _targets(classifier, is_regression=bool(np.isnan(found.probabilities[0, 0])))
        self._probabilities(as_input(grey, classifier))

    def view(self, source: Source, choice: Choice) -> View:
        """Returns the results that the page shows for an image.

        Raises:
            UserError: The image cannot be read, or the method or layer does not fit the model.
        """
        photograph = self.photograph(source)
        target = photograph.top[0] if choice.target is None else choice.target
        layer = choice.layer or next(iter(self.layers))
        shared = target in photograph.top and choice.method not in COSTLY
        targets = photograph.top if shared else (target,)
        wanted = (photograph, targets, layer, choice.method)
        explanation = self._explanation(*wanted)
        j = targets.index(target)
        probability = float(explanation.probabilities[0, j])
        boxes, scores = find_boxes(
            explanation.heatmaps[0, j],
            photograph.size,
            1.0 if math.isnan(probability) else probability,
            choice.threshold,
            extent=explanation.extent,
        )
        blended = self._overlay(*wanted, j, choice.opacity)
        height, width = blended.shape[:2]
        shrink = np.array([width, height] * 2) / np.array(photograph.size * 2)
        facts = {
            "image": photograph.name,
            "width": photograph.size[0],
            "height": photograph.size[1],
            "model": self.name,
            "class": self.targets[target][0],
            "class_index": target,
            "probability": None if math.isnan(probability) else probability,
            "score": float(explanation.scores[0, j]),
            "layer": layer,
            "method": choice.method,
            "threshold": choice.threshold,
        }
        drawn = draw_boxes(blended, boxes * shrink, scores)
        label = self.label(photograph, target)
        if math.isnan(probability):
            label += f" {facts['score']:.4g}"
        return View(photograph, target, label, drawn, boxes, scores, facts)

    def label(self, photograph: Photograph, target: int) -> str:
        """Returns a class with its probability, if it has one."""
        name, probability = self.targets[target][0], photograph.probabilities[target]
        return name if np.isnan(probability) else f"{name} {probability:.1%}"

    def _photograph(self, source: Source) -> Photograph:
        name, pixels = self._read(source)
        seen = as_input(pixels, self._classifier)
        probabilities = self._probabilities(seen)
        height, width = pixels.shape[:2]
        return Photograph(
            name,
            (width, height),
            resize(pixels, bounded(pixels, _LARGEST_SHOWN)),
            seen,
            probabilities,
            tuple(np.argsort(-probabilities, kind="stable")[:_TOP].tolist()),
        )

    def _read(self, source: Source) -> tuple[str, Picture]:
        if isinstance(source, Path):
            return source.name, read_image(source, upright=True)
        assert self.dataset is not None
        example = self.dataset.examples[source]
        if example.path:
            return example.file_name, read_image(Path(example.path), upright=True)
        for batch in self.dataset.batches([example], 1):
            for _, reason in batch.damaged:
                raise UserError(f"{example.file_name}: {reason}")
            return example.file_name, batch.images[0]
        raise UserError(f"The dataset has no image {example.file_name} any more.")

    def _probabilities(self, seen: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        explainer = self._explainer(next(iter(self.layers)), "gradcam")
        return explainer.predict(seen, [target for _, target in self.targets])[1][0]

    def _make_explainer(self, layer: str, method: str) -> Explainer:
        # Several outputs are chosen by index, the sides of one unit by name.
        names = self._classifier.class_names if self._classifier.class_count == 1 else None
        preprocess = self._classifier.preprocess
        return find_method(method)(
            self._classifier.model, layer, preprocess=preprocess, class_names=names or ()
        )

    def _explain(
        self, photograph: Photograph, targets: Sequence[int], layer: str, method: str
    ) -> PictureExplanation:
        chosen = [self.targets[target][1] for target in targets]
        found = self._explainer(layer, method)(photograph.seen, chosen)
        return PictureExplanation(
            **vars(found),
            pictures=(photograph.pixels,),
            titles=(photograph.name,),
            class_names=self._classifier.class_names or (),
            input_size=photograph.seen.shape[1:3],
        )

    def _blend(self, *wanted: Any) -> Picture:
        *explained, j, opacity = wanted
        return self._explanation(*explained).overlay(0, j, opacity)


def draw_boxes(picture: Picture, boxes: Boxes, scores: npt.NDArray[np.float64]) -> Picture:
    """Returns a picture with boxes and their scores over it.

    Args:
        picture: uint8 `[height, width, 3]`, RGB.
        boxes: `[boxes, 4]`, xyxy in pixels, from 0, half-open.
        scores: `[boxes]`.
    """
    image = PIL.Image.fromarray(picture)
    canvas = PIL.ImageDraw.Draw(image)
    line = max(2, round(max(image.size) / 300))
    font = PIL.ImageFont.load_default(max(12, 5 * line))
    # The best box is drawn last, over the others.
    for box, score in reversed([*zip(boxes.round().astype(int).tolist(), scores, strict=True)]):
        x0, y0, x1, y1 = box[0], box[1], max(box[0], box[2] - 1), max(box[1], box[3] - 1)
        # The dark rim keeps a box visible on a background of its own colour.
        canvas.rectangle((x0, y0, x1, y1), outline="black", width=line + 1)
        canvas.rectangle((x0, y0, x1, y1), outline=PREDICTION_COLOR, width=line)
        text, corner = f"{score:.2f}", (x0 + 2 * line, y0 + line)
        *_, right, bottom = canvas.textbbox(corner, text, font)
        canvas.rectangle((x0, y0, right + line, bottom + line), fill=PREDICTION_COLOR)
        canvas.text(corner, text, "black", font)
    return np.asarray(image)


def _targets(classifier: Classifier, is_regression: bool) -> list[tuple[str, ClassTarget]]:
    """Returns each class of a model by name, and as explainers take it."""
    count, names = classifier.class_count, classifier.class_names
    if is_regression:
        return [("value", 0)]
    if count == 1:
        return [(name, name) for name in names_of_outputs(names, 1, two_sided=True)]
    return [(names[i] if names else f"class {i}", i) for i in range(count)]
