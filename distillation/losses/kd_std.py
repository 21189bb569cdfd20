"""Knowledge distillation from standardised logits (Sun et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from distillation.loss import register
from distillation.losses.kd import KD

EPSILON = 1e-7  # of the authors' program, beside the standard deviation


def standardise(logits: tf.Tensor) -> tf.Tensor:
    """(z − mean) / standard deviation over the classes, axis 1 (Sun et al. 2024, Algorithm 1).

    Equal logits stay finite, in the gradient too.
    """
    centred = logits - tf.reduce_mean(logits, 1, keepdims=True)
    variance = tf.reduce_mean(centred**2, 1, keepdims=True)
    return centred / (tf.sqrt(tf.maximum(variance, EPSILON**2)) + EPSILON)


@register
class StandardisedKD(KD):
    """KD of Z-scores: the student need not match the scale of the teacher's logits (Sun et al. 2024).

    Options are those of `KD`. The published temperature is 2. Shift and positive scale of either side's
    logits change nothing. The deviation is the paper's, over all classes; the authors' program divides by
    one less.
    """

    key: ClassVar[str] = "kd_std"
    beta: ClassVar[float] = 9.0  # their --kd-weight at T = 2 on CIFAR-100

    def __init__(
        self,
        temperature: float = 2.0,
        factor: str = "T2",
        mean: str = "kl",
        over_classes: bool = False,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(temperature, factor, mean, over_classes, weights)

    def compare(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
        """teacher (b, classes) or (b, classes, teachers), student (b, classes) → scalar."""
        return super().compare(standardise(teacher), standardise(student))
