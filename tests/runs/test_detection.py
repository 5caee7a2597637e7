"""From a dataset to a run, with a model whose heatmaps are known."""

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from kgradcam.boxes.find import find_boxes
from kgradcam.boxes.normalization import normalize
from kgradcam.boxes.options import BoxOptions
from kgradcam.boxes.scores import score_boxes
from kgradcam.boxes.single_threshold import single_threshold_boxes
from kgradcam.data.images import read_image
from kgradcam.data.voc_builder import prepare
from kgradcam.errors import DataWarning, UsageError, UserError
from kgradcam.heatmaps.frozen import FrozenExplainer
from kgradcam.heatmaps.graph_rewriting import CannotFreezeError
from kgradcam.heatmaps.precision import choose_precision
from kgradcam.runs import describing, detection, drawn_boxes
from kgradcam.runs.coco_files import read_detections
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.detection import detect
from kgradcam.runs.drawn_boxes import draw_boxes
from kgradcam.runs.explaining import load_model, make_explainer
from kgradcam.runs.run import Run, detections_name
from kgradcam.runs.run_info import Counts


def table(run: Run, threshold: float) -> list[tuple[int, int, list[float]]]:
    found = run.detections([threshold])[run.options.smooth_radius, threshold]
    return [
        (int(image), int(category), box.tolist())
        for image, category, box in zip(
            found.image_ids, found.category_ids, found.boxes, strict=True
        )
    ]


def test_a_split_without_any_object_has_no_class_to_detect(
    make_voc, configuration: Configuration, tmp_path: Path
) -> None:
    folder = make_voc("empty")
    folder.add("a")
    folder.add("b")
    with pytest.raises(
        UserError,
        match=r"None of the 2 images of split 'all' of .* has an annotated object, so there is no",
    ):
        detect(replace(configuration, dataset=str(folder.root), classes=("all",)), tmp_path / "run")


def test_clipping_keeps_the_image_of_a_stray_box(
    pets, configuration: Configuration, tmp_path: Path
) -> None:
    annotation = pets.root / "Annotations/a.xml"
    annotation.write_text(annotation.read_text().replace("<xmin>5<", "<xmin>-3<"))
    assert detect(configuration, tmp_path / "whole").info.counts.images == 3
    run = detect(replace(configuration, clip=True), tmp_path / "clipped")
    assert run.info.counts.images == 4
    assert run.ground_truth.boxes[0].tolist() == [0, 6, 20, 24]


def test_large_images_at_native_size_are_warned_of(
    configuration: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 x 30 pixels, with the limit lowered to 1,000 pixels. Resized images need no warning."""
    monkeypatch.setattr(describing, "_LARGE_MEGAPIXELS", 0.001)
    monkeypatch.setattr(describing, "_GB_PER_MEGAPIXEL", 2500)
    line = r"[a-e].jpg has 0 megapixels. At its native size it takes about 3 GB .* --image-size"
    with pytest.warns(DataWarning, match=line):
        detect(replace(configuration, image_size=None), tmp_path / "native")
    detect(replace(configuration, image_size=32), tmp_path / "resized")


def test_bright_squares_are_boxed(configuration: Configuration, tmp_path: Path) -> None:
    run = detect(configuration, tmp_path / "run")
    assert run.ground_truth.categories == ("cat", "dog")
    # Images without an object of the classes are left out; the others are numbered from 1.
    assert [(image.id, image.file_name) for image in run.ground_truth.images] == [
        (1, "a.jpg"),
        (2, "b.jpg"),
        (3, "c.jpg"),
        (4, "e.jpg"),
    ]
    # A map of half the size puts the squares' edges within a pixel of the truth; the last
    # component in raster order comes first. Both classes see the same brightness.
    b_boxes = [[0, 15, 10, 40 - 10], [10, 2, 30, 12]]
    expected = {
        (1, 2): [[4, 6, 20, 24]],
        (2, 1): b_boxes,
        (2, 2): b_boxes,
        (3, 1): [[1, 1, 39, 29]],
        (4, 2): [[20, 5, 35, 25], [5, 5, 15, 15]],
    }
    found: dict[tuple[int, int], list[list[float]]] = {}
    for image, category, box in table(run, 0.5):
        found.setdefault((image, category), []).append(box)
    assert list(found) == list(expected)
    for key, boxes in expected.items():
        np.testing.assert_allclose(found[key], boxes, atol=1.01)


def test_stored_heatmaps_are_the_models(configuration: Configuration, pets, tmp_path: Path) -> None:
    run = detect(configuration, tmp_path / "run")
    records = {(record.image_id, record.category_id): record for record in run.heatmaps()}
    assert sorted(records) == [(1, 2), (2, 1), (2, 2), (3, 1), (4, 2)]
    image = read_image(pets.root / "JPEGImages/e.jpg").astype(np.float64)
    brightness = image.reshape(15, 2, 20, 2, 3).mean(axis=(1, 3, 4)) / 255
    # The weight of output 2 is 2, so alpha is 2 over the number of cells.
    np.testing.assert_allclose(records[4, 2].heatmap, 2 * brightness / 300, rtol=1e-4)
    assert records[4, 2].score == pytest.approx(2 * brightness.mean(), rel=1e-5)
    logits = brightness.mean() * np.array([1, -1, 2])
    softmax = np.exp(logits) / np.exp(logits).sum()
    assert records[4, 2].probability == pytest.approx(softmax[2], rel=1e-5)


def test_any_threshold_is_drawn_from_the_stored_maps(
    configuration: Configuration, tmp_path: Path
) -> None:
    run = detect(configuration, tmp_path / "run")
    stored = run.detections([0.3, 0.5])
    drawn = draw_boxes(run.heatmaps(), run.ground_truth.images, [0.3, 0.5], [0], run.options)
    for option in ((0, 0.3), (0, 0.5)):
        for name, values in vars(stored[option]).items():
            np.testing.assert_array_equal(values, getattr(drawn[option], name), err_msg=name)
    asked_at_once = detect(
        replace(configuration, thresholds=(0.4,)), tmp_path / "other"
    ).detections([0.4])[0, 0.4]
    later = run.detections([0.4])[0, 0.4]
    np.testing.assert_array_equal(later.boxes, asked_at_once.boxes)
    np.testing.assert_array_equal(later.scores, asked_at_once.scores)


def test_boxes_and_scores_are_those_of_the_heatmap(
    configuration: Configuration, tmp_path: Path
) -> None:
    run = detect(
        replace(configuration, boxes=BoxOptions("single-threshold", 5, "heat")), tmp_path / "run"
    )
    found = run.detections([0.3])[run.options.smooth_radius, 0.3]
    sizes = {image.id: (image.width, image.height) for image in run.ground_truth.images}
    for record in run.heatmaps():
        heatmap = normalize(record.heatmap, sizes[record.image_id])
        boxes = single_threshold_boxes(heatmap, 0.3, 5)
        mine = (found.image_ids == record.image_id) & (found.category_ids == record.category_id)
        np.testing.assert_array_equal(found.boxes[mine], boxes)
        scores = score_boxes(heatmap, boxes, record.probability, "heat")
        np.testing.assert_array_equal(found.scores[mine], scores)


def test_the_constant_score(configuration: Configuration, tmp_path: Path) -> None:
    run = detect(
        replace(configuration, boxes=BoxOptions("single-threshold", 0, "constant")),
        tmp_path / "run",
    )
    assert set(run.detections([0.5])[run.options.smooth_radius, 0.5].scores) == {1.0}


@pytest.mark.parametrize("batch_size", [1, 16])
def test_the_batch_size_does_not_matter(
    configuration: Configuration, tmp_path: Path, batch_size: int
) -> None:
    one = detect(configuration, tmp_path / "one")
    other = detect(replace(configuration, batch_size=batch_size), tmp_path / "other")
    assert table(one, 0.5) == table(other, 0.5)
    maps = {(r.image_id, r.category_id): r.heatmap for r in one.heatmaps()}
    for record in other.heatmaps():
        np.testing.assert_allclose(
            record.heatmap, maps[record.image_id, record.category_id], rtol=1e-5
        )


def test_equal_runs_are_equal_files(configuration: Configuration, tmp_path: Path) -> None:
    for name in ("one", "other"):
        detect(configuration, tmp_path / name)
    files = sorted(path for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert [str(path.relative_to(tmp_path / "one")) for path in files] == [
        "detections-0.3.json",
        "detections-0.5.json",
        "ground_truth.json",
        "heatmaps/00000.npz",
        "run.json",
    ]
    for path in files:
        other = tmp_path / "other" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == other.read_bytes(), path.name


def test_run_json_describes_the_run(configuration: Configuration, pets, tmp_path: Path) -> None:
    (pets.root / "JPEGImages/a.jpg").write_bytes(b"")
    run = detect(configuration, tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["configuration"]["classes"] == ["cat=0", "dog=2"]
    assert info["configuration"]["boxes"] == {
        "rules": "single-threshold",
        "smooth_radius": 0,
        "score": "heat",
        "iou_threshold": 0.35,
        "min_relative_score": 0.05,
    }
    assert info["configuration"]["thresholds"] == [0.3, 0.5]
    assert info["model"]["layer"] == "maps"
    assert info["model"]["outputs"] == {"cat": [0], "dog": [2]}
    assert info["counts"] == {"images": 3, "heatmaps": 4, "objects": 5, "skipped": 1}
    assert [each["file"] for each in info["skipped"]] == ["a.jpg"]
    assert run.ground_truth.difficult.tolist() == [False, False, True, False, False]
    assert (tmp_path / "run" / detections_name(0.5)).is_file()


def test_run_json_has_the_precision_that_was_used(
    configuration: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def used(name: str, precision: str) -> str:
        run = detect(replace(configuration, precision=precision), tmp_path / name)
        return run.info.configuration.precision

    fast = choose_precision("auto")
    assert used("few", "auto") == "float32"
    monkeypatch.setattr(detection, "REDUCE_FROM", 4)
    assert used("enough", "auto") == fast
    assert used("asked", fast) == fast

    def refuse(*_: object) -> None:
        raise CannotFreezeError("it will not")

    monkeypatch.setattr(FrozenExplainer, "_freeze", refuse)
    assert used("fallen back", fast) == "float32"


def test_xla_is_a_choice_and_finds_the_same(configuration: Configuration, tmp_path: Path) -> None:
    chosen = replace(configuration, jit_compile=True)
    assert make_explainer(chosen, load_model(chosen))._live.jit_compile is True
    compiled = detect(chosen, tmp_path / "compiled")
    plain = detect(configuration, tmp_path / "plain")
    assert compiled.info.configuration.jit_compile is True
    for one, other in zip(compiled.heatmaps(), plain.heatmaps(), strict=True):
        np.testing.assert_allclose(one.heatmap, other.heatmap, atol=1e-6)


def test_all_means_the_classes_that_occur(
    configuration: Configuration, pets, tmp_path: Path
) -> None:
    pets.split("dogs", "a", "e")
    every = replace(configuration, classes=("all",), split="dogs")
    with pytest.raises(UserError, match="names of the model are unknown"):
        detect(every, tmp_path / "run")
    named = replace(configuration, classes=("all", "dog=2"), split="dogs")
    assert detect(named, tmp_path / "run").ground_truth.categories == ("dog",)


def test_a_class_without_objects_is_named(
    configuration: Configuration, pets, tmp_path: Path
) -> None:
    pets.split("empty", "d")
    with pytest.raises(UserError, match=r"'dog' does not occur in this split .* classes: none"):
        detect(replace(configuration, classes=("dog=2",), split="empty"), tmp_path / "run")


def test_a_class_of_voc_without_objects_is_named(
    configuration: Configuration, make_voc, tmp_path: Path
) -> None:
    folder = make_voc("VOCdevkit/VOC2007")
    folder.add("x", [("dog", (1, 1, 20, 20))])
    folder.split("test", "x")
    prepare(tmp_path / "VOCdevkit", "2007", tmp_path)
    voc = replace(configuration, dataset="voc/2007", split="test", classes=("cat=0",))
    with pytest.raises(UserError, match="No image of split 'test' of voc/2007 has .* 'cat'"):
        detect(voc, tmp_path / "run", data_dir=tmp_path)
    found = detect(replace(voc, classes=("dog=2",)), tmp_path / "run", data_dir=tmp_path)
    assert [image.file_name for image in found.ground_truth.images] == ["x.jpg"]


def test_a_limit_draws_by_its_seed(configuration: Configuration, tmp_path: Path) -> None:
    chosen = set()
    for seed in range(6):
        run = detect(replace(configuration, limit=2, seed=seed), tmp_path / str(seed))
        chosen.add(tuple(image.file_name for image in run.ground_truth.images))
        assert len(run.ground_truth.images) == 2
    assert len(chosen) > 1
    again = detect(replace(configuration, limit=2, seed=5), tmp_path / "again")
    assert [image.file_name for image in again.ground_truth.images] == [
        image.file_name for image in Run(tmp_path / "5").ground_truth.images
    ]


def test_strict_stops_at_the_first_unreadable_image(
    configuration: Configuration, pets, tmp_path: Path
) -> None:
    path = pets.root / "JPEGImages/e.jpg"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(UserError, match=r"--strict: e.jpg: .*does not decode"):
        detect(replace(configuration, strict=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_is_never_overwritten_unless_it_is_a_run(
    configuration: Configuration, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    detect(configuration, folder)
    with pytest.raises(UserError, match="is already there. Choose another --out, or .*--force"):
        detect(configuration, folder)
    detect(replace(configuration, thresholds=(0.9,)), folder, force=True)
    assert Run(folder).thresholds == [0.9]
    assert not (folder / "detections-0.3.json").exists()
    mine = tmp_path / "photographs"
    mine.mkdir()
    (mine / "holiday.jpg").touch()
    with pytest.raises(UserError, match="holds other files than a run"):
        detect(configuration, mine, force=True)
    assert (mine / "holiday.jpg").exists()


def test_other_folders_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no run: it holds no run.json"):
        Run(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"run.json is no description of a run: it has no 'schema'"):
        Run(tmp_path)
    (tmp_path / "run.json").write_text('{"schema": 99, "boxes": {}, "thresholds": []}')
    with pytest.raises(
        UserError, match="has the schema 99; this version of kgradcam reads 4. Make the run"
    ):
        Run(tmp_path)


def test_results_are_read_by_their_own_reader(configuration: Configuration, tmp_path: Path) -> None:
    run = detect(configuration, tmp_path / "run")
    path = tmp_path / "run" / detections_name(0.5)
    assert len(read_detections(path, run.ground_truth).boxes) == len(table(run, 0.5))


@pytest.mark.slow
def test_a_run_on_real_photographs(shared: Path, tmp_path: Path) -> None:
    """Forty large dogs: the published accuracy of the network."""
    from kgradcam.evaluation.grid import evaluate_run
    from kgradcam.metrics.protocol import find_protocol

    configuration = Configuration(
        dataset=str(shared / "data" / "dogs40"), classes=("dog",), model="efficientnet-lite0"
    )
    run = detect(configuration, tmp_path / "run")
    measured = evaluate_run(run, None, [0.3, 0.4, 0.5], find_protocol("voc2010"))
    assert [round(100 * row.measures["ap"]) for row in measured.rows] == [97, 95, 95]


def test_by_default_boxes_are_drawn_from_refined_heatmaps(
    pets, tiny_model: Path, tmp_path: Path
) -> None:
    configuration = Configuration(
        dataset=str(pets.root), split="all", classes=("dog=2",), model=str(tiny_model)
    )
    run = detect(configuration, tmp_path / "run")
    assert run.info.configuration.scales == (1.0,)
    assert run.info.configuration.score_scales == (0.5,)
    assert run.options == BoxOptions("levels", 0, "expected-iou")
    sizes = {image.id: (image.width, image.height) for image in run.ground_truth.images}
    stored = run.detections([0.35])[0, 0.35]
    for record in run.heatmaps():
        assert record.heatmap.shape == (32, 32)  # 224 x 224 cells of the map, shrunk to 1,024
        boxes, scores = find_boxes(record.heatmap, sizes[record.image_id], record.probability)
        mine = stored.image_ids == record.image_id
        # COCO stores widths: the sum with the corner may differ in the last bit.
        np.testing.assert_allclose(stored.boxes[mine], boxes, rtol=1e-12)
        np.testing.assert_array_equal(stored.scores[mine], scores)


def test_predicted_presence_explains_every_class_on_every_image(
    configuration: Configuration, tmp_path: Path
) -> None:
    """Images without a dog may get a heatmap; images whose dog is not predicted get none."""
    everywhere = detect(
        replace(configuration, presence="predicted", presence_threshold=0.0), tmp_path / "all"
    )
    records = list(everywhere.heatmaps())
    assert {(each.image_id, each.category_id) for each in records} == {
        (image, category) for image in range(1, 6) for category in (1, 2)
    }
    assert len(everywhere.ground_truth.images) == 5  # also `d`, which has no object
    middle = float(np.median([each.probability for each in records]))
    believed = detect(
        replace(configuration, presence="predicted", presence_threshold=middle), tmp_path / "some"
    )
    kept = {(each.image_id, each.category_id) for each in believed.heatmaps()}
    assert kept == {
        (each.image_id, each.category_id) for each in records if each.probability >= middle
    }
    assert believed.info.counts == Counts(5, len(kept), 6, 0)


def test_a_run_without_predicted_classes_has_no_boxes(
    configuration: Configuration, tmp_path: Path
) -> None:
    options = replace(configuration, presence="predicted", presence_threshold=1.0)
    with pytest.warns(DataWarning, match="no boxes"):
        run = detect(options, tmp_path / "run")
    assert list(run.heatmaps()) == []
    assert len(run.detections([0.5])[0, 0.5].boxes) == 0


def test_an_unknown_kind_of_presence(configuration: Configuration) -> None:
    with pytest.raises(UsageError, match="Did you mean 'predicted'"):
        replace(configuration, presence="predict")


@pytest.mark.slow
def test_the_batch_size_moves_heatmaps_of_photographs_within_the_stated_bound(
    shared: Path, tmp_path: Path
) -> None:
    configuration = Configuration(
        dataset=str(shared / "data" / "dogs40"),
        classes=("dog",),
        model="efficientnet-lite0",
        limit=6,
    )
    one = detect(replace(configuration, batch_size=1), tmp_path / "one")
    other = detect(replace(configuration, batch_size=4), tmp_path / "other")
    assert "differ by less than 1e-4 of their highest value" in one.info.determinism
    for mine, others in zip(one.heatmaps(), other.heatmaps(), strict=True):
        assert np.abs(mine.heatmap - others.heatmap).max() < 1e-4 * mine.heatmap.max()


def test_overlapping_threads_leave_opencv_as_it_was() -> None:
    threads, block = cv2.getNumThreads(), drawn_boxes._SINGLE_THREADED_OPENCV
    cv2.setNumThreads(2)
    with block:
        second = ExitStack()
        second.enter_context(block)
    assert cv2.getNumThreads() == 1
    second.close()
    assert cv2.getNumThreads() == 2
    cv2.setNumThreads(threads)
