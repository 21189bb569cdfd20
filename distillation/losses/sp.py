"""Similarity-preserving distillation: which images look alike to the net (Tung & Mori 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from secateur.distillation.loss import Loss, register
from secateur.distillation.maps import flat, similarity


def similarity_distance(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """‖G_t − G_s‖_F² / b² with G the `similarity` of rows (b, n); n may differ → scalar."""
    return tf.reduce_mean(tf.square(similarity(teacher) - similarity(student)))


@register
class SP(Loss):
    """‖G_t − G_s‖_F² / b² of the deepest stage, where G = X Xᵀ by unit rows, X (b, h·w·c) (eq. 1 to 4).

    The pairs of images are those of one replica: with several, each compares within its own share of the
    batch, and the loss is the mean of theirs. With accumulation, within a micro-batch.
    """

    key: ClassVar[str] = "sp"
    reads: ClassVar[str] = "stages"
    beta: ClassVar[float] = 3000.0  # HAP's CIFAR runs and the paper's γ; 2000 for CINIC-10

    def compare(self, teacher: Sequence[tf.Tensor], student: Sequence[tf.Tensor]) -> tf.Tensor:
        """Stages (b, h, w, c) of both, deepest last → scalar."""
        return similarity_distance(flat(teacher[-1]), flat(student[-1]))
