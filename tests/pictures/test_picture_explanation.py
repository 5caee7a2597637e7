"""From a picture to a picture: `kgradcam.explain`, with values computed by hand."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import kgradcam
from kgradcam.errors import UserError
from kgradcam.models import load_network, model_names
from kgradcam.models.preprocessing import find_preprocessing, preprocessing_of
from kgradcam.pictures import picture_explanation

KERNEL = np.array([[1.0, -1.0], [0.0, 2.0], [0.0, 0.0]], np.float32)


def by_hand(units: int = 2, activation: str = "softmax", rescaled: bool = True) -> keras.Model:
    """The mean colour of a 4 x 4 picture in [0, 1], times `KERNEL`: heatmaps are simple products.

    The layer is a 1 x 1 convolution that copies the colours, so the weight of channel k for class
    c is KERNEL[k, c] / 16, and the heatmap is the ReLU of the weighted sum of colours.
    """
    image = keras.Input((4, 4, 3))
    x = keras.layers.Rescaling(1 / 255)(image) if rescaled else image
    x = keras.layers.Conv2D(3, 1, use_bias=False, name="colours")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(units, activation, use_bias=False)(x)
    model = keras.Model(image, x)
    model.get_layer("colours").set_weights([np.eye(3, dtype=np.float32)[None, None]])
    model.layers[-1].set_weights([KERNEL[:, :units]])
    return model


def half_red() -> np.ndarray:
    """8 x 8 pixels: red on the left, green on the right."""
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:, :4, 0] = 255
    picture[:, 4:, 1] = 255
    return picture


PICTURE = half_red()
# Antialiased halves of a sharp edge overshoot; the four columns are red, red, green, green.
COLUMNS = np.asarray(PIL.Image.fromarray(PICTURE).resize((4, 4), PIL.Image.Resampling.BICUBIC))


def test_values_by_hand() -> None:
    e = kgradcam.explain(PICTURE, by_hand(), [0, 1], class_names=["red", "green"])
    colours = COLUMNS / np.float32(255)
    expected = np.maximum(np.einsum("hwk,kc->chw", colours, KERNEL) / 16, 0)
    np.testing.assert_allclose(e.heatmaps[0], expected, rtol=1e-5)
    logits = colours.mean((0, 1)) @ KERNEL
    np.testing.assert_allclose(e.scores[0], logits, rtol=1e-5)
    odds = np.exp(logits) / np.exp(logits).sum()
    assert e.label(0, 1) == f"green  {odds[1]:.1%}"
    assert e.classes == [[0, 1]]
    # On the whole picture: heat of red is 1 at the left border, 0 at the right one.
    assert e.heatmap(0, 0).shape == (8, 8)
    assert e.heatmap(0, 0)[:, 0].tolist() == [1.0] * 8
    assert e.heatmap(0, 0)[:, 7].tolist() == [0.0] * 8
    np.testing.assert_array_equal(
        e.overlay(0, 1), kgradcam.overlay(PICTURE, kgradcam.normalize(expected[1], (8, 8)))
    )
    boxes, scores = e.boxes(0, 1)
    same, same_scores = kgradcam.find_boxes(expected[1], (8, 8), odds[1])
    np.testing.assert_allclose(boxes, same, atol=1e-4)
    np.testing.assert_allclose(scores, same_scores, rtol=1e-5)
    assert boxes[0][2] == 8


@pytest.mark.parametrize("kind", ["path", "text", "pil", "array", "unit", "tensor", "grey"])
def test_every_kind_of_picture(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "half red.png"
    PIL.Image.fromarray(PICTURE).save(path)
    grey = PICTURE[..., 0]
    image: Any = {
        "path": path,
        "text": str(path),
        "pil": PIL.Image.fromarray(PICTURE),
        "array": PICTURE[np.newaxis],
        "unit": PICTURE / 255,
        "tensor": tf.constant(PICTURE, tf.float32),
        "grey": PIL.Image.fromarray(grey),
    }[kind]
    expected = np.repeat(grey[..., np.newaxis], 3, 2) if kind == "grey" else PICTURE
    model = by_hand()
    several = kgradcam.explain([image, [PICTURE]], model, 0)
    np.testing.assert_array_equal(several.pictures[0], expected)
    np.testing.assert_array_equal(several.pictures[1], PICTURE)
    one = kgradcam.explain(image, model, 0)
    np.testing.assert_array_equal(one.heatmaps[0], several.heatmaps[0])
    assert one.titles == ("half red.png",) if kind in ("path", "text") else ("image 0",)


def test_a_camera_picture_is_turned_upright(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise to display
    picture = PICTURE[:4]
    PIL.Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    with PIL.Image.open(tmp_path / "a.png") as image:
        e = kgradcam.explain([tmp_path / "a.png", image], by_hand(), 0)
    for each in e.pictures:
        np.testing.assert_array_equal(each, np.rot90(picture, -1))


def test_many_pictures_are_batched_with_one_trace() -> None:
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (37, 4, 4, 3), dtype=np.uint8)
    model = by_hand()
    e = kgradcam.explain(pictures, model)
    direct = kgradcam.GradCAM(model)(pictures)
    np.testing.assert_allclose(e.heatmaps, direct.heatmaps, rtol=1e-5)
    assert e.classes == direct.classes
    assert len(e.pictures) == 37


def test_a_second_call_traces_nothing_and_follows_the_weights() -> None:
    model = by_hand()
    first = kgradcam.explain(PICTURE, model, 0)
    traces: list[int] = []
    layer = model.get_layer("colours")
    layer.call = lambda *args, **kwargs: traces.append(1)  # would fail a new trace
    layer.set_weights([2 * np.eye(3, dtype=np.float32)[None, None]])
    second = kgradcam.explain(PICTURE, model, 0)
    assert not traces
    np.testing.assert_allclose(second.heatmaps, 2 * first.heatmaps, rtol=1e-5)


def test_it_draws_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_explanation, "_SHOWN", 2)
    e = kgradcam.explain([PICTURE] * 3, by_hand(), 0)
    e.save(tmp_path / "all.png")
    with (
        PIL.Image.open(tmp_path / "all.png") as saved,
        PIL.Image.open(io.BytesIO(e._repr_png_())) as displayed,
    ):
        # A notebook shows the first rows only: 2 of the 3.
        assert saved.width == displayed.width
        assert 1.4 < saved.height / displayed.height < 1.5
        pixels = np.asarray(displayed.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
    shown: list[Any] = []
    monkeypatch.setattr(PIL.Image.Image, "show", lambda image: shown.append(image.size))
    e.show()
    assert shown == [displayed.size]
    cells: list[Any] = []
    notebook = SimpleNamespace(get_ipython=object, display=SimpleNamespace(display=cells.append))
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    e.show()
    assert cells == [e]
    assert len(shown) == 1


def test_both_classes_of_one_sigmoid_unit_have_names() -> None:
    model = by_hand(1, "sigmoid")
    e = kgradcam.explain(PICTURE, model, ["dog", "cat", 0], class_names=["cat", "dog"])
    assert e.classes == [["dog", "cat", 0]]
    probability = 1 / (1 + np.exp(-(COLUMNS[..., 0] / 255).mean()))
    assert e.label(0, 0) == f"dog  {probability:.1%}"
    assert e.label(0, 1) == f"cat  {1 - probability:.1%}"
    assert e.label(0, 2) == e.label(0, 0)
    assert e.heatmaps[0, 1].max() == 0  # only red counts, and it is evidence for a dog
    absent = f"{1 - probability:.1%}"
    assert kgradcam.explain(PICTURE, model, "negative").label() == f"negative  {absent}"
    e = kgradcam.explain(PICTURE, model, [0, "not dog"], class_names=["dog"])
    assert (e.label(0, 0), e.label(0, 1)) == (f"dog  {probability:.1%}", f"not dog  {absent}")


def test_a_score_has_no_class() -> None:
    e = kgradcam.explain(PICTURE, by_hand(activation="linear"), score=lambda y: y[:, 0])
    assert e.label() == f"score  {(COLUMNS[..., 0] / 255).mean():.4g}"
    assert e.boxes()[0].shape == (len(e.boxes()[1]), 4)


def test_a_grey_model_gets_grey_pictures() -> None:
    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(2, 3)(image)
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.GlobalMaxPooling2D()(x)))
    e = kgradcam.explain(PICTURE, model, preprocess="none")
    grey = np.asarray(PIL.Image.fromarray(PICTURE).convert("L"))[None, ..., None]
    np.testing.assert_array_equal(e.heatmaps, kgradcam.GradCAM(model)(grey).heatmaps)


def test_a_task_has_a_preprocessor_and_its_size() -> None:
    """As a KerasHub task has: a callable with an image converter."""

    class Preprocessor:
        image_converter = SimpleNamespace(image_size=(4, 4))

        def __call__(self, images: Any) -> Any:
            return tf.cast(images, tf.float32) / 255

    task = by_hand(rescaled=False)
    task.preprocessor = Preprocessor()
    task.preprocess_samples = None  # what marks a task
    e = kgradcam.explain(PICTURE, task, 0)
    np.testing.assert_allclose(
        e.heatmaps, kgradcam.explain(PICTURE, by_hand(), 0).heatmaps, rtol=1e-6
    )
    assert e.input_size == (4, 4)


@pytest.mark.parametrize(
    ("constructor", "name"),
    [
        ("MobileNet", "mobilenet"),
        ("MobileNetV3Small", "mobilenetv3small"),
        ("VGG16", "vgg16"),
    ],
)
def test_networks_of_keras_applications_are_recognized(constructor: str, name: str) -> None:
    build = getattr(keras.applications, constructor)
    model = build(weights=None, include_top=False, pooling="avg", input_shape=(64, 64, 3))
    found = preprocessing_of(model)
    pixels = np.linspace(0, 255, 2 * 2 * 3, dtype=np.float32).reshape(1, 2, 2, 3)
    np.testing.assert_array_equal(found(pixels.copy()), find_preprocessing(name)(pixels.copy()))


def test_the_names_that_keras_gives_to_networks() -> None:
    for own, name in (
        ("mobilenet_1.00_224", "mobilenet"),
        ("mobilenetv2_1.40_224", "mobilenetv2"),
        ("inception_resnet_v2", "inceptionresnetv2"),
        ("NASNet", "nasnetmobile"),
        ("resnet50v2", "resnet50v2"),
        ("resnet50_1", "resnet50"),
        ("efficientnetv2-b3", "efficientnetv2b3"),
        ("efficientnet-lite0", "efficientnet-lite0"),
    ):
        found = preprocessing_of(SimpleNamespace(name=own))
        assert (
            found(np.full(3, 200.0)).tolist()
            == find_preprocessing(name)(np.full(3, 200.0)).tolist()
        )
    assert preprocessing_of(SimpleNamespace(name="resnet50_of_mine")) is None
    assert preprocessing_of(SimpleNamespace(name="functional")) is None
    assert set(model_names()) >= {"resnet50"}
    assert load_network("mobilenet", None)[0].name == "mobilenet_1.00_224"


def test_mistakes(tmp_path: Path) -> None:
    model = by_hand(rescaled=False)
    with pytest.raises(UserError, match=r"unknown: it has no Rescaling.* Give preprocess="):
        kgradcam.explain(PICTURE, model)
    with pytest.raises(UserError, match=r"model must be a Keras model.* Received: int"):
        kgradcam.explain(PICTURE, 42)  # type: ignore[arg-type]
    for images in (tf.data.Dataset.from_tensors(PICTURE), None, {"image": PICTURE}):
        kind = type(images).__name__
        with pytest.raises(UserError, match=f"images must be a path.* Received: {kind}"):
            kgradcam.explain(images, model, preprocess="none")
    with pytest.raises(UserError, match="Received the address 'https://example.com/cat.jpg'"):
        kgradcam.explain("https://example.com/cat.jpg", model, preprocess="none")
    series = keras.Sequential(
        [keras.Input((4, 4, 3)), keras.layers.Reshape((16, 3)), keras.layers.Conv1D(2, 2)]
    )
    series.add(keras.layers.GlobalAveragePooling1D())
    with pytest.raises(UserError, match=r"a height and a width.* 15 places of layer='conv1d"):
        kgradcam.explain(PICTURE, series, preprocess="none")
    task = by_hand(rescaled=False)
    task.preprocessor = None
    with pytest.raises(UserError, match="unknown: it has no preprocessor, and no name"):
        kgradcam.explain(PICTURE, task)
    with pytest.raises(UserError, match="images must hold a picture"):
        kgradcam.explain([], model, preprocess="none")
    with pytest.raises(UserError, match=r"No image .*missing\.jpg"):
        kgradcam.explain(tmp_path / "missing.jpg", model, preprocess="none")
    with pytest.raises(UserError, match=r"Received: 'rad'.*'red'"):
        kgradcam.explain(PICTURE, by_hand(), "rad", class_names=["red", "green"])
    with pytest.raises(UserError, match=r"image must be in \[0, 1\] or \[0, 255\]"):
        kgradcam.explain(PICTURE - 300.0, model, preprocess="none")
    with pytest.raises(UserError, match=r"PIL image of mode F"):
        kgradcam.explain(PIL.Image.new("F", (4, 4)), model, preprocess="none")
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(UserError, match=r"text\.jpg is not a readable image"):
        kgradcam.explain(str(tmp_path / "text.jpg"), model, preprocess="none")
