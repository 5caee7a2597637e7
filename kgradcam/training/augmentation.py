"""Pictures varied at random, for training: a function of a picture and a seed, nothing else.

Every draw is stateless, so an epoch is the same whether or not training was interrupted before it.
"""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from kgradcam.metrics.classification import UNKNOWN

MEAN_COLOUR = (123.68, 116.78, 103.94)
"""The mean of ImageNet's pictures, RGB: what hides a patch without adding an edge of its own."""


@dataclass(frozen=True)
class Augmentation:
    """How pictures are varied.

    Attributes:
        scale: The smallest share of the picture's area that a random crop keeps; 1 for no crops.
        flip: Whether half of the pictures are mirrored.
        colour: By how much brightness, contrast and saturation vary; 0.2 is up to 20 percent.
        hide: Hide-and-seek (Singh & Lee, ICCV 2017): the probability that a patch is hidden, so
            that the network must find the whole object and not only its best part.
        hide_grid: Patches a side.
        cutmix: CutMix (Yun et al., ICCV 2019): the probability that a rectangle of a picture comes
            from another of its batch, and its labels in that proportion.
    """

    scale: float = 0.4
    flip: bool = True
    colour: float = 0.2
    hide: float = 0.0
    hide_grid: int = 4
    cutmix: float = 0.0


def augment(image: Any, size: int, seed: Any, options: Augmentation) -> Any:
    """Varies one picture.

    Args:
        image: uint8 `[height, width, 3]`, RGB.
        size: The side of the result.
        seed: Integers `[2]`: the same ones give the same result.
        options: How.

    Returns:
        float32 `[size, size, 3]` in [0, 255].
    """
    crop, flip, brightness, contrast, saturation, hide = tf.unstack(
        tf.random.experimental.stateless_split(seed, 6), num=6
    )
    if options.scale < 1:
        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            tf.shape(image),
            tf.zeros([1, 0, 4]),
            crop,
            min_object_covered=0.0,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(options.scale, 1.0),
            use_image_if_no_bounding_boxes=True,
        )
        image = tf.ensure_shape(tf.slice(image, begin, extent), [None, None, 3])
    image = tf.image.resize(image, (size, size), antialias=True)
    if options.flip:
        image = tf.image.stateless_random_flip_left_right(image, flip)
    if options.colour:
        low, high = 1 - options.colour, 1 + options.colour
        image *= tf.random.stateless_uniform([], brightness, low, high)
        mean = tf.reduce_mean(image, axis=(0, 1), keepdims=True)
        image = mean + (image - mean) * tf.random.stateless_uniform([], contrast, low, high)
        grey = tf.image.rgb_to_grayscale(image)
        image = grey + (image - grey) * tf.random.stateless_uniform([], saturation, low, high)
        image = tf.clip_by_value(image, 0.0, 255.0)
    if options.hide:
        image = hide_patches(image, hide, options.hide, options.hide_grid)
    return image


def hide_patches(image: Any, seed: Any, probability: float, grid: int) -> Any:
    """Replaces patches of a picture by the mean colour.

    Args:
        image: float32 `[size, size, 3]` in [0, 255].
        seed: Integers `[2]`.
        probability: That a patch is hidden.
        grid: Patches a side.
    """
    hidden = tf.random.stateless_uniform([grid, grid, 1], seed) < probability
    places = tf.range(tf.shape(image)[0]) * grid // tf.shape(image)[0]
    hidden = tf.gather(tf.gather(hidden, places, axis=0), places, axis=1)
    return tf.where(hidden, tf.constant(MEAN_COLOUR), image)


def cut_and_mix(images: Any, labels: Any, seed: Any, probability: float) -> tuple[Any, Any]:
    """Pastes a rectangle of the next picture of a batch into each picture, and mixes the labels.

    The rectangle has the picture's shape and, before it is cut at the border, a share of its area
    drawn evenly from [0, 1]; the labels are mixed by what is left of it.

    Args:
        images: float32 `[batch, size, size, 3]`.
        labels: float32 `[batch, classes]`, with `metrics.classification.UNKNOWN`; a label that
            either picture does not know stays so.
        seed: Integers `[2]`.
        probability: That a picture is mixed at all.

    Returns:
        Images and labels of the same shapes.
    """
    batch, side = tf.shape(images)[0], tf.shape(images)[1]
    draws = tf.random.stateless_uniform([4, batch, 1], seed)
    size = tf.cast(side, tf.float32)
    half = tf.where(draws[0] < probability, tf.sqrt(draws[1]), 0.0) * size / 2
    pixels = tf.range(size)[tf.newaxis] + 0.5

    def covered(centre: Any) -> Any:
        return tf.abs(pixels - centre * size) < half  # [batch, size]

    inside = covered(draws[2])[:, :, tf.newaxis] & covered(draws[3])[:, tf.newaxis, :]
    share = tf.reduce_mean(tf.cast(inside, tf.float32), axis=(1, 2))[:, tf.newaxis]
    other, other_labels = tf.roll(images, 1, axis=0), tf.roll(labels, 1, axis=0)
    images = tf.where(inside[..., tf.newaxis], other, images)
    unknown = (labels == UNKNOWN) | ((other_labels == UNKNOWN) & (share > 0))
    mixed = (1 - share) * labels + share * other_labels
    return images, tf.where(unknown, UNKNOWN, mixed)
