"""The family of class activation maps: each a few lines over the trace that `GradCAM` makes.

To add one, derive from `GradCAM` and say in `heatmap` what becomes of feature maps and gradients;
or, without gradients, in `heatmaps` what becomes of a trace. Then list it in `METHODS`.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from kgradcam.errors import UsageError, UserError, did_you_mean
from kgradcam.heatmaps.gradcam import GradCAM, Trace, one_by_one, space


class CAM(GradCAM):
    """CAM (Zhou et al., CVPR 2016, equation 2): sum over k of w_k A^k, where there is such a w.

    The model must end in a global average pooling of the layer and one linear layer, dense or a
    1x1 convolution, whose weights for the class are w_k. There Grad-CAM is CAM divided by the
    number of places, and explains any other model as well.
    """

    def heatmaps(self, trace: Trace) -> Any:
        """See `GradCAM.heatmaps`."""
        if trace.logits is None or not _ends_in_pooling_and_one_linear_layer(trace):
            raise UserError(
                "CAM needs a model that ends in a global average pooling of the explained layer "
                f"and one linear layer. Received: layer={self.layer!r} of {self.model.name!r}, "
                "which does not. Grad-CAM is the same where CAM exists: method gradcam."
            )
        # The gradient of a mean is w_k over the number of places, at each of them.
        places = tf.reduce_prod(tf.shape(trace.feature_maps)[1:-1])
        return tf.cast(places, tf.float32) * super().heatmaps(trace)


def _ends_in_pooling_and_one_linear_layer(trace: Trace) -> bool:
    passing = ("Identity", "Cast", "Reshape", "Squeeze", "ExpandDims", "Transpose")
    product = _origin(trace.logits, (*passing, "BiasAdd", "AddV2"))
    if product.op.type not in ("MatMul", "Conv2D"):
        return False
    pooled = _origin(product.op.inputs[0], passing)
    if pooled.op.type != "Mean":
        return False
    return _origin(pooled.op.inputs[0], passing) is _origin(trace.feature_maps, passing)


def _origin(tensor: Any, passing: Sequence[str]) -> Any:
    """Goes back to where a symbolic tensor comes from, past operations that only pass it on."""
    while tensor.op.type in passing:
        tensor = tensor.op.inputs[0]
    return tensor


class GradCAMPlusPlus(GradCAM):
    """Grad-CAM++ (Chattopadhyay et al., WACV 2018, equations 10 and 19).

    With g = d y / d A^k_ij, and the exponential of y as the class score::

        a_ij = g^2 / (2 g^2 + g^3 sum over a, b of A^k_ab)
        alpha_k = sum over i, j of  a_ij ReLU(g)

    It counts several instances of a class alike, where a mean favours the largest. The common
    factor exp(y) is left out: it scales a heatmap and does not change its shape.
    """

    def heatmap(self, feature_maps: Any, gradients: Any) -> Any:
        """See `GradCAM.heatmap`."""
        axes = space(feature_maps)
        total = tf.reduce_sum(feature_maps, axis=axes, keepdims=True)
        weights = tf.math.divide_no_nan(gradients**2, 2.0 * gradients**2 + gradients**3 * total)
        alphas = tf.reduce_sum(weights * tf.nn.relu(gradients), axis=axes, keepdims=True)
        return tf.reduce_sum(alphas * feature_maps, axis=-1)


class XGradCAM(GradCAM):
    """XGrad-CAM (Fu et al., BMVC 2020, equation 7): gradients weighted by activations.

    ::

        alpha_k = sum over i, j of  g_ij A^k_ij / (sum over a, b of A^k_ab)
    """

    def heatmap(self, feature_maps: Any, gradients: Any) -> Any:
        """See `GradCAM.heatmap`."""
        axes = space(feature_maps)
        weighted = tf.reduce_sum(gradients * feature_maps, axis=axes, keepdims=True)
        total = tf.reduce_sum(feature_maps, axis=axes, keepdims=True)
        return tf.reduce_sum(tf.math.divide_no_nan(weighted, total) * feature_maps, axis=-1)


class HiResCAM(GradCAM):
    """HiResCAM (Draelos & Carin, 2020): sum over k of g A^k, without a mean over space.

    Faithful to what the network used at each place; equal to Grad-CAM on a GAP + Dense head.
    """

    def heatmap(self, feature_maps: Any, gradients: Any) -> Any:
        """See `GradCAM.heatmap`."""
        return tf.reduce_sum(gradients * feature_maps, axis=-1)


class LayerCAM(GradCAM):
    """LayerCAM (Jiang et al., IEEE TIP 2021, equation 6): sum over k of ReLU(g) A^k.

    Sharp on early layers too, where a mean of the gradients over space means little.
    """

    def heatmap(self, feature_maps: Any, gradients: Any) -> Any:
        """See `GradCAM.heatmap`."""
        return tf.reduce_sum(tf.nn.relu(gradients) * feature_maps, axis=-1)


class CounterfactualCAM(GradCAM):
    """What speaks against a class (Selvaraju et al., section 3.3): alpha of the negated gradient.

    Without these regions the model would be more confident.
    """

    def heatmap(self, feature_maps: Any, gradients: Any) -> Any:
        """See `GradCAM.heatmap`."""
        return super().heatmap(feature_maps, -gradients)


def _guided_relu(operation: Any, gradient: Any) -> Any:
    return tf.where((gradient > 0) & (operation.outputs[0] > 0), gradient, 0.0)


tf.RegisterGradient("KgradcamGuidedRelu")(_guided_relu)


class GuidedGradCAM(GradCAM):
    """Guided Grad-CAM (Selvaraju et al., section 3.1): Grad-CAM times guided backpropagation.

    Guided backpropagation (Springenberg et al., ICLR workshops 2015) is the gradient of the score
    at the image, where each ReLU lets back only what is positive, and only where it was active. Of
    its colours the one with the largest size counts. The heatmap has the image's resolution. One
    more forward and one whole backward pass a class.
    """

    def heatmaps(self, trace: Trace) -> Any:
        """See `GradCAM.heatmaps`."""
        if not tf.is_tensor(trace.inputs) or trace.inputs.shape.rank != 4:
            raise UserError("Guided Grad-CAM needs a model of one image.")
        where = tf.einsum("cbhw->bhwc", tf.nn.relu(super().heatmaps(trace)))
        where = tf.image.resize(where, tf.shape(trace.inputs)[1:3])
        return tf.einsum("bhwc->cbhw", where) * self._guided_gradients(trace)

    def _guided_gradients(self, trace: Trace) -> Any:
        guided = {"Relu": "KgradcamGuidedRelu", "Relu6": "KgradcamGuidedRelu"}

        def of_class(one_hot: Any) -> Any:
            graph = tf.compat.v1.get_default_graph()
            with graph.gradient_override_map(guided):
                scores = trace.rescore()
            if not any(operation.type in guided for operation in graph.get_operations()):
                raise UserError(
                    "Guided Grad-CAM needs ReLUs to guide, and this model has none. Other methods "
                    "explain it."
                )
            weights = tf.broadcast_to(one_hot, tf.shape(scores))
            # Unlike a tape, it heeds the override; see also GradCAM.
            gradients = tf.compat.v1.gradients(scores, trace.inputs, grad_ys=weights)[0]
            return tf.reduce_max(tf.abs(gradients), axis=-1)

        return one_by_one(of_class, tf.eye(tf.shape(trace.scores)[1]))


class EigenCAM(GradCAM):
    """Eigen-CAM (Muhammad & Yeasin, IJCNN 2020): the first principal component of the features.

    The feature maps, one row a place, are projected onto the first right singular vector, after
    their mean is taken off. It needs no class and no gradient, so all classes share one heatmap.
    The sign of a component is arbitrary: the one chosen makes hot what activates more.
    """

    def heatmaps(self, trace: Trace) -> Any:
        """See `GradCAM.heatmaps`."""
        shape = tf.shape(trace.feature_maps)
        rows = tf.reshape(trace.feature_maps, [shape[0], -1, shape[-1]])
        centred = rows - tf.reduce_mean(rows, axis=1, keepdims=True)
        # The left singular vectors, from the small matrix of products between places.
        values, vectors = tf.linalg.eigh(tf.matmul(centred, centred, transpose_b=True))
        projected = vectors[:, :, -1] * tf.sqrt(tf.nn.relu(values[:, -1:]))
        activity = tf.reduce_sum(rows, axis=-1)
        agreement = tf.reduce_sum(projected * activity, axis=1, keepdims=True)
        projected *= tf.where(agreement < 0, -1.0, 1.0)
        heatmap = tf.reshape(projected, shape[:-1])
        classes = tf.shape(trace.scores)[1]
        return tf.repeat(heatmap[tf.newaxis], classes, axis=0)


class ScoreCAM(GradCAM):
    """Score-CAM (Wang et al., CVPR workshops 2020, equations 5 and 7), without gradients.

    Each feature map, enlarged to the image and stretched to [0, 1], masks the image; the softmax
    over the scores of the masked images weighs the maps. One forward pass a channel.
    """

    def heatmaps(self, trace: Trace) -> Any:
        """See `GradCAM.heatmaps`."""
        if not tf.is_tensor(trace.inputs) or trace.feature_maps.shape.rank != 4:
            raise UserError("Score-CAM masks one image, and needs feature maps of two axes.")
        size = tf.shape(trace.inputs)[1:3]

        def masked_scores(channel: Any) -> Any:
            enlarged = tf.image.resize(trace.feature_maps[..., channel, None], size)
            lowest = tf.reduce_min(enlarged, axis=[1, 2], keepdims=True)
            span = tf.reduce_max(enlarged, axis=[1, 2], keepdims=True) - lowest
            mask = tf.math.divide_no_nan(enlarged - lowest, span)
            return trace.rescore(inputs=trace.inputs * mask)

        scores = _for_each_channel(masked_scores, trace)
        weights = tf.nn.softmax(scores, axis=0)
        return tf.einsum("kbc,bhwk->cbhw", weights, trace.feature_maps)


class AblationCAM(GradCAM):
    """Ablation-CAM (Desai & Ramaswamy, WACV 2020, equation 6), without gradients.

    A channel weighs as much as the score drops without it: (y - y without k) / y. One forward pass
    a channel.
    """

    def heatmaps(self, trace: Trace) -> Any:
        """See `GradCAM.heatmaps`."""
        if self._reshape is not None:
            raise UserError("Ablation-CAM puts feature maps back, so it takes no reshape=.")
        channels = tf.shape(trace.feature_maps)[-1]

        def ablated_scores(channel: Any) -> Any:
            kept = 1.0 - tf.one_hot(channel, channels)
            return trace.rescore(feature_maps=trace.feature_maps * kept)

        drops = trace.scores - _for_each_channel(ablated_scores, trace)
        weights = tf.math.divide_no_nan(drops, tf.abs(trace.scores))
        return tf.einsum("kbc,b...k->cb...", weights, trace.feature_maps)


def _for_each_channel(scores_of: Any, trace: Trace) -> Any:
    """Scores `[channels, batch, classes]`, one channel at a time to keep memory small."""
    return tf.map_fn(
        scores_of,
        tf.range(tf.shape(trace.feature_maps)[-1]),
        fn_output_signature=tf.float32,
        parallel_iterations=1,
    )


METHODS: dict[str, type[GradCAM]] = {
    "gradcam": GradCAM,
    "guided-gradcam": GuidedGradCAM,
    "cam": CAM,
    "gradcam++": GradCAMPlusPlus,
    "xgradcam": XGradCAM,
    "hirescam": HiResCAM,
    "layercam": LayerCAM,
    "counterfactual": CounterfactualCAM,
    "eigencam": EigenCAM,
    "scorecam": ScoreCAM,
    "ablationcam": AblationCAM,
}


def find_method(name: str) -> type[GradCAM]:
    """Returns a method by name.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in METHODS:
        raise UsageError(
            f"method={name!r} is none of {', '.join(METHODS)}.{did_you_mean(name, METHODS)}"
        )
    return METHODS[name]
