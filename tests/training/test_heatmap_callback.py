"""Heatmaps during `model.fit`: values by hand, TensorBoard's own reader, an untouched training."""

import io
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from kgradcam import GradCAM, HeatmapCallback, normalize, overlay
from kgradcam.errors import UserError
from kgradcam.training.heatmap_callback import _visible

IMAGES = np.zeros((2, 4, 6, 3), np.float32)
IMAGES[:, :, :3, 0] = 1  # channel 0 is bright on the left
IMAGES[:, :, 3:, 1] = 1  # channel 1 on the right
LEFT, NONE = np.array([[0, 0, 3, 4]]), np.zeros((0, 4))


def two_halves() -> keras.Model:
    """One score: a weighted sum of the means of the channels, which are the feature maps."""
    image = keras.Input((4, 6, 3))
    maps = keras.layers.Activation("linear", name="maps")(image)
    mean = keras.layers.GlobalAveragePooling2D()(maps)
    model = keras.Model(image, keras.layers.Dense(1, use_bias=False)(mean))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


class Weights(keras.callbacks.Callback):
    """Sets the weights after each epoch."""

    def __init__(self, *after: list[int]) -> None:
        super().__init__()
        self.after = after

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.set_weights([np.array(self.after[epoch], np.float32)[:, None]])


def test_energy_and_movement_by_hand(tmp_path: Path) -> None:
    """The heat lies left, then right, then on both sides."""
    model = two_halves()
    model.set_weights([np.array([[1.0], [0.0], [0.0]], np.float32)])
    heatmaps = HeatmapCallback(
        IMAGES, tmp_path, classes=[0, 0], boxes=[LEFT, NONE], layer="maps", every=1
    )
    weights = Weights([0, 2, 0], [2, 1, 0], [2, 1, 0])
    model.fit(IMAGES, np.zeros((2, 1)), epochs=3, verbose=0, callbacks=[weights, heatmaps])
    found = [{k: v for k, v in row.items() if k != "seconds"} for row in heatmaps.history]
    assert found == [
        {"epoch": 0, "energy": 1.0},
        {"epoch": 1, "movement": 1.0, "energy": 0.0},
        # Heat 2 and 1 is stretched to 1 and 0: all on the left again.
        {"epoch": 2, "movement": 1.0, "energy": 1.0},
        {"epoch": 3, "movement": 0.0, "energy": 1.0},
    ]


def test_tensorboard_reads_the_log(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    model = three_colours()
    images = np.random.default_rng(0).uniform(0, 255, (3, 8, 10, 3)).astype(np.float32)
    heatmaps = HeatmapCallback(
        images, tmp_path, classes=[0, 1, 1], boxes=[LEFT] * 3, every=2, limit=2
    )
    model.fit(images, np.array([0, 1, 1]), epochs=4, verbose=0, callbacks=[heatmaps])
    log = reader.EventAccumulator(str(tmp_path / "heatmaps"))
    log.Reload()
    assert log.PluginTagToContent("images").keys() == {"heatmaps"}
    assert log.PluginTagToContent("scalars").keys() == {"energy", "movement"}
    for tag, epochs in (("energy", [0, 2, 4]), ("movement", [2, 4])):
        events = log.Tensors(tag)
        assert [event.step for event in events] == epochs
        values = [float(tf.make_ndarray(event.tensor_proto)) for event in events]
        expected = [row[tag] for row in heatmaps.history if tag in row]
        np.testing.assert_allclose(values, expected, rtol=1e-6)
    last = log.Tensors("heatmaps")[-1]
    assert last.step == 4
    width, height, *encoded = tf.make_ndarray(last.tensor_proto)
    assert (width, height, len(encoded)) == (b"10", b"8", 2)
    e = GradCAM(model)(images, class_per_image=[0, 1, 1])
    for i, content in enumerate(encoded):
        with PIL.Image.open(io.BytesIO(content)) as picture:
            expected = overlay(images[i], normalize(e.heatmaps[i, 0], (10, 8), e.extent))
            np.testing.assert_array_equal(np.asarray(picture), expected)


def three_colours(kind: str = "functional") -> keras.Model:
    """A small network with all that draws random numbers or keeps a state."""
    layers = [
        keras.layers.RandomFlip(),
        keras.layers.Conv2D(4, 3, use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.Dropout(0.3),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(2, dtype="float32"),
    ]

    class Subclassed(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.parts = layers

        def call(self, inputs: Any, training: bool = False) -> Any:
            x = inputs
            for layer in self.parts:
                random = isinstance(layer, keras.layers.RandomFlip | keras.layers.Dropout)
                normalized = isinstance(layer, keras.layers.BatchNormalization)
                x = layer(x, training=training) if random or normalized else layer(x)
            return x

    model = Subclassed() if kind == "subclassed" else keras.Sequential([*layers])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def trained(kind: str, callbacks: list[Any]) -> tuple[list[np.ndarray], dict[str, Any]]:
    keras.utils.set_random_seed(3)
    images = np.random.default_rng(1).uniform(0, 255, (12, 8, 10, 3)).astype(np.float32)
    if kind == "mixed":
        keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        strategy = tf.distribute.get_strategy()
        if kind == "mirrored":
            strategy = tf.distribute.MirroredStrategy(["CPU:0"])
        with strategy.scope():
            model = three_colours(kind)
        labels = np.arange(12) % 2
        history = model.fit(
            images, labels, batch_size=4, epochs=3, verbose=0, callbacks=callbacks
        ).history
    finally:
        keras.mixed_precision.set_global_policy("float32")
    state = [*model.variables, *model.optimizer.variables]
    return [np.asarray(variable) for variable in state], history


@pytest.mark.parametrize("kind", ["functional", "subclassed", "mixed", "mirrored"])
def test_a_training_is_the_same_bit_for_bit(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain, history = trained(kind, [])
    images = np.random.default_rng(2).uniform(-1, 1, (4, 8, 10, 3))
    heatmaps = HeatmapCallback(images, tmp_path)
    with caplog.at_level(logging.INFO, "kgradcam.training"):
        logged, same_history = trained(kind, [heatmaps])
    assert history == same_history
    assert len(plain) == len(logged) > 10
    for before, after in zip(plain, logged, strict=True):
        np.testing.assert_array_equal(before, after)
    assert [row["epoch"] for row in heatmaps.history] == [0, 1, 2, 3]
    assert heatmaps._explainer.trace_count == 1  # one compilation for all epochs
    assert sum("Heatmaps of 4 pictures" in each.message for each in caplog.records) == 4


def test_mistakes(tmp_path: Path) -> None:
    images = np.zeros((4, 8, 8, 3))
    for wrong, received in (
        (images[0], r"shape \(8, 8, 3\)"),
        ([images[0], images[0, :4]], "pictures of several sizes"),
        (["a.jpg"], "a list"),
        (tf.data.Dataset.from_tensors(images), r"a _TensorDataset.*next\(iter"),
    ):
        with pytest.raises(UserError, match=f"at least one picture.*Received: {received}"):
            HeatmapCallback(wrong, tmp_path)
    with pytest.raises(UserError, match=r"every=0"):
        HeatmapCallback(images, tmp_path, every=0)
    with pytest.raises(UserError, match=r"classes must have an entry for each of the 4 images"):
        HeatmapCallback(images, tmp_path, classes=[1])
    with pytest.raises(UserError, match=r"boxes must have an entry for each of the 4 images"):
        HeatmapCallback(images, tmp_path, boxes=[LEFT])
    right = [0, 0, 8.5, 8]
    for box in ([4, 4, 20, 20], [6, 4, 2, 8], [2, 2, np.nan, 4]):
        with pytest.raises(UserError, match=r"boxes\[1\] must be xyxy in pixels .* of 8x8"):
            HeatmapCallback(images, tmp_path, boxes=[[], [right, box], [], []])
    with pytest.raises(UserError, match=r"Received: \[0.1, 0.1, 0.5, 0.5\].* fractions"):
        HeatmapCallback(images, tmp_path, boxes=[[right], [[0.1, 0.1, 0.5, 0.5]], [], []])
    with pytest.raises(UserError, match=r"boxes\[0\] must be \[boxes, 4\].*shape \(4,\)"):
        HeatmapCallback(images, tmp_path, boxes=[[0, 0, 4, 4]] * 4)
    (tmp_path / "file").write_text("")
    for folder, message in (
        ("logs", r"the shape \(None, 4, 6, 3\)\. Received: \(4, 8, 8, 3\)\. Resize them"),
        ("file", r"log_dir must be a folder that can be written: .*file is not a directory$"),
    ):
        model, heatmaps = two_halves(), HeatmapCallback(images, tmp_path / folder, layer="maps")
        with pytest.raises(UserError, match=message):
            model.fit(IMAGES, np.zeros((2, 1)), verbose=0, callbacks=[heatmaps])


def test_pictures_that_were_preprocessed_are_stretched_and_other_channels_averaged() -> None:
    pixels = np.array([[-1.0, 1.0]])[..., None] * np.ones(3)
    np.testing.assert_array_equal(_visible(pixels)[0, :, 0], [0, 1])
    np.testing.assert_array_equal(_visible(pixels + 2), pixels + 2)
    np.testing.assert_array_equal(_visible(np.full((2, 2, 3), -1.0)), np.zeros((2, 2, 3)))
    two = np.array([[[0.0, 0.5], [1.0, 0.0]]])
    np.testing.assert_array_equal(_visible(two), [[0.25, 0.5]])


PROGRAM = """
import sys
import keras, numpy as np, tensorflow as tf
from kgradcam import HeatmapCallback

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
keras.utils.set_random_seed(0)
images = np.random.default_rng(0).uniform(size=(8, 8, 8, 3)).astype(np.float32)
found = []
for _ in range(2):
    keras.utils.set_random_seed(0)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = keras.Sequential([
            keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)
        ])
        model.compile("sgd", "mse")
    callbacks = [HeatmapCallback(images[:3], sys.argv[1])] if found else []
    model.fit(images, np.eye(2)[[0, 1] * 4], batch_size=4, verbose=0, callbacks=callbacks)
    found.append(model.get_weights())
assert [row["epoch"] for row in callbacks[0].history] == [0, 1]
assert all((a == b).all() for a, b in zip(*found, strict=True))
"""


@pytest.mark.slow
def test_two_devices_train_the_same(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], check=True)
