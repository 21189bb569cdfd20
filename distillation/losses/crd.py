"""Contrastive representation distillation, the rest of the batch as negatives (Tian et al. 2020)."""

from __future__ import annotations

import math
from typing import ClassVar

import keras
import tensorflow as tf

from secateur.distillation.loss import Loss, register
from secateur.distillation.maps import unit
from secateur.runs.errors import UsageError


def contrast(scores: tf.Tensor, ratio: float, images: tf.Tensor | int | None = None) -> tf.Tensor:
    """−log h of each pair of one view, − Σ log(1 − h) of those of two images: scores (b, b) → (b,) (§3.1).

    h = e^score / (e^score + ratio) is the critic's probability that both sides looked at the same image.
    Rows i and i + `images` are views of one image, and count neither as a pair nor against each other.
    """
    prior, rows = math.log(ratio), tf.range(tf.shape(scores)[0])
    image = rows if images is None else rows % images
    others = tf.cast(image[:, None] != image[None], tf.float32)
    of_pair = tf.nn.softplus(prior - tf.linalg.diag_part(scores))
    return of_pair + tf.reduce_sum(others * tf.nn.softplus(scores - prior), 1)


@register
class CRD(Loss):
    """The paper's NCE between projected, normalised pooled vectors of teacher and student.

    Args:
        temperature: τ > 0 of the scores; 0.07 in the authors' program.
        size: of both projections, linear and trained with the student.
        ratio: N/M, negatives for each pair over images to learn from: 16,384 of CIFAR's 50,000 as published.
        teacher_layer_name, student_layer_name: where `keras.distillation.Distiller` finds the vectors.

    Their program differs: it draws N negatives from a memory of all images' last vectors, where this has the
    other images of the batch (of one replica), fresh; it divides e^score by a constant Z, the mean score of
    its first batch times M, where Z is 1 here; and it adds the same with the sides exchanged, the student's
    memory against the teacher's vectors, where this has one direction. The loss cannot reach 0.
    """

    key: ClassVar[str] = "crd"
    reads: ClassVar[str] = "pooled"
    beta: ClassVar[float] = 0.8  # the authors', for their sum of two directions; none is published for one

    def __init__(
        self,
        temperature: float = 0.07,
        size: int = 128,
        ratio: float = 16_384 / 50_000,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
    ) -> None:
        super().__init__(teacher_layer_name, student_layer_name)
        for option, value in (("temperature", temperature), ("size", size), ("ratio", ratio)):
            if not value > 0:
                raise UsageError(f"CRD's {option} must be above 0. Received: {option}={value}")
        self.temperature, self.ratio = temperature, ratio
        self.of_teacher, self.of_student = (
            keras.layers.Dense(size, name=f"of_{side}", dtype="float32") for side in ("teacher", "student")
        )

    def prepare(self, teacher: tuple, student: tuple) -> None:
        """Shapes (b, c) and (b, c′)."""
        self.of_teacher.build(teacher)
        self.of_student.build(student)

    def compare(
        self, teacher: tf.Tensor, student: tf.Tensor, images: tf.Tensor | int | None = None
    ) -> tf.Tensor:
        """teacher (b, c), student (b, c′), `images` as for `contrast` → scalar."""
        t, s = (unit(v) for v in (self.of_teacher(teacher), self.of_student(student)))
        scores = tf.matmul(s, t, transpose_b=True) / self.temperature
        return tf.reduce_mean(contrast(scores, self.ratio, images))
