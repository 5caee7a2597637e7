"""Several batches in one call, classes by name, and arguments that are mistakes."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import pictures

from kgradcam.errors import UserError
from kgradcam.heatmaps.explainer import Explanation
from kgradcam.heatmaps.gradcam import GradCAM

layers = keras.layers


def network(classes: int = 3, activation: str | None = None) -> keras.Model:
    keras.utils.set_random_seed(0)
    pooled = layers.GlobalAveragePooling2D()
    conv = layers.Conv2D(4, 3, activation="relu", name="maps")
    head = layers.Dense(classes, activation, name="head")
    return keras.Sequential([keras.Input((None, None, 3)), conv, pooled, head])


def assert_same(found: Explanation, expected: Explanation) -> None:
    np.testing.assert_allclose(found.heatmaps, expected.heatmaps, atol=1e-6)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
    assert found.classes == expected.classes


@pytest.fixture(scope="module")
def cam() -> GradCAM:
    return GradCAM(network())


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"classes": [2, [0, 1]]},
        {"class_per_image": [0, 1, 2, 1, 0]},
        {"classes_per_image": np.array([[0, 1], [1, 2], [2, 0], [0, 1], [1, 0]])},
    ],
)
def test_batch_size_and_datasets_change_nothing(cam: GradCAM, chosen: Any, tmp_path: Path) -> None:
    images = pictures(5).astype(np.float32)
    expected = cam(images, **chosen)
    assert_same(cam(images, batch_size=2, **chosen), expected)
    assert_same(cam(list(images), batch_size=2, **chosen), expected)
    np.save(tmp_path / "images.npy", images)
    assert_same(
        cam(np.load(tmp_path / "images.npy", mmap_mode="r"), batch_size=3, **chosen), expected
    )
    labelled = tf.data.Dataset.from_tensor_slices((images, np.arange(5))).batch(2)
    assert_same(cam(labelled, **chosen), expected)
    scores, probabilities = cam.predict(labelled, **chosen)
    np.testing.assert_allclose(scores, expected.scores, atol=1e-6)
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-6)


def test_memory_holds_one_batch_at_a_time(cam: GradCAM) -> None:
    class Counted:
        """An array that records the lengths of its parts."""

        def __init__(self) -> None:
            self.images, self.read = pictures(7).astype(np.float32), []

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, place: Any) -> Any:
            part = self.images[place]
            self.read.append(len(part))
            return part

    images = Counted()
    assert len(cam(images, batch_size=3, classes=[0]).heatmaps) == 7
    assert images.read == [3, 3, 1]


PICTURES = np.random.default_rng(1).random((4, 12, 12, 3)).astype(np.float32)


class Numbered(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return PICTURES[2 * index : 2 * index + 2], np.zeros(2)


def test_a_py_dataset_and_inputs_by_name(cam: GradCAM) -> None:
    expected = cam(PICTURES, classes=[1])
    assert_same(cam(Numbered(), classes=[1]), expected)
    image, shift = keras.Input((12, 12, 3), name="image"), keras.Input((3,), name="shift")
    model = keras.Model({"image": image, "shift": shift}, network()(image) + shift)
    batch = {"image": PICTURES, "shift": np.eye(4, 3)}
    both = GradCAM(model)
    assert_same(both(batch, classes=[0], batch_size=3), both(batch, classes=[0]))


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (pictures(), {"batch_size": 0}, "positive integer"),
        (tf.data.Dataset.from_tensors(pictures()), {"batch_size": 2}, "batches of its own"),
        (pictures(), {"batch_size": 1, "class_per_image": [0]}, "each of the 2 images"),
        (pictures(), {"batch_size": 1, "class_per_image": [0, 1, 2]}, "2 images. Received: 3"),
        (pictures(), {"classes": []}, "at least one class"),
        (pictures(), {"classes_per_image": np.eye(3)[[0, 2]]}, "an index"),
        (pictures(), {"class_per_image": np.eye(3)[[0, 2]]}, "np.argmax"),
        (pictures(), {"class_per_image": np.eye(3, dtype=int)[[0, 2]]}, "np.argmax"),
        (pictures(2, 12, 12, 4), {}, "must have the shape"),
        (pictures()[0], {}, "needs a batch axis"),
    ],
)
def test_mistakes_have_advice(cam: GradCAM, images: Any, options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cam(images, **options)


def test_images_of_several_sizes_make_no_array(cam: GradCAM) -> None:
    sizes = tf.data.Dataset.from_generator(
        lambda: iter([pictures(1, 8, 8, 3), pictures(1, 9, 9, 3)]),
        output_signature=tf.TensorSpec([None, None, None, 3], tf.float32),
    )
    with pytest.raises(UserError, match="one by one"):
        cam(sizes, classes=[0])


def test_one_hot_rows_of_two_classes() -> None:
    cam = GradCAM(network(2))
    for rows in (np.eye(2, dtype=int), np.eye(2), [[0, 1], [1, 0]]):
        with pytest.raises(UserError, match=r"np\.argmax"):
            cam(pictures(), class_per_image=rows)


def test_classes_by_name() -> None:
    model, images = network(), pictures()
    cam = GradCAM(model, class_names=["cat", "dog", "goat"])
    by_index = GradCAM(model)(images, classes=[1, [0, 2]])
    by_name = cam(images, classes=["dog", ["cat", "goat"]])
    np.testing.assert_array_equal(by_name.heatmaps, by_index.heatmaps)
    top = model(images).numpy().argmax(axis=1)
    assert cam(images).classes == [[["cat", "dog", "goat"][i]] for i in top]
    assert cam.freeze()(images, classes=["dog"]).classes == [["dog"], ["dog"]]
    with pytest.raises(UserError, match="Did you mean 'goat'"):
        cam(images, classes=["goatt"])
    with pytest.raises(UserError, match="each of the 3 classes. Received: 2"):
        GradCAM(model, class_names=["cat", "dog"])(images)


def test_two_names_of_one_sigmoid_unit() -> None:
    model, images = network(1, "sigmoid"), pictures()
    cam = GradCAM(model, class_names=["cat", "dog"])
    found = cam(images, classes=["dog", "cat"])
    expected = model(images).numpy()
    np.testing.assert_allclose(found.probabilities, np.hstack([expected, 1 - expected]), atol=1e-6)
    assert cam(images).classes == [["dog" if each > 0.5 else "cat"] for each in expected[:, 0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": []}, "at least one layer"),
        ({"scales": 1.0}, "positive factors"),
        ({"reshape": (4, 4)}, "reshape must be a function"),
        ({"preprocess": "resnet"}, "preprocess must be a function"),
        ({"score": lambda outputs: None}, "Received: None"),
        ({"output": "no such name"}, "has one output"),
    ],
)
def test_mistaken_arguments(options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        GradCAM(network(), **options)
