"""The base of live and frozen explainers: the call, its checks, and its result."""

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kgradcam.devices import require_threads
from kgradcam.errors import BatchError, UserError
from kgradcam.heatmaps.batches import Chosen, each_batch, joined
from kgradcam.heatmaps.class_groups import ClassTarget, list_targets, make_groups, names_of_outputs
from kgradcam.heatmaps.computation import Computation, TraceRecord
from kgradcam.heatmaps.geometry import WHOLE

_log = logging.getLogger(__name__)

_SATURATED = 1e-3


@dataclass(frozen=True)
class Explanation:
    """Heatmaps, and the scores that they explain.

    Attributes:
        heatmaps: float32 `[batch, classes, height, width]` at the layer's resolution, after the
            ReLU, not normalized: values from 0 up, in units of the score. Series and volumes have
            their own axes in place of height and width. Heatmaps of several layers, of several
            scales or refined are in [0, 1].
        scores: float32 `[batch, classes]`, the explained scores: logits, before any softmax or
            sigmoid; for a group, the log-sum-exp of its logits.
        probabilities: float32 `[batch, classes]` in [0, 1]: the model's own numbers, summed over a
            group, or with sigmoids the probability of any class of it. Logits without an activation
            count as softmax. NaN with `score=`, and for a regression.
        classes: For each image, the class or group that each heatmap explains, as it was given;
            the top class by its name, if it has one. Empty with `score=`.
        extent: The part of the image that the cells of a heatmap tile, xyxy in fractions of its
            width and height. Convolutions without padding cut off a rim; otherwise it is the whole
            image, (0, 0, 1, 1). `normalize`, `find_boxes` and `overlay` accept it.
    """

    heatmaps: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    classes: list[list[ClassTarget]]
    extent: tuple[float, ...] = WHOLE


class Explainer(ABC):
    """Explains batches of images by a compiled computation; see `GradCAM` and `FrozenExplainer`.

    Attributes:
        model: The explained model.
        precision: The precision of the forward pass up to the layer.
    """

    def __init__(self, computation: Computation, precision: str = "float32") -> None:
        require_threads()
        self.model = computation.model
        self.precision = precision
        self._computation = computation
        self._traces: list[TraceRecord] = []
        self._has_warned = False

    @property
    def layer(self) -> str | tuple[str, ...] | None:
        """The path of the explained layer, or of each; `None` while the inputs are unknown."""
        return self._traces[0].layer if self._traces else None

    @property
    def trace_count(self) -> int:
        """The number of traces so far: 1 for calls, 1 more after `predict`, for each device."""
        return len(self._traces)

    @abstractmethod
    def _prepare(self, images: Any) -> Any:
        """Converts images to the inputs of `_explain`."""

    @abstractmethod
    def _explain(self, inputs: Any, groups: Any) -> Sequence[Any]:
        """Returns the tensors of `Computation.explain`."""

    @abstractmethod
    def _predict(self, inputs: Any, groups: Any) -> Sequence[Any]:
        """Returns the tensors of `Computation.predict`."""

    def __call__(
        self,
        images: Any,
        classes: Sequence[ClassTarget] | None = None,
        *,
        class_per_image: Sequence[ClassTarget] | None = None,
        classes_per_image: Sequence[Sequence[ClassTarget]] | None = None,
        batch_size: int | None = None,
    ) -> Explanation:
        """Explains images, in one batch or in several.

        Args:
            images: `[batch, height, width, channels]`, uint8 or float; with `preprocess`, RGB in
                [0, 255]. For a model of several inputs, their list or dict. Or a `tf.data.Dataset`
                or `keras.utils.PyDataset` of batches; labels in it are ignored.
            classes: Class indices, or names with `class_names`, or groups of them, each explained
                for every image.
            class_per_image: One class or group for each image.
            classes_per_image: Several for each image, equally many. With none of the three, the
                class with the highest score is explained.
            batch_size: The number of images that are computed at once, for arrays larger than
                memory, as `np.memmap`. Default: all of them.

        Returns:
            An `Explanation`.

        Raises:
            UserError: The images do not fit the model, a value is NaN or infinite, or a class is
                out of range.
        """
        chosen = classes, class_per_image, classes_per_image
        parts = [self._explain_batch(*each) for each in each_batch(images, batch_size, chosen)]
        return Explanation(
            heatmaps=joined([each.heatmaps for each in parts]),
            scores=joined([each.scores for each in parts]),
            probabilities=joined([each.probabilities for each in parts]),
            classes=[row for each in parts for row in each.classes],
            extent=parts[0].extent,
        )

    def _explain_batch(self, images: Any, chosen: Chosen) -> Explanation:
        inputs, groups, targets = self._check(images, *chosen)
        with _batch_errors():
            heatmaps, extents, scores, probabilities, top = self._explain(inputs, groups)
        if heatmaps.shape[:2] != scores.shape:
            raise UserError(
                "There must be a heatmap for each image and score. Received: heatmaps of the shape "
                f"{tuple(heatmaps.shape)} and scores of the shape {tuple(scores.shape)}. reshape= "
                "and score= must keep the number of images."
            )
        self._warn_of_saturation(probabilities.numpy())
        if not targets and self._computation.score.function is None:
            targets = [[self._class_of(int(index))] for index in top.numpy()]
        # The images of a batch have one size, so they share an extent.
        extent = tuple(extents.numpy()[0].tolist())
        return Explanation(heatmaps.numpy(), scores.numpy(), probabilities.numpy(), targets, extent)

    def predict(
        self,
        images: Any,
        classes: Sequence[ClassTarget] | None = None,
        *,
        class_per_image: Sequence[ClassTarget] | None = None,
        classes_per_image: Sequence[Sequence[ClassTarget]] | None = None,
        batch_size: int | None = None,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Returns the scores of a batch of images at their own size, without heatmaps.

        Args:
            images: As in a call.
            classes: As in a call.
            class_per_image: As in a call.
            classes_per_image: As in a call.
            batch_size: As in a call.

        Returns:
            Scores and probabilities, float32 `[batch, classes]`; see `Explanation`.

        Raises:
            UserError: As in a call.
        """
        found = []
        chosen = classes, class_per_image, classes_per_image
        for batch, chosen_here in each_batch(images, batch_size, chosen):
            inputs, groups, _ = self._check(batch, *chosen_here)
            with _batch_errors():
                found.append([each.numpy() for each in self._predict(inputs, groups)])
        return joined([scores for scores, _ in found]), joined([each for _, each in found])

    def _check(
        self, images: Any, classes: Any, class_per_image: Any, classes_per_image: Any
    ) -> tuple[Any, Any, list[list[ClassTarget]]]:
        require_threads()
        if tf.inside_function():
            raise UserError(
                "An explainer returns arrays, so it is no part of a tf.function or of Dataset.map. "
                "Call it outside, or through tf.numpy_function."
            )
        inputs = self._prepare(images)
        batch = int(tf.nest.flatten(inputs)[0].shape[0])
        targets = list_targets(batch, classes, class_per_image, classes_per_image)
        if targets and self._computation.score.function is not None:
            raise UserError("With score= there are no classes to choose. Received: both.")
        # Classes that all images share need one row of groups.
        rows = targets[:1] if classes is not None else targets
        record = self._traces[0]
        groups = make_groups(rows or [[]], record.class_count, self.class_names)
        return inputs, tf.constant(groups), targets

    def _warn_of_saturation(self, probabilities: Any) -> None:
        """Logs once that gradients of probabilities near 0 or 1 vanish, where no logit is known."""
        if self._traces[0].head != "outputs" or self._has_warned:
            return
        if np.abs(probabilities - 0.5).max(initial=0) > 0.5 - _SATURATED:
            self._has_warned = True
            _log.warning(
                "%s has no logits that its trace proves, so its probabilities are explained. One "
                "is within %g of 0 or 1, where gradients vanish: its heatmap is faint or noise. "
                "score= of values before the last activation avoids it.",
                *(self.model.name, _SATURATED),
            )

    @property
    def class_names(self) -> Sequence[str]:
        """The name of each output, and of one unit its two sides; empty if they are unknown."""
        if not self._traces:
            return ()
        record = self._traces[0]
        names = self._computation.class_names
        return names_of_outputs(names, record.class_count, record.two_sided)

    def _class_of(self, index: int) -> ClassTarget:
        return self.class_names[index] if self.class_names else index


def require_height_and_width(explanation: Explanation, layer: str | Sequence[str] | None) -> None:
    """Checks that heatmaps have a height and a width, as pictures and boxes need.

    Args:
        explanation: The heatmaps.
        layer: The explained layer, for the message.

    Raises:
        UserError: They have other axes: those of a series, of a volume, or of tokens without a
            grid.
    """
    if explanation.heatmaps.ndim != 4:
        places = "x".join(map(str, explanation.heatmaps.shape[2:]))
        raise UserError(
            f"Heatmaps must have a height and a width here. Received: {places} places of "
            f"layer={layer!r}, a series, a volume or tokens that fit no grid. Choose another "
            "layer: `kgradcam layers` lists them. In Python reshape= arranges tokens in a grid."
        )


@contextmanager
def _batch_errors() -> Iterator[None]:
    """Turns an operation that fails on a batch into a `UserError` with its reason."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        lines = [line.strip() for line in str(error.message).splitlines()]
        # The reason stands before the node: "... requires a multiple of 9", "[[{{node Reshape}}]]".
        nodes = [i for i, line in enumerate(lines) if i and line.startswith("[[")]
        other = next((line for line in lines if "{{" in line or ": " in line), lines[-1])
        reason = re.sub(r"^{{.*?}} ", "", lines[nodes[0] - 1] if nodes else other)
        raise BatchError(
            f"The model, preprocess= or reshape= fails on images of this size or number: {reason}"
        ) from error
