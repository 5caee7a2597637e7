"""Scores for the argument `score=` of `GradCAM`, for models and questions beyond one class.

Each function returns a function of the model's outputs. Scores are logits, before any softmax or
sigmoid, where the trace proves them; see `heads.find_head`. Of several outputs, `output` selects
one by its key or index.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kgradcam.errors import UserError
from kgradcam.heatmaps.heads import find_head
from kgradcam.heatmaps.scores import select_output

ScoreFunction = Callable[[Any], Any]
"""Maps the outputs of a model to scores, `[batch]` or `[batch, scores]`."""


def regression(index: int = 0, output: str | int | None = None) -> ScoreFunction:
    """Scores a predicted value, and its negative: two heatmaps.

    The first shows evidence that raises the value, the second evidence that lowers it, both in
    units of the value.

    Args:
        index: The index of the value in outputs `[batch, values]`.
        output: Which of several outputs.

    Example:
        >>> score = regression()
        >>> score(tf.constant([[3.0], [5.0]])).numpy()
        array([[ 3., -3.],
               [ 5., -5.]], dtype=float32)
    """

    def score(outputs: Any) -> Any:
        values = tf.cast(select_output(outputs, (), output), tf.float32)
        values = values[:, tf.newaxis] if values.shape.rank == 1 else values
        _require(values, 2, "[batch, values]", index=index)
        return tf.stack([values[:, index], -values[:, index]], axis=-1)

    return score


def difference(
    class_index: int,
    against: int | Sequence[int],
    weight: float = 1.0,
    output: str | int | None = None,
) -> ScoreFunction:
    """Scores a class against others: why this one and not those.

    The score is `y^c - weight * mean over d of y^d` on logits, as in Finer-CAM (Zhang et al., CVPR
    2025, section 3.2). Evidence that the classes share cancels.

    Args:
        class_index: The class c.
        against: The other class, or several classes d.
        weight: How strongly the others count. At 0 the score is that of the class.
        output: Which of several outputs.
    """
    others = np.atleast_1d(against).tolist()
    if not others or class_index in others:
        raise UserError(
            f"against must be other classes than class_index={class_index}. Received: {against!r}."
        )

    def score(outputs: Any) -> Any:
        logits = _logits(outputs, output, 2, "[batch, classes]", class_index, *others)
        rest = tf.reduce_mean(tf.gather(logits, others, axis=-1), axis=-1)
        return logits[:, class_index] - weight * rest

    return score


def absence(class_index: int = 0, output: str | int | None = None) -> ScoreFunction:
    """Scores the absence of a class: its negative logit.

    For one sigmoid unit this is class 0 of the two classes, as `classes=["negative"]` is. For
    several sigmoid units it is the evidence against one of them.

    Args:
        class_index: The class.
        output: Which of several outputs.
    """

    def score(outputs: Any) -> Any:
        return -_logits(outputs, output, 2, "[batch, classes]", class_index)[:, class_index]

    return score


def similarity(embedding: npt.ArrayLike, output: str | int | None = None) -> ScoreFunction:
    """Scores the cosine similarity of the model's embedding to given ones: a heatmap for each.

    Args:
        embedding: `[size]`, or several `[embeddings, size]`: of another image, or of a text.
        output: Which of several outputs.
    """
    wanted = tf.cast(tf.convert_to_tensor(embedding), tf.float32)
    wanted = wanted[tf.newaxis] if wanted.shape.rank == 1 else wanted

    def score(outputs: Any) -> Any:
        found = tf.cast(select_output(outputs, (), output), tf.float32)
        if found.shape.rank != 2 or wanted.shape.rank != 2 or found.shape[1] != wanted.shape[1]:
            raise UserError(
                "embedding must be of the size of the model's embedding, "
                f"{tuple(found.shape)[1:]}. Received: {tuple(wanted.shape)[1:]}."
            )
        unit = tf.math.l2_normalize
        return tf.matmul(unit(found, axis=-1), unit(wanted, axis=-1), transpose_b=True)

    return score


def segmentation(
    class_index: int, region: npt.ArrayLike | None = None, output: str | int | None = None
) -> ScoreFunction:
    """Scores a class of a segmentation map: the sum of its logits over a region.

    This is Seg-Grad-CAM (Vinogradova et al., AAAI 2020, equation 2).

    Args:
        class_index: The class.
        region: Booleans or weights `[height, width]` at the size of the map. Default: the pixels
            where the class has the highest score. An image without such pixels has no heat.
        output: Which of several outputs `[batch, height, width, classes]`.
    """
    given = None if region is None else tf.cast(tf.convert_to_tensor(region), tf.float32)

    def score(outputs: Any) -> Any:
        layout = "[batch, height, width, classes]"
        logits = _logits(outputs, output, 4, layout, class_index)
        chosen = given
        if chosen is None:
            top = tf.argmax(logits, axis=-1, output_type=tf.int32)
            chosen = tf.cast(top == class_index, tf.float32)
        elif chosen.shape.rank != 2 or not logits.shape[1:3].is_compatible_with(chosen.shape):
            raise UserError(
                f"region must be of the size of the segmentation map, {tuple(logits.shape[1:3])}. "
                f"Received: {tuple(chosen.shape)}."
            )
        return tf.reduce_sum(logits[..., class_index] * chosen, axis=[1, 2])

    return score


def detection(index: int, class_index: int = 0, output: str | int | None = None) -> ScoreFunction:
    """Scores a class of one detection of an object detector, before non-maximum suppression.

    Args:
        index: The index of the detection: of an anchor, a query or a cell.
        class_index: The class.
        output: Which of several outputs holds the classes, `[batch, detections, classes]`.
    """

    def score(outputs: Any) -> Any:
        logits = _logits(outputs, output, 3, "[batch, detections, classes]", class_index)
        count = logits.shape[1]
        if index < 0 or (count is not None and index >= count):
            raise UserError(
                f"index must be a detection of the model, 0 to {(count or 0) - 1}. "
                f"Received: {index}."
            )
        return logits[:, index, class_index]

    return score


def _logits(
    outputs: Any, output: str | int | None, rank: int, layout: str, *class_indices: int
) -> Any:
    """The logits of an output whose last axis holds classes, in its shape."""
    selected = select_output(outputs, (), output)
    for class_index in class_indices:
        _require(selected, rank, layout, class_index=class_index)
    # The head of rows of classes; a reshape does not hide an activation.
    rows = tf.reshape(selected, [-1, selected.shape[-1]])
    return tf.reshape(find_head(rows).logits, tf.shape(selected))


def _require(values: Any, rank: int, layout: str, **indices: int) -> None:
    """Checks the rank of an output, and an index of its last axis."""
    if values.shape.rank != rank or values.shape[-1] is None:
        raise UserError(f"The output must be {layout}. Received: {values.shape}.")
    for name, index in indices.items():
        if isinstance(index, str):
            raise UserError(
                f"{name} must be an index, as names.index({index!r}). Received: a name."
            )
        if not 0 <= index < values.shape[-1]:
            raise UserError(f"{name} must be 0 to {values.shape[-1] - 1}. Received: {index}.")
