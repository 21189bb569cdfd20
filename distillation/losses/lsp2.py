"""HAP with a window: each block of the student learns from the teacher's blocks near it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import tensorflow as tf

from secateur.distillation.loss import Loss, register
from secateur.distillation.maps import attention_similarities, mean_squares
from secateur.runs.errors import UsageError


def windows(students: int, teachers: int, size: int | None) -> np.ndarray:
    """(students, teachers) weights, rows of sum 1: student i looks at `size` teachers around the i-th.

    None: at all of them. A window begins (size − 1)//2 before i, but not before the first teacher, so that
    the first students share one: with size 3 both 0 and 1 look at 0, 1 and 2. Behind the last teacher it is
    cut off, and a student beyond looks at the last alone.
    """
    first = np.clip(np.arange(students) - ((size or 1) - 1) // 2, 0, teachers - 1)[:, None]
    at = np.arange(teachers)
    inside = (at >= first) & (at < first + size) if size else np.ones((students, teachers), bool)
    return (inside / inside.sum(1, keepdims=True)).astype(np.float32)


@register
class LSP2(Loss):
    """HAP between each block of the student and the mean of a window of the teacher's (HAP's further losses).

    Pairs of images are those of one replica, as for HAP.

    Args:
        window: blocks of the teacher that a block looks at, see `windows`; None: all (HAP's program).
    """

    key: ClassVar[str] = "lsp2"
    reads: ClassVar[str] = "blocks"
    beta: ClassVar[float] = 700.0  # no published value: HAP's

    def __init__(self, window: int | None = None) -> None:
        super().__init__()
        if window is not None and window < 1:
            raise UsageError(f"LSP2 needs a window of at least one block. Received: window={window}")
        self.window = window

    def compare(self, teacher: Sequence[tf.Tensor], student: Sequence[tf.Tensor]) -> tf.Tensor:
        """Blocks (b, h, w, c) of both, deepest last, any numbers → scalar."""
        gaps = mean_squares(attention_similarities(student), attention_similarities(teacher))
        weights = windows(len(student), len(teacher), self.window)
        return tf.reduce_mean(tf.reduce_sum(gaps * weights, 1))
