"""A search from the whole image, by hand."""

import numpy as np

from kgradcam.refine import Candidates
from kgradcam.refine.environment import ACTIONS, STOP
from kgradcam.refine.scene import Scene
from kgradcam.refine.search import mark, search

SCENE = Scene(np.ones((60, 120), np.float32), (240, 120), 0.9)
CORNERS = [[0, 0, 180, 90], [60, 0, 240, 90], [0, 30, 180, 120], [60, 30, 240, 120]]


def test_stops_restart_at_the_corners_in_turn() -> None:
    found = search(lambda seen, _: np.full(len(seen.boxes), STOP), SCENE, actions=7)
    assert found.tolist() == [[0, 0, 240, 120], *CORNERS, *CORNERS[:2]]


def test_an_episode_ends_after_forty_actions() -> None:
    larger = ACTIONS.index("larger")
    found = search(lambda seen, _: np.full(len(seen.boxes), larger), SCENE)
    assert found.tolist() == [[0, 0, 240, 120]] * 5  # 200 actions are five episodes


def test_a_found_box_is_marked_and_left() -> None:
    """A policy that stops where all heat is 1 and else moves right: it stops once."""
    stops = []

    def choose(seen: Candidates, history: np.ndarray) -> np.ndarray:
        hot = seen.features[:, 2 * 49 + 4] > 0.9**0.2 - 0.01  # the density, after the cells
        stops.append(bool(hot[0]))
        return np.where(hot, STOP, 0)

    search(choose, SCENE, actions=20)
    assert stops == [True] + [False] * 19


def test_the_mark_is_a_cross_of_a_third() -> None:
    """The box [60, 30, 120, 90] is [30, 15, 60, 45] on the canvas: 10 of 30 columns and rows."""
    marked = mark(SCENE, np.array([60.0, 30, 120, 90])).canvas
    expected = np.ones((60, 120))
    expected[15:45, 40:50] = 0
    expected[25:35, 30:60] = 0
    np.testing.assert_array_equal(marked, expected)


def test_components_of_feature_maps_are_marked_too() -> None:
    maps = [np.ones((6, 12, 2), np.float32)]
    scene = Scene(SCENE.canvas, SCENE.size, 0.9, None, maps)
    marked = mark(scene, np.array([60.0, 30, 120, 90])).maps[0][..., 0]
    # The box is [3, 1.5, 6, 4.5] in cells: columns 3 to 5 and rows 1 to 4 have their centre inside.
    expected = np.ones((6, 12))
    expected[1:5, 4] = 0
    expected[2:4, 3:6] = 0
    np.testing.assert_array_equal(marked, expected)
    assert maps[0].all()  # the first scene is as it was
