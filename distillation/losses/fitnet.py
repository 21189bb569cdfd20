"""Hints: a middle map of the student, widened, is to be the teacher's (Romero et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import tensorflow as tf

from secateur.distillation.loss import Loss, register
from secateur.distillation.maps import to_smaller
from secateur.runs.errors import UsageError


def hint_distance(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """Mean squared difference of maps of equal width, the larger pooled to the smaller → scalar."""
    teacher, student = to_smaller(teacher, student)
    return tf.reduce_mean(tf.square(teacher - student))


@register
class FitNet(Loss):
    """mean (F_t − r(F_s))² of one stage, r a 1×1 convolution of the loss' own (eq. 3, as a mean).

    Between equal widths r starts as the identity, so that a copy of the teacher has nothing to learn.

    Args:
        stage: which to compare, from 0; negative ones count from the deepest; None: the middle.
    """

    key: ClassVar[str] = "fitnet"
    reads: ClassVar[str] = "stages"
    beta: ClassVar[float] = 100.0  # RepDistiller, which compares by a mean as this does

    def __init__(self, stage: int | None = None) -> None:
        super().__init__()
        self.stage = stage

    def prepare(self, teacher: Sequence[Any], student: Sequence[Any]) -> None:
        """From the shapes of the stages of both."""
        inputs, outputs = self._one(student)[-1], self._one(teacher)[-1]
        start = keras.initializers.Identity() if inputs == outputs else "lecun_uniform"
        self.kernel = self.add_weight(shape=(inputs, outputs), initializer=start, name="kernel")
        self.bias = self.add_weight(shape=(outputs,), initializer="zeros", name="bias")

    def compare(self, teacher: Sequence[tf.Tensor], student: Sequence[tf.Tensor]) -> tf.Tensor:
        """Stages (b, h, w, c) of both, deepest last → scalar. `UsageError`: there is no such stage."""
        widened = tf.einsum("bhwc,cd->bhwd", self._one(student), tf.convert_to_tensor(self.kernel))
        return hint_distance(self._one(teacher), widened + self.bias)

    def _one(self, stages: Sequence[Any]) -> Any:
        index = len(stages) // 2 if self.stage is None else self.stage
        if not -len(stages) <= index < len(stages):
            raise UsageError(f"FitNet: there are {len(stages)} stages. Received: stage={index}")
        return stages[index]
