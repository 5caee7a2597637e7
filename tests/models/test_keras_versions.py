"""The checks of model files with each version of Keras from the declared minimum on."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

VERSIONS = ("3.14.1", "3.15.0", "3.15.1")
TESTS = ("test_keras_objects.py", "test_keras_file.py")


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_no_version_of_keras_runs_code_of_a_stranger(version: str, tmp_path: Path) -> None:
    if version == keras.__version__:
        pytest.skip("the quick tests run with this version")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    target = tmp_path / "keras"
    if subprocess.run([*pip, "--target", target, f"keras=={version}"]).returncode:
        pytest.skip(f"Keras {version} cannot be downloaded")
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{target}{os.pathsep}{root}"}
    used = subprocess.run(
        [sys.executable, "-c", "import keras; print(keras.__version__)"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert used.stdout.strip() == version
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
    files = [str(Path(__file__).with_name(name)) for name in TESTS]
    finished = subprocess.run(
        [*command, *files], env=environment, cwd=root, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stdout
