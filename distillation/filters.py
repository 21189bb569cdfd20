"""Which of several teachers to listen to: those that know more than the student (Lee & Song 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from secateur.distillation.basics import MEANS, kl_divergence, mean_of, temperature_for
from secateur.distillation.teachers import Outputs, Teacher
from secateur.runs.errors import UsageError
from secateur.runs.suggest import require

SCOPES = ("batch", "sample", "dataset")


def kept_teachers(bank: tf.Tensor, student: tf.Tensor, temperature: float) -> tf.Tensor:
    """EKG's filter, per batch: teacher k stays while it is nearer to teacher 0 than the student is.

    bank (b, classes, K), student (b, classes) → float mask (K,). Teacher 0 always stays. With several
    replicas or micro-batches each of them filters on its own.
    """
    distance, of_student = _distances(bank, student, temperature)
    return _nearer(tf.reduce_sum(distance, 0), tf.reduce_sum(of_student))


def kept_per_sample(bank: tf.Tensor, student: tf.Tensor, temperature: float) -> tf.Tensor:
    """`kept_teachers` for each sample alone: k stays where KL(M₀ ‖ M_k) < KL(M₀ ‖ student); M₀ always.

    bank (b, classes, K), student (b, classes) → float mask (b, K).
    """
    distance, of_student = _distances(bank, student, temperature)
    return _nearer(distance, of_student[:, None])


def _distances(bank: tf.Tensor, student: tf.Tensor, temperature: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Divergences of teacher 0 from each teacher (b, K), and from the student (b,)."""
    teachers = tf.transpose(bank, [0, 2, 1])
    distance = kl_divergence(teachers[:, :1], teachers, temperature)
    return distance, kl_divergence(teachers[:, 0], student, temperature)


def _nearer(distance: tf.Tensor, of_student: tf.Tensor) -> tf.Tensor:
    """1 for teachers (…, K) that are nearer than the student, and for teacher 0."""
    kept = tf.cast(distance < of_student, tf.float32)
    return tf.stop_gradient(tf.maximum(kept, tf.one_hot(0, distance.shape[-1])))


class Filtered:
    """The mean of those of several teachers that are nearer to the best one than the student is.

    Args:
        teacher: gives logits (b, classes, K), K > 1, the best first; its features are passed on.
        by: whether the divergences are summed over each "batch" (EKG's program), taken for each "sample", or
            were summed once over the "dataset" (EKG's poster).
        mean: see `distillation.basics.mean_of`.
        temperature: of the divergences; None takes EKG's, 4, and 10 from a thousand classes on.
        kept: for "dataset": (K,), 1 for those that stay, as `kept_teachers` finds them on the logits of the
            whole training set.

    A batch is that of one replica, and one micro-batch with accumulation. Where the student has several
    views of each image, the mean of their logits is compared. Raises `UsageError` for wrong options.
    """

    def __init__(
        self,
        teacher: Teacher,
        by: str = "batch",
        mean: str = "logits",
        temperature: float | None = None,
        kept: Sequence[float] | None = None,
    ) -> None:
        for option, value, valid in (("by", by, SCOPES), ("mean", mean, MEANS)):
            require(value, valid, "filter", option)
        if (by == "dataset") != (kept is not None):
            raise UsageError(
                f"A filter by 'dataset', and no other, needs kept=. Received: by={by!r}, kept={kept}\n"
                "Pass kept_teachers(bank, student's logits, temperature) of the whole training set"
            )
        shape = teacher.symbols["logits"].shape
        if len(shape) != 3:
            raise UsageError(f"A filter chooses among several teachers. Received: logits of shape {shape}")
        self.teacher, self.by, self.mean, self.temperature, self.kept = teacher, by, mean, temperature, kept
        self.variables, self.convolutions = teacher.variables, teacher.convolutions
        self.symbols = {**teacher.symbols, "logits": keras.KerasTensor(shape[:2])}

    def __call__(self, inputs: Mapping[str, tf.Tensor], student: tf.Tensor | None = None) -> Outputs:
        """Logits float32 (b, classes). `student`: its logits (v·b, classes), needed unless by "dataset"."""
        outputs = self.teacher(inputs, student)
        logits = outputs["logits"]
        temperature = self.temperature or temperature_for(logits.shape[1])
        kept = self._kept(logits, student, temperature)
        shares = kept / tf.reduce_sum(kept, -1, keepdims=True)
        return {**outputs, "logits": mean_of(logits, shares, self.mean, temperature)}

    def _kept(self, logits: tf.Tensor, student: tf.Tensor | None, temperature: float) -> tf.Tensor:
        if self.by == "dataset":
            return tf.constant(self.kept, tf.float32)
        if student is None:
            raise UsageError(f"A filter by {self.by!r} needs the student's logits. Received: student=None")
        views = tf.reshape(student, [-1, logits.shape[0] or tf.shape(logits)[0], student.shape[-1]])
        keep = kept_teachers if self.by == "batch" else kept_per_sample
        return keep(logits, tf.stop_gradient(tf.reduce_mean(views, 0)), temperature)
