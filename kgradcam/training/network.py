"""The network to train: a pretrained backbone, global average pooling, and one sigmoid a class.

The logits are linear in the pooled feature maps, so Grad-CAM of the last maps equals CAM.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import keras

from kgradcam.errors import UserError, did_you_mean
from kgradcam.heatmaps.layers import PASSIVE
from kgradcam.models.digests import architecture_digest, weights_digest

_PROBE_SIDE = 512  # Large enough for any backbone, so that strides show in the shapes.


@dataclass(frozen=True)
class Network:
    """The parts of a network. They share their layers, so training one trains all.

    Attributes:
        whole: Images `[batch, height, width, 3]` to probabilities `[batch, classes]`.
        trunk: Images to the feature maps of the last frozen layer, if these are cached; else
            `None`.
        trained: Images, or the feature maps of the trunk, to logits `[batch, classes]`.
        fresh: Names of the layers that start from random weights.
        pretrained: Names of the layers with pretrained weights that may be trained, in order.
    """

    whole: keras.Model
    trunk: keras.Model | None
    trained: keras.Model
    fresh: tuple[str, ...]
    pretrained: tuple[str, ...]


def build_network(
    backbone: keras.Model,
    class_count: int,
    *,
    last_layer: str | None = None,
    dilation: bool = False,
    missing: Collection[str] = (),
    frozen_until: str | None = None,
    cached: bool = False,
    dtype: str | None = None,
) -> Network:
    """Puts a new head on a copy of a backbone.

    Args:
        backbone: A functional or sequential model with weights, with or without its head. It is
            not changed.
        class_count: Number of classes.
        last_layer: The layer whose feature maps are pooled. Default: the last one with height and
            width.
        dilation: Whether the last feature maps become twice as high and wide. The last strides
            become 1. The convolutions after them are dilated by 2, which keeps their receptive
            fields (Yu et al., Dilated Residual Networks, CVPR 2017, section 2).
        missing: Layers of the backbone without pretrained weights. All layers after the first of
            them are fresh too, because their weights belong to other inputs.
        frozen_until: The last layer that is never trained. Default: none.
        cached: Whether `trained` starts at the feature maps of that layer instead of at images.
        dtype: Dtype policy of the copy. Default: the policy of the backbone.

    Returns:
        The network.

    Raises:
        UserError: A layer does not exist or does not fit, or the backbone is a subclassed model.
    """
    if not isinstance(backbone, keras.Sequential) and not hasattr(backbone, "operations"):
        raise UserError(
            f"Expected a functional or sequential model to train further. Received: "
            f"{backbone.name}, a subclassed model, whose layers cannot be separated."
        )
    body = keras.Model(backbone.inputs[0], find_layer(backbone, last_layer).output)
    body = copy_network(body, _dilate(body) if dilation else _keep, dtype)
    names = [layer.name for layer in body.layers]
    first_missing = min((names.index(name) for name in missing if name in names), default=None)
    loaded = names[:first_missing]

    pooled = keras.layers.GlobalAveragePooling2D(name="pool", dtype="float32")(body.output)
    logits = keras.layers.Dense(class_count, name="logits", dtype="float32")(pooled)
    sigmoid = keras.layers.Activation("sigmoid", name="probabilities", dtype="float32")
    whole = keras.Model(body.inputs[0], sigmoid(logits), name=backbone.name)

    below = _frozen_part(body, frozen_until, loaded)
    trunk = below if cached else None
    try:
        trained = keras.Model(trunk.output if trunk else body.inputs[0], logits)
        # Keras before 3.14 raises only when the model is called.
        if trunk and body.layers[0] in trained.layers:
            raise ValueError(f"{body.layers[0].name} reaches the head beside {frozen_until}.")
    except ValueError as error:
        raise UserError(
            f"frozen_until={frozen_until!r} lies inside a block: some paths bypass it. Expected "
            "a layer that all paths pass through, such as the last one of a block."
        ) from error
    frozen = {layer.name for layer in below.layers} if below else set()
    trainable = [layer.name for layer in trained.layers if layer.variables]
    trainable = [name for name in trainable if name not in frozen]
    return Network(
        whole=whole,
        trunk=trunk,
        trained=trained,
        fresh=tuple(name for name in trainable if name not in loaded),
        pretrained=tuple(name for name in loaded if name in trainable),
    )


def _frozen_part(
    body: keras.Model, frozen_until: str | None, loaded: Collection[str]
) -> keras.Model | None:
    """Returns the layers up to `frozen_until` as a model."""
    if frozen_until is None:
        return None
    end = find_layer(body, frozen_until)
    if end.name not in loaded:
        missing = body.layers[len(loaded)].name
        raise UserError(
            f"frozen_until={frozen_until!r} would freeze {missing!r}, which has no pretrained "
            "weights and must be trained. Expected an earlier layer."
        )
    return keras.Model(body.inputs[0], end.output)


def set_trainable(network: Network, fine_tune: bool) -> None:
    """Sets which layers are trained.

    Fresh layers always are, pretrained ones only while fine-tuning. Pretrained batch
    normalizations stay frozen, because a small batch estimates their statistics badly.

    Args:
        network: The network.
        fine_tune: Whether pretrained layers are trained too.
    """
    for layer in network.trained.layers:
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        tuned = fine_tune and layer.name in network.pretrained and not is_norm
        layer.trainable = tuned or layer.name in network.fresh


def learning_rates(network: Network, backbone_rate: float) -> dict[str, float]:
    """Returns the factor on the learning rate of each trainable variable.

    These are discriminative rates (Howard & Ruder, ULMFiT, ACL 2018, section 3.2): early layers
    detect edges, which all images share, so they change least.

    Args:
        network: The network.
        backbone_rate: Factor of the last pretrained layer, in [0, 1]. The first one gets its
            square, those between geometric steps. Fresh layers get 1.

    Returns:
        The factors by variable path.
    """
    last = max(len(network.pretrained) - 1, 1)
    factors = {
        name: backbone_rate ** (2 - place / last) for place, name in enumerate(network.pretrained)
    }
    return {
        variable.path: factors.get(layer.name, 1.0)
        for layer in network.trained.layers
        for variable in layer.trainable_variables
    }


def pretrained_digests(network: Network) -> dict[str, str]:
    """Returns digests of the layers, and of the weights that are not random.

    Args:
        network: The network, before training.

    Returns:
        16 hexadecimal digits each, by `"layers"` and `"weights"`.
    """
    pretrained = [each for each in network.whole.layers if each.name not in network.fresh]
    return {
        "layers": architecture_digest(network.whole),
        "weights": weights_digest(variable for each in pretrained for variable in each.variables),
    }


def find_layer(model: keras.Model, name: str | None) -> Any:
    """Returns a layer whose output is a feature map `[batch, height, width, channels]`.

    Args:
        model: A functional or sequential model.
        name: The name of the layer. Default: the last one that is no pooling, dropout or the like.

    Raises:
        UserError: There is no such layer.
    """
    with_maps = {
        layer.name: layer
        for layer in model.layers
        if len(getattr(layer.output, "shape", ())) == 4 and layer.output.shape[1:3] != (1, 1)
    }
    if name is not None:
        if name not in with_maps:
            raise UserError(
                f"{model.name} has no layer {name!r} with a feature map."
                f"{did_you_mean(name, with_maps)} `kgradcam layers` lists them."
            )
        return with_maps[name]
    active = [layer for layer in with_maps.values() if not isinstance(layer, PASSIVE)]
    if not active:
        raise UserError(f"{model.name} has no layer with a feature map, so a head does not fit.")
    return active[-1]


def _keep(layer: Any) -> dict[str, Any]:
    return {}


def copy_network(
    model: keras.Model,
    change: Callable[[Any], dict[str, Any]] = _keep,
    dtype: str | None = None,
    side: int | None = None,
) -> keras.Model:
    """Copies a functional or sequential model with its weights.

    Args:
        model: The model.
        change: Returns the entries of a layer's configuration that differ in the copy.
        dtype: Dtype policy of the copy. Default: the policy of the model.
        side: Height and width of the images in pixels. Default: any. A model that does not take
            this size keeps its own.

    Returns:
        The copy.

    Raises:
        UserError: The changed layers do not fit together.
    """

    def rebuild(layer: Any) -> Any:
        config = {**layer.get_config(), **change(layer)}
        if dtype is not None and not isinstance(layer, keras.Model):
            config["dtype"] = dtype
        return layer.__class__.from_config(config)

    for shape in ((side, side, 3), tuple(model.input_shape[1:])):
        try:
            copy = keras.models.clone_model(
                model, input_tensors=keras.Input(shape), clone_function=rebuild
            )
            copy.set_weights(model.get_weights())
        except (ValueError, TypeError) as error:
            reason = error
        else:
            return copy
    raise UserError(f"The layers of {model.name} do not fit together: {reason}") from reason


def _dilate(model: keras.Model) -> Callable[[Any], dict[str, Any]]:
    """Returns the changes of each layer that double the last feature maps."""
    probe = copy_network(model, side=_PROBE_SIDE)
    end = probe.output.shape[1]
    changes: dict[str, dict[str, Any]] = {}
    for layer in probe.layers:
        before: Any = getattr(layer.input, "shape", ())  # A merging layer has a list of inputs.
        after: Any = getattr(layer.output, "shape", ())
        if len(before) != 4 or len(after) != 4:
            continue
        if hasattr(layer, "strides") and before[1] > end >= after[1]:
            changes[layer.name] = {"strides": 1}
        elif before[1] == end and hasattr(layer, "dilation_rate"):
            changes[layer.name] = {"dilation_rate": 2}
    if not any("strides" in change for change in changes.values()):
        raise UserError(
            f"dilation needs a strided layer before the last feature maps, and {model.name} has "
            "none."
        )
    return lambda layer: changes.get(layer.name, {})
