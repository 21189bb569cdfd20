"""Encoded images to uint8 arrays of one size: what every folder and every tfds name goes through."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from secateur.runs.errors import DataError, warn

Shape = tuple[int, int, int]

FOR_CROPS = 256
"""Side of ImageNet's images where crops of 224 are taken of them."""
_CHUNK = 256
"""Images decoded between two copies into the array."""
_CONTAINER = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"
"""Of cgroups, second and first version."""
_NAMED = 10
"""Files that cannot be read, as far as messages name them."""


def decode_files(
    paths: Sequence[Path], shape: Shape, skip_bad: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of `paths` that can be read, uint8 [k, *shape], and which these are, bool [n].

    A file that cannot be read or decoded is left out with a warning where `skip_bad` says so. Else, and where
    none is left, this raises `DataError` with the names of the first ten.
    """
    regular = _regular(paths)
    images, done = np.empty((int(regular.sum()), *shape), np.uint8), 0
    sound = np.zeros(len(paths), bool)
    for numbers, part in _decoded(paths, np.flatnonzero(regular), shape).batch(_CHUNK).as_numpy_iterator():
        images[done : done + len(part)], sound[numbers] = part, True
        done += len(part)
    _check(paths, sound, shape, skip_bad)
    return images[:done], sound


def sound_files(paths: Sequence[Path], shape: Shape, skip_bad: bool = False) -> np.ndarray:
    """Return which of `paths` are files, and with `skip_bad` can be decoded: bool [n]. Raises as above.

    Nothing is kept. Without `skip_bad` no file is opened.
    """
    sound = _regular(paths)
    if skip_bad:
        tried, sound = np.flatnonzero(sound), np.zeros(len(paths), bool)
        rows = _decoded(paths, tried, shape).map(lambda number, _: number)
        for numbers in rows.batch(_CHUNK).as_numpy_iterator():
            sound[numbers] = True
    _check(paths, sound, shape, skip_bad)
    return sound


def _regular(paths: Sequence[Path]) -> np.ndarray:
    """Which may be opened: who opens a FIFO waits for somebody who writes."""
    return np.array([os.path.isfile(path) for path in paths], bool)


def _decoded(paths: Sequence[Path], tried: np.ndarray, shape: Shape):
    """Rows (number of the path, image) of those that can be decoded."""
    import tensorflow as tf

    names = tf.constant([str(paths[i]) for i in tried], tf.string, (len(tried),))
    rows = tf.data.Dataset.from_tensor_slices((tried, names))
    rows = rows.map(lambda i, path: (i, fitted(tf.io.read_file(path), shape)), tf.data.AUTOTUNE)
    return rows.ignore_errors()


def _check(paths: Sequence[Path], sound: np.ndarray, shape: Shape, skip_bad: bool) -> None:
    """Warns of what is left out; raises `DataError` where nothing may be."""
    import tensorflow as tf

    bad = [paths[i] for i in np.flatnonzero(~sound)]
    for path in filter(os.path.isfile, bad[:_NAMED]):
        with contextlib.suppress(tf.errors.InvalidArgumentError, tf.errors.NotFoundError, OSError):
            fitted(path.read_bytes(), shape)  # whatever else it raises, memory that runs out, is no bad image
    if bad and not (skip_bad and sound.any()):
        raise _unreadable(bad, len(paths))
    if bad:
        warn(f"{len(bad)} of {len(paths)} images cannot be read and are left out: {_named(bad)}")


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


def image_size(paths: Sequence[Path]) -> tuple[int, int]:
    """Return height and width of the first image that can be read. Raises `DataError` where none can."""
    import tensorflow as tf

    for path in filter(os.path.isfile, paths):
        try:
            return tuple(tf.io.decode_image(path.read_bytes(), 3, expand_animations=False).shape[:2])
        except (tf.errors.InvalidArgumentError, OSError):
            continue
    raise _unreadable(paths, len(paths))


def fits_memory(label: str, count: int, shape: Shape, available: int | None = None) -> bool:
    """Whether `count` images fit in memory twice, for cutting them into splits copies; else a warning.

    `available` is in bytes; None = what this process may have.
    """
    if available is None:
        available = memory_limit()
    needed = 2 * count * math.prod(shape)
    if needed > available:
        warn(
            f"{count} images of {label} at {shape[0]}×{shape[1]} take {needed / 1e9:.1f} GB of memory, there "
            f"are {available / 1e9:.1f}: they are read from their files while they are needed"
        )
    return needed <= available


def memory_limit() -> int:
    """Bytes that this process may have: of the machine, its container (cgroup) or its own limits (ulimit)."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    limits += [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    for file in _CONTAINER:
        with contextlib.suppress(OSError, ValueError):  # another system, or "max"
            limits.append(int(Path(file).read_text()))
    return min(limit for limit in limits if limit != resource.RLIM_INFINITY)


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
