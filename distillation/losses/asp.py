"""SP of attention maps: which images draw the net's attention to the same places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from secateur.distillation.loss import Loss, register
from secateur.distillation.losses.sp import similarity_distance
from secateur.distillation.maps import attention


@register
class ASP(Loss):
    """SP of attention maps: G = A Aᵀ by unit rows, A (b, h·w) of the deepest stage (HAP's further losses).

    Pairs are those of one replica, as for SP. HAP's program normalises each column of a map where this
    normalises the map, which is what its other losses do.
    """

    key: ClassVar[str] = "asp"
    reads: ClassVar[str] = "stages"
    beta: ClassVar[float] = 3000.0  # no published value: SP's

    def compare(self, teacher: Sequence[tf.Tensor], student: Sequence[tf.Tensor]) -> tf.Tensor:
        """Stages (b, h, w, c) of both, deepest last → scalar."""
        return similarity_distance(attention(teacher[-1]), attention(student[-1]))
