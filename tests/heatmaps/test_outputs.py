"""What can be explained of a model's outputs: one of several, a unit, a region, a step, nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import backbone, cam_of, head, pictures

from kgradcam.errors import UserError
from kgradcam.heatmaps.gradcam import GradCAM


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_several_outputs(kind: str) -> None:
    """List and dict outputs: tf-keras-vis #48 #76 #96, aucmedi #233."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    features = backbone()
    pooled = keras.layers.GlobalAveragePooling2D()(features(inputs))
    breed = keras.layers.Dense(3, activation="softmax", name="breed")
    age = keras.layers.Dense(1, name="age")
    outputs = {"breed": breed(pooled), "age": age(pooled)}
    model = keras.Model(inputs, outputs if kind == "dict" else list(outputs.values()))
    images = pictures()
    with pytest.raises(UserError, match="2 outputs: give output=, .*breed or age"):
        GradCAM(model)
    with pytest.raises(UserError, match="Received: 'bread'. Did you mean 'breed'"):
        GradCAM(model, output="bread")
    for output, dense in (("breed", breed), ("age", age), (1, age)):
        classes = list(range(dense.units))
        explanation = GradCAM(model, output=output)(images, classes=classes)
        expected = cam_of(features, dense, images)
        np.testing.assert_allclose(explanation.heatmaps, expected, atol=1e-6)


def test_one_sigmoid_unit_and_regression() -> None:
    """Binary and scalar heads: tf-keras-vis #64 #68 #78, keras-io #612."""
    inputs = keras.Input((12, 12, 3))
    features = backbone()
    images = pictures()
    for activation in ("sigmoid", None):
        model = keras.Model(inputs, head(features(inputs), 1, activation))
        explanation = GradCAM(model)(images, classes=[0])
        expected = cam_of(features, model.get_layer("head"), images)
        np.testing.assert_allclose(explanation.heatmaps, expected, atol=1e-6)
        top = GradCAM(model)(images)
        sides = ["positive" if score > 0 else "negative" for score in explanation.scores[:, 0]]
        assert top.classes == ([[side] for side in sides] if activation else [[0], [0]])


def test_a_segmentation_map_by_the_score_of_a_region() -> None:
    """Structured outputs: Selvaraju et al., section 3; tf-explain #191."""
    inputs = keras.Input((12, 12, 3))
    features = backbone()
    logits = keras.layers.Conv2D(4, 1, name="logits")
    model = keras.Model(inputs, keras.layers.Softmax()(logits(features(inputs))))
    with pytest.raises(UserError, match=r"must be \[batch, classes\]. .* give score="):
        GradCAM(model)
    region = np.zeros((12, 12), np.float32)
    region[2:6, 3:9] = 1 / 24

    plain = keras.Model(inputs, logits(features(inputs)))
    cam = GradCAM(
        plain,
        layer="backbone/last",
        score=lambda maps: tf.einsum("bhw,hw->b", maps[..., 2], region),
    )
    images = pictures()
    explanation = cam(images)
    # The score is a mean over the region; its gradient there is the kernel over 24, else 0.
    kernel = logits.kernel.numpy()[0, 0, :, 2]
    expected = np.maximum(features(images).numpy() @ kernel / 144, 0)
    np.testing.assert_allclose(explanation.heatmaps[:, 0], expected, atol=1e-6)
    scores = (plain(images).numpy()[..., 2] * region).sum(axis=(1, 2))
    np.testing.assert_allclose(explanation.scores[:, 0], scores, rtol=1e-4)
    assert np.isnan(explanation.probabilities).all()
    assert explanation.classes == []
    with pytest.raises(UserError, match="score= there are no classes"):
        cam(images, classes=[1])


def test_a_sequence_of_tokens_by_the_score_of_one_step() -> None:
    """Captioning: Selvaraju et al., section 7. Several scores make several heatmaps."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    features = backbone()
    pooled = keras.layers.GlobalAveragePooling2D()(features(inputs))
    words = keras.layers.LSTM(6, return_sequences=True)(keras.layers.RepeatVector(4)(pooled))
    model = keras.Model(inputs, keras.layers.Dense(9)(words))
    images = pictures()

    def words_said(tokens):
        return tf.stack([tokens[:, 1, 7], tokens[:, 3, 2]], axis=1)

    both = GradCAM(model, layer="backbone/last", score=words_said)(images)
    assert both.heatmaps.shape == (2, 2, 12, 12)
    for i, (step, word) in enumerate(((1, 7), (3, 2))):
        alone = GradCAM(model, layer="last", score=lambda y, s=step, w=word: y[:, s, w])(images)
        np.testing.assert_allclose(both.heatmaps[:, i], alone.heatmaps[:, 0], atol=1e-7)
    assert np.abs(both.heatmaps[:, 0] - both.heatmaps[:, 1]).max() > 1e-6
    with pytest.raises(UserError, match=r"score must map the outputs to \[batch\]"):
        GradCAM(model, layer="last", score=lambda tokens: tokens)


def test_a_missing_gradient_is_told_with_its_layer() -> None:
    """`None` gradients: tf-explain #102, tensorflow #62797, pytorch-grad-cam #393."""
    inputs = keras.Input((12, 12, 3))
    maps = backbone()(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Lambda(tf.stop_gradient)(maps))
    model = keras.Model(inputs, keras.layers.Dense(2)(pooled))
    with pytest.raises(
        UserError, match=r"layer='backbone/last' has no gradient of the score: .*stop_gradient"
    ):
        GradCAM(model, layer="backbone/last")


def test_probabilities_without_logits_are_said_to_saturate_once(caplog) -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    sure = [keras.layers.Dense(2, "softmax", bias_initializer=_sure)(pooled) for _ in range(2)]
    cam = GradCAM(keras.Model(image, keras.layers.Average()(sure)))
    for _ in range(2):
        cam(np.zeros((1, 8, 8, 3)), classes=[0])
    assert caplog.text.count("gradients vanish") == 1


def _sure(shape, dtype=None):
    return keras.ops.convert_to_tensor([20.0, 0.0])
