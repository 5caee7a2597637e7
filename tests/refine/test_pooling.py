"""Features of the network in a box: means by hand, and a refiner that needs them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kgradcam.boxes.overlap import box_iou
from kgradcam.errors import UsageError, UserError
from kgradcam.refine import Annotated, Candidates, fit, load_refiner, refine_run
from kgradcam.refine.pooling import Reduction, fit_reduction, pool
from kgradcam.runs.coco_files import read_detections
from kgradcam.runs.run import Run

SIZE = (160, 80)


def test_cells_are_exact_means() -> None:
    """The box [40, 20, 90, 70]: with context 80 pixels wide, [25, 105] x [5, 85]."""
    feature_map = np.arange(8, dtype=np.float32).reshape(1, 8, 1)  # columns of 20 pixels
    box = np.array([[40.0, 20, 90, 70]])
    (found,) = pool(feature_map, box, SIZE, 1)
    # Columns 1 to 5 by 15, 20, 20, 20, 5 of 80 pixels; 75 of 80 rows are inside.
    mean = (15 * 1 + 20 * 2 + 20 * 3 + 20 * 4 + 5 * 5) / 80 * 75 / 80
    np.testing.assert_allclose(found[0, 0], [mean, 75 / 80], rtol=1e-6)


def test_cells_go_row_by_row_and_are_0_outside() -> None:
    feature_map = np.zeros((2, 2, 1), np.float32)
    feature_map[1, 0] = 3.0  # below, left
    (found,) = pool(feature_map, np.array([[0.0, 0, 160, 80]]), SIZE, 4)
    # A cell is 64 x 32 pixels, the first from (-48, -24): one quarter of its sides is inside.
    np.testing.assert_allclose(found[0, 0], [0, 1 / 16], rtol=1e-6)
    np.testing.assert_allclose(found[3, 0], [3 / 16, 1 / 16], rtol=1e-6)
    np.testing.assert_allclose(found[2, 1], [3, 1], rtol=1e-6)
    np.testing.assert_allclose(found[1, 2], [0, 1], rtol=1e-6)


def test_components_have_the_variance_of_the_maps() -> None:
    generator = np.random.default_rng(0)
    spread = np.array([0.1, 5.0, 1.0])
    maps = [[generator.normal(7, spread, (4, 4, 3)).astype(np.float32)] for _ in range(200)]
    reduction = fit_reduction("digest", maps)
    cells = np.concatenate([reduction(each)[0].reshape(-1, 3) for each in maps])
    np.testing.assert_allclose(cells.mean(axis=0), 0, atol=1e-4)
    covariance = np.cov(cells.T)
    np.testing.assert_allclose(np.trace(covariance), 3, rtol=1e-3)  # 1 each on average
    np.testing.assert_allclose(covariance[2, 2], 3 * 25 / 26.01, rtol=0.05)
    assert abs(covariance - np.diag(np.diag(covariance))).max() < 1e-3


def examples(count: int, seed: int) -> tuple[list[Annotated], Reduction]:
    """The same candidate everywhere; only the feature map shows how wide the object is."""
    generator = np.random.default_rng(seed)
    reduction = Reduction("digest", (np.zeros(1),), (np.ones((1, 1)),))
    found = []
    for i in range(count):
        right = int(generator.integers(8, 13)) * 10
        feature_map = np.zeros((8, 16, 1), np.float32)
        feature_map[2:6, 3 : right // 10] = 1.0
        box = np.array([[30.0, 20, 100, 60]])
        inputs = reduction.inputs([feature_map], box, SIZE)
        candidates = Candidates(box, np.array([0.5]), np.zeros((1, 2)), inputs)
        found.append(Annotated(f"{seed}-{i}", candidates, np.array([[30.0, 20, right, 60]])))
    return found, reduction


def test_features_of_the_network_move_a_box(tmp_path: Path) -> None:
    learned, reduction = examples(40, 0)
    refiner = fit(learned, "network", reduction)
    path = tmp_path / "refiner.json"
    refiner.save(path)
    again = load_refiner(path)
    for each in examples(10, 1)[0]:
        boxes, scores = refiner(each.candidates, SIZE)
        assert box_iou(boxes, each.objects)[0, 0] > 0.95
        np.testing.assert_array_equal(again(each.candidates, SIZE)[0], boxes)
        np.testing.assert_array_equal(again(each.candidates, SIZE)[1], scores)
    assert again.network is not None
    assert again.network.model == "digest"
    with pytest.raises(UsageError, match="need the results of add_network"):
        fit(learned, "network")
    with pytest.raises(UsageError, match="need the results of add_network"):
        fit(learned, "ridge", reduction)
    path.write_text(path.read_text().replace('"means": [[0.0]]', '"means": [[0.0, 1.0]]'))
    with pytest.raises(UserError, match="is no refiner"):
        load_refiner(path)


def test_a_run_is_refined_with_its_network(run: Run, tmp_path: Path, kgradcam) -> None:
    path, out = tmp_path / "refiner.json", tmp_path / "refined.json"
    result = kgradcam("train-refiner", run.folder, "--out", path)
    assert result.code == 0, result.err
    trained = load_refiner(path)
    assert trained.network is not None
    assert trained.network.model == run.info.model.digest
    elsewhere = replace(trained, images=frozenset())
    elsewhere.save(path)
    result = kgradcam("refine", run.folder, "--refiner", path, "--out", out)
    assert result.code == 0, result.err
    np.testing.assert_array_equal(
        read_detections(out, run.ground_truth).scores, refine_run(run, elsewhere).scores
    )
    other = replace(elsewhere, network=replace(trained.network, model="another"))
    with pytest.raises(UserError, match="needs the model that it was trained with"):
        refine_run(run, other)
    (run.folder.parent / "pets/JPEGImages/a.jpg").unlink()
    result = kgradcam("refine", run.folder, "--refiner", path, "--out", out, "--force")
    assert result.code == 1
    assert "a.jpg" in result.err
    assert "Traceback" not in result.err
