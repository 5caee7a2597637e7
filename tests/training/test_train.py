"""Training end to end: what is learned, what is written, and that a kill changes nothing."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kgradcam.errors import UserError
from kgradcam.metrics.classification import classification_ap
from kgradcam.models.classifier import load_classifier
from kgradcam.training.augmentation import Augmentation
from kgradcam.training.batches import Pictures, cache_features, image_labels
from kgradcam.training.network import Architecture
from kgradcam.training.plan import Configuration, plan_training
from kgradcam.training.train import read_plan, train


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `.keras` file of two convolutions and a normalization, with random weights."""
    keras.utils.set_random_seed(1)
    conv = keras.layers.Conv2D
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = conv(8, 3, 2, "same", activation="relu", name="early")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = conv(8, 3, 2, "same", activation="relu", name="late")(x)
    outputs = keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x))
    path = tmp_path_factory.mktemp("backbone") / "backbone.keras"
    keras.Model(inputs, outputs).save(path)
    return path


@pytest.fixture
def squares(make_voc: Callable) -> Path:
    """Sixteen images to train on and eight to validate on: a bright square on half of them.

    Small and large ones are classes of their own, and one has a difficult object only.
    """
    folder = make_voc("squares")
    names = [f"{i:02d}" for i in range(24)]
    for i, name in enumerate(names):
        box = (8, 4, 14, 10) if i % 4 == 0 else (2, 2, 36, 28)
        objects = [("small" if i % 4 == 0 else "large", box)] if i % 2 == 0 else []
        folder.add(name, objects, difficult=i == 14)
    folder.split("train", *names[:16])
    folder.split("val", *names[16:])
    return folder.root


@pytest.fixture
def configuration(squares: Path, backbone: Path) -> Configuration:
    return Configuration(
        dataset=str(squares),
        model=str(backbone),
        image_size=32,
        batch_size=4,
        head_epochs=2,
        epochs=4,
        learning_rate=0.05,
        patience=0,
        augmentation=Augmentation(scale=0.9),
    )


def test_labels_know_what_is_difficult(configuration: Configuration) -> None:
    data = plan_training(configuration).data
    assert data.class_names == ("large", "small")
    expected = np.zeros((16, 2))
    expected[0::4, 1] = 1
    expected[2::4, 0] = 1
    expected[14, 0] = -1
    np.testing.assert_array_equal(data.training.labels, expected)
    assert data.describe()["validation"] == {
        "split": "validation",
        "images": 8,
        "positives": {"large": 2, "small": 2},
    }


def test_what_is_written(configuration: Configuration, tmp_path: Path) -> None:
    lines: list[str] = []
    card = train(configuration, tmp_path / "model", report=lines.append)
    # The background is dark: a large bright square is the easiest thing to learn.
    assert card["metrics"]["validation"]["ap"]["large"] == 1.0
    assert card["history"][0]["loss"] > card["history"][-1]["loss"]
    assert [row["stage"] for row in card["history"]] == ["head"] * 2 + ["fine-tune"] * 4
    assert [row["epoch"] for row in card["history"]] == [1, 2, 3, 4, 5, 6]
    assert card["history"][-1]["learning_rate"] == pytest.approx(0, abs=1e-6)
    assert len(lines) == 6
    assert card["layer"] == "late"
    assert card["classes"] == ["large", "small"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "card.json",
        "curves.png",
        "logs",
        "model.keras",
    ]
    written = json.loads((tmp_path / "model" / "card.json").read_text("utf-8"))
    assert Configuration.from_dict(written["training"]) == configuration
    logged = [
        (value.tag, event.step, float(tf.make_ndarray(value.tensor)))
        for file in (tmp_path / "model" / "logs").iterdir()
        for record in tf.data.TFRecordDataset(str(file))
        for event in [tf.compat.v1.Event.FromString(record.numpy())]
        for value in event.summary.value
    ]
    assert [(step, value) for tag, step, value in logged if tag == "loss"] == [
        (row["epoch"], pytest.approx(row["loss"])) for row in card["history"]
    ]
    classifier = load_classifier(str(tmp_path / "model"))
    assert classifier.class_names == ("large", "small")
    pictures = plan_training(configuration).data.validation
    scores = classifier.model.predict(pictures.batches(), verbose=0)
    assert scores[pictures.labels[:, 0] == 1, 0].min() > scores[pictures.labels[:, 0] == 0, 0].max()


def test_the_best_weights_are_kept_and_not_the_last(
    configuration: Configuration, tmp_path: Path
) -> None:
    card = train(replace(configuration, learning_rate=0.5, epochs=6), tmp_path / "model")
    assert card["metrics"]["validation"]["map"] == pytest.approx(
        max(row["map"] for row in card["history"])
    )


def test_patience_ends_a_training_that_gets_no_better(
    configuration: Configuration, tmp_path: Path
) -> None:
    stuck = replace(configuration, learning_rate=0.0, epochs=30, patience=3)
    card = train(stuck, tmp_path / "model")
    # The first is the best, but the last stage has its three epochs all the same.
    assert [row["stage"] for row in card["history"]] == ["head"] * 2 + ["fine-tune"] * 3
    assert len({row["map"] for row in card["history"]}) == 1


def test_where_nothing_pretrained_may_learn_there_is_one_stage(
    configuration: Configuration,
) -> None:
    plan = plan_training(replace(configuration, frozen_until="late", epochs=0))
    assert plan.network.pretrained == ()
    assert plan.stages == (("head", 2, False),)
    assert plan_training(configuration).stages == (("head", 2, False), ("fine-tune", 4, True))


def test_only_the_head_learns_first_and_what_is_frozen_never(
    configuration: Configuration, backbone: Path, tmp_path: Path
) -> None:
    def weights(model: keras.Model) -> dict[str, np.ndarray]:
        return {each.path: each.numpy() for each in model.variables}

    before = weights(keras.models.load_model(backbone, compile=False))
    for changes, learning in (
        ({"epochs": 0}, set()),
        (
            {"epochs": 2, "head_epochs": 0},
            {"early/kernel", "early/bias", "late/kernel", "late/bias"},
        ),
        ({"epochs": 2, "head_epochs": 0, "frozen_until": "norm"}, {"late/kernel", "late/bias"}),
        (
            {"epochs": 2, "head_epochs": 0, "frozen_until": "norm", "cached_views": 2},
            {"late/kernel", "late/bias"},
        ),
    ):
        folder = tmp_path / f"model-{len(list(tmp_path.iterdir()))}"
        train(replace(configuration, **changes), folder)
        after = weights(load_classifier(str(folder)).model)
        changed = {
            path
            for path, value in before.items()
            if path in after and not np.array_equal(after[path], value)
        }
        assert changed == learning, changes


def test_cached_features_are_those_of_the_pictures(
    configuration: Configuration, tmp_path: Path
) -> None:
    plan = plan_training(replace(configuration, frozen_until="norm", cached_views=2))
    seen: list[int] = []
    features = cache_features(
        plan.data.training, plan.network.trunk, 2, tmp_path / "cache", seen.append
    )
    assert sum(seen) == 32
    assert features.maps.shape == (2, 16, 16, 16, 8)
    for view in range(2):
        batches = list(plan.data.training.batches(view))
        expected = np.concatenate([plan.network.trunk(images) for images, _ in batches])
        np.testing.assert_allclose(features.maps[view], expected, atol=2e-3)
        labels = np.concatenate([labels for _, labels in batches])
        np.testing.assert_array_equal(features.labels[view], labels)
    assert not np.allclose(features.maps[0], features.maps[1])
    # An epoch holds the rows of its view, each once, in an order of its own.
    first, third = (
        np.concatenate([maps for maps, _ in features.batches(epoch)]) for epoch in (0, 2)
    )
    assert not np.array_equal(first, third)
    for rows in (first, third):
        np.testing.assert_array_equal(
            np.sort(rows.reshape(16, -1), axis=0),
            np.sort(features.maps[0].astype(np.float32).reshape(16, -1), axis=0),
        )
    # What is there is not computed again.
    again = cache_features(
        plan.data.training, plan.network.trunk, 2, tmp_path / "cache", seen.append
    )
    assert sum(seen) == 32
    np.testing.assert_array_equal(again.maps, features.maps)


def test_a_picture_that_does_not_decode_teaches_nothing(
    configuration: Configuration, squares: Path
) -> None:
    path = squares / "JPEGImages" / "04.jpg"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 9 // 10])
    pictures: Pictures = plan_training(configuration).data.training
    labels = np.concatenate([labels for _, labels in pictures.batches(0)])
    assert len(labels) == 16
    assert (labels == -1).all(axis=1).sum() == 1
    assert [name for name, _ in pictures.dataset.left_out()] == ["04.jpg"]
    list(pictures.batches(1))
    assert len(pictures.dataset.left_out()) == 1


def test_an_epoch_is_a_function_of_its_number(configuration: Configuration) -> None:
    pictures = plan_training(configuration).data.training
    first, again, other = (
        np.concatenate([images for images, _ in pictures.batches(view)]) for view in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    whole = [len(labels) for _, labels in pictures.batches(0, whole_batches=True)]
    assert whole == [4, 4, 4, 4]


@pytest.mark.parametrize(
    "changes",
    [
        {"augmentation": Augmentation(hide=0.5, cutmix=0.5), "class_weights": True},
        {"architecture": Architecture(larger_maps="dilation", side_layers=("early",))},
        {"architecture": Architecture(pooling="logsumexp", last_layer="early")},
        {"mixed_precision": True},
    ],
    ids=["hide and mix", "dilation and side layer", "logsumexp of a cut", "mixed precision"],
)
def test_options_end_in_a_model_that_can_be_explained(
    configuration: Configuration, tmp_path: Path, changes: dict
) -> None:
    from kgradcam import GradCAM

    train(replace(configuration, head_epochs=1, epochs=1, **changes), tmp_path / "model")
    classifier = load_classifier(str(tmp_path / "model"))
    assert {variable.dtype for variable in classifier.model.variables} == {"float32"}
    assert classifier.model.get_layer("early").compute_dtype == "float32"
    explanation = GradCAM(classifier.model)(np.full((1, 40, 32, 3), 99, np.float32), classes=[1])
    rows = 20 if changes.get("architecture") else 10
    assert explanation.heatmaps.shape == (1, 1, rows, rows * 4 // 5)
    assert 0 < explanation.probabilities[0, 0] < 1


def test_one_trace_for_all_epochs(
    configuration: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training step is traced once a stage: each stage has other variables that learn."""
    from kgradcam.training import optimization

    traces = []
    original = optimization.MaskedCrossentropy.call

    def call(self, y_true, y_pred):
        traces.append(tf.executing_eagerly())
        return original(self, y_true, y_pred)

    monkeypatch.setattr(optimization.MaskedCrossentropy, "call", call)
    train(configuration, tmp_path / "model")
    graph_traces = traces.count(False)
    assert True not in traces
    train(replace(configuration, epochs=8, head_epochs=5), tmp_path / "longer")
    assert traces.count(False) == 2 * graph_traces


def test_an_interrupted_training_goes_on_in_the_same_process(
    configuration: Configuration, tmp_path: Path
) -> None:
    class StopError(Exception):
        pass

    def stop_after(count: int) -> Callable[[str], None]:
        def report(line: str) -> None:
            nonlocal count
            count -= 1
            if not count:
                raise StopError

        return report

    folder = tmp_path / "model"
    with pytest.raises(StopError):
        train(configuration, folder, report=stop_after(1))
    with pytest.raises(UserError, match=r"training of .* is not finished: kgradcam train --resume"):
        load_classifier(str(folder))
    with pytest.raises(UserError, match=r"already there.*--force, or go on with --resume"):
        train(configuration, folder)
    with pytest.raises(UserError, match="has another configuration"):
        train(replace(configuration, seed=1), folder, resume=True)
    assert read_plan(folder) == configuration
    with pytest.raises(StopError):
        train(configuration, folder, resume=True, report=stop_after(2))
    lines: list[str] = []
    card = train(configuration, folder, resume=True, report=lines.append)
    assert len(lines) == 3
    assert len(card["history"]) == 6
    with pytest.raises(UserError, match=r"no interrupted training in .* It is finished"):
        read_plan(folder)


def test_a_trained_model_is_a_backbone_too(configuration: Configuration, tmp_path: Path) -> None:
    train(replace(configuration, epochs=0), tmp_path / "first")
    further = replace(configuration, model=str(tmp_path / "first"), epochs=0, classes=("small",))
    card = train(further, tmp_path / "second")
    assert card["classes"] == ["small"]
    assert card["preprocess"] == "none"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("smal",)}, r"class 'smal' does not occur .* Did you mean 'small'"),
        ({"validation_split": "train"}, r"16 images are in both 'train' and 'train', as 00.jpg"),
        ({"validation_split": "vall"}, r"split='vall' is not a split .* Did you mean 'val'"),
        ({"validation_split": "0.99"}, r"validation_split=0.99 leaves 16 of 16 images"),
        ({"frozen_until": "norn"}, r"'norn' is no layer .* Did you mean 'norm'"),
    ],
)
def test_mistakes_are_told_before_the_work(
    configuration: Configuration, tmp_path: Path, changes: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train(replace(configuration, **changes), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_loss_that_is_no_number_ends_it(configuration: Configuration, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"loss of epoch \d is (nan|inf).* lower learning_rate than"
    ):
        train(replace(configuration, learning_rate=1e38), tmp_path / "model")


def test_what_has_no_effect_is_refused() -> None:
    with pytest.raises(UserError, match="cached_views needs frozen_until"):
        Configuration(cached_views=2)
    with pytest.raises(UserError, match="both 0"):
        Configuration(head_epochs=0, epochs=0)


def test_a_folder_that_is_not_ours_is_never_replaced(
    configuration: Configuration, tmp_path: Path
) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("all of it")
    with pytest.raises(UserError, match="is no model folder, so --force does not replace it"):
        train(configuration, tmp_path / "precious", force=True)
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "all of it"


def test_a_share_is_held_out_where_there_is_no_split(
    configuration: Configuration, squares: Path
) -> None:
    (squares / "ImageSets" / "Main" / "val.txt").unlink()
    data = plan_training(configuration).data
    assert (len(data.training.examples), len(data.validation.examples)) == (13, 3)
    names = [each.file_name for each in (*data.training.examples, *data.validation.examples)]
    assert len(set(names)) == 16
    (squares / "ImageSets" / "Main" / "train.txt").unlink()
    data = plan_training(configuration).data
    assert (len(data.training.examples), len(data.validation.examples)) == (19, 5)


def test_a_split_that_nothing_is_chosen_on_is_measured_at_the_end(
    configuration: Configuration, squares: Path, tmp_path: Path
) -> None:
    lists = squares / "ImageSets" / "Main"
    (lists / "test.txt").write_text("16\n17\n18\n")
    (lists / "val.txt").write_text("19\n20\n21\n22\n23\n")
    asked = replace(configuration, test_split="test")
    card = train(asked, tmp_path / "model")
    assert card["data"]["test"]["images"] == 3
    model = load_classifier(str(tmp_path / "model")).model
    test = plan_training(asked).data.test
    expected = classification_ap(test.labels, model.predict(test.batches(), verbose=0))
    assert list(card["metrics"]["test"]["ap"].values()) == pytest.approx(expected)
    with pytest.raises(UserError, match="16 images are in both 'train' and 'train'"):
        plan_training(replace(configuration, test_split="train"))


def test_all_labels_of_an_image(configuration: Configuration) -> None:
    examples = plan_training(configuration).data.training.examples[:1]
    assert image_labels(examples, ("large", "small", "other")).tolist() == [[0, 1, 0]]


def command(folder: Path, *options: object) -> list[str]:
    program = "from kgradcam.cli import main; main()"
    return [sys.executable, "-c", program, "train", "--out", str(folder), *map(str, options)]


@pytest.mark.slow
def test_a_training_that_was_killed_ends_as_one_that_was_not(
    squares: Path, backbone: Path, tmp_path: Path
) -> None:
    options = (
        *("--dataset", squares, "--model", backbone, "--image-size", 32, "--batch-size", 4),
        *("--head-epochs", 10, "--epochs", 30, "--patience", 0, "--cutmix", 0.5, "--quiet"),
    )
    subprocess.run(command(tmp_path / "whole", *options), check=True, capture_output=True)
    folder, moments, kills = tmp_path / "killed", random.Random(), 0
    arguments = command(folder, *options)
    while True:
        process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        checkpoint, begin = folder / "checkpoint.npz", time.time()
        while kills < 3 and process.poll() is None:
            # Not while TensorFlow is imported, but anywhere in the epochs after.
            if checkpoint.is_file() and checkpoint.stat().st_mtime > begin:
                time.sleep(moments.uniform(0, 0.5))
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        _, said = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said.decode()
        kills += 1
        arguments = command(folder, "--resume", "--quiet")
    assert kills == 3
    whole, killed = (
        json.loads((each / "card.json").read_text("utf-8")) for each in (tmp_path / "whole", folder)
    )
    assert whole["history"] == killed["history"]
    assert whole["metrics"] == killed["metrics"]
    weights = [
        load_classifier(str(each)).model.get_weights() for each in (tmp_path / "whole", folder)
    ]
    for expected, found in zip(*weights, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not os.path.exists(checkpoint)


@pytest.mark.slow
def test_two_devices_share_each_batch_and_end_alike(
    squares: Path, backbone: Path, tmp_path: Path
) -> None:
    program = f"""
import json, sys
from pathlib import Path
import tensorflow as tf
if sys.argv[1] == "two":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from kgradcam.training import train as training
from kgradcam.training.plan import Configuration
if sys.argv[1] == "two":
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    training.all_gpus = lambda: strategy
    assert strategy.num_replicas_in_sync == 2
configuration = Configuration({str(squares)!r}, model={str(backbone)!r}, image_size=32,
                              batch_size=4, head_epochs=1, epochs=2, patience=0)
card = training.train(configuration, Path(sys.argv[2]))
print(json.dumps([row["loss"] for row in card["history"]]))
"""
    losses = []
    for count in ("one", "two"):
        arguments = [sys.executable, "-c", program, count, str(tmp_path / count)]
        done = subprocess.run(arguments, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        losses.append(json.loads(done.stdout.splitlines()[-1]))
    np.testing.assert_allclose(*losses, rtol=1e-5)
    one, two = (
        load_classifier(str(tmp_path / each)).model.get_weights() for each in ("one", "two")
    )
    for expected, found in zip(one, two, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
