"""An explainer as a SavedModel, which any program with TensorFlow can run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kgradcam.boxes.options import BoxOptions
from kgradcam.errors import UserError
from kgradcam.heatmaps.class_groups import ClassTarget, names_of_outputs
from kgradcam.heatmaps.constant_graph import ConstantGraph
from kgradcam.heatmaps.gradcam import GradCAM
from kgradcam.models.digests import architecture_digest, weights_digest
from kgradcam.serving.card import describe_signatures, write_card
from kgradcam.serving.graph_boxes import check_options
from kgradcam.serving.pictures import PictureInput
from kgradcam.serving.requirements import new_folder, picture_input, require_new
from kgradcam.serving.signatures import Signatures
from kgradcam.serving.warmup import write_warmup

_DEFAULTS = BoxOptions()


def export_model(
    cam: GradCAM,
    folder: str | Path,
    *,
    top: int = 3,
    classes: Sequence[ClassTarget] | None = None,
    class_names: Sequence[str] | None = None,
    size: int | None = None,
    precision: str = "float32",
    threshold: float = 0.35,
    boxes: BoxOptions = _DEFAULTS,
    max_boxes: int = 10,
    max_pixels: int | None = None,
    description: str = "",
) -> dict[str, Any]:
    """Exports an explainer as a SavedModel: weights, preprocessing, heatmaps and boxes in a graph.

    A program needs TensorFlow alone to run it, or TensorFlow Serving. These are the signatures;
    `b` is the batch, `k` the number of explained classes:

    ===================  ==========================================================================
    `serving_default`    the same as `explain`
    `explain`            `images` uint8 `[b, height, width, 3]`: explains the top classes, or those
                         given as `classes`
    `explain_bytes`      `image_bytes` string `[b]`, JPEG or PNG: the same
    `explain_class`      `images` and `class_indices` int32 `[n]`: explains one class, or several as
                         a group
    `predict`            `images`: the `scores` and `probabilities` of all classes, float32
                         `[b, classes]`, without heatmaps
    ===================  ==========================================================================

    The results of `explain` are, where `m` is `max_boxes`:

    ===================  ==========================================================================
    `classes`            int32 `[b, k]`: indices of the top classes, best first; places in `classes`
                         where those are given
    `names`              string `[b, k]`: their names, with `class_names` or given names
    `scores`             float32 `[b, k]`: see `Explanation`
    `probabilities`      float32 `[b, k]`
    `heatmaps`           float32 `[b, k, h, w]`, at the resolution of the layer
    `extent`             float32 `[b, 4]`, the part of the picture that the cells tile
    `boxes`              float32 `[b, k, m, 4]`: xyxy in pixels of the picture as it was sent, best
                         first, as `find_boxes` draws them; zeros where there are fewer
    `box_scores`         float32 `[b, k, m]`
    ===================  ==========================================================================

    A model of several inputs, or of another input than pictures, has its inputs by name in place of
    `images`, and neither boxes nor `explain_bytes`. The graph refuses pictures that are too large,
    and more than 64 at once, with an invalid argument error. `card.json` and `card.md` in the
    folder describe the export.

    Args:
        cam: The explainer; its `preprocess` becomes a part of the graph. Pictures are RGB in
            [0, 255].
        folder: The folder to write, where nothing exists yet. TensorFlow Serving expects a number
            as its name, the version.
        top: The number of classes that `explain` explains.
        classes: Explain these instead of the top classes: indices, names or groups.
        class_names: The names of the model's outputs; two for one sigmoid unit, that of label 0
            first.
        size: Resize pictures to `size` x `size` pixels, for a model that takes any size. A model
            of fixed size always gets its own.
        precision: See `GradCAM.freeze`. The export then needs a machine that has the precision.
        threshold: The lowest heat level of boxes; see `find_boxes`.
        boxes: The options of boxes, with the rules `"levels"` and without smoothing.
        max_boxes: The number of boxes of each heatmap.
        max_pixels: The pixels that a picture may have. Default: 16 million where pictures are
            resized, else 4 million.
        description: A text for the card, such as the name of the network.

    Returns:
        The content of `card.json`.

    Raises:
        UserError: Something is at `folder`, an argument is out of range, or the explainer has no
            classes that could be explained.
        CannotFreezeError: See `GradCAM.freeze`.

    Example:
        >>> import keras
        >>> import tempfile
        >>> import tensorflow as tf
        >>> model = keras.Sequential([
        ...     keras.Input((16, 16, 3)),
        ...     keras.layers.Conv2D(4, 3),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(10, activation="softmax"),
        ... ])
        >>> folder = Path(tempfile.mkdtemp()) / "1"
        >>> card = export_model(GradCAM(model), folder, top=2)
        >>> explain = tf.saved_model.load(folder).signatures["explain"]
        >>> found = explain(images=tf.zeros((1, 40, 30, 3), tf.uint8))
        >>> found["heatmaps"].shape
        TensorShape([1, 2, 14, 14])
    """
    folder = Path(folder)
    require_new(folder)
    for name, value in (("top", top), ("max_boxes", max_boxes), ("max_pixels", max_pixels)):
        if value is not None and not (isinstance(value, int) and 1 <= value < 2**31):
            raise UserError(f"{name} must be a whole number from 1 up. Received: {value!r}.")
    if not 0 <= threshold <= 1:
        raise UserError(f"threshold must be in [0, 1]. Received: {threshold!r}.")
    check_options(boxes)
    graph = ConstantGraph(cam, top, precision)
    names = names_of_outputs(class_names, graph.class_count, graph.two_sided)
    groups = np.zeros((1, 0, 1), np.int32)
    explained: Sequence[str] = names
    if classes is not None:
        if not classes or not graph.class_count:
            raise UserError("classes must name classes of the model, at least one.")
        groups = graph.groups_of(classes, names)
        explained = [_label(target, names) for target in classes]
    pictures = picture_input(graph.specs, size, max_pixels)
    made = Signatures(
        graph, groups, explained or None, pictures, float(threshold), boxes, max_boxes
    ).make()

    card = {
        "model": {
            "name": description or cam.model.name,
            "architecture": architecture_digest(cam.model),
            "weights": weights_digest(cam.model.variables),
        },
        "layer": graph.layer,
        "method": graph.method,
        "precision": graph.precision,
        "classes": list(names),
        "explained": list(explained) if classes is not None else f"top {top}",
        "pictures": None if pictures is None else pictures._asdict(),
        "boxes": {"threshold": threshold, "max_boxes": max_boxes, **vars(boxes)},
        "signatures": describe_signatures(made),
    }
    with new_folder(folder) as partial:
        # Nothing takes gradients through an export, so they are left out.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(tf.Module(), str(partial), made, options)
        if pictures is not None:
            write_warmup(partial, _warmup_requests(pictures))
        write_card(partial, card)
    return card


def _label(target: Any, names: Sequence[str]) -> str:
    """The name of a class or group, or its indices."""
    members = [target] if isinstance(target, str) or not np.ndim(target) else list(target)
    return ", ".join(
        each if isinstance(each, str) else names[each] if names else str(each) for each in members
    )


def _warmup_requests(pictures: PictureInput) -> dict[str, Any]:
    """One picture for each signature, so that a server has run all of them before it starts."""
    images = np.zeros((1, *(pictures.size or (224, 224)), pictures.channels), np.uint8)
    encoded = tf.io.encode_png(images[0]).numpy()
    return {
        "explain": {"images": images},
        "explain_class": {"images": images, "class_indices": np.zeros(1, np.int32)},
        "predict": {"images": images},
        "explain_bytes": {"image_bytes": np.array([encoded], object)},
    }
