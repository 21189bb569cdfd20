"""Multi-attention transfer: each block of the student nears the teacher's blocks that it is near already."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import tensorflow as tf

from secateur.distillation.loss import Loss, register
from secateur.distillation.maps import adaptive_pool, attention, energy, flat, mean_squares, unit
from secateur.runs.errors import UsageError


def strided_windows(students: int, teachers: int, size: int | None) -> np.ndarray:
    """(students, teachers) booleans: student i looks at `size` teachers from the i·⌈teachers/students⌉-th on.

    None: at all of them. At the end fewer remain; a student beyond the last teacher looks at the last.
    """
    if size is None:
        return np.ones((students, teachers), bool)
    step = -(-teachers // students)
    first = np.minimum(np.arange(students) * step, teachers - 1)[:, None]
    return (np.arange(teachers) >= first) & (np.arange(teachers) < first + size)


def attention_at(maps: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """`attention` of maps pooled to a size: (b, h, w, c) → (b, height·width)."""
    if height % maps.shape[1] == 0 and width % maps.shape[2] == 0:  # cells repeat: no need to repeat channels
        return unit(flat(adaptive_pool(energy(maps)[..., None], height, width)))
    return attention(adaptive_pool(maps, height, width))


def attention_distances(teacher: Sequence[tf.Tensor], student: Sequence[tf.Tensor]) -> tf.Tensor:
    """AT's distance of each pair, the student pooled to the teacher's size: (students, teachers).

    Neighbouring teachers of one resolution are compared as one batch.
    """
    distances, known = [], {}  # the student's rows by resolution
    for size, run in itertools.groupby(teacher, key=lambda maps: tuple(maps.shape[1:3])):
        if size not in known:
            known[size] = _rows([attention_at(maps, *size) for maps in student])
        distances.append(mean_squares(known[size], _rows([attention(maps) for maps in run])))
    return tf.concat(distances, 1)


def _rows(attentions: Sequence[tf.Tensor]) -> tf.Tensor:
    """n times (b, m) → (n, b·m)."""
    return tf.reshape(tf.stack(attentions), [len(attentions), -1])


def weigh_by_nearness(distances: tf.Tensor, inside: np.ndarray) -> tf.Tensor:
    """Σ_t d·w / number of t, per student: (s, t) → (s,), where w = softmax_t(−d / mean d), held constant.

    Only pairs `inside` (s, t) count. HAP's program divides by the number of teachers as well, hence the mean.
    """
    constant = tf.stop_gradient(distances)
    count = inside.sum(1).astype(np.float32)
    mean = tf.reduce_sum(tf.where(inside, constant, 0.0), 1, keepdims=True) / count[:, None]
    scores = tf.where(inside, -tf.math.divide_no_nan(constant, mean), -np.inf)
    return tf.reduce_sum(distances * tf.nn.softmax(scores, 1), 1) / count


@register
class MAT(Loss):
    """mean over blocks of the student of AT's distances to a window of teachers, near ones weighing more.

    Args:
        window: blocks of the teacher in a window; None: all (HAP's program: its further losses).
    """

    key: ClassVar[str] = "mat"
    reads: ClassVar[str] = "blocks"
    beta: ClassVar[float] = 1000.0  # no published value: AT's

    def __init__(self, window: int | None = None) -> None:
        super().__init__()
        if window is not None and window < 1:
            raise UsageError(f"MAT needs a window of at least one block. Received: window={window}")
        self.window = window

    def compare(self, teacher: Sequence[tf.Tensor], student: Sequence[tf.Tensor]) -> tf.Tensor:
        """Blocks (b, h, w, c) of both, deepest last, any numbers → scalar."""
        inside = strided_windows(len(student), len(teacher), self.window)
        return tf.reduce_mean(weigh_by_nearness(attention_distances(teacher, student), inside))
