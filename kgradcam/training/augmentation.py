"""Random variations of training images, as functions of an image and a random seed.

All draws are stateless. An epoch therefore sees the same images after an interruption.
"""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

MEAN_COLOUR = (123.68, 116.78, 103.94)
"""The mean RGB colour of ImageNet. Black patches would add strong edges."""


@dataclass(frozen=True)
class Augmentation:
    """Options of the random variations.

    Attributes:
        scale: Smallest fraction of the image area that a random crop keeps, in (0, 1]. 1 disables
            cropping.
        flip: Whether each image is mirrored with probability 0.5.
        colour: Largest relative change of brightness, contrast and saturation, in [0, 1].
        hide: Hide-and-seek (Singh & Lee, ICCV 2017, section 3.1): probability in [0, 1] that a
            patch is hidden. The network then cannot rely on the most discriminative part alone.
        hide_grid: Number of patches along each side.
    """

    scale: float = 0.4
    flip: bool = True
    colour: float = 0.2
    hide: float = 0.0
    hide_grid: int = 4


def augment(image: Any, size: int, seed: Any, options: Augmentation) -> Any:
    """Applies random variations to one image.

    Args:
        image: uint8 `[height, width, 3]`, RGB.
        size: Height and width of the result in pixels.
        seed: Integers `[2]`. Equal seeds give equal results.
        options: The variations.

    Returns:
        float32 `[size, size, 3]` in [0, 255].
    """
    crop, flip, brightness, contrast, saturation, hide = tf.unstack(
        tf.random.experimental.stateless_split(seed, 6), num=6
    )
    if options.scale < 1:
        image = _random_crop(image, crop, options.scale)
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


def _random_crop(image: Any, seed: Any, smallest_area: float) -> Any:
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        tf.zeros([1, 0, 4]),
        seed,
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(smallest_area, 1.0),
        use_image_if_no_bounding_boxes=True,
    )
    return tf.ensure_shape(tf.slice(image, begin, extent), [None, None, 3])


def hide_patches(image: Any, seed: Any, probability: float, grid: int) -> Any:
    """Replaces random patches of an image by the mean colour.

    Args:
        image: float32 `[size, size, 3]` in [0, 255].
        seed: Integers `[2]`.
        probability: Probability in [0, 1] that a patch is hidden.
        grid: Number of patches along each side.

    Returns:
        float32 `[size, size, 3]`.
    """
    hidden = tf.random.stateless_uniform([grid, grid, 1], seed) < probability
    # Indexing works for sizes that are not a multiple of the grid.
    patch_of_pixel = tf.range(tf.shape(image)[0]) * grid // tf.shape(image)[0]
    hidden = tf.gather(tf.gather(hidden, patch_of_pixel, axis=0), patch_of_pixel, axis=1)
    return tf.where(hidden, tf.constant(MEAN_COLOUR), image)
