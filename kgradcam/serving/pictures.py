"""Pictures inside a graph: decoded, checked and resized, by TensorFlow alone."""

from typing import Any, NamedTuple

import tensorflow as tf

MAX_BATCH = 64
"""The number of pictures that one request may hold."""
MAX_BYTES = 2**25
"""The number of bytes that one encoded picture may have: 32 MiB."""


class PictureInput(NamedTuple):
    """How pictures become the input of a model.

    Attributes:
        channels: 3 for RGB, 1 for grey.
        size: The height and width that pictures are resized to; `None` keeps their size.
        max_pixels: Pictures with more pixels are refused.
    """

    channels: int
    size: tuple[int, int] | None
    max_pixels: int

    def fit(self, images: Any) -> Any:
        """Checks a batch of uint8 pictures and resizes it: float32 in [0, 255].

        Bicubic with antialiasing, as `read_image` does it.
        """
        batch, height, width = tf.unstack(tf.shape(images, tf.int64)[:3])
        checks = [
            _require((batch > 0) & (batch <= MAX_BATCH), f"a batch has 1 to {MAX_BATCH} pictures."),
            self._require_size(height, width),
        ]
        with tf.control_dependencies(checks):
            images = tf.identity(images)
        if self.size is None:
            return tf.cast(images, tf.float32)
        size = self.size
        resized = tf.cond(
            (height == size[0]) & (width == size[1]),
            lambda: tf.cast(images, tf.float32),
            lambda: tf.clip_by_value(
                tf.round(tf.image.resize(images, size, "bicubic", antialias=True)), 0, 255
            ),
        )
        return tf.ensure_shape(resized, [None, *size, self.channels])

    def decode(self, contents: Any) -> tuple[Any, Any]:
        """Decodes JPEG and PNG pictures.

        Args:
            contents: string `[batch]`.

        Returns:
            float32 `[batch, height, width, channels]` in [0, 255], resized; and the own size of
            each picture, int32 `[batch, 2]`, its width and height.
        """
        batch = tf.shape(contents, tf.int64)[0]
        message = f"a batch has 1 to {MAX_BATCH} pictures."
        with tf.control_dependencies([_require((batch > 0) & (batch <= MAX_BATCH), message)]):
            contents = tf.identity(contents)

        def decode(content: Any) -> tuple[Any, Any]:
            picture = self._decode(content)
            return self.fit(picture[tf.newaxis])[0], tf.shape(picture)[1::-1]

        sides = self.size or (None, None)
        specs = (
            tf.TensorSpec([*sides, self.channels], tf.float32),
            tf.TensorSpec([2], tf.int32),
        )
        images, sizes = tf.map_fn(decode, contents, fn_output_signature=specs)
        return images, sizes

    def _decode(self, content: Any) -> Any:
        is_jpeg = tf.strings.substr(content, 0, 3) == b"\xff\xd8\xff"
        length = tf.strings.length(content)
        is_png = (tf.strings.substr(content, 0, 8) == b"\x89PNG\r\n\x1a\n") & (length > 24)
        checks = [
            _require(is_jpeg | is_png, "a picture must be JPEG or PNG."),
            _require(length <= MAX_BYTES, f"a picture has at most {MAX_BYTES} bytes."),
        ]
        with tf.control_dependencies(checks):
            content = tf.identity(content)
        # The size in the header is checked before anything is decoded.
        sides = tf.cond(is_jpeg, lambda: _jpeg_size(content), lambda: _png_size(content))
        height, width = sides[0], sides[1]
        with tf.control_dependencies([self._require_size(height, width)]):
            content = tf.identity(content)
        return tf.cond(is_jpeg, lambda: self._jpeg(content), lambda: self._png(content))

    def _jpeg(self, content: Any) -> Any:
        return tf.io.decode_jpeg(content, self.channels, dct_method="INTEGER_ACCURATE")

    def _png(self, content: Any) -> Any:
        if self.channels == 1:
            return tf.io.decode_png(content, 1)
        pixels = tf.cast(tf.io.decode_png(content, 4), tf.float32)
        opacity = pixels[..., 3:] / 255  # transparent pixels are blended with white
        return tf.cast(tf.round(pixels[..., :3] * opacity + 255 * (1 - opacity)), tf.uint8)

    def _require_size(self, height: Any, width: Any) -> Any:
        fits = (height > 0) & (width > 0) & (height * width <= self.max_pixels)
        return _require(fits, f"a picture has 1 to {self.max_pixels} pixels.")


def _jpeg_size(content: Any) -> Any:
    return tf.cast(tf.io.extract_jpeg_shape(content)[:2], tf.int64)


def _png_size(content: Any) -> Any:
    """Height and width from the header, where they lie behind 16 bytes as width and height."""
    sides = tf.io.decode_raw(tf.strings.substr(content, 16, 8), tf.int32, little_endian=False)
    return tf.cast(sides[1::-1], tf.int64)


def _require(condition: Any, message: str) -> Any:
    return tf.debugging.Assert(condition, [f"kgradcam: {message}"])
