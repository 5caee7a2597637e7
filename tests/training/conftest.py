"""A tiny backbone and a tiny dataset to train on."""

from collections.abc import Callable
from pathlib import Path

import keras
import pytest
from helpers import StopError, stop_after

from kgradcam.training import Augmentation, TrainingConfiguration, train


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
def configuration(squares: Path, backbone: Path) -> TrainingConfiguration:
    return TrainingConfiguration(
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


@pytest.fixture
def interrupted(configuration: TrainingConfiguration, tmp_path: Path) -> Path:
    """A model folder whose training stopped after the first of six epochs."""
    with pytest.raises(StopError):
        train(configuration, tmp_path / "model", report=stop_after(1))
    return tmp_path / "model"
