"""An explainer in LiteRT, ONNX and TensorFlow.js, which have no gradients.

Where a mean over space and one linear layer follow the explained layer, Grad-CAM is CAM: the
heatmap is a product of feature maps and weights. Its graph has no gradients, so it converts.
"""

import json
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kgradcam.errors import UserError, require_known
from kgradcam.files import write_atomically
from kgradcam.heatmaps.constant_graph import ConstantGraph
from kgradcam.heatmaps.gradcam import GradCAM
from kgradcam.serving.requirements import new_folder, picture_input, require_new

FORMATS = ("litert", "litert-int8", "onnx", "tfjs")
_TFJS_CONVERTER = "tensorflowjs_converter"
_OUTPUTS = ("classes", "scores", "probabilities", "heatmaps", "extent")


def export_converted(
    cam: GradCAM,
    file: str | Path,
    form: str,
    *,
    top: int = 3,
    size: int | None = None,
) -> None:
    """Writes a model with its heatmaps for phones, browsers and other runtimes.

    The input is `images`, float32 `[1, size, size, 3]`, RGB in [0, 255]: one picture. The outputs
    are `classes`, `scores`, `probabilities`, `heatmaps` and `extent` of the top classes, as
    `export_model` describes them. The caller resizes pictures, and draws boxes.

    Args:
        cam: The explainer, of a layer that a mean over space and one linear layer follow.
        file: The file to write, where nothing exists yet; for `"tfjs"` a folder.
        form: `"litert"`; `"litert-int8"`, a third of its size, with weights in 8 bits; `"onnx"`,
            which needs the package tf2onnx; or `"tfjs"`, TensorFlow.js, which needs the program
            tensorflowjs_converter.
        top: The number of classes to explain.
        size: The side of pictures, for a model that takes any size.

    Raises:
        UserError: The heatmap needs gradients, the size is unknown, something is at `file`, or
            the converter is not installed or fails.

    Example:
        >>> import keras
        >>> import tempfile
        >>> model = keras.Sequential([
        ...     keras.Input((16, 16, 3)),
        ...     keras.layers.Conv2D(4, 3),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(10, activation="softmax"),
        ... ])
        >>> file = Path(tempfile.mkdtemp()) / "net.tflite"
        >>> export_converted(GradCAM(model), file, "litert", top=2)
        >>> file.stat().st_size > 1000
        True
    """
    file = Path(file)
    require_new(file)
    require_known("form", form, FORMATS)
    graph = ConstantGraph(cam, top, "float32")
    if graph.needs_gradients:
        raise UserError(
            f"{form} has no gradients, and the heatmap of layer={graph.layer!r} by {graph.method} "
            "needs them. It needs none for Grad-CAM of a layer that is followed by a mean over "
            "space and one dense layer. A SavedModel has this heatmap too."
        )
    pictures = picture_input(graph.specs, size, None)
    if pictures is None or pictures.size is None:
        raise UserError(f"{form} needs a model of pictures of one size. Give size=.")
    shape = (1, *pictures.size, pictures.channels)

    def explain(images: Any) -> dict[str, Any]:
        (spec,) = tf.nest.flatten(graph.specs)
        inputs = tf.nest.pack_sequence_as(graph.specs, [tf.cast(images, spec.dtype)])
        heatmaps, extents, scores, probabilities, top = graph(inputs, np.zeros((1, 0, 1), np.int32))
        found = (tf.cast(top, tf.int32), scores, probabilities, heatmaps, extents)
        return dict(zip(_OUTPUTS, found, strict=True))

    function = tf.function(explain, autograph=False)
    concrete = function.get_concrete_function(tf.TensorSpec(shape, tf.float32, "images"))
    if form == "tfjs":
        _write_tfjs(concrete, file)
    elif form == "onnx":
        lite = tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()
        write_atomically(file, _onnx(lite))
    else:
        write_atomically(file, _litert(concrete, int8=form == "litert-int8"))


@contextmanager
def _saved_model(function: Any) -> Iterator[str]:
    """A SavedModel of a function in a temporary folder: its inputs and outputs keep their names."""
    with tempfile.TemporaryDirectory() as folder:
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(tf.Module(), folder, function, options)
        yield folder


def _litert(function: Any, int8: bool) -> bytes:
    with _saved_model(function) as folder:
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if int8:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        content: bytes = converter.convert()
    return content


def _write_tfjs(function: Any, folder: Path) -> None:
    """Runs the converter of TensorFlow.js as a program, since it needs an older TensorFlow."""
    program = shutil.which(_TFJS_CONVERTER)
    if program is None:
        raise UserError(
            f"tfjs needs the program {_TFJS_CONVERTER} of the package tensorflowjs, which needs an "
            "environment of its own: docs/serving.md describes it. Put the program on PATH."
        )
    with _saved_model(function) as source, new_folder(folder) as target:
        arguments = ["--input_format=tf_saved_model", "--output_format=tfjs_graph_model"]
        done = subprocess.run(
            [program, *arguments, source, str(target)], capture_output=True, text=True, check=False
        )
        if done.returncode or not (target / "model.json").is_file():
            reason = (done.stderr.strip() or "no output").splitlines()[-1]
            raise UserError(f"{_TFJS_CONVERTER} failed, with code {done.returncode}: {reason}")
        _name_outputs(target / "model.json")


def _name_outputs(file: Path) -> None:
    """Gives the outputs of a TensorFlow.js model their names: the converter loses some."""
    model = json.loads(file.read_text())
    tensors = {each["name"]: each for each in model["signature"]["outputs"].values()}
    # The outputs of a function that returns a dict are ordered by its keys.
    model["signature"]["outputs"] = {
        name: tensors[f"Identity_{place}:0" if place else "Identity:0"]
        for place, name in enumerate(sorted(_OUTPUTS))
    }
    file.write_text(json.dumps(model))


def _onnx(content: bytes) -> bytes:
    """Converts a LiteRT model: tf2onnx does not read every SavedModel of newer TensorFlow."""
    try:
        import tf2onnx.convert
    except ImportError as error:
        raise UserError("ONNX needs the package tf2onnx: pip install tf2onnx onnx.") from error
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the interpreter that tf2onnx runs
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        model, _ = tf2onnx.convert.from_tflite(str(path), opset=18)
    # The outputs of a function that returns a dict are ordered by its keys.
    names = dict(zip((each.name for each in model.graph.output), sorted(_OUTPUTS), strict=True))
    names[model.graph.input[0].name] = "images"
    for node in model.graph.node:
        node.input[:] = [names.get(each, each) for each in node.input]
        node.output[:] = [names.get(each, each) for each in node.output]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.name = names.get(value.name, value.name)
    found: bytes = model.SerializeToString()
    return found
