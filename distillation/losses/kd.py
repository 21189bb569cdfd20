"""Knowledge distillation from softened logits, from one teacher or several (Hinton et al. 2015)."""

from __future__ import annotations

from typing import ClassVar

import tensorflow as tf

from distillation.basics import kl_divergence
from distillation.loss import Loss, register
from runs.errors import UsageError
from runs.suggest import nearest

FACTORS = {"T2": lambda t: t * t, "T": lambda t: t, "1": lambda t: 1.0}
MEANS = ("kl", "logits", "softmax", "tempered")


def mean_of_teachers(logits: tf.Tensor, how: str, temperature: float) -> tf.Tensor:
    """Logits (b, classes, teachers) → (b, classes) of the mean of logits, of softmaxes, or of tempered ones.

    Means of probabilities come back as logits: softmax(result) is the mean, and softmax(result / T) for
    "tempered".
    """
    if how == "logits":
        return tf.reduce_mean(logits, -1)
    scale = temperature if how == "tempered" else 1.0
    count = tf.cast(tf.shape(logits)[-1], tf.float32)
    log_p = tf.nn.log_softmax(logits / scale, axis=1)
    return scale * (tf.reduce_logsumexp(log_p, -1) - tf.math.log(count))


@register
class KD(Loss):
    """factor(T) · KL(σ_T(teacher) ‖ σ_T(student)), mean over the batch (Hinton et al. 2015, §2).

    Args:
        temperature: T > 0.
        factor: "T2" as Hinton, HAP and KESI have it, "T" as EKG, or "1".
        mean: of several teachers: "kl" averages their divergences (KESI; the gradient is that of "tempered"),
            the others average what they say: "logits" (EKG), "softmax", "tempered".
        over_classes: divide by the number of classes too, as KESI's program does.
    """

    key: ClassVar[str] = "kd"
    beta: ClassVar[float] = 0.9  # HAP's α beside a full cross-entropy

    def __init__(
        self, temperature: float = 4.0, factor: str = "T2", mean: str = "kl", over_classes: bool = False
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise UsageError(f"The temperature must be above 0. Received: temperature={temperature}")
        for option, value, valid in (("factor", factor, FACTORS), ("mean", mean, MEANS)):
            if value not in valid:
                raise UsageError(f"Unknown {option}. Received: {option}={value!r}. {nearest(value, valid)}")
        self.temperature, self.factor, self.mean, self.over_classes = temperature, factor, mean, over_classes

    def compare(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
        """teacher (b, classes) or (b, classes, teachers), student (b, classes) → scalar."""
        several = len(teacher.shape) == 3
        if several and self.mean != "kl":
            teacher, several = mean_of_teachers(teacher, self.mean, self.temperature), False
        if several:
            teacher, student = tf.transpose(teacher, [2, 0, 1]), student[None]
        loss = FACTORS[self.factor](self.temperature) * tf.reduce_mean(
            kl_divergence(teacher, student, self.temperature)
        )
        return loss / student.shape[-1] if self.over_classes else loss
