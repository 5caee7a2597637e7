"""Segmenters and detectors of KerasHub through `kgradcam.targets`, by an eager tape and by hand."""

import runpy
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kgradcam import GradCAM, targets
from kgradcam.heatmaps import HiResCAM

pytest.importorskip("keras_hub", reason="needs KerasHub, an extra")

ZOO = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "zoo.py"))
TASKS = dict(ZOO["keras_hub_tasks"]())
IMAGES = np.random.default_rng(0).random((2, 64, 64, 3)).astype(np.float32)


def built(name: str) -> Any:
    keras.utils.set_random_seed(0)
    return TASKS[name]()


def test_every_task_is_one_of_these() -> None:
    tested = ["SegFormer, a class", "DeepLabV3+, a class", "RetinaNet, an anchor"]
    slower = ["BASNet, the salient object", "D-FINE, a query"]
    assert sorted(TASKS) == sorted(tested + slower)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("SegFormer, a class", "sequential/activation"),
        ("DeepLabV3+, a class", "segmentation_head_relu"),
        ("RetinaNet, an anchor", "stack1_block0_out"),
        pytest.param("BASNet, the salient object", None, marks=pytest.mark.slow),
        pytest.param("D-FINE, a query", None, marks=pytest.mark.slow),
    ],
)
def test_the_default_layer_by_a_tape(name: str, layer: str | None) -> None:
    model, score, formula = built(name)
    images = np.random.default_rng(0).random((2, *model.input_shape[1:])).astype(np.float32)
    cam = GradCAM(model, score=score, relu=False)
    e = cam(images)
    assert layer is None or str(cam.layer).endswith(layer)
    np.testing.assert_allclose(e.scores[:, 0], formula(model(images, training=False)), rtol=1e-4)
    expected = ZOO["by_tape"](model, cam.layer, images, e.heatmaps[:, 0].shape, formula)
    largest = np.abs(expected).max()
    assert largest > 0
    np.testing.assert_allclose(e.heatmaps[:, 0] / largest, expected / largest, atol=1e-4)


def test_a_region_of_segformer_by_hand() -> None:
    """The head is a 1x1 convolution and a bilinear resize, so its gradient is that of a resize."""
    model, _, _ = built("SegFormer, a class")
    region = np.zeros((64, 64), np.float32)
    region[8:24, 40:56] = 1
    e = HiResCAM(model, score=targets.segmentation(1, region))(IMAGES)
    maps = model.backbone(IMAGES, training=False)
    kernel = model.output_segmentation_head.kernel[0, 0, :, 1]
    with tf.GradientTape() as tape:
        grid = tf.Variable(tf.zeros((1, 16, 16, 1)))
        total = tf.reduce_sum(tf.image.resize(grid, (64, 64))[0, ..., 0] * region)
    weights = tape.gradient(total, grid)[0, ..., 0]  # how often the region uses each place
    expected = np.maximum(np.tensordot(maps, kernel, 1), 0) * weights
    np.testing.assert_allclose(e.heatmaps[:, 0], expected, rtol=1e-4, atol=1e-5)
    assert e.heatmaps[:, 0, 1:7, 9:15].sum() == pytest.approx(e.heatmaps.sum())


def test_an_anchor_of_retinanet_by_its_head() -> None:
    """Anchor 200 is at place 22 of the first level, which has 9 anchors a place."""
    model, score, _ = built("RetinaNet, an anchor")
    levels = model.backbone(IMAGES, training=False)
    with tf.GradientTape() as tape:
        tape.watch(levels["P3"])
        rows = tf.reshape(model.classification_head(levels["P3"]), (2, 8 * 8, 9, -1))
        total = tf.reduce_sum(rows[:, 200 // 9, 200 % 9, 1])
    gradients = tape.gradient(total, levels["P3"])
    expected = np.maximum(tf.reduce_sum(gradients * levels["P3"], axis=-1), 0)
    e = HiResCAM(model, "fpn/output_conv_P3", score=score)(IMAGES)
    np.testing.assert_allclose(e.heatmaps[:, 0], expected, rtol=1e-4, atol=1e-6)
    # Four convolutions of 3x3 and the last one see 5 places to each side of row 2, column 6.
    assert not e.heatmaps[:, 0, :, :1].any()
