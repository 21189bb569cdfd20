"""HAP's similarity of logits: blocks learn which images look alike to the teacher's blocks and logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import tensorflow as tf

from secateur.distillation.loss import Loss, register
from secateur.distillation.maps import attention_similarities, mean_squares, similarity
from secateur.runs.errors import UsageError


@register
class LSP(Loss):
    """[d(Z_s, Z_t) + Σ_s (Σ_t d(M_s, M_t) + d(M_s, Z_t))] / (|S| + 1), of HAP's further losses.

    M are HAP's similarities of blocks, Z = z zᵀ by unit rows those of the logits, d the mean squared
    difference of their b² entries. s runs over all blocks of the student, t over the teacher's last; over t
    it is a sum, where HAP has a mean. Pairs of images are those of one replica and micro-batch.

    Args:
        teacher_blocks: how many of the teacher's blocks, from the last.

    No paper has this loss; where HAP's program leaves a choice it follows HAP.
    """

    key: ClassVar[str] = "lsp"
    reads: ClassVar[str] = "all"
    beta: ClassVar[float] = 175.0  # no published value: HAP's 700 over the four targets that are summed

    def __init__(self, teacher_blocks: int = 3) -> None:
        super().__init__()
        if teacher_blocks < 1:
            raise UsageError(f"LSP needs a teacher's block. Received: teacher_blocks={teacher_blocks}")
        self.teacher_blocks = teacher_blocks

    def compare(self, teacher: Mapping[str, Any], student: Mapping[str, Any]) -> tf.Tensor:
        """ "blocks" (b, h, w, c), deepest last, and "logits" (b, classes) of both → scalar."""
        for side in (teacher, student):
            if missing := {"blocks", "logits"} - set(side):
                raise UsageError(f"LSP reads blocks and logits. Received: no {sorted(missing)[0]}")
        last = teacher["blocks"][-self.teacher_blocks :]
        blocks, logits = attention_similarities(student["blocks"]), _row(student["logits"])
        targets = tf.concat([attention_similarities(last), _row(teacher["logits"])], 0)
        total = tf.reduce_sum(mean_squares(blocks, targets)) + mean_squares(logits, targets[-1:])[0, 0]
        return total / (len(student["blocks"]) + 1)


def _row(logits: tf.Tensor) -> tf.Tensor:
    return tf.reshape(similarity(logits), [1, -1])
