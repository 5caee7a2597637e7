"""Folders in VOC layout to run `detect` over, on any machine."""

import os
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import PIL.Image

from kgradcam.data.voc import write_annotation

VOC_SIZE = (500, 375)
CLASS = "dog"


def make_folder(
    root: Path,
    count: int,
    sizes: list[tuple[int, int]],
    source: Path | None = None,
) -> Path:
    """Fills a folder with photographs, one annotated object each.

    Args:
        root: Where it shall be.
        count: How many photographs.
        sizes: Their widths and heights, in turn.
        source: A folder of JPEG files to take instead, again and again, as they are. Default:
            pieces of the photographs that scikit-image brings, as JPEG files of VOC's quality.
    """
    for name in ("JPEGImages", "Annotations"):
        (root / name).mkdir(parents=True)
    files = sorted(source.glob("*.jpg"))[:count] if source else []
    if source and not files:
        raise SystemExit(f"{source} holds no .jpg.")
    generator = np.random.default_rng(0)
    for i in range(count):
        path = root / f"JPEGImages/{i:06}.jpg"
        if files:
            _link(files[i % len(files)], path)
        else:
            _piece(generator, sizes[i % len(sizes)]).save(path, quality=90)
        with PIL.Image.open(path) as picture:
            width, height = picture.size
        box = [[width // 4, height // 4, width // 2, height // 2]]
        text = write_annotation(path.name, width, height, [CLASS], box)
        (root / f"Annotations/{i:06}.xml").write_text(text)
    return root


def voc_sizes(count: int = 40) -> list[tuple[int, int]]:
    """Sizes as VOC has them: the longer side 500, two of three pictures lying."""
    generator = np.random.default_rng(0)
    shorter = generator.permutation(np.arange(281, 501))[:count]
    return [(500, int(each)) if i % 3 else (int(each), 500) for i, each in enumerate(shorter)]


@cache
def _photographs() -> list[PIL.Image.Image]:
    from skimage import data

    made = (data.astronaut, data.chelsea, data.coffee, data.rocket)
    return [PIL.Image.fromarray(make()) for make in made]


def _piece(generator: np.random.Generator, size: tuple[int, int]) -> PIL.Image.Image:
    whole = _photographs()[generator.integers(len(_photographs()))]
    share = generator.uniform(0.6, 1.0)
    corner = [(1 - share) * generator.uniform() * side for side in whole.size]
    box = (*corner, *(c + share * side for c, side in zip(corner, whole.size, strict=True)))
    return whole.resize(size, PIL.Image.Resampling.BICUBIC, box)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(source, target)
