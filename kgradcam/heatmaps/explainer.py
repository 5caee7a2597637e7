"""What live and frozen explainers share: the call, its checks, and its result."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kgradcam.devices import require_threads
from kgradcam.errors import UserError
from kgradcam.heatmaps.computation import Computation, TraceRecord
from kgradcam.heatmaps.geometry import WHOLE
from kgradcam.heatmaps.scores import SIDES, ClassTarget, list_targets, make_groups


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
        classes: For each image, the class or group that each heatmap explains; empty with
            `score=`.
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
    ) -> Explanation:
        """Explains a batch of images.

        Args:
            images: `[batch, height, width, channels]`, uint8 or float; with `preprocess`, RGB in
                [0, 255]. For a model of several inputs, their list or dict.
            classes: Class indices, or groups of indices, each explained for every image.
            class_per_image: One class index or group for each image.
            classes_per_image: Several for each image, equally many. With none of the three, the
                class with the highest score is explained.

        Returns:
            An `Explanation`.

        Raises:
            UserError: The images do not fit the model, a value is NaN or infinite, or a class is
                out of range.
        """
        inputs, groups, targets = self._check(images, classes, class_per_image, classes_per_image)
        with _batch_errors():
            heatmaps, extents, scores, probabilities, top = self._explain(inputs, groups)
        if heatmaps.shape[:2] != scores.shape:
            raise UserError(
                "There must be a heatmap for each image and score. Received: heatmaps of the shape "
                f"{tuple(heatmaps.shape)} and scores of the shape {tuple(scores.shape)}. reshape= "
                "must keep the number of images."
            )
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
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Returns the scores of a batch of images at their own size, without heatmaps.

        Args:
            images: As in a call.
            classes: As in a call.
            class_per_image: As in a call.
            classes_per_image: As in a call.

        Returns:
            Scores and probabilities, float32 `[batch, classes]`; see `Explanation`.

        Raises:
            UserError: As in a call.
        """
        inputs, groups, _ = self._check(images, classes, class_per_image, classes_per_image)
        with _batch_errors():
            scores, probabilities = self._predict(inputs, groups)
        return scores.numpy(), probabilities.numpy()

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
        groups = make_groups(rows or [[]], record.class_count, None, record.two_sided)
        return inputs, tf.constant(groups), targets

    def _class_of(self, index: int) -> ClassTarget:
        return SIDES[index] if self._traces[0].two_sided else index


@contextmanager
def _batch_errors() -> Iterator[None]:
    """Turns an operation that fails on a batch into a `UserError` with its reason."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        lines = [line.strip() for line in str(error.message).splitlines()]
        reason = next((line for line in lines if "{{" in line or ": " in line), lines[-1])
        raise UserError(
            f"The model, preprocess= or reshape= fails on images of this size or number: {reason}"
        ) from error
