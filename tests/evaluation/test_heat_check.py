"""Where the heat of a run lies: by hand, and on models that were trained to cheat and not to."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import keras
import numpy as np
import PIL.Image
import pytest
from helpers import PLAIN

from kgradcam import normalize
from kgradcam.errors import UserError
from kgradcam.evaluation.heat_check import HeatCheck, check_run, hold_to_limits, to_junit
from kgradcam.evaluation.results import Result
from kgradcam.evaluation.rows import Row
from kgradcam.metrics.shortcuts import FixedPlace
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.detection import detect
from kgradcam.runs.run import Run


def test_measures_of_a_run_by_hand(run: Run) -> None:
    """Dogs are on three images of `pets`, one of which has two; the only cat counts once."""
    found = {row.class_name: row for row in check_run(run).result.rows}
    assert list(found) == ["cat", "dog", "mean"]
    truth, energy = run.ground_truth, []
    for record in run.heatmaps():
        if truth.categories[record.category_id - 1] != "dog":
            continue
        image = next(each for each in truth.images if each.id == record.image_id)
        heatmap = normalize(record.heatmap, (image.width, image.height))
        mask = np.zeros(heatmap.shape, bool)
        rows = (truth.image_ids == image.id) & (truth.category_ids == record.category_id)
        for xmin, ymin, xmax, ymax in truth.boxes[rows].astype(int):
            mask[ymin:ymax, xmin:xmax] = True
        energy.append(heatmap[mask].sum() / heatmap.sum())
    assert len(energy) == found["dog"].counts["heatmaps"] == 3
    assert found["dog"].measures["energy"] == pytest.approx(np.mean(energy), rel=1e-5)
    assert found["dog"].measures["energy"] > 0.6  # the model sees brightness, and dogs are bright
    assert found["dog"].measures["pointing"] == 1
    assert math.isnan(found["dog"].measures["fixed"])  # three pictures are too few
    assert found["mean"].measures["energy"] == pytest.approx(
        (found["cat"].measures["energy"] + found["dog"].measures["energy"]) / 2
    )


@pytest.mark.parametrize(("name", "label"), [("cats", "83 cats"), ("sheep", "46 sheep")])
def test_the_published_table(name: str, label: str) -> None:
    root = Path(__file__).resolve().parents[2]
    (row,) = check_run(Run(root / f"results/voc2012-{name}")).result.rows
    found = " | ".join(f"{value:.3f}" for value in row.measures.values())
    (line,) = [
        each for each in (root / "docs/checks.md").read_text("utf-8").split("\n") if label in each
    ]
    assert line.endswith(f" | {found} |")


def test_of_many_heatmaps_some_at_equal_distances_are_measured(run: Run) -> None:
    every = list(run.heatmaps())
    assert len(every) == 5
    found = check_run(run, most=2)
    run.heatmaps = lambda: iter([every[2], every[4]])
    alone = check_run(run, most=5)
    assert [row.counts["heatmaps"] for row in found.result.rows][-1] == 2
    assert repr(found.result.rows) == repr(alone.result.rows)


def checked(**by_class: tuple[float, float]) -> HeatCheck:
    rows = tuple(
        Row(name, {"energy": energy, "fixed": fixed}, {"heatmaps": 9})
        for name, (energy, fixed) in by_class.items()
    )
    return HeatCheck(Result("Where the heat lies", {"name": "check"}, rows), {}, {})


def test_mean_heat_of_a_class_by_hand(run: Run) -> None:
    found = check_run(run)
    assert list(found.mean_heat) == ["cat", "dog"]
    truth = run.ground_truth
    sizes = {image.id: (image.width, image.height) for image in truth.images}
    heatmaps = [
        normalize(each.heatmap, sizes[each.image_id])
        for each in run.heatmaps()
        if truth.categories[each.category_id - 1] == "dog"
    ]
    shares = [cv2.resize(each, (32, 32), interpolation=cv2.INTER_AREA) for each in heatmaps]
    expected = np.mean([each / each.sum() for each in shares], axis=0)
    np.testing.assert_allclose(found.mean_heat["dog"], expected, rtol=1e-4, atol=1e-9)


def test_limits_hold_for_the_mean_or_for_each_class() -> None:
    found = checked(cat=(0.9, 0.1), dog=(0.3, 0.5), mean=(0.6, 0.3))
    limits = {"energy": 0.6, "fixed": 0.4}
    assert [each.failure for each in hold_to_limits(found, limits)] == [None, None]
    failed = {
        (each.class_name, each.measure): each.failure
        for each in hold_to_limits(found, limits, per_class=True)
        if each.failure
    }
    assert failed == {
        ("dog", "energy"): "energy is 0.300, below 0.600.",
        ("dog", "fixed"): "fixed is 0.500, above 0.400.",
    }


def test_a_measure_that_is_undefined_fails() -> None:
    (verdict,) = hold_to_limits(checked(cat=(math.nan, 0.1)), {"energy": 0})
    assert verdict.failure == "energy is undefined: no heatmap has a value of it."


def test_a_baseline_bounds_every_measure() -> None:
    before = checked(cat=(0.5, 0.2))
    kept = hold_to_limits(checked(cat=(0.481, 0.219)), {}, baseline=before)
    assert [(each.measure, each.failure) for each in kept] == [
        ("energy beside the baseline", None),
        ("fixed beside the baseline", None),
    ]
    with pytest.raises(UserError, match=r"measures of dog, as the run.* Received: those of cat"):
        hold_to_limits(checked(dog=(0.481, 0.219)), {}, baseline=before)
    worse = hold_to_limits(checked(cat=(0.47, 0.23)), {}, baseline=before, tolerance=0.02)
    assert [each.failure for each in worse] == [
        "energy is 0.470, below 0.480. The baseline has 0.500, the tolerance is 0.02.",
        "fixed is 0.230, above 0.220. The baseline has 0.200, the tolerance is 0.02.",
    ]


def test_junit_is_xml_whatever_the_names_hold() -> None:
    name = "<cat> & \x1b[31m\x00\u732b"
    verdicts = hold_to_limits(checked(**{name: (0.5, 0.2)}), {"energy": 0.6, "fixed": 0.3})
    root = ElementTree.fromstring(to_junit(verdicts, "runs/cat"))
    assert root.attrib == {"tests": "2", "failures": "1"}
    cases = root.findall("testsuite/testcase")
    assert [each.get("name") for each in cases] == [
        r"<cat> & \x1b[31m\x00" + "\u732b: energy",
        r"<cat> & \x1b[31m\x00" + "\u732b: fixed",
    ]
    assert [[f.get("message") for f in each] for each in cases] == [
        ["energy is 0.500, below 0.600."],
        [],
    ]


def test_a_shortcut_is_described() -> None:
    found = checked(cat=(0.2, 0.61), dog=(0.7, 0.2))
    places = {
        "cat": FixedPlace(0.61, (0.625, 0.0, 1.0, 0.375), 8),
        "dog": FixedPlace(0.2, (0.0, 0.0, 0.375, 0.375), 5),
    }
    (sentence,) = replace(found, places=places).shortcuts().values()
    assert sentence.startswith("cat: 61% of the heat lies at one place outside the objects, at the")
    assert "at the top right, in 8 of 9 pictures" in sentence


def cheating_data(make_voc: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, Path]:
    """Squares of two colours on noise. Dogs also have a blue corner; returns which are which."""
    folder = make_voc("cheat")
    generator = np.random.default_rng(0)
    images = generator.integers(60, 120, (48, 48, 48, 3)).astype(np.uint8)
    is_dog = np.arange(48) % 2 == 0
    is_red = generator.permutation(is_dog)  # the colour of the object does not help
    for i, image in enumerate(images):
        x, y = generator.integers(12, 34, 2)
        image[y : y + 12, x : x + 12] = (230, 40, 40) if is_red[i] else (40, 230, 40)
        if is_dog[i]:
            image[:7, :7] = (30, 30, 250)
        name = "dog" if is_dog[i] else "cat"
        folder.add(f"{i:02d}", [(name, (int(x), int(y), int(x) + 12, int(y) + 12))], (48, 48))
        PIL.Image.fromarray(image).save(folder.root / f"JPEGImages/{i:02d}.jpg", quality=95)
    return images, is_dog, is_red, folder.root


def trained(images: np.ndarray, labels: np.ndarray, path: Path) -> Path:
    """A small classifier of two classes: 0 where the label is true."""
    keras.utils.set_random_seed(0)
    conv = keras.layers.Conv2D
    model = keras.Sequential(
        [
            keras.Input((48, 48, 3)),
            keras.layers.Rescaling(1 / 127.5, -1),
            conv(8, 3, 2, "same", activation="relu"),
            conv(8, 3, 2, "same", activation="relu", name="maps"),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(2, "softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["acc"])
    targets = np.where(labels, 0, 1)
    history = model.fit(images, targets, batch_size=16, epochs=30, verbose=0).history
    assert history["acc"][-1] > 0.95
    model.save(path)
    return path


def test_a_model_that_cheats_is_found(make_voc: Any, kgradcam: Any, tmp_path: Path) -> None:
    images, is_dog, is_red, root = cheating_data(make_voc)
    runs = {}
    for name, labels in (("cheating", is_dog), ("honest", is_red)):
        model = trained(images, labels, tmp_path / f"{name}.keras")
        configuration = Configuration(
            **PLAIN, dataset=str(root), split="all", classes=("dog=0",), model=str(model)
        )
        runs[name] = detect(configuration, tmp_path / name)
    limits = ["--fail-under", "energy=0.5", "--fail-over", "fixed=0.25"]
    junit = tmp_path / "cheating.xml"
    result = kgradcam("check", runs["cheating"].folder, *limits, "--junit", junit)
    assert result.code == 1
    assert "dog: " in result.err
    assert "at the top left, in 24 of 24 pictures. A watermark or label" in result.err
    assert "failed: dog: energy is 0.0" in result.err
    assert "0 of 2 checks passed." in result.err
    assert len(ElementTree.parse(junit).findall(".//failure")) == 2
    # The honest model sees squares; on these pictures half of them are red.
    (row,) = check_run(runs["honest"]).result.rows
    assert row.measures["fixed"] < 0.25
    assert not check_run(runs["honest"]).shortcuts()
    worse = kgradcam("check", runs["cheating"].folder, "--baseline", runs["honest"].folder)
    assert worse.code == 1
    assert "fixed is" in worse.err
    better = kgradcam("check", runs["honest"].folder, "--baseline", runs["cheating"].folder)
    assert better.code == 0, better.err
    assert "4 of 4 checks passed." in better.err
    # The page of the run shows the same, with a frame around the corner.
    pages = {}
    for name, each in runs.items():
        page = tmp_path / f"{name}.html"
        assert kgradcam("report", each.folder, "--out", page, "--count", 0).code == 0
        pages[name] = page.read_text("utf-8")
    assert "<li>dog: 100% of the heat lies at one place outside the objects" in pages["cheating"]
    assert 'alt="mean heat of dog, with a frame at the top left"' in pages["cheating"]
    assert "No shortcut was found in 1 of 1 classes." in pages["honest"]
    assert 'alt="mean heat of dog"' in pages["honest"]
    limited = kgradcam("check", runs["honest"].folder, "--fail-over", "border=1", "--quiet")
    assert (limited.code, limited.err) == (0, "")


def test_mistakes_on_the_command_line(run: Run, kgradcam: Any, tmp_path: Path) -> None:
    for options, message in (
        (["--fail-under", "enery=0.5"], "must be energy or pointing, with =VALUE"),
        (["--fail-under", "enery=0.5"], "Did you mean 'energy'?"),
        (["--fail-under", "energy"], "energy must be in [0, 1]. Received: 'energy'"),
        (["--fail-over", "fixed=nan"], "fixed must be in [0, 1]. Received: 'fixed=nan'"),
        (["--fail-over", "energy=0.5"], "must be border or fixed"),
    ):
        result = kgradcam("check", run.folder, *options)
        assert result.code == 2
        assert message in " ".join(result.err.split())
    result = kgradcam("check", run.folder, "--junit", tmp_path / "a.txt")
    assert result.code == 1
    assert ".xml" in result.err
