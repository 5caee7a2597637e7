"""The functions of an exported explainer: named tensors in, named tensors out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from kgradcam.boxes.options import BoxOptions
from kgradcam.heatmaps.constant_graph import ConstantGraph
from kgradcam.serving.graph_boxes import level_boxes
from kgradcam.serving.pictures import PictureInput

Tensors = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Signatures:
    """Builds the functions of an export.

    Attributes:
        graph: The explainer with constant weights.
        groups: int32 `[1, classes, outputs]`: the classes that `explain` explains; without any, the
            top classes.
        names: The names of these classes, or of the model's outputs, or `None`.
        pictures: The pictures that the model takes; `None` for other inputs, which have no boxes.
        threshold: The lowest heat level of boxes.
        boxes: The options of boxes.
        max_boxes: The number of boxes of each heatmap.
    """

    graph: ConstantGraph
    groups: Any
    names: Sequence[str] | None
    pictures: PictureInput | None
    threshold: float
    boxes: BoxOptions
    max_boxes: int

    def make(self) -> dict[str, Any]:
        """Returns a concrete function for the name of each signature."""
        specs = self._input_specs()
        explain = _concrete(
            lambda **inputs: self._explain(*self._given(inputs), self.groups), specs
        )
        found = {"serving_default": explain, "explain": explain}
        if self.graph.class_count:
            indices = tf.TensorSpec([None], tf.int32, "class_indices")
            found["explain_class"] = _concrete(self._explain_class, [*specs, indices])
            found["predict"] = _concrete(self._predict, specs)
        if self.pictures is not None:
            contents = tf.TensorSpec([None], tf.string, "image_bytes")
            found["explain_bytes"] = _concrete(self._explain_bytes, [contents])
        return found

    def _input_specs(self) -> list[Any]:
        if self.pictures is not None:
            shape = [None, None, None, self.pictures.channels]
            return [tf.TensorSpec(shape, tf.uint8, "images")]
        specs = tf.nest.flatten(self.graph.specs)
        names = [spec.name for spec in specs] if len(specs) > 1 else ["inputs"]
        return [
            tf.TensorSpec(each.shape, each.dtype, name)
            for name, each in zip(names, specs, strict=True)
        ]

    def _given(self, inputs: Tensors) -> tuple[Any, Any]:
        """The inputs of the model, and the size of each picture."""
        if self.pictures is None:
            order = [inputs[spec.name] for spec in self._input_specs()]
            return tf.nest.pack_sequence_as(self.graph.specs, order), None
        images = inputs["images"]
        size = tf.tile(tf.shape(images)[tf.newaxis, 2:0:-1], [tf.shape(images)[0], 1])
        return self._as_input(self.pictures.fit(images)), size

    def _as_input(self, images: Any) -> Any:
        (spec,) = tf.nest.flatten(self.graph.specs)
        return tf.nest.pack_sequence_as(self.graph.specs, [tf.cast(images, spec.dtype)])

    def _explain_class(self, class_indices: Any, **inputs: Any) -> Tensors:
        class_indices = self._checked(class_indices)
        found = self._explain(*self._given(inputs), class_indices[tf.newaxis, tf.newaxis])
        return {key: value for key, value in found.items() if key not in ("classes", "names")}

    def _explain_bytes(self, image_bytes: Any) -> Tensors:
        assert self.pictures is not None
        images, size = self.pictures.decode(image_bytes)
        return self._explain(self._as_input(images), size, self.groups)

    def _predict(self, **inputs: Any) -> Tensors:
        every = tf.range(self.graph.class_count)[tf.newaxis, :, tf.newaxis]
        # The runtime drops heatmaps, which nothing depends on.
        _, _, scores, probabilities, _ = self.graph(self._given(inputs)[0], every)
        return {"scores": scores, "probabilities": probabilities}

    def _checked(self, indices: Any) -> Any:
        count = self.graph.class_count
        fits = (tf.size(indices) > 0) & tf.reduce_all((indices >= 0) & (indices < count))
        message = f"kgradcam: class_indices must be indices from 0 to {count - 1}."
        with tf.control_dependencies([tf.debugging.Assert(fits, [message])]):
            return tf.identity(indices)

    def _explain(self, inputs: Any, size: Any, groups: Any) -> Tensors:
        heatmaps, extents, scores, probabilities, top = self.graph(inputs, groups)
        batch, count = tf.unstack(tf.shape(scores))
        if not self.graph.class_count or groups.shape[1] != 0:  # the places of the given classes
            top = tf.tile(tf.range(count)[tf.newaxis], [batch, 1])
        found = {
            "classes": tf.cast(top, tf.int32),
            "scores": scores,
            "probabilities": probabilities,
            "heatmaps": heatmaps,
            "extent": extents,
        }
        if self.names is not None:
            found["names"] = tf.gather(tf.constant(list(self.names)), found["classes"])
        if size is not None:
            found["boxes"], found["box_scores"] = self._boxes(
                heatmaps, size, probabilities, extents
            )
        return found

    def _boxes(self, heatmaps: Any, size: Any, probabilities: Any, extents: Any) -> tuple[Any, Any]:
        batch, count = tf.unstack(tf.shape(heatmaps)[:2])
        maps = tf.reshape(heatmaps, tf.concat([[-1], tf.shape(heatmaps)[2:]], 0))
        certain = tf.where(tf.math.is_nan(probabilities), 1.0, probabilities)
        each_map = (
            maps,
            tf.repeat(size, count, axis=0),
            tf.reshape(certain, [-1]),
            tf.repeat(extents, count, axis=0),
        )

        def draw(values: Any) -> tuple[Any, Any]:
            heatmap, picture, probability, extent = values
            return level_boxes(
                *(heatmap, picture, probability, extent),
                *(self.threshold, self.boxes, self.max_boxes),
            )

        specs = (
            tf.TensorSpec([self.max_boxes, 4], tf.float32),
            tf.TensorSpec([self.max_boxes], tf.float32),
        )
        boxes, scores = tf.map_fn(draw, each_map, fn_output_signature=specs)
        shape = [batch, count, self.max_boxes]
        return tf.reshape(boxes, [*shape, 4]), tf.reshape(scores, shape)


def _concrete(function: Callable[..., Tensors], specs: Sequence[Any]) -> Any:
    compiled = tf.function(function, autograph=False)
    return compiled.get_concrete_function(**{spec.name: spec for spec in specs})
