"""From picture files to heatmaps on pictures: `explain`, and its result."""

import functools
import io
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps

from kgradcam.boxes.find import find_boxes
from kgradcam.boxes.normalization import Heatmap, normalize
from kgradcam.boxes.options import BoxOptions
from kgradcam.boxes.overlap import Boxes
from kgradcam.data.images import read_image, resize, to_channels, to_rgb
from kgradcam.errors import UserError
from kgradcam.heatmaps.class_groups import ClassTarget
from kgradcam.heatmaps.explainer import Explainer, Explanation, require_height_and_width
from kgradcam.heatmaps.inputs import check_model
from kgradcam.heatmaps.methods import find_method
from kgradcam.models.classifier import OWN, Classifier, imagenet_names, load_classifier
from kgradcam.models.preprocessing import find_preprocessing, preprocessing_of
from kgradcam.pictures.blending import OPACITY, Picture, as_picture, overlay
from kgradcam.pictures.drawing import ExplanationRow, draw_explanations
from kgradcam.pictures.figures import encode, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DEFAULT_SIZE = 224
_BATCH = 16
_SHOWN = 8
_DEFAULT_BOXES = BoxOptions()


@dataclass(frozen=True, kw_only=True)
class PictureExplanation(Explanation):
    """The explanation of pictures, which draws itself; a notebook shows it.

    `i` is the index of a picture, `j` that of an explained class.

    Attributes:
        pictures: Each uint8 `[height, width, 3]`, RGB, at its own size.
        titles: The file name or number of each picture.
        class_names: The name of each output, and of one unit its two sides, that of 1 first;
            empty if they are unknown.
        input_size: Height and width of the model's input in pixels.
    """

    pictures: tuple[Picture, ...]
    titles: tuple[str, ...]
    class_names: tuple[str, ...] = ()
    input_size: tuple[int, int] = (_DEFAULT_SIZE, _DEFAULT_SIZE)

    def heatmap(self, i: int = 0, j: int = 0) -> Heatmap:
        """Returns a heatmap at the size of its picture: float32 `[height, width]` in [0, 1]."""
        size = self.pictures[i].shape[1::-1]
        return visible_heatmap(self.heatmaps[i, j], size, self.input_size, self.extent)

    def overlay(self, i: int = 0, j: int = 0, opacity: float = OPACITY) -> Picture:
        """Returns a picture with its heatmap over it: uint8 `[height, width, 3]`, RGB."""
        return overlay(self.pictures[i], self.heatmap(i, j), opacity)

    def boxes(
        self, i: int = 0, j: int = 0, threshold: float = 0.35, options: BoxOptions = _DEFAULT_BOXES
    ) -> tuple[Boxes, npt.NDArray[np.float64]]:
        """Returns boxes in pixels of the picture, and their scores; see `find_boxes`."""
        probability = float(np.nan_to_num(self.probabilities[i, j], nan=1.0))
        size = self.pictures[i].shape[1::-1]
        return find_boxes(
            self.heatmaps[i, j], size, probability, threshold, options, extent=self.extent
        )

    def label(self, i: int = 0, j: int = 0) -> str:
        """Returns an explained class with its probability, or with its score if it has none."""
        probability = self.probabilities[i, j]
        value = f"{self.scores[i, j]:.4g}" if math.isnan(probability) else f"{probability:.1%}"
        return f"{self._name(self.classes[i][j]) if self.classes else 'score'}  {value}"

    def figure(self, count: int | None = None) -> "Figure":
        """Returns a Matplotlib figure with a row for each of the first `count` pictures."""
        columns = range(self.heatmaps.shape[1])
        return draw_explanations(
            [
                ExplanationRow(
                    picture,
                    self.titles[i],
                    np.stack([self.heatmap(i, j) for j in columns]),
                    [self.label(i, j) for j in columns],
                )
                for i, picture in enumerate(self.pictures[:count])
            ]
        )

    def save(self, path: str | Path) -> None:
        """Writes the figure as PNG, JPEG, PDF or SVG, by the suffix; replaces an existing file."""
        save(self.figure(), Path(path))

    def show(self) -> None:
        """Shows the figure: below the cell of a notebook, otherwise in the viewer of pictures."""
        # Whoever runs a notebook has imported IPython.
        ipython = sys.modules.get("IPython")
        if ipython is not None and ipython.get_ipython() is not None:
            ipython.display.display(self)
        else:
            PIL.Image.open(io.BytesIO(self._repr_png_())).show()

    def _repr_png_(self) -> bytes:
        return encode(self.figure(_SHOWN), ".png")

    def _name(self, target: ClassTarget) -> str:
        if isinstance(target, str):
            return target
        if isinstance(target, int | np.integer):
            known = target < len(self.class_names)
            return self.class_names[target] if known else f"class {target}"
        first, *others = map(self._name, target)
        return f"{first} and {len(others)} more" if others else first


def explain(
    images: Any,
    model: keras.Model | Classifier | str | Path,
    classes: ClassTarget | Sequence[ClassTarget] | None = None,
    *,
    method: str = "gradcam",
    preprocess: Callable[[Any], Any] | str | None = None,
    class_names: Sequence[str] | None = None,
    size: int | tuple[int, int] | None = None,
    **options: Any,
) -> PictureExplanation:
    """Explains pictures: reads, resizes and preprocesses them, and computes their heatmaps.

    The explainer of the last model is kept, so a second call is fast. It follows the weights.

    Args:
        images: One picture or several: a path, a PIL image, an array or tensor `[height, width,
            channels]` or with a batch axis, or a list of these. Arrays are RGB or grey, uint8, or
            floats in [0, 1] or [0, 255]; they are not preprocessed yet.
        model: A Keras model or a KerasHub task; or the name, file or folder of one, see
            `load_classifier`.
        classes: A class by index or name, or a list of classes, each explained for every picture.
            A list in the list is a group. Default: the top class of each picture.
        method: A method's name, a key of `kgradcam.heatmaps.METHODS`.
        preprocess: Maps RGB images in [0, 255] to the inputs of the model: a function on tensors,
            the name of a network of `keras.applications`, or `"none"`. Default: that of the model,
            see `preprocessing_of`.
        class_names: The name of each output. One sigmoid unit has two, that of 0 first. Default:
            from the model's card, and those of ImageNet for a network of it.
        size: Side, or height and width, of the model's input in pixels. Pictures are resized to it
            without regard to their aspect ratio. Default: the model's own, or 224 if it takes any.
        **options: Further arguments of `GradCAM`: `layer`, `score`, `refine` and others.

    Returns:
        A `PictureExplanation`: `show()`, `save("overlay.png")`, `overlay(i)`, `boxes(i)`.

    Raises:
        UserError: A picture cannot be read, a class is unknown, or the model's preprocessing is
            unknown and not given.

    Example:
        >>> model = keras.applications.MobileNet(weights=None)
        >>> picture = np.zeros((60, 80, 3), np.uint8)
        >>> e = explain(picture, model, ["tabby", "tiger cat"])
        >>> e.heatmaps.shape, e.overlay(0, 1).shape, e.label(0, 1)[:9]
        ((1, 2, 7, 7), (60, 80, 3), 'tiger cat')
    """
    if isinstance(model, str | Path):
        model = load_classifier(str(model), image_size=OWN)
    if isinstance(model, Classifier):
        size = size or (model.own_size and model.own_size[::-1])
        preprocess = preprocess or model.preprocess
        class_names, model = class_names or model.class_names, model.model
    check_model(model)
    if isinstance(preprocess, str):
        preprocess = find_preprocessing(preprocess)
    elif preprocess is None and (preprocess := preprocessing_of(model)) is None:
        kind = (
            "preprocessor" if hasattr(model, "preprocessor") else "Rescaling or Normalization layer"
        )
        raise UserError(
            f"The preprocessing of the model {model.name!r} is unknown: it has no {kind}, and no "
            "name of keras.applications. Give preprocess=: a function of RGB images in [0, 255], "
            "the name of a network such as 'resnet50', or 'none'."
        )
    named = list(_as_pictures(images))
    if not named:
        raise UserError("images must hold a picture. Received: none.")
    height, width = _input_size(model, size)
    channels = _input_shape(model)[-1]
    inputs = to_channels(np.stack([resize(each, (width, height)) for _, each in named]), channels)
    names = tuple(class_names or imagenet_names(model) or ())
    settings = {"preprocess": preprocess, "class_names": names, **options}
    explainer = _explainer(method, model, tuple(sorted(_hashable(settings).items())))
    chosen: Any = [classes] if isinstance(classes, str | int | np.integer) else classes
    found = explainer(inputs, chosen, batch_size=_BATCH)
    require_height_and_width(found, explainer.layer)
    return PictureExplanation(
        heatmaps=found.heatmaps,
        scores=found.scores,
        probabilities=found.probabilities,
        classes=found.classes,
        extent=found.extent,
        pictures=tuple(picture for _, picture in named),
        titles=tuple(title or f"image {i}" for i, (title, _) in enumerate(named)),
        class_names=tuple(explainer.class_names),
        input_size=(height, width),
    )


def visible_heatmap(
    heatmap: Heatmap, size: Sequence[int], seen: tuple[int, ...], extent: Sequence[float]
) -> Heatmap:
    """Normalizes a heatmap for drawing, at the image's size.

    Args:
        heatmap: `[height, width]` at any resolution.
        size: `(width, height)` of the image.
        seen: Height and width of the model's input.
        extent: See `normalize`.
    """
    # A heatmap at pixel resolution, as of guided Grad-CAM, has a few pixels far above all others.
    # Clipped at its 99th percentile, the rest becomes visible.
    if heatmap.shape == tuple(seen):
        heatmap = np.minimum(heatmap, np.quantile(heatmap, 0.99))
    return normalize(heatmap, size, extent)


@functools.lru_cache(maxsize=1)
def _explainer(method: str, model: Any, options: tuple[tuple[str, Any], ...]) -> Explainer:
    return find_method(method)(model, **dict(options))


def _hashable(options: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}


def _as_pictures(images: Any) -> Iterator[tuple[str, Picture]]:
    """Yields each picture with the name of its file; without a file the name is empty."""
    if isinstance(images, str) and re.match("https?://", images):
        raise UserError(
            "images must be files, PIL images or arrays. Received the address "
            f"{images!r:.100}: download it first, or use `kgradcam explain`, which does."
        )
    if isinstance(images, str | Path):
        yield Path(images).name, read_image(Path(images), upright=True)
    elif isinstance(images, PIL.Image.Image):
        try:
            yield "", np.asarray(to_rgb(PIL.ImageOps.exif_transpose(images)))
        except ValueError as error:
            raise UserError(f"A PIL image of mode {images.mode}: {error}.") from error
    elif isinstance(images, list | tuple):
        for each in images:
            yield from _as_pictures(each)
    else:
        array = np.asarray(images)
        if array.dtype == object or not array.ndim:
            raise UserError(
                "images must be a path, a PIL image, an array, a tensor or a list of them. "
                f"Received: {type(images).__name__}. GradCAM takes a tf.data.Dataset of batches."
            )
        for each in array if array.ndim == 4 else array[np.newaxis]:
            yield "", np.round(as_picture(each)).astype(np.uint8)


def _input_shape(model: Any) -> tuple[int | None, ...]:
    """The shape of the model's input where it is known, else one of any size."""
    shape = getattr(model, "input_shape", None)
    return shape if isinstance(shape, tuple) and len(shape) == 4 else (None, None, None, 3)


def _input_size(model: Any, size: int | tuple[int, int] | None) -> tuple[int, int]:
    """Height and width of the input: as given, of a preprocessor, of the model, or 224."""
    if size is not None:
        return (size, size) if isinstance(size, int) else (size[0], size[1])
    converter = getattr(getattr(model, "preprocessor", None), "image_converter", None)
    if (wanted := getattr(converter, "image_size", None)) is not None:
        return int(wanted[0]), int(wanted[1])
    _, height, width, _ = _input_shape(model)
    return height or _DEFAULT_SIZE, width or _DEFAULT_SIZE
