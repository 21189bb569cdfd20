"""Knowledge distillation from softened logits, from one teacher or several (Hinton et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import tensorflow as tf

from secateur.distillation.basics import MEANS, divergence, mean_of, teachers_first
from secateur.distillation.loss import Loss, register
from secateur.runs.errors import UsageError
from secateur.runs.suggest import require

FACTORS = {"T2": lambda t: t * t, "T": lambda t: t, "1": lambda t: 1.0}
WAYS = ("kl", *MEANS)


def mean_divergence(
    teachers: tf.Tensor, weights: tf.Tensor, student: tf.Tensor, temperature: float, kind: str = "classes"
) -> tf.Tensor:
    """Σ_k w_k · `divergence` of teacher k and the student, per sample. (b, …, teachers), (b, …) → (b,)."""
    each = divergence(teachers_first(teachers), student[:, None], temperature, kind)
    return tf.linalg.matvec(each, weights)


@register
class KD(Loss):
    """factor(T) · KL(σ_T(teacher) ‖ σ_T(student)), mean over the batch (Hinton et al. 2015, §2).

    Of maps the mean is over all positions. Of labels, which a sigmoid each decides, σ_T is the sigmoid of
    z/T and the sum of their divergences counts. Numbers have no temperature: their loss is the mean squared
    difference.

    Args:
        temperature: T > 0.
        factor: "T2" as Hinton, HAP and KESI have it, "T" as EKG, or "1".
        mean: of several teachers: "kl" averages their divergences (KESI; the gradient is that of "tempered"),
            the others average what they say: "logits" (EKG), "softmax", "tempered". Outside of classes the
            last two act as "logits".
        over_classes: divide by the number of classes too, as KESI's program does.
        weights: one for each teacher, not below 0, of any sum; None weighs all alike.

    Raises `UsageError` for options out of range, and for weights that are not as many as the teachers.
    """

    key: ClassVar[str] = "kd"
    several: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = ("classes", "labels", "numbers", "maps")
    beta: ClassVar[float] = 0.9  # HAP's α beside a full cross-entropy

    def __init__(
        self,
        temperature: float = 4.0,
        factor: str = "T2",
        mean: str = "kl",
        over_classes: bool = False,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise UsageError(f"The temperature must be above 0. Received: temperature={temperature}")
        for option, value, valid in (("factor", factor, FACTORS), ("mean", mean, WAYS)):
            require(value, valid, option)
        if weights is not None and not (min(weights, default=-1) >= 0 and 0 < sum(weights) < np.inf):
            raise UsageError(
                f"Weights of teachers must be 0 or above, one of them above. Received: {weights=}"
            )
        self.temperature, self.factor, self.mean, self.over_classes = temperature, factor, mean, over_classes
        self.weights_of_teachers = weights

    def compare(self, teacher: tf.Tensor, student: tf.Tensor, kind: str = "classes") -> tf.Tensor:
        """student (b, classes), (b, labels), (b, h, w, classes) …; teacher alike, or (…, teachers)."""
        if len(teacher.shape) == len(student.shape):
            teacher = teacher[..., None]
        weights = self._shares(teacher)
        if self.mean != "kl":
            how = self.mean if kind == "classes" else "logits"
            teacher = mean_of(teacher, weights, how, self.temperature)[..., None]
            weights = tf.ones(1)
        loss = tf.reduce_mean(mean_divergence(teacher, weights, student, self.temperature, kind))
        return loss if kind == "numbers" else self._scaled(loss, student)

    def _scaled(self, loss: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
        loss = FACTORS[self.factor](self.temperature) * loss
        return loss / student.shape[-1] if self.over_classes else loss

    def _shares(self, teachers: tf.Tensor) -> tf.Tensor:
        """(teachers,) weights of sum 1."""
        weights, count = self.weights_of_teachers, tf.shape(teachers)[-1]
        if weights is None:
            return tf.fill([count], 1 / tf.cast(count, tf.float32))
        if teachers.shape[-1] not in (None, len(weights)):
            raise UsageError(f"{teachers.shape[-1]} teachers need as many weights. Received: {weights=}")
        return tf.constant(np.array(weights) / np.sum(weights), tf.float32)
