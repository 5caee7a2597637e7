"""Heatmaps of several scales, and refined ones, against the same computed step by step in NumPy."""

import cv2
import keras
import numpy as np
import pytest

from kgradcam.errors import UserError
from kgradcam.heatmaps.gradcam import GradCAM


def strided_model() -> keras.Model:
    """Maps at strides 1, 2 and 4 of images of any size, their padding on all sides."""
    keras.utils.set_random_seed(7)
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="one"),
            keras.layers.Conv2D(6, 2, strides=2, activation="relu", name="two"),
            keras.layers.Conv2D(8, 2, strides=2, activation="relu", name="four"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(4, activation="softmax"),
        ]
    )


def pictures(count: int, height: int = 32, width: int = 24) -> np.ndarray:
    return np.random.default_rng(8).normal(size=(count, height, width, 3)).astype(np.float32)


def tiled(maps: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Maps `[h, w, channels]` whose cells tile the image, on finer cells that do."""
    resized = cv2.resize(maps, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return resized.reshape(rows, columns, -1)


def test_scales_are_averaged_each_scaled_to_one() -> None:
    model, images = strided_model(), pictures(2)
    small = images.reshape(2, 16, 2, 12, 2, 3).mean(axis=(2, 4))
    plain = GradCAM(model)
    parts = [plain(images, classes=[1, 2]), plain(small, classes=[1, 2])]
    found = GradCAM(model, scales=(1.0, 0.5))(images, classes=[1, 2])
    assert found.heatmaps.shape == (2, 2, 16, 12)  # the cells of `two`, one stride finer
    for i in range(2):
        for j in range(2):
            maps = [tiled(part.heatmaps[i, j], 16, 12)[:, :, 0] for part in parts]
            expected = sum(each / each.max() if each.max() > 0 else each for each in maps) / 2
            expected = expected / expected.max()
            np.testing.assert_allclose(found.heatmaps[i, j], expected, atol=1e-5)
    for name in ("scores", "probabilities"):
        expected = (getattr(parts[0], name) + getattr(parts[1], name)) / 2
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-4)


def test_refined_heat_is_spread_by_the_two_finer_layers() -> None:
    model, images = strided_model(), pictures(1)
    heatmap = tiled(GradCAM(model)(images, classes=[3]).heatmaps[0, 0], 16, 12)[:, :, 0]
    one = keras.Model(model.inputs, model.get_layer("one").output)([images]).numpy()[0]
    two = keras.Model(model.inputs, model.get_layer("two").output)([images]).numpy()[0]
    # Cells of two pixels average with a triangle of two pixels to each side: 1, 3, 3, 1.
    kernel = np.array([0.25, 0.75, 0.75, 0.25]) / 2
    padded = np.pad(one, ((1, 1), (1, 1), (0, 0)))
    weights = np.pad(np.ones((32, 24, 1)), ((1, 1), (1, 1), (0, 0)))
    blurred, norm = np.zeros((16, 12, 6)), np.zeros((16, 12, 1))
    for y in range(4):
        for x in range(4):
            blurred += kernel[y] * kernel[x] * padded[y : y + 32 : 2, x : x + 24 : 2][:16, :12]
            norm += kernel[y] * kernel[x] * weights[y : y + 32 : 2, x : x + 24 : 2][:16, :12]
    affinity = np.ones((192, 192))
    for features in (blurred / norm, two):
        rows = features.reshape(192, -1)
        rows = rows - rows.mean(axis=0)
        rows = rows / np.sqrt(np.maximum((rows**2).sum(axis=1, keepdims=True), 1e-12))
        affinity *= np.maximum(rows @ rows.T, 0)
    for _ in range(2):
        affinity = affinity / affinity.sum(axis=0, keepdims=True)
        affinity = affinity / affinity.sum(axis=1, keepdims=True)
    step = (affinity + affinity.T) / 2
    expected = (step @ step @ heatmap.ravel()).reshape(16, 12)  # a random walk of two steps
    found = GradCAM(model, refine=True)(images, classes=[3]).heatmaps[0, 0]
    np.testing.assert_allclose(found, expected / expected.max(), atol=1e-4)


def test_the_top_class_is_that_of_the_first_scale() -> None:
    model, images = strided_model(), pictures(3)
    top = model.predict(images, verbose=0).argmax(axis=1)
    found = GradCAM(model, scales=(1.0, 0.5), refine=True)(images)
    assert found.classes == [[index] for index in top]


def test_score_scales_change_the_scores_and_not_the_heatmap() -> None:
    model, images = strided_model(), pictures(2)
    small = images.reshape(2, 16, 2, 12, 2, 3).mean(axis=(2, 4))
    scores, probabilities = GradCAM(model).predict(small, classes=[1, 2])
    alone = GradCAM(model, refine=True)(images, classes=[1, 2])
    found = GradCAM(model, refine=True, score_scales=(0.5,))(images, classes=[1, 2])
    np.testing.assert_allclose(found.heatmaps, alone.heatmaps, atol=1e-6)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-4)
    np.testing.assert_allclose(found.probabilities, probabilities, rtol=1e-4)


def test_it_is_traced_once_whatever_comes() -> None:
    cam = GradCAM(strided_model(), scales=(1.0, 0.5), refine=True)
    for images, classes in (
        (pictures(1), [0]),
        (pictures(3, 40, 28), [1, [2, 3]]),
        (pictures(2, 33, 31), None),
    ):
        cam(images, classes=classes)
    assert cam.trace_count == 1


def test_large_images_have_no_more_cells_than_affinities_can_bear() -> None:
    found = GradCAM(strided_model(), refine=True)(pictures(1, 400, 200), classes=[0])
    assert found.heatmaps.shape == (1, 1, 45, 23)  # of 200 x 100, by the root of 1024 / 20000
    assert np.isfinite(found.heatmaps).all()


def test_batches_and_classes_do_not_disturb_one_another() -> None:
    cam = GradCAM(strided_model(), scales=(1.0, 0.5), refine=True)
    images = pictures(3)
    together = cam(images, classes=[0, 2]).heatmaps
    for i in range(3):
        for j, index in enumerate((0, 2)):
            alone = cam(images[i : i + 1], classes=[index]).heatmaps[0, 0]
            np.testing.assert_allclose(together[i, j], alone, atol=1e-5)


def test_what_cannot_be_combined_is_told() -> None:
    with pytest.raises(UserError, match=r"scales must be positive factors.*Received: \(1.0, 0\)"):
        GradCAM(strided_model(), scales=(1.0, 0))
    for scales in ((), (np.inf,), (np.nan,), (10**400,), ("a",), (None,), 5):
        with pytest.raises(UserError, match="scales must be positive factors"):
            GradCAM(strided_model(), scales=scales)
    with pytest.raises(UserError, match="one layer"):
        GradCAM(strided_model(), ("two", "four"), refine=True)


@pytest.mark.parametrize(
    "options", [{"scales": (2.0,)}, {"scales": (1.0, 0.5)}, {"refine": True}], ids=str
)
def test_channels_first_make_no_difference(options) -> None:
    def build(data_format: str) -> keras.Model:
        keras.utils.set_random_seed(1)
        first = data_format == "channels_first"
        conv = {"padding": "same", "activation": "relu", "strides": 2, "data_format": data_format}
        return keras.Sequential(
            [
                keras.Input((3, 32, 24) if first else (32, 24, 3)),
                keras.layers.Conv2D(8, 3, **conv),
                keras.layers.Conv2D(8, 3, **conv),
                keras.layers.GlobalAveragePooling2D(data_format=data_format),
                keras.layers.Dense(3),
            ]
        )

    images = np.random.default_rng(0).normal(size=(2, 32, 24, 3)).astype(np.float32)
    expected = GradCAM(build("channels_last"), **options)(images, classes=[0]).heatmaps
    model = build("channels_first")
    found = GradCAM(model, **options)(images.transpose(0, 3, 1, 2), classes=[0]).heatmaps
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert expected.max() > 0
