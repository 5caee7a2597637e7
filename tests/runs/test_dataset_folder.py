"""The dataset of a run, found from elsewhere, after a move of both, and by --dataset."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from kgradcam.errors import UserError
from kgradcam.evaluation.explanations import faithfulness_of_run
from kgradcam.pictures.run_gallery import read_photographs
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.dataset_folder import locate_dataset, relative_folder
from kgradcam.runs.detection import detect
from kgradcam.runs.run import Run
from kgradcam.runs.run_dataset import open_run_dataset
from kgradcam.runs.run_writer import RunWriter


@pytest.fixture
def run(configuration: Configuration, pets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose dataset was typed as a relative path, looked at from another folder."""
    from dataclasses import replace

    monkeypatch.chdir(tmp_path)
    run = detect(replace(configuration, dataset="pets"), Path("runs/run"))
    assert (run.info.dataset.name, run.info.dataset.folder) == ("pets", "../../pets")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return Run(tmp_path / "runs/run")


def names(run: Run, **options: Any) -> list[str]:
    return [name for name, _ in read_photographs(run, ["a.jpg", "b.jpg"], **options)]


def test_it_is_found_from_elsewhere(run: Run, tmp_path: Path) -> None:
    assert locate_dataset(run) == str(tmp_path / "pets")
    assert names(run) == ["a.jpg", "b.jpg"]
    assert len(faithfulness_of_run(run, limit=1).rows) > 0


def test_only_the_wanted_images_and_the_first_are_kept(run: Run) -> None:
    every = open_run_dataset(run).examples
    kept = open_run_dataset(run, wanted={"b.jpg"}).examples
    assert [each.file_name for each in kept] == ["a.jpg", "b.jpg"]
    assert [each.index for each in kept] == [0, 1]
    assert len(every) > 2


def test_it_is_found_after_both_were_moved(run: Run, tmp_path: Path) -> None:
    for name in ("pets", "runs"):
        shutil.move(tmp_path / name, tmp_path / "elsewhere" / name)
    moved = Run(Path("runs/run"))
    assert names(moved) == ["a.jpg", "b.jpg"]


def test_one_that_is_gone_is_named_and_can_be_given(run: Run, tmp_path: Path) -> None:
    (tmp_path / "pets").rename(tmp_path / "animals")
    with pytest.raises(
        UserError,
        match=rf"dataset of .*run is gone: there is no folder or file {tmp_path}/pets nor pets. "
        "Give its new place with --dataset",
    ):
        names(run)
    assert names(run, dataset=str(tmp_path / "animals")) == ["a.jpg", "b.jpg"]


def test_another_image_of_the_same_name_is_refused(run: Run, pets, tmp_path: Path) -> None:
    pets.add("a", [("dog", (4, 6, 20, 24))], size=(44, 33))
    with pytest.raises(UserError, match=r"a.jpg of .* has 44x33 pixels. .* an image of 40x30"):
        names(run)


def test_a_name_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert relative_folder("voc/2007", Path("run")) is None
    (tmp_path / "pets").mkdir()
    assert relative_folder("pets", Path("a/run")) == "../../pets"
    assert relative_folder(str(tmp_path / "pets"), tmp_path / "run") == "../pets"


@pytest.mark.parametrize("name", ["demo", "voc", "voc/2007"])
def test_a_name_counts_beside_a_folder_of_that_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kgradcam demo` writes into a folder `demo`, and its dataset has the same name."""
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir(parents=True)
    assert relative_folder(name, Path("demo/run")) is None


def test_the_commands_take_it(kgradcam, run: Run, tmp_path: Path) -> None:
    (tmp_path / "pets").rename(tmp_path / "animals")
    for command, out in (("visualize", "o.png"), ("report", "o.html")):
        result = kgradcam(command, run.folder, "--out", out)
        assert (result.code, "is gone: there is no folder" in result.err) == (1, True)
        given = ("--dataset", tmp_path / "animals")
        result = kgradcam(command, run.folder, *given, "--out", out, "--quiet")
        assert (result.code, result.out) == (0, f"{out}\n"), result.err
    # A photograph of the dataset is an input.
    picture = tmp_path / "animals/JPEGImages/a.jpg"
    before = picture.read_bytes()
    result = kgradcam("visualize", run.folder, *given, "--out", picture, "--force")
    assert (result.code, "is an input of this command" in result.err) == (1, True)
    assert picture.read_bytes() == before


def test_an_interrupted_run_finds_it_from_elsewhere(
    configuration: Configuration, pets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    monkeypatch.chdir(tmp_path)
    options = replace(configuration, dataset="pets", batch_size=1)
    with monkeypatch.context() as stopping:
        stopping.setattr(RunWriter, "end_parts", lambda writer: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            detect(options, tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert detect(options, tmp_path / "run", resume=True).info.counts.images == 4
