"""An export runs with TensorFlow alone, and computes what the live explainer does."""

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from kgradcam import GradCAM, UserError, export_model, find_boxes
from kgradcam.heatmaps import METHODS, choose_precision

NAMES = ["ant", "bee", "cat", "dog", "eel"]

CLIENT = """
import sys

sys.modules.update(dict.fromkeys(("keras", "kgradcam", "cv2", "tf_keras")))  # no such modules
import numpy as np
import tensorflow as tf

folder, inputs, outputs = sys.argv[1:]
signatures = tf.saved_model.load(folder).signatures
given = dict(np.load(inputs))
found = signatures["explain"](images=tf.constant(given["images"]))
of_class = signatures["explain_class"](
    images=tf.constant(given["images"]), class_indices=tf.constant([1, 3])
)
predicted = signatures["predict"](images=tf.constant(given["images"]))
np.savez(
    outputs,
    **{key: value.numpy() for key, value in found.items() if key != "names"},
    names=found["names"].numpy().astype("S"),
    **{f"class_{key}": value.numpy() for key, value in of_class.items()},
    **{f"predict_{key}": value.numpy() for key, value in predicted.items()},
)
assert sys.modules["keras"] is sys.modules["kgradcam"] is None
"""


def network(size: int | None = None, activation: str = "softmax", units: int = 5) -> keras.Model:
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((size, size, 3)),
            keras.layers.Conv2D(6, 3, strides=2, activation="relu", padding="same"),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu", padding="same"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(units, activation=activation),
        ]
    )


def scaled(images):
    return images / 127.5 - 1.0


def pictures(count: int = 3, height: int = 40, width: int = 56) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, height, width, 3), np.uint8)


def signatures(folder: Path):
    return tf.saved_model.load(folder).signatures


def test_another_process_with_tensorflow_alone_gets_the_same(tmp_path: Path) -> None:
    cam = GradCAM(network(), preprocess=scaled)
    export_model(cam, tmp_path / "1", top=2, class_names=NAMES)
    images = pictures()
    np.savez(tmp_path / "inputs.npz", images=images)
    (tmp_path / "client.py").write_text(CLIENT)
    arguments = ["client.py", "1", "inputs.npz", "outputs.npz"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True, env=environment)
    with np.load(tmp_path / "outputs.npz", allow_pickle=False) as file:
        found = dict(file)

    scores, probabilities = cam.predict(images, classes=range(5))
    best = np.argsort(-scores, axis=1, kind="stable")[:, :2]
    live = cam(images, classes_per_image=best.tolist())
    assert found["classes"].tolist() == best.tolist()
    assert [[name.decode() for name in row] for row in found["names"]] == [
        [NAMES[i] for i in row] for row in best
    ]
    for name in ("heatmaps", "scores", "probabilities"):
        np.testing.assert_allclose(found[name], getattr(live, name), atol=1e-5)
    np.testing.assert_allclose(found["extent"], [live.extent] * 3)
    for i, j in np.ndindex(3, 2):
        boxes, box_scores = find_boxes(
            live.heatmaps[i, j], (56, 40), float(live.probabilities[i, j]), extent=live.extent
        )
        count = min(len(boxes), 10)
        np.testing.assert_allclose(found["boxes"][i, j, :count], boxes[:count], atol=1)
        np.testing.assert_allclose(found["box_scores"][i, j, :count], box_scores[:count], atol=1e-4)
        assert not found["boxes"][i, j, count:].any()
    group = cam(images, classes=[(1, 3)])
    np.testing.assert_allclose(found["class_heatmaps"], group.heatmaps, atol=1e-5)
    np.testing.assert_allclose(found["class_probabilities"], group.probabilities, atol=1e-5)
    np.testing.assert_allclose(found["predict_probabilities"], probabilities, atol=1e-5)


@pytest.mark.parametrize(
    "method",
    [
        each
        if each in ("cam", "guided-gradcam", "hirescam", "scorecam")
        else pytest.param(each, marks=pytest.mark.slow)
        for each in METHODS
    ],
)
def test_every_method_is_exported(method: str, tmp_path: Path) -> None:
    cam = METHODS[method](network(24))
    export_model(cam, tmp_path / "1", top=5)
    images = pictures(2, 24, 24)
    found = signatures(tmp_path / "1")["explain"](images=images)
    live = cam(images, classes_per_image=found["classes"].numpy().tolist())
    largest = max(np.abs(live.heatmaps).max(), 1.0)
    np.testing.assert_allclose(found["heatmaps"] / largest, live.heatmaps / largest, atol=1e-5)
    np.testing.assert_allclose(found["probabilities"], live.probabilities, atol=1e-5)


@pytest.mark.parametrize("given", [{"scales": (1.0, 0.5)}, {"refine": True}, {"relu": False}])
def test_scales_and_refinement_are_exported(given: dict, tmp_path: Path) -> None:
    cam = GradCAM(network(), **given)
    export_model(cam, tmp_path / "1", top=2)
    images = pictures(2, 48, 32)
    found = signatures(tmp_path / "1")["explain"](images=images)
    live = cam(images, classes_per_image=found["classes"].numpy().tolist())
    np.testing.assert_allclose(found["heatmaps"], live.heatmaps, atol=1e-5)
    np.testing.assert_allclose(found["probabilities"], live.probabilities, atol=1e-5)


def test_a_reduced_precision_is_exported(tmp_path: Path) -> None:
    precision = choose_precision("auto")
    if precision == "float32":
        pytest.skip("this machine has no reduced precision")
    cam, images = GradCAM(network(32)), pictures(2, 32, 32)
    card = export_model(cam, tmp_path / "1", top=1, precision=precision)
    found = signatures(tmp_path / "1")["explain"](images=images)
    fast = cam.freeze(precision)(images, class_per_image=found["classes"].numpy()[:, 0].tolist())
    assert card["precision"] == precision
    largest = fast.heatmaps.max()
    np.testing.assert_allclose(found["heatmaps"] / largest, fast.heatmaps / largest, atol=1e-4)


def test_given_classes_and_groups(tmp_path: Path) -> None:
    cam = GradCAM(network(16))
    card = export_model(cam, tmp_path / "1", classes=["dog", (0, 2)], class_names=NAMES)
    images = pictures(2, 16, 16)
    found = signatures(tmp_path / "1")["serving_default"](images=images)
    live = cam(images, classes=[3, (0, 2)])
    assert card["explained"] == ["dog", "ant, cat"]
    assert found["classes"].numpy().tolist() == [[0, 1]] * 2
    assert found["names"].numpy().tolist() == [[b"dog", b"ant, cat"]] * 2
    np.testing.assert_allclose(found["heatmaps"], live.heatmaps, atol=1e-5)


def test_a_sigmoid_unit_has_two_sides(tmp_path: Path) -> None:
    cam = GradCAM(network(16, "sigmoid", 1))
    export_model(cam, tmp_path / "1")
    found = signatures(tmp_path / "1")["explain"](images=pictures(2, 16, 16))
    np.testing.assert_allclose(found["probabilities"].numpy().sum(axis=1), 1, atol=1e-6)
    assert {*found["names"].numpy()[0]} == {b"positive", b"negative"}


def test_a_model_of_two_inputs(tmp_path: Path) -> None:
    image, flag = keras.Input((12, 12, 3), name="image"), keras.Input((2,), name="flag")
    x = keras.layers.Conv2D(4, 3)(image)
    x = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling2D()(x), flag])
    cam = GradCAM(keras.Model([image, flag], keras.layers.Dense(3)(x)))
    card = export_model(cam, tmp_path / "1", top=1)
    inputs = [pictures(2, 12, 12).astype(np.float32), np.ones((2, 2), np.float32)]
    loaded = signatures(tmp_path / "1")
    found = loaded["explain"](image=tf.constant(inputs[0]), flag=tf.constant(inputs[1]))
    live = cam(inputs)
    assert sorted(loaded) == ["explain", "explain_class", "predict", "serving_default"]
    assert card["pictures"] is None
    assert "boxes" not in found
    np.testing.assert_allclose(found["heatmaps"], live.heatmaps, rtol=1e-5)


def encoded(picture: np.ndarray, form: str, mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(picture).convert(mode).save(stream, form)
    return stream.getvalue()


def test_encoded_pictures_of_different_sizes(tmp_path: Path) -> None:
    cam = GradCAM(network(), preprocess=scaled)
    export_model(cam, tmp_path / "1", top=1, size=32)
    smooth = np.linspace(0, 255, 64 * 48 * 3).reshape(64, 48, 3).astype(np.uint8)
    contents = [encoded(smooth, "PNG"), encoded(smooth[:40], "JPEG"), encoded(smooth, "PNG", "L")]
    found = signatures(tmp_path / "1")["explain_bytes"](image_bytes=tf.constant(contents))
    resized = [
        np.asarray(
            PIL.Image.open(io.BytesIO(content))
            .convert("RGB")
            .resize((32, 32), PIL.Image.Resampling.BICUBIC)
        )
        for content in contents
    ]
    live = cam(np.stack(resized), class_per_image=found["classes"].numpy()[:, 0].tolist())
    # Pillow rounds between the two passes of its filter: a grey level or two.
    np.testing.assert_allclose(found["heatmaps"], live.heatmaps, atol=0.02)
    np.testing.assert_allclose(found["probabilities"], live.probabilities, atol=0.005)
    highest = found["boxes"].numpy().max(axis=(1, 2))
    assert (highest <= [[48, 64, 48, 64], [48, 40, 48, 40], [48, 64, 48, 64]]).all()


def header(width: int, height: int) -> bytes:
    """A PNG file of 33 bytes that claims to be large."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + crc


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "net" / "1"
    export_model(GradCAM(network()), folder, size=16, max_pixels=10_000, class_names=NAMES)
    return folder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no picture", "must be JPEG or PNG"),
        (b"", "must be JPEG or PNG"),
        (b"GIF89a" + bytes(50), "must be JPEG or PNG"),
        (header(60_000, 60_000), "1 to 10000 pixels"),
        (header(0, 7), "1 to 10000 pixels"),
        (encoded(pictures(1, 200, 200)[0], "JPEG"), "1 to 10000 pixels"),
        (encoded(pictures(1)[0], "PNG")[:-60], "PNG"),
        (b"\xff\xd8\xff" + bytes(90), "(?i)jpeg"),
        (b"\x89PNG\r\n\x1a\n", "must be JPEG or PNG"),
    ],
)
def test_bad_pictures_are_refused(content: bytes, message: str, exported: Path) -> None:
    explain = signatures(exported)["explain_bytes"]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        explain(image_bytes=tf.constant([content]))
    good = encoded(pictures(1)[0], "PNG")
    assert np.isfinite(explain(image_bytes=tf.constant([good]))["heatmaps"]).all()


@pytest.mark.parametrize("shape", [(65, 4, 4, 3), (0, 4, 4, 3), (1, 101, 100, 3), (1, 0, 4, 3)])
def test_bad_batches_are_refused(shape: tuple[int, ...], exported: Path) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="kgradcam: a (batch|picture) has"):
        signatures(exported)["explain"](images=tf.zeros(shape, tf.uint8))


@pytest.mark.parametrize("indices", [[5], [-1], []])
def test_bad_classes_are_refused(indices: list[int], exported: Path) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="indices from 0 to 4"):
        signatures(exported)["explain_class"](
            images=tf.constant(pictures(1)), class_indices=tf.constant(indices, tf.int32)
        )


def test_nothing_of_this_machine_is_in_an_export(exported: Path) -> None:
    files = [path for path in exported.rglob("*") if path.is_file()]
    content = b"\n".join(path.read_bytes() for path in files)
    package = Path(sys.modules["kgradcam"].__file__).parent
    for path in (Path.home(), Path.cwd(), exported, package, Path(tf.__file__).parent):
        assert os.fsencode(path) not in content, path
    assert b".py" not in content
    assert b"site-packages" not in content
    assert {str(path.relative_to(exported)) for path in files} == {
        *("saved_model.pb", "fingerprint.pb", "card.json", "card.md"),
        *("variables/variables.index", "variables/variables.data-00000-of-00001"),
        "assets.extra/tf_serving_warmup_requests",
    }


def test_the_weights_are_there_once(tmp_path: Path) -> None:
    model = network(16)
    keras.utils.set_random_seed(0)
    wide = keras.Sequential([*model.layers[:2], keras.layers.Conv2D(20_000, 3), *model.layers[2:3]])
    wide.add(keras.layers.Dense(3))
    wide.build((None, 16, 16, 3))
    weights = sum(variable.value.numpy().nbytes for variable in wide.variables)
    export_model(GradCAM(wide), tmp_path / "1")
    size = (tmp_path / "1" / "saved_model.pb").stat().st_size
    assert weights < size < weights + 2**20


def test_the_card_describes_the_export(exported: Path) -> None:
    card = json.loads((exported / "card.json").read_text())
    text = (exported / "card.md").read_text()
    assert card["classes"] == NAMES
    assert card["method"] == "grad_cam"
    assert card["pictures"] == {"channels": 3, "size": [16, 16], "max_pixels": 10_000}
    assert card["signatures"]["explain"]["outputs"]["boxes"] == "float32 [?, ?, 10, 4]"
    assert card["signatures"]["explain_bytes"]["inputs"] == {"image_bytes": "string [?]"}
    assert len(card["model"]["weights"]) == 16
    assert "logits, before any softmax or sigmoid" in text
    assert "| output | heatmaps | float32" in text


def test_mistakes_are_reported(exported: Path, tmp_path: Path) -> None:
    cam = GradCAM(network(16))
    for arguments, message in (
        ({"folder": exported}, "already there"),
        ({"top": 0}, "top must be a whole number"),
        ({"size": 24}, "size=24 is not the size of this model, 16x16"),
        ({"class_names": ["a"]}, "a name for each of the 5 classes. Received: 1"),
        ({"classes": [7]}, "Class indices of this model are 0 to 4"),
        ({"classes": []}, "at least one"),
        ({"threshold": 2.0}, r"threshold must be in \[0, 1\]"),
    ):
        with pytest.raises(UserError, match=message):
            export_model(cam, **{"folder": tmp_path / "new", **arguments})
    with pytest.raises(UserError, match="not a frozen one"):
        export_model(cam.freeze(), tmp_path / "new")
    assert not list(tmp_path.iterdir())
