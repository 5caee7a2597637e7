"""Models as their users have them: files, sizes, channels, outputs, names and pixel ranges."""

import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import PIL.Image
import pytest

layers = keras.layers


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """An image of 40x30 pixels: grey 51, which is 0.2 of 255."""
    PIL.Image.new("RGB", (40, 30), (51, 51, 51)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def found(kgradcam, picture: Path, tmp_path: Path, monkeypatch) -> Callable[..., dict]:
    """The first finding of `explain`."""
    monkeypatch.chdir(tmp_path)

    def explain(model: object, *options: object) -> dict:
        result = kgradcam("explain", picture, "--model", model, "--out", "o.png", "--json",
                          "--force", *options)  # fmt: skip
        assert result.code == 0, result.err
        content = json.loads(result.out, parse_constant=pytest.fail)  # NaN is not JSON
        return content["findings"][0]

    return explain


def brightness(
    shape: tuple[int | None, ...] = (None, None, 3),
    units: int = 3,
    activation: str | None = "softmax",
    first: tuple = (),
    flat: bool = False,
) -> keras.Sequential:
    """Its logits are the mean of the input times -1, 0, 1 and so on."""
    reduce = layers.Flatten() if flat else layers.GlobalAveragePooling2D()
    maps = layers.Conv2D(1, 1, name="maps")
    model = keras.Sequential(
        [keras.Input(shape), *first, maps, reduce, layers.Dense(units, activation=activation)]
    )
    maps.set_weights([np.full((1, 1, shape[-1], 1), 1 / shape[-1]), np.zeros(1)])
    kernel = model.layers[-1].kernel
    slopes = np.arange(units) - 1.0
    kernel.assign(np.tile(slopes, (kernel.shape[0], 1)) / kernel.shape[0])
    return model


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("suffix", ["keras", "h5", "hdf5"])
def test_files_of_keras_are_read(found, kgradcam, tmp_path: Path, suffix: str) -> None:
    model = brightness((32, 24, 3), flat=True, activation=None)
    model.save(tmp_path / f"m.{suffix}")
    finding = found(f"m.{suffix}")
    assert (finding["size"], finding["layer"]) == ([24, 32], "maps")
    assert finding["score"] == pytest.approx(51, rel=1e-5)
    result = kgradcam("layers", f"m.{suffix}", "--json")
    shapes = [each["shape"] for each in json.loads(result.out)["layers"]]
    assert [32, 24, 1] in shapes


def test_hdf5_files_may_not_run_code(kgradcam, picture: Path, tmp_path: Path, monkeypatch) -> None:
    import h5py

    monkeypatch.chdir(tmp_path)
    config = {"class_name": "Lambda", "config": {"function": ["4wEAAAA=", None, None]}}
    content = {"class_name": "Sequential", "config": {"layers": [config]}}
    with h5py.File("evil.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(content)
    with h5py.File("weights.h5", "w") as file:
        file["kernel"] = np.zeros(3)
    for name, message in (
        ("evil.h5", "evil.h5 holds a Lambda layer, which may run code"),
        ("weights.h5", "it holds weights without a model. Give the network with --model"),
    ):
        result = kgradcam("explain", picture, "--model", name, "--out", "o.png")
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert message in result.err


def test_one_channel_is_read_in_grey(found, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (40, 30), (255, 0, 0)).save(tmp_path / "a.png")
    brightness((28, 28, 1), activation=None).save(tmp_path / "grey.keras")
    finding = found("grey.keras")
    assert finding["size"] == [28, 28]
    assert finding["score"] == pytest.approx(76)  # 0.299 * 255, as Pillow rounds it


@pytest.mark.parametrize(
    ("options", "score", "pixels"),
    [
        ((), 51, "pixels in 0..255 (if it was trained on 0..1: --scale-pixels)"),
        (("--scale-pixels",), 0.2, "pixels in 0..1"),
        (("--preprocess", "0..1"), 0.2, "pixels in 0..1"),
        (("--preprocess=-1..1",), 0.6, "pixels in -1..1"),  # class 0 is -(0.4 - 1)
    ],
)
def test_pixels_are_scaled(found, tmp_path: Path, options: tuple, score: float, pixels) -> None:
    brightness(activation=None).save(tmp_path / "m.keras")
    finding = found("m.keras", *options)
    assert finding["score"] == pytest.approx(score, rel=1e-5)
    assert finding["pixels"] == pixels


def adapted(layer: keras.Layer, mean: float, variance: float) -> keras.Layer:
    layer.build((None, None, None, 3))
    layer.set_weights([np.ones(3), np.zeros(3), np.full(3, mean), np.full(3, variance)])
    return layer


@pytest.mark.parametrize(
    ("make", "pixels"),
    [
        (lambda: layers.Rescaling(1 / 255), "pixels in 0..255"),
        (lambda: layers.Rescaling(1 / 127.5, -1), "pixels in 0..255"),
        (lambda: layers.Rescaling(2.0, -1), "pixels in 0..1"),
        (lambda: layers.Rescaling(255.0), "pixels in 0..1"),
        (lambda: layers.Normalization(mean=[0.48] * 3, variance=[0.07] * 3), "pixels in 0..1"),
        (lambda: layers.Normalization(mean=[120.0] * 3, variance=[4e3] * 3), "pixels in 0..255"),
        (lambda: adapted(layers.BatchNormalization(), 0.45, 0.08), "pixels in 0..1"),
        (lambda: adapted(layers.BatchNormalization(), 115.0, 4e3), "pixels in 0..255"),
    ],
)
def test_the_range_of_pixels_is_found_in_the_first_layer(found, tmp_path, make, pixels) -> None:
    keras.utils.set_random_seed(0)
    augmented = keras.Sequential([layers.RandomFlip("horizontal"), make()])
    brightness(first=(augmented,)).save(tmp_path / "m.keras")
    assert found("m.keras")["pixels"] == pixels


def test_a_thousand_outputs_are_not_imagenet(found, tmp_path: Path) -> None:
    brightness(units=1000, activation=None).save(tmp_path / "own.keras")
    assert found("own.keras")["class_name"] == "class 999"
    assert found("own.keras", "--names", "imagenet")["class_name"] == "toilet tissue"


@pytest.mark.parametrize(
    "text",
    [
        "oak\nelm\nash\n",
        "0 oak\n1 elm\n2 ash",
        "\ufeff1: oak\r\n2: elm\r\n3: ash\r\n",
        '["oak", "elm", "ash"]',
        '{"ash": 2, "oak": 0, "elm": 1}',
        '{"0": ["n01", "oak"], "1": ["n02", "elm"], "2": ["n03", "ash"]}',
    ],
)
def test_outputs_have_names(found, tmp_path: Path, text: str) -> None:
    (tmp_path / "names.txt").write_text(text, "utf-8")
    brightness(activation=None).save(tmp_path / "m.keras")
    assert found("m.keras", "--names", "names.txt")["class_name"] == "ash"
    assert found("m.keras", "--names", "names.txt", "--class", "oak")["score"] == pytest.approx(-51)


def test_a_file_with_other_names_is_refused(kgradcam, picture, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    brightness().save("m.keras")
    Path("names.txt").write_text("oak\nelm\n")
    Path("bad.json").write_text('{"oak": 0, "elm": 7, "ash": 2}')
    for name, message in (
        ("names.txt", "a name for each of the 3 outputs of the model. Received: 2 in names.txt"),
        ("bad.json", "a list of names, or an object of names and numbers from 0 on"),
        ("none.txt", "No file none.txt"),
    ):
        result = kgradcam("explain", picture, "--model", "m.keras", "--names", name)
        assert result.code == 1
        assert message in result.err


def test_one_unit_has_two_sides(found, tmp_path: Path) -> None:
    model = brightness(units=1, activation="sigmoid")  # the logit is -0.2 at 51 / 255
    model.save(tmp_path / "binary.keras")
    (tmp_path / "names.txt").write_text("no\nyes\n")
    for options, name, score in (
        ((), "negative", 0.2),
        (("--class", "negative"), "negative", 0.2),
        (("--class", "positive"), "positive", -0.2),
        (("--class", "0"), "0", -0.2),
        (("--names", "names.txt"), "no", 0.2),
        (("--names", "names.txt", "--class", "yes"), "yes", -0.2),
    ):
        finding = found("binary.keras", "--scale-pixels", *options)
        assert (finding["class_name"], finding["score"]) == (name, pytest.approx(score, rel=1e-5))
        assert finding["probability"] == pytest.approx(1 / (1 + np.exp(-score)), rel=1e-5)


def test_a_regression_has_no_probability(found, kgradcam, pets, tmp_path: Path) -> None:
    model = brightness(units=1, activation=None)
    model.layers[-1].bias.assign([90.0])
    model.save(tmp_path / "age.keras")
    finding = found("age.keras")
    assert (finding["probability"], finding["score"]) == (None, pytest.approx(39))
    result = kgradcam("detect", "--dataset", pets.root, "--class", "dog=0", "--model",
                      "age.keras", "--out", "run")  # fmt: skip
    assert result.code == 1
    assert "age.keras has no class probabilities" in result.err


def test_one_of_several_outputs(found, kgradcam, picture: Path, tmp_path: Path) -> None:
    inputs = keras.Input((16, 16, 3))
    maps = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3, name="maps")(inputs))
    outputs = [layers.Dense(3, name="breed")(maps), layers.Dense(2, name="coat")(maps)]
    keras.Model(inputs, outputs).save(tmp_path / "two.keras")
    for option, bias in (("breed", [0, 1e3, 0]), ("1", [1e3, 0]), ("coat", [1e3, 0])):
        index = 0 if option == "breed" else 1
        model = keras.Model(inputs, outputs)
        model.get_layer(("breed", "coat")[index]).bias.assign(bias)
        model.save(tmp_path / "two.keras")
        expected = f"class {int(np.argmax(bias))}"
        assert found("two.keras", "--output", option)["class_name"] == expected
    result = kgradcam("explain", picture, "--model", "two.keras", "--out", "p.png")
    assert result.code == 1
    assert "2 outputs: give output=, breed or coat" in result.err
    assert "--output" in result.err


def test_layers_of_a_module_are_imported(found, kgradcam, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "halving_layers.py").write_text(
        "import keras\n"
        "class Halve(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return x / 2\n"
    )

    class Halve(layers.Layer):
        def call(self, x):
            return x / 2

    Halve.__module__ = "halving_layers"
    brightness((8, 8, 3), activation=None, first=(Halve(),)).save(tmp_path / "own.keras")
    result = kgradcam("explain", picture, "--model", "own.keras", "--out", "p.png")
    assert (result.code, result.err.count("\n"), len(result.err) < 300) == (1, 1, True)
    assert "--import MODULE" in result.err
    result = kgradcam("explain", picture, "--model", "own.keras", "--import", "no_such", "--out",
                      "p.png")  # fmt: skip
    assert "--import no_such failed: No module named 'no_such'" in result.err
    try:
        finding = found("own.keras", "--import", "halving_layers")
    finally:
        keras.saving.get_custom_objects().pop("Halve", None)
    assert finding["score"] == pytest.approx(25.5)


def test_a_saved_model_names_the_way_out(kgradcam, picture, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("saved").mkdir()
    Path("saved/saved_model.pb").write_bytes(b"")
    result = kgradcam("explain", picture, "--model", "saved", "--out", "p.png")
    assert result.code == 1
    assert "saved is a SavedModel, whose layers cannot be reached. Save the model" in result.err


def test_sizes_that_do_not_fit_name_one_that_does(kgradcam, picture, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    brightness((24, 32, 3), flat=True).save("rect.keras")
    for size, code in (("own", 0), ("32x24", 0), ("24", 1), ("24x32", 1), ("native", 1)):
        result = kgradcam("explain", picture, "--model", "rect.keras", "--image-size", size,
                          "--out", "o.png", "--force")  # fmt: skip
        assert result.code == code, result.err
        if code:
            assert "takes images of 32x24 only" in result.err
            assert "Give --image-size 32x24" in result.err


def test_large_pictures_are_seen_at_a_bounded_size(found, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (1200, 900), (51, 51, 51)).save(tmp_path / "a.png")
    brightness().save(tmp_path / "any.keras")
    assert found("any.keras")["size"] == [448, 336]
    assert found("any.keras", "--image-size", "native")["size"] == [1200, 900]


def test_detect_takes_twice_the_size_of_the_model(kgradcam, pets, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    load, loaded = keras.models.load_model, []
    monkeypatch.setattr(
        keras.models,
        "load_model",
        lambda path, **options: loaded.append(path) or load(path, **options),
    )
    brightness((20, 20, 3)).save("square.keras")
    brightness((24, 32, 3), flat=True).save("rect.keras")
    for model, size, scales in (("square.keras", 40, [0.5]), ("rect.keras", [32, 24], [])):
        result = kgradcam("detect", "--dataset", pets.root, "--class", "dog=2", "--model", model,
                          "--out", model[:4], "--quiet")  # fmt: skip
        assert result.code == 0, result.err
        chosen = json.loads(Path(model[:4], "run.json").read_text())["configuration"]
        assert (chosen["image_size"], chosen["score_scales"]) == (size, scales)
        assert [str(each) for each in loaded] == [model]  # for its size and for the run
        loaded.clear()


def test_a_subclassed_model_is_read_as_a_graph(found, tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("kgradcam_tests")
    class Subclassed(keras.Model):
        def __init__(self, **options):
            super().__init__(**options)
            self.maps, self.head = layers.Conv2D(2, 3, name="maps"), layers.Dense(3, name="head")

        def call(self, x):
            return self.head(keras.ops.mean(self.maps(x), (1, 2)))

    model = Subclassed()
    model(np.zeros((1, 20, 24, 3)))
    model.head.bias.assign([0, 0, 1e4])
    model.save(tmp_path / "sub.keras")
    finding = found("sub.keras")
    assert (finding["class_name"], finding["size"]) == ("class 2", [24, 20])
    assert finding["layer"].endswith("maps")
