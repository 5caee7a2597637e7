"""The network that is trained: a pretrained backbone, a pooling, and a sigmoid for each class.

Its logits are a dense layer on pooled feature maps, so that its heatmaps are those of CAM, and the
options change what the maps are: where the backbone ends, how large its last maps are, how they are
pooled, and whether earlier maps must know the classes too.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import keras

from kgradcam.errors import UserError, did_you_mean
from kgradcam.heatmaps.layers import PASSIVE

POOLINGS = ("mean", "logsumexp")
LARGER_MAPS = ("none", "stride", "dilation")
_PROBE_SIDE = 512


@dataclass(frozen=True)
class Architecture:
    """What is built on a backbone.

    Attributes:
        last_layer: The layer whose maps are pooled. Default: the backbone's last with space.
        larger_maps: `"stride"` takes the last halving of the maps away, so that they have twice the
            height and width; `"dilation"` also dilates the convolutions after it by 2, so that they
            see what they were trained to see (Yu et al., Dilated Residual Networks, CVPR 2017).
        pooling: `"mean"`, or `"logsumexp"`: (1/r) log mean exp(r A) over the places of each map A
            (the form of Pinheiro & Collobert, CVPR 2015, who pool the scores of classes), between
            the mean for r near 0 and the maximum for a large r.
        sharpness: That r.
        side_layers: Earlier layers that get a head of their own during training (deep supervision,
            Lee et al., AISTATS 2015); these heads are dropped afterwards.
    """

    last_layer: str | None = None
    larger_maps: str = "none"
    pooling: str = "mean"
    sharpness: float = 1.0
    side_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value, options in (
            ("larger_maps", self.larger_maps, LARGER_MAPS),
            ("pooling", self.pooling, POOLINGS),
        ):
            if value not in options:
                raise UserError(
                    f"{name}={value!r} is none of {', '.join(options)}."
                    f"{did_you_mean(value, options)}"
                )
        if not self.sharpness > 0:
            raise UserError(f"sharpness must be more than 0. Received: {self.sharpness}.")


@dataclass(frozen=True)
class Network:
    """A network in its parts, which share their layers.

    Attributes:
        whole: Pictures to probabilities `[batch, classes]`: what becomes of it all.
        trunk: Pictures to maps that never change, where these are to be cached; else `None`.
        trained: The trunk's maps, or pictures, to logits `[batch, heads, classes]`; the first head
            is the network's own, the others are those of the side layers.
        fresh: The names of its layers that bring no weights.
        pretrained: The names of those that do and may be trained further, first to last.
    """

    whole: keras.Model
    trunk: keras.Model | None
    trained: keras.Model
    fresh: tuple[str, ...]
    pretrained: tuple[str, ...]


def build_network(
    backbone: keras.Model,
    class_count: int,
    architecture: Architecture,
    missing: Collection[str] = (),
    frozen_until: str | None = None,
    cached: bool = False,
    dtype: str | None = None,
) -> Network:
    """Builds a network on a backbone, which is copied and not changed.

    Args:
        backbone: A graph of layers with weights, with or without a head.
        class_count: How many classes there are.
        architecture: What to build.
        missing: The layers of the backbone that have no weights yet. What comes after the first of
            them has weights for other inputs, and so counts as fresh too.
        frozen_until: The last layer that is never trained. Default: none.
        cached: Whether what is trained starts from the maps of that layer, and not from pictures.
        dtype: The dtype policy of the copy. Default: the backbone's.

    Returns:
        The network.

    Raises:
        UserError: A layer does not exist or does not fit, or the backbone is no graph of layers.
    """
    if not isinstance(backbone, keras.Sequential) and not hasattr(backbone, "operations"):
        raise UserError(
            f"{backbone.name} must be a functional or sequential model to be trained further: the "
            "layers of a subclassed one cannot be cut apart."
        )
    last = find_layer(backbone, architecture.last_layer)
    cut = keras.Model(backbone.inputs[0], last.output)
    cut = copy_network(cut, _enlarge(cut, architecture.larger_maps), dtype)
    names = [layer.name for layer in cut.layers]
    first = min((names.index(name) for name in missing if name in names), default=len(names))

    maps = cut.output
    tops = [maps, *(find_layer(cut, name).output for name in architecture.side_layers)]
    heads = ["", *(f"{name}_" for name in architecture.side_layers)]
    logits = [
        keras.layers.Dense(class_count, name=f"{head}logits", dtype="float32")(
            _pool(top, architecture, f"{head}pool")
        )
        for head, top in zip(heads, tops, strict=True)
    ]
    probabilities = keras.layers.Activation("sigmoid", name="probabilities", dtype="float32")
    whole = keras.Model(cut.inputs[0], probabilities(logits[0]), name=backbone.name)
    stacked = keras.ops.stack(logits, axis=1)
    trunk, inputs, frozen = None, cut.inputs[0], set[str]()
    if frozen_until is not None:
        end = find_layer(cut, frozen_until)
        if first < names.index(end.name):
            raise UserError(
                f"frozen_until={frozen_until!r} comes after {names[first]!r}, which has no weights "
                "yet and must be trained."
            )
        below = keras.Model(cut.inputs[0], end.output)
        frozen = {layer.name for layer in below.layers}
        if cached:
            trunk, inputs = below, end.output
    try:
        trained = keras.Model(inputs, stacked)
    except ValueError as error:
        raise UserError(
            f"frozen_until={frozen_until!r} is no layer that all paths lead through: take the "
            "last layer of a block."
        ) from error
    weighted = {layer.name for layer in trained.layers if layer.variables} - frozen
    pretrained = tuple(name for name in names[:first] if name in weighted)
    return Network(
        whole=whole,
        trunk=trunk,
        trained=trained,
        fresh=tuple(
            layer.name
            for layer in trained.layers
            if layer.name in weighted and layer.name not in pretrained
        ),
        pretrained=pretrained,
    )


def set_trainable(network: Network, fine_tune: bool) -> None:
    """Chooses what learns: the fresh layers, and with `fine_tune` the pretrained ones too.

    Pretrained batch normalizations stay as they are: the few pictures of a batch know the
    statistics worse than the weights do.
    """
    for layer in network.trained.layers:
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        tuned = fine_tune and layer.name in network.pretrained and not is_norm
        layer.trainable = tuned or layer.name in network.fresh


def learning_rates(network: Network, backbone_rate: float) -> dict[str, float]:
    """Returns the share of the learning rate for each variable, by path.

    Fresh layers learn at the whole rate; the last pretrained layer at `backbone_rate` of it, the
    first at the square of that, those between at geometric steps (discriminative rates, Howard &
    Ruder, ACL 2018): early layers know edges, which are the same everywhere.
    """
    last = max(len(network.pretrained) - 1, 1)
    share = {
        name: backbone_rate ** (2 - place / last) for place, name in enumerate(network.pretrained)
    }
    return {
        variable.path: share.get(layer.name, 1.0)
        for layer in network.trained.layers
        for variable in layer.trainable_variables
    }


def find_layer(model: keras.Model, name: str | None) -> Any:
    """Returns a layer by name, or the last one whose output has height and width."""
    with_maps = {
        layer.name: layer
        for layer in model.layers
        if len(getattr(layer.output, "shape", ())) == 4 and layer.output.shape[1:3] != (1, 1)
    }
    if name is not None:
        if name not in with_maps:
            raise UserError(
                f"{name!r} is no layer with a feature map of {model.name}."
                f"{did_you_mean(name, with_maps)} `kgradcam layers` lists them."
            )
        return with_maps[name]
    active = [layer for layer in with_maps.values() if not isinstance(layer, PASSIVE)]
    if not active:
        raise UserError(f"{model.name} has no layer with a feature map to put a head on.")
    return active[-1]


def copy_network(
    model: keras.Model,
    change: Callable[[Any], dict[str, Any]] = lambda layer: {},
    dtype: str | None = None,
    side: int | None = None,
) -> keras.Model:
    """Copies a graph of layers with its weights, for pictures of another size if it takes them.

    Args:
        model: The graph.
        change: Returns for each layer what is other in the copy's configuration.
        dtype: The dtype policy of the copy. Default: the model's.
        side: Of the pictures; any by default.

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


def _enlarge(model: keras.Model, larger_maps: str) -> Callable[[Any], dict[str, Any]]:
    """What changes in each layer so that the last maps are twice as high and wide."""
    if larger_maps == "none":
        return lambda layer: {}
    probe = copy_network(model, side=_PROBE_SIDE)
    end = probe.output.shape[1]
    changes: dict[str, dict[str, Any]] = {}
    for layer in probe.layers:
        before: Any = getattr(layer.input, "shape", ())  # a sum has a list of inputs, without
        after: Any = getattr(layer.output, "shape", ())
        if len(before) != 4 or len(after) != 4:
            continue
        if hasattr(layer, "strides") and before[1] > end >= after[1]:
            changes[layer.name] = {"strides": 1}
        elif larger_maps == "dilation" and before[1] == end and hasattr(layer, "dilation_rate"):
            changes[layer.name] = {"dilation_rate": 2}
    if not any("strides" in change for change in changes.values()):
        raise UserError(
            f"larger_maps={larger_maps!r}: {model.name} has no strided layer at its end."
        )
    return lambda layer: changes.get(layer.name, {})


def _pool(maps: Any, architecture: Architecture, name: str) -> Any:
    """Pools maps over their places; written in Keras' operations, so that any Keras loads it."""
    if architecture.pooling == "mean":
        return keras.layers.GlobalAveragePooling2D(name=name, dtype="float32")(maps)
    r = architecture.sharpness
    maps = keras.ops.cast(maps, "float32")
    highest = keras.ops.max(maps, axis=(1, 2), keepdims=True)
    spread = keras.ops.mean(keras.ops.exp((maps - highest) * r), axis=(1, 2))
    return keras.ops.squeeze(highest, axis=(1, 2)) + keras.ops.log(spread) / r
