"""Datasets through tensorflow-datasets: read, or downloaded and prepared.

Objects come from the first sequence of boxes of a dataset, or from its single box and label. A
label alone annotates the image without a box. VOC counts pixels from 1.
"""

import contextlib
import importlib
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds

from kgradcam import progress
from kgradcam.data import voc
from kgradcam.data.dataset import untuned
from kgradcam.data.examples import NO_OBJECTS, Example, Objects, boxed
from kgradcam.data.images import image_size
from kgradcam.data.names import is_name
from kgradcam.data.splits import Skipped, Split
from kgradcam.errors import UserError, did_you_mean
from kgradcam.files import open_regular

_MIRROR_TIMEOUT_SECONDS = 10
_Annotate = Callable[[Mapping[str, Any], tuple[int, int]], Objects]


def voc_names() -> list[str]:
    """Returns the VOC datasets of tensorflow-datasets: `"voc/2007"`, `"voc/2012"`."""
    return [f"voc/{config.name}" for config in tfds.builder_cls("voc").builder_configs.values()]


def is_known(name: str) -> bool:
    """Returns whether tensorflow-datasets has a dataset of that name."""
    return name.partition("/")[0].partition(":")[0] in tfds.list_builders()


def open_tfds(name: str, split: str, data_dir: Path, quiet: bool = True) -> Split:
    """Opens a split of a dataset; downloads and prepares the dataset if it is missing.

    Args:
        name: A name of tensorflow-datasets, as `"voc/2007"` or `"coco/2017"`.
        split: `"train"`, `"validation"` (or `"val"`), `"test"`, or a slice as `"train[:10%]"`.
        data_dir: The data folder of tensorflow-datasets.
        quiet: Shows no progress on stderr.

    Raises:
        UserError: The dataset or the split does not exist, or the download fails.
    """
    builder = _prepared_builder(name, data_dir)
    split = "validation" if split == "val" else split
    base = split.split("[")[0]
    options = list(builder.info.splits)
    if base not in options:
        raise UserError(
            f"split={split!r} is not a split of {name}.{did_you_mean(base, options)} "
            f"It has: {', '.join(options)}."
        )
    try:
        records = _images(builder, split)
        count = builder.info.splits[split].num_examples
    except ValueError as error:
        raise UserError(f"split={split!r} of {name} cannot be read: {error}") from error
    with _damage_named(name, Path(builder.data_path)):
        class_names, annotate = _annotation(name, builder.info.features)

    def results() -> Iterator[Example | Skipped]:
        with (
            progress.bar("headers", count, "images", quiet, brief=True) as advance,
            _damage_named(name, Path(builder.data_path)),
        ):
            index = -1
            for index, record in enumerate(records.as_numpy_iterator()):
                advance(1)
                file_name = _file_name(record, split, index)
                try:
                    size = image_size(record["image"])
                    yield Example(index, file_name, *size, annotate(record, size))
                except UserError as error:
                    yield file_name, str(error)
            if index + 1 != count:
                raise ValueError(f"{index + 1} of {count} images are there.")

    images = records.map(lambda record: record["image"])
    return Split(name, split, results(), class_names, records=images)


def open_records(name: str, split: str, data_dir: Path) -> Callable[[int, int], Any]:
    """Returns a function that opens some records of a split, without reading those before them.

    Returns:
        A function from the position of the first record, and of the one after the last, to a
        `tf.data.Dataset` of encoded images.
    """
    builder = _prepared_builder(name, data_dir)
    whole = tfds.core.ReadInstruction.from_spec(split).to_absolute(builder.info.splits)

    def records(first: int, end: int) -> Any:
        begin, chosen = 0, []
        for each in whole:
            count = each.to - each.from_
            low, high = max(first - begin, 0), min(end - begin, count)
            if low < high:
                chosen.append(f"{each.splitname}[{each.from_ + low}:{each.from_ + high}]")
            begin += count
        return _images(builder, "+".join(chosen)).map(lambda record: record["image"])

    return records


def _images(builder: Any, split: str) -> Any:
    # Without shuffling or interleaving, the order is always that of the files.
    return builder.as_dataset(
        split=split,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
    ).with_options(untuned())


def _file_name(record: Mapping[str, Any], split: str, index: int) -> str:
    for key in ("image/filename", "file_name", "filename"):
        if isinstance(record.get(key), bytes):
            return str(record[key].decode(errors="backslashreplace"))
    return f"{split.partition('[')[0]}-{index:06d}.jpg"


def _annotation(name: str, features: Any) -> tuple[tuple[str, ...], _Annotate]:
    """Returns the classes of a dataset, and the function from a record to its objects.

    Raises:
        UserError: The dataset has no image, or neither boxes nor labels.
    """
    if "image" not in features:
        raise UserError(f"{name} has no feature 'image'. It has: {', '.join(features)}.")
    if name.partition("/")[0] == "voc":
        classes = tuple(features["objects"]["label"].names)
        return classes, lambda record, size: _voc_objects(record["objects"], classes, size)
    for key, feature in features.items():
        inner = getattr(feature, "feature", None)
        if isinstance(inner, tfds.features.FeaturesDict) and (box := _of(inner, _BOX)):
            label, classes = _label(inner, key)
            return classes, _boxes_of(box, label, classes, lambda record, key=key: record[key])
    box, (label, classes) = _of(features, _BOX), _label(features, "object")
    if box:
        return classes, _boxes_of(box, label, classes, _one_object)
    if label is None:
        raise UserError(f"{name} has neither boxes nor labels. It has: {', '.join(features)}.")

    def labelled(record: Mapping[str, Any], size: tuple[int, int]) -> Objects:
        names = [classes[int(record[label])]] if int(record[label]) >= 0 else []
        return boxed([], [], size, False, labels=names) if names else NO_OBJECTS

    return classes, labelled


_BOX, _LABEL = tfds.features.BBoxFeature, tfds.features.ClassLabel


def _of(features: Any, kind: Any) -> str | None:
    """The first feature of a kind; `label` before others."""
    found = [key for key, feature in features.items() if isinstance(feature, kind)]
    return "label" if "label" in found else "type" if "type" in found else next(iter(found), None)


def _label(features: Any, key: str) -> tuple[str | None, tuple[str, ...]]:
    """The feature of the class and the names; one class, as `face` for `faces`, without it."""
    label = _of(features, _LABEL)
    if label is None:
        return None, (key.removesuffix("s"),)
    return label, tuple(features[label].names or map(str, range(features[label].num_classes)))


def _one_object(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return {key: np.asarray(value)[None] for key, value in record.items() if key != "image"}


def _boxes_of(
    box: str, label: str | None, classes: tuple[str, ...], objects_of: Callable[..., Any]
) -> _Annotate:
    def annotate(record: Mapping[str, Any], size: tuple[int, int]) -> Objects:
        objects = objects_of(record)
        ymin, xmin, ymax, xmax = objects[box].astype(np.float64).reshape(-1, 4).T
        width, height = size
        # Two decimals remove the error of float32.
        boxes = np.stack([xmin * width, ymin * height, xmax * width, ymax * height], axis=1).round(
            2
        )
        labels = objects[label] if label else np.zeros(len(boxes), np.int64)
        flags = [objects[key] for key in ("is_difficult", "is_crowd") if key in objects]
        difficult = np.any(flags, axis=0).tolist() if flags else ()
        # Two decimals remove the error of float32.
        return boxed([classes[each] for each in labels], boxes.round(2), size, False, difficult)

    return annotate


def _voc_objects(
    objects: Mapping[str, Any], classes: tuple[str, ...], size: tuple[int, int]
) -> Objects:
    return Objects(
        names=tuple(classes[label] for label in objects["label"]),
        boxes=_pixel_boxes(objects["bbox"], size),
        difficult=objects["is_difficult"],
        poses=tuple(voc.POSES[pose] for pose in objects["pose"]),
        truncated=objects["is_truncated"],
    )


def _pixel_boxes(bbox: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Inverts `voc_builder.normalized`; two decimals remove the error of float32 exactly."""
    ymin, xmin, ymax, xmax = bbox.astype(np.float64).T
    width, height = size
    one_based = np.stack([xmin * width, ymin * height, xmax * width, ymax * height], axis=1)
    return np.round(one_based, 2) - np.array([1.0, 1.0, 0.0, 0.0])


def _prepared_builder(name: str, data_dir: Path) -> Any:
    if is_name(name) and name not in ("voc", *voc_names()):
        raise UserError(
            f"dataset={name!r} is not in tensorflow-datasets, which has {', '.join(voc_names())}."
        )
    with _damage_named(name, data_dir / name):
        for path in (data_dir / name).rglob("*"):
            if not path.is_dir():
                open_regular(path, 2**40).close()  # tensorflow-datasets would wait for a pipe
        builder = tfds.builder(name, data_dir=data_dir)
        is_prepared = builder.is_prepared()
        if is_prepared and not builder.info.splits:
            raise ValueError("dataset_info.json lists no splits.")
        if not is_prepared and Path(builder.data_path).exists():
            raise ValueError("dataset_info.json is missing.")
    if not is_prepared:
        if is_name(name):
            _require_mirror(name)
        try:
            download_and_prepare(builder)
        except Exception as error:  # tensorflow-datasets, requests and tarfile raise many kinds
            raise UserError(
                f"{name} cannot be downloaded and prepared: {_first_line(error)} Remove "
                f"{data_dir / 'downloads'} and try again{_other_ways(name)}."
            ) from error
    return builder


@contextlib.contextmanager
def _damage_named(name: str, folder: Path) -> Iterator[None]:
    """Reports a prepared dataset that was cut short, or lost or changed a file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # TensorFlow, JSON and the file system raise many kinds
        raise UserError(
            f"{name} in {folder} is damaged: {_first_line(error)} Remove this folder to download "
            f"it anew{_other_ways(name)}."
        ) from error


def _first_line(error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    # TensorFlow wraps its messages into names of its own operations.
    text = re.sub(r"\{\{.*?\}\} ?| ?\[Op:.*", "", text)
    return f"{text[:200].rstrip('.')}."


def download_and_prepare(builder: Any) -> None:
    """Writes a dataset, with all progress on stderr."""
    with progress.redirect_stdout(sys.stderr):  # it prints its progress, and stdout is for data
        builder.download_and_prepare()


def _other_ways(name: str) -> str:
    return (
        ", or make it from an unpacked VOCdevkit with `kgradcam prepare`" if is_name(name) else ""
    )


def _require_mirror(name: str) -> None:
    """Fails within seconds if the network is down; the downloader retries for minutes."""
    module = importlib.import_module(tfds.builder_cls("voc").__module__)
    try:
        urllib.request.urlopen(module._VOC_DATA_URL, timeout=_MIRROR_TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        pass  # the mirror is up, although it lists no folders
    except OSError as error:
        raise UserError(
            f"{name} is not in the data folder, and its mirror cannot be reached ({error}). With "
            "an unpacked VOCdevkit at hand: `kgradcam prepare --devkit VOCdevkit --year "
            f"{[*name.split('/'), '2007'][1]}`; or give --dataset a folder in VOC layout, or demo."
        ) from error
