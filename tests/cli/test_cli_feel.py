"""What makes the command pleasant: configuration files, rehearsals, JSON, quiet, plain text."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from kgradcam.cli.commands import app
from kgradcam.cli.output import plain
from kgradcam.runs.run import Run

PROGRAM = [
    *(sys.executable, "-c"),
    "import sys; sys.argv[0] = 'kgradcam'; from kgradcam.cli import main; main()",
]


@pytest.fixture
def config(pets, tiny_model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "cats and dogs.toml"
    path.write_text(
        f"""
        dataset = {json.dumps(str(pets.root))}
        split = "all"
        class = ["cat=0", "dog=2"]
        model = {json.dumps(str(tiny_model))}
        threshold = [0.25, "0.5:0.7:0.1"]
        image-size = 24
        batch_size = 2
        radius = 0
        strict = true
        """
    )
    return path


def test_a_file_holds_the_options_and_flags_win(kgradcam, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = kgradcam("detect", "--config", config, "--radius", 3, "--class", "dog=2", "--out", out)
    assert (result.code, result.out) == (0, f"{out}\n"), result.err
    info = json.loads((out / "run.json").read_text())
    assert info["configuration"]["thresholds"] == [0.25, 0.5, 0.6, 0.7]
    boxes = info["configuration"]["boxes"]
    assert (boxes["smooth_radius"], boxes["rules"]) == (3, "levels")
    effective = info["configuration"]
    assert effective["classes"] == ["dog=2"]
    assert (effective["image_size"], effective["batch_size"]) == (24, 2)
    assert effective["strict"] is True


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("clas = ['dog']", 2, "'clas' is not an option of detect. Did you mean 'class'"),
        ("dataset = ", 1, "is not valid TOML"),
        ("box = {radius = 3}", 2, "'box' is not an option"),
        ("split = {a = 3}", 2, "'split' must be a value or a list. Received: a table"),
        ("config = 'x.toml'", 2, "'config' is not an option"),
        ("radius = -1", 2, "Invalid value for '--radius'"),
        ("threshold = [2.0]", 2, "is not in the range 0 to 1"),
    ],
)
def test_a_slip_in_the_file_is_one_clear_line(
    kgradcam, tmp_path: Path, text: str, code: int, message: str
) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    result = kgradcam("detect", "--config", path, "--out", tmp_path / "run")
    assert (result.code, result.out) == (code, "")
    assert message in " ".join(result.err.replace("│", " ").split())
    assert kgradcam("detect", "--config", "no.toml", "--out", "x").code == 1


def test_a_rehearsal_writes_nothing(kgradcam, config: Path, pets, tmp_path: Path) -> None:
    (pets.root / "JPEGImages/a.jpg").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    result = kgradcam("detect", "--config", config, "--out", tmp_path / "run", "--dry-run")
    assert result.code == 0, result.err
    assert sorted(tmp_path.rglob("*")) == before
    assert "skipped a.jpg" in result.err
    assert "4 images, classes cat, dog. Nothing was written." in result.err
    assert json.loads(result.out)["thresholds"] == [0.25, 0.5, 0.6, 0.7]
    result = kgradcam("detect", "--dataset", "demmo", "--out", tmp_path / "run", "--dry-run")
    assert (result.code, "Did you mean 'demo'" in result.err) == (1, True)


def test_every_command_that_reports_has_json(
    kgradcam, config: Path, pets, tiny_model: Path, tmp_path: Path
) -> None:
    def told(*arguments: object) -> dict:
        result = kgradcam(*arguments, "--json")
        assert result.code == 0, result.err
        return json.loads(result.out)

    run = tmp_path / "run"
    assert told("detect", "--config", config, "--out", run)["counts"]["images"] == 4
    assert told("evaluate", run)["rows"]
    assert told("compare", run, run, "--bootstrap", 10)
    choice = told(
        "tune", run, "--thresholds", "0.2,0.5", "--radii", 0, "--out", tmp_path / "o.json"
    )
    assert choice["threshold"] in (0.2, 0.5)
    picture = pets.root / "JPEGImages/a.jpg"
    found = told("explain", picture, "--model", tiny_model, "--out", tmp_path / "x.png")
    assert found["findings"][0]["image"] == str(picture)
    layers = told("layers", tiny_model)["layers"]
    assert [each["layer"] for each in layers if each["default"]] == ["maps"]
    assert "tensorflow" in told("env")


@pytest.mark.slow
def test_quiet_leaves_the_result_alone(
    kgradcam, config: Path, pets, tiny_model: Path, tmp_path: Path
) -> None:
    """Whatever has --quiet prints nothing on stderr with it, unless something went wrong."""
    run, planned, here = tmp_path / "run", tmp_path / "planned", tmp_path
    model, picture = ("--model", tiny_model), pets.root / "JPEGImages/a.jpg"
    detect = ("detect", "--config", config)
    tried = set()
    for arguments in (
        (*detect, "--dry-run", "--out", run),
        (*detect, "--out", run),
        (*detect, "--out", planned, "--plan", "--shards", 9),
        ("detect", "--resume", planned, "--shard", "9/9", "--trust-model"),
        ("merge", planned),
        ("merge", planned),
        ("detect", "--resume", planned, "--shard", "9/9"),
        ("evaluate", run, "--out", here / "result"),
        ("wsol", run, "--out", here / "wsol"),
        ("coco", run),
        ("faithfulness", run, "--limit", 1),
        ("check", run, "--fail-under", "energy=0"),
        ("tune", run, "--out", here / "o.json", "--thresholds", 0.5, "--radii", 0),
        ("compare", run, run, "--bootstrap", 10),
        ("visualize", run, "--out", here / "v.png"),
        ("report", run, "--out", here / "r.html"),
        ("export", run, "--format", "coco", "--out", here / "labels"),
        ("scores", run),
        ("train-refiner", run, "--out", here / "refiner.json"),
        ("explain", picture, *model, "--out", here / "e.png"),
        ("export-model", tiny_model, "--out", here / "served"),
    ):
        result = kgradcam(*arguments, "--quiet")
        assert (result.code, result.err) == (0, ""), arguments
        assert result.out or "--shard" in arguments, arguments
        tried.add(arguments[0])
    commands = typer.main.get_command(app).commands
    have_it = {
        name for name, each in commands.items() if any(p.name == "quiet" for p in each.params)
    }
    # A server, one that needs the devkit, one that needs a second dataset, and two that train or
    # detect for long.
    assert have_it - tried == {"explore", "prepare", "refine", "demo", "train"}


def test_report_is_a_page(kgradcam, config: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "pages/report.html"
    kgradcam("detect", "--config", config, "--out", run)
    result = kgradcam("report", run, "--out", out, "--count", 3, "--iou", 0.5)
    assert (result.code, result.out) == (0, f"{out}\n"), result.err
    assert out.read_text().startswith("<!DOCTYPE html>")
    again = kgradcam("report", run, "--out", out)
    assert (again.code, "already exists" in again.err) == (1, True)
    assert kgradcam("report", run, "--out", out, "--force", "--count", 0).code == 0


def test_more_pixels_are_admitted_by_option_and_environment(
    kgradcam, config: Path, pets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = kgradcam("detect", "--config", config, "--max-pixels", 1199, "--out", tmp_path / "few")
    assert (few.code, "more than 1,199 pixels; --max-pixels admits more" in few.err) == (1, True)
    monkeypatch.setenv("KGRADCAM_MAX_PIXELS", "1200")
    assert kgradcam("detect", "--config", config, "--out", tmp_path / "more").code == 0


def test_a_model_with_code_needs_a_flag(kgradcam, pets, tmp_path: Path) -> None:
    import keras

    model = tmp_path / "lambda.keras"
    keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Lambda(lambda x: x / 255),
            keras.layers.Conv2D(2, 2, name="maps"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    ).save(model)
    common = ["detect", "--dataset", pets.root, "--class", "dog=1", "--model", model]
    refused = kgradcam(*common, "--out", tmp_path / "run")
    assert refused.code == 1
    assert "holds a Lambda layer" in refused.err
    assert "--trust-model" in refused.err
    assert kgradcam(*common, "--out", tmp_path / "run", "--trust-model").code == 0
    assert kgradcam("layers", model, "--trust-model").code == 0


def test_names_from_data_command_no_terminal(
    make_voc, tiny_model: Path, kgradcam, tmp_path
) -> None:
    folder = make_voc("odd")
    folder.add("good", [("dog\u202e", (1, 1, 20, 20))])
    (folder.root / "JPEGImages/\x1b[2Jclear.jpg").write_bytes(b"")
    (folder.root / "Annotations/\x1b[2Jclear.xml").write_text("<annotation/>")
    run = tmp_path / "run"
    common = ("--model", tiny_model, "--out", run)
    result = kgradcam("detect", "--dataset", folder.root, "--class", "dog\u202e=2", *common)
    assert result.code == 0, result.err
    assert "skipped \\x1b[2Jclear.jpg: " in result.err
    assert "dog\\u202e" in kgradcam("evaluate", run).out
    assert plain("é山\n\x07\ud800") == "é山\n\\x07\\ud800"


def in_terminal(*arguments: object, columns: int = 80) -> list[str]:
    """The lines that a command shows in a terminal, without styles."""
    reader, writer = pty.openpty()
    program = subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        stdout=writer,
        stderr=writer,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns)},
    )
    os.close(writer)
    told = b""  # read while it runs: a terminal holds no more than a page
    try:
        while part := os.read(reader, 65_536):
            told += part
    except OSError:  # how the end of a terminal is told on Linux
        pass
    os.close(reader)
    assert program.wait() == 0, told.decode()
    return re.sub(r"\x1b\[[\d;]*m", "", told.decode()).splitlines()


@pytest.mark.parametrize("command", ["", "detect", "explain", "evaluate", "train"])
def test_help_fits_80_columns_and_names_sections(command: str) -> None:
    lines = in_terminal(*command.split(), "--help")
    examples = [line for line in lines if line.startswith("  kgradcam ")]
    assert max(len(line) for line in lines if line not in examples) <= 80
    assert len(examples) == bool(command)  # on one line, to be pasted
    assert not any("..." in line for line in lines if "  " in line.strip() and not command)
    assert "<bool>" not in "".join(lines)
    if command:
        assert {"Example:", "Options:"} <= set(lines)
        unsorted = lines[lines.index("Options:") + 1 :]
        assert [line for line in unsorted if line.startswith("  -")] == [
            "  -h, --help  Show this message and exit."
        ]


@pytest.mark.parametrize(
    "command",
    ["evaluate", "evaluate --bootstrap 50", "evaluate --thresholds 0.1:0.5:0.1", "wsol", "compare"],
)
def test_tables_fit_80_columns(command: str, run: Run) -> None:
    name, *options = command.split()
    runs = [run.folder] * (2 if name == "compare" else 1)
    lines = in_terminal(name, *runs, *options, "--quiet")
    assert len(lines) > 3
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)


def test_the_shell_completes_commands_and_options() -> None:
    def complete(words: str, count: int) -> list[str]:
        result = subprocess.run(
            PROGRAM,
            env={
                **os.environ,
                "_KGRADCAM_COMPLETE": "complete_bash",
                "COMP_WORDS": words,
                "COMP_CWORD": str(count),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        return result.stdout.split()

    assert complete("kgradcam de", 1) == ["detect", "demo"]
    assert "--dataset" in complete("kgradcam detect --dat", 2)


def test_every_command_shows_an_example(kgradcam) -> None:
    commands = (
        "detect evaluate tune compare visualize report explain explore demo prepare layers env"
    )
    for name in commands.split():
        assert f"kgradcam {name}" in kgradcam(name, "--help").out.split("Usage")[1][60:], name


def test_an_interrupt_in_a_destructor_is_not_lost(tmp_path: Path) -> None:
    """Python only prints what a destructor raises, and goes on."""
    program = """
import signal, time
from kgradcam import cli
from kgradcam.cli.commands import app

class Leaving:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def work():
    Leaving()
    time.sleep(60)

app.command("work")(work)
cli.main()
"""
    result = subprocess.run(
        [sys.executable, "-c", program, "work"],
        capture_output=True,
        text=True,
        timeout=50,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert result.returncode == 130
    assert "Traceback" not in result.stderr
