"""Configurations of strangers: each object off the positive list is refused before Keras runs.

Every attack here is a whole `.keras` file. Those that write leave a trace where the check fails:
`tests/models/test_keras_versions.py` runs this file with each version of Keras.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import rewrite_keras_file

from kgradcam.errors import UserError
from kgradcam.models.keras_file import read_model
from kgradcam.models.keras_objects import _LAYERS, find_refused

Change = Callable[[Any], None]


def described(module: str | None, class_name: Any, config: Any = None, **more: Any) -> Any:
    return {
        "module": module,
        "class_name": class_name,
        "config": {} if config is None else config,
        "registered_name": None,
        **more,
    }


def function(module: str, name: str, **more: Any) -> Any:
    return described(module, "function", name, **{"registered_name": name, **more})


def layer(value: Any) -> Change:
    """Replaces the convolution of the model."""

    def change(content: Any) -> None:
        content["config"]["layers"][1] = value

    return change


def option(key: str, value: Any) -> Change:
    """Sets an option of the convolution."""

    def change(content: Any) -> None:
        content["config"]["layers"][1]["config"][key] = value

    return change


def entry(key: str, value: Any) -> Change:
    """Sets an entry beside the options of the convolution."""

    def change(content: Any) -> None:
        content["config"]["layers"][1][key] = value

    return change


def graph(value: Any, *arguments: Any, **options: Any) -> Change:
    """Makes a functional model whose second layer is called with these arguments."""

    def change(content: Any) -> None:
        inputs = described(
            "keras.layers",
            "InputLayer",
            {"batch_shape": [None, 4, 4, 3], "dtype": "float32", "name": "in"},
            name="in",
            inbound_nodes=[],
        )
        called = {"args": list(arguments), "kwargs": options}
        second = {**value, "name": "second", "inbound_nodes": [called]}
        content.clear()
        content.update(
            described(
                "keras.src.models.functional",
                "Functional",
                {
                    "name": "evil",
                    "trainable": True,
                    "layers": [inputs, second],
                    "input_layers": [["in", 0, 0]],
                    "output_layers": [["second", 0, 0]],
                },
                registered_name="Functional",
            )
        )

    return change


TENSOR = described(
    None,
    "__keras_tensor__",
    {"shape": [None, 4, 4, 3], "dtype": "float32", "keras_history": ["in", 0, 0]},
)
SECOND_MODEL = json.dumps(
    described("keras.layers", "Lambda", {"function": described(None, "__lambda__")})
)
LOAD = function("keras.models", "model_from_json")
SAVE = function("keras.utils", "save_img")
PIXELS = described(None, "__numpy__", {"value": [[[0]]], "dtype": "uint8"})

ATTACKS: dict[str, tuple[Change, str]] = {
    # Functions in the place of a layer.
    "any function of any module (CVE-2025-1550)": (
        graph(function("os", "system"), "touch {trace}"),
        "the function os.system",
    ),
    "a class name that is a function": (
        graph(described("keras.utils", "get_file"), "f", "file:///etc/passwd"),
        "keras.utils.get_file",
    ),
    "a class name that is a function, by its private module": (
        graph(described("keras.src.utils.image_utils", "save_img"), "{trace}", PIXELS),
        "keras.src.utils.image_utils.save_img",
    ),
    "a class name that is a function beside admitted classes": (
        graph(described("keras.initializers", "deserialize"), SECOND_MODEL),
        "keras.initializers.deserialize",
    ),
    "the function of layers that reads a configuration": (
        graph(described("keras.layers", "deserialize"), TENSOR),
        "a deserialize layer",
    ),
    "a network whose weights are downloaded": (
        graph(described("keras.applications", "MobileNet"), weights="imagenet"),
        "keras.applications.MobileNet",
    ),
    "a network whose weights are a file": (
        graph(described("keras.src.applications.mobilenet", "MobileNet"), weights="/etc/passwd"),
        "keras.src.applications.mobilenet.MobileNet",
    ),
    "a function that disables the safe mode (CVE-2025-9906)": (
        layer(function("keras.config", "enable_unsafe_deserialization")),
        "the function keras.config.enable_unsafe_deserialization",
    ),
    "the same without an entry for the function": (
        layer(described("keras.config", "enable_unsafe_deserialization")),
        "keras.config.enable_unsafe_deserialization",
    ),
    "an activation in the place of a layer": (
        graph(function("keras.activations", "relu"), TENSOR),
        "the function keras.activations.relu",
    ),
    # Functions as options.
    "a builtin function": (
        option("activation", function("builtins", "eval")),
        "the function builtins.eval",
    ),
    "a function of Keras that fetches files (CVE-2025-8747)": (
        option("activation", function("keras.utils", "get_file")),
        "the function keras.utils.get_file",
    ),
    "the reader of activations": (
        option("activation", function("builtins", "deserialize")),
        "the function builtins.deserialize",
    ),
    "a module that is imported for an activation": (
        option("activation", function("antigravity", "relu")),
        "the function antigravity.relu",
    ),
    "a function under the registered name of an activation": (
        option("activation", function("os", "system", registered_name="relu")),
        "the function os.system",
    ),
    # Operations that call functions.
    "Switch with the loader of a second model": (
        graph(described("keras.src.ops.core", "Switch"), 0, [LOAD], SECOND_MODEL),
        "(the function keras.models.model_from_json|keras.src.ops.core.Switch)",
    ),
    "Switch with a function that writes": (
        graph(described("keras.src.ops.core", "Switch"), 0, [SAVE], "{trace}", PIXELS),
        "(the function keras.utils.save_img|keras.src.ops.core.Switch)",
    ),
    "Switch with a class name that starts a download": (
        graph(
            described("keras.src.ops.core", "Switch"),
            *(0, [described("keras.applications.mobilenet", "MobileNet")]),
        ),
        "(keras.applications.mobilenet.MobileNet|keras.src.ops.core.Switch)",
    ),
    "the loader of a second model as the argument of an admitted operation": (
        graph(
            described("keras.src.ops.numpy", "Add"),
            *(TENSOR, described("keras.models", "model_from_json")),
        ),
        "keras.models.model_from_json",
    ),
    **{
        f"{name} of the core": (
            graph(described("keras.src.ops.core", name), TENSOR),
            f"keras.src.ops.core.{name}",
        )
        for name in "AssociativeScan Cond ForiLoop Map Scan Switch VectorizedMap WhileLoop".split()
    },
    "a function as option of an operation": (
        graph(described("keras.src.ops.core", "VectorizedMap", {"function": SAVE}), TENSOR),
        "(the function keras.utils.save_img|keras.src.ops.core.VectorizedMap)",
    ),
    "a derivative of a function": (
        graph(described("keras.src.ops.linalg", "JVP"), LOAD, [TENSOR], [TENSOR]),
        "(the function keras.models.model_from_json|keras.src.ops.linalg.JVP)",
    ),
    "what an admitted module imports": (
        graph(described("keras.src.ops.numpy", "KerasTensor"), [1], "float32"),
        "keras.src.ops.numpy.KerasTensor",
    ),
    "an operation on constants, which runs while the model is loaded": (
        graph(described("keras.src.ops.numpy", "Full", {"shape": [99999, 99999]}), 1.0),
        "a call of keras.src.ops.numpy.Full without an input",
    ),
    "an initializer in the place of a layer": (
        graph(described("keras.initializers", "Ones"), [99999, 99999]),
        "a call of keras.initializers.Ones without an input",
    ),
    "a call in the style of Keras 2": (
        lambda content: (
            graph(described("keras.layers", "ReLU"))(content),
            content["config"]["layers"][1].update(inbound_nodes=[[["in", 0, 0, {}]]]),
        ),
        "a call of keras.layers.ReLU without an input",
    ),
    # Layers with code, files or addresses.
    "a SavedModel (CVE-2026-1462)": (
        layer(described("keras.layers", "TFSMLayer", {"filepath": "/tmp/evil"})),
        "a TFSMLayer layer",
    ),
    "a pickled PyTorch module (CVE-2025-49655)": (
        layer(described("keras.layers", "TorchModuleWrapper", {"module": "gASVAAA="})),
        "a TorchModuleWrapper layer",
    ),
    "a function of JAX": (layer(described("keras.layers", "JaxLayer")), "a JaxLayer layer"),
    "a module of Flax": (layer(described("keras.layers", "FlaxLayer")), "a FlaxLayer layer"),
    "a Lambda layer": (layer(described("keras.layers", "Lambda")), "a Lambda layer"),
    "a Lambda layer by its private module": (
        layer(described("keras.src.layers.core.lambda_layer", "Lambda")),
        "keras.src.layers.core.lambda_layer.Lambda",
    ),
    "a Lambda layer of Keras 2, without a module": (
        layer({"class_name": "Lambda", "config": {"function": ["4wEAAAA=", None, None]}}),
        "the class Lambda",
    ),
    "any layer without a module": (layer({"class_name": "Dense", "config": {}}), "the class Dense"),
    "a lambda without its layer": (
        option("activation", {"class_name": "__lambda__", "config": {"value": "4wEAAAA="}}),
        "a lambda layer",
    ),
    "a vocabulary from any file": (
        layer(described("keras.layers", "StringLookup", {"vocabulary": "/etc/passwd"})),
        "a StringLookup layer",
    ),
    "a text vocabulary from any file": (
        layer(described("keras.layers", "TextVectorization", {"vocabulary": "/etc/passwd"})),
        "a TextVectorization layer",
    ),
    "numbers from any file": (
        layer(described("keras.layers", "IntegerLookup", {"vocabulary": "/etc/passwd"})),
        "a IntegerLookup layer",
    ),
    "a feature space": (
        layer(described("keras.utils", "FeatureSpace")),
        "keras.utils.FeatureSpace",
    ),
    "a model of KerasHub that is downloaded": (
        layer(described("keras_hub.layers", "ResNetImageConverter", {"preset": "hf://a/b"})),
        "keras_hub.layers.ResNetImageConverter",
    ),
    # Other modules and names.
    "a class of another package": (
        layer(described("subprocess", "Popen", {"args": "touch {trace}"})),
        "subprocess.Popen",
    ),
    "a module that merely begins like Keras": (
        layer(described("keras_evil.layers", "Dense")),
        "keras_evil.layers.Dense",
    ),
    "a module above the list": (layer(described("keras", "Model")), "keras.Model"),
    "a module with a path": (
        layer(described("keras.layers.core", "Dense")),
        "keras.layers.core.Dense",
    ),
    "an empty module": (layer(described("", "Dense")), ".Dense"),
    "a dunder name": (layer(described("keras.layers", "__builtins__")), "a builtins layer"),
    "a type specification of any module": (
        option(
            "activation",
            described("antigravity", "__typespec__", [], spec_name="fly", registered_name=None),
        ),
        "antigravity.__typespec__",
    ),
    "a class name that is a list": (
        layer(described("keras.layers", ["Dense"])),
        r"a \['Dense'\] layer",
    ),
    "a class name that is a dict": (
        layer(described("keras.layers", {"class_name": "Lambda", "module": "keras.layers"})),
        "a .*Lambda.* layer",
    ),
    "a registered name that is a list": (
        layer(described("os", "system", registered_name=["a"])),
        "os.system",
    ),
    "the registered name of a layer of Keras": (
        layer(described("os", "system", registered_name="Dense")),
        "os.system",
    ),
    "a data type of 2 GB for each element": (
        option("activation", described(None, "__numpy__", {"value": ["a"], "dtype": "U500000000"})),
        "an array of the type 'U500000000'",
    ),
    # Where a configuration can be.
    "inside a string": (
        option("name", "  " + SECOND_MODEL),
        "a (Lambda|lambda) layer",
    ),
    "inside a string inside a string, with escapes": (
        option("name", json.dumps(SECOND_MODEL).replace("class", "\\u0063lass")),
        "a (Lambda|lambda) layer",
    ),
    "in the configuration of a build": (
        entry("build_config", {"input_shape": described("os", "system")}),
        "os.system",
    ),
    "in the loss of a layer that is a compiled model": (
        entry("compile_config", {"loss": function("os", "system")}),
        "the function os.system",
    ),
    "in the reader of losses": (
        entry("compile_config", {"loss": described("keras.losses", "get")}),
        "keras.losses.get",
    ),
    "in a quantization": (
        option("quantization_config", described("keras.quantizers", "GPTQConfig")),
        "keras.quantizers.GPTQConfig",
    ),
    "in a type": (option("dtype", described("keras.dtype_policies", "get")), "keras.*policies.get"),
    "in an initializer": (
        option("kernel_initializer", described("keras.initializers", "get")),
        "keras.initializers.get",
    ),
    "in a shared object": (
        entry("shared_object_id", described("os", "system")),
        "os.system",
    ),
    "in a wrapped layer": (
        layer(
            described(
                "keras.layers", "TimeDistributed", {"layer": described("keras.layers", "Lambda")}
            )
        ),
        "a Lambda layer",
    ),
    "in a list of layers": (
        layer(
            described("keras.layers", "Pipeline", {"layers": [described("keras.layers", "Lambda")]})
        ),
        "a Lambda layer",
    ),
}


@pytest.mark.parametrize(("change", "what"), ATTACKS.values(), ids=ATTACKS.keys())
def test_an_attack_is_refused_before_keras_runs(
    tiny_model: Path, tmp_path: Path, change: Change, what: str
) -> None:
    trace = tmp_path / "trace.png"

    def attack(content: Any) -> None:
        change(content)
        text = json.dumps(content).replace("{trace}", str(trace))
        content.clear()
        content.update(json.loads(text))

    path = rewrite_keras_file(tiny_model, tmp_path / "evil.keras", attack)
    with pytest.raises(UserError, match=rf"evil.keras holds {what}, which .*--trust-model"):
        read_model(path)
    assert not trace.exists()


def test_registered_classes_are_trusted_and_registered_functions_are_options(
    tiny_model: Path, tmp_path: Path
) -> None:
    @keras.saving.register_keras_serializable("kgradcam_tests")
    class Twice(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return 2 * x

    @keras.saving.register_keras_serializable("kgradcam_tests")
    def cube(x: Any) -> Any:
        return x**3

    layers = [keras.Input((4, 4, 3)), Twice(), keras.layers.Activation(cube)]
    keras.Sequential(layers).save(tmp_path / "own.keras")
    assert read_model(tmp_path / "own.keras")(np.ones((1, 4, 4, 3))).numpy().max() == 8

    refused = {
        "the function os.system": option(
            "activation", function("os", "system", registered_name="kgradcam_tests>Twice")
        ),
        "os.system": layer(described("os", "system", registered_name="kgradcam_tests>cube")),
        "the function None.kgradcam_tests>cube": graph(
            described(None, "function", "kgradcam_tests>cube"), 2
        ),
        "the function None.kgradcam_tests>Twice": option(
            "activation", described(None, "function", "kgradcam_tests>Twice")
        ),
    }
    for what, change in refused.items():
        path = rewrite_keras_file(tiny_model, tmp_path / "evil.keras", change)
        with pytest.raises(UserError, match=f"evil.keras holds {what}, which may run code"):
            read_model(path)


def test_what_networks_consist_of_is_admitted(tmp_path: Path) -> None:
    """Layers with every kind of option, operations, and a compiled model inside another."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(
        *(4, 3),
        activation=keras.activations.silu,
        kernel_regularizer="l2",
        kernel_constraint="max_norm",
        bias_initializer=keras.initializers.Constant(0.1),
        dtype="mixed_float16",
    )(inputs)
    x = keras.ops.relu(keras.ops.cast(x, "float32") + 1.0)
    x = keras.ops.mean(x, axis=(1, 2))[:, :2]
    x = keras.layers.Activation("gelu")(x)
    inner = keras.Model(inputs, keras.ops.nn.softmax(keras.ops.einsum("bi,bj->bij", x, x)))
    inner.compile("sgd", "mse", ["mae"])
    x = keras.layers.Flatten()(inner(inputs))
    x = keras.layers.Dropout(0.1, seed=1)(x)
    model = keras.Model(inputs, keras.layers.Dense(2, activation=keras.activations.softmax)(x))
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)

    def loss(y: Any, predicted: Any) -> Any:
        return y - predicted

    # The outermost compilation is not loaded, so its loss may be any function.
    model.compile(keras.optimizers.AdamW(schedule), loss, [keras.metrics.AUC()])
    model.save(tmp_path / "own.keras")
    images = np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype(np.float32)
    loaded = read_model(tmp_path / "own.keras")
    np.testing.assert_array_equal(loaded(images), model(images))


def test_every_layer_of_keras_is_admitted_or_refused_on_purpose() -> None:
    """A new layer of Keras must be put on the list, or here."""
    names = {
        name
        for name, each in vars(keras.layers).items()
        if isinstance(each, type) and issubclass(each, keras.Layer) and each.__name__ == name
    }
    assert names - _LAYERS == {
        "FlaxLayer",
        "HashedCrossing",
        "Hashing",
        "IntegerLookup",
        "JaxLayer",
        "Lambda",
        "Layer",
        "StringLookup",
        "TFSMLayer",
        "TextVectorization",
        "TorchModuleWrapper",
        "Wrapper",
    }


def test_values_and_text_are_admitted() -> None:
    values = [
        described(None, "__numpy__", {"value": [1], "dtype": "float32"}),
        described(None, "__tensor__", {"value": [1], "dtype": "float8_e4m3fn"}),
        described(None, "__slice__", {"start": None, "stop": 1, "step": None}),
        "{not JSON",
        '{"a": 1}',
    ]
    assert find_refused({"config": values}) is None
