"""Where results go: never over an input or a device, and onto consoles of any encoding."""

import json
import os
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest

from kgradcam.cli.output import print_result, require_absent
from kgradcam.cli.parsing import expand_home
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
