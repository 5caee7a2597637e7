"""The explained scores: of classes, before the head's softmax or sigmoid, or of a function."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kgradcam.errors import UserError, did_you_mean
from kgradcam.heatmaps.heads import find_head


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
        if output in (None, 0, -1, *names):
            return outputs
        raise UserError(
            f"The model has one output{f', {names[0]}' if names else ''}. Received: "
            f"output={output!r}."
        )
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

    A score combines a group of outputs: it is the log-sum-exp of their logits.

    Attributes:
        scores: float32 `[batch, classes]`.
        probabilities: float32 `[batch, classes]` in [0, 1]; NaN where there are none.
        start: float32 `[batch, outputs]`: the logits, or with `score=` the scores themselves.
        groups: int32 `[1 or batch, classes, outputs of a group]`, the outputs that each score
            combines. Shorter groups are filled up with -1.
        weights: float32 `[batch, classes, outputs of a group]`, the derivative of each score by
            each output of its group.
        top: int64 `[batch]`, the index of the highest logit.
        head: The kind of the head (see `Head`), or `None` with `score=`.
        two_sided: Whether the head is one unit with a probability. Then `start` has two columns,
            the unit and its opposite.
    """

    scores: Any
    probabilities: Any
    start: Any
    groups: Any
    weights: Any
    top: Any
    head: str | None
    two_sided: bool = False

    @property
    def output_count(self) -> int:
        """The number of outputs of the head."""
        return 1 if self.two_sided else int(self.start.shape[-1])

    @property
    def places(self) -> Any:
        """The places of the scores: int32 `[classes]`, to loop over."""
        return tf.range(tf.shape(self.scores)[1])

    def slope(self, place: Any) -> Any:
        """Returns the derivative of one score by `start`: float32 `[batch, outputs]`."""
        rows = tf.one_hot(self.groups[:, place], self.start.shape[-1] or tf.shape(self.start)[1])
        return tf.reduce_sum(self.weights[:, place, :, tf.newaxis] * rows, axis=1)


@dataclass(frozen=True)
class Score:
    """The definition of the explained scores: classes of a model's output, or a function.

    Attributes:
        output: Which of several outputs holds the classes, by name or index.
        function: Maps the model's outputs to `[batch]` or `[batch, scores]` instead.
    """

    output: str | int | None = None
    function: Callable[[Any], Any] | None = None

    def __call__(self, model: keras.Model, outputs: Any, groups: Any) -> Scored:
        """Scores the outputs of a forward pass.

        Args:
            model: The model that returned them.
            outputs: Its symbolic outputs.
            groups: int32 `[1 or batch, classes, outputs of a group]`, filled up with -1. With no
                classes the top class of each image is scored.

        Raises:
            UserError: The outputs, or the values of the function, have another shape.
        """
        if self.function is not None:
            return score_values(self.function(outputs))
        return score_classes(self._selected(model, outputs), groups)

    def scored_outputs(self, model: keras.Model, outputs: Any) -> dict[int, Any]:
        """Returns the outputs that are scored, by their place among all; all with a function."""
        selected = None if self.function is not None else self._selected(model, outputs)
        return {
            place: each
            for place, each in enumerate(tf.nest.flatten(outputs))
            if tf.is_tensor(each) and each.shape.rank and (selected is None or each is selected)
        }

    def _selected(self, model: keras.Model, outputs: Any) -> Any:
        return select_output(outputs, getattr(model, "output_names", ()), self.output)


def score_classes(outputs: Any, groups: Any) -> Scored:
    """Scores classes by the logits before a model's softmax or sigmoid.

    A group of classes is scored by the log-sum-exp of its logits, whose derivative is a softmax.

    Args:
        outputs: See `find_head`.
        groups: See `Score`.
    """
    logits, probabilities, kind = find_head(outputs)
    combine = _any if kind == "sigmoid" else _total
    two_sided = outputs.shape[-1] == 1 and kind in ("sigmoid", "outputs")
    if two_sided:
        opposite = -logits if kind == "sigmoid" else 1.0 - logits
        logits = tf.concat([logits, opposite], axis=-1)
        probabilities = tf.concat([probabilities, 1.0 - probabilities], axis=-1)
        combine = _total
    top = tf.argmax(logits, axis=-1)
    groups = _with_top_class(groups, top)
    of_group = _gather(logits, groups, -np.inf)
    scores = tf.reduce_logsumexp(of_group, axis=-1)
    return Scored(
        scores=scores,
        probabilities=combine(_gather(probabilities, groups, 0.0)),
        start=logits,
        groups=groups,
        weights=tf.exp(of_group - scores[:, :, None]),
        top=top,
        head=kind,
        two_sided=two_sided,
    )


def score_values(values: Any) -> Scored:
    """Returns the values of a score function, `[batch]` or `[batch, scores]`, as scores.

    Raises:
        UserError: The values have another shape.
    """
    if values is None or callable(values):
        received = "None" if values is None else "a function; call it, as targets.regression()"
        raise UserError(f"score must return [batch], or [batch, scores]. Received: {received}.")
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
        groups=tf.range(count)[tf.newaxis, :, tf.newaxis],
        weights=tf.ones([batch, count, 1]),
        top=tf.zeros([batch], tf.int64),
        head=None,
    )


def _gather(values: Any, groups: Any, filler: float) -> Any:
    """The entries `[batch, classes, outputs of a group]` of values `[batch, outputs]`."""
    shape = tf.concat([tf.shape(values)[:1], tf.shape(groups)[1:]], axis=0)
    groups = tf.broadcast_to(groups, shape)
    found = tf.gather(values, tf.maximum(groups, 0), batch_dims=1)
    return tf.where(groups < 0, filler, found)


def _total(probabilities: Any) -> Any:
    """The probability of a group of classes that exclude one another."""
    total = tf.reduce_sum(probabilities, axis=-1)
    return tf.where(total > 1, 1.0, total)


def _any(probabilities: Any) -> Any:
    """The probability of any class of a group, where each is present or not by itself."""
    # In logarithms: a small probability survives its subtraction from 1.
    return -tf.math.expm1(tf.reduce_sum(tf.math.log1p(-probabilities), axis=-1))


def _with_top_class(groups: Any, top: Any) -> Any:
    """Returns the given groups, or the top class of each image where there are none.

    Slices replace a branch, since XLA requires equal shapes of both branches.
    """
    batch, (_, count, length) = tf.shape(top)[0], tf.unstack(tf.shape(groups))
    given = tf.broadcast_to(groups, [batch, count, length])
    of_top = tf.pad(
        tf.cast(top, tf.int32)[:, None, None], [[0, 0], [0, 0], [0, length - 1]], constant_values=-1
    )
    return tf.concat([given, of_top[:, : tf.maximum(1 - count, 0)]], axis=1)
