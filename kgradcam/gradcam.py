"""Grad-CAM (Selvaraju et al., IJCV 2020, section 3): heatmaps from gradients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kgradcam.errors import UserError
from kgradcam.layers import default_call, find_call, input_spec, record_calls

ClassTarget = int | Sequence[int]
"""A class index, or a group of them that counts as one class."""


@dataclass(frozen=True)
class Explanation:
    """Heatmaps and what they explain.

    Attributes:
        heatmaps: float32 `[batch, classes, height, width]` at the layer's own resolution, ReLU
            applied, not normalized: values from 0 up, in units of the score.
        scores: float32 `[batch, classes]`, the explained scores: logits, before any softmax or
            sigmoid; for a group, the log-sum-exp of its logits.
        probabilities: float32 `[batch, classes]` in [0, 1], what the model's own head makes of
            them: softmax summed over a group, or sigmoid (any of a group). A head without an
            activation is read as softmax, or as sigmoid if it has one unit.
        classes: For each image, the class or group that each heatmap explains.
    """

    heatmaps: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    classes: list[list[ClassTarget]]


class GradCAM:
    """Explains the classes of an image classifier by gradient-weighted class activation maps.

    For the score y^c of a class and the feature maps A^k of a layer (section 3, equations 1 and 2
    of the paper)::

        alpha_k = mean over i, j of  d y^c / d A^k_ij
        heatmap = ReLU(sum over k of alpha_k A^k)

    The whole computation is one `tf.function`, traced once for all batch sizes, classes and, where
    the model takes them, image sizes. Many classes share one forward pass, and the gradients reach
    back to the layer only. The model is neither rebuilt nor changed: a softmax or sigmoid head is
    explained at the logit that enters it.

    Args:
        model: A Keras 3 model with one image input `[batch, height, width, channels]` and one
            output `[batch, classes]`, on the TensorFlow backend.
        layer: The layer to explain, by name, or by path where models are nested
            (`"backbone/conv5_block3_out"`). Default: the last layer whose feature map still has
            space, pooling and dropout left aside. `GradCAM.layer` names it.
        preprocess: Maps float32 RGB images in [0, 255] to what the model takes, on tensors. It
            becomes a part of the compiled function. Default: the images go in as they are.
        jit_compile: Compiles with XLA. It then compiles once more for each new shape.

    Attributes:
        layer: The path of the explained layer; `None` before the first call of a model that is not
            built.
        trace_count: How often the computation was traced: 1, once it has run.

    Raises:
        UserError: The layer does not exist, does not lead to the output, or there is none to
            choose; the model's inputs or outputs are of another form.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(4, 3, activation="relu"),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(10, activation="softmax"),
        ... ])
        >>> cam = GradCAM(model)
        >>> explanation = cam(np.zeros((2, 8, 8, 3)), classes=[3, [1, 2]])
        >>> explanation.heatmaps.shape
        (2, 2, 6, 6)
    """

    def __init__(
        self,
        model: keras.Model,
        layer: str | None = None,
        *,
        preprocess: Callable[[Any], Any] | None = None,
        jit_compile: bool = False,
    ) -> None:
        if keras.backend.backend() != "tensorflow":
            raise UserError(
                "kgradcam runs on the TensorFlow backend of Keras. Received: "
                f"{keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow before importing keras."
            )
        self.model = model
        self.layer = layer
        self.trace_count = 0
        self._preprocess = preprocess
        self._jit_compile = jit_compile
        if (images := input_spec(model)) is not None:
            self._trace(images)

    def _trace(self, images: tf.TensorSpec) -> None:
        self._images = images
        self._compiled = tf.function(
            self._explain,
            input_signature=[images, tf.TensorSpec([None, None, None], tf.bool)],
            jit_compile=self._jit_compile,
            autograph=False,
        )
        # The outputs of the trace tell how many classes there are.
        self._class_count = 0
        self._compiled.get_concrete_function()

    def __call__(
        self,
        images: Any,
        classes: Sequence[ClassTarget] | None = None,
        *,
        class_per_image: Sequence[ClassTarget] | None = None,
    ) -> Explanation:
        """Explains a batch of images.

        Args:
            images: `[batch, height, width, channels]`, uint8 or float. With `preprocess`, RGB in
                [0, 255].
            classes: Class indices, or groups of them, each explained for every image.
            class_per_image: One class index or group for each image. Without `classes` and
                `class_per_image` the class with the highest score is explained.

        Returns:
            An `Explanation`.

        Raises:
            UserError: The images do not fit the model, or a class is out of range.
        """
        images = self._check(images)
        batch = int(images.shape[0])
        if classes is not None and class_per_image is not None:
            raise UserError("Give either classes or class_per_image, not both.")
        if class_per_image is not None and len(class_per_image) != batch:
            raise UserError(
                f"class_per_image must name one class for each of the {batch} images. "
                f"Received: {len(class_per_image)}."
            )
        if classes is not None:
            targets = [list(classes)] * batch
            masks = self._class_masks([list(classes)])
        elif class_per_image is not None:
            targets = [[target] for target in class_per_image]
            masks = self._class_masks(targets)
        else:
            targets, masks = [], self._class_masks([[]])
        heatmaps, scores, probabilities, top = self._compiled(images, masks)
        return Explanation(
            heatmaps.numpy(),
            scores.numpy(),
            probabilities.numpy(),
            targets or [[int(index)] for index in top.numpy()],
        )

    def class_groups(self, images: Any, groups: Sequence[Sequence[ClassTarget]]) -> Explanation:
        """Explains several classes that differ from image to image.

        Args:
            images: As in a call.
            groups: For each image, its class indices or groups; all images need the same number.

        Returns:
            An `Explanation`.
        """
        images = self._check(images)
        heatmaps, scores, probabilities, _ = self._compiled(images, self._class_masks(groups))
        return Explanation(
            heatmaps.numpy(), scores.numpy(), probabilities.numpy(), [list(each) for each in groups]
        )

    def _check(self, images: Any) -> tf.Tensor:
        images = tf.cast(tf.convert_to_tensor(images), tf.float32)
        if images.shape.rank == 4 and not hasattr(self, "_compiled"):
            # A model that does not know its input yet: any size, and these channels.
            self._trace(tf.TensorSpec([None, None, None, images.shape[3]], tf.float32))
        expected = self._images.shape if hasattr(self, "_images") else (None,) * 4
        if not tf.TensorShape(expected).is_compatible_with(images.shape):
            raise UserError(
                f"images must have the shape {tuple(expected)}. Received: {tuple(images.shape)}."
            )
        return images

    def _class_masks(self, targets: Sequence[Sequence[ClassTarget]]) -> npt.NDArray[np.bool_]:
        """A boolean row over the model's classes for each target: `[images, targets, classes]`."""
        count = self._class_count
        masks = np.zeros((len(targets), len(targets[0]), count), dtype=bool)
        for i, row in enumerate(targets):
            for j, target in enumerate(row):
                indices = np.atleast_1d(np.asarray(target))
                if not (indices.size and np.issubdtype(indices.dtype, np.integer)):
                    raise UserError(f"A class is an index or a group of them. Received: {target!r}")
                if indices.min() < 0 or indices.max() >= count:
                    raise UserError(
                        f"Class indices of this model are 0 to {count - 1}. Received: {target!r}."
                    )
                masks[i, j, indices] = True
        return masks

    def _explain(self, images: Any, class_masks: Any) -> tuple[Any, Any, Any, Any]:
        self.trace_count += 1
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            inputs = images if self._preprocess is None else self._preprocess(images)
            with record_calls(self.model, watch=tape.watch) as calls:
                outputs = self.model(inputs, training=False)
            call = find_call(calls, self.layer) if self.layer else default_call(calls)
            logits, activation = _before_activation(outputs)
            class_count = logits.shape[-1]
            top = tf.argmax(logits, axis=-1)
            masks = _with_top_class(tf.ensure_shape(class_masks, [None, None, class_count]), top)
            scores = tf.reduce_logsumexp(tf.where(masks, logits[:, None, :], -np.inf), axis=-1)
        self.layer, self._class_count = call.path, class_count

        def channel_weights(one_hot_class: Any) -> Any:
            weights = tf.broadcast_to(one_hot_class, tf.shape(scores))
            gradients = tape.gradient(scores, call.feature_maps, output_gradients=weights)
            if gradients is None:
                raise UserError(
                    f"layer={call.path!r} does not lead to the model's output, so the score has no "
                    "gradient there. Choose one that does: `kgradcam layers` lists them."
                )
            return tf.reduce_mean(tf.cast(gradients, tf.float32), axis=[1, 2])

        # One backward pass a class, over no more than what follows the layer.
        alphas = tf.map_fn(
            channel_weights, tf.eye(tf.shape(scores)[1]), fn_output_signature=tf.float32
        )
        feature_maps = tf.cast(call.feature_maps, tf.float32)
        heatmaps = tf.nn.relu(tf.einsum("bhwk,cbk->bchw", feature_maps, alphas))
        return heatmaps, scores, _probabilities(logits, masks, activation), top


def _with_top_class(class_masks: Any, top: Any) -> Any:
    """Masks `[batch, classes, indices]`: those given, or the top class where none is.

    Slices instead of a branch, since XLA wants both branches of one shape.
    """
    batch, (_, count, indices) = tf.shape(top)[0], tf.unstack(tf.shape(class_masks))
    given = tf.broadcast_to(class_masks, [batch, count, indices])
    top_masks = tf.one_hot(top, indices, on_value=True, off_value=False)[:, tf.newaxis]
    return tf.concat([given, top_masks[:, : tf.maximum(1 - count, 0)]], axis=1)


def _before_activation(outputs: Any) -> tuple[Any, str]:
    """Finds the logits that enter a softmax or sigmoid head, wherever in the model it is written.

    Inside a `tf.function` a tensor knows the operation that made it; so the head is recognized as
    an activation of a layer, as a layer of its own or as a plain function call alike.
    """
    if not tf.is_tensor(outputs) or outputs.shape.rank != 2 or outputs.shape[-1] is None:
        received = getattr(outputs, "shape", type(outputs).__name__)
        raise UserError(f"The model's output must be [batch, classes]. Received: {received}.")
    tensor = outputs
    while tensor.op.type in ("Identity", "Cast"):
        tensor = tensor.op.inputs[0]
    if tensor.op.type in ("Softmax", "Sigmoid"):
        return tf.cast(tensor.op.inputs[0], tf.float32), tensor.op.type.lower()
    return tf.cast(outputs, tf.float32), "sigmoid" if outputs.shape[-1] == 1 else "softmax"


def _probabilities(logits: Any, masks: Any, activation: str) -> Any:
    if activation == "sigmoid":
        absent = tf.where(masks, tf.nn.sigmoid(-logits)[:, None, :], 1.0)
        return 1.0 - tf.reduce_prod(absent, axis=-1)
    return tf.reduce_sum(tf.where(masks, tf.nn.softmax(logits)[:, None, :], 0.0), axis=-1)
