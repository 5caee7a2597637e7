"""Inputs of every kind, the commands that read them, and how a command may end."""

import contextlib
import io
import json
import shutil
import signal
import sys
import traceback
from pathlib import Path
from typing import Any
from unittest import mock

import PIL.Image
from helpers import StopError, TinyVoc, stop_after

from kgradcam.cli import main

PICTURE = "pets/JPEGImages/a.jpg"
DETECT = "detect --dataset pets --split all --class dog=2 --model tiny.keras --image-size 32"
TRAIN = "train --dataset pets --split all --model tiny.keras --image-size 16 --validation-split 0.5"
GIVEN = "--detections found.json --ground-truth truth.json"
VOC = "evaluate --detections comp4_det_test_dog.txt --ground-truth pets"
COMMANDS = {
    "explain": f"explain {PICTURE} --model tiny.keras --class 1 --out out.png --force",
    "layers": "layers tiny.keras",
    "detect": f"{DETECT} --out out --force",
    "visualize": "visualize run --out out.png --force",
    "evaluate": "evaluate run --out out --force",
    "wsol": "wsol run",
    "coco": f"coco {GIVEN}",
    "faithfulness": "faithfulness run --limit 1",
    "tune": "tune run --out out.json --threshold 0.3 --radius 0 --force",
    "compare": "compare run run",
    "report": "report run --out out.html --force",
    "train": f"{TRAIN} --out out --dry-run",
    "prepare": "prepare --devkit devkit --year 2007 --data-dir out",
}
OF_RUN = [
    *(COMMANDS[name] for name in "evaluate wsol faithfulness tune compare report".split()),
    *("visualize run --out out.png", "evaluate run --threshold 0.3 --radius 5 --bootstrap 3"),
    *("evaluate run --json", "coco run --markdown"),
]
OF_PETS = [
    *(COMMANDS[name] for name in "explain detect train".split()),
    *(VOC, "visualize run --dataset pets --out out.png", "faithfulness run --dataset pets"),
]
READERS = {
    "run/run.json": OF_RUN,
    "run/ground_truth.json": OF_RUN,
    "run/detections-0.35.json": OF_RUN,
    "run/heatmaps/00000.npz": OF_RUN,
    "truth.json": [f"{name} {GIVEN}" for name in ("evaluate --csv", "wsol", "coco --latex")],
    "found.json": [f"{name} {GIVEN}" for name in ("evaluate --json", "wsol --markdown", "coco")],
    "options.json": ["evaluate run --box-options options.json"],
    "options.toml": [f"{DETECT} --config options.toml --out out --dry-run"],
    "comp4_det_test_dog.txt": [VOC],
    PICTURE: OF_PETS,
    "pets/Annotations/a.xml": OF_PETS,
    "pets/ImageSets/Main/test.txt": OF_PETS,
    "tiny.keras": [COMMANDS["explain"], "layers tiny.keras"],
    "model/card.json": ["layers model", f"explain {PICTURE} --model model --out out.png"],
    "model/model.keras": ["layers model"],
    ".half.partial/start.json": ["detect --resume half"],
    ".half.partial/parts/00000.json": ["detect --resume half"],
    ".half.partial/run/heatmaps/00000.npz": ["detect --resume half"],
    "half-model/training.json": ["train --resume --out half-model"],
    "half-model/unfinished/checkpoint.npz": ["train --resume --out half-model"],
    "data/voc/2007/5.0.0/dataset_info.json": [
        "detect --dataset voc/2007 --data-dir data --model tiny.keras --out out"
    ],
}


class Slow(BaseException):
    """A command took too long."""


def make_place(place: Path) -> None:
    """Fills a folder with an input of each kind, and with an interrupted run and training."""
    import keras

    from kgradcam.runs.run_writer import RunWriter
    from kgradcam.training import TrainingConfiguration, train

    for part in ("JPEGImages", "Annotations"):
        (place / "pets" / part).mkdir(parents=True)
    pets = TinyVoc(place / "pets")
    pets.add("a", [("dog", (4, 6, 20, 24))])
    pets.add("b", [("cat", (10, 2, 30, 12)), ("dog", (0, 15, 10, 30))], size=(30, 40))
    pets.add("c", [("cat", (1, 1, 39, 29)), ("dog", (5, 5, 9, 9))], difficult=True)
    pets.add("d", [("dog", (5, 5, 15, 15))])
    pets.split("test", "a", "b")
    shutil.copytree(place / "pets", place / "devkit/VOC2007")
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(2, 2, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.save(place / "tiny.keras")
    row = {"image_id": 1, "category_id": 1, "bbox": [4, 6, 16, 18], "score": 0.5}
    (place / "found.json").write_text(json.dumps([row]))
    (place / "comp4_det_test_dog.txt").write_text("a 0.9 5 7 20 24\nb 0.8 1 16 10 30\n")
    (place / "options.toml").write_text('seed = 1\nthreshold = [0.3]\nclip = true\nsplit = "all"\n')
    info = place / "data/voc/2007/5.0.0/dataset_info.json"
    info.parent.mkdir(parents=True)
    info.write_text(json.dumps({"name": "voc", "version": "5.0.0", "splits": [{"name": "test"}]}))
    with contextlib.chdir(place):
        assert run(f"{DETECT} --out run").code == 0
        with mock.patch.object(RunWriter, "finish", side_effect=KeyboardInterrupt):
            assert run(f"{DETECT} --out half").code == 130
        assert run("tune run --out options.json --threshold 0.3 --radius 0").code == 0
        (place / "truth.json").write_bytes((place / "run/ground_truth.json").read_bytes())
        options: dict[str, Any] = {"dataset": "pets", "split": "all", "model": "tiny.keras"}
        options |= {"image_size": 16, "epochs": 1, "head_epochs": 1, "validation_split": "0.5"}
        configuration = TrainingConfiguration(**options)
        train(configuration, Path("model"))
        with contextlib.suppress(StopError):
            train(configuration, Path("half-model"), report=stop_after(1))
    missing = [name for name in READERS if not (place / name).is_file()]
    assert not missing, missing


class Ended:
    """How a command ended."""

    def __init__(self, code: Any, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def check(self) -> None:
        """Raises unless it ended as a command may."""
        assert self.code in (0, 1, 2), (self.code, self.err[-2000:])
        assert "Traceback" not in self.err, self.err[-2000:]
        assert len(self.err) < 20_000, self.err[:200]
        shown = self.out + self.err
        assert all(each.isprintable() or each in "\n\t\r" for each in shown), shown[-2000:]


def run(command: str | list[str], seconds: int = 120) -> Ended:
    """Runs a command in this process, which has imported TensorFlow."""
    import tensorflow as tf

    def stop(*_: Any) -> None:
        raise Slow(command)

    arguments = command.split() if isinstance(command, str) else command
    out, err = io.StringIO(), io.StringIO()
    limit, before = PIL.Image.MAX_IMAGE_PIXELS, signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        with (
            mock.patch.object(sys, "argv", ["kgradcam", *arguments]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main()
    except SystemExit as exit_:
        return Ended(exit_.code or 0, out.getvalue(), err.getvalue())
    except Exception:
        return Ended("an exception", out.getvalue(), traceback.format_exc())
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        PIL.Image.MAX_IMAGE_PIXELS = limit
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
    raise AssertionError("main always exits")
