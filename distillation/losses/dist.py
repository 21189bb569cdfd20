"""Correlation in place of divergence: distillation from a stronger teacher (Huang et al. 2022)."""

from __future__ import annotations

from typing import ClassVar

import tensorflow as tf

from secateur.distillation.loss import Loss, register
from secateur.distillation.maps import unit_deviation
from secateur.runs.errors import UsageError


def correlation(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Pearson's coefficient over the last axis, (…, n) → (…,); 0 and no gradient where a side is constant."""
    return tf.reduce_sum(unit_deviation(a) * unit_deviation(b), -1)


@register
class DIST(Loss):
    """T² · [inter · (1 − mean ρ of rows) + intra · (1 − mean ρ of columns)] of σ_T (Huang et al. 2022, §4).

    Args:
        temperature: T > 0.
        inter: weight of the relation between the classes of one image.
        intra: weight of the relation between the images of the batch, class by class: it needs two or more.

    The defaults are the authors' for CIFAR-100, T² is their program's. ρ is Pearson's coefficient.
    """

    key: ClassVar[str] = "dist"
    beta: ClassVar[float] = 1.0

    def __init__(self, temperature: float = 4.0, inter: float = 2.0, intra: float = 2.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise UsageError(f"The temperature must be above 0. Received: temperature={temperature}")
        self.temperature, self.inter, self.intra = temperature, inter, intra

    def compare(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
        """teacher and student (b, classes) → scalar."""
        teacher, student = (tf.nn.softmax(z / self.temperature) for z in (teacher, student))
        inter = 1 - tf.reduce_mean(correlation(teacher, student))
        intra = 1 - tf.reduce_mean(correlation(tf.transpose(teacher), tf.transpose(student)))
        return self.temperature**2 * (self.inter * inter + self.intra * intra)
