"""LiteRT, ONNX and TensorFlow.js files compute what the live explainer does."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kgradcam import GradCAM, HiResCAM, UserError
from kgradcam.serving import export_converted


def network(
    size: int | None = None, hidden: bool = False, filters: tuple[int, ...] = (8, 16)
) -> keras.Model:
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((size, size, 3))])
    for count in filters:
        model.add(keras.layers.Conv2D(count, 3, strides=2, activation="relu", padding="same"))
    model.add(keras.layers.GlobalAveragePooling2D())
    if hidden:
        model.add(keras.layers.Dense(8, activation="relu"))
    model.add(keras.layers.Dense(5, activation="softmax"))
    return model


def scaled(images: Any) -> Any:
    return images / 127.5 - 1.0


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (count, 32, 32, 3), np.uint8)


def run(content: bytes, images: np.ndarray) -> dict[str, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the interpreter will move to the package ai_edge_litert
        interpreter = tf.lite.Interpreter(model_content=content)
    return interpreter.get_signature_runner()(images=images.astype(np.float32))


def test_litert_equals_the_live_explainer(tmp_path: Path) -> None:
    cam = GradCAM(network(), preprocess=scaled)
    export_converted(cam, tmp_path / "net.tflite", "litert", top=2, size=32)
    images = pictures(1)
    found = run((tmp_path / "net.tflite").read_bytes(), images)
    live = cam(images, classes_per_image=found["classes"].tolist())
    scores, _ = cam.predict(images, classes=range(5))
    assert found["classes"].tolist() == np.argsort(-scores, axis=1)[:, :2].tolist()
    for name in ("heatmaps", "scores", "probabilities"):
        np.testing.assert_allclose(found[name], getattr(live, name), atol=1e-5)


def test_int8_is_close_and_small(tmp_path: Path) -> None:
    cam = GradCAM(network(32, filters=(32, 64)), preprocess=scaled)
    for form in ("litert", "litert-int8"):
        export_converted(cam, tmp_path / form, form, top=5)
    content, images = (tmp_path / "litert-int8").read_bytes(), pictures(1)
    assert len(content) < 0.6 * (tmp_path / "litert").stat().st_size
    found = run(content, images)
    live = cam(images, classes_per_image=found["classes"].tolist())
    # Weights have 7 bits and a sign: 1 part in 254 of the largest, and some of them add up.
    np.testing.assert_allclose(found["probabilities"], live.probabilities, atol=0.02)
    np.testing.assert_allclose(found["heatmaps"], live.heatmaps, atol=0.03 * live.heatmaps.max())


def test_onnx_equals_the_live_explainer(tmp_path: Path) -> None:
    pytest.importorskip("tf2onnx")
    runtime = pytest.importorskip("onnxruntime")
    cam = GradCAM(network(32), preprocess=scaled)
    export_converted(cam, tmp_path / "net.onnx", "onnx", top=2)
    session = runtime.InferenceSession(tmp_path / "net.onnx")
    names = [each.name for each in session.get_outputs()]
    images = pictures(1)
    values = session.run(None, {"images": images.astype(np.float32)})
    found = dict(zip(names, values, strict=True))
    live = cam(images, classes_per_image=found["classes"].tolist())
    for name in ("heatmaps", "scores", "probabilities"):
        np.testing.assert_allclose(found[name], getattr(live, name), atol=1e-5)


CONVERTER = """#!{python}
import json, shutil, sys
assert sys.argv[1:3] == ["--input_format=tf_saved_model", "--output_format=tfjs_graph_model"]
source, target = sys.argv[3:]
if {fails}:
    sys.exit("no such op: MaxPoolV9")
shutil.copytree(source, target)
names = ["Identity:0", "Identity_1:0", "Identity_2:0", "Identity_3:0", "Identity_4:0"]
outputs = {{name: {{"name": name}} for name in names}}
json.dump({{"signature": {{"outputs": outputs}}}}, open(target + "/model.json", "w"))
"""


def put_converter(folder: Path, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """Puts a program in the place of the converter, which copies the SavedModel that it gets."""
    program = folder / "tensorflowjs_converter"
    program.write_text(CONVERTER.format(python=sys.executable, fails=fails))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_the_converter_of_tfjs_gets_a_model_without_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_converter(tmp_path, monkeypatch, fails=False)
    cam = GradCAM(network(32), preprocess=scaled)
    export_converted(cam, tmp_path / "web" / "net", "tfjs", top=2)
    model = json.loads((tmp_path / "web" / "net" / "model.json").read_text())
    assert model["signature"]["outputs"]["probabilities"] == {"name": "Identity_3:0"}
    images = pictures(1)
    served = tf.saved_model.load(tmp_path / "web" / "net")
    found = served.signatures["serving_default"](images=tf.constant(images, tf.float32))
    live = cam(images, classes_per_image=found["classes"].numpy().tolist())
    np.testing.assert_allclose(found["heatmaps"], live.heatmaps, atol=1e-5)


def test_a_converter_of_tfjs_that_is_missing_or_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cam = GradCAM(network(32))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="needs the program tensorflowjs_converter"):
        export_converted(cam, tmp_path / "net", "tfjs")
    put_converter(tmp_path, monkeypatch, fails=True)
    with pytest.raises(UserError, match="failed, with code 1: no such op: MaxPoolV9"):
        export_converted(cam, tmp_path / "net", "tfjs")
    assert [path.name for path in tmp_path.iterdir()] == ["tensorflowjs_converter"]


@pytest.mark.parametrize(
    ("cam", "arguments", "message"),
    [
        (lambda: GradCAM(network(32, hidden=True)), {}, "litert has no gradients"),
        (lambda: HiResCAM(network(32)), {}, "litert has no gradients"),
        (lambda: GradCAM(network()), {}, "Give size="),
        (lambda: GradCAM(network(32)), {"form": "lite"}, "Did you mean 'litert'"),
    ],
)
def test_what_does_not_convert(cam: Any, arguments: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        export_converted(cam(), tmp_path / "net", **{"form": "litert", **arguments})
    assert not list(tmp_path.iterdir())
