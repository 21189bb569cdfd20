"""What losses on feature maps are made of: pure functions that compile under XLA. Maps are (b, h, w, c)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

EPSILON = 1e-12  # the least norm that is divided by (HAP's program, and AT's)
ROUNDING = 1e-6  # deviations of a row, over its largest value, that may be nothing but rounding


def energy(maps: tf.Tensor) -> tf.Tensor:
    """mean over channels of F²: (b, h, w, c) → (b, h, w)."""
    return tf.reduce_mean(tf.square(maps), -1)


def unit(rows: tf.Tensor, least: float | tf.Tensor = EPSILON) -> tf.Tensor:
    """Each row (…, n) divided by its L2 norm. One not longer than `least` becomes zero, and has no gradient.

    least: ≥ 0, for all rows or (…, 1).
    """
    squares = tf.reduce_sum(tf.square(rows), -1, keepdims=True)
    alive = squares > least**2
    # The root of 1, where it is not used, keeps an infinite slope times 0 out of the gradient.
    return tf.where(alive, rows * tf.math.rsqrt(tf.where(alive, squares, 1.0)), 0.0)


def unit_deviation(rows: tf.Tensor) -> tf.Tensor:
    """`unit` of each row (…, n) less its mean; zero where float32 cannot tell the row from a constant."""
    largest = tf.reduce_max(tf.abs(rows), -1, keepdims=True)
    return unit(rows - tf.reduce_mean(rows, -1, keepdims=True), tf.maximum(ROUNDING * largest, EPSILON))


def flat(x: tf.Tensor) -> tf.Tensor:
    """(b, …) → (b, product of the rest)."""
    return tf.reshape(x, [tf.shape(x)[0], int(np.prod(x.shape[1:]))])


def attention(maps: tf.Tensor) -> tf.Tensor:
    """a(F) = vec(mean_c F²) / ‖·‖₂ per sample: (b, h, w, c) → (b, h·w) (Zagoruyko & Komodakis 2017, §3.1).

    A sum over channels instead of the mean gives the same.
    """
    return unit(flat(energy(maps)))


def similarity(rows: tf.Tensor) -> tf.Tensor:
    """X Xᵀ with rows of unit norm: (…, b, n) → (…, b, b) (Tung & Mori 2019, eq. 1 and 2)."""
    return unit(tf.matmul(rows, rows, transpose_b=True))


def attention_similarities(blocks: Sequence[tf.Tensor]) -> tf.Tensor:
    """`similarity` of `attention` of each block, as a row: n times (b, h, w, c) → (n, b²), in their order.

    Neighbours of one resolution are multiplied as one batch.
    """
    rows = [flat(energy(maps)) for maps in blocks]
    runs = [list(run) for _, run in itertools.groupby(rows, key=lambda r: r.shape[-1])]
    return tf.concat([tf.reshape(similarity(unit(tf.stack(run))), [len(run), -1]) for run in runs], 0)


def mean_squares(students: tf.Tensor, teachers: tf.Tensor) -> tf.Tensor:
    """Mean squared difference of each student's row to each teacher's: (…, s, n), (…, t, n) → (…, s, t).

    By ‖x‖² + ‖y‖² − 2⟨x, y⟩, so that no array of s × t rows is held for the gradient. Moving the origin to
    the mean of the teachers first keeps small differences from drowning in long rows.
    """
    origin = tf.reduce_mean(teachers, -2, keepdims=True)
    students, teachers = students - origin, teachers - origin
    lengths = tf.reduce_sum(tf.square(students), -1)[..., None], tf.reduce_sum(tf.square(teachers), -1)
    squares = lengths[0] + lengths[1][..., None, :] - 2 * tf.matmul(students, teachers, transpose_b=True)
    return tf.maximum(squares, 0.0) / tf.cast(tf.shape(students)[-1], tf.float32)


def adaptive_pool(maps: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Average pooling to a given size, which need not divide: (b, h, w, c) → (b, height, width, c).

    Cell i averages rows ⌊i·h/height⌋ to ⌈(i+1)·h/height⌉ − 1, as `AdaptiveAvgPool2d` of the published
    programs does. A size above that of the maps repeats rows.
    """
    h, w = maps.shape[1:3]
    if (h, w) == (height, width):
        return maps
    if h % height == 0 and w % width == 0:
        cell = [h // height, w // width]
        return tf.nn.avg_pool2d(maps, cell, cell, "VALID")
    if height % h == 0 and width % w == 0:
        return repeat_to(maps, height, width)
    rows, columns = _averages(h, height), _averages(w, width)
    return tf.einsum("jw,biwc->bijc", columns, tf.einsum("ih,bhwc->biwc", rows, maps))


def _averages(size: int, cells: int) -> np.ndarray:
    """(cells, size): row i holds the weights of cell i."""
    starts = np.arange(cells) * size // cells
    ends = -(-np.arange(1, cells + 1) * size // cells)
    inside = (np.arange(size) >= starts[:, None]) & (np.arange(size) < ends[:, None])
    return (inside / inside.sum(1, keepdims=True)).astype(np.float32)


def to_smaller(first: tf.Tensor, second: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Both maps at the lesser height and the lesser width of the two."""
    height, width = (min(first.shape[axis], second.shape[axis]) for axis in (1, 2))
    return adaptive_pool(first, height, width), adaptive_pool(second, height, width)


def repeat_to(maps: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Nearest-neighbour resizing, cell i from row ⌊i·h/height⌋: (b, h, w, c) → (b, height, width, c)."""
    for axis, size in ((1, height), (2, width)):
        if size % maps.shape[axis] == 0:
            maps = tf.repeat(maps, size // maps.shape[axis], axis)
        else:
            maps = tf.gather(maps, np.arange(size) * maps.shape[axis] // size, axis=axis)
    return maps
