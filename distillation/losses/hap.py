"""HAP: every block of the student learns which images look alike to the teacher's last blocks ("MSP")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import tensorflow as tf

from distillation.loss import Loss, register
from distillation.maps import attention_similarities, mean_squares
from runs.errors import UsageError


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


def centred_windows(students: int, teachers: int, size: int | None) -> np.ndarray:
    """(students, teachers) weights, rows of sum 1: student i looks at `size` teachers around the i-th.

    None: at all of them. At the ends fewer remain; a student beyond the last teacher looks at the last.
    """
    first = np.clip(np.arange(students) - ((size or 1) - 1) // 2, 0, teachers - 1)[:, None]
    at = np.arange(teachers)
    inside = (at >= first) & (at < first + size) if size else np.ones((students, teachers), bool)
    return (inside / inside.sum(1, keepdims=True)).astype(np.float32)


@register
class LSP2(Loss):
    """HAP between each block of the student and a window of the teacher's blocks around it (HAP's program).

    Pairs of images are those of one replica, as for HAP.

    Args:
        window: blocks of the teacher in a window, centred on the block of the same index; None: all.
    """

    key: ClassVar[str] = "lsp2"
    reads: ClassVar[str] = "blocks"
    beta: ClassVar[float] = 700.0  # no published value: HAP's

    def __init__(self, window: int | None = 3) -> None:
        super().__init__()
        if window is not None and window < 1:
            raise UsageError(f"LSP2 needs a window of at least one block. Received: window={window}")
        self.window = window

    def compare(self, teacher: Sequence[tf.Tensor], student: Sequence[tf.Tensor]) -> tf.Tensor:
        """Blocks (b, h, w, c) of both, deepest last, any numbers → scalar."""
        gaps = mean_squares(attention_similarities(student), attention_similarities(teacher))
        weights = centred_windows(len(student), len(teacher), self.window)
        return tf.reduce_mean(tf.reduce_sum(gaps * weights, 1))
