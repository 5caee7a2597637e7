"""Runs whose boxes are refined as they are made."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kgradcam.errors import DataWarning, UsageError, UserError
from kgradcam.evaluation.box_tables import boxes_of_run
from kgradcam.refine import RunRefiner, add_network, collect, fit, load_refiner, refine_run
from kgradcam.runs.coco_files import write_detections
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.detection import detect
from kgradcam.runs.run import Run
from kgradcam.runs.run_writer import RunWriter


@pytest.fixture
def configuration(configuration: Configuration) -> Configuration:
    default = Configuration()
    return replace(configuration, thresholds=default.thresholds, boxes=default.boxes, batch_size=1)


@pytest.fixture
def refiners(run: Run, tmp_path: Path) -> dict[str, Path]:
    """Refiners of the pets, which they forget."""
    examples = collect(run)
    with_features, network = add_network(run, examples)
    seen = fit(examples, "ridge")
    fitted = replace(fit(with_features, "network", network), images=frozenset())
    found = {
        "ridge": replace(seen, images=frozenset()),
        "network": fitted,
        "seen": seen,
        "other": replace(fitted, network=replace(network, model="another")),
    }
    paths = {name: tmp_path / f"{name}.json" for name in found}
    for name, refiner in found.items():
        refiner.save(paths[name])
    return paths


def files(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*.*")}


@pytest.mark.parametrize("rung", ["ridge", "network"])
def test_the_boxes_are_those_of_refine_afterwards(
    rung: str, configuration: Configuration, refiners: dict[str, Path], tmp_path: Path
) -> None:
    plain = detect(configuration, tmp_path / "plain")
    expected = refine_run(plain, load_refiner(refiners[rung]))
    made = detect(configuration, tmp_path / "made", refiner=RunRefiner(refiners[rung]))
    (found,) = made.detections([0.35]).values()
    assert len(found.boxes) > 5
    write_detections(tmp_path / "expected.json", expected)
    stored = (tmp_path / "made/detections-0.35.json").read_bytes()
    assert stored == (tmp_path / "expected.json").read_bytes()
    (before,) = plain.detections([0.35]).values()
    assert before.boxes.tolist() != found.boxes.tolist()
    content = json.loads((tmp_path / "made/run.json").read_text())
    digest = content["refiner"].pop("digest")
    assert content["refiner"] == {"file": str(refiners[rung])}
    assert digest != RunRefiner(refiners["seen"]).info.digest
    assert plain.info.refiner is None
    assert boxes_of_run(made).source["score"] == "refined"
    with pytest.warns(DataWarning, match="are refined. Those of other options"):
        assert boxes_of_run(made, [0.2]).source["score"] == configuration.boxes.score


def test_an_interrupted_run_resumes_with_its_refiner_only(
    configuration: Configuration,
    refiners: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kgradcam: Any,
) -> None:
    refiner, stopped = RunRefiner(refiners["network"]), tmp_path / "stopped"
    add, added = RunWriter.add, []

    def stop(writer: RunWriter, *arguments: Any) -> None:
        add(writer, *arguments)
        added.append(arguments)
        if len(added) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr(RunWriter, "add", stop)
        with pytest.raises(KeyboardInterrupt):
            detect(configuration, stopped, refiner=refiner)
    with pytest.raises(UserError, match=r"begun with other options. refiner: .* then, null now"):
        detect(configuration, stopped, resume=True)
    result = kgradcam("detect", "--resume", stopped, "--refiner", refiners["ridge"])
    assert result.code == 1
    assert "refiner.digest: " in result.err
    kept = refiners["network"].read_bytes()
    refiners["network"].unlink()
    result = kgradcam("detect", "--resume", stopped)
    assert (result.code, "network.json" in result.err) == (1, True)
    assert "Traceback" not in result.err
    refiners["network"].write_bytes(kept)
    result = kgradcam("detect", "--resume", stopped)
    assert result.code == 0, result.err
    detect(configuration, tmp_path / "whole", refiner=refiner)
    assert files(stopped) == files(tmp_path / "whole")


def test_what_does_not_fit_is_refused_before_any_heatmap(
    configuration: Configuration,
    refiners: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(RunWriter, "add")
    for name, message in (
        ("seen", r"was trained on 4 of the 4 images of .*run"),
        ("other", "needs the model that it was trained with, and .*run is of another"),
    ):
        with pytest.raises(UserError, match=message):
            detect(configuration, tmp_path / "new-run", refiner=RunRefiner(refiners[name]))
    with pytest.raises(UsageError, match=r"all heat levels.*Received: thresholds=\(0.5,\)"):
        detect(
            replace(configuration, thresholds=(0.5,)),
            tmp_path / "new-run",
            refiner=RunRefiner(refiners["ridge"]),
        )
    assert not (tmp_path / "new-run").exists()


def test_mistakes_are_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kgradcam: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    fit(collect(run), "offsets").save(Path("some.json"))
    dataset, model = run.info.configuration.dataset, run.info.configuration.model
    given = ["--dataset", dataset, "--split", "all", "--class", "dog=2", "--model", model]
    for name, options, code, message in (
        ("run/run.json", [], 1, "run.json is no refiner"),
        ("gone.json", [], 1, "gone.json"),
        ("some.json", ["--workers", "2"], 2, "kgradcam refine RUN --refiner some.json"),
        ("some.json", ["--plan"], 2, "kgradcam refine RUN --refiner some.json"),
        ("some.json", ["--score", "heat"], 2, "all heat levels"),
    ):
        result = kgradcam("detect", *given, "--out", "new", "--refiner", name, *options)
        assert result.code == code
        assert len([each for each in result.err.splitlines() if message in each]) == 1
        assert "Traceback" not in result.err
        assert not Path("new").exists()
