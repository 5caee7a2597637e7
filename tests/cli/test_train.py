"""`kgradcam train` on the command line, and the commands of docs/training.md."""

import importlib
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import pytest

from kgradcam.cli import main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training.md"


@pytest.fixture
def kgradcam(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process and an empty folder."""
    import tensorflow as tf

    # Commands change these for their whole process. Here all commands and tests share one.
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: None)
    monkeypatch.setattr(tf.config.optimizer, "set_experimental_options", lambda options: None)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kgradcam", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def my_pictures(make_voc: Callable) -> Path:
    """Six images of cups and plates in the layout of the page."""
    folder = make_voc("my-pictures")
    for i, name in enumerate("abcdef"):
        folder.add(name, [("cup" if i % 2 else "plate", (4, 4, 20 + i, 24))])
    folder.split("train", *"abcd")
    folder.split("val", *"ef")
    return folder.root


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3))
    maps = keras.layers.Conv2D(4, 3, 2, activation="relu", name="maps")(inputs)
    keras.Model(inputs, maps).save(tmp_path / "backbone.keras")
    return tmp_path / "backbone.keras"


def test_the_three_commands_of_the_page(kgradcam, my_pictures: Path, tmp_path: Path) -> None:
    block = re.search(r"^```sh\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert block is not None
    commands = [shlex.split(line)[1:] for line in block[1].splitlines()]
    assert [command[0] for command in commands] == ["train", "explain", "detect"]
    # The commands of the page, with a small image size and few epochs.
    (tmp_path / "small.toml").write_text("image-size = 32\nhead_epochs = 2\nepochs = 0\n")
    commands[0] += ["--config", "small.toml"]
    for command in commands:
        code, out, err = kgradcam(*command)
        assert code == 0, err
        assert out == f"{command[-1] if '--config' not in command else 'models/mine'}\n"
    card = json.loads((tmp_path / "models/mine/card.json").read_text("utf-8"))
    assert card["classes"] == ["cup", "plate"]
    assert card["preprocess"] == "efficientnet-lite0"
    assert card["training"]["image_size"] == 32
    assert (tmp_path / "explained.png").stat().st_size > 5_000
    run = json.loads((tmp_path / "runs/mine/run.json").read_text("utf-8"))
    assert run["model"]["outputs"] == {"cup": [0], "plate": [1]}
    assert run["counts"]["heatmaps"] == 2
    assert (run["configuration"]["split"], run["dataset"]["split"]) == ("held-out", "validation")
    again = [*commands[0], "--force", "--json"]
    code, out, err = kgradcam(*again)
    assert code == 0, err
    assert json.loads(out)["history"] == card["history"]
    code, out, err = kgradcam("evaluate", "runs/mine", "--json")
    assert code == 0, err
    assert {row["class"] for row in json.loads(out)["rows"]} >= {"cup", "plate"}
    code, out, err = kgradcam("layers", "models/mine")
    assert code == 0, err
    assert re.search(r"top_activation .* default", out)
    code, _, err = kgradcam("explain", "my-pictures/JPEGImages/a.jpg", "--model", "models/mine",
                            "--class", "cupp", "--out", "x.png")  # fmt: skip
    assert code == 1
    assert "Did you mean 'cup'" in err


def test_the_held_out_images_of_a_folder_without_lists(
    kgradcam, my_pictures: Path, backbone: Path, tmp_path: Path
) -> None:
    for path in (my_pictures / "ImageSets" / "Main").iterdir():
        path.unlink()
    data = ("--dataset", "my-pictures", "--model")
    code, _, err = kgradcam("train", *data, backbone, "--image-size", 32, "--batch-size", 4,
                            "--head-epochs", 1, "--epochs", 0, "--validation-split", "0.4",
                            "--out", "mine")  # fmt: skip
    assert code == 0, err
    assert "Warning: Few training images of cup 2, plate 2. 5 of each is little." in err
    assert "2 images were held out: detect --split held-out --model mine." in err
    listed = json.loads((tmp_path / "mine/held-out.json").read_text("utf-8"))
    assert listed["split"] == "all"
    held_out = ("detect", *data, "mine", "--split", "held-out", "--image-size", 32)
    code, out, err = kgradcam(*held_out, "--out", "run", "--quiet", "--json")
    assert code == 0, err
    assert json.loads(out)["counts"]["images"] == 2
    truth = json.loads((tmp_path / "run/ground_truth.json").read_text("utf-8"))
    assert [each["file_name"] for each in truth["images"]] == listed["images"]
    code, out, err = kgradcam("evaluate", "run", "--json")
    assert json.loads(out)["source"]["split"] == "held-out"
    code, _, err = kgradcam("report", "run", "--out", "report.html")  # finds the photographs
    assert code == 0, err

    (my_pictures / "JPEGImages" / listed["images"][0]).unlink()
    code, out, err = kgradcam(*held_out, "--out", "fewer", "--dry-run")
    assert code == 0, err
    assert "my-pictures all, read as a folder in VOC layout: 1 images" in err
    content = {"split": "all", "images": ["elsewhere.jpg"]}
    (tmp_path / "mine/held-out.json").write_text(json.dumps(content))
    code, _, err = kgradcam(*held_out, "--out", "other")
    assert code == 1
    assert "my-pictures has none of the 1 images of mine/held-out.json, such as elsewh" in err
    (tmp_path / "mine/held-out.json").unlink()
    code, _, err = kgradcam(*held_out, "--out", "other", "--quiet")
    assert (code, err.count("\n")) == (1, 1)
    assert "Received: model='mine'" in err


def test_a_dry_run_prints_the_plan(kgradcam, my_pictures, backbone, tmp_path) -> None:
    code, out, err = kgradcam(
        "train", "--dataset", my_pictures, "--model", backbone, "--batch-size", 2, "--dry-run",
        "--image-size", 64, "--out", "never",
    )  # fmt: skip
    assert code == 0, err
    for line in (
        "4 images of train: cup 2, plate 2",
        "2 images of val",
        "maps: 31 x 31 x 4",
        "1 layers, maps to maps",
        "5 epochs of 2 batches",
        "15 epochs of 2 batches",
    ):
        assert line in out
    assert not (tmp_path / "never").exists()


def test_the_command_line_overrides_a_config_file(
    kgradcam, my_pictures, backbone, tmp_path
) -> None:
    (tmp_path / "options.toml").write_text(
        f'dataset = "{my_pictures}"\nbatch-size = 4\nclass = ["cup"]\nhide = 0.5\nflip = false\n'
    )
    options = ("--config", "options.toml", "--model", backbone, "--dry-run", "--out", "never")
    code, out, err = kgradcam("train", *options)
    assert code == 0, err
    assert "cup 2" in out
    assert "plate" not in out
    assert "15 epochs of 1 batches" in out
    assert "15 epochs of 2 batches" in kgradcam("train", *options, "--batch-size", 2)[1]


def test_an_unknown_option_in_a_config_file_is_rejected(kgradcam, tmp_path) -> None:
    (tmp_path / "options.toml").write_text("epoch = 3")
    code, _, err = kgradcam("train", "--config", "options.toml", "--out", "never")
    assert code == 2
    assert "'epoch' is not an option of train. Did you mean 'epochs'" in err


def test_resume_rejects_other_options(kgradcam, tmp_path) -> None:
    code, _, err = kgradcam("train", "--resume", "--out", "nowhere", "--epochs", 3)
    assert code == 2
    assert "--resume continues with the options in training.json" in err
    assert "--epochs" in err
    code, _, err = kgradcam("train", "--resume", "--out", "nowhere")
    assert code == 1
    assert "There is no interrupted training in nowhere to resume." in err


def test_damaged_files_of_a_training_are_one_line_on_stderr(
    kgradcam, my_pictures, backbone, tmp_path, monkeypatch
) -> None:
    options = ("--dataset", my_pictures, "--model", backbone, "--image-size", 32, "--out", "mine")
    # `kgradcam.training.train` is the function, so the module is imported by its name.
    train_module = importlib.import_module("kgradcam.training.train")

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train_module, "write_scalars", interrupt)
        code, _, err = kgradcam("train", *options, "--quiet")
    assert code == 130
    assert "Continue with `kgradcam train --resume --out mine`." in err
    for name in ("unfinished/checkpoint.npz", "training.json"):
        (tmp_path / "mine" / name).write_bytes(b"")
        code, out, err = kgradcam("train", "--resume", "--out", "mine", "--quiet")
        assert (code, out) == (1, "")
        assert f"mine/{name} is " in err
        assert "Traceback" not in err
