"""Encoded images to uint8 arrays of one size: what every folder and every tfds name goes through."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from secateur.runs.errors import DataError, warn

Shape = tuple[int, int, int]

FOR_CROPS = 256
"""Side of ImageNet's images where crops of 224 are taken of them."""
_CHUNK = 256
"""Images decoded between two copies into the array."""


def decode_files(paths: Sequence[Path], shape: Shape) -> np.ndarray:
    """Return the images of `paths`, uint8 [n, *shape], in that order.

    Raises `DataError` with the name of the first file that cannot be decoded.
    """
    import tensorflow as tf

    images, done = np.empty((len(paths), *shape), np.uint8), 0
    rows = tf.data.Dataset.from_tensor_slices([str(path) for path in paths])
    rows = rows.map(lambda path: fitted(tf.io.read_file(path), shape), num_parallel_calls=tf.data.AUTOTUNE)
    try:
        for part in rows.batch(_CHUNK).as_numpy_iterator():
            images[done : done + len(part)] = part
            done += len(part)
    except tf.errors.OpError as error:
        raise DataError(
            "An image cannot be read or decoded: replace it or remove it. "
            f"Received: {_first_bad(paths[done:], shape)}"
        ) from error
    return images


def fitted(encoded, shape: Shape, middle: bool = False):
    """Return one PNG, JPEG, BMP or GIF (its first frame), a string tensor, as uint8 of `shape`.

    `shape` has one channel, or three, which grey images have equal. Another size is brought to `shape` once,
    here: bilinear, with anti-aliasing where it shrinks, rounded. The aspect is not kept, or with `middle` the
    middle is taken of an image whose shorter side is 8/7 of the wanted one (256 for 224, as ImageNet is
    evaluated), or at `FOR_CROPS`, of which crops are taken later, as long.
    """
    import tensorflow as tf

    image = tf.io.decode_image(encoded, shape[2], expand_animations=False)
    image.set_shape([None, None, shape[2]])
    if middle:
        side = max(shape[:2])
        image = _middle(image, shape, side if side == FOR_CROPS else round(side * 8 / 7))
    same = tf.reduce_all(tf.shape(image)[:2] == shape[:2])
    resized = tf.cond(same, lambda: image, lambda: _resized(image, shape))
    return tf.ensure_shape(resized, shape)


def image_size(path: Path) -> tuple[int, int]:
    """Return height and width of an image file. Raises `DataError` when it cannot be decoded."""
    import tensorflow as tf

    try:
        return tuple(tf.io.decode_image(path.read_bytes(), 3, expand_animations=False).shape[:2])
    except tf.errors.OpError as error:
        raise DataError(f"An image cannot be decoded: replace it or remove it. Received: {path}") from error


def fits_memory(label: str, count: int, shape: Shape, available: int | None = None) -> bool:
    """Whether `count` images fit in memory twice, for cutting them into splits copies; else a warning.

    `available` is in bytes; None = what this machine has.
    """
    if available is None:
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    needed = 2 * count * math.prod(shape)
    if needed > available:
        warn(
            f"{count} images of {label} at {shape[0]}×{shape[1]} take {needed / 1e9:.0f} GB of memory, this "
            f"machine has {available / 1e9:.0f}: they are read from their files while they are needed"
        )
    return needed <= available


def _middle(image, shape: Shape, shorter: int):
    """Cut `shape` out of the middle of an image whose shorter side is `shorter`, which is not below it."""
    import tensorflow as tf

    sides = tf.cast(tf.shape(image)[:2], tf.float64)
    sides = tf.cast(tf.maximum(sides * (shorter / tf.reduce_min(sides)) + 1e-6, shape[:2]), tf.int32)
    top, left = tf.unstack((sides - shape[:2]) // 2)
    return _resized(image, sides)[top : top + shape[0], left : left + shape[1]]


def _resized(image, sides):
    import tensorflow as tf

    resized = tf.image.resize(image, sides[:2], antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)


def _first_bad(paths: Sequence[Path], shape: Shape) -> Path:
    """Return the file that fails alone, too; decoding in parallel does not say which it was."""
    import tensorflow as tf

    for path in paths[: 2 * _CHUNK]:
        try:
            fitted(tf.io.read_file(str(path)), shape)
        except (tf.errors.OpError, ValueError):
            return path
    return paths[0]
