"""Boxes at many heat levels, in TensorFlow: the rules `"levels"` of `find_boxes`, inside a graph.

TensorFlow has no connected components. A row of a mask consists of runs of pixels; runs of
neighbouring rows that overlap are connected. So components are found among some hundred runs of all
levels together, and not among pixels.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from kgradcam.boxes.expected_iou import BIAS, MOST, STABLE, WEIGHTS
from kgradcam.boxes.levels import CANVAS, LEVELS, MAX_CANDIDATES
from kgradcam.boxes.moves import LARGEST_MOVE, MOVE_BIAS, MOVE_WEIGHTS, OUTWARDS
from kgradcam.boxes.options import BoxOptions
from kgradcam.errors import UserError


def check_options(options: BoxOptions) -> None:
    """Checks that a graph can draw boxes by these options.

    Raises:
        UserError: The rules are not `"levels"`, or the heatmap is smoothed.
    """
    if options.rules != "levels" or options.smooth_radius > 1:
        raise UserError(
            "Boxes of an export follow the rules levels, without smoothing. "
            f"Received: {options.rules}, smooth_radius={options.smooth_radius}."
        )


def level_boxes(
    heatmap: Any,
    size: Any,
    probability: Any,
    extent: Any,
    threshold: float,
    options: BoxOptions,
    most: int,
) -> tuple[Any, Any]:
    """Draws boxes as `find_boxes` does; all tensors may be symbolic.

    Args:
        heatmap: float32 `[height, width]`, at any resolution.
        size: int32 `[2]`, the width and height of the image in pixels.
        probability: float32, the probability of the class, in [0, 1].
        extent: float32 `[4]`; see `normalize`.
        threshold: The lowest heat level, in [0, 1].
        options: The score and the limits of non-maximum suppression.
        most: The number of boxes to return.

    Returns:
        Boxes float32 `[most, 4]`, xyxy in pixels, best first; and their scores, float32 `[most]`.
        Both are 0 in rows without a box.
    """
    sides = tf.cast(size, tf.float64)
    shrink = tf.minimum(tf.constant(1.0, tf.float64), CANVAS / tf.reduce_max(sides))
    small = tf.maximum(tf.round(sides * shrink), 1)
    canvas = _normalized(heatmap, tf.cast(small, tf.int32), tf.cast(extent, tf.float64))
    levels = sorted({threshold, *(each for each in LEVELS if each > threshold)})
    boxes = _boxes_of_regions(canvas > tf.constant(levels, tf.float32)[:, None, None])
    probability = tf.cast(probability, tf.float64)
    shares, densities = _heat_inside(canvas, boxes)
    if options.score == "expected-iou":
        scores = probability ** np.float64(0.1) * _expected_iou(canvas, boxes, shares, densities)
        boxes, scores = _compete(_move_sides(canvas, boxes, shares), scores, options, most)
    else:
        scores = {
            "density": probability ** np.float64(0.2) * shares * densities,
            "heat": probability * shares,
            "constant": tf.ones_like(shares),
        }[options.score]
        boxes, scores = _suppress(tf.cast(boxes, tf.float64), scores, options, most)
    missing = most - tf.shape(boxes)[0]
    boxes = tf.pad(boxes * tf.tile(sides / small, [2]), [[0, missing], [0, 0]])
    scores = tf.pad(scores, [[0, missing]])
    return (
        tf.ensure_shape(tf.cast(boxes, tf.float32), [most, 4]),
        tf.ensure_shape(tf.cast(scores, tf.float32), [most]),
    )


def _normalized(heatmap: Any, size: Any, extent: Any) -> Any:
    """`boxes.normalize`: resized to the `(width, height)` of the canvas, stretched to [0, 1]."""
    lowest = tf.reduce_min(heatmap)
    rows = _weights(tf.shape(heatmap)[0], size[1], extent[1], extent[3])
    columns = _weights(tf.shape(heatmap)[1], size[0], extent[0], extent[2])
    resized = tf.matmul(tf.matmul(rows, heatmap - lowest), columns, transpose_b=True)
    resized -= tf.reduce_min(resized)
    return tf.math.divide_no_nan(resized, tf.reduce_max(resized))


def _weights(count: Any, pixels: Any, low: Any, high: Any) -> Any:
    """The weight of each of `count` cells in each pixel, float32 `[pixels, count]`."""
    cells, sides = tf.cast(count, tf.float64), tf.cast(pixels, tf.float64)
    places = ((tf.range(sides) + 0.5) / sides - low) / (high - low) * cells
    nearest = tf.clip_by_value(places - 0.5, 0, cells - 1)
    distances = tf.abs(nearest[:, tf.newaxis] - tf.range(cells))
    covered = tf.cast((places >= 0) & (places <= cells), tf.float64)
    return tf.cast(covered[:, tf.newaxis] * tf.maximum(1 - distances, 0), tf.float32)


def _boxes_of_regions(masks: Any) -> Any:
    """The bounding boxes of the 4-connected regions of each mask.

    Args:
        masks: bool `[levels, height, width]`.

    Returns:
        int32 `[regions, 4]`, xyxy; ordered by mask, then by their first pixel in raster order.
    """
    before = tf.pad(masks, [[0, 0], [0, 0], [1, 0]])[:, :, :-1]
    after = tf.pad(masks, [[0, 0], [0, 0], [0, 1]])[:, :, 1:]
    first = masks & ~before
    starts = tf.cast(tf.where(first), tf.int32)  # level, y, x of the first pixel of each run
    ends = tf.cast(tf.where(masks & ~after), tf.int32)
    counted = tf.cumsum(tf.cast(tf.reshape(first, [-1]), tf.int32)) - 1
    run_of_pixel = tf.reshape(counted, tf.shape(masks))

    # Two runs overlap in one interval, so its first pixel stands for their connection.
    both = masks[:, :-1] & masks[:, 1:]
    meets = both & ~tf.pad(both, [[0, 0], [0, 0], [1, 0]])[:, :, :-1]
    upper = tf.boolean_mask(run_of_pixel[:, :-1], meets)
    lower = tf.boolean_mask(run_of_pixel[:, 1:], meets)
    count = tf.shape(starts)[0]
    region = _connected(count, upper, lower)

    def of_region(reduce: Any, values: Any) -> Any:
        return reduce(values, region, count)

    corners = [
        of_region(tf.math.unsorted_segment_min, starts[:, 2]),
        of_region(tf.math.unsorted_segment_min, starts[:, 1]),
        of_region(tf.math.unsorted_segment_max, ends[:, 2] + 1),
        of_region(tf.math.unsorted_segment_max, ends[:, 1] + 1),
    ]
    return tf.boolean_mask(tf.stack(corners, axis=1), region == tf.range(count))


def _connected(count: Any, upper: Any, lower: Any) -> Any:
    """The lowest node that each of `count` nodes is connected with, int32 `[count]`.

    Each round, both ends of an edge and their labels take the lower label; then each label is
    replaced by its own label. Rounds grow with the logarithm of the longest path.
    """

    def step(labels: Any, _: Any) -> tuple[Any, Any]:
        one, other = tf.gather(labels, upper), tf.gather(labels, lower)
        places = tf.concat([upper, lower, one, other], axis=0)[:, tf.newaxis]
        found = tf.tensor_scatter_nd_min(labels, places, tf.tile(tf.minimum(one, other), [4]))
        found = tf.gather(found, found)
        return found, tf.reduce_any(found != labels)

    labels, _ = tf.while_loop(
        lambda _, changed: changed, step, (tf.range(count), tf.constant(True))
    )
    return labels


def _suppress(boxes: Any, scores: Any, options: BoxOptions, most: int) -> tuple[Any, Any]:
    """`boxes.levels.suppress`: the boxes to keep, and their scores."""
    candidates = tf.argsort(scores, direction="DESCENDING", stable=True)[:MAX_CANDIDATES]
    lowest = options.min_relative_score * tf.reduce_max(tf.concat([[0.0], scores], 0))
    candidates = tf.boolean_mask(candidates, tf.gather(scores, candidates) >= lowest)
    boxes, scores = tf.gather(boxes, candidates), tf.gather(scores, candidates)
    # Ranks instead of scores: float32 would merge scores that differ in float64.
    ranks = -tf.range(tf.cast(tf.shape(boxes)[0], tf.float32))
    kept = tf.image.non_max_suppression(
        tf.cast(boxes, tf.float32), ranks, most, options.iou_threshold
    )
    return tf.gather(boxes, kept), tf.gather(scores, kept)


def _compete(boxes: Any, scores: Any, options: BoxOptions, most: int) -> tuple[Any, Any]:
    """`boxes.levels.compete`: the boxes to keep, and their scores."""
    order = tf.argsort(scores, direction="DESCENDING", stable=True)[:MAX_CANDIDATES]
    # One more box, which never wins: a maximum needs an element.
    boxes = tf.pad(tf.gather(boxes, order), [[0, 1], [0, 0]])
    scores = tf.pad(tf.gather(scores, order), [[0, 1]], constant_values=-1)
    lowest = tf.maximum(options.min_relative_score * tf.reduce_max(scores), 0)
    width = max(1.5 * options.iou_threshold, 1e-9)

    def step(count: Any, left: Any, kept: Any, found: Any) -> tuple[Any, Any, Any, Any]:
        best = tf.argmax(left, output_type=tf.int32)
        kept = tf.concat([kept, [best]], 0)
        found = tf.concat([found, [left[best]]], 0)
        iou = _iou(boxes[best][tf.newaxis], boxes)[0]
        gone = (iou > 2 * options.iou_threshold) | (tf.range(tf.shape(left)[0]) == best)
        lower = left * tf.exp(-((iou / width) ** 2))
        left = tf.where(gone | (left < 0), -tf.ones_like(left), lower)
        return count + 1, left, kept, found

    _, _, kept, found = tf.while_loop(
        lambda count, left, *_: (count < most) & (tf.reduce_max(left) >= lowest),
        step,
        (0, scores, tf.zeros([0], tf.int32), tf.zeros([0], tf.float64)),
        (tf.TensorShape([]), scores.shape, tf.TensorShape([None]), tf.TensorShape([None])),
    )
    return tf.gather(boxes, kept), found


def _iou(one: Any, other: Any) -> Any:
    """`boxes.box_iou` of boxes that are not both empty."""
    lower = tf.maximum(one[:, tf.newaxis, :2], other[:, :2])
    upper = tf.minimum(one[:, tf.newaxis, 2:], other[:, 2:])
    common = tf.reduce_prod(tf.maximum(upper - lower, 0), axis=-1)
    areas, others = (tf.reduce_prod(each[:, 2:] - each[:, :2], axis=-1) for each in (one, other))
    return common / (areas[:, tf.newaxis] + others - common)


def _heat_inside(canvas: Any, boxes: Any) -> tuple[Any, Any]:
    """`boxes.heat_inside`, float64 `[boxes]` each."""
    inside, total = _heat_of(canvas, boxes)
    areas = tf.cast(tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=1), tf.float64)
    return tf.clip_by_value(inside / total, 0, 1), tf.clip_by_value(inside / areas, 0, 1)


def _heat_of(canvas: Any, boxes: Any) -> tuple[Any, Any]:
    """`boxes.heat_of`, float64."""
    heat = tf.cumsum(tf.cumsum(tf.cast(canvas, tf.float64), axis=0), axis=1)
    heat = tf.pad(heat, [[1, 0], [1, 0]])
    xmin, ymin, xmax, ymax = tf.unstack(boxes, axis=1)

    def at(y: Any, x: Any) -> Any:
        return tf.gather_nd(heat, tf.stack([y, x], axis=1))

    inside = at(ymax, xmax) - at(ymin, xmax) - at(ymax, xmin) + at(ymin, xmin)
    return inside, heat[-1, -1]


def _move_sides(canvas: Any, boxes: Any, shares: Any) -> Any:
    """`boxes.move_sides`, float64 `[boxes, 4]`."""
    ends = tf.tile(tf.shape(canvas)[::-1], [2])
    lengths = tf.tile(boxes[:, 2:] - boxes[:, :2], [1, 2])
    depths = tf.maximum((lengths + 2) // 4, 1)
    along = tf.gather(lengths, [1, 0, 3, 2], axis=1)
    outer = boxes + depths * OUTWARDS
    strips = []
    for side in range(4):
        corners = tf.unstack(boxes, axis=1)
        corners[(side + 2) % 4], corners[side] = corners[side], outer[:, side]
        strips.append(tf.clip_by_value(tf.stack(corners, axis=1), 0, ends))
    heat, _ = _heat_of(canvas, tf.concat(strips, axis=0))
    heat = tf.transpose(tf.reshape(heat, [4, -1]))
    sizes, others = tf.cast(lengths, tf.float64), tf.cast(along, tf.float64)
    numbers = [
        heat / tf.cast(depths * along, tf.float64),
        tf.math.log(sizes / others),
        tf.math.log(sizes / tf.cast(ends, tf.float64)),
        tf.tile(shares[:, tf.newaxis], [1, 4]),
    ]
    moves = MOVE_BIAS + tf.reduce_sum(tf.stack(numbers, axis=2) * MOVE_WEIGHTS, axis=2)
    moves = tf.clip_by_value(moves, -LARGEST_MOVE, LARGEST_MOVE) * sizes * OUTWARDS
    at_border = boxes == ends * tf.constant([0, 0, 1, 1])
    moved = tf.cast(boxes, tf.float64) + tf.where(at_border, tf.zeros_like(moves), moves)
    return tf.clip_by_value(moved, 0, tf.cast(ends, tf.float64))


def _expected_iou(canvas: Any, boxes: Any, shares: Any, densities: Any) -> Any:
    """`boxes.expected_iou`, float64 `[boxes]`."""
    relative = shares * densities
    relative /= tf.reduce_max(tf.concat([[1e-300], relative], 0))
    densest = tf.argsort(relative, direction="DESCENDING", stable=True)[:MOST]
    rivals = tf.gather(tf.cast(boxes, tf.float64), densest)
    overlaps = _iou(rivals, rivals)
    stability = tf.reduce_sum(tf.cast(overlaps >= STABLE, tf.float64), axis=1)
    support = tf.reduce_sum(overlaps * tf.gather(relative, densest), axis=1)
    places = densest[:, tf.newaxis]
    stability = tf.tensor_scatter_nd_update(tf.ones_like(relative), places, stability)
    support = tf.tensor_scatter_nd_update(relative, places, support)
    height, width = tf.unstack(tf.shape(canvas))
    ends = tf.stack([0, 0, width, height])
    borders = tf.reduce_sum(tf.cast(boxes == ends, tf.float64), axis=1)
    numbers = tf.stack([shares, densities, borders, stability, support, relative], axis=1)
    return tf.clip_by_value(BIAS + tf.reduce_sum(numbers * WEIGHTS, axis=1), 0, 1)
