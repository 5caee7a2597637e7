"""The computation of an explainer: a function of images, classes and the weights of a model.

`GradCAM` compiles it as it is, `FrozenExplainer` with the weights as constants.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from kgradcam.heatmaps.forward import ForwardPass, Reshape, run_forward
from kgradcam.heatmaps.fusion import fuse_layers
from kgradcam.heatmaps.geometry import WHOLE, spelled_out
from kgradcam.heatmaps.multiscale import View, combine_scales
from kgradcam.heatmaps.scores import Score

Method = Callable[[ForwardPass], Any]
"""Maps a forward pass to heatmaps, float32 `[classes, batch, height, width]`, before the ReLU."""


class TraceRecord(NamedTuple):
    """The properties of the model that a trace has found.

    Attributes:
        layer: The path of the explained layer, or of each.
        head: The kind of the head; see `Scored`.
        class_count: The number of outputs of the head; 0 with `score=`.
        two_sided: Whether the head is one unit, whose sides are classes.
        feature_maps: Symbolic tensors; behind them everything is computed in float32.
        outputs: The outputs of the model that are scored, symbolic, by their place among all; none
            with several image sizes.
    """

    layer: str | tuple[str, ...] | None
    head: str | None
    class_count: int
    two_sided: bool
    feature_maps: list[Any]
    outputs: dict[int, Any]


@dataclass(frozen=True, eq=False)
class Computation:
    """The parameters of `GradCAM`, and the two functions that they define.

    Both functions take symbolic inputs of the model and groups of outputs, int32 (see `Score`).
    They return tensors with the batch first, and the record of their trace.
    """

    model: keras.Model
    layers: tuple[str, ...] | None
    method: Method
    score: Score
    reshape: Reshape | None
    preprocess: Callable[[Any], Any] | None
    relu: bool
    scales: tuple[float, ...]
    score_scales: tuple[float, ...]
    refine: bool
    class_names: tuple[str, ...] = ()

    def explain(self, inputs: Any, groups: Any) -> tuple[Any, TraceRecord]:
        """Returns heatmaps `[batch, classes, ...]`, extents, scores, probabilities, top classes."""
        inputs = self.preprocessed(inputs)
        # A single pass is not resampled: heatmaps keep the cells of the layer.
        if self.scales == (1.0,) and not self.score_scales and not self.refine:
            view = self._view(inputs, groups)
        else:
            view = combine_scales(
                self._view, inputs, groups, self.scales, self.score_scales, self.refine
            )
        heatmaps = tf.einsum(spelled_out("cb...->bc...", view.heatmaps), view.heatmaps)
        scored, paths = view.scored, tuple(each.call.path for each in view.passes)
        record = TraceRecord(
            layer=paths[0] if len(paths) == 1 else paths,
            head=scored.head,
            class_count=0 if scored.head is None else scored.output_count,
            two_sided=scored.two_sided,
            feature_maps=[call.feature_maps for call in view.calls],
            outputs=view.passes[0].outputs if self.scales == (1.0,) else {},
        )
        extents = tf.repeat(view.extent[tf.newaxis], tf.shape(heatmaps)[0], axis=0)
        return (heatmaps, extents, scored.scores, scored.probabilities, scored.top), record

    def predict(self, inputs: Any, groups: Any) -> tuple[Any, TraceRecord]:
        """Returns scores and probabilities, `[batch, classes]`."""
        outputs = self.model(self.preprocessed(inputs), training=False)
        scored = self.score(self.model, outputs, groups)
        record = TraceRecord(None, scored.head, 0, scored.two_sided, [scored.start], {})
        return (scored.scores, scored.probabilities), record

    def preprocessed(self, inputs: Any) -> Any:
        """Returns the inputs of the model itself."""
        return inputs if self.preprocess is None else self.preprocess(inputs)

    def _view(self, inputs: Any, groups: Any) -> View:
        passes = run_forward(self.model, inputs, self.layers, self.score, groups, self.reshape)
        maps = [self.method(each) for each in passes]
        if self.relu:
            maps = [tf.nn.relu(each) for each in maps]
        extents = [_extent_of_maps(*each) for each in zip(maps, passes, strict=True)]
        heatmaps, extent = maps[0], extents[0]
        if len(maps) > 1:
            heatmaps, extent = fuse_layers(maps, extents), tf.constant(WHOLE)
        return View(heatmaps, passes[0].scored, passes, [each.call for each in passes], extent)


def _extent_of_maps(heatmaps: Any, forward: ForwardPass) -> Any:
    """The extent of the feature maps, or the whole image for heatmaps on another grid."""
    if heatmaps.shape.rank != 4 or forward.feature_maps.shape.rank != 4:
        return tf.constant(WHOLE)
    same = tf.reduce_all(tf.equal(tf.shape(heatmaps)[2:], tf.shape(forward.feature_maps)[1:3]))
    return tf.where(same, forward.extent, WHOLE)
