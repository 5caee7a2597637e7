"""Grad-CAM (Selvaraju et al., IJCV 2020, section 3): heatmaps from gradients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kgradcam.errors import UserError
from kgradcam.heatmaps.affinity import affinities, propagate
from kgradcam.heatmaps.frozen import Frozen, choose_precision, prefers_xla
from kgradcam.heatmaps.fusion import at_most_cells, fuse_layers, scaled_to_one
from kgradcam.heatmaps.layers import (
    LayerCall,
    default_call,
    find_call,
    finer_calls,
    input_specs,
    record_calls,
)
from kgradcam.heatmaps.receptive_field import cell_centres, resample
from kgradcam.heatmaps.scores import (
    ClassTarget,
    Scored,
    make_class_masks,
    score_classes,
    score_values,
    select_output,
)

# Keeps small gradients in float16 from vanishing; a power of two, so that nothing is rounded.
_FLOAT16_SCALE = 1024.0


@dataclass(frozen=True)
class Explanation:
    """Heatmaps and what they explain.

    Attributes:
        heatmaps: float32 `[batch, classes, height, width]` at the layer's own resolution, ReLU
            applied, not normalized: values from 0 up, in units of the score. For series and
            volumes, with their own axes for height and width. Of several layers, of several scales
            or refined: in [0, 1].
        scores: float32 `[batch, classes]`, the explained scores: logits, before any softmax or
            sigmoid; for a group, the log-sum-exp of its logits.
        probabilities: float32 `[batch, classes]` in [0, 1], what the model's own head makes of
            them: softmax summed over a group, or sigmoid (any of a group). A head without an
            activation is read as softmax, or as sigmoid if it has one unit. NaN with `score=`.
        classes: For each image, the class or group that each heatmap explains; empty with
            `score=`.
    """

    heatmaps: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    classes: list[list[ClassTarget]]


@dataclass(frozen=True)
class Trace:
    """One forward pass, and what a method may ask of it; all tensors are symbolic.

    Attributes:
        inputs: What the model got, preprocessed.
        feature_maps: float32 `[batch, height, width, channels]`.
        logits: float32 `[batch, outputs]`, what the scores are made of; `None` with `score=`.
        scores: float32 `[batch, classes]`.
        gradients: Maps weights `[classes]` of the scores to the gradient of their weighted sum at
            the feature maps, of their shape.
        mean_gradients: Maps such weights to the means of that gradient over space, `[batch,
            channels]`, in fewer steps where the network itself takes a mean over space next.
        rescore: Runs the model again, on other inputs or with other feature maps in their place,
            and returns its scores.
    """

    inputs: Any
    feature_maps: Any
    logits: Any
    scores: Any
    gradients: Callable[[Any], Any]
    mean_gradients: Callable[[Any], Any]
    rescore: Callable[..., Any]


class GradCAM:
    """Explains the scores of a network by gradient-weighted class activation maps.

    For the score y^c of a class and the feature maps A^k of a layer (section 3, equations 1 and 2
    of the paper)::

        alpha_k = mean over i, j of  d y^c / d A^k_ij
        heatmap = ReLU(sum over k of alpha_k A^k)

    The whole computation is one `tf.function`, traced once for all batch sizes, classes and, where
    the model takes them, image sizes. Many classes share one forward pass, and the gradients reach
    back to the layer only. The model is neither rebuilt nor changed: a softmax or sigmoid head is
    explained at the logit that enters it. After 1,000 images, at once in reduced precision, the
    weights are frozen to constants, which is faster; when they change, the next call follows them.
    The devices of a model that was made under a `tf.distribute.MirroredStrategy` share each batch.

    Args:
        model: Any Keras 3 model on the TensorFlow backend: functional, sequential, subclassed or
            nested, with one input or several.
        layer: The layer to explain, by name, or by path where models are nested
            (`"backbone/conv5_block3_out"`). Default: the last layer whose feature map still has
            space, pooling and dropout left aside. `GradCAM.layer` names it. Several layers are
            fused: their heatmaps, each divided by its highest value and resized to the largest,
            are averaged.
        output: Which of several outputs `[batch, classes]` the classes are of, by name or place.
        score: Explains something else than a class: a function of the model's outputs, as the
            model returns them, to `[batch]`, or to `[batch, scores]` for several heatmaps. For
            example the mean of a class over a region of a segmentation map.
        reshape: Maps feature maps, and gradients likewise, to `[batch, height, width, channels]`,
            where they are not so already: `lambda tokens: tf.reshape(tokens[:, 1:], (-1, 14, 14,
            768))` for a vision transformer. Without it, maps of layers with channels first are
            transposed.
        preprocess: Maps float32 RGB images in [0, 255] to what the model takes, on tensors. It
            becomes a part of the compiled function. Default: the inputs go in as they are.
        relu: Whether evidence against a class is cut off, as in the paper; else heatmaps are
            signed.
        scales: Sizes, as factors, at which the model sees the images; the heatmaps, each divided by
            its highest value, are averaged. Small scales grasp what is large, large ones find what
            is small.
        refine: Whether heat spreads to what looks alike to the two layers of the next finer
            strides (see `affinity`), so that a whole object becomes hot and not a part of it alone.
            Then, and with several scales, the cells of a heatmap tile the image exactly (see
            `receptive_field`), at the finest of these strides but one, though not above about a
            thousand cells.
        precision: In what the model computes up to the layer; scores, gradients and heatmaps are
            float32 always. `"float32"`, `"bfloat16"` or `"float16"`, or `"auto"` for the reduced
            one that this machine computes fast, if any. On EfficientNet-Lite0 heatmaps of 40
            photographs agree in bfloat16 with float32 to a cosine above 0.999.
        freeze: Whether the weights become constants at the first call, or in float32 never.
            Default: see above.
        jit_compile: Whether to compile with XLA, once for each new shape. Default: on a GPU, where
            the model takes images of one size.

    Attributes:
        layer: The path of the explained layer, or of each; `None` before the first call of a model
            that is not built.
        precision: The one in use: what `"auto"` came to, and float32 once a call has found that the
            model cannot be frozen; the log says why.
        trace_count: How often the computation was traced: 1, once it has run, and 1 more once
            `predict` has; with several devices as often for each. Freezing traces it again, once
            for each time that weights have changed.

    Raises:
        UserError: The layer does not exist, does not lead to the score, or there is none to choose;
            or the output needs `output` or `score`.

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
        layer: str | Sequence[str] | None = None,
        *,
        output: str | int | None = None,
        score: Callable[[Any], Any] | None = None,
        reshape: Callable[[Any], Any] | None = None,
        preprocess: Callable[[Any], Any] | None = None,
        relu: bool = True,
        scales: Sequence[float] = (1.0,),
        refine: bool = False,
        precision: str = "float32",
        freeze: bool | None = None,
        jit_compile: bool | None = None,
    ) -> None:
        if keras.backend.backend() != "tensorflow":
            raise UserError(
                "kgradcam runs on the TensorFlow backend of Keras. Received: "
                f"{keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow before importing keras."
            )
        self.model = model
        self.layer = layer if layer is None or isinstance(layer, str) else tuple(layer)
        self._precision = choose_precision(precision)
        self.trace_count = 0
        self._output = output
        self._score = score
        self._reshape = reshape
        self._preprocess = preprocess
        self._relu = relu
        self._scales = tuple(scales)
        self._refine = refine
        self._freeze = freeze
        if not self._scales or not all(scale > 0 for scale in self._scales):
            raise UserError(
                f"scales must be positive factors, as (1.0, 0.5). Received: {scales!r}."
            )
        self._jit_compile = jit_compile
        self._inputs: Any = None
        self._calls: list[LayerCall] = []
        if (specs := input_specs(model)) is not None:
            self._trace(specs)

    @property
    def precision(self) -> str:
        """What the model computes in; see the attributes."""
        fell_back = self._inputs is not None and self._compiled.obstacle is not None
        return "float32" if fell_back else self._precision

    def heatmap(self, feature_maps: Any, gradients: Any) -> Any:
        """Returns the heatmap of one class, before its ReLU: what a method consists of.

        Args:
            feature_maps: float32 `[batch, height, width, channels]`.
            gradients: The gradient of the score there, of the same shape.

        Returns:
            float32 `[batch, height, width]`.
        """
        alphas = tf.reduce_mean(gradients, axis=space(feature_maps))
        return tf.einsum("b...k,bk->b...", feature_maps, alphas)

    def heatmaps(self, trace: Trace) -> Any:
        """Returns the heatmaps of all classes, before their ReLU; methods without gradients do it.

        Args:
            trace: The forward pass.

        Returns:
            float32 `[classes, batch, height, width]`.
        """
        # One backward pass a class, over no more than what follows the layer.
        one_hots = tf.eye(tf.shape(trace.scores)[1])
        if type(self).heatmap is not GradCAM.heatmap:
            return one_by_one(
                lambda one_hot: self.heatmap(trace.feature_maps, trace.gradients(one_hot)), one_hots
            )
        # Alphas are small: all classes share one product with the feature maps.
        alphas = one_by_one(trace.mean_gradients, one_hots)
        return tf.einsum("b...k,cbk->cb...", trace.feature_maps, alphas)

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
            classes: Class indices, or groups of them, each explained for every image.
            class_per_image: One class index or group for each image.
            classes_per_image: Several for each image, equally many. With none of the three, the
                class with the highest score is explained.

        Returns:
            An `Explanation`.

        Raises:
            UserError: The images do not fit the model, a value of theirs is NaN or infinite, or a
                class is out of range.
        """
        inputs, masks, targets = self._check(images, classes, class_per_image, classes_per_image)
        heatmaps, scores, probabilities, top = self._compiled(inputs, masks)
        if not targets and self._score is None:
            targets = [[int(index)] for index in top.numpy()]
        return Explanation(heatmaps.numpy(), scores.numpy(), probabilities.numpy(), targets)

    def predict(
        self,
        images: Any,
        classes: Sequence[ClassTarget] | None = None,
        *,
        class_per_image: Sequence[ClassTarget] | None = None,
        classes_per_image: Sequence[Sequence[ClassTarget]] | None = None,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Returns the scores and probabilities that a call would explain, without explaining.

        Args:
            images: As for a call, and likewise the classes.
            classes: See there.
            class_per_image: See there.
            classes_per_image: See there.

        Returns:
            Scores and probabilities, float32 `[batch, classes]`; see `Explanation`.

        Raises:
            UserError: As for a call.
        """
        inputs, masks, _ = self._check(images, classes, class_per_image, classes_per_image)
        scores, probabilities = self._compiled_scores(inputs, masks)
        return scores.numpy(), probabilities.numpy()

    def _check(
        self, images: Any, classes: Any, class_per_image: Any, classes_per_image: Any
    ) -> tuple[Any, npt.NDArray[np.bool_], list[list[ClassTarget]]]:
        inputs = self._check_inputs(images)
        batch = int(tf.nest.flatten(inputs)[0].shape[0])
        targets = self._check_targets(batch, classes, class_per_image, classes_per_image)
        # Classes that all images share need one row of masks.
        rows = targets[:1] if classes is not None else targets
        return inputs, make_class_masks(rows or [[]], self._class_count), targets

    def _check_targets(
        self, batch: int, classes: Any, class_per_image: Any, classes_per_image: Any
    ) -> list[list[ClassTarget]]:
        given = [each for each in (classes, class_per_image, classes_per_image) if each is not None]
        if len(given) > 1:
            raise UserError("Give one of classes, class_per_image and classes_per_image.")
        if given and self._score is not None:
            raise UserError("With score= there are no classes to name: score says what to explain.")
        if not given:
            return []
        if classes is not None:
            return [list(classes)] * batch
        name = "class_per_image" if class_per_image is not None else "classes_per_image"
        if len(given[0]) != batch:
            raise UserError(
                f"{name} must have an entry for each of the {batch} images. "
                f"Received: {len(given[0])}."
            )
        if class_per_image is not None:
            return [[target] for target in class_per_image]
        return [list(row) for row in classes_per_image]

    def _check_inputs(self, images: Any) -> Any:
        if self._inputs is None:
            # A model that does not know its inputs yet: any size, and these last axes.
            tensors = tf.nest.map_structure(_as_input, images)
            if not self.model.built:  # its weights must not be made inside the trace
                with self.model.distribute_strategy.scope():
                    self.model(tensors if self._preprocess is None else self._preprocess(tensors))
            self._trace(
                tf.nest.map_structure(
                    lambda each: tf.TensorSpec(
                        [None] * (each.shape.rank - 1) + each.shape[-1:], each.dtype
                    ),
                    tensors,
                )
            )
        try:
            tf.nest.assert_same_structure(self._inputs, images, check_types=False)
            inputs = tf.nest.map_structure(
                lambda spec, each: tf.cast(tf.convert_to_tensor(each), spec.dtype),
                self._inputs,
                images,
            )
        except (ValueError, TypeError) as error:
            names = tf.nest.map_structure(lambda spec: tuple(spec.shape), self._inputs)
            raise UserError(f"images must have the structure {names}.") from error
        for spec, tensor in zip(
            tf.nest.flatten(self._inputs), tf.nest.flatten(inputs), strict=True
        ):
            if not spec.shape.is_compatible_with(tensor.shape):
                raise UserError(
                    f"images must have the shape {tuple(spec.shape)}. "
                    f"Received: {tuple(tensor.shape)}."
                )
        for each in tf.nest.flatten(images):
            _require_finite(each)
        return inputs

    def _trace(self, specs: Any) -> None:
        self._inputs = specs
        signature = [specs, tf.TensorSpec([None, None, None], tf.bool)]
        jit_compile = self._jit_compile
        if jit_compile is None:
            jit_compile = prefers_xla(specs)
        self._compiled = Frozen(
            self._explain,
            signature,
            self.model,
            precision=self._precision,
            freeze=self._freeze,
            jit_compile=jit_compile,
            cut=lambda: [call.feature_maps for call in self._calls],
        )
        self._compiled_scores = Frozen(
            self._predict, signature, self.model, freeze=self._freeze, jit_compile=jit_compile
        )
        # The outputs of the trace tell how many classes there are.
        self._class_count = 0
        self._compiled.plain.get_concrete_function()

    def _predict(self, inputs: Any, class_masks: Any) -> tuple[Any, Any]:
        self.trace_count += 1
        if self._preprocess is not None:
            inputs = self._preprocess(inputs)
        scored = self._score_outputs(self.model(inputs, training=False), class_masks)
        return scored.scores, scored.probabilities

    def _explain(self, inputs: Any, class_masks: Any) -> tuple[Any, Any, Any, Any]:
        self.trace_count += 1
        if self._preprocess is not None:
            inputs = self._preprocess(inputs)
        self._calls = []
        if self._scales == (1.0,) and not self._refine:
            view = self._view(inputs, class_masks)
            heatmaps, scored = view.heatmaps, view.scored
        else:
            heatmaps, scored = self._combine(inputs, class_masks)
        # From classes first to the batch first.
        heatmaps = tf.einsum("cb...->bc...", heatmaps)
        return heatmaps, scored.scores, scored.probabilities, scored.top

    def _view(self, inputs: Any, class_masks: Any) -> "_View":
        """One forward pass, and what is explained of it."""
        with record_calls(self.model) as recorded:
            outputs = self.model(inputs, training=False)
        if self.layer is None:
            calls = [default_call(recorded, inputs, outputs)]
        else:
            paths = [self.layer] if isinstance(self.layer, str) else self.layer
            calls = [find_call(recorded, path) for path in paths]
        scored = self._score_outputs(outputs, class_masks)
        self._calls += calls
        found = [call.path for call in calls]
        self.layer = found[0] if len(found) == 1 else tuple(found)
        maps = [self.heatmaps(self._follow(call, inputs, scored)) for call in calls]
        if self._relu:
            maps = [tf.nn.relu(each) for each in maps]
        heatmaps = maps[0] if len(maps) == 1 else fuse_layers(maps)
        return _View(heatmaps, scored, inputs, calls, recorded)

    def _combine(self, inputs: Any, class_masks: Any) -> tuple[Any, Scored]:
        """The views at all scales on one grid that tiles the image, refined if asked for."""
        if not tf.is_tensor(inputs) or inputs.shape.rank != 4 or isinstance(self.layer, tuple):
            raise UserError("scales and refine need a model of one image, and one layer.")
        size = tf.cast(tf.shape(inputs)[1:3], tf.float32)
        views: list[_View] = []
        for scale in self._scales:
            scaled = inputs
            if scale != 1:
                scaled = tf.image.resize(inputs, tf.cast(tf.round(scale * size), tf.int32))
                scaled = tf.cast(scaled, inputs.dtype)
            # The top class, if it is the one explained, is that of the first scale.
            views.append(self._view(scaled, views[0].scored.masks if views else class_masks))
        finest = views[self._scales.index(max(self._scales))]
        alike = finer_calls(finest.recorded, finest.calls[0]) or finest.calls
        cells = at_most_cells(tf.shape(self._as_grid(alike[0], alike[0].feature_maps))[1:3])
        total = tf.add_n([self._on_grid(view, cells) for view in views]) / len(views)
        if self._refine:
            features = [self._tiled(finest, call, cells) for call in alike]
            self._calls += alike
            total = propagate(total, affinities(features))
        heatmaps = tf.einsum("bhwc->cbhw", scaled_to_one(total))
        first = views[0].scored
        scores = tf.add_n([view.scored.scores for view in views]) / len(views)
        probabilities = tf.add_n([view.scored.probabilities for view in views]) / len(views)
        return heatmaps, first._replace(scores=scores, probabilities=probabilities)

    def _on_grid(self, view: "_View", cells: Any) -> Any:
        """The heatmaps of a view `[batch, cells, cells, classes]`, each scaled to 1."""
        heatmaps = tf.einsum("cbhw->bhwc", view.heatmaps)
        return scaled_to_one(self._tiled(view, view.calls[0], cells, heatmaps))

    def _tiled(self, view: "_View", call: LayerCall, cells: Any, maps: Any = None) -> Any:
        """Maps of a layer, by default its features, resampled to cells that tile the image."""
        grid = self._as_grid(call, call.feature_maps)
        size = tf.shape(view.inputs)[1:3]
        centres = (cell_centres(grid, size[0], 0), cell_centres(grid, size[1], 1))
        return resample(grid if maps is None else maps, centres, (size[0], size[1]), cells)

    def _follow(self, call: LayerCall, inputs: Any, scored: Scored) -> Trace:
        def gradients(weights: Any) -> Any:
            return self._gradients(call, scored, weights)

        def mean_gradients(weights: Any) -> Any:
            return self._mean_gradients(call, scored, weights)

        def rescore(inputs: Any = inputs, feature_maps: Any = None) -> Any:
            def replace(path: str, original: Any) -> Any:
                if path != call.path or feature_maps is None:
                    return original
                maps = _channels_first(feature_maps) if call.channels_first else feature_maps
                return tf.cast(maps, original.dtype)

            with record_calls(self.model, replace):
                outputs = self.model(inputs, training=False)
            return self._score_outputs(outputs, scored.masks).scores

        feature_maps = self._as_grid(call, call.feature_maps)
        return Trace(
            inputs,
            feature_maps,
            scored.logits,
            scored.scores,
            gradients,
            mean_gradients,
            rescore,
        )

    def _score_outputs(self, outputs: Any, class_masks: Any) -> Scored:
        if self._score is not None:
            return score_values(self._score(outputs), class_masks)
        output = select_output(outputs, getattr(self.model, "output_names", ()), self._output)
        scored = score_classes(output, class_masks)
        self._class_count = scored.logits.shape[-1]
        return scored

    def _gradients(self, call: LayerCall, scored: Scored, weights: Any) -> Any:
        scale = _FLOAT16_SCALE if call.feature_maps.dtype == tf.float16 else 1.0
        start, slope = scored.slope(weights)
        # Unlike a tape, it goes back to the layer and no further; unlike tf.gradients, it does not
        # tie operations to one another by name, and so those of one replica to another's device.
        (gradients,) = tf.compat.v1.gradients(start, call.feature_maps, grad_ys=scale * slope)
        if gradients is None:
            raise UserError(
                f"layer={call.path!r} has no gradient of the score: the score does not depend on "
                "it, or only through an operation without a gradient (stop_gradient, integers, "
                "argmax). Choose another layer: `kgradcam layers` lists them."
            )
        return self._as_grid(call, gradients) / scale

    def _mean_gradients(self, call: LayerCall, scored: Scored, weights: Any) -> Any:
        start, slope = scored.slope(weights)
        pooled = None if call.channels_first or self._reshape else _pooled(call.feature_maps)
        if pooled is not None and pooled.dtype == tf.float32:
            # Nothing else may lead from the layer to the score.
            (beside,) = tf.compat.v1.gradients(start, call.feature_maps, stop_gradients=[pooled])
            (gradients,) = tf.compat.v1.gradients(start, pooled, grad_ys=slope)
            if beside is None and gradients is not None:
                # The gradient of a mean is the same at each place: 1 / places.
                shape = tf.shape(call.feature_maps)
                places = tf.cast(tf.reduce_prod(shape[1:-1]), tf.float32)
                return tf.reshape(gradients, [shape[0], shape[-1]]) / places
        gradients = self._gradients(call, scored, weights)
        return tf.reduce_mean(gradients, axis=space(gradients))

    def _as_grid(self, call: LayerCall, tensor: Any) -> Any:
        tensor = tf.cast(tensor, tf.float32)
        if self._reshape is not None:
            return self._reshape(tensor)
        return _channels_last(tensor) if call.channels_first else tensor


class _View(NamedTuple):
    """What one forward pass gave.

    The heatmaps are `[classes, batch, height, width]`, ReLU applied; `calls` are the explained
    ones of all that were recorded.
    """

    heatmaps: Any
    scored: Scored
    inputs: Any
    calls: list[LayerCall]
    recorded: list[LayerCall]


def one_by_one(function: Callable[[Any], Any], rows: Any) -> Any:
    """Returns float32 results of a function of each row, from a loop in the graph."""
    scope = tf.compat.v1.get_variable_scope()
    device = scope.caching_device
    try:
        return tf.map_fn(function, rows, fn_output_signature=tf.float32)
    finally:
        # tf.map_fn sets it, and after an error leaves it to the whole process: there no model could
        # be made under a tf.distribute strategy any more.
        scope.set_caching_device(device)


def space(feature_maps: Any) -> list[int]:
    """Returns the axes between the batch and the channels."""
    return list(range(1, feature_maps.shape.rank - 1))


def _pooled(feature_maps: Any) -> Any:
    """The mean over space that the network takes of feature maps, if it does."""
    for operation in feature_maps.consumers():
        if operation.type == "Mean":
            axes = tf.get_static_value(operation.inputs[1])
            if axes is not None and sorted(np.ravel(axes).tolist()) == space(feature_maps):
                return operation.outputs[0]
    return None


def _channels_last(tensor: Any) -> Any:
    return tf.transpose(tensor, [0, *range(2, tensor.shape.rank), 1])


def _channels_first(tensor: Any) -> Any:
    return tf.transpose(tensor, [0, tensor.shape.rank - 1, *range(1, tensor.shape.rank - 1)])


def _require_finite(images: Any) -> None:
    values = np.asarray(images)
    if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
        first = finite.reshape(len(values), -1).all(axis=1).argmin()
        raise UserError(f"images must be finite. images[{first}] holds NaN or infinite values.")


def _as_input(images: Any) -> tf.Tensor:
    """Pictures may come as uint8 and float64; indices stay integers."""
    tensor = tf.convert_to_tensor(images)
    return tensor if tensor.dtype in (tf.int32, tf.int64) else tf.cast(tensor, tf.float32)
