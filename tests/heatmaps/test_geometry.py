"""Where cells lie: by hand, by the pixels that reach a cell, by a trained network; resampling."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kgradcam.boxes.find import find_boxes
from kgradcam.boxes.normalization import normalize
from kgradcam.boxes.options import BoxOptions
from kgradcam.heatmaps.geometry import extent_of, resample, stride
from kgradcam.heatmaps.gradcam import GradCAM
from kgradcam.heatmaps.methods import METHODS


def extent_after(layers: list[keras.Layer], height: int, width: int) -> list[float]:
    """The extent of the maps of a stack of layers, in pixels, xyxy."""
    model = keras.Sequential([keras.Input((height, width, 1)), *layers])

    @tf.function
    def trace(images: tf.Tensor) -> tf.Tensor:
        return extent_of(model(images), images)

    extent = trace(tf.zeros((1, height, width, 1))).numpy()
    return (extent * [width, height, width, height]).tolist()


@settings(max_examples=10)
@given(
    st.lists(
        # Not 1: after 1 x 1 kernels with strides on one channel, TensorFlow 2.21 was found to have
        # written the map over memory that was no longer its own.
        st.tuples(st.sampled_from([2, 3, 5]), st.sampled_from([1, 2])),
        min_size=1,
        max_size=3,
    ),
    st.integers(40, 47),
    st.integers(40, 47),
)
def test_without_padding_a_cell_lies_in_the_middle_of_the_pixels_that_reach_it(
    stack: list[tuple[int, int]], height: int, width: int
) -> None:
    layers = [keras.layers.Conv2D(1, k, s, kernel_initializer="ones") for k, s in stack]
    xmin, ymin, xmax, ymax = extent_after(layers, height, width)
    model = keras.Sequential([keras.Input((height, width, 1)), *layers])
    image = tf.Variable(tf.ones((1, height, width, 1)))
    with tf.GradientTape() as tape:
        maps = model(image)
        rows, columns = maps.shape[1:3]
        row, column = rows // 2, columns // 3
        value = maps[0, row, column, 0]
    ys, xs = np.nonzero(tape.gradient(value, image).numpy()[0, :, :, 0])
    middle = [(xs.min() + xs.max() + 1) / 2, (ys.min() + ys.max() + 1) / 2]
    place = [
        xmin + (column + 0.5) * (xmax - xmin) / columns,
        ymin + (row + 0.5) * (ymax - ymin) / rows,
    ]
    np.testing.assert_allclose(place, middle, atol=1e-3)


@pytest.mark.parametrize(
    "layers",
    [
        [keras.layers.Conv2D(1, 3, 2, "same"), keras.layers.DepthwiseConv2D(5, 2, "same")],
        [keras.layers.ZeroPadding2D(3), keras.layers.Conv2D(1, 7, 2), keras.layers.ReLU()],
        [keras.layers.ZeroPadding2D(((0, 1), (0, 1))), keras.layers.Conv2D(1, 3, 2)],
        [keras.layers.Conv2D(1, 3, dilation_rate=2, padding="same"), keras.layers.MaxPooling2D(2)],
    ],
    ids=["same", "padded", "padded on one side", "dilated"],
)
def test_padded_layers_tile_the_image(layers: list[keras.Layer]) -> None:
    assert extent_after(layers, 32, 44) == pytest.approx([0, 0, 44, 32], abs=1e-5)


@pytest.mark.parametrize(
    ("layers", "extent"),
    [
        # 3 x 3 at every pixel loses one pixel a side; the second one of 2 pixels each two more.
        ([keras.layers.Conv2D(1, 3), keras.layers.AveragePooling2D(2), keras.layers.Conv2D(1, 3)],
         [3, 3, 39, 29]),
        # Half of 33 pixels: the last one is in no cell.
        ([keras.layers.MaxPooling2D(2)], [0, 0, 42, 32]),
        # Of the three pixels that a kernel of 7 loses a side, padding keeps one.
        ([keras.layers.ZeroPadding2D(1), keras.layers.Conv2D(1, 7)], [2, 2, 40, 31]),
    ],
    ids=["pooled", "odd", "padded by less"],
)  # fmt: skip
def test_the_rim_that_is_cut_off_by_hand(layers: list[keras.Layer], extent: list[float]) -> None:
    assert extent_after(layers, 33, 42) == pytest.approx(extent, abs=1e-4)


def test_the_stride_of_five_halvings() -> None:
    strides = []
    model = keras.Sequential(
        [keras.Input((224, 225, 3))] + [keras.layers.Conv2D(2, 3, 2, "same") for _ in range(5)]
    )

    @tf.function
    def trace(images: tf.Tensor) -> tf.Tensor:
        strides.append(stride(model(images)))
        return images

    trace(tf.zeros((1, 224, 225, 3)))
    assert strides == [32]


def test_cells_of_unknown_origin_tile_the_image() -> None:
    @tf.function
    def trace(tokens: tf.Tensor) -> tf.Tensor:
        return extent_of(tf.reshape(tokens, (1, 4, 4, 2)), tokens)

    assert trace(tf.zeros((1, 16, 2))).numpy().tolist() == [0, 0, 1, 1]


def valid_model() -> keras.Model:
    """Six 5 x 5 convolutions without padding, each the identity: a cell sees one pixel of 64."""
    kernel = np.zeros((5, 5, 1, 1))
    kernel[2, 2] = 1
    convolutions = [keras.layers.Conv2D(1, 5, use_bias=False) for _ in range(6)]
    model = keras.Sequential(
        [
            keras.Input((64, 64, 1)),
            *convolutions,
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1, use_bias=False, kernel_initializer="ones"),
        ]
    )
    for each in convolutions:
        each.set_weights([kernel])
    return model


def test_heat_lies_on_the_pixel_that_a_valid_network_sees() -> None:
    cam = GradCAM(valid_model())
    for row, column in ((14, 20), (32, 32), (50, 13)):
        image = np.zeros((1, 64, 64, 1))
        image[0, row, column] = 1
        found = cam(image, classes=[0])
        assert found.heatmaps.shape == (1, 1, 40, 40)
        np.testing.assert_allclose(found.extent, [12 / 64, 12 / 64, 52 / 64, 52 / 64])
        np.testing.assert_allclose(
            normalize(found.heatmaps[0, 0], (64, 64), found.extent), image[0, :, :, 0], atol=1e-6
        )


def test_the_box_of_a_square_in_the_corner_that_a_valid_network_sees() -> None:
    image = np.zeros((1, 64, 64, 1))
    image[0, 12:24, 12:24] = 1
    found = GradCAM(valid_model())(image, classes=[0])
    options = BoxOptions(score="density")  # the default moves sides
    boxes, _ = find_boxes(found.heatmaps[0, 0], (64, 64), options=options, extent=found.extent)
    assert boxes.tolist() == [[12, 12, 24, 24]]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_places_its_heat_where_a_valid_network_looks(name: str) -> None:
    if name in ("eigencam", "counterfactual", "guided-gradcam"):
        pytest.skip("not a map of evidence, or needs a ReLU")
    image = np.full((1, 64, 64, 1), 0.01)
    image[0, 20, 40] = 1
    found = METHODS[name](valid_model())(image, classes=[0])
    drawn = normalize(found.heatmaps[0, 0], (64, 64), found.extent)
    assert np.unravel_index(drawn.argmax(), drawn.shape) == (20, 40)


def test_fused_layers_of_different_extents_agree() -> None:
    model = valid_model()
    image = np.zeros((1, 64, 64, 1))
    image[0, 20, 40] = 1
    found = GradCAM(model, [model.layers[0].name, model.layers[5].name])(image, classes=[0])
    drawn = normalize(found.heatmaps[0, 0], (64, 64), found.extent)
    assert found.extent == (0, 0, 1, 1)
    assert np.unravel_index(drawn.argmax(), drawn.shape) == (20, 40)


def test_resampling_a_ramp_keeps_it() -> None:
    """Values that rise with the place are the places of the new cells, between the outermost."""
    rows, columns = np.meshgrid([4.0, 12, 20], [2.0, 14], indexing="ij")
    maps = tf.constant(np.stack([rows, columns], -1)[None], tf.float32)
    # Columns lie at 2 and 14 of 16 pixels: two cells of 12 pixels tile -4 to 20.
    extent = tf.constant([-4 / 16, 0, 20 / 16, 1])
    found = resample(maps, extent, tf.constant([6, 4])).numpy()[0]
    np.testing.assert_allclose(found[:, 0, 0], [4, 6, 10, 14, 18, 20], rtol=1e-5)
    np.testing.assert_allclose(found[0, :, 1], [2, 6, 10, 14], rtol=1e-5)


def test_resampling_to_larger_cells_averages() -> None:
    maps = tf.constant([1.0, 0, 1, 0, 1, 0, 1, 0])[None, :, None, None]
    found = resample(maps, tf.constant([0.0, 0, 1, 1]), tf.constant([2, 1])).numpy().ravel()
    np.testing.assert_allclose(found, [0.5, 0.5], atol=0.05)
