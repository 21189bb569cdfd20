"""Which of several teachers to listen to: those that know more than the student (Lee & Song 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from secateur.distillation.basics import MEANS, divergence, mean_of, teachers_first, temperature_for
from secateur.distillation.teachers import Outputs, Teacher, checked
from secateur.runs.errors import UsageError
from secateur.runs.suggest import require

SCOPES = ("batch", "sample", "dataset")


def kept_teachers(
    bank: tf.Tensor, student: tf.Tensor, temperature: float, kind: str = "classes"
) -> tf.Tensor:
    """EKG's filter, per batch: teacher k stays while it is nearer to teacher 0 than the student is.

    bank (b, classes, K), student (b, classes) → float mask (K,). Teacher 0 always stays. With several
    replicas or micro-batches each of them filters on its own. `kind`: see `basics.divergence`.
    """
    distance, of_student = _distances(bank, student, temperature, kind)
    return _nearer(tf.reduce_sum(distance, 0), tf.reduce_sum(of_student))


def kept_per_sample(
    bank: tf.Tensor, student: tf.Tensor, temperature: float, kind: str = "classes"
) -> tf.Tensor:
    """`kept_teachers` for each sample alone: k stays where KL(M₀ ‖ M_k) < KL(M₀ ‖ student); M₀ always.

    bank (b, classes, K), student (b, classes) → float mask (b, K). `kind`: see `basics.divergence`.
    """
    distance, of_student = _distances(bank, student, temperature, kind)
    return _nearer(distance, of_student)


def _distances(
    bank: tf.Tensor, student: tf.Tensor, temperature: float, kind: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """Divergences of teacher 0 from each teacher (b, K), and from the student (b, 1)."""
    teachers = teachers_first(bank)
    best = teachers[:, :1]
    return tuple(divergence(best, other, temperature, kind) for other in (teachers, student[:, None]))


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
        mean: see `distillation.basics.mean_of`; of other kinds than classes it is that of "logits".
        temperature: of the divergences; None takes EKG's, 4, and 10 from a thousand classes on.
        kept: for "dataset": (K,), 1 for those that stay, as `kept_teachers` finds them on the logits of the
            whole training set.
        kind: of the logits, see `distillation.basics.divergence`.

    A batch is that of one replica, and one micro-batch with accumulation. Where the student has several
    views of each image, the mean of their logits is compared. Raises `UsageError` for wrong options.
    """

    several = False

    def __init__(
        self,
        teacher: Teacher,
        by: str = "batch",
        mean: str = "logits",
        temperature: float | None = None,
        kept: Sequence[float] | None = None,
        kind: str = "classes",
    ) -> None:
        for option, value, valid in (("by", by, SCOPES), ("mean", mean, MEANS)):
            require(value, valid, "filter", option)
        if (by == "dataset") != (kept is not None):
            raise UsageError(
                f"A filter by 'dataset', and no other, needs kept=. Received: by={by!r}, kept={kept}\n"
                "Pass kept_teachers(bank, student's logits, temperature) of the whole training set"
            )
        shape = checked(teacher).symbols["logits"].shape
        if not teacher.several:
            raise UsageError(f"A filter chooses among several teachers. Received: logits of shape {shape}")
        self.teacher, self.by, self.kind, self.kept, self.temperature = teacher, by, kind, kept, temperature
        self.mean = mean if kind == "classes" else "logits"
        self.variables, self.convolutions = teacher.variables, teacher.convolutions
        self.symbols = {**teacher.symbols, "logits": keras.KerasTensor(shape[:-1])}

    def __call__(self, inputs: Mapping[str, tf.Tensor], student: tf.Tensor | None = None) -> Outputs:
        """Logits float32 (b, classes). `student`: its logits (v·b, classes), needed unless by "dataset"."""
        outputs = self.teacher(inputs, student)
        logits = outputs["logits"]
        temperature = self.temperature or temperature_for(logits.shape[-2])
        kept = self._kept(logits, student, temperature)
        shares = kept / tf.reduce_sum(kept, -1, keepdims=True)
        return {**outputs, "logits": mean_of(logits, shares, self.mean, temperature)}

    def _kept(self, logits: tf.Tensor, student: tf.Tensor | None, temperature: float) -> tf.Tensor:
        if self.by == "dataset":
            return tf.constant(self.kept, tf.float32)
        if student is None:
            raise UsageError(f"A filter by {self.by!r} needs the student's logits. Received: student=None")
        images = logits.shape[0] or tf.shape(logits)[0]
        views = tf.reshape(student, tf.concat([[-1, images], tf.shape(student)[1:]], 0))
        keep = kept_teachers if self.by == "batch" else kept_per_sample
        return keep(logits, tf.stop_gradient(tf.reduce_mean(views, 0)), temperature, self.kind)
