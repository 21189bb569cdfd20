"""Attention transfer: where the student looks (Zagoruyko & Komodakis 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from secateur.distillation.loss import Loss, register
from secateur.distillation.maps import attention, to_smaller
from secateur.runs.errors import UsageError


def attention_distance(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """mean over samples and positions of (a(F_t) − a(F_s))²; the larger map is pooled first → scalar."""
    teacher, student = to_smaller(teacher, student)
    return tf.reduce_mean(tf.square(attention(teacher) - attention(student)))


@register
class AT(Loss):
    """Σ over stages of the mean squared difference of attention maps (HAP's program; the paper's eq. 2).

    Args:
        stages: how many to compare, from the deepest; None: all (CIFAR). HAP's ImageNet runs take 2.

    Teacher and student may differ in width, depth and resolution, not in the number of stages compared.
    """

    key: ClassVar[str] = "at"
    reads: ClassVar[str] = "stages"
    beta: ClassVar[float] = 1000.0  # HAP's CIFAR runs; 50 for CINIC-10

    def __init__(self, stages: int | None = None) -> None:
        super().__init__()
        if stages is not None and stages < 1:
            raise UsageError(f"AT needs at least one stage. Received: stages={stages}")
        self.stages = stages

    def compare(self, teacher: Sequence[tf.Tensor], student: Sequence[tf.Tensor]) -> tf.Tensor:
        """Stages (b, h, w, c) of both, deepest last → scalar. Raises `UsageError` for unequal numbers."""
        last = slice(-(self.stages or 0), None)
        teacher, student = teacher[last], student[last]
        if len(teacher) != len(student):
            raise UsageError(
                "AT compares stage by stage; stages=1 compares the deepest alone. "
                f"Received: {len(teacher)} of the teacher, {len(student)} of the student"
            )
        return tf.add_n([attention_distance(t, s) for t, s in zip(teacher, student, strict=True)])
