"""What is built on a backbone: cuts, larger maps, poolings, and who learns how fast."""

import keras
import numpy as np
import pytest

from kgradcam import list_layers
from kgradcam.errors import UserError
from kgradcam.training.network import (
    Architecture,
    build_network,
    copy_network,
    learning_rates,
    set_trainable,
)


@pytest.fixture(scope="module")
def backbone() -> keras.Model:
    """Two halvings, a residual block, a head, and no weight that is zero."""
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


def test_the_backbone_ends_at_its_last_maps_and_is_not_changed(backbone, images) -> None:
    before = backbone(images).numpy()
    network = build_network(backbone, 3, Architecture())
    assert network.whole.input_shape == (None, None, None, 3)
    assert network.whole(images).shape == (2, 3)
    assert list_layers(network.whole)[1].path == "out"
    assert network.pretrained == ("early", "half", "norm", "late")
    assert network.fresh == ("logits",)
    expected = keras.Model(backbone.inputs[0], backbone.get_layer("out").output)(images)
    np.testing.assert_allclose(maps(network, "out", images), expected, rtol=1e-6)
    logits = network.trained(images)[:, 0].numpy()
    np.testing.assert_allclose(network.whole(images), 1 / (1 + np.exp(-logits)), rtol=1e-5)
    for layer in network.whole.layers:
        layer.trainable = False
    np.testing.assert_array_equal(backbone(images), before)
    assert backbone.get_layer("early").trainable


def test_a_cut_network_keeps_no_later_layer(backbone, images) -> None:
    network = build_network(backbone, 3, Architecture(last_layer="early"))
    assert [layer.name for layer in network.whole.layers if layer.variables] == ["early", "logits"]
    assert list_layers(network.whole)[1].shape == (None, None, 4)


def test_dilated_maps_are_the_old_ones_at_every_second_place(backbone, images) -> None:
    plain = maps(build_network(backbone, 3, Architecture()), "late", images)
    network = build_network(backbone, 3, Architecture(larger_maps="dilation"))
    found = maps(network, "late", images)
    assert found.shape == (2, 16, 16, 6)
    # Away from the borders, where `same` padding differs: of even sizes it pads the far side only.
    np.testing.assert_allclose(found[:, 3:-3:2, 3:-3:2], plain[:, 1:-2, 1:-2][:, :5, :5], rtol=1e-4)
    undilated = build_network(backbone, 3, Architecture(larger_maps="stride"))
    assert maps(undilated, "late", images).shape == (2, 16, 16, 6)
    assert not np.allclose(maps(undilated, "late", images), found)


def test_dilation_of_the_real_networks_doubles_their_maps() -> None:
    # MobileNet pads for the stride that is gone, one side only, and so comes out one smaller.
    for name, layer, side in (
        ("MobileNet", "conv_pw_13_relu", 7),
        ("ResNet50", "conv5_block3_out", 8),
    ):
        model = getattr(keras.applications, name)(weights=None)
        network = build_network(model, 2, Architecture(larger_maps="dilation"))
        sized = copy_network(network.whole, side=128)
        call = list_layers(sized)[1]
        assert call.path == layer
        assert call.shape[:2] == (side, side)


@pytest.mark.parametrize(("sharpness", "pool"), [(1e-3, np.mean), (1e3, np.max)])
def test_log_sum_exp_lies_between_the_mean_and_the_maximum(
    backbone, images, sharpness, pool
) -> None:
    network = build_network(backbone, 3, Architecture(pooling="logsumexp", sharpness=sharpness))
    head = network.whole.get_layer("logits")
    pooled = pool(maps(network, "out", images).numpy(), axis=(1, 2))
    expected = pooled @ head.kernel.numpy() + head.bias.numpy()
    np.testing.assert_allclose(network.trained(images)[:, 0], expected, rtol=0.02, atol=0.02)


def test_log_sum_exp_is_saved_without_code_of_ours(backbone, images, tmp_path) -> None:
    network = build_network(backbone, 3, Architecture(pooling="logsumexp"))
    network.whole.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(images), network.whole(images), rtol=1e-6)


def test_side_layers_have_heads_that_the_whole_does_not(backbone, images) -> None:
    network = build_network(backbone, 3, Architecture(side_layers=("early",)))
    assert network.trained(images).shape == (2, 2, 3)
    assert set(network.fresh) == {"early_logits", "logits"}
    assert "early_logits" not in [layer.name for layer in network.whole.layers]


def test_a_trunk_and_what_is_trained_make_the_whole(backbone, images) -> None:
    network = build_network(backbone, 3, Architecture(), frozen_until="norm", cached=True)
    logits = network.trained(network.trunk(images))[:, 0].numpy()
    np.testing.assert_allclose(network.whole(images), 1 / (1 + np.exp(-logits)), rtol=1e-5)
    assert network.pretrained == ("late",)
    uncached = build_network(backbone, 3, Architecture(), frozen_until="norm")
    assert uncached.trunk is None
    assert uncached.pretrained == ("late",)
    set_trainable(uncached, fine_tune=True)
    learning = {layer.name for layer in uncached.trained.layers if layer.trainable_variables}
    assert learning == {"late", "logits"}


def test_layers_after_a_missing_one_are_fresh(backbone) -> None:
    network = build_network(backbone, 3, Architecture(), missing=["half"])
    assert network.pretrained == ("early",)
    assert set(network.fresh) == {"half", "norm", "late", "logits"}
    cut = build_network(backbone, 3, Architecture(last_layer="early"), missing=["half"])
    assert cut.fresh == ("logits",)
    with pytest.raises(UserError, match=r"'norm' comes after 'half', which has no weights"):
        build_network(backbone, 3, Architecture(), ["half"], frozen_until="norm")


def test_who_learns_and_how_fast(backbone) -> None:
    network = build_network(backbone, 3, Architecture())
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
        ({"last_layer": "lat"}, "'lat' is no layer .* Did you mean 'late'"),
        ({"side_layers": ("logit",)}, "'logit' is no layer with a feature map"),
        ({"larger_maps": "dilate"}, "larger_maps='dilate' is none of .* Did you mean 'dilation'"),
        ({"pooling": "max"}, "pooling='max' is none of mean, logsumexp"),
        ({"sharpness": 0.0}, "sharpness must be more than 0"),
    ],
)
def test_mistakes_are_named(backbone, options, message) -> None:
    with pytest.raises(UserError, match=message):
        build_network(backbone, 3, Architecture(**options))


def test_a_cut_inside_a_block_is_told(backbone) -> None:
    with pytest.raises(UserError, match=r"'late' is no layer that all paths lead through"):
        build_network(backbone, 3, Architecture(), frozen_until="late", cached=True)


def test_a_subclassed_backbone_is_told() -> None:
    class Plain(keras.Model):
        pass

    with pytest.raises(UserError, match="must be a functional or sequential model"):
        build_network(Plain(), 3, Architecture())
