"""HAP: every block of the student learns which images look alike to the teacher's last blocks ("MSP")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from secateur.distillation.loss import Loss, register
from secateur.distillation.maps import attention_similarities, mean_squares
from secateur.runs.errors import UsageError


@register
class HAP(Loss):
    """mean over blocks s of the student, the teacher's last blocks t, and b² entries, of (M_s − M_t)².

    M = A Aᵀ by unit rows, A (b, h·w) the attention maps: it is (b, b) whatever the resolution, so nothing
    needs matching. It cannot be 0 unless all blocks compared agree among themselves. Pairs of images are
    those of one replica (and of one micro-batch): each compares within its own share of the batch.

    Args:
        teacher_blocks: how many of the teacher's blocks, from the last; published: 3, swept from 1 to 9.
    """

    key: ClassVar[str] = "hap"
    reads: ClassVar[str] = "blocks"
    beta: ClassVar[float] = 700.0  # HAP's CIFAR runs; swept from 100 to 1100

    def __init__(self, teacher_blocks: int = 3) -> None:
        super().__init__()
        if teacher_blocks < 1:
            raise UsageError(f"HAP needs a teacher's block. Received: teacher_blocks={teacher_blocks}")
        self.teacher_blocks = teacher_blocks

    def compare(self, teacher: Sequence[tf.Tensor], student: Sequence[tf.Tensor]) -> tf.Tensor:
        """Blocks (b, h, w, c) of both, deepest last, any numbers → scalar."""
        targets = attention_similarities(teacher[-self.teacher_blocks :])
        return tf.reduce_mean(mean_squares(attention_similarities(student), targets))
