"""Fixtures of the tests of models."""

from pathlib import Path

import keras
import pytest


@pytest.fixture(scope="session")
def mobilenet_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    keras.utils.set_random_seed(0)
    keras.applications.MobileNet(weights=None).save_weights(path)
    return path
