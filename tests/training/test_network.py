"""Heads on backbones: cuts, dilation, frozen layers and learning rates."""

import keras
import numpy as np
import pytest

from kgradcam import list_layers
from kgradcam.errors import UserError
from kgradcam.training.network import (
    build_network,
    copy_network,
    learning_rates,
    pretrained_digests,
    set_trainable,
)


@pytest.fixture(scope="module")
def backbone() -> keras.Model:
    """A model with two strides, a residual block, a head, and no weight of zero."""
    conv, norm = keras.layers.Conv2D, keras.layers.BatchNormalization
    inputs = keras.Input((32, 32, 3))
    x = conv(4, 3, 2, "same", activation="relu", name="early")(inputs)
    x = conv(6, 3, 2, "same", name="half")(x)
    x = norm(name="norm")(x)
    x = keras.layers.Add(name="out")([x, conv(6, 3, padding="same", name="late")(x)])
    outputs = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs, name="backbone")
    generator = np.random.default_rng(0)
    model.set_weights([generator.uniform(0.01, 0.2, w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 1, (2, 32, 32, 3)).astype(np.float32)


def maps(network, name: str, images):
    return keras.Model(network.whole.inputs[0], network.whole.get_layer(name).output)(images)


def test_the_backbone_is_copied_up_to_its_last_maps(backbone, images) -> None:
    before = backbone(images).numpy()
    network = build_network(backbone, 3)
    assert network.whole.input_shape == (None, None, None, 3)
    assert network.whole(images).shape == (2, 3)
    assert list_layers(network.whole)[1].path == "out"
    assert network.pretrained == ("early", "half", "norm", "late")
    assert network.fresh == ("logits",)
    expected = keras.Model(backbone.inputs[0], backbone.get_layer("out").output)(images)
    np.testing.assert_allclose(maps(network, "out", images), expected, rtol=1e-6)
    logits = network.trained(images).numpy()
    np.testing.assert_allclose(network.whole(images), 1 / (1 + np.exp(-logits)), rtol=1e-5)
    for layer in network.whole.layers:
        layer.trainable = False
    np.testing.assert_array_equal(backbone(images), before)
    assert backbone.get_layer("early").trainable


def test_a_cut_network_has_no_later_layer(backbone, images) -> None:
    network = build_network(backbone, 3, last_layer="early")
    assert [layer.name for layer in network.whole.layers if layer.variables] == ["early", "logits"]
    assert list_layers(network.whole)[1].shape == (None, None, 4)


def test_every_second_value_of_dilated_maps_is_an_old_one(backbone, images) -> None:
    plain = maps(build_network(backbone, 3), "late", images)
    network = build_network(backbone, 3, dilation=True)
    found = maps(network, "late", images)
    assert found.shape == (2, 16, 16, 6)
    # Borders differ: with a stride, `same` padding of even sizes pads one side only.
    np.testing.assert_allclose(found[:, 3:-3:2, 3:-3:2], plain[:, 1:-2, 1:-2][:, :5, :5], rtol=1e-4)


def test_dilation_doubles_the_maps_of_real_networks() -> None:
    # MobileNet pads one side for the removed stride, so its maps are smaller by one.
    for name, layer, side in (
        ("MobileNet", "conv_pw_13_relu", 7),
        ("ResNet50", "conv5_block3_out", 8),
    ):
        model = getattr(keras.applications, name)(weights=None)
        network = build_network(model, 2, dilation=True)
        sized = copy_network(network.whole, side=128)
        call = list_layers(sized)[1]
        assert call.path == layer
        assert call.shape[:2] == (side, side)


def test_trunk_and_trained_part_make_the_whole(backbone, images) -> None:
    network = build_network(backbone, 3, frozen_until="norm", cached=True)
    logits = network.trained(network.trunk(images)).numpy()
    np.testing.assert_allclose(network.whole(images), 1 / (1 + np.exp(-logits)), rtol=1e-5)
    assert network.pretrained == ("late",)
    uncached = build_network(backbone, 3, frozen_until="norm")
    assert uncached.trunk is None
    assert uncached.pretrained == ("late",)
    set_trainable(uncached, fine_tune=True)
    learning = {layer.name for layer in uncached.trained.layers if layer.trainable_variables}
    assert learning == {"late", "logits"}


def test_layers_after_a_missing_one_are_fresh(backbone) -> None:
    network = build_network(backbone, 3, missing=["half"])
    assert network.pretrained == ("early",)
    assert set(network.fresh) == {"half", "norm", "late", "logits"}
    cut = build_network(backbone, 3, last_layer="early", missing=["half"])
    assert cut.fresh == ("logits",)
    with pytest.raises(
        UserError, match=r"'norm' would freeze 'half', which has no pretrained weights"
    ):
        build_network(backbone, 3, missing=["half"], frozen_until="norm")


def test_trainable_layers_and_their_learning_rates(backbone) -> None:
    network = build_network(backbone, 3)
    set_trainable(network, fine_tune=False)
    assert {v.path for v in network.trained.trainable_variables} == {
        "logits/kernel",
        "logits/bias",
    }
    set_trainable(network, fine_tune=True)
    assert not network.trained.get_layer("norm").trainable
    rates = learning_rates(network, 0.1)
    assert rates["logits/kernel"] == 1.0
    assert rates["early/kernel"] == pytest.approx(0.01)
    assert rates["half/bias"] == pytest.approx(0.1 ** (2 - 1 / 3))
    assert rates["late/kernel"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"last_layer": "lat"}, "no layer 'lat' .* Did you mean 'late'"),
        ({"frozen_until": "logit"}, "no layer 'logit' with a feature map"),
        ({"last_layer": "early", "dilation": True, "frozen_until": "late"}, "no layer 'late'"),
        (
            {"frozen_until": "late", "cached": True},
            "'late' lies inside a block: some paths bypass it",
        ),
        ({"missing": ["early"], "frozen_until": "early"}, "'early' would freeze 'early', which"),
    ],
)
def test_mistakes_are_reported(backbone, options, message) -> None:
    with pytest.raises(UserError, match=message):
        build_network(backbone, 3, **options)


def test_digests_of_equal_networks_are_equal_in_one_process() -> None:
    # This network has unnamed operations. One is called "activation", like an option of layers.
    def digests(seed: int) -> dict[str, str]:
        keras.utils.set_random_seed(seed)
        backbone = keras.applications.MobileNetV3Small(weights=None)
        return pretrained_digests(build_network(backbone, 3))

    first, again, other = digests(0), digests(0), digests(1)
    assert first == again
    assert first["layers"] == other["layers"]
    assert first["weights"] != other["weights"]


def test_a_subclassed_backbone_is_rejected() -> None:
    class Plain(keras.Model):
        pass

    with pytest.raises(
        UserError, match="Expected a functional or sequential model .* Received: plain"
    ):
        build_network(Plain(), 3)
