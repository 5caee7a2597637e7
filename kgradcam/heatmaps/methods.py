"""The family of class activation maps: functions of a forward pass, and their explainers.

A method maps a `ForwardPass` to heatmaps before their ReLU, float32 `[classes, batch, height,
width]`. `per_class` makes one from a function of feature maps and gradients. To add a method, write
the function and list its explainer in `METHODS`.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import tensorflow as tf

from kgradcam.errors import UserError, require_known
from kgradcam.heatmaps.computation import Method
from kgradcam.heatmaps.forward import ForwardPass, for_each, space
from kgradcam.heatmaps.geometry import resample
from kgradcam.heatmaps.gradcam import GradCAM, grad_cam
from kgradcam.heatmaps.guided_backpropagation import guided_gradients
from kgradcam.heatmaps.inputs import channels_first
from kgradcam.heatmaps.linear_head import linear_kernel


def per_class(heatmap: Callable[[Any, Any], Any]) -> Method:
    """Makes a method of a function of the feature maps and the gradients of one class.

    Args:
        heatmap: Maps feature maps and gradients, float32 `[batch, height, width, channels]` each,
            to a heatmap before its ReLU, `[batch, height, width]`.
    """

    @wraps(heatmap)
    def method(forward: ForwardPass) -> Any:
        return forward.for_each_class(lambda gradients: heatmap(forward.feature_maps, gradients))

    return method


def cam(forward: ForwardPass) -> Any:
    """CAM (Zhou et al., CVPR 2016, equation 2): sum over k of w_k A^k.

    The model must end in a global average pooling of the layer and one linear layer, dense or a
    1x1 convolution. Its weights for the class are w_k. There Grad-CAM is CAM divided by the
    number of places; Grad-CAM also explains any other model.
    """
    if forward.scored.head is None or not _ends_in_pooling_and_one_linear_layer(forward):
        raise UserError(
            "CAM needs a model that ends in a global average pooling of the explained layer and "
            f"one linear layer. Received: layer={forward.call.path!r} of {forward.model.name!r}, "
            "which does not. Grad-CAM is the same where CAM exists: method gradcam."
        )
    # The gradient of a mean is w_k over the number of places, at each place.
    places = tf.reduce_prod(tf.shape(forward.feature_maps)[1:-1])
    return tf.cast(places, tf.float32) * grad_cam(forward)


def _ends_in_pooling_and_one_linear_layer(forward: ForwardPass) -> bool:
    return any(
        operation.type == "Mean" and linear_kernel(forward.scored.start, mean) is not None
        for operation in forward.call.feature_maps.consumers()
        for mean in operation.outputs
    )


@per_class
def grad_cam_plus_plus(feature_maps: Any, gradients: Any) -> Any:
    """Grad-CAM++ (Chattopadhyay et al., WACV 2018, equations 10 and 19).

    With g = d y / d A^k_ij, and the exponential of y as the class score::

        a_ij = g^2 / (2 g^2 + g^3 sum over a, b of A^k_ab)
        alpha_k = sum over i, j of  a_ij ReLU(g)

    Several instances of a class count equally, where a mean favors the largest. The common factor
    exp(y) is omitted: it scales a heatmap and does not change its shape.
    """
    axes = space(feature_maps)
    total = tf.reduce_sum(feature_maps, axis=axes, keepdims=True)
    weights = tf.math.divide_no_nan(gradients**2, 2.0 * gradients**2 + gradients**3 * total)
    alphas = tf.reduce_sum(weights * tf.nn.relu(gradients), axis=axes, keepdims=True)
    return tf.reduce_sum(alphas * feature_maps, axis=-1)


@per_class
def x_grad_cam(feature_maps: Any, gradients: Any) -> Any:
    """XGrad-CAM (Fu et al., BMVC 2020, equation 7): gradients weighted by activations.

    ::

        alpha_k = sum over i, j of  g_ij A^k_ij / (sum over a, b of A^k_ab)
    """
    axes = space(feature_maps)
    weighted = tf.reduce_sum(gradients * feature_maps, axis=axes, keepdims=True)
    total = tf.reduce_sum(feature_maps, axis=axes, keepdims=True)
    return tf.reduce_sum(tf.math.divide_no_nan(weighted, total) * feature_maps, axis=-1)


@per_class
def hires_cam(feature_maps: Any, gradients: Any) -> Any:
    """HiResCAM (Draelos & Carin, 2020): sum over k of g A^k, without a mean over space.

    It shows the places that the network used; equal to Grad-CAM on a GAP + Dense head.
    """
    return tf.reduce_sum(gradients * feature_maps, axis=-1)


@per_class
def layer_cam(feature_maps: Any, gradients: Any) -> Any:
    """LayerCAM (Jiang et al., IEEE TIP 2021, equation 6): sum over k of ReLU(g) A^k.

    Also sharp on early layers, where a mean of the gradients over space has little meaning.
    """
    return tf.reduce_sum(tf.nn.relu(gradients) * feature_maps, axis=-1)


def counterfactual_cam(forward: ForwardPass) -> Any:
    """Evidence against a class (Selvaraju et al., section 3.3): alpha of the negated gradient.

    Without these regions the model would be more confident.
    """
    return -grad_cam(forward)


def guided_grad_cam(forward: ForwardPass) -> Any:
    """Guided Grad-CAM (Selvaraju et al., section 3.1): Grad-CAM times guided backpropagation.

    The heatmap has the resolution of the image. It costs one more forward pass and one whole
    backward pass a class.
    """
    if not tf.is_tensor(forward.inputs) or forward.inputs.shape.rank != 4:
        raise UserError("Guided Grad-CAM needs a model of one image.")
    heat = tf.einsum("cbhw->bhwc", tf.nn.relu(grad_cam(forward)))
    heat = resample(heat, forward.extent, _image_size(forward.inputs))
    return tf.einsum("bhwc->cbhw", heat) * guided_gradients(forward)


def eigen_cam(forward: ForwardPass) -> Any:
    """Eigen-CAM (Muhammad & Yeasin, IJCNN 2020): the first principal component of the features.

    The feature maps, one row a place, minus their mean, are projected onto the first right singular
    vector. The paper does not subtract the mean; other packages do. The map uses no class and no
    gradient, so all classes share it. The sign of a component is arbitrary; the one that correlates
    with activity is chosen, or without correlation the one whose largest value is positive.
    """
    shape = tf.shape(forward.feature_maps)
    rows = tf.reshape(forward.feature_maps, [shape[0], -1, shape[-1]])
    centred = rows - tf.reduce_mean(rows, axis=1, keepdims=True)
    projected = tf.cond(
        tf.shape(rows)[1] < shape[-1],
        lambda: _from_places(centred),
        lambda: _from_channels(centred),
    )
    projected *= _sign(projected, tf.reduce_sum(centred, axis=-1))
    heatmap = tf.reshape(projected, shape[:-1])
    return tf.repeat(heatmap[tf.newaxis], tf.shape(forward.scored.scores)[1], axis=0)


def _sign(projected: Any, activity: Any) -> Any:
    """The sign, `[batch, 1]`, for which a component correlates with activity; both centred."""
    agreement = tf.reduce_sum(projected * activity, axis=1, keepdims=True)
    sizes = tf.norm(projected, axis=1, keepdims=True) * tf.norm(activity, axis=1, keepdims=True)
    strength = tf.abs(projected)
    # The first of those that are equal up to rounding.
    is_largest = strength >= 0.999 * tf.reduce_max(strength, axis=1, keepdims=True)
    first = tf.argmax(tf.cast(is_largest, tf.int32), axis=1)
    largest = tf.gather(projected, first[:, tf.newaxis], batch_dims=1)
    decisive = tf.where(tf.abs(agreement) > 1e-4 * sizes, agreement, largest)
    return tf.where(decisive < 0, -1.0, 1.0)


def _from_places(rows: Any) -> Any:
    """The first component of `[batch, places, channels]`, by the products between places."""
    values, vectors = tf.linalg.eigh(tf.matmul(rows, rows, transpose_b=True))
    return vectors[:, :, -1] * tf.sqrt(tf.nn.relu(values[:, -1:]))


def _from_channels(rows: Any) -> Any:
    """The same component, by the products between channels."""
    _, vectors = tf.linalg.eigh(tf.matmul(rows, rows, transpose_a=True))
    return tf.squeeze(tf.matmul(rows, vectors[:, :, -1:]), axis=2)


def _image_size(images: Any) -> Any:
    """Height and width of a batch of images, int32 `[2]`."""
    return tf.shape(images)[2:4] if channels_first(images) else tf.shape(images)[1:3]


def _masked(images: Any, mask: Any) -> Any:
    """Images times a mask `[batch, height, width, 1]` in [0, 1], in the dtype of the images."""
    if channels_first(images):
        mask = tf.transpose(mask, [0, 3, 1, 2])
    masked = tf.cast(images, tf.float32) * mask
    return tf.cast(tf.round(masked) if images.dtype.is_integer else masked, images.dtype)


def score_cam(forward: ForwardPass) -> Any:
    """Score-CAM (Wang et al., CVPR workshops 2020, equations 5 and 7), without gradients.

    Each feature map, enlarged to the image and scaled to [0, 1], masks the image. The softmax over
    the scores of the masked images gives the weights of the maps. One forward pass a channel.
    """
    feature_maps = forward.feature_maps
    if not tf.is_tensor(forward.inputs) or feature_maps.shape.rank != 4:
        raise UserError("Score-CAM masks one image, and needs feature maps of two axes.")
    size, extent = _image_size(forward.inputs), forward.extent

    def masked_scores(channel: Any) -> Any:
        enlarged = resample(feature_maps[..., channel, None], extent, size)
        lowest = tf.reduce_min(enlarged, axis=[1, 2], keepdims=True)
        span = tf.reduce_max(enlarged, axis=[1, 2], keepdims=True) - lowest
        mask = tf.math.divide_no_nan(enlarged - lowest, span)
        return forward.rescore(inputs=_masked(forward.inputs, mask)).scores

    scores = for_each(masked_scores, tf.range(tf.shape(feature_maps)[-1]))
    return tf.einsum("kbc,bhwk->cbhw", tf.nn.softmax(scores, axis=0), feature_maps)


def ablation_cam(forward: ForwardPass) -> Any:
    """Ablation-CAM (Desai & Ramaswamy, WACV 2020, equation 6), without gradients.

    The weight of a channel is the relative drop of the score without it: (y - y without k) / |y|.
    One forward pass a channel.
    """
    if forward.reshape is not None:
        raise UserError("Ablation-CAM puts feature maps back, so it takes no reshape=.")
    channels = tf.shape(forward.feature_maps)[-1]

    def ablated_scores(channel: Any) -> Any:
        kept = 1.0 - tf.one_hot(channel, channels)
        return forward.rescore(feature_maps=forward.feature_maps * kept).scores

    scores = forward.scored.scores
    drops = scores - for_each(ablated_scores, tf.range(channels))
    weights = tf.math.divide_no_nan(drops, tf.abs(scores))
    return tf.einsum("kbc,b...k->cb...", weights, forward.feature_maps)


# Explainers: each takes the arguments of `GradCAM`.
CAM = partial(GradCAM, method=cam)
GradCAMPlusPlus = partial(GradCAM, method=grad_cam_plus_plus)
XGradCAM = partial(GradCAM, method=x_grad_cam)
HiResCAM = partial(GradCAM, method=hires_cam)
LayerCAM = partial(GradCAM, method=layer_cam)
CounterfactualCAM = partial(GradCAM, method=counterfactual_cam)
GuidedGradCAM = partial(GradCAM, method=guided_grad_cam)
EigenCAM = partial(GradCAM, method=eigen_cam)
ScoreCAM = partial(GradCAM, method=score_cam)
AblationCAM = partial(GradCAM, method=ablation_cam)

METHODS: dict[str, Callable[..., GradCAM]] = {
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
"""The explainers by name."""


def find_method(name: str) -> Callable[..., GradCAM]:
    """Returns the explainer of a method by its name in `METHODS`.

    Raises:
        UsageError: There is no such method.
    """
    require_known("method", name, METHODS)
    return METHODS[name]
