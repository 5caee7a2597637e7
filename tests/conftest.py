"""What several test files share."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from helpers import PLAIN, Result, TinyVoc

# TensorFlow is talkative; this must be said before its import.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


# What a test takes depends on what else the machine does.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real photographs and the seed's files, where this machine has one."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("KGRADCAM_SHARED", root / "../shared")).resolve()
    if not folder.is_dir():
        pytest.skip(f"needs the real photographs and the seed's files: no folder {folder}")
    return folder


@pytest.fixture
def make_voc(tmp_path: Path) -> Callable[..., TinyVoc]:
    """Makes empty folders in VOC layout."""

    def make(name: str = "voc") -> TinyVoc:
        for part in ("JPEGImages", "Annotations"):
            (tmp_path / name / part).mkdir(parents=True)
        return TinyVoc(tmp_path / name)

    return make


@pytest.fixture
def pets(make_voc: Callable[..., TinyVoc]) -> TinyVoc:
    """Five images of two shapes with cats and dogs, and a split `test` of all but the last."""
    folder = make_voc("pets")
    folder.add("a", [("dog", (4, 6, 20, 24))])
    folder.add("b", [("cat", (10, 2, 30, 12)), ("dog", (0, 15, 10, 30))], size=(30, 40))
    folder.add("c", [("cat", (1, 1, 39, 29))], difficult=True)
    folder.add("d")
    folder.add("e", [("dog", (5, 5, 15, 15)), ("dog", (20, 5, 35, 25))])
    folder.split("test", "a", "b", "c", "d")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `.keras` file: brightness, in a map of half the size, for three classes by 1, -1 and 2."""
    import keras

    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(2, 2, strides=2, padding="same", name="maps"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    kernel = np.zeros((2, 2, 3, 2), np.float32)
    kernel[..., 0] = 1 / (12 * 255)
    model.get_layer("maps").set_weights([kernel, np.zeros(2, np.float32)])
    model.layers[-1].set_weights(
        [np.array([[1.0, -1, 2], [0, 0, 0]], np.float32), np.zeros(3, np.float32)]
    )
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    model.save(path)
    return path


@pytest.fixture
def configuration(pets: TinyVoc, tiny_model: Path) -> Any:
    """Of a run: bright squares, found by a model that sees brightness; dogs are its output 2."""
    from kgradcam.boxes.options import BoxOptions
    from kgradcam.runs.configuration import Configuration

    return Configuration(
        **PLAIN,
        dataset=str(pets.root),
        split="all",
        classes=("cat=0", "dog=2"),
        model=str(tiny_model),
        thresholds=(0.3, 0.5),
        boxes=BoxOptions("single-threshold", 0, "heat"),
        batch_size=2,
    )


@pytest.fixture
def run(pets: TinyVoc, tiny_model: Path, tmp_path: Path) -> Any:
    """A run on `pets`, each heatmap as it is."""
    from kgradcam.boxes.options import BoxOptions
    from kgradcam.runs.configuration import Configuration
    from kgradcam.runs.detection import detect

    configuration = Configuration(
        **PLAIN,
        dataset=str(pets.root),
        split="all",
        classes=("cat=0", "dog=2"),
        model=str(tiny_model),
        thresholds=(0.5,),
        boxes=BoxOptions("single-threshold", 0, "heat"),
    )
    return detect(configuration, tmp_path / "run")


@pytest.fixture(scope="session")
def _object_store() -> Iterator[Any]:
    pytest.importorskip("s3fs", reason="needs the extra cloud")
    pytest.importorskip("moto", reason="needs moto, a fake of S3")
    from object_store import serve

    with serve() as store:
        yield store


@pytest.fixture
def store(_object_store: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket of a store on loopback, whose credentials are in the environment."""
    import boto3
    from object_store import BUCKETS, ENVIRONMENT

    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", _object_store.endpoint)
    _object_store.bucket = next(BUCKETS)
    client = boto3.client("s3")
    client.create_bucket(Bucket=_object_store.bucket)
    client.close()
    yield _object_store
    _object_store.seconds = 0.0
    _object_store.fails = _object_store.cuts = lambda number: False
    _object_store.requests.clear()
    _object_store.sent.clear()


@pytest.fixture
def kgradcam(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """Runs a command in this process, with TensorFlow's options as in a new one."""
    import PIL.Image

    from kgradcam.cli import main

    monkeypatch.setenv("COLUMNS", "200")
    # --max-pixels sets it for the process; the next test has it as it was.
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", PIL.Image.MAX_IMAGE_PIXELS)

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["kgradcam", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        if (tensorflow := sys.modules.get("tensorflow")) is not None:
            # `explain` sets it; graphs that are not optimized differ in the last bit.
            options = {"disable_meta_optimizer": False}
            tensorflow.config.optimizer.set_experimental_options(options)
        captured = capsys.readouterr()
        code = exit_.value.code
        return Result(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run


@pytest.fixture
def nested() -> Any:
    """A backbone inside a functional model: global average pooling and three classes."""
    import keras
    from networks import backbone, head

    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    return keras.Model(inputs, head(backbone()(inputs)))


@pytest.fixture
def reduced() -> str:
    """The reduced precision of this machine."""
    from kgradcam.heatmaps.precision import choose_precision

    precision = choose_precision("auto")
    if precision == "float32":
        pytest.skip("needs a CPU with AVX512-BF16 or AMX, or a GPU with tensor cores")
    return precision
