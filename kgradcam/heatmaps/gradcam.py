"""Grad-CAM (Selvaraju et al., IJCV 2020, section 3): heatmaps from gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from typing_extensions import override

from kgradcam.errors import UserError
from kgradcam.heatmaps.computation import Computation, Method
from kgradcam.heatmaps.explainer import Explainer
from kgradcam.heatmaps.forward import ForwardPass
from kgradcam.heatmaps.frozen import FrozenExplainer
from kgradcam.heatmaps.geometry import spelled_out
from kgradcam.heatmaps.inputs import check_model, own_preprocess
from kgradcam.heatmaps.multiscale import check_scales
from kgradcam.heatmaps.scores import Score
from kgradcam.heatmaps.tracing import LiveTraces


def grad_cam(forward: ForwardPass) -> Any:
    """Grad-CAM (equations 1 and 2 of the paper): sum over k of alpha_k A^k, before the ReLU."""
    # Alphas are small: all classes share one product with the feature maps.
    maps = forward.feature_maps
    return tf.einsum(spelled_out("b...k,cbk->cb...", maps), maps, forward.mean_gradients())


def layer_name(model: keras.Model, layer: str | int | keras.Layer) -> str:
    """Returns the name of a layer that is given by name, as an object, or by index.

    Raises:
        UserError: It is none of these, or the index is out of range.
    """
    if isinstance(layer, str):
        return layer
    if isinstance(layer, keras.Layer):
        return str(layer.name)
    count = len(model.layers)
    if isinstance(layer, int) and not isinstance(layer, bool) and -count <= layer < count:
        return str(model.layers[layer].name)
    raise UserError(
        f"layer must be a name, a layer, or an index of the {count} layers. Received: {layer!r}."
    )


def _check_functions(**functions: Any) -> None:
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise UserError(f"{name} must be a function of tensors. Received: {function!r}.")


class GradCAM(Explainer):
    """Explains the scores of a network by gradient-weighted class activation maps.

    For the score y^c of a class and the feature maps A^k of a layer (section 3, equations 1 and 2
    of the paper)::

        alpha_k = mean over i, j of  d y^c / d A^k_ij
        heatmap = ReLU(sum over k of alpha_k A^k)

    The computation is one `tf.function`, traced once for all batch sizes, classes and, where the
    model accepts them, image sizes; else once for each size. At the first call the outputs of the
    trace are held to those of the model. All classes share one forward pass, and their gradients
    end at the layer. The model is neither rebuilt nor changed, its losses and seeds included. A
    softmax or sigmoid head is explained at its logits. Calls use the current weights; `freeze`
    returns a faster explainer that does not. The devices of a model created under a
    `tf.distribute.MirroredStrategy` share each batch.

    Args:
        model: Any Keras 3 model on the TensorFlow backend: functional, sequential, subclassed or
            nested, with one input or several.
        layer: The layer to explain, by name, or by path in nested models
            (`"backbone/conv5_block3_out"`), as an object, or by its index in `model.layers`.
            Default: the last layer with a spatial feature map,
            other than pooling and dropout. Several layers are fused: their heatmaps, each divided
            by its maximum and resized to the largest, are averaged.
        method: Maps a `ForwardPass` to heatmaps before their ReLU, float32 `[classes, batch,
            height, width]`. Default: Grad-CAM; see `kgradcam.heatmaps.methods` for others.
        output: Which of several outputs `[batch, classes]` holds the classes, by name or index.
        score: Explains another score than that of a class: a function of the model's outputs to
            `[batch]`, or to `[batch, scores]` for several heatmaps. For example the mean of a
            class over a region of a segmentation map.
        reshape: Maps feature maps and their gradients to `[batch, height, width, channels]`, where
            they have another layout: `lambda tokens: tf.reshape(tokens[:, 1:], (-1, 14, 14,
            768))` for a vision transformer. Maps with channels first are transposed without it.
        preprocess: Maps float32 RGB images in [0, 255] to the inputs of the model, on tensors; it
            is compiled with the model. It may resize. Default: inputs are used unchanged; a task of
            KerasHub applies its `preprocessor`, as its `predict` does.
        relu: Whether negative values are set to 0, as in the paper. Otherwise heatmaps are signed.
        scales: Factors on the image size. The heatmaps of all sizes, each divided by its maximum,
            are averaged. Small scales find large objects, large scales small ones.
        score_scales: Factors at which classes are scored, instead of at `scales`: scores and
            probabilities are averaged over them. A network is surest at the size that it was
            trained at, and its heatmaps are finer at a larger one.
        refine: Whether heat spreads to regions with similar features in the layers of the next two
            finer strides (see `affinity`), from the decisive part to the whole object. With
            `refine` or several scales, the cells of a heatmap tile the image exactly (see
            `geometry`), at the next finer stride, in about a thousand cells at most.
        class_names: The name of each output, by which classes can be given. One sigmoid unit has
            two, that of label 0 first.
        jit_compile: Whether to compile with XLA, once for each new shape. Default: on a GPU, if
            the model's inputs have a fixed size.

    Attributes:
        model: The model.
        layer: The path of the explained layer, or of each; `None` before the first call of a model
            whose inputs are unknown.
        precision: `"float32"`.
        trace_count: The number of traces: 1, and 1 more after `predict`; as many again for each
            size where the model needs known sizes, for each device, and where XLA gives up.

    Raises:
        UserError: The layer does not exist or does not affect the score, the model has no feature
            map, or several outputs and no `output` or `score`.

    Example:
        >>> import keras
        >>> import numpy as np
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
        layer: str | int | keras.Layer | Sequence[str | int | keras.Layer] | None = None,
        *,
        method: Method = grad_cam,
        output: str | int | None = None,
        score: Callable[[Any], Any] | None = None,
        reshape: Callable[[Any], Any] | None = None,
        preprocess: Callable[[Any], Any] | None = None,
        relu: bool = True,
        scales: Sequence[float] = (1.0,),
        score_scales: Sequence[float] = (),
        refine: bool = False,
        class_names: Sequence[str] = (),
        jit_compile: bool | None = None,
    ) -> None:
        if keras.backend.backend() != "tensorflow":
            raise UserError(
                "kgradcam runs on the TensorFlow backend of Keras. Received: "
                f"{keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow before importing keras."
            )
        check_model(model)
        _check_functions(method=method, score=score, reshape=reshape, preprocess=preprocess)
        layers = layer if isinstance(layer, list | tuple) else (layer,)
        if not layers:
            raise UserError("layer must name at least one layer. Received: an empty list.")
        computation = Computation(
            model=model,
            layers=None if layer is None else tuple(layer_name(model, each) for each in layers),
            method=method,
            score=Score(output, score),
            reshape=reshape,
            preprocess=own_preprocess(model) if preprocess is None else preprocess,
            relu=relu,
            scales=check_scales(scales),
            score_scales=check_scales(score_scales) if score_scales else (),
            refine=refine,
            class_names=tuple(class_names),
        )
        super().__init__(computation)
        self._live = LiveTraces(computation, jit_compile)
        self._traces = self._live.records

    @override
    def _prepare(self, images: Any) -> Any:
        return self._live.prepare(images)

    @override
    def _explain(self, inputs: Any, groups: Any) -> Sequence[Any]:
        found: Sequence[Any] = self._live.explain(inputs, groups)
        return found

    @override
    def _predict(self, inputs: Any, groups: Any) -> Sequence[Any]:
        found: Sequence[Any] = self._live.predict(inputs, groups)
        return found

    def freeze(self, precision: str = "float32") -> FrozenExplainer:
        """Returns a faster explainer with the current weights as constants.

        It folds batch normalizations into convolutions, and may compute in a reduced precision.
        Freezing takes seconds; it pays off after about 1,000 images in float32, and after some 100
        in reduced precision.

        Args:
            precision: The precision of the model up to the layer; scores, gradients and heatmaps
                are float32. `"float32"`; `"bfloat16"` on CPUs with AVX512-BF16 or AMX;
                `"float16"` on GPUs with tensor cores; or `"auto"`: the reduced one that this
                machine computes fast, else float32.

        Returns:
            A `FrozenExplainer`. It does not follow later changes of the weights.

        Raises:
            CannotFreezeError: The model changes variables, reads tables, draws random numbers or
                loops when it is called, or is larger than 2 GiB.
            UserError: This machine does not have the precision, or the model's inputs are not
                known before a first call.

        Example:
            >>> import keras
            >>> import numpy as np
            >>> model = keras.Sequential([
            ...     keras.Input((8, 8, 3)),
            ...     keras.layers.Conv2D(4, 3),
            ...     keras.layers.GlobalAveragePooling2D(),
            ...     keras.layers.Dense(10),
            ... ])
            >>> fast = GradCAM(model).freeze(precision="auto")
            >>> fast(np.zeros((2, 8, 8, 3)), classes=[3]).heatmaps.shape
            (2, 1, 6, 6)
        """
        if not self._traces:
            raise UserError(
                "The inputs of this model are not known yet: call the explainer once on a batch of "
                "images, then freeze it."
            )
        live = self._live
        return FrozenExplainer(self._computation, live.traced, precision, bool(live.jit_compile))
