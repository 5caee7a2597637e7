"""Folders in VOC layout: `JPEGImages/`, `Annotations/` and, optionally, `ImageSets/Main/`.

An image list is input from elsewhere: no name in it can lead out of the folder.
"""

from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import numpy as np

from kgradcam import progress
from kgradcam.data.examples import NO_OBJECTS, Example, Objects
from kgradcam.data.images import image_size, is_turned
from kgradcam.data.voc import parse_annotation
from kgradcam.errors import UserError, did_you_mean

WHOLE_FOLDER = "all"
"""The split of all annotated images of a folder."""
_LABELS = ("-1", "0", "1")
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


@dataclass(frozen=True)
class VocFolder:
    """A folder in VOC layout.

    Args:
        root: The folder, or its parent if it has no other: `VOCdevkit` for `VOCdevkit/VOC2007`.

    Raises:
        UserError: The folder is not in VOC layout.
    """

    root: Path

    def __post_init__(self) -> None:
        root = self.root
        if not root.is_dir():
            raise UserError(f"No folder {root}.")
        if not (root / "JPEGImages").is_dir():
            inside = sorted(path.parent for path in root.glob("*/JPEGImages"))
            if len(inside) != 1:
                found = f" It holds several: {', '.join(map(str, inside))}." if inside else ""
                raise UserError(
                    f"{root} is not in VOC layout: it needs JPEGImages/ and Annotations/.{found}"
                )
            root = inside[0]
        if not (root / "Annotations").is_dir():
            raise UserError(f"{root} is not in VOC layout: it needs Annotations/ with XML files.")
        object.__setattr__(self, "root", root)

    @property
    def split_files(self) -> dict[str, Path]:
        """The image lists of `ImageSets/Main` by name, without VOC's lists of a single class."""
        lists = sorted((self.root / "ImageSets" / "Main").glob("*.txt"))
        return {path.stem: path for path in lists if _lists_images(path)}

    def image_ids(self, split: str) -> list[str]:
        """Returns the image ids of a split in the order of its list, without repetitions.

        Args:
            split: The name of a list; `"validation"` also finds VOC's `val`. `"all"` has all
                annotated images, sorted by name.

        Raises:
            UserError: The split does not exist, or its list is not UTF-8 text.
        """
        files = self.split_files
        if split == "validation" and split not in files:
            split = "val"
        if split in files:
            lines = _read_text(files[split]).splitlines()
            return list(dict.fromkeys(line.strip() for line in lines if line.strip()))
        if split == WHOLE_FOLDER:
            return sorted(path.stem for path in (self.root / "Annotations").glob("*.xml"))
        options = [*files, WHOLE_FOLDER]
        raise UserError(
            f"split={split!r} is not a split of {self.root}.{did_you_mean(split, options)} "
            f"It has: {', '.join(options)}."
        )

    def annotation_path(self, image_id: str) -> Path:
        """Returns the path of an image's annotation, which need not exist.

        Raises:
            UserError: The id leads out of the folder. `image_path` and `mask_path` raise it too.
        """
        return self._inside("Annotations", f"{image_id}.xml")

    def image_path(self, image_id: str) -> Path:
        """Returns the path of an image; with the suffix `.jpg` if no such file exists."""
        paths = (self._inside("JPEGImages", f"{image_id}{suffix}") for suffix in _IMAGE_SUFFIXES)
        default = self._inside("JPEGImages", f"{image_id}.jpg")
        return next((path for path in paths if path.is_file()), default)

    def mask_path(self, image_id: str) -> Path:
        """Returns the path of an image's segmentation, to be read by `voc.class_mask`."""
        return self._inside("SegmentationClass", f"{image_id}.png")

    def _inside(self, part: str, name: str) -> Path:
        """Returns a path in a part of the folder; raises if the name leads out of it."""
        path = PureWindowsPath(name)  # splits at / and at \
        if path.anchor or ".." in path.parts or "\0" in name:
            raise UserError(f"{name!r} is not a file name in {self.root / part}.")
        return self.root / part / name


def read_folder(
    folder: VocFolder, split: str, annotated: bool = True, quiet: bool = True
) -> tuple[list[Example], list[tuple[str, str]]]:
    """Reads the annotations and the image headers of a split; decodes no image.

    Args:
        folder: The folder.
        split: The name of a split; see `VocFolder.image_ids`.
        annotated: Reads the annotations. Otherwise no image has objects.
        quiet: Shows no progress on stderr.

    Returns:
        The examples in the order of the split, and `(file name, reason)` of each skipped image.

    Raises:
        UserError: The split does not exist, or its list is not UTF-8 text.
    """
    examples: list[Example] = []
    skipped = []
    image_ids = folder.image_ids(split)
    with progress.bar("annotations", len(image_ids), "images", quiet, brief=True) as advance:
        for image_id in image_ids:
            name = image_id.encode(errors="backslashreplace").decode()
            try:
                if name != image_id:
                    raise UserError("Its name is not UTF-8.")
                path = folder.image_path(image_id)
                name = path.name
                size, objects = image_size(path), NO_OBJECTS
                if annotated:
                    objects = parse_annotation(folder.annotation_path(image_id))
                    _check_boxes(path, objects, size)
                examples.append(Example(len(examples), name, *size, objects, path))
            except (UserError, OSError) as error:
                skipped.append((name, str(error)))
            advance(1)
    return examples, skipped


def _check_boxes(image: Path, objects: Objects, size: tuple[int, int]) -> None:
    """Raises if the annotation belongs to another image, or to the image as EXIF turns it.

    A box may exceed the image by one pixel, since some tools count from 0.
    """
    width, height = size
    if objects.image_size == (height, width) != size and is_turned(image):
        raise UserError(
            f"{image.name} is stored as {width}x{height} for viewers to turn, and annotated as "
            f"{height}x{width}. Save it upright, without EXIF orientation."
        )
    outside = (objects.boxes < -1).any(axis=1)
    outside |= (objects.boxes[:, 2:] > np.array([width + 1, height + 1])).any(axis=1)
    if outside.any():
        raise UserError(
            f"The box {objects.boxes[outside][0].tolist()} leaves {image.name}, which is "
            f"{width}x{height}."
        )


def _lists_images(path: Path) -> bool:
    """Whether a list has one image a line; `dog_train.txt` has an image and a label."""
    words = _read_text(path).partition("\n")[0].split()
    return len(words) < 2 or words[-1] not in _LABELS


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except ValueError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}.") from error
