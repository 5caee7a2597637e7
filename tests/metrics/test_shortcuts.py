"""Signs of shortcuts, with values counted by hand."""

import numpy as np
import pytest

from kgradcam.metrics.shortcuts import FixedPlace, Places, border_share, outside_cells


def test_the_share_of_the_border() -> None:
    heatmap = np.zeros((10, 20), np.float32)
    heatmap[0, 5] = 1  # the rim is 1 row and 2 columns wide
    heatmap[5, 1] = 2
    heatmap[1, 2] = 1
    assert border_share(heatmap) == pytest.approx(0.75)
    assert border_share(np.ones((20, 30), np.float32)) == pytest.approx(1 - 0.8 * 0.8)
    assert border_share(np.zeros((4, 4), np.float32)) == 0


@pytest.mark.parametrize("shape", [(16, 32), (8, 8), (21, 37), (5, 3)])
def test_cells_add_up_to_the_heat_outside(shape: tuple[int, int]) -> None:
    heatmap = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    inside = np.zeros(shape, bool)
    inside[1:3, 1:3] = True
    cells = outside_cells(heatmap, inside)
    assert cells.shape == (8, 8)
    assert cells.sum() == pytest.approx(heatmap[~inside].sum() / heatmap.sum(), rel=1e-5)


def test_a_cell_is_the_heat_of_its_pixels() -> None:
    heatmap = np.random.default_rng(0).uniform(size=(16, 24)).astype(np.float32)
    inside = np.zeros((16, 24), bool)
    inside[4:9, 6:15] = True
    outside = np.where(inside, 0, heatmap)
    expected = outside.reshape(8, 2, 8, 3).sum(axis=(1, 3)) / heatmap.sum()
    np.testing.assert_allclose(outside_cells(heatmap, inside), expected, rtol=1e-5)
    assert not outside_cells(np.zeros((16, 24), np.float32), inside).any()


def fixed_place(pictures: np.ndarray) -> FixedPlace:
    places = Places()
    for cells in pictures:
        places.add(cells)
    return places.fixed()


def test_the_place_that_all_pictures_share() -> None:
    cells = np.zeros((4, 8, 8))
    cells[:3, 7, 6] = 0.6  # at the bottom right, in three of four
    for i in range(4):
        cells[i, i, i] += 0.4
    place = fixed_place(cells)
    assert place.share == pytest.approx(0.45)
    assert place.box[0] <= 6 / 8 < place.box[2]
    assert place.box[3] == 1
    assert place.pictures == 3
    # Heat that wanders has no fixed place beyond its overlap.
    wandering = np.zeros((8, 8, 8))
    wandering[np.arange(8), np.arange(8), np.arange(8)] = 1
    assert fixed_place(wandering).share == pytest.approx(3 / 8)
    assert fixed_place(np.zeros((1, 8, 8))).pictures == 0
