"""A student, its teacher and the losses between them as one model, which any loop can train."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from secateur.distillation.features import OUTPUT, view
from secateur.distillation.loss import Loss
from secateur.distillation.moving import Changed, Changes, call_with
from secateur.distillation.tasks import (
    check_labels,
    check_losses,
    check_teacher,
    kind_of_logits,
    label_loss,
    label_metric,
    name_of,
    task_for,
)
from secateur.distillation.teachers import Live, Teacher, check_inputs, checked
from secateur.nets.task import Task
from secateur.op_utils import Batch, as_float32
from secateur.runs.errors import UsageError

Weighted = tuple[keras.distillation.DistillationLoss, float]


class Lesson(keras.Model):
    """{"images", "labels", optional "bank"} → "logits", "loss", …: label_weight · CE + Σ weight · loss.

    What trains are the student's weights and the losses' own. The teacher's are handed to the step as values
    that it does not change: they get no update and no decay and are in no checkpoint.

    Args:
        student: see `view`.
        teacher: a `Teacher`, or a Keras model that then runs on the student's images; None without losses.
        losses: (loss, weight) pairs, ours or Keras' own; [] trains on labels alone. One that moves kernels
            adds nothing to the loss: the student computes with the kernels that it makes, see `settle`.
        label_weight: of the cross-entropy; 0 learns from the teacher alone.
        layers: names of the student's layers, see `view`.
        task: what outputs mean, and the loss on labels in place of the cross-entropy; None: integers say the
            class of an image, or of each position where the student makes maps.

    Attributes:
        term_names: of what "terms" holds: "cross_entropy" or the task's loss, then each added loss, by key.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: Teacher | keras.Model | None,
        losses: Sequence[Weighted],
        label_weight: float = 1.0,
        layers: Mapping[str, Sequence[str]] | None = None,
        task: Task | None = None,
    ) -> None:
        super().__init__(name=f"{student.name}_lesson", dtype="float32")
        self.task = task_for(student, task)
        kind = self.kind = kind_of_logits(self.task)
        check_losses([loss for loss, _ in losses], kind)
        self.terms = [(loss, float(weight)) for loss, weight in losses if not moves_kernels(loss)]
        moving = [(loss, float(weight)) for loss, weight in losses if moves_kernels(loss)]
        self.label_weight, self.student = label_weight, student
        self.term_names = (name_of(self.task), *_apart([_name(loss) for loss, _ in self.terms]))
        # Nothing reads this: Keras tracks, and so trains and saves, what stands in an attribute or a list of
        # its own, but not what stands in the tuples of `terms`.
        self.own = [loss for loss, _ in losses if isinstance(loss, keras.layers.Layer)]
        reads = reads_of([loss for loss, _ in losses])
        self.view = view(student, [*reads, OUTPUT], layers, _names(losses, "student"), kind)
        if isinstance(teacher, keras.Model):
            teacher = Live(teacher, reads, more=_names(losses, "teacher"), kind=kind)
        if losses and teacher is None:
            raise UsageError("Losses compare with a teacher. Received: teacher=None")
        self.teacher = None if teacher is None else checked(teacher)
        self.changes = Changes(moving, self.view, teacher.convolutions if teacher and moving else [])
        symbols = teacher.symbols if teacher else {}
        if self.terms and teacher:
            compared = [loss for loss, _ in self.terms]
            check_teacher(compared, kind, symbols, self.view.output, teacher.several)
        for loss, _ in self.terms:  # also those of Keras: it puts a page around what `call` raises
            heard = self._heard(loss, symbols)
            sides = _of(loss, heard, "teacher"), _of(loss, self.view.output, "student")
            if isinstance(loss, Loss):
                loss.build_from(*sides, kind)
        self.built = True

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        """The student's, the losses' and all that the teacher reads."""
        read = self.teacher.variables if self.teacher else []
        known = {id(variable) for variable in self.variables}
        return super().non_trainable_variables + [v for v in read if id(v) not in known]

    def __call__(self, inputs: Mapping[str, Any], *args: Any, **kwargs: Any) -> dict[str, tf.Tensor]:
        """`call`. It looks at inputs here, since Keras puts a page around what `call` raises."""
        check_labels(self.task, inputs["labels"], self.view.output["logits"])
        if self.teacher and self.terms:
            check_inputs(self.teacher, inputs)
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs: Mapping[str, tf.Tensor], training: bool | None = None) -> dict[str, tf.Tensor]:
        """One batch.

        Args:
            inputs: "images" as the student reads them, also several tensors in any structure, "labels" (b,)
                integers, or as the task reads them, "bank" (b, classes, teachers). With v views of every
                image, all first views, then all second ones, "images" has v·b rows.

        Returns "logits" float32 (v·b, classes), "loss", a float32 scalar, "metric", the accuracy over all
        views or what the task is measured by, and "terms", the parts of the loss before they are weighted,
        float32 (1 + losses that are added,). Raises `UsageError` for labels of another shape or type.
        """
        student = call_with(self.view, self.changes.kernels(), inputs["images"], training)
        student = as_float32(student)
        logits = student["logits"]
        rows = keras.tree.flatten(logits)[0]
        labels = keras.tree.map_structure(lambda y: per_view(y, rows), inputs["labels"])
        images = tf.shape(keras.tree.flatten(inputs["labels"])[0])[0]
        taught = self.taught(inputs, logits)
        terms = [label_loss(self.task, labels, logits)]
        loss = self.label_weight * terms[0]
        for (_, weight), term in zip(self.terms, self.compare(taught, student, labels, images), strict=True):
            terms.append(term)
            loss += weight * term
        metric = label_metric(self.task, labels, logits)
        return {"logits": logits, "loss": loss, "metric": metric, "terms": tf.stack(terms)}

    def taught(self, inputs: Mapping[str, Any], logits: Any) -> dict[str, Any]:
        """What the teacher says of inputs, for each view in the student's logits; {} where nobody asks."""
        if not (self.teacher and self.terms):
            return {}
        found, rows = as_float32(dict(self.teacher(inputs, logits))), keras.tree.flatten(logits)[0]
        return {**found, "logits": keras.tree.map_structure(lambda z: per_view(z, rows), found["logits"])}

    def compare(
        self, taught: Mapping[str, Any], student: Mapping[str, Any], labels: Any, images: Any = None
    ) -> Iterator[tf.Tensor]:
        """The losses that are added, before they are weighted, float32 scalars; each when it is asked for.

        The last bit of their sum depends on whether it is computed between them, as `call` does.

        Args:
            taught: see there.
            student: what `view` gives, logits in float32.
            labels, images: as `Loss.compute_loss` takes them.
        """
        for term, _ in self.terms:
            sides = _of(term, self._heard(term, taught), "teacher"), _of(term, student, "student")
            value = term.compute_loss(*sides, labels=labels, images=images, kind=self.kind)
            yield tf.cast(value, tf.float32)

    def _heard(self, loss: Any, taught: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a loss reads of the teacher: the mean of several ones' logits, unless it compares each.

        Our losses of classes take that mean themselves, also in Keras' own Distiller.
        """
        each = isinstance(loss, Loss) and (loss.several or self.kind == "classes")
        if each or not (self.teacher and self.teacher.several) or "logits" not in taught:
            return taught
        return {**taught, "logits": keras.ops.mean(taught["logits"], -1)}

    @property
    def learner(self) -> keras.Model:
        """The student as it acts: itself, or with the kernels that a loss moves, which it will keep."""
        return Changed(self.student, self.changes) if self.changes.losses else self.student

    def settle(self) -> None:
        """Writes kernels that a loss moves into the student, where training ends; else does nothing."""
        self.changes.settle()


def per_view(values: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Repeats (b, …) for each view of logits (v·b, classes); b may be unknown until the step runs."""
    rows, all_rows = values.shape[0], logits.shape[0]
    if rows and all_rows:
        return tf.concat([values] * (all_rows // rows), 0)
    views = tf.shape(logits)[0] // tf.shape(values)[0]
    repeated = tf.tile(values, [views] + [1] * (len(values.shape) - 1))
    return tf.ensure_shape(repeated, [all_rows, *values.shape[1:]])


def lesson_objective(outputs: Batch, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
    """A `Lesson`'s own loss and metric: an objective for `op_utils.Trainer`."""
    return outputs["loss"], outputs["metric"]


def lesson_terms(outputs: Batch, batch: Batch) -> tuple[tf.Tensor, ...]:
    """`lesson_objective`, and behind it the unweighted parts of the loss, see `Lesson.term_names`."""
    return *lesson_objective(outputs, batch), *tf.unstack(outputs["terms"])


def for_lesson(preprocess: Callable) -> Callable:
    """(batch, seed) → images, made into (batch, seed) → all that a `Lesson` reads."""
    return lambda batch, seed: {**batch, "images": preprocess(batch, seed)}


def moves_kernels(loss: Any) -> bool:
    """Whether it changes the student instead of comparing outputs; none of Keras' own does."""
    return isinstance(loss, Loss) and loss.moves_kernels


def reads_of(losses: Sequence[Any]) -> list[str]:
    """What these losses look at together."""
    return sorted({"logits"} | {loss.reads for loss in losses if isinstance(loss, Loss)})


def _name(loss: Any) -> str:
    return loss.key if isinstance(loss, Loss) else type(loss).__name__


def _apart(names: Sequence[str]) -> list[str]:
    """The second "kd" is "kd_2"."""
    counts = [names[: i + 1].count(name) for i, name in enumerate(names)]
    return [name if n == 1 else f"{name}_{n}" for name, n in zip(names, counts, strict=True)]


def _names(losses: Sequence[Weighted], side: str) -> list[str]:
    named = {getattr(loss, f"{side}_layer_name", None) for loss, _ in losses}
    return sorted(name for name in named if name)


def _of(loss: Any, outputs: Mapping[str, Any], side: str) -> Any:
    """What this loss is handed: all, the one layer that it names, or logits for losses of Keras."""
    name = getattr(loss, f"{side}_layer_name", None) or ("logits" if not isinstance(loss, Loss) else None)
    if name is None:
        return outputs
    if name not in outputs:
        raise UsageError(
            f"A loss reads layer {name!r}, which the {side} does not give. Received: {sorted(outputs)}\n"
            f"Pass the {side} as a model, or make it with Live(model, more=[{name!r}])"
        )
    return outputs[name]
