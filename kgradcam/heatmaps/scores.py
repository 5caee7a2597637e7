"""What is explained: the score of a class, before the head's softmax or sigmoid."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kgradcam.errors import UserError, did_you_mean

ClassTarget = int | Sequence[int]
"""A class index, or a group of indices that counts as one class."""


def select_output(outputs: Any, names: Sequence[str], output: str | int | None) -> Any:
    """Selects one of a model's outputs.

    Args:
        outputs: A tensor, or a list or dict of them.
        names: The names of the outputs in their order; empty if unknown.
        output: Its name or index; required if there are several.

    Raises:
        UserError: There is no such output, or there are several and `output` is `None`.
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
        f"The model has {len(tensors)} outputs: give output=, "
        f"{' or '.join(options)}. Received: {output!r}.{did_you_mean(str(output), options)}"
    )


class Scored(NamedTuple):
    """The explained scores of a batch, and where their gradients start; symbolic tensors.

    Attributes:
        scores: float32 `[batch, classes]`.
        probabilities: float32 `[batch, classes]` in [0, 1]; NaN with `score=`.
        start: float32 `[batch, outputs]`: the logits, or with `score=` the scores themselves.
        slopes: float32 `[classes, batch, outputs]`, the derivatives of each score by `start`.
        logits: `start`, or `None` with `score=`.
        top: int64 `[batch]`, the index of the highest logit.
        class_masks: bool `[1 or batch, classes, outputs]`, the outputs that each score combines.
    """

    scores: Any
    probabilities: Any
    start: Any
    slopes: Any
    logits: Any
    top: Any
    class_masks: Any


@dataclass(frozen=True)
class Score:
    """What is explained of a model's outputs: classes, or the values of a function.

    Attributes:
        output: Which of several outputs holds the classes, by name or index.
        function: Maps the model's outputs to `[batch]` or `[batch, scores]` instead.
    """

    output: str | int | None = None
    function: Callable[[Any], Any] | None = None

    def __call__(self, model: keras.Model, outputs: Any, class_masks: Any) -> Scored:
        """Scores the outputs of a forward pass.

        Args:
            model: The model that returned them.
            outputs: Its symbolic outputs.
            class_masks: bool `[1 or batch, classes, outputs]`. With no classes the top class of
                each image is scored.

        Raises:
            UserError: The outputs, or the values of the function, have another shape.
        """
        if self.function is not None:
            return score_values(self.function(outputs), class_masks)
        names = getattr(model, "output_names", ())
        return score_classes(select_output(outputs, names, self.output), class_masks)


def score_classes(outputs: Any, class_masks: Any) -> Scored:
    """Scores classes by the logits before a model's softmax or sigmoid.

    A group of classes is scored by the log-sum-exp of its logits, whose derivative is a softmax.

    Args:
        outputs: See `before_activation`.
        class_masks: See `Score`.
    """
    logits, activation = before_activation(outputs)
    top = tf.argmax(logits, axis=-1)
    masks = with_top_class(tf.ensure_shape(class_masks, [None, None, logits.shape[-1]]), top)
    scores = class_scores(logits, masks)
    slopes = tf.where(masks, tf.exp(logits[:, None, :] - scores[:, :, None]), 0.0)
    return Scored(
        scores=scores,
        probabilities=class_probabilities(logits, masks, activation),
        start=logits,
        slopes=tf.transpose(slopes, [1, 0, 2]),
        logits=logits,
        top=top,
        class_masks=masks,
    )


def score_values(values: Any, class_masks: Any) -> Scored:
    """Returns the values of a score function, `[batch]` or `[batch, scores]`, as scores.

    Raises:
        UserError: The values have another shape.
    """
    scores = tf.cast(values, tf.float32)
    if scores.shape.rank not in (1, 2):
        raise UserError(
            f"score must map the outputs to [batch], or [batch, scores]. Received: {scores.shape}."
        )
    scores = scores[:, None] if scores.shape.rank == 1 else scores
    batch, count = tf.unstack(tf.shape(scores))
    return Scored(
        scores=scores,
        probabilities=tf.fill([batch, count], np.float32(np.nan)),
        start=scores,
        slopes=tf.repeat(tf.eye(count)[:, None, :], batch, axis=1),
        logits=None,
        top=tf.zeros([batch], tf.int64),
        class_masks=class_masks,
    )


def before_activation(outputs: Any) -> tuple[Any, str]:
    """Finds the logits that enter a softmax or sigmoid head.

    A symbolic tensor has a reference to the operation that computed it. So the head is found
    wherever it is written: as an argument of a layer, as a layer, or as a function call.

    Args:
        outputs: A symbolic tensor `[batch, classes]`.

    Returns:
        The logits, float32, and `"softmax"` or `"sigmoid"`. A head without activation counts as
        softmax, or as sigmoid if it has one unit.

    Raises:
        UserError: The outputs have another shape.
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
    """Returns the log-sum-exp of the logits that each mask `[batch, classes, outputs]` selects."""
    return tf.reduce_logsumexp(tf.where(masks, logits[:, None, :], -np.inf), axis=-1)


def class_probabilities(logits: Any, masks: Any, activation: str) -> Any:
    """Returns softmax summed over each mask, or the sigmoid probability of any of its classes."""
    if activation == "sigmoid":
        absent = tf.where(masks, tf.nn.sigmoid(-logits)[:, None, :], 1.0)
        return 1.0 - tf.reduce_prod(absent, axis=-1)
    return tf.reduce_sum(tf.where(masks, tf.nn.softmax(logits)[:, None, :], 0.0), axis=-1)


def with_top_class(class_masks: Any, top: Any) -> Any:
    """Returns the given masks `[batch, classes, outputs]`, or the top class where there are none.

    Slices replace a branch, since XLA requires equal shapes of both branches.
    """
    batch, (_, count, indices) = tf.shape(top)[0], tf.unstack(tf.shape(class_masks))
    given = tf.broadcast_to(class_masks, [batch, count, indices])
    top_masks = tf.one_hot(top, indices, on_value=True, off_value=False)[:, tf.newaxis]
    return tf.concat([given, top_masks[:, : tf.maximum(1 - count, 0)]], axis=1)


def list_targets(
    batch: int,
    classes: Sequence[ClassTarget] | None,
    class_per_image: Sequence[ClassTarget] | None,
    classes_per_image: Sequence[Sequence[ClassTarget]] | None,
) -> list[list[ClassTarget]]:
    """Returns the targets of each image; none at all if no argument is given.

    Args:
        batch: The number of images.
        classes: Targets of every image.
        class_per_image: One target for each image.
        classes_per_image: Several targets for each image, equally many.

    Raises:
        UserError: More than one argument is given, or one has not an entry for each image.
    """
    arguments: dict[str, Sequence[Any] | None] = {
        "classes": classes,
        "class_per_image": class_per_image,
        "classes_per_image": classes_per_image,
    }
    given = {name: value for name, value in arguments.items() if value is not None}
    if len(given) > 1:
        raise UserError(
            "Give one of classes, class_per_image and classes_per_image. "
            f"Received: {' and '.join(given)}."
        )
    if classes is not None:
        return [list(classes)] * batch
    for name, rows in given.items():
        if len(rows) != batch:
            raise UserError(
                f"{name} must have an entry for each of the {batch} images. Received: {len(rows)}."
            )
    if class_per_image is not None:
        return [[target] for target in class_per_image]
    rows = [list(row) for row in classes_per_image or ()]
    if len({len(row) for row in rows}) > 1:
        raise UserError(
            "classes_per_image must have equally many classes for each image. "
            f"Received: {[len(row) for row in rows]}."
        )
    return rows


def make_class_masks(
    targets: Sequence[Sequence[ClassTarget]], class_count: int
) -> npt.NDArray[np.bool_]:
    """Returns a boolean row over the model's classes for each target.

    Args:
        targets: The targets of each image, or one row for all images; equally many in each.
        class_count: The number of classes of the model.

    Returns:
        bool `[images, targets, classes]`.

    Raises:
        UserError: A target is neither an index nor a group of indices, or is out of range.
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
