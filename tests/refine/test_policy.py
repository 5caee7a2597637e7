"""Policies: episodes that a feature map guides, and refiners that hold one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kgradcam.boxes.overlap import box_iou
from kgradcam.errors import UserError
from kgradcam.refine import Annotated, Candidates, Reduction, load_refiner, refine_run
from kgradcam.refine.environment import ACTIONS, HISTORY, STOP
from kgradcam.refine.policy import Policy, follow
from kgradcam.refine.policy_training import train_policy
from kgradcam.refine.scene import Scene
from kgradcam.runs.run import Run

SIZE = (160, 80)


def scenes(count: int, seed: int) -> list[Annotated]:
    """The feature map shows the object, and a start is one step or two away from it."""
    generator = np.random.default_rng(seed)
    reduction = Reduction("digest", (np.zeros(1),), (np.ones((1, 1)),))
    found = []
    for i in range(count):
        x = int(generator.integers(3, 10))
        feature_map = np.zeros((8, 16, 1), np.float32)
        feature_map[2:6, x : x + 5] = 1.0
        box = np.array([[10.0 * x, 20, 10 * x + 50, 60]])
        start = box + 10 * generator.integers(-2, 3, (3, 1)) * [1, 0, 1, 0]
        scene = Scene(np.zeros((4, 8), np.float32), SIZE, 0.9, reduction, [feature_map])
        found.append(Annotated(f"{seed}-{i}", scene.describe(start), box, i, scene))
    return found


@pytest.mark.parametrize("discount", [0.0, 0.9])
def test_a_policy_finds_the_object_that_the_feature_map_shows(discount: float) -> None:
    policy = train_policy(scenes(40, 0), discount, epochs=7)
    before, after = [], []
    for each in scenes(20, 1):
        before += list(box_iou(each.candidates.boxes, each.objects)[:, 0])
        after += list(box_iou(policy(each.scene, each.candidates).boxes, each.objects)[:, 0])
    assert np.mean(before) < 0.75
    assert np.mean(after) > 0.95
    assert len(policy.curve) == 7
    assert policy.curve[-1]["iou_after"] > policy.curve[-1]["iou_before"]


def test_a_seed_gives_the_same_policy() -> None:
    first, second = (train_policy(scenes(4, 0), 0.9, seed=5, epochs=1) for _ in range(2))
    for one, other in zip(first.layers, second.layers, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_an_episode_ends_after_ten_actions_or_a_stop() -> None:
    (each,) = scenes(1, 0)
    right = follow(
        lambda seen, _: np.zeros(len(seen.boxes), int),
        each.scene,
        np.array([[0.0, 0, 10, 10]]),
    )
    assert right.steps.tolist() == [10]
    assert right.boxes.tolist() == [[20, 0, 30, 10]]
    asked = []

    def second_stops(seen: Candidates, history: np.ndarray) -> np.ndarray:
        asked.append(len(seen.boxes))
        return np.array([0, STOP][: len(seen.boxes)])

    follow(second_stops, each.scene, np.array([[0.0, 0, 10, 10], [0, 0, 10, 10]]))
    assert asked == [2] + [1] * 9


def test_a_policy_takes_the_action_of_the_highest_value() -> None:
    """One feature and no hidden layer: larger if it is positive, else a stop; never twice."""
    weights = np.zeros((1 + 90, 9), np.float32)
    larger = ACTIONS.index("larger")
    weights[0, larger] = 1
    weights[1 + larger, larger] = -10
    policy = Policy(np.array([3.0]), np.array([2.0]), ((weights, np.zeros(9, np.float32)),))
    seen = Candidates(np.zeros((3, 4)), np.zeros(3), np.array([[4.0], [4.0], [3.5]]))
    history = np.zeros((3, 90), np.float32)
    history[1, larger] = 1
    assert policy.choose(seen, history)[[0, 2]].tolist() == [larger, larger]
    assert policy.choose(seen, history)[1] != larger


def test_features_of_a_scene_are_those_of_candidates(run: Run) -> None:
    from kgradcam.refine import collect

    for each in collect(run):
        again = each.scene.describe(each.candidates.boxes)
        count = again.features.shape[1]
        stop = np.eye(len(ACTIONS), dtype=np.float32)[STOP]
        weights = np.zeros((count + HISTORY * len(ACTIONS), len(ACTIONS)), np.float32)
        policy = Policy(np.zeros(count), np.ones(count), ((weights, stop),))
        ends = policy(each.scene, each.candidates)
        np.testing.assert_array_equal(ends.scores, each.candidates.scores)
        np.testing.assert_array_equal(ends.boxes, each.candidates.boxes)
        np.testing.assert_allclose(again.features, each.candidates.features, atol=1e-6)


@pytest.mark.slow
def test_a_refiner_with_a_policy_is_stored_and_refines(run: Run, tmp_path: Path, kgradcam) -> None:
    path, out = tmp_path / "refiner.json", tmp_path / "refined.json"
    result = kgradcam("train-refiner", run.folder, "--rung", "dqn", "--out", path)
    assert result.code == 0, result.err
    trained = load_refiner(path)
    assert trained.policy is not None
    assert trained.offset is None
    elsewhere = replace(trained, images=frozenset())
    elsewhere.save(path)
    result = kgradcam("refine", run.folder, "--refiner", path, "--out", out)
    assert result.code == 0, result.err
    found = refine_run(run, elsewhere)
    np.testing.assert_array_equal(refine_run(run, load_refiner(path)).boxes, found.boxes)
    still = replace(elsewhere, policy=None)
    assert refine_run(run, still).boxes.tolist() != found.boxes.tolist()
    for old, new in (
        ('"curve"', '"bend"'),
        ('[["', '[["A'),
        ('"policy": {"mean": [', '"policy": {"mean": [1, '),
    ):
        text = path.read_text()
        assert old in text
        other = tmp_path / "other.json"
        other.write_text(text.replace(old, new))
        with pytest.raises(UserError, match="is no refiner"):
            load_refiner(other)
