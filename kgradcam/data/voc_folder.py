"""Folders in VOC layout: `JPEGImages/`, `Annotations/` and, optionally, `ImageSets/Main/`.

An image list is input from elsewhere: no name in it can lead out of the folder.
"""

import codecs
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from kgradcam import progress
from kgradcam.data.examples import NO_OBJECTS, Example, Objects
from kgradcam.data.images import SUFFIXES, image_size, is_turned
from kgradcam.data.named_files import NamedFiles
from kgradcam.data.split_names import WHOLE_FOLDER
from kgradcam.data.splits import Skipped, collect
from kgradcam.data.voc import parse_annotation
from kgradcam.errors import DataWarning, UserError, did_you_mean
from kgradcam.files import read_bytes

_MAX_LIST_BYTES = 2**28
_LABELS = ("-1", "0", "1")


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

    @cached_property
    def _images(self) -> NamedFiles:
        return NamedFiles(self.root / "JPEGImages", SUFFIXES)

    @cached_property
    def _annotations(self) -> NamedFiles:
        return NamedFiles(self.root / "Annotations", (".xml",))

    @cached_property
    def _masks(self) -> NamedFiles:
        return NamedFiles(self.root / "SegmentationClass", (".png",))

    @property
    def split_files(self) -> dict[str, Path]:
        """The image lists of `ImageSets/Main` by name, without VOC's lists of a single class."""
        lists = sorted((self.root / "ImageSets" / "Main").glob("*.[tT][xX][tT]"))
        return {path.stem: path for path in lists if not self._is_of_one_class(path)}

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
            return list(dict.fromkeys(read_lines(files[split])))
        if split == WHOLE_FOLDER:
            return sorted(self._annotations.stems)
        options = [*files, WHOLE_FOLDER]
        raise UserError(
            f"split={split!r} is not a split of {self.root}.{did_you_mean(split, options)} "
            f"It has: {', '.join(options)}."
        )

    def annotation_path(self, image_id: str, image_name: str | None = None) -> Path:
        """Returns the path of an image's annotation, which need not exist.

        Args:
            image_id: The image in a list.
            image_name: The name of its file, which counts if the list holds paths of images.

        Raises:
            UserError: The id leads out of the folder, or fits several files. `image_path` and
                `mask_path` raise it too.
        """
        if image_name is not None and image_id not in self._annotations:
            image_id = image_name.rpartition(".")[0] or image_name
        return _found_or(self._annotations, image_id, ".xml")

    def image_path(self, image_id: str) -> Path:
        """Returns the path of an image; with the suffix `.jpg` if no such file exists."""
        return _found_or(self._images, image_id, ".jpg")

    def mask_path(self, image_id: str) -> Path:
        """Returns the path of an image's segmentation, to be read by `voc.class_mask`."""
        return _found_or(self._masks, image_id, ".png")

    def image_name(self, path: Path) -> str:
        """Returns the name of an image: its path in `JPEGImages/`, with `/`."""
        return path.relative_to(self._images.folder).as_posix()

    def _is_of_one_class(self, path: Path) -> bool:
        """Whether a list is VOC's of a class, as `dog_train.txt`: an id and a label in each line.

        The name of an image may end in a number too, as in `photo 1`.
        """
        try:
            lines = read_lines(path)
        except UserError:  # reported if the list is requested
            return False
        if "_" not in path.stem or not lines:
            return False
        labelled = all(len(line.split()) > 1 and line.split()[-1] in _LABELS for line in lines)
        return labelled and not any(
            line in self._images or line in self._annotations for line in lines
        )


def _found_or(files: NamedFiles, image_id: str, suffix: str) -> Path:
    return files.find(image_id) or files.folder / f"{image_id}{suffix}"


def read_folder(
    folder: VocFolder,
    split: str,
    annotated: bool = True,
    quiet: bool = True,
    clip: bool = False,
) -> tuple[list[Example], list[tuple[str, str]]]:
    """Reads the annotations and the image headers of a split; decodes no image.

    Warns if annotations give another image size than the files.

    Args:
        folder: The folder.
        split: The name of a split; see `VocFolder.image_ids`.
        annotated: Reads the annotations. Otherwise no image has objects.
        quiet: Shows no progress on stderr.
        clip: Clips boxes that leave their image, instead of skipping the image.

    Returns:
        The examples in the order of the split, and `(file name, reason)` of each skipped image.

    Raises:
        UserError: The split does not exist, or its list is not UTF-8 text.
    """
    return collect(each_in_folder(folder, split, annotated, quiet, clip))


def each_in_folder(
    folder: VocFolder,
    split: str,
    annotated: bool = True,
    quiet: bool = True,
    clip: bool = False,
) -> Iterator[Example | Skipped]:
    """Yields the images of a split, and `(file name, reason)` of others; see `read_folder`."""
    index, seen = 0, set()
    wrong, first = 0, None
    image_ids = folder.image_ids(split)
    with progress.bar("annotations", len(image_ids), "images", quiet, brief=True) as advance:
        for image_id in image_ids:
            advance(1)
            name = image_id.encode(errors="backslashreplace").decode()
            try:
                if name != image_id:
                    raise UserError("Its name is not UTF-8.")
                path = folder.image_path(image_id)
                name = folder.image_name(path)
                if path in seen:  # a list may name an image both with and without its suffix
                    continue
                seen.add(path)
                size, objects = image_size(path), NO_OBJECTS
                if annotated:
                    objects = parse_annotation(folder.annotation_path(image_id, name))
                    objects = _checked(path, objects, size, clip)
            except (UserError, OSError) as error:
                yield name, str(error)
                continue
            example = Example(index, name, *size, objects, path)
            if objects.image_size not in (None, size):
                wrong, first = wrong + 1, first or example
            index += 1
            yield example
    if first is not None:
        assert first.objects.image_size is not None
        width, height = first.objects.image_size
        warnings.warn(
            f"{wrong} of {index} annotations give another image size than the file, "
            f"such as {first.file_name}: {width}x{height}, but the file has "
            f"{first.width}x{first.height}. Their boxes are read as pixels of the file.",
            DataWarning,
            stacklevel=2,
        )


def _checked(image: Path, objects: Objects, size: tuple[int, int], clip: bool) -> Objects:
    """Returns the objects with boxes inside the image.

    A box may exceed the image by one pixel, since some tools count from 0.

    Raises:
        UserError: The annotation belongs to another image, to the image as EXIF turns it, or its
            boxes are no pixels.
    """
    width, height = size
    if objects.image_size == (height, width) != size and is_turned(image):
        raise UserError(
            f"{image.name} is stored as {width}x{height} for viewers to turn, and annotated as "
            f"{height}x{width}. Save it upright, without EXIF orientation."
        )
    as_written = objects.boxes + np.array([1.0, 1.0, 0.0, 0.0])
    # 1, 1, 1, 1 is the first pixel. Rounding may take a fraction a little beyond 0 and 1.
    fractions = ((as_written > -0.5) & (as_written < 1.5)).all(axis=1)
    fractions &= (as_written != 1).any(axis=1)
    if fractions.any() and max(size) > 1:
        raise UserError(
            f"A box is in fractions of the image: {as_written[fractions][0].round(6).tolist()}. "
            f"VOC counts pixels from 1; {image.name} is {width}x{height}."
        )
    if clip:
        boxes = np.clip(objects.boxes, 0, [width, height, width, height])
        inside = (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
        return replace(
            objects,
            names=tuple(np.array(objects.names, object)[inside]),
            boxes=boxes[inside],
            difficult=objects.difficult[inside],
            poses=tuple(np.array(objects.poses, object)[inside]),
            truncated=objects.truncated[inside],
        )
    outside = (objects.boxes < -1).any(axis=1)
    outside |= (objects.boxes[:, 2:] > np.array([width + 1, height + 1])).any(axis=1)
    if outside.any():
        stated = objects.image_size
        annotated = f", annotated as {stated[0]}x{stated[1]}" if stated not in (None, size) else ""
        raise UserError(
            f"The box {objects.boxes[outside][0].tolist()} leaves {image.name}, which is "
            f"{width}x{height}{annotated}. --clip clips such boxes."
        )
    return objects


def read_lines(path: Path) -> list[str]:
    """Reads the lines of a list that are not blank: UTF-8, or UTF-16 as PowerShell writes it.

    Raises:
        UserError: The list cannot be read, or is not such text.
    """
    try:
        content = read_bytes(path, _MAX_LIST_BYTES)
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except ValueError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
