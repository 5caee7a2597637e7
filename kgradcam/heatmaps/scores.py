"""What is explained: the score of a class, before the head's softmax or sigmoid."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kgradcam.errors import UserError, did_you_mean

ClassTarget = int | Sequence[int]
"""A class index, or a group of them that counts as one class."""


def select_output(outputs: Any, names: Sequence[str], output: str | int | None) -> Any:
    """Picks one of a model's outputs.

    Args:
        outputs: A tensor, or a list or dict of them.
        names: The names of the outputs in their order, as far as they are known.
        output: Its name or its place; needed if there are several.

    Raises:
        UserError: There is no such output, or it is not said which.
    """
    if tf.is_tensor(outputs):
        return outputs
    by_name = outputs if isinstance(outputs, dict) else dict(zip(names, outputs, strict=False))
    tensors = list(outputs.values() if isinstance(outputs, dict) else outputs)
    if output is None and len(tensors) == 1:
        return tensors[0]
    if isinstance(output, int) and -len(tensors) <= output < len(tensors):
        return tensors[output]
    if output in by_name:
        return by_name[output]
    options = list(by_name) or list(map(str, range(len(tensors))))
    raise UserError(
        f"The model has {len(tensors)} outputs: output= must say which to explain, "
        f"{' or '.join(options)}. Received: {output!r}.{did_you_mean(str(output), options)}"
    )


class Scored(NamedTuple):
    """What is explained: scores and probabilities `[batch, classes]`, and what they are made of.

    Slopes are those of the scores by the logits, `[batch, classes, outputs]`.
    """

    logits: Any
    scores: Any
    slopes: Any
    probabilities: Any
    top: Any
    masks: Any

    def slope(self, weights: Any) -> tuple[Any, Any]:
        """Where a gradient starts, and the slope there of the scores' sum by weights `[classes]`.

        The slope of a log-sum-exp is a softmax: taken once, not at each class.
        """
        if self.logits is None:
            return self.scores, tf.broadcast_to(weights, tf.shape(self.scores))
        return self.logits, tf.einsum("c,bco->bo", weights, self.slopes)


def score_classes(outputs: Any, class_masks: Any) -> Scored:
    """Scores classes by the logits before a model's head.

    Args:
        outputs: See `before_activation`.
        class_masks: bool `[1 or batch, targets, classes]`; with no targets, the top class of each
            image is scored.

    Returns:
        What is explained.
    """
    logits, activation = before_activation(outputs)
    top = tf.argmax(logits, axis=-1)
    masks = with_top_class(tf.ensure_shape(class_masks, [None, None, logits.shape[-1]]), top)
    scores = class_scores(logits, masks)
    slopes = tf.where(masks, tf.exp(logits[:, None, :] - scores[:, :, None]), 0.0)
    probabilities = class_probabilities(logits, masks, activation)
    return Scored(logits, scores, slopes, probabilities, top, masks)


def score_values(values: Any, class_masks: Any) -> Scored:
    """Takes values that are no classes, `[batch]` or `[batch, scores]`, as scores.

    Raises:
        UserError: They have another form.
    """
    scores = tf.cast(values, tf.float32)
    if scores.shape.rank not in (1, 2):
        raise UserError(
            f"score must map the outputs to [batch], or [batch, scores]. Received: {scores.shape}."
        )
    scores = scores[:, None] if scores.shape.rank == 1 else scores
    undefined = tf.fill(tf.shape(scores), np.float32(np.nan))
    top = tf.zeros(tf.shape(scores)[:1], tf.int64)
    return Scored(None, scores, None, undefined, top, class_masks)


def before_activation(outputs: Any) -> tuple[Any, str]:
    """Finds the logits that enter a softmax or sigmoid head, wherever in the model it is written.

    Inside a `tf.function` a tensor knows the operation that made it; so the head is recognized as
    an activation of a layer, as a layer of its own or as a plain function call alike.

    Args:
        outputs: A symbolic tensor `[batch, classes]`.

    Returns:
        The logits, float32, and `"softmax"` or `"sigmoid"`. A head without either is read as
        softmax, or as sigmoid if it has one unit.

    Raises:
        UserError: The outputs have another form.
    """
    if outputs.shape.rank != 2 or outputs.shape[-1] is None:
        raise UserError(
            "For a class to be explained, the model's output must be [batch, classes]. Received: "
            f"{outputs.shape}. For other outputs give score=, a function of the outputs to one "
            "value an image."
        )
    tensor = outputs
    while tensor.op.type in ("Identity", "Cast"):
        tensor = tensor.op.inputs[0]
    if tensor.op.type in ("Softmax", "Sigmoid"):
        return tf.cast(tensor.op.inputs[0], tf.float32), tensor.op.type.lower()
    return tf.cast(outputs, tf.float32), "sigmoid" if outputs.shape[-1] == 1 else "softmax"


def class_scores(logits: Any, masks: Any) -> Any:
    """Returns the log-sum-exp of the logits that each mask `[batch, targets, classes]` picks."""
    return tf.reduce_logsumexp(tf.where(masks, logits[:, None, :], -np.inf), axis=-1)


def class_probabilities(logits: Any, masks: Any, activation: str) -> Any:
    """Returns what a head makes of classes: softmax summed over a group, or sigmoid of any."""
    if activation == "sigmoid":
        absent = tf.where(masks, tf.nn.sigmoid(-logits)[:, None, :], 1.0)
        return 1.0 - tf.reduce_prod(absent, axis=-1)
    return tf.reduce_sum(tf.where(masks, tf.nn.softmax(logits)[:, None, :], 0.0), axis=-1)


def with_top_class(class_masks: Any, top: Any) -> Any:
    """Returns masks `[batch, targets, classes]`: those given, or the top class where none is.

    Slices instead of a branch, since XLA wants both branches of one shape.
    """
    batch, (_, count, indices) = tf.shape(top)[0], tf.unstack(tf.shape(class_masks))
    given = tf.broadcast_to(class_masks, [batch, count, indices])
    top_masks = tf.one_hot(top, indices, on_value=True, off_value=False)[:, tf.newaxis]
    return tf.concat([given, top_masks[:, : tf.maximum(1 - count, 0)]], axis=1)


def make_class_masks(
    targets: Sequence[Sequence[ClassTarget]], class_count: int
) -> npt.NDArray[np.bool_]:
    """Returns a boolean row over the model's classes for each target.

    Args:
        targets: For each image, or for all of them, its classes and groups: equally many.
        class_count: How many classes the model has.

    Returns:
        bool `[images, targets, classes]`.

    Raises:
        UserError: A target is no index or group of them, or out of range.
    """
    masks = np.zeros((len(targets), len(targets[0]), class_count), dtype=bool)
    for i, row in enumerate(targets):
        for j, target in enumerate(row):
            indices = np.atleast_1d(np.asarray(target))
            if not (indices.size and np.issubdtype(indices.dtype, np.integer)):
                raise UserError(f"A class is an index or a group of them. Received: {target!r}")
            if indices.min() < 0 or indices.max() >= class_count:
                raise UserError(
                    f"Class indices of this model are 0 to {class_count - 1}. Received: {target!r}."
                )
            masks[i, j, indices] = True
    return masks
