"""Several image sizes, and refinement: composed around the forward passes of one layer."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from kgradcam.errors import UserError
from kgradcam.heatmaps.affinity import affinities, propagate
from kgradcam.heatmaps.forward import ForwardPass, as_grid
from kgradcam.heatmaps.fusion import at_most_cells, scaled_to_one
from kgradcam.heatmaps.geometry import WHOLE, extent_of, resample
from kgradcam.heatmaps.inputs import channels_first
from kgradcam.heatmaps.layers import LayerCall, finer_calls
from kgradcam.heatmaps.scores import Scored


class View(NamedTuple):
    """The results of one forward pass: symbolic tensors and the layer calls behind them.

    Attributes:
        heatmaps: float32 `[classes, batch, height, width]`, after the ReLU.
        scored: The scores of the explained classes.
        passes: The forward pass at each explained layer.
        calls: The calls whose feature maps the heatmaps are computed from.
        extent: float32 `[4]`: the part of the image that the heatmaps cover; see `extent_of`.
    """

    heatmaps: Any
    scored: Scored
    passes: list[ForwardPass]
    calls: list[LayerCall]
    extent: Any


def check_scales(scales: Sequence[float]) -> tuple[float, ...]:
    """Returns the scales as a tuple.

    Raises:
        UserError: There are none, or one is not positive and finite.
    """
    try:
        factors = tuple(map(float, scales))
    except (TypeError, ValueError, OverflowError):
        factors = ()
    if not factors or not all(0 < factor < math.inf for factor in factors):
        raise UserError(f"scales must be positive factors, as (1.0, 0.5). Received: {scales!r}.")
    return factors


def combine_scales(
    view_of: Callable[[Any, Any], View],
    inputs: Any,
    groups: Any,
    scales: Sequence[float],
    score_scales: Sequence[float],
    refine: bool,
) -> View:
    """Averages the heatmaps of an image at several sizes, on a grid that tiles the image.

    The grid is that of the next finer stride at the largest scale. With `refine` heat also spreads
    to cells that are alike in the two finer layers (see `affinity`).

    Args:
        view_of: Maps inputs and class masks to the view of one forward pass.
        inputs: Symbolic images, with channels last or first.
        groups: See `Score`. If none are given, the first scale selects the top class.
        scales: Factors on the image size.
        score_scales: Factors at which the classes are scored, instead of at `scales`.
        refine: Whether heat spreads.

    Returns:
        One view; heatmaps in [0, 1]; scores and probabilities averaged over the scales that score.

    Raises:
        UserError: The model has other inputs than one image, or several layers are explained.
    """
    if not tf.is_tensor(inputs) or inputs.shape.rank != 4:
        raise UserError("scales and refine need a model of one image, and one layer.")
    views: list[View] = []
    for scale in (*scales, *score_scales):
        scaled = inputs if scale == 1 else _resized(inputs, scale)
        views.append(view_of(scaled, views[0].scored.groups if views else groups))
    if len(views[0].passes) > 1:
        raise UserError("scales and refine need a model of one image, and one layer.")
    calls = [call for view in views for call in view.calls]
    views, scored_views = views[: len(scales)], views[len(scales) :] or views
    (finest,) = views[scales.index(max(scales))].passes
    finer = finer_calls(list(finest.recorded), finest.call) or [finest.call]
    cells = at_most_cells(tf.shape(as_grid(finer[0], finer[0].feature_maps, finest.reshape))[1:3])
    total = _mean([_on_grid(view, cells) for view in views])
    if refine:
        total = propagate(total, affinities([_tiled(finest, call, cells) for call in finer]))
        calls += finer
    scored = views[0].scored._replace(
        scores=_mean([view.scored.scores for view in scored_views]),
        probabilities=_mean([view.scored.probabilities for view in scored_views]),
    )
    heatmaps = tf.einsum("bhwc->cbhw", scaled_to_one(total))
    return View(heatmaps, scored, views[0].passes, calls, tf.constant(WHOLE))


def _resized(images: Any, scale: float) -> Any:
    """Images at another size, in their own layout and dtype."""
    first = channels_first(images)
    last = tf.transpose(images, [0, 2, 3, 1]) if first else images
    size = tf.cast(tf.round(scale * tf.cast(tf.shape(last)[1:3], tf.float32)), tf.int32)
    resized = tf.cast(tf.image.resize(last, size), images.dtype)
    return tf.transpose(resized, [0, 3, 1, 2]) if first else resized


def _mean(tensors: Sequence[Any]) -> Any:
    return tf.add_n(tensors) / len(tensors)


def _on_grid(view: View, cells: Any) -> Any:
    """The heatmaps of a view, `[batch, *cells, classes]`, divided by their maxima."""
    heatmaps = tf.einsum("cbhw->bhwc", view.heatmaps)
    return scaled_to_one(resample(heatmaps, view.extent, cells))


def _tiled(forward: ForwardPass, call: LayerCall, cells: Any) -> Any:
    """The feature maps of a layer, resampled to cells that tile the image."""
    grid = as_grid(call, call.feature_maps, forward.reshape)
    return resample(grid, extent_of(grid, forward.inputs), cells)
