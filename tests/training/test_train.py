"""Whole trainings: their effect on the weights, and the model folders they write."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kgradcam import GradCAM, normalize
from kgradcam.errors import UserError
from kgradcam.metrics.classification import classification_ap
from kgradcam.metrics.pointing_game import energy_inside
from kgradcam.models.classifier import load_classifier
from kgradcam.training import Augmentation, TrainingConfiguration, plan_training, train


def test_a_training_writes_a_model_folder(
    configuration: TrainingConfiguration, tmp_path: Path
) -> None:
    lines: list[str] = []
    card = train(configuration, tmp_path / "model", report=lines.append)
    # The background is dark: a large bright square is the easiest thing to learn.
    assert card["metrics"]["validation"]["ap"]["large"] == 1.0
    assert card["history"][0]["loss"] > card["history"][-1]["loss"]
    assert [row["stage"] for row in card["history"]] == ["head"] * 2 + ["fine-tune"] * 4
    assert [row["epoch"] for row in card["history"]] == [1, 2, 3, 4, 5, 6]
    assert card["history"][-1]["learning_rate"] == pytest.approx(0, abs=1e-6)
    assert [line.split()[0] for line in lines] == ["Warning:"] + ["epoch"] * 6
    assert card["layer"] == "late"
    assert card["classes"] == ["large", "small"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "card.json",
        "curves.png",
        "held-out.json",
        "logs",
        "model.keras",
    ]
    written = json.loads((tmp_path / "model" / "card.json").read_text("utf-8"))
    assert TrainingConfiguration.from_dict(written["training"]) == configuration
    assert logged(tmp_path / "model" / "logs", "loss") == [
        (row["epoch"], pytest.approx(row["loss"])) for row in card["history"]
    ]
    classifier = load_classifier(str(tmp_path / "model"))
    assert classifier.class_names == ("large", "small")
    pictures = plan_training(configuration).data.validation
    scores = classifier.model.predict(pictures.batches(), verbose=0)
    assert scores[pictures.labels[:, 0] == 1, 0].min() > scores[pictures.labels[:, 0] == 0, 0].max()


def logged(folder: Path, tag: str) -> list[tuple[int, Any]]:
    """The epochs and values of a series in a TensorBoard log."""
    return [
        (event.step, tf.make_ndarray(value.tensor))
        for file in folder.glob("events.*")
        for record in tf.data.TFRecordDataset(str(file))
        for event in [tf.compat.v1.Event.FromString(record.numpy())]
        for value in event.summary.value
        if value.tag == tag
    ]


@pytest.mark.parametrize(
    "frozen",
    [pytest.param({}, marks=pytest.mark.slow), {"frozen_until": "norm", "cached_views": 1}],
)
def test_heatmaps_are_logged_and_leave_the_training_as_it_was(
    configuration: TrainingConfiguration, tmp_path: Path, frozen: dict
) -> None:
    chosen = replace(configuration, learning_rate=0.001, head_epochs=1, epochs=2, **frozen)
    cards = [train(chosen, tmp_path / str(every), heatmaps=every) for every in (0, 2)]
    assert cards[0]["history"] == cards[1]["history"]
    plain, watched = (load_classifier(str(tmp_path / name)).model for name in ("0", "2"))
    for before, after in zip(plain.weights, watched.weights, strict=True):
        np.testing.assert_array_equal(before, after)
    log = tmp_path / "2" / "logs" / "heatmaps"
    assert not (tmp_path / "0" / "logs" / "heatmaps").exists()
    energies = logged(log, "energy")
    assert [step for step, _ in energies] == [0, 2]
    assert [step for step, _ in logged(log, "movement")] == [2]
    (_, first), _ = logged(log, "heatmaps")
    assert first[:2].tolist() == [b"32", b"32"]
    assert len(first) == 2 + 4  # each validation image that shows a class
    # The first record is of the untrained head.
    plan = plan_training(chosen)
    images, classes, boxes = plan.data.fixed_pictures()
    heatmaps = GradCAM(plan.network.whole)(images, class_per_image=classes).heatmaps
    expected = np.mean(
        [energy_inside(normalize(heatmaps[i, 0], (32, 32)), boxes[i]) for i in range(4)]
    )
    assert energies[0][1] == pytest.approx(expected, rel=1e-4)


def test_the_best_weights_are_kept(configuration: TrainingConfiguration, tmp_path: Path) -> None:
    card = train(replace(configuration, learning_rate=0.5, epochs=6), tmp_path / "model")
    assert card["metrics"]["validation"]["map"] == pytest.approx(
        max(row["map"] for row in card["history"])
    )


def test_patience_ends_a_stage_without_improvement(
    configuration: TrainingConfiguration, tmp_path: Path
) -> None:
    stuck = replace(configuration, learning_rate=0.0, epochs=30, patience=3)
    card = train(stuck, tmp_path / "model")
    # The first is the best, but the last stage has its three epochs all the same.
    assert [row["stage"] for row in card["history"]] == ["head"] * 2 + ["fine-tune"] * 3
    assert len({row["map"] for row in card["history"]}) == 1


def test_each_stage_changes_its_own_layers(
    configuration: TrainingConfiguration, backbone: Path, tmp_path: Path
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


@pytest.mark.parametrize(
    "changes",
    [
        {"augmentation": Augmentation(hide=0.5), "class_weights": True},
        {"dilation": True},
        {"last_layer": "early"},
        {"mixed_precision": True},
    ],
    ids=["hide", "dilation", "cut", "mixed precision"],
)
def test_models_of_all_options_can_be_explained(
    configuration: TrainingConfiguration, tmp_path: Path, changes: dict
) -> None:
    train(replace(configuration, head_epochs=1, epochs=1, **changes), tmp_path / "model")
    classifier = load_classifier(str(tmp_path / "model"))
    assert {variable.dtype for variable in classifier.model.variables} == {"float32"}
    assert classifier.model.get_layer("early").compute_dtype == "float32"
    explanation = GradCAM(classifier.model)(np.full((1, 40, 32, 3), 99, np.float32), classes=[1])
    rows = 20 if {"dilation", "last_layer"} & set(changes) else 10
    assert explanation.heatmaps.shape == (1, 1, rows, rows * 4 // 5)
    assert 0 < explanation.probabilities[0, 0] < 1


def test_the_training_step_is_traced_once_a_stage(
    configuration: TrainingConfiguration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


def test_a_model_folder_is_a_backbone(configuration: TrainingConfiguration, tmp_path: Path) -> None:
    train(replace(configuration, epochs=0), tmp_path / "first")
    further = replace(configuration, model=str(tmp_path / "first"), epochs=0, classes=("small",))
    card = train(further, tmp_path / "second")
    assert card["classes"] == ["small"]
    assert card["preprocess"] == "none"


def test_a_test_split_is_evaluated_at_the_end(
    configuration: TrainingConfiguration, squares: Path, tmp_path: Path
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


def test_a_loss_that_is_not_finite_ends_the_training(
    configuration: TrainingConfiguration, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=r"loss of epoch \d is (nan|inf).* learning_rate below 1e\+38"
    ):
        train(replace(configuration, learning_rate=1e38), tmp_path / "model")


def test_force_replaces_model_folders_only(
    configuration: TrainingConfiguration, tmp_path: Path
) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("all of it")
    with pytest.raises(UserError, match="is not a model folder, so --force does not replace it"):
        train(configuration, tmp_path / "precious", force=True)
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "all of it"


@pytest.mark.slow
def test_two_devices_give_the_losses_of_one(squares: Path, backbone: Path, tmp_path: Path) -> None:
    program = f"""
import json, sys
from pathlib import Path
import tensorflow as tf
if sys.argv[1] == "two":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import importlib
from kgradcam.training import TrainingConfiguration
training = importlib.import_module("kgradcam.training.train")
if sys.argv[1] == "two":
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    training.all_gpus = lambda: strategy
    assert strategy.num_replicas_in_sync == 2
configuration = TrainingConfiguration({str(squares)!r}, model={str(backbone)!r}, image_size=32,
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
