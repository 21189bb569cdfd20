"""Relational knowledge distillation: distances and angles among the images of a batch (Park et al. 2019)."""

from __future__ import annotations

import math
from typing import ClassVar

import tensorflow as tf

from secateur.distillation.loss import Loss, register
from secateur.distillation.maps import unit

EPSILON = 1e-12  # of a squared distance, below which two images count as one


def distances(x: tf.Tensor) -> tf.Tensor:
    """ψ_D: Euclidean distances of all pairs over their mean, (b, c) → (b, b) (Park et al. 2019, §3.2.1).

    The mean is over pairs of different images, as theirs; pairs at one place have distance 0 and no gradient.
    """
    squared = tf.reduce_sum((x[:, None] - x[None]) ** 2, -1)
    apart = tf.cast(squared > EPSILON, tf.float32)
    d = apart * tf.sqrt(tf.maximum(squared, EPSILON))
    return d * tf.math.divide_no_nan(tf.reduce_sum(apart), tf.reduce_sum(d))


def angles(x: tf.Tensor) -> tf.Tensor:
    """ψ_A: cosine of the angle at image j between i and k, (b, c) → (b, b, b) as [j, i, k] (§3.2.2).

    It holds b²·c and b³ numbers: 8 MB at a batch of 128 and 64 channels a side.
    """
    e = unit(x[None] - x[:, None], math.sqrt(EPSILON))
    return tf.matmul(e, e, transpose_b=True)


def huber(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Mean of ½d² where |d| ≤ 1, and |d| − ½ beyond (§3.2.1)."""
    d = tf.abs(a - b)
    return tf.reduce_mean(tf.where(d <= 1, 0.5 * d * d, d - 0.5))


@register
class RKD(Loss):
    """distance · Huber(ψ_D) + angle · Huber(ψ_A) of pooled vectors (Park et al. 2019, §3.2).

    Both sides may have any number of channels. Means are over all b² and b³ entries, those of an image with
    itself among them, which are 0: the authors' program does so, and their weights belong to it.

    Args:
        distance, angle: their weights, 25 and 50 on CIFAR-100.
        teacher_layer_name, student_layer_name: where `keras.distillation.Distiller` finds the vectors.
    """

    key: ClassVar[str] = "rkd"
    reads: ClassVar[str] = "pooled"
    beta: ClassVar[float] = 1.0

    def __init__(
        self,
        distance: float = 25.0,
        angle: float = 50.0,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
    ) -> None:
        super().__init__(teacher_layer_name, student_layer_name)
        self.distance, self.angle = distance, angle

    def compare(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
        """teacher (b, c), student (b, c′) → scalar."""
        return self.distance * huber(distances(teacher), distances(student)) + self.angle * huber(
            angles(teacher), angles(student)
        )
