"""A student and its teacher for `model.fit`, with the user's own loss, optimizer and metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from secateur.distillation.features import OUTPUT
from secateur.distillation.lesson import Lesson, Weighted
from secateur.distillation.loss import Loss, build
from secateur.distillation.moving import call_with
from secateur.distillation.teachers import Teacher
from secateur.nets.task import Task
from secateur.op_utils import as_float32

Asked: TypeAlias = str | keras.distillation.DistillationLoss


class Distiller(keras.Model):
    """label_weight · (the compiled loss) + Σ weight · loss, trained by `fit`; else it is the student.

    Args:
        student: functional or Sequential, see `view`; it may read several inputs.
        teacher: a Keras model that reads the same inputs, or a `Teacher`. It is neither changed nor saved.
        losses: keys of losses, losses of `build` or of Keras, or (one of these, weight); a key alone has its
            published weight (`Loss.beta`), a loss of Keras 1.
        label_weight: of the compiled loss; 0 learns from the teacher alone. Regularisers keep their weight.
        layers: names of the student's layers, see `view`.
        task: what the losses compare, where the student's outputs are no classes: Task.of(student, "mse") …

    `compile` takes what any model takes; without a loss `fit(images)` learns from the teacher alone. Sample
    and class weights weigh the compiled loss; the other losses are means over the batch. `fit` reports
    "label_loss" and a part for each loss, such as "kd_loss", before their weights. `predict` and `evaluate`
    are those of the student: its output, and the compiled loss alone. Save `student`, which is as it was
    built; behind fad, call `lesson.settle()` first. Checkpoints of weights hold the student and the losses'
    own weights.

    `keras.distillation.Distiller` takes the same losses and does less, which is why this one exists: it
    ignores sample weights, has the label loss and the others share 1, hands losses no labels (dkd) and no
    more than one layer of each side (at, hap, reviewkd …), runs the student a second time where it names
    layers, so that BN sees each batch twice, freezes the teacher for good and saves it with the student, and
    reports one sum for all losses.

    Raises `UsageError` as `Lesson` and `build` do.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model | Teacher,
        losses: Iterable[Asked | tuple[Asked, float]] = ("kd",),
        label_weight: float = 1.0,
        layers: Mapping[str, Sequence[str]] | None = None,
        task: Task | None = None,
    ) -> None:
        super().__init__(name=f"{student.name}_distiller", dtype="float32")
        self.lesson = Lesson(student, teacher, [_weighted(one) for one in losses], label_weight, layers, task)
        names = ("label", *self.lesson.term_names[1:])
        self._parts = [keras.metrics.Mean(name=f"{name}_loss") for name in names]
        self.built = True

    @property
    def student(self) -> keras.Model:
        """What is trained."""
        return self.lesson.student

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The student's output; in training what `view` gives: that and all that losses read, in one pass."""
        model = self.lesson.view if training else self.student
        return call_with(model, self.lesson.changes.kernels(), inputs, training)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """The loss of a batch; `y_pred` is what `call` returned."""
        if not training:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        student = {**y_pred, "logits": as_float32(y_pred["logits"])}
        replicas = tf.distribute.get_strategy().num_replicas_in_sync  # their losses are added up
        extra = sum(self.losses, 0.0) / replicas  # of regularisers
        label = 0.0
        if self.loss is not None:
            label = super().compute_loss(x, y, y_pred[OUTPUT], sample_weight, training) - extra
        taught = self.lesson.taught({"images": x}, student["logits"])
        terms = list(self.lesson.compare(taught, student, self._labels(y, student["logits"])))
        count = tf.shape(keras.tree.flatten(student["logits"])[0])[0]
        for part, value in zip(self._parts, [label * replicas, *terms], strict=True):
            part.update_state(value, count)
        compared = sum(weight * term for (_, weight), term in zip(self.lesson.terms, terms, strict=True))
        return self.lesson.label_weight * label + compared / replicas + extra

    def _labels(self, y: Any, logits: Any) -> Any:
        """As our losses take them: classes as integers (b,), of integers (b,) or (b, 1), or one-hot rows."""
        if self.lesson.kind != "classes" or y is None:
            return y
        if len(y.shape) == 2 and y.shape[1] == logits.shape[1] > 1:
            return tf.argmax(y, 1, tf.int32)
        return tf.cast(tf.reshape(y, [-1]), tf.int32)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Compiled metrics of the student's output; in training also the parts of the loss."""
        training = isinstance(y_pred, Mapping) and OUTPUT in y_pred
        found = super().compute_metrics(x, y, y_pred[OUTPUT] if training else y_pred, sample_weight)
        parts = () if training else [part.name for part in self._parts]
        return {name: value for name, value in found.items() if name not in parts}


def _weighted(asked: Asked | tuple[Asked, float]) -> Weighted:
    loss, weight = asked if isinstance(asked, tuple) else (asked, None)
    loss = build(loss) if isinstance(loss, str) else loss
    published = loss.beta if isinstance(loss, Loss) else 1.0
    return loss, published if weight is None else weight
