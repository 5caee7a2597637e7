"""The computation of an explainer as one graph of constants, for export."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import tensorflow as tf
from typing_extensions import override

from kgradcam.errors import UserError
from kgradcam.heatmaps.class_groups import make_groups
from kgradcam.heatmaps.frozen import FrozenExplainer
from kgradcam.heatmaps.gradcam import GradCAM
from kgradcam.heatmaps.scores import Score, Scored


@dataclass(frozen=True)
class _TopScore(Score):
    """Scores the `count` best classes of each image where no classes are given.

    `Scored.top` holds their indices, int32 `[batch, count]`, best first.
    """

    count: int = 1

    @override
    def __call__(self, model: Any, outputs: Any, groups: Any) -> Scored:
        scored = super().__call__(model, outputs, groups)
        if self.function is not None:
            return scored
        count = min(self.count, scored.start.shape[-1])
        top = tf.math.top_k(scored.start, count).indices
        batch, (_, given, length) = tf.shape(top)[0], tf.unstack(tf.shape(groups))
        rows = tf.pad(top[:, :, tf.newaxis], [[0, 0], [0, 0], [0, length - 1]], constant_values=-1)
        # Slices replace a branch, as in `score_classes`.
        rows = rows[:, : tf.where(given == 0, count, 0)]
        groups = tf.concat([tf.broadcast_to(groups, [batch, given, length]), rows], axis=1)
        return super().__call__(model, outputs, groups)._replace(top=top)


class ConstantGraph:
    """The function of a `GradCAM` with its weights as constants, to be called in other graphs.

    Every `tf.function` that calls it shares one copy of the weights.

    Args:
        cam: The explainer.
        top: The number of classes to explain where none are given.
        precision: See `GradCAM.freeze`.

    Attributes:
        specs: The specs of the model's inputs.
        method: The name of the function that makes heatmaps.
        layer: The path of the explained layer, or of each.
        precision: The precision of the model up to the layer.
        two_sided: Whether the model has one sigmoid unit, whose sides are classes.
        class_count: The number of classes; 2 for a model with one sigmoid unit; 0 with `score=`.

    Raises:
        UserError: The explainer is frozen already, unused so far, or runs on several devices.
        CannotFreezeError: See `GradCAM.freeze`.
    """

    def __init__(self, cam: GradCAM, top: int, precision: str) -> None:
        if not isinstance(cam, GradCAM):
            raise UserError(
                "The explainer to export must be a GradCAM, not a frozen one: precision= freezes "
                f"it. Received: {type(cam).__name__}."
            )
        if not cam._traces:
            raise UserError(
                "The inputs of this model are not known yet: call the explainer once on a batch of "
                "images, then export it."
            )
        if cam.model.distribute_strategy.num_replicas_in_sync > 1:
            raise UserError("An export runs on one device. Load the model outside of its strategy.")
        specs = cam._live.traced
        score = cam._computation.score
        known = {each.name: getattr(score, each.name) for each in fields(Score)}
        computation = replace(cam._computation, score=_TopScore(**known, count=top))
        # It has to outlive the export: bodies of loops are unregistered with it.
        self._frozen = FrozenExplainer(computation, specs, precision, False, to_be_saved=True)
        record = self._frozen._traces[0]
        self.two_sided = record.two_sided
        self.specs: Any = specs
        self.method = str(getattr(computation.method, "__name__", "a method of your own"))
        self.layer = record.layer
        self.precision = self._frozen.precision
        self.class_count = 2 if record.two_sided else record.class_count

    @property
    def needs_gradients(self) -> bool:
        """Whether the graph computes gradients: not where Grad-CAM is CAM."""
        compiled: Any = self._frozen._frozen
        operations = compiled.get_concrete_function().graph.get_operations()
        # Gradients of several classes are computed in a loop.
        return any(each.type.endswith(("While", "Grad", "BackpropInput")) for each in operations)

    def groups_of(self, targets: Any, names: Sequence[str]) -> Any:
        """Returns the groups of outputs of classes, int32 `[1, classes, outputs]`; see `Score`."""
        return make_groups([targets], 1 if self.two_sided else self.class_count, names)

    def __call__(self, inputs: Any, groups: Any) -> tuple[Any, ...]:
        """Returns heatmaps, extents, scores, probabilities and top classes, the batch first."""
        return tuple(self._frozen._explain(inputs, groups))
