"""Where results go: never over an input or a device, and onto consoles of any encoding."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import PIL.Image
import pytest
import typer

from kgradcam.cli.commands import app
from kgradcam.cli.output import print_result, require_absent
from kgradcam.cli.parsing import expand_home, image_size
from kgradcam.errors import UserError
from kgradcam.evaluation.tables import markdown

PROGRAM = [
    *(sys.executable, "-c"),
    "import sys; sys.argv[0] = 'kgradcam'; from kgradcam.cli import main; main()",
]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    PIL.Image.new("RGB", (8, 8)).save(path)
    return path


def test_an_input_is_never_replaced(tmp_path: Path, picture: Path) -> None:
    hard, soft = tmp_path / "hard.png", tmp_path / "soft.png"
    os.link(picture, hard)
    soft.symlink_to(picture)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/b.png").touch()
    ways = (picture, hard, soft, tmp_path / "folder/../a.png", tmp_path / "folder/b.png")
    for out in ways:
        with pytest.raises(UserError, match="is an input of this command, so even --force does"):
            require_absent(out, True, None, picture, str(tmp_path / "folder"), "resnet50")
    require_absent(tmp_path / "folder/c.png", False, picture, tmp_path / "folder")


def test_what_cannot_be_written_is_named_before_the_work(tmp_path: Path, picture: Path) -> None:
    def refused(out: Path, message: str, **options: bool) -> None:
        with pytest.raises(UserError, match=message):
            require_absent(out, options.get("force", True), suffixes=(".png", ".jpg"))

    refused(tmp_path / "a.bmp", r"--out must end in .png or .jpg, which is its format. Received:")
    refused(tmp_path / "a", "--out must end in")
    refused(picture / "b.png", "a.png is not a folder. Choose another --out")
    refused(picture, "a.png already exists. Choose another --out, or overwrite", force=False)
    (tmp_path / "b.png").mkdir()
    refused(tmp_path / "b.png", r"b.png is a folder. Give --out a file in it: .*/b.png/out.png")
    require_absent(picture, True, suffixes=(".png",))
    require_absent(tmp_path / "new/deep/c.JPG", False, suffixes=(".png", ".jpg"))
    require_absent(Path(os.devnull), False, suffixes=(".png",))


def test_explain_keeps_its_picture_and_obeys_the_suffix(
    kgradcam, tiny_model: Path, picture: Path, tmp_path: Path
) -> None:
    before = picture.read_bytes()
    common = ("explain", picture, "--model", tiny_model, "--force", "--quiet", "--out")
    for out in (picture, tiny_model):
        result = kgradcam(*common, out)
        assert result.code == 1
        assert "is an input" in result.err or "must end in" in result.err
    assert picture.read_bytes() == before
    for name, start in (("o.jpg", b"\xff\xd8"), ("o.pdf", b"%PDF"), ("o.svg", b"<?xml")):
        result = kgradcam(*common, tmp_path / name)
        assert (result.code, result.out, result.err) == (0, f"{tmp_path / name}\n", "")
        assert (tmp_path / name).read_bytes().startswith(start)


@pytest.fixture
def goats(tmp_path: Path) -> list[str]:
    """A command that prints a class name that few code pages have."""
    truth = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "山羊"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    row = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 1}
    (tmp_path / "found.json").write_text(json.dumps([row]))
    files = ("--detections", tmp_path / "found.json", "--ground-truth", tmp_path / "truth.json")
    return ["evaluate", *map(str, files)]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_console_may_lack_letters(goats: list[str], encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "120"}
    commands = [[*goats, *form] for form in ([], ["--csv"], ["--markdown"], ["--json"])]
    for command in [*commands, ["detect", "--help"]]:
        done = subprocess.run([*PROGRAM, *command], capture_output=True, env=environment)
        assert (done.returncode, done.stderr) == (0, b"")
        text = done.stdout.decode(encoding)
        assert ("\\u5c71\\u7f8a" in text) == (command[0] == "evaluate"), text


def test_doubts_about_the_data_are_one_line(pets, goats: list[str]) -> None:
    annotation = pets.root / "Annotations/a.xml"
    annotation.write_text(annotation.read_text().replace("<width>40", "<width>80"))
    results = pets.root / "comp4_det_test_dog.txt"
    results.write_text("a 0.9 5 7 20 24\n")
    done = subprocess.run(
        [*PROGRAM, "evaluate", "--detections", results, "--ground-truth", pets.root],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert done.stderr == (
        "Warning: 1 of 4 annotations give another image size than the file, such as a.jpg: 80x30, "
        "but the file has 40x30. Their boxes are read as pixels of the file.\n"
    )


@pytest.mark.parametrize(
    ("argument", "expanded"),
    [
        ("~/a.png", "HOME/a.png"),
        ("--out=~/a.png", "--out=HOME/a.png"),
        ("resnet50=~/w.h5", "resnet50=HOME/w.h5"),
        ("~", "HOME"),
        ("~\\a", "HOME\\a"),
        *((each, each) for each in ("a~/b", "~b", "a~", "--out=a~/b", "x=~y")),
    ],
)
def test_home_is_expanded_where_no_shell_has(
    monkeypatch: pytest.MonkeyPatch, argument: str, expanded: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_home(argument) == expanded.replace("HOME", "/home/me")


def test_home_is_expanded_on_the_command_line_and_in_files(
    kgradcam, monkeypatch: pytest.MonkeyPatch, goats: list[str], tmp_path: Path, pets
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    given = ("--detections=~/found.json", "--ground-truth", "~/truth.json", "--csv")
    assert kgradcam("evaluate", *given).code == 0
    (tmp_path / "a.toml").write_text('\ufeffdataset = "~/pets"\n', encoding="utf-8")
    result = kgradcam("detect", "--config", "~/a.toml", "--out", "~/run", "--dry-run")
    assert result.code == 0, result.err
    assert json.loads(result.out)["dataset"] == str(pets.root)


def test_names_reach_a_terminal_in_no_form(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[2J\x9b|\nb"

    class Named:
        def to_json(self) -> str:
            return json.dumps({"class": name}, ensure_ascii=False)

        def to_csv(self) -> str:
            return f"class,ap\n{name},0.5\n"

        def to_markdown(self) -> str:
            return markdown(["class", "ap"], [[name, "0.5"]])

    printed = {}
    for form in ("json", "csv", "markdown"):
        print_result(Named(), form)
        printed[form] = capsys.readouterr().out
        assert printed[form].replace("\n", "").isprintable()
    assert json.loads(printed["json"]) == {"class": name}
    assert printed["csv"].startswith("class,ap\na\\x1b[2J\\x9b|")
    assert printed["markdown"].splitlines()[2:] == [r"| a\x1b[2J\x9b\| b | 0.5 |"]


def test_an_older_result_leaves_no_chart(kgradcam, run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = kgradcam("evaluate", run.folder, "--thresholds", "0.3,0.5", "--radii", "0,5",
                      "--out", out)  # fmt: skip
    assert (result.code, (out / "options.png").is_file()) == (0, True)
    (out / "mine.png").touch()
    assert kgradcam("evaluate", run.folder, "--out", out, "--force").code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        *("evaluation.csv", "evaluation.json", "evaluation.md", "mine.png", "precision-recall.png"),
    ]


LARGE = ["9" * 5000, "9" * 4000, "-" + "9" * 30, "nan", "1e400"]


@pytest.mark.parametrize("value", LARGE, ids=[f"{value[:5]}-{len(value)}" for value in LARGE])
def test_numbers_are_finite_and_of_int32_in_every_option(kgradcam, value: str) -> None:
    commands, tried = typer.main.get_command(app).commands, 0
    for registered in app.registered_commands:
        name = registered.name or registered.callback.__name__.replace("_", "-")
        parameters = commands[name].params
        required = [each.name if each.opts[0][0] != "-" else f"{each.opts[0]}=x"
                    for each in parameters if each.required]  # fmt: skip
        hints = get_type_hints(registered.callback)
        for each in parameters:
            if re.search(r"\b(int|float|Numbers)\b", str(hints[each.name])):
                option = each.opts[0]
                result = kgradcam(name, *required, f"{option}={value}")
                assert (result.code, option in result.err) == (2, True), result.err
                tried += 1
    assert tried > 30


def test_image_sizes_have_a_limit() -> None:
    assert [image_size(text) for text in ("native", "448", "32x24")] == [None, 448, (32, 24)]
    for text in ("0", "-1", "100000", "9" * 5000, "nan", "\N{SUPERSCRIPT TWO}", "3x0", "x3"):
        with pytest.raises(UserError, match="--image-size must be native, a number of pixels"):
            image_size(text)


def test_half_of_a_surrogate_pair_is_escaped(kgradcam, goats: list[str], tmp_path: Path) -> None:
    truth = tmp_path / "truth.json"
    truth.write_text(truth.read_text().replace("\\u5c71\\u7f8a", "\\ud800"))
    for form in ((), ("--csv",), ("--markdown",), ("--latex",)):
        result = kgradcam(*goats, *form, "--out", tmp_path / "out", "--force")
        assert result.code == 0, result.err
    content = json.loads((tmp_path / "out/evaluation.json").read_bytes())
    assert content["rows"][0]["class"] == "\ud800"
    assert "\n\\ud800,given" in (tmp_path / "out/evaluation.csv").read_text()


def program(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)], text=True, stderr=subprocess.PIPE, **options
    )


def test_a_pipe_that_is_closed_ends_a_command_silently(goats: list[str]) -> None:
    for command in (["--version"], goats):
        read, write = os.pipe()
        os.close(read)
        done = program(*command, stdout=write)
        os.close(write)
        assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full device")
def test_a_full_disk_behind_stdout_is_an_error(goats: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = program(*goats, stdout=full)
    assert (done.returncode, done.stderr) == (1, "kgradcam: [Errno 28] No space left on device\n")


@pytest.mark.skipif(os.name != "posix", reason="closes a descriptor as a shell does")
@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_closed_streams_take_no_file(goats: list[str], tmp_path: Path, closed: Any) -> None:
    done = program(*goats, "--out", tmp_path / "out", stdout=subprocess.PIPE,
                   preexec_fn=lambda: [os.close(each) for each in closed])  # fmt: skip
    assert done.returncode == 0
    assert json.loads((tmp_path / "out/evaluation.json").read_text())["rows"]


@pytest.mark.parametrize("module", ["kgradcam.cli.commands", "typer", "kgradcam.cli.parsing"])
def test_ctrl_c_during_the_import_of_the_command(tmp_path: Path, module: str) -> None:
    """The interrupt comes when Python looks for the module."""
    source = (
        "import os, signal, sys\n"
        # A shell starts background jobs with SIGINT ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Finder:\n"
        "    def find_spec(name, *_):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder)\n"
        "from kgradcam.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "kgradcam: interrupted.\n")


def test_no_home_directory_is_one_line(
    kgradcam, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    for command in (["evaluate", "~/run"], ["detect", "--dataset", "demo", "--out", "x"]):
        result = kgradcam(*command)
        assert result.code == 1
        assert result.err.startswith("kgradcam: The user has no home directory. Set the")
