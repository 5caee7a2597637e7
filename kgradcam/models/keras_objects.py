"""Decides which objects the configuration of an untrusted Keras model may describe.

Keras turns each dict with a `class_name` into an object. The name may resolve to a function as well
as to a class, and Keras calls each layer with arguments from the file. A function in the place of a
layer is therefore a function call: `keras.src.ops.core.Switch` calls any function of Keras, such as
`keras.models.model_from_json` with a second configuration that no check has seen.

The check is a positive list, independent of the version of Keras: layers by name; operations,
initializers, regularizers, constraints and the parts of a compiled model by their base class;
activations by name. No function but an activation is admitted, and none in the place of a layer.
Classes that this process registered by `register_keras_serializable` are trusted.

Keras 2, and `.h5` files of Keras 3, name a class without its module. Keras then takes a layer of
that name, or an initializer, a regularizer or a constraint.
"""

import contextlib
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

import keras

# All layers of Keras except those that contain code (Lambda, wrappers of other frameworks), read
# files that the configuration names (TFSMLayer, lookups of vocabularies), or take text.
_LAYERS = frozenset(
    """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
    AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add
    AdditiveAttention AlphaDropout Attention AugMix AutoContrast Average AveragePooling1D
    AveragePooling2D AveragePooling3D BatchNormalization Bidirectional CategoryEncoding CenterCrop
    Concatenate ContrastLimitedAdaptiveHistogramEqualization Conv1D Conv1DTranspose Conv2D
    Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Cropping1D Cropping2D
    Cropping3D CutMix Dense DepthwiseConv1D DepthwiseConv2D Discretization Dot Dropout ELU
    EinsumDense Embedding Equalization Flatten GRU GRUCell GaussianDropout GaussianNoise
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D
    GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention Identity InputLayer
    LSTM LSTMCell LayerNormalization LeakyReLU Masking MaxNumBoundingBoxes MaxPooling1D MaxPooling2D
    MaxPooling3D Maximum MelSpectrogram Minimum MixUp MultiHeadAttention Multiply Normalization
    PReLU Permute Pipeline RMSNormalization RNN RandAugment RandomBrightness RandomColorDegeneration
    RandomColorJitter RandomContrast RandomCrop RandomElasticTransform RandomErasing RandomFlip
    RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective RandomPosterization
    RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation RandomZoom ReLU
    RepeatVector Rescaling Reshape Resizing ReversibleEmbedding STFTSpectrogram SeparableConv1D
    SeparableConv2D SimpleRNN SimpleRNNCell Softmax Solarization SpatialDropout1D SpatialDropout2D
    SpatialDropout3D SpectralNormalization StackedRNNCells Subtract TimeDistributed
    UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D
    ZeroPadding3D
    """.split()
)
_ACTIVATIONS = frozenset(
    """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear
    log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign
    sparse_plus sparse_sigmoid sparsemax squareplus tanh tanh_shrink threshold
    """.split()
)
# The operations of the core take functions, with few exceptions.
_CORE_OPERATIONS = frozenset(
    "Cast ConvertToTensor SaturateCast Scatter ScatterUpdate Slice SliceUpdate StopGradient "
    "Unstack".split()
)
_QUANTIZERS = frozenset(
    "AbsMaxQuantizer Float8QuantizationConfig Int4QuantizationConfig Int8QuantizationConfig".split()
)
# By the module in the file, which Keras resolves: the names of classes, or their base class.
_CLASSES: dict[str, frozenset[str] | type] = {
    "keras": frozenset({"DTypePolicy", "Sequential"}),
    "keras.constraints": keras.constraints.Constraint,
    "keras.dtype_policies": keras.DTypePolicy,
    "keras.initializers": keras.initializers.Initializer,
    "keras.layers": _LAYERS,
    "keras.losses": keras.losses.Loss,
    "keras.metrics": keras.metrics.Metric,
    "keras.optimizers": keras.optimizers.Optimizer,
    "keras.optimizers.schedules": keras.optimizers.schedules.LearningRateSchedule,
    "keras.quantizers": _QUANTIZERS,
    "keras.regularizers": keras.regularizers.Regularizer,
    "keras.src.applications.convnext": frozenset({"LayerScale", "StochasticDepth"}),
    "keras.src.applications.inception_resnet_v2": frozenset({"CustomScaleLayer"}),
    "keras.src.models.functional": frozenset({"Functional"}),
    "keras.src.ops.core": _CORE_OPERATIONS,
    "keras.src.ops.einops": keras.Operation,
    "keras.src.ops.image": keras.Operation,
    "keras.src.ops.linalg": keras.Operation,
    "keras.src.ops.math": keras.Operation,
    "keras.src.ops.nn": keras.Operation,
    "keras.src.ops.numpy": keras.Operation,
}
_LEGACY_MODELS = frozenset({"Functional", "Model", "Sequential"})
_LEGACY_MODULES = ("layers", "initializers", "regularizers", "constraints")
_LEGACY_VALUES = frozenset({"__tuple__", "TensorShape"})
_OPERATIONS_ON_FUNCTIONS = frozenset({"JVP"})
# Values that Keras writes as dicts. A `__typespec__` names any class, and `__lambda__` holds code.
_VALUES = frozenset(
    "__bytes__ __ellipsis__ __keras_tensor__ __numpy__ __slice__ __tensor__".split()
)
# NumPy reads "U500000000" as a type of 2 GB for each element.
_DTYPE = re.compile(r"bool|string|bfloat16|(u?int|float|complex)\d{1,3}(_e\dm\d\w{0,3})?")


def find_refused(content: Any, legacy: bool = False) -> str | None:
    """Searches the configuration of a model for objects that are not on the positive list.

    Args:
        content: The parsed `config.json` of a `.keras` file. It will be loaded with
            `compile=False`, for which Keras drops the outermost `compile_config` unread.
        legacy: Whether it comes from an `.h5` file, where classes have no module.

    Returns:
        A noun phrase for the first such object, or `None` if all are admitted.

    Example:
        >>> find_refused({"class_name": "Popen", "module": "subprocess", "config": {}})
        'subprocess.Popen'
    """
    if isinstance(content, dict):
        content = {key: value for key, value in content.items() if key != "compile_config"}
    refusals = (_refusal(each, legacy) for each in _descriptions(content))
    return next(filter(None, refusals), None)


def _descriptions(content: Any) -> Iterator[dict[str, Any]]:
    """Yields each dict with a class name, at any depth, also inside strings of JSON."""
    # A list instead of recursion: the depth of the file is not limited by Python's stack.
    remaining = [content]
    while remaining:
        part = remaining.pop()
        if isinstance(part, dict):
            if "class_name" in part:
                yield part
            remaining += part.values()
        elif isinstance(part, list):
            remaining += part
        elif isinstance(part, str) and part.lstrip()[:1] in ("{", "[", '"'):
            with contextlib.suppress(ValueError):
                remaining.append(json.loads(part))


def _refusal(description: dict[str, Any], legacy: bool) -> str | None:
    """Returns a description of the object if it is not admitted, else `None`."""
    name, module = str(description["class_name"]), str(description.get("module"))
    nodes = description.get("inbound_nodes")
    if name in _VALUES:  # also in the calls of an .h5 file of Keras 3
        return _value_refusal(description.get("config"))
    if legacy and "module" not in description:
        return _legacy_refusal(name, nodes)
    if name == "function":
        # Keras looks up functions by `config`.
        function = str(description.get("config"))
        known = module in ("builtins", "keras.activations") and function in _ACTIVATIONS
        if nodes is None and (known or inspect.isfunction(_registered(function))):
            return None
        return f"the function {module}.{function}"
    found = _find_class(name, module, description.get("registered_name", name))
    if found is None:
        if module == "keras.layers" or name == "__lambda__":
            return f"a {name.strip('_')} layer"
        return f"the class {name}" if module == "None" else f"{module}.{name}"
    if nodes is not None and not (issubclass(found, keras.Operation) and _have_inputs(nodes)):
        return f"a call of {module}.{name} without an input"
    return None


def _legacy_refusal(name: str, nodes: Any) -> str | None:
    """As `_refusal`, for a class that is named without its module."""
    if nodes is not None and not (isinstance(nodes, list) and all(map(_has_input, nodes))):
        return f"a call of {name} without an input"
    if name in _LEGACY_MODELS | _LEGACY_VALUES:
        return None
    known = (_find_class(name, f"keras.{module}", name) for module in _LEGACY_MODULES)
    return None if any(known) else f"a {name.strip('_')} layer"


def _value_refusal(value: Any) -> str | None:
    dtype = value.get("dtype", "bool") if isinstance(value, dict) else "bool"
    return None if _DTYPE.fullmatch(str(dtype)) else f"an array of the type {dtype!r}"


def _find_class(name: str, module: str, registered_name: Any) -> type | None:
    """Returns the class that Keras would make an object of, or `None` if it is not admitted."""
    registered = _registered(registered_name)
    if registered is not None:
        return registered if inspect.isclass(registered) else None
    if module not in _CLASSES or name in _OPERATIONS_ON_FUNCTIONS:
        return None
    found = vars(importlib.import_module(module)).get(name)
    allowed = _CLASSES[module]
    if not inspect.isclass(found):
        return None
    admitted = issubclass(found, allowed) if isinstance(allowed, type) else name in allowed
    return found if admitted else None


def _registered(name: Any) -> Any:
    return keras.saving.get_registered_object(name) if isinstance(name, str) else None


def _have_inputs(nodes: Any) -> bool:
    """Returns whether each call takes a tensor of the graph.

    A call of constants alone would run while the model is loaded.
    """
    return isinstance(nodes, list) and all(
        isinstance(node, dict) and _has_input(node) for node in nodes
    )


def _has_input(node: Any) -> bool:
    """Whether a call takes a tensor; in Keras 2 it is a list of the layers before."""
    if not isinstance(node, dict):
        return bool(node)
    return any(each["class_name"] == "__keras_tensor__" for each in _descriptions(node))
