"""The layer that is explained by default: the last map of places before space is given up.

A map counts if the score depends on it, if every value passes it (the sum, not a branch), and if
the score reads all of its places. The output of the model, a mask of one channel, the insides of
attention, and images before the first product with weights do not count.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from kgradcam.errors import UserError
from kgradcam.heatmaps.dataflow import CONVOLUTIONS, PRODUCTS, Dataflow
from kgradcam.heatmaps.geometry import stride
from kgradcam.heatmaps.inputs import input_specs
from kgradcam.heatmaps.layers import PASSIVE, LayerCall, is_map, keep_losses, record_calls
from kgradcam.heatmaps.layout import TokenGrid, find_token_grid

_log = logging.getLogger(__name__)

_MOVES = ("Reshape", "Transpose", "Identity", "Cast", "Squeeze", "ExpandDims")
_MOST_COLORS = 4


def default_call(calls: Sequence[LayerCall], flow: Dataflow, outputs: Any) -> LayerCall:
    """Returns the default layer.

    Args:
        calls: The calls of a trace, in order of execution.
        flow: The operations between the inputs of the model and the explained score.
        outputs: The symbolic outputs of the model.

    Raises:
        UserError: No layer outputs a feature map.
    """
    used = [call for call in calls if call.feature_maps in flow]

    through = flow.through_all([call.feature_maps for call in used])
    ends = _output_operations(flow, outputs)
    maps = [
        call
        for call in used
        if call.feature_maps.op.name in flow.learned - flow.per_head and makes_a_map(call)
    ]
    conditions: list[tuple[str, Callable[[LayerCall], bool]]] = [
        ("it has one channel", lambda call: call.shape[-1] != 1),
        ("the score reads single places of it", lambda call: _name(call) not in flow.read_in_part),
        ("it is the output of the model", lambda call: _name(call) not in ends),
    ]
    # The last conditions are dropped first: a map with a warning is better than an error.
    for count in range(len(conditions), -1, -1):
        kept = [call for call in maps if all(good(call) for _, good in conditions[:count])]
        if kept:
            best = _last_before_space_ends(kept, flow, through)
            _log_doubts(
                best, kept, flow, through, [why for why, good in conditions if not good(best)]
            )
            return best
    given = _maps_as_input(used, flow)
    if given is not None:
        return given
    raise UserError(
        "The model has no layer with a feature map [batch, height, width, channels] larger than "
        "1x1 between its input and the explained score, and Grad-CAM needs one. Maps before the "
        "first layer with weights, as those of Rescaling, do not count."
    )


def makes_a_map(call: LayerCall) -> bool:
    """Whether a layer or operation computes its map, and does not only move or select values.

    A grid that is made of tokens or of a flat vector is a map of its own.
    """
    tensor, layer = call.feature_maps, call.layer
    while isinstance(layer, keras.layers.Wrapper) and not isinstance(layer, PASSIVE):
        layer = layer.layer
    moves = (keras.layers.Reshape, keras.layers.Permute)
    if isinstance(layer, keras.Layer) and not isinstance(layer, moves):
        return not isinstance(layer, PASSIVE)
    if isinstance(layer, moves) or tensor.op.type in ("Reshape", "Transpose"):
        # Back to the start of a chain of moves: it makes a grid only of tokens or of a vector.
        while tensor.op.type in _MOVES:
            tensor = tensor.op.inputs[0]
        return call.feature_maps.shape.rank > 3 and not (tensor.shape.rank or 0) > 3
    return True


def token_grid(call: LayerCall, flow: Dataflow) -> TokenGrid | None:
    """Returns the grid of a layer's tokens, if any, and logs the tokens that it leaves out."""
    grid = find_token_grid(flow, call.feature_maps)
    if grid is not None and grid.extra:
        _log.info(
            "layer=%r: %d of %s tokens belong to no patch (class or register tokens) and are left "
            "out of its heatmap.",
            *(call.path, grid.extra, call.feature_maps.shape[1]),
        )
    return grid


def _name(call: LayerCall) -> str:
    return str(call.feature_maps.op.name)


def _last_before_space_ends(
    calls: Sequence[LayerCall], flow: Dataflow, through: set[str]
) -> LayerCall:
    """The last of maps: first with two axes and on the way of all values, then with less."""

    def rank(item: tuple[int, LayerCall]) -> tuple[bool, bool, int]:
        return _has_grid(item[1], flow), _name(item[1]) in through, item[0]

    return max(enumerate(calls), key=rank)[1]


def _has_grid(call: LayerCall, flow: Dataflow) -> bool:
    return call.feature_maps.shape.rank > 3 or find_token_grid(flow, call.feature_maps) is not None


def _log_doubts(
    best: LayerCall,
    calls: Sequence[LayerCall],
    flow: Dataflow,
    through: set[str],
    faults: list[str],
) -> None:
    later = [call.path for call in calls[calls.index(best) + 1 :] if _name(call) in through]
    if faults:
        _log.warning("layer=%r is explained, though %s.", best.path, " and ".join(faults))
    elif _name(best) not in through:
        others = [each.path for each in calls if _name(each) not in through and each is not best]
        _log.warning(
            "The score combines several branches. layer=%r of one of them is explained; others "
            "are %s. layer= selects.",
            *(best.path, ", ".join(others[-4:]) or "not maps"),
        )
    elif later:
        _log.warning(
            "layer=%r is explained, the last one with two spatial axes. Series or tokens without a "
            "known grid follow: %s. layer= selects one, reshape= arranges it in a grid.",
            *(best.path, ", ".join(later[-4:])),
        )
    elif not _has_grid(best, flow):
        _log.info("layer=%r is explained, as a series of one axis.", best.path)


def _output_operations(flow: Dataflow, outputs: Any) -> set[str]:
    """The operations of outputs that are maps, back to the product that computed them."""
    found: set[str] = set()
    products = (*CONVOLUTIONS, *PRODUCTS)
    for output in tf.nest.flatten(outputs):
        tensor = output if tf.is_tensor(output) and output in flow and is_map(output) else None
        while tensor is not None:
            found.add(tensor.op.name)
            sources = flow.inputs(tensor.op)
            one = len(sources) == 1 and tensor.op.type not in products
            tensor = sources[0] if one else None
    return found


def _maps_as_input(calls: Sequence[LayerCall], flow: Dataflow) -> LayerCall | None:
    """An input that is a feature map already: it has more channels than an image."""
    for operation in flow.operations:
        tensor = operation.outputs[0]
        flat = tensor.shape.rank == 3 and all(use.type == "Reshape" for use in tensor.consumers())
        # A vector that the model arranges itself is no series.
        given = not flow.inputs(operation) and is_map(tensor) and not flat
        if given and (tensor.shape[-1] or 0) > _MOST_COLORS:
            known = [call for call in calls if call.feature_maps is tensor]
            best = known[0] if known else LayerCall("input", None, tensor)
            _log.warning("The input has %s channels, and is explained itself.", tensor.shape[-1])
            return best
    return None


def list_layers(model: keras.Model) -> tuple[list[LayerCall], LayerCall]:
    """Lists the layers of a model that Grad-CAM can explain.

    Args:
        model: A built Keras model.

    Returns:
        The calls in order of execution, and the default one of `GradCAM(model)`.

    Raises:
        UserError: The model is not built, or has no feature map.

    Example:
        >>> import keras
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(4, 3, name="maps"),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(10),
        ... ])
        >>> calls, default = list_layers(model)
        >>> default.path, default.shape
        ('maps', (6, 6, 4))
    """
    specs = input_specs(model) or _specs_of_built(model)
    if specs is None:
        raise UserError("model is not built: call it once on a batch of images, then list layers.")
    found: list[tuple[list[LayerCall], LayerCall]] = []

    def trace(inputs: Any) -> None:
        with record_calls(model) as recording:
            outputs = model(inputs, training=False)
        flow = Dataflow(inputs, outputs)
        calls = recording.all_calls(flow)
        found.append((calls, default_call(calls, flow, outputs)))

    def untouched(inputs: Any) -> None:
        # The trace of a list must change neither variables nor losses of the model.
        with keras.StatelessScope():
            keep_losses(lambda: trace(inputs))

    tf.function(untouched, autograph=False).get_concrete_function(specs)
    return found[0]


def last_of_each_stride(calls: Sequence[LayerCall], default: LayerCall) -> list[LayerCall]:
    """Returns the calls most people choose from, in order of execution, and the default one."""
    last = {}
    for call in calls:
        maps = call.feature_maps
        if not isinstance(call.layer, PASSIVE):
            last[stride(maps) if maps.shape.rank == 4 else tuple(call.shape[:-1])] = call
    return [call for call in calls if call is default or call in last.values()]


def _specs_of_built(model: keras.Model) -> Any:
    """The specs of a subclassed model that was called before; its first call has set its shape."""
    shape = (model.get_build_config() or {}).get("input_shape") if model.built else None
    if not isinstance(shape, (tuple, list)) or not all(
        each is None or isinstance(each, int) for each in shape
    ):
        return None
    return tf.TensorSpec([None, *shape[1:]], tf.as_dtype(model.input_dtype))
