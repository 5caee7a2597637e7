"""PxAP and mask IoU by hand, and against sklearn-like definitions in NumPy."""

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgradcam.data.images import read_labels
from kgradcam.data.voc import CLASSES, class_mask
from kgradcam.errors import UserError
from kgradcam.metrics.pixel_precision import BINS, PixelCounts


def counted(heatmap: np.ndarray, mask: np.ndarray, void: np.ndarray | None = None) -> PixelCounts:
    counts = PixelCounts()
    counts.add(heatmap, mask, np.zeros_like(mask) if void is None else void)
    return counts


def test_four_pixels_by_hand() -> None:
    heatmap = np.array([[0.9, 0.8], [0.5, 0.1]])
    mask = np.array([[True, False], [True, False]])
    counts = counted(heatmap, mask)
    # Precision 1 up to recall 1/2, then 2/3 up to 1.
    assert counts.pixel_ap() == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert counts.best_iou() == (pytest.approx(2 / 3), 0.5)


def test_void_pixels_do_not_count() -> None:
    heatmap = np.array([[0.9, 0.8], [0.5, 0.1]])
    mask = np.array([[True, False], [True, False]])
    counts = counted(heatmap, mask, void=np.array([[False, True], [False, False]]))
    assert counts.pixel_ap() == 1
    assert counts.best_iou() == (1, 0.5)


def test_without_an_object_nothing_is_defined() -> None:
    counts = counted(np.ones((2, 2)), np.zeros((2, 2), bool))
    assert np.isnan(counts.pixel_ap())
    assert np.isnan(counts.best_iou()).all()


@given(st.integers(0, 2**32 - 1))
def test_random_maps_pixel_by_pixel(seed: int) -> None:
    generator = np.random.default_rng(seed)
    heatmap = generator.integers(0, 30, (6, 7)) / 30
    mask = generator.random((6, 7)) < 0.4
    mask[0, 0] = True
    counts = counted(heatmap, mask)
    area, last, ious = 0.0, 0.0, []
    for threshold in sorted(set(heatmap.ravel()), reverse=True):
        hot = heatmap >= threshold
        recall = (hot & mask).sum() / mask.sum()
        area += (hot & mask).sum() / hot.sum() * (recall - last)
        last = recall
        ious.append((hot & mask).sum() / (hot | mask).sum())
    assert counts.pixel_ap() == pytest.approx(area)
    assert counts.best_iou()[0] == pytest.approx(max(ious))
    assert (counts.inside + counts.outside).sum() == 42
    assert len(counts.inside) == BINS


def test_labels_are_palette_indices(tmp_path) -> None:
    labels = np.array([[0, CLASSES.index("dog") + 1], [255, CLASSES.index("cat") + 1]], np.uint8)
    image = PIL.Image.fromarray(labels)
    image = image.convert("P")  # with a grey palette: the indices stay
    image.putdata(labels.ravel().tolist())
    image.save(tmp_path / "x.png")
    mask, void = class_mask(read_labels(tmp_path / "x.png"), "dog")
    assert mask.tolist() == [[False, True], [False, False]]
    assert void.tolist() == [[False, False], [True, False]]
    PIL.Image.new("RGB", (2, 2)).save(tmp_path / "rgb.png")
    with pytest.raises(UserError, match="must hold labels, palette or grey. Received: RGB"):
        read_labels(tmp_path / "rgb.png")
