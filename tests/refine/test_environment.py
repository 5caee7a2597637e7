"""Episodes by hand: each action, borders, rewards, the end of an episode, the expert."""

import numpy as np
import pytest

from kgradcam.refine.environment import (
    ACTIONS,
    STOP,
    Episodes,
    expert,
    ious_after,
    rewards,
    successors,
)

SIZE = np.array([[100.0, 200]])
BOX = np.array([[40.0, 60, 60, 100]])  # 20 x 40: a step is 4 pixels wide and 8 high
MOVED = {
    "right": [44, 60, 64, 100],
    "left": [36, 60, 56, 100],
    "down": [40, 68, 60, 108],
    "up": [40, 52, 60, 92],
    "larger": [38, 56, 62, 104],
    "smaller": [42, 64, 58, 96],
    "flatter": [40, 64, 60, 96],
    "narrower": [42, 60, 58, 100],
    "stop": [40, 60, 60, 100],
}


def test_each_action_moves_a_box_by_a_fifth_of_its_sides() -> None:
    (found,) = successors(BOX, SIZE)
    assert dict(zip(ACTIONS, found.tolist(), strict=True)) == MOVED


@pytest.mark.parametrize(
    ("box", "action", "expected"),
    [
        ([78, 60, 98, 100], "right", [82, 60, 100, 100]),
        ([1, 60, 21, 100], "left", [0, 60, 17, 100]),
        ([40, 158, 60, 198], "down", [40, 166, 60, 200]),
        ([40, 3, 60, 43], "up", [40, 0, 60, 35]),
        ([0, 0, 100, 200], "larger", [0, 0, 100, 200]),
    ],
)
def test_boxes_are_clipped_at_the_borders(box: list[int], action: str, expected: list[int]) -> None:
    (found,) = successors(np.array([box], np.float64), SIZE)
    assert found[ACTIONS.index(action)].tolist() == expected


def test_a_box_does_not_shrink_below_a_fiftieth_of_the_image() -> None:
    """2 x 4 pixels are a fiftieth: a width of 2.4 would become 1.92, a height of 5 becomes 4."""
    (found,) = successors(np.array([[10, 10, 12.4, 15]]), SIZE)
    assert found[ACTIONS.index("narrower")].tolist() == [10, 10, 12.4, 15]
    np.testing.assert_allclose(found[ACTIONS.index("flatter")], [10, 10.5, 12.4, 14.5])


def test_rewards_of_one_state() -> None:
    """The object is as large as the box, and two steps to the right."""
    objects = np.array([[48.0, 60, 68, 100]])
    before, after = ious_after(BOX, SIZE, objects)
    # 12 of 28 columns; after "right" 16 of 24, "left" 8 of 32; up and down lose 8 of 40 rows.
    np.testing.assert_allclose(before, [12 / 28])
    vertical = 12 * 32 / (2 * 800 - 12 * 32)
    np.testing.assert_allclose(after[0, :4], [16 / 24, 8 / 32, vertical, vertical])
    # Larger: 14 columns of it inside; narrower: 10 of 26 columns.
    np.testing.assert_allclose(after[0, 4], 14 * 40 / (24 * 48 + 800 - 14 * 40))
    np.testing.assert_allclose(after[0, 7], 10 / 26)
    assert rewards(before, after, "sign").tolist() == [[1, -1, -1, -1, -1, -1, -1, -1, -3]]
    change = rewards(before, after, "change")[0]
    np.testing.assert_allclose(change[:2], [5 / 21 - 0.02, -5 / 28 - 0.02])
    assert change[STOP] == 0


@pytest.mark.parametrize(("width", "reward"), [(12.0, 3), (11.9, -3)])
def test_a_stop_is_rewarded_from_an_iou_of_six_tenths(width: float, reward: int) -> None:
    before, after = ious_after(BOX, SIZE, np.array([[40, 60, 40 + width, 100]]))
    np.testing.assert_allclose(before, [width / 20])
    assert rewards(before, after, "sign")[0, STOP] == reward


def test_an_episode_by_hand() -> None:
    """Two boxes: one moves twice and stops, the other stops at once."""
    episodes = Episodes(np.concatenate([BOX, BOX]), np.concatenate([SIZE, SIZE]))
    assert not episodes.history().any()
    for actions in ([0, STOP], [2, 3], [STOP, 3], [1, 1]):
        episodes.step(np.array(actions))
    assert episodes.boxes.tolist() == [[44, 68, 64, 108], BOX[0].tolist()]
    assert episodes.running.tolist() == [False, False]
    assert episodes.steps.tolist() == [2, 0]
    history = episodes.history().reshape(2, 10, 9)
    assert [np.argwhere(each).tolist() for each in history] == [
        [[0, STOP], [1, 2], [2, 0]],
        [[0, STOP]],
    ]


def test_the_history_holds_ten_actions() -> None:
    episodes = Episodes(BOX, SIZE)
    for action in (*range(8), 0, 1, 2):
        episodes.step(np.array([action]))
    assert episodes.past.tolist() == [[2, 1, 0, 7, 6, 5, 4, 3, 2, 1]]
    assert episodes.steps.tolist() == [11]


def test_the_expert_goes_to_the_object_and_stops() -> None:
    """Right, twice, as in `test_rewards_of_one_state`; then no action raises the IoU of 1."""
    episodes, objects = Episodes(BOX, SIZE), np.array([[48.0, 60, 68, 100]])
    chosen = []
    while episodes.running.any():
        actions = expert(*ious_after(episodes.boxes, SIZE, objects))
        chosen.append(ACTIONS[actions[0]])
        episodes.step(actions)
    assert chosen == ["right", "right", "stop"]
    assert episodes.boxes.tolist() == objects.tolist()


def test_the_expert_stops_where_no_step_reaches_the_object() -> None:
    before, after = ious_after(BOX, SIZE, np.array([[0.0, 0, 10, 10]]))
    assert expert(before, after).tolist() == [STOP]


def test_the_iou_never_falls_on_the_way_of_the_expert() -> None:
    generator = np.random.default_rng(0)
    corners = np.sort(generator.uniform(0, 1, (2, 200, 2, 2)), axis=2) * SIZE[0]
    starts, objects = (each.reshape(-1, 4) for each in corners)
    sizes = np.repeat(SIZE, 200, axis=0)
    episodes = Episodes(starts, sizes)
    last = ious_after(starts, sizes, objects)[0]
    for _ in range(60):
        episodes.step(expert(*ious_after(episodes.boxes, sizes, objects)))
        now = ious_after(episodes.boxes, sizes, objects)[0]
        assert (now >= last).all()
        last = now
    assert not episodes.running.any()
