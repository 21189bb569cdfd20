"""Encoded images to uint8 arrays of one size: what every folder and every tfds name goes through."""

from __future__ import annotations

import contextlib
import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from secateur.runs.errors import DataError, warn

Shape = tuple[int, int, int]

_CHUNK = 256
"""Images decoded between two copies into the array."""
_NAMED = 10
"""Files that cannot be read, as far as messages name them."""


def decode_files(
    paths: Sequence[Path], shape: Shape, skip_bad: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of `paths` that can be read, uint8 [k, *shape], and which these are, bool [n].

    A file that cannot be read or decoded is left out with a warning where `skip_bad` says so. Else, and where
    none is left, this raises `DataError` with the names of the first ten.
    """
    import tensorflow as tf

    # Not the others: who opens a FIFO waits for somebody who writes.
    regular = np.array([os.path.isfile(path) for path in paths])
    images, sound = np.empty((int(regular.sum()), *shape), np.uint8), np.zeros(len(paths), bool)
    tried = np.flatnonzero(regular)
    names = tf.constant([str(paths[i]) for i in tried], tf.string, (len(tried),))
    rows = tf.data.Dataset.from_tensor_slices((tried, names))
    rows = rows.map(lambda i, path: (i, fitted(tf.io.read_file(path), shape)), tf.data.AUTOTUNE)
    for numbers, part in rows.ignore_errors().batch(_CHUNK).as_numpy_iterator():
        done = int(sound.sum())
        images[done : done + len(part)], sound[numbers] = part, True
    if not sound.all():
        _tell([paths[i] for i in np.flatnonzero(~sound)], len(paths), shape, skip_bad and bool(sound.any()))
    return images[: sound.sum()], sound


def fitted(encoded, shape: Shape):
    """Return one PNG, JPEG, BMP or GIF (its first frame), a string tensor, as uint8 of `shape`.

    `shape` has one channel, or three, which grey images have equal. Another size is brought to `shape` once,
    here, with the aspect not kept: bilinear, with anti-aliasing where it shrinks, rounded.
    """
    import tensorflow as tf

    image = tf.io.decode_image(encoded, shape[2], expand_animations=False)
    image.set_shape([None, None, shape[2]])
    same = tf.reduce_all(tf.shape(image)[:2] == shape[:2])
    resized = tf.cond(same, lambda: image, lambda: _resized(image, shape))
    return tf.ensure_shape(resized, shape)


def image_size(paths: Sequence[Path]) -> tuple[int, int]:
    """Return height and width of the first image that can be read. Raises `DataError` where none can."""
    import tensorflow as tf

    for path in filter(os.path.isfile, paths):
        try:
            return tuple(tf.io.decode_image(path.read_bytes(), 3, expand_animations=False).shape[:2])
        except (tf.errors.InvalidArgumentError, OSError):
            continue
    raise _unreadable(paths, len(paths))


def check_memory(label: str, count: int, shape: Shape, available: int | None = None) -> None:
    """Raise `DataError` where `count` images do not fit in memory twice: cutting them into splits copies.

    `available` is in bytes; None = what this machine has.
    """
    if available is None:
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    needed = 2 * count * math.prod(shape)
    if needed > available:
        raise DataError(
            f"{label} at {shape[0]}×{shape[1]} takes {needed / 1e9:.0f} GB of memory, this machine has "
            f"{available / 1e9:.0f}. Received: {count} images\nTake them smaller: --dataset {label}@64"
        )


def _resized(image, shape: Shape):
    import tensorflow as tf

    resized = tf.image.resize(image, shape[:2], antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)


def _tell(bad: Sequence[Path], total: int, shape: Shape, skip: bool) -> None:
    """Warns of what is left out; raises `DataError` where nothing may be."""
    import tensorflow as tf

    for path in filter(os.path.isfile, bad[:_NAMED]):
        with contextlib.suppress(tf.errors.InvalidArgumentError, tf.errors.NotFoundError, OSError):
            fitted(path.read_bytes(), shape)  # whatever else it raises, memory that runs out, is no bad image
    if not skip:
        raise _unreadable(bad, total)
    warn(f"{len(bad)} of {total} images cannot be read and are left out: {_named(bad)}")


def _unreadable(bad: Sequence[Path], total: int) -> DataError:
    return DataError(
        f"{len(bad)} of {total} images cannot be read or decoded: replace or remove them, or leave them out "
        f"with --skip_bad.\nReceived: {_named(bad)}"
    )


def _named(bad: Sequence[Path]) -> str:
    more = len(bad) - _NAMED
    names = ", ".join(f"{path} ({_reason(path)})" for path in bad[:_NAMED])
    return names + (f" and {more} more" if more > 0 else "")


def _reason(path: Path) -> str:
    try:
        info = path.stat()
    except OSError as error:
        return str(error.strerror).lower()
    if not stat.S_ISREG(info.st_mode):
        return "no regular file"
    return "no PNG, JPEG, BMP or GIF, or a damaged one" if info.st_size else "empty"
