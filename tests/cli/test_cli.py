"""The command line: what it prints, where, and how it exits."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import PIL.Image
import pytest
import typer
from typer.testing import CliRunner

from kgradcam import __version__
from kgradcam.cli.commands import app


@pytest.fixture
def run_folder(kgradcam, pets, tiny_model: Path, tmp_path: Path) -> Path:
    result = kgradcam(
        "detect", "--dataset", pets.root, "--split", "all", "--class", "cat=0", "--class", "dog=2",
        "--model", tiny_model, "--threshold", 0.5, "--boxes", "single-threshold", "--radius", 0,
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert result.code == 0, result.err
    return tmp_path / "run"


def process(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from kgradcam.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_help_is_instant_as_it_imports_no_tensorflow() -> None:
    program = (
        "import sys, kgradcam, kgradcam.cli\n"
        "try: kgradcam.cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'tensorflow', 'keras', 'cv2', 'matplotlib', 'numpy', 'tensorflow_datasets'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    for arguments in (["--help"], ["detect", "-h"], ["--version"]):
        result = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr


def test_explain_imports_and_optimizes_no_more_than_it_needs(
    pets, tiny_model: Path, tmp_path: Path
) -> None:
    program = (
        "import gc, sys\n"
        "from kgradcam.cli import main\n"
        "try: main()\n"
        "except SystemExit as exit_: assert not exit_.code\n"
        "import tensorflow as tf\n"
        "assert not {'tensorflow_datasets', 'sqlite3'} & set(sys.modules)\n"
        "assert gc.isenabled() and gc.get_freeze_count() > 100_000\n"
        "assert tf.config.optimizer.get_experimental_options()['disable_meta_optimizer']\n"
    )
    picture = pets.root / "JPEGImages/a.jpg"
    arguments = ["explain", picture, "--model", tiny_model, "--out", tmp_path / "x.png"]
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", sorted(typer.main.get_command(app).commands))
def test_help_fits_80_columns_and_has_words_for_types(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"], terminal_width=80)
    assert (result.exit_code, re.findall("<[a-z].*>", result.output)) == (0, [])
    lines = [line for line in result.output.splitlines() if len(line) > 80]
    assert all(line.startswith(f"  kgradcam {name} ") for line in lines)  # an example, to paste


def test_help_names_every_command(kgradcam) -> None:
    result = kgradcam("--help")
    assert result.code == 0
    for name in "detect evaluate visualize explain demo prepare layers env".split():
        assert f" {name} " in result.out


def test_version(kgradcam) -> None:
    assert kgradcam("--version").out == f"kgradcam {__version__}\n"


def test_detect_prints_the_folder_alone(run_folder: Path, kgradcam, pets, tiny_model) -> None:
    result = kgradcam(
        "detect", "--dataset", pets.root, "--class", "dog=2", "--model", tiny_model, "--out",
        run_folder, "--force", "--quiet",
    )  # fmt: skip
    assert (result.code, result.out, result.err) == (0, f"{run_folder}\n", "")
    info = json.loads((run_folder / "run.json").read_text())
    assert info["configuration"]["thresholds"] == [0.35]
    assert info["configuration"]["boxes"] == {
        "rules": "levels",
        "smooth_radius": 0,
        "score": "expected-iou",
        "iou_threshold": 0.35,
        "min_relative_score": 0.05,
    }
    assert info["dataset"]["split"] == "test"


def test_detect_reports_on_stderr(kgradcam, pets, tiny_model: Path, tmp_path: Path) -> None:
    (pets.root / "JPEGImages/a.jpg").write_bytes(b"")
    result = kgradcam(
        "detect", "--dataset", pets.root, "--class", "dog=2", "--model", tiny_model, "--out",
        tmp_path / "run",
    )  # fmt: skip
    assert result.code == 0
    assert result.out == f"{tmp_path / 'run'}\n"
    assert "heatmaps" in result.err
    assert "1/1 images" in result.err
    assert "by gradcam in float32, " in result.err
    assert (
        f"skipped a.jpg: {pets.root / 'JPEGImages/a.jpg'} is not a readable image: unknown format."
        in result.err
    )
    assert "1 images skipped." in result.err


def test_evaluate_prints_json_alone(run_folder: Path, kgradcam) -> None:
    result = kgradcam("evaluate", run_folder, "--json", "--iou", 0.3, "--threshold", 0.45)
    assert result.code == 0, result.err
    content = json.loads(result.out)
    assert content["protocol"]["name"] == "voc2010"
    assert [(row["class"], row["threshold"], row["iou"]) for row in content["rows"]] == [
        ("cat", 0.45, 0.3),
        ("dog", 0.45, 0.3),
        ("mean", 0.45, 0.3),
    ]
    assert [row["recall"] for row in content["rows"]] == [1.0, 1.0, 1.0]


def test_evaluate_prints_a_table_that_no_pipe_cuts(
    run_folder: Path, kgradcam, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    result = kgradcam("evaluate", run_folder)
    assert "Protocol voc2010, percent" in result.out
    assert "recall@0.5" in result.out
    assert "…" not in result.out
    markdown = kgradcam("evaluate", run_folder, "--markdown", "--protocol", "2021").out
    assert markdown.startswith("Protocol 2021, percent.\n\n| class | threshold |")


def test_evaluate_given_coco_files(run_folder: Path, kgradcam) -> None:
    of_run = json.loads(kgradcam("evaluate", run_folder, "--json").out)
    given = json.loads(
        kgradcam(
            "evaluate", "--detections", run_folder / "detections-0.5.json", "--ground-truth",
            run_folder / "ground_truth.json", "--json",
        ).out
    )  # fmt: skip
    as_given = {"boxes": "given", "radius": None, "threshold": None}
    assert given["rows"] == [{**row, **as_given} for row in of_run["rows"]]


def test_numbers_are_lists_ranges_and_repeated(run_folder: Path, kgradcam) -> None:
    result = kgradcam(
        "evaluate", run_folder, "--thresholds", "0.1:0.3:0.1,0.5", "--threshold", 0.2, "--json",
        "--radii", "0,4", "--iou", "0.3:0.7:0.2",
    )  # fmt: skip
    assert result.code == 0, result.err
    rows = json.loads(result.out)["rows"]
    assert {row["threshold"] for row in rows} == {0.1, 0.2, 0.3, 0.5}
    assert {row["radius"] for row in rows} == {0, 4}
    assert {row["iou"] for row in rows} == {0.3, 0.5, 0.7}
    assert "selected on the data it is scored on" in result.err


def test_evaluate_writes_files_and_charts(run_folder: Path, kgradcam, tmp_path: Path) -> None:
    out = tmp_path / "ap"
    command = (
        "evaluate",
        run_folder,
        "--thresholds",
        "0.2:0.8:0.2",
        "--radii",
        "0,5",
        "--out",
        out,
    )
    result = kgradcam(*command, "--baselines", "--bootstrap", 20)
    assert result.code == 0, result.err
    assert {path.name for path in out.iterdir()} == {
        *("evaluation.json", "evaluation.csv", "evaluation.md"),
        *("thresholds.png", "options.png", "precision-recall.png"),
    }
    content = json.loads((out / "evaluation.json").read_text())
    assert content["source"]["bootstrap"] == 20
    assert len(content["rows"]) == (4 * 2 + 3) * 3 * 3
    assert "full frame" in result.out
    for path in out.glob("*.png"):
        with PIL.Image.open(path) as image:
            assert image.width > 600
    again = kgradcam(*command)
    assert (again.code, "already exists" in again.err) == (1, True)
    assert kgradcam(*command, "--force").code == 0


def test_coco_ignores_difficult_objects_on_request(
    run_folder: Path, kgradcam, tmp_path: Path
) -> None:
    """Without the box of the difficult cat: one of two cats is found, or the only one."""
    truth_path = run_folder / "ground_truth.json"
    truth = json.loads(truth_path.read_text())
    (hard,) = (each["image_id"] for each in truth["annotations"] if each["difficult"])
    found = json.loads((run_folder / "detections-0.5.json").read_text())
    path = tmp_path / "found.json"
    path.write_text(json.dumps([each for each in found if each["image_id"] != hard]))
    recalls = []
    for options in ((), ("--ignore-difficult",)):
        result = kgradcam(
            *("coco", "--detections", path, "--ground-truth", truth_path, "--json", *options)
        )
        assert result.code == 0, result.err
        recalls.append(json.loads(result.out)["rows"][0]["AR100"])
    assert recalls == [0.5, 1]


def test_tuned_options_go_to_another_run(run_folder: Path, kgradcam, tmp_path: Path) -> None:
    out = tmp_path / "options.json"
    result = kgradcam(
        "tune", run_folder, "--metric", "ap@0.7", "--thresholds", "0.2:0.8:0.2", "--radii", "0,5",
        "--out", out,
    )  # fmt: skip
    assert (result.code, result.out) == (0, f"{out}\n"), result.err
    choice = json.loads(out.read_text())
    result = kgradcam("evaluate", run_folder, "--box-options", out, "--iou", 0.7, "--json")
    assert result.code == 0, result.err
    mean = json.loads(result.out)["rows"][-1]
    assert (mean["radius"], mean["threshold"]) == (choice["radius"], choice["threshold"])
    assert mean["ap"] == choice["value"]
    assert f"{out} was selected on the data it is scored on" in result.err


def test_fail_under_is_an_exit_code(run_folder: Path, kgradcam) -> None:
    assert kgradcam("evaluate", run_folder, "--fail-under", "recall@0.3=0.9").code == 0
    result = kgradcam("evaluate", run_folder, "--iou", 0.95, "--fail-under", "ap@0.95=1", "--json")
    assert result.code == 1
    assert json.loads(result.out)["rows"]
    assert re.search(r"ap@0\.95 is \d+\.\d\d %, under 100 %", result.err)
    assert kgradcam("evaluate", run_folder, "--fail-under", "recall@0.3=90%").code == 0


@pytest.mark.parametrize(
    "demand", ["ap@0.5", "ap@.5=90", "ap@0.5=1.01", "ap@0.5=nan%", "ap@.5=101%"]
)
def test_fail_under_takes_fractions(run_folder: Path, kgradcam, demand: str) -> None:
    result = kgradcam("evaluate", run_folder, "--fail-under", demand)
    assert (result.code, result.out) == (2, "")
    assert f"ap@0.5=40%, at most 1 or 100%. Received: '{demand}'." in result.err


def test_compare_prints_differences(run_folder: Path, kgradcam) -> None:
    result = kgradcam(
        "compare", run_folder, run_folder, "--iou", 0.5, "--bootstrap", 20, "--markdown"
    )
    assert result.code == 0, result.err
    assert "+0.0 [+0.0, +0.0]" in result.out


@pytest.mark.parametrize(("protocol", "measure"), [("coco", "AP75"), ("wsol", "MaxBoxAccV2")])
def test_measures_with_commands_of_their_own(
    run_folder: Path, kgradcam, tmp_path: Path, protocol: str, measure: str
) -> None:
    out = tmp_path / "out"
    result = kgradcam(protocol, run_folder, "--json", "--out", out)
    assert result.code == 0, result.err
    content = json.loads(result.out)
    assert (content["schema"], content["protocol"]) == (2, {"name": protocol})
    assert content["source"]["split"] == "all"
    assert 0 <= content["rows"][0][measure] <= 1
    assert json.loads((out / "evaluation.json").read_text()) == content
    assert len(list(out.iterdir())) == 3


def test_visualize_draws_the_run(run_folder: Path, kgradcam, tmp_path: Path) -> None:
    out = tmp_path / "pictures" / "ten.png"
    result = kgradcam("visualize", run_folder, "--count", 2, "--threshold", 0.4, "--out", out)
    assert (result.code, result.out) == (0, f"{out}\n"), result.err
    with PIL.Image.open(out) as image:
        assert image.width > 1000
    again = kgradcam("visualize", run_folder, "--out", out)
    assert (again.code, again.out) == (1, "")
    assert "already exists" in again.err
    assert kgradcam("visualize", run_folder, "--out", out, "--force").code == 0


def test_visualize_names_an_image_that_is_gone_or_damaged(
    run_folder: Path, kgradcam, pets, tmp_path: Path
) -> None:
    path = pets.root / "JPEGImages/e.jpg"
    whole = path.read_bytes()
    for damage in (lambda: path.write_bytes(whole[:-60]), path.unlink):
        damage()
        result = kgradcam("visualize", run_folder, "--out", tmp_path / "x.png")
        assert (result.code, result.out) == (1, "")
        assert f"{pets.root} has no readable image e.jpg" in result.err


def test_explain_names_the_top_class(pets, tiny_model: Path, kgradcam, tmp_path: Path) -> None:
    pictures = [pets.root / "JPEGImages" / name for name in ("a.jpg", "c.jpg")]
    out = tmp_path / "overlay.png"
    result = kgradcam("explain", *pictures, "--model", tiny_model, "--out", out)
    assert (result.code, result.out) == (0, f"{out}\n"), result.err
    lines = result.err.splitlines()
    assert lines[0].startswith(f"{pictures[0]}: class 2 ")
    assert lines[1].startswith(f"{pictures[1]}: class 2 ")
    assert lines[2] == (
        "tiny.keras: images at 40x30, pixels in 0..255 (if it was trained on 0..1: "
        "--scale-pixels), layer maps, float32."
    )
    assert out.is_file()


def test_explain_compares_methods_classes_and_models(
    pets, tiny_model: Path, kgradcam, tmp_path: Path
) -> None:
    picture, out = pets.root / "JPEGImages/a.jpg", tmp_path / "overlay.png"
    other = tmp_path / "other.keras"
    other.write_bytes(tiny_model.read_bytes())
    result = kgradcam(
        "explain", picture, "--model", tiny_model, "--class", 0, "--class", 2, "--out", out,
        "--compare", "layercam", "--compare", other,
    )  # fmt: skip
    assert (result.code, result.out) == (0, f"{out}\n"), result.err
    *lines, first, second = result.err.splitlines()
    assert (first[:28], second[:29]) == (
        "tiny.keras: images at 40x30,",
        "other.keras: images at 40x30,",
    )
    assert [line.removeprefix(f"{picture}: ").split(" ")[:3] for line in lines] == [
        [str(model), method, name]
        for model in (tiny_model, other)
        for method in ("gradcam", "layercam")
        for name in ("0", "2")
    ]
    with PIL.Image.open(out) as image:
        assert image.width * image.height > 9 * 400 * 300  # the photograph and eight heatmaps
        assert 0.6 < image.width / image.height < 1.7


def test_explain_shows_why_this_class_and_not_that_one(
    pets, tiny_model: Path, kgradcam, tmp_path: Path
) -> None:
    """The logits are 1, -1 and 2 times the mean brightness, so 2 less 1 is three times it."""
    picture, model = pets.root / "JPEGImages/a.jpg", ["--model", tiny_model]
    out = ["--out", tmp_path / "x.png"]
    result = kgradcam("explain", picture, *model, "--class", 2, "--against", 1, "--json", *out)
    assert result.code == 0, result.err
    (found,) = json.loads(result.out)["findings"]
    with PIL.Image.open(picture) as image:
        brightness = np.asarray(image, np.float64).mean() / 255
    assert found["class_name"] == "2 not 1"
    assert found["score"] == pytest.approx(3 * brightness, rel=1e-4)
    for options, code, message in (
        (["--against", 1], 1, "give --class. Received: no class"),
        (["--class", "0-1", "--against", 2], 1, "one output each"),
        (["--class", 2, "--against", 2], 1, "other classes than class_index=2"),
        (["--class", 2, "--against", 1, "--metrics"], 2, "not a difference"),
    ):
        result = kgradcam("explain", picture, *model, *options, "--out", tmp_path / "y.png")
        assert result.code == code
        assert message in " ".join(result.err.split())


def test_explain_measures(pets, tiny_model: Path, kgradcam, tmp_path: Path) -> None:
    result = kgradcam(
        "explain", pets.root / "JPEGImages/a.jpg", "--model", tiny_model, "--metrics",
        "--layer", "maps", "--out", tmp_path / "x.png",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "insertion: AUC, high is good" in result.err
    (line,) = [line for line in result.out.splitlines() if "a.jpg" in line]
    cells = re.split(r"\s{2,}", line.strip())
    assert cells[2:4] == ["gradcam", "class 2"]
    assert len(cells) == 11
    assert all(-1 <= float(cell) <= 1 for cell in cells[4:])


def test_faithfulness_of_a_run(run_folder: Path, kgradcam, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = kgradcam("faithfulness", run_folder, "--json", "--limit", 2, "--out", out)
    assert result.code == 0, result.err
    content = json.loads(result.out)
    assert content["source"]["images"] == 2
    assert {"insertion", "randomized", "energy"} < set(content["rows"][0])
    assert json.loads((out / "evaluation.json").read_text()) == content


def test_layers_marks_the_default(tiny_model: Path, kgradcam) -> None:
    result = kgradcam("layers", tiny_model)
    assert result.code == 0
    (line,) = [line for line in result.out.splitlines() if "maps" in line]
    assert "Conv2D" in line
    assert "any x any x 2" in line
    assert "default" in line


def test_layers_lists_the_last_of_each_stride_or_all(kgradcam, tmp_path: Path) -> None:
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((16, 12, 3)),
            layers.Conv2D(2, 3, padding="same", name="first"),
            layers.Conv2D(2, 3, padding="same", name="second"),
            layers.MaxPooling2D(name="pool"),
            layers.Conv2D(2, 3, padding="same", name="third"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )
    model.save(tmp_path / "m.keras")

    def listed(*options: str) -> list[list[str]]:
        result = kgradcam("layers", tmp_path / "m.keras", *options)
        rows = [re.split(r"\s{2,}", line.strip()) for line in result.out.splitlines()]
        return [row[:1] + row[2:] for row in rows if row[0] in "first second pool third".split()]

    assert listed() == [["second", "16 x 12 x 2"], ["third", "8 x 6 x 2", "default"]]
    assert [row[0] for row in listed("--all")] == ["first", "second", "pool", "third"]


def test_env_names_what_a_bug_report_needs(kgradcam, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    result = kgradcam("env")
    told = {line[:24].strip(): line[24:] for line in result.out.splitlines()}
    assert told["kgradcam"] == __version__
    assert told["data folder"] == str(tmp_path)
    assert told["XLA"] == "works"
    assert "CPU:0" in told["devices"]
    assert {"tensorflow", "keras", "oneDNN", "python"} < set(told)


def test_prepare_ends_with_the_folder(make_voc, kgradcam, tmp_path: Path) -> None:
    folder = make_voc("VOCdevkit/VOC2012")
    folder.add("x", [("dog", (1, 1, 20, 20))])
    folder.add("y", [("axolotl", (1, 1, 20, 20))])
    folder.split("train", "x", "y")
    result = kgradcam(
        "prepare", "--devkit", tmp_path / "VOCdevkit", "--year", 2012, "--data-dir", tmp_path / "d"
    )
    assert result.code == 0, result.err
    assert result.out == f"{tmp_path / 'd/voc/2012/5.0.0'}\n"
    assert "skipped y.jpg" in result.err
    assert "train: 1 images" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["detect"], 2, "Give either --out RUN for a new run, or --resume RUN"),
        (["dtect"], 2, "No such command 'dtect'"),
        (["detect", "--out", "x", "--threshold", "2"], 2, "Invalid value for '--threshold'"),
        (["detect", "--out", "x", "--image-size", "big"], 2, "--image-size must be native, a"),
        (
            ["detect", "--out", "x", "--score", "loud"],
            2,
            "score must be expected-iou, density, heat or constant",
        ),
        (["detect", "--out", "x", "--dataset", "demmo"], 1, "Did you mean 'demo'"),
        (["detect", "--out", ".", "--dataset", "demo"], 1, "No run can be renamed to ."),
        (["evaluate"], 2, "Give either RUN, or --detections FILE and --ground-truth FILE"),
        (["evaluate", "nowhere"], 1, "nowhere is no run: it holds no run.json"),
        (["evaluate", "x", "--json", "--markdown"], 2, "one of --json and --markdown"),
        (["evaluate", "x", "--protocol", "voc207"], 2, "Did you mean 'voc2007'"),
        (["evaluate", "x", "--protocol", "coco"], 2, "use `kgradcam coco`"),
        (["wsol", "x", "--radii", "0,5"], 2, "Give one --radius"),
        (["coco", "--detections", "x.json"], 2, "Give either RUN, or --detections FILE"),
        (
            ["wsol", "--detections", "x", "--ground-truth", "y", "--threshold", "0.5"],
            2,
            "--box-options need RUN",
        ),
        (["detect", "--out", "x", "--method", "gradcan"], 2, "Did you mean 'gradcam'"),
        (["detect", "--out", "x", "--model", "resnet5"], 1, "Did you mean 'resnet50'"),
        (
            ["train", "--out", "x", "--model", "efficientnet-lite"],
            1,
            "mean 'efficientnet-lite0'",
        ),
        (["explain", "no.jpg", "--out", "x.png"], 1, "No image no.jpg."),  # and no model is loaded
        (
            ["evaluate", "x", "--threshold", "0.1:0.5:0"],
            2,
            "'0.1:0.5:0' is not an increasing range",
        ),
        (
            ["evaluate", "x", "--threshold", "0.1,x"],
            2,
            "'x' is neither a number nor START:STOP:STEP",
        ),
        (["evaluate", "x", "--iou", "0:1:0.00001"], 2, "more than 10,000 numbers"),
        (["evaluate", "x", "--radii", "2.5"], 2, "2.5 is not a whole number of pixels"),
        (["evaluate", "x", "--box-options", "no.json"], 1, "No file no.json"),
        (["tune", "x", "--out", "o.json", "--metric", "map"], 1, "x is no run"),
        (["compare", "x"], 2, "Give two runs or more"),
        (["evaluate", "--detections", "a.json", "--ground-truth", "b.json"], 1, "No file b.json"),
        (["visualize", "nowhere", "--out", "x.png"], 1, "nowhere is no run"),
        (["explain", "no.jpg", "--model", "resnet5O", "--out", "x.png"], 1, "mean 'resnet50'"),
        (["explain", "no.jpg", "--compare", "layercan", "--out", "x.png"], 1, "mean 'layercam'"),
        (["layers", "resnet5O"], 1, "Did you mean 'resnet50'"),
        (["prepare", "--devkit", "nowhere", "--year", "2007"], 1, "No folder nowhere"),
    ],
)
def test_mistakes_are_one_clear_line(
    kgradcam, tmp_path: Path, monkeypatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = kgradcam(*arguments)
    assert (result.code, result.out) == (code, "")
    assert message in " ".join(result.err.replace("│", " ").split())
    assert "Traceback" not in result.err


def test_an_unknown_class_and_layer_get_hints(pets, tiny_model: Path, kgradcam, tmp_path) -> None:
    common = ["detect", "--dataset", pets.root, "--model", tiny_model, "--out", tmp_path / "x"]
    result = kgradcam(*common, "--class", "dgo=1")
    assert (result.code, "Did you mean 'dog'?" in result.err) == (1, True)
    result = kgradcam(*common, "--class", "dog=1", "--layer", "map")
    assert (result.code, "Did you mean 'maps'?" in result.err) == (1, True)
    assert not (tmp_path / "x").exists()


def test_a_closed_pipe_is_no_drama(tiny_model: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", "from kgradcam.cli import main; main()"]
    with os.fdopen(writer, "w") as pipe:
        result = subprocess.run(
            [*command, "layers", str(tiny_model)],
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
