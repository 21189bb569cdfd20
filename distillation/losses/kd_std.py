"""Knowledge distillation from standardised logits (Sun et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from secateur.distillation.loss import register
from secateur.distillation.losses.kd import KD
from secateur.distillation.maps import unit_deviation


def standardise(logits: tf.Tensor) -> tf.Tensor:
    """(z − mean) / standard deviation over the classes, axis 1 (Sun et al. 2024, Algorithm 1).

    logits (b, classes) or (b, classes, teachers). Equal logits become zero and have no gradient, where the
    authors' program adds 1e-7 to the deviation.
    """
    rows = tf.transpose(logits, [0, 2, 1]) if len(logits.shape) == 3 else logits
    rows = unit_deviation(rows) * tf.sqrt(tf.cast(tf.shape(rows)[-1], tf.float32))
    return tf.transpose(rows, [0, 2, 1]) if len(logits.shape) == 3 else rows


@register
class StandardisedKD(KD):
    """KD of Z-scores: the student need not match the scale of the teacher's logits (Sun et al. 2024).

    Options are those of `KD`. The published temperature is 2. Shift and positive scale of either side's
    logits change nothing. The deviation is the paper's, over all classes; the authors' program divides by
    one less.
    """

    key: ClassVar[str] = "kd_std"
    kinds: ClassVar[tuple[str, ...]] = ("classes",)
    # Their --kd-weight at T = 2 on CIFAR-100, beside a full cross-entropy as here: CE_WEIGHT is 1 in their
    # cfg.py, though 0.1 in copies of it.
    beta: ClassVar[float] = 9.0

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
