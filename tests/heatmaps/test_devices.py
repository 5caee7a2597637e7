"""Two devices share each batch: the same heatmaps, each from its own weights, in the same order."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from kgradcam.devices import all_gpus

# Devices must be told before TensorFlow starts, so a process of its own explains, and prints what
# it found. It compares with the same model on one device.
PROGRAM = """
import json, sys
from pathlib import Path
import keras
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
tf.debugging.set_log_device_placement(sys.argv[1] == "where")
from kgradcam.runs import detection, explaining
from kgradcam.heatmaps.gradcam import GradCAM
from kgradcam.heatmaps.methods import METHODS

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
random = np.random.default_rng(0)
keras.utils.set_random_seed(0)

def build():
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", name="first")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.Conv2D(8, 3, name="last", activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))

one = build()
with strategy.scope():
    two = build()
two.set_weights(one.get_weights())
found = {}

def images(count):
    return random.normal(size=(count, 12, 12, 3)).astype(np.float32)

def differ(expected, got):
    assert expected.shape == got.shape and np.abs(expected).max() > 1e-6
    return float(np.abs(got - expected).max() / np.abs(expected).max())

def compare(name, cams, *arguments, **classes):
    expected, got = (cam(*arguments, **classes) for cam in cams)
    assert expected.classes == got.classes
    pairs = [(expected.heatmaps, got.heatmaps), (expected.scores, got.scores)]
    found[name] = max(differ(*pair) for pair in pairs)

if sys.argv[1] == "where":
    live = GradCAM(two, "first")
    for cam in (live, live.freeze("auto")):
        print("log of", cam.precision, file=sys.stderr, flush=True)
        cam(images(4), classes=[0, 1])
    sys.exit()

if sys.argv[1] == "detect":
    path, root, out = sys.argv[2:]
    keras.Sequential([
        keras.Input((None, None, 3)),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3),
    ]).save(path)
    configuration = detection.Configuration(
        root, classes=("cat=0", "dog=2"), split="all", model=path, image_size=24, batch_size=3,
    )
    runs = [detection.detect(configuration, Path(out) / "one")]
    explaining.all_gpus = lambda: strategy
    assert explaining.load_model(configuration).model.distribute_strategy is strategy
    runs.append(detection.detect(configuration, Path(out) / "two"))
    pairs = list(zip(*(run.heatmaps() for run in runs), strict=True))
    assert len(pairs) >= 2
    print(max(differ(a.heatmap, b.heatmap) for a, b in pairs))
    sys.exit()

cams = GradCAM(one), GradCAM(two)
found["traces"] = [[cam.trace_count for cam in cams]]
for count in (1, 2, 3, 5):
    compare(f"top class of {count}", cams, images(count))
    compare(f"classes of {count}", cams, images(count), classes=[0, [1, 2]])
    each = [i % 3 for i in range(count)]
    compare(f"class of each of {count}", cams, images(count), class_per_image=each)
found["traces"].append([cam.trace_count for cam in cams])
frozen = [cam.freeze() for cam in cams]
compare("frozen", frozen, images(5), classes=[0, [1, 2]])
found["traces"].append([cam.trace_count for cam in frozen])
for model in (one, two):
    model.get_layer("first").kernel.assign(model.get_layer("first").kernel * 2)
compare("new weights", cams, images(5), classes=[0, 1])

for name, method in METHODS.items():
    compare(name, (method(one), method(two)), images(3), classes=[0, [1, 2]])
for name, options in {
    "scales": {"scales": (1.0, 0.5), "refine": True, "layer": "last"},
    "layers": {"layer": ["first", "last"]},
    "XLA": {"jit_compile": True},
    "score": {"score": lambda outputs: outputs[:, 0] ** 2},
}.items():
    classes = {} if name == "score" else {"classes": [0, 1]}
    compare(name, (GradCAM(one, **options), GradCAM(two, **options)), images(3), **classes)
for name, options in {"precision": {}, "XLA and precision": {"jit_compile": True}}.items():
    reduced = [GradCAM(model, **options).freeze("auto") for model in (one, two)]
    compare(name, reduced, images(3), classes=[0, 1])
batch = images(3)
expected, got = (cam.predict(batch, classes=[0, 1]) for cam in cams)
found["predict"] = differ(expected[0], got[0])

class Plain(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv = keras.layers.Conv2D(4, 3)
        self.head = keras.layers.Dense(2)

    def call(self, images):
        return self.head(tf.reduce_mean(self.conv(images), axis=[1, 2]))

with strategy.scope():
    plain = Plain()
GradCAM(plain)(batch, classes=[0])
found["copies of a model built by its first call"] = len(plain.conv.kernel.value.values)

# The second device has other weights now; the first three images of five are the first one's.
batch = images(5)
before = GradCAM(two)(batch, classes=[0]).heatmaps
copy = two.get_layer("last").kernel.value.values[1]
copy.assign(-copy)
after = GradCAM(two)(batch, classes=[0]).heatmaps
found["changed"] = [bool(np.any(a != b)) for a, b in zip(before, after)]
print(json.dumps(found))
"""


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return json.loads(run("compare").stdout.splitlines()[-1])


def test_two_devices_find_what_one_does(found: dict[str, Any]) -> None:
    differences = {name: value for name, value in found.items() if isinstance(value, float)}
    assert len(differences) == 32
    assert max(differences.values()) < 2e-6, differences


def test_it_is_traced_once_for_each_device(found: dict[str, Any]) -> None:
    # Freezing traces once for both.
    assert found["traces"] == [[1, 2], [1, 2], [1, 1]]


def test_each_device_reads_its_own_weights(found: dict[str, Any]) -> None:
    assert found["changed"] == [False, False, False, True, True]
    assert found["copies of a model built by its first call"] == 2


def test_each_device_computes_all_of_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    for log in run("where").stderr.split("log of ")[1:]:
        placed = re.findall(
            r"\] (replica_1/)?(?:Stateful)?PartitionedCall/\S+: \((\w+)\): \S+(CPU:\d)", log
        )
        for operation, least in {"Conv2D": 2, "Einsum": 2, "Conv2DBackpropInput": 1}.items():
            for replica, device in (("", "CPU:0"), ("replica_1/", "CPU:1")):
                where = [each[2] for each in placed if each[:2] == (replica, operation)]
                assert len(where) >= least
                assert set(where) == {device}


def test_detect_takes_all_gpus(pets, tmp_path: Path) -> None:
    done = run("detect", tmp_path / "model.keras", pets.root, tmp_path)
    assert float(done.stdout.splitlines()[-1]) < 2e-6


def test_one_device_needs_no_strategy(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus: list[str] = ["GPU:0"]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: gpus)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda: "all")
    assert all_gpus() is tf.distribute.get_strategy()
    gpus.append("GPU:1")
    assert all_gpus() == "all"
