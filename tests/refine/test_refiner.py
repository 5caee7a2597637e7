"""Refiners: offsets and scores learned from boxes, on heatmaps where the right ones are known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kgradcam.boxes.find import find_boxes
from kgradcam.boxes.moves import move_sides
from kgradcam.boxes.overlap import box_iou
from kgradcam.errors import UsageError, UserError
from kgradcam.refine import (
    Annotated,
    Refiner,
    collect,
    find_candidates,
    fit,
    load_refiner,
    refine_run,
)
from kgradcam.refine.candidates import describe
from kgradcam.runs.coco_files import read_detections
from kgradcam.runs.run import Run

SIZE = (120, 96)


def blob(box: list[int], heat: float = 1.0) -> np.ndarray:
    heatmap = np.zeros((SIZE[1], SIZE[0]), np.float32)
    xmin, ymin, xmax, ymax = box
    heatmap[ymin:ymax, xmin:xmax] = heat
    return heatmap


def examples(count: int = 40, seed: int = 0) -> list[Annotated]:
    """Heat covers the upper left quarter of each object, as that of a face."""
    generator = np.random.default_rng(seed)
    found = []
    for i in range(count):
        width, height = generator.integers(8, 24, 2) * 2
        x, y = generator.integers(0, [SIZE[0] - width, SIZE[1] - height])
        heatmap = blob([x, y, x + width // 2, y + height // 2])
        candidates = find_candidates(heatmap, SIZE, 0.9)
        box = np.array([[x, y, x + width, y + height]], np.float64)
        found.append(Annotated(f"{i}.jpg", candidates, box))
    return found


def test_a_candidate_is_a_region_at_a_level() -> None:
    heatmap = np.maximum(blob([30, 24, 90, 72], 0.4), blob([40, 30, 60, 50], 1.0))
    found = find_candidates(heatmap, SIZE, 0.9)
    regions = np.array([[30.0, 24, 90, 72], [40, 30, 60, 50]])
    expected = move_sides(heatmap, regions)  # as large as the map, which is in [0, 1]
    assert abs(expected - regions).max() > 0.1
    assert {tuple(box) for box in found.boxes} == {tuple(box) for box in expected}
    assert len(found.features) == len(found.boxes)
    assert np.isfinite(found.features).all()


def test_cells_are_the_heat_in_and_around_a_box() -> None:
    """The box [32, 32, 64, 64]: cells cover [16, 80], 64/7 pixels each; the canvas ends at 64."""
    heatmap = np.zeros((64, 128), np.float32)
    heatmap[32:64, 32:64] = 1.0
    features = describe(heatmap, np.array([[32.0, 32, 64, 64]]), 0.9)
    cells = features[0, :49].reshape(7, 7)
    assert cells[3, 3] == 1  # inside
    assert cells[0, 0] == 0  # around
    assert cells[6, 3] == -0.25  # below the image
    np.testing.assert_allclose(features[0, 49:98], cells.ravel() ** 2)


@pytest.mark.parametrize("rung", ["offsets", "ridge"])
def test_offsets_lead_from_the_heat_to_the_object(rung: str) -> None:
    # Heat of a quarter has an IoU of .25 with the object: near enough are those of a half.
    learned = fit([_nearer(each) for each in examples()], rung)
    for each in map(_nearer, examples(10, seed=1)):
        boxes, scores = learned(each.candidates, SIZE)
        assert box_iou(boxes[:1], each.objects)[0, 0] > 0.95
        assert (boxes >= 0).all()
        assert (boxes <= [*SIZE, *SIZE]).all()
        assert (np.diff(scores) <= 0).all()


def _nearer(each: Annotated) -> Annotated:
    """The object as wide as the heat and three halves of its height."""
    box = each.candidates.boxes[:1].copy()
    box[:, 3] = np.minimum(box[:, 1] + 1.5 * (box[:, 3] - box[:, 1]), SIZE[1])
    return Annotated(each.image, each.candidates, box)


def test_offsets_are_means_of_four_numbers() -> None:
    inside = [_nearer(each) for each in examples(80)]
    inside = [each for each in inside if each.objects[0, 3] < SIZE[1]]
    refiner = fit(inside, "offsets")
    assert refiner.score is None
    assert refiner.offset is not None
    np.testing.assert_allclose(refiner.offset[0], [0, 0, 0, 0.5], atol=1e-9)
    assert not refiner.offset[1:].any()


def test_scores_are_the_iou_to_expect() -> None:
    """Of two regions one is the object and one is not: the hot one, or the other."""

    def pairs(seed: int) -> list[Annotated]:
        generator = np.random.default_rng(seed)
        found = []
        for i in range(30):
            y = int(generator.integers(0, 60))
            wide, tall = [4, y, 54, y + 12], [70, y, 82, y + 36]
            heat = np.maximum(blob(wide, 0.9), blob(tall, 1.0))
            candidates = find_candidates(heat, SIZE, 0.9)
            of_wide = candidates.boxes[candidates.boxes[:, 0] < 60][:1]
            found.append(Annotated(f"{i}.jpg", candidates, of_wide))
        return found

    refiner = fit(pairs(0), "score")
    assert refiner.offset is None
    for each in pairs(1):
        boxes, scores = refiner(each.candidates, SIZE)
        assert boxes[0].tolist() == each.objects[0].tolist()
        assert scores[0] > 0.95
        assert scores[1:].max(initial=0) < 0.1


def test_a_run_is_refined_and_images_of_the_training_are_refused(
    run: Run, tmp_path: Path, kgradcam
) -> None:
    path, out = tmp_path / "refiner.json", tmp_path / "refined.json"
    result = kgradcam("train-refiner", run.folder, "--rung", "ridge", "--out", path, "--json")
    assert result.code == 0, result.err
    refiner = load_refiner(path)
    assert json.loads(result.out)["boxes"] == refiner.objects
    names = {image.file_name for image in run.ground_truth.images}
    assert not any(name in path.read_text() for name in names)
    result = kgradcam("refine", run.folder, "--refiner", path, "--out", out)
    assert result.code == 1
    assert "was trained on" in result.err
    elsewhere = Refiner(**{**vars(refiner), "images": frozenset()})
    elsewhere.save(path)
    assert kgradcam("refine", run.folder, "--refiner", path, "--out", out).code == 0
    stored, direct = read_detections(out, run.ground_truth), refine_run(run, elsewhere)
    np.testing.assert_allclose(stored.boxes, direct.boxes, rtol=1e-12)
    np.testing.assert_array_equal(stored.scores, direct.scores)
    result = kgradcam("refine", run.folder, "--refiner", path, "--out", path, "--force")
    assert (result.code, load_refiner(path).objects) == (1, refiner.objects)


def test_a_number_of_boxes_is_drawn_by_seed(run: Run) -> None:
    every = collect(run)
    some = collect(run, 2, seed=3)
    assert 2 <= sum(len(each.objects) for each in some) < sum(len(each.objects) for each in every)
    assert [each.image for each in some] == [each.image for each in collect(run, 2, seed=3)]
    assert {each.image for each in collect(run, classes=["dog"])} < {each.image for each in every}
    with pytest.raises(UserError, match="boxes=99 is more than the"):
        collect(run, 99)
    with pytest.raises(UserError, match="class 'fox' is not in"):
        collect(run, classes=["fox"])


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="rung must be offsets, score, ridge, network, imitation or dqn"
    ):
        fit(examples(3), "mlp")
    with pytest.raises(UserError, match="two images or more. Received: 1"):
        fit(examples(1))
    path = tmp_path / "x.json"
    for content in ("[]", "{}", '{"schema": 1}', '{"schema": 3, "mean": []}', "nothing"):
        path.write_text(content)
        with pytest.raises(UserError, match=r"x\.json"):
            load_refiner(path)
    refiner = fit([_nearer(each) for each in examples(5)])
    content = {**vars(refiner), "offset": np.full_like(refiner.offset, np.nan)}
    Refiner(**content).save(path)
    with pytest.raises(UserError, match="is no refiner"):
        load_refiner(path)


def test_a_heatmap_without_contrast_has_no_boxes() -> None:
    refiner = fit([_nearer(each) for each in examples(5)])
    for heatmap in (np.zeros((4, 5), np.float32), np.ones((1, 1), np.float32)):
        boxes, scores = refiner(find_candidates(heatmap, SIZE, 0.5), SIZE)
        assert boxes.shape == (0, 4)
        assert scores.shape == (0,)


def test_boxes_stay_where_cross_validation_finds_no_sure_gain() -> None:
    """Objects are a quarter of a box to its left or to its right, which nothing predicts."""
    sides = np.random.default_rng(1).permutation([-0.25, 0.25] * 6)
    learned = []
    for each, side in zip(examples(12), sides, strict=True):
        box = each.candidates.boxes[:1]
        shift = side * (box[:, 2:3] - box[:, :1]) * [1, 0, 1, 0]
        learned.append(Annotated(each.image, each.candidates, box + shift))
    refiner = fit(learned, "ridge")
    assert refiner.offset is None
    unchanged = replace(refiner, score=None)
    heatmap = np.maximum(blob([30, 24, 90, 72], 0.5), blob([40, 30, 60, 50], 1.0))
    boxes, scores = unchanged(find_candidates(heatmap, SIZE, 0.9), SIZE)
    expected = find_boxes(heatmap, SIZE, 0.9, 0.35)
    np.testing.assert_allclose(boxes, expected[0])
    np.testing.assert_allclose(scores, expected[1])
