"""Decoupled knowledge distillation: the target class and all others apart (Zhao et al. 2022)."""

from __future__ import annotations

from typing import ClassVar

import tensorflow as tf

from secateur.distillation.basics import kl_divergence
from secateur.distillation.loss import Loss, register
from secateur.runs.errors import UsageError

NEVER = -1e9  # a log-probability whose exponential is 0, and that stays finite in differences


def decoupled(
    teacher: tf.Tensor, student: tf.Tensor, labels: tf.Tensor, temperature: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """TCKD and NCKD per sample, each (b,), of logits (b, classes) (Zhao et al. 2022, §3.1).

    TCKD is the KL between (p of the label, p of all others); NCKD that between the distributions over the
    other classes alone. KD = TCKD + (1 − p_teacher(label)) · NCKD, at any T (their eq. 5).
    """
    target = tf.one_hot(labels, student.shape[-1])
    log_p = [tf.nn.log_softmax(z / temperature) for z in (teacher, student)]
    others = [p + NEVER * target for p in log_p]
    binary = [
        tf.stack([tf.reduce_sum(p * target, -1), tf.reduce_logsumexp(o, -1)], -1)
        for p, o in zip(log_p, others, strict=True)
    ]
    return kl_divergence(*binary, 1.0), kl_divergence(*others, 1.0)


@register
class DKD(Loss):
    """T² · (target · TCKD + others · NCKD), mean over the batch (Zhao et al. 2022, §3.3). Needs the labels.

    Args:
        temperature: T > 0.
        target: α, the weight of TCKD; 1 as published.
        others: β, the weight of NCKD; 8 for most of the published CIFAR-100 pairs, less where the teacher is
            weak: 2 for ResNet-56 → ResNet-20.

    The authors raise this loss' weight linearly over the first 20 of 240 epochs.
    """

    key: ClassVar[str] = "dkd"
    beta: ClassVar[float] = 1.0

    def __init__(self, temperature: float = 4.0, target: float = 1.0, others: float = 8.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise UsageError(f"The temperature must be above 0. Received: temperature={temperature}")
        self.temperature, self.target, self.others = temperature, target, others

    def compare(self, teacher: tf.Tensor, student: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """teacher and student (b, classes), labels (b,) integers → scalar."""
        of_target, of_others = decoupled(teacher, student, labels, self.temperature)
        return self.temperature**2 * tf.reduce_mean(self.target * of_target + self.others * of_others)
