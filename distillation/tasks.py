"""What a lesson makes of its task: how the student's logits are judged, and what can be compared at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf

from secateur.distillation.basics import accuracy, cross_entropy
from secateur.distillation.loss import Loss
from secateur.nets.losses import CROSS_ENTROPY, LossSpec, compiled_losses
from secateur.nets.task import Task
from secateur.runs.errors import UsageError


def task_for(student: keras.Model, task: Task | None) -> Task:
    """The task of logits; without one that of the student's outputs: classes, or a class for each position.

    Where outputs alone do not say it, the loss does that the student is compiled with. Raises `UsageError`
    where that cannot be known.
    """
    if task is not None:
        return task if task.kind in ("numbers", "own") else task.bare  # of those `view` leaves the ends
    count = len(getattr(student, "outputs", None) or [])
    found = Task.of_outputs(student) if count == 1 else None
    if count > 1 or (found and found.kind == "classes" and found.units == 1):
        if compiled_losses(student) is not None:
            return task_for(student, Task.of(student))
        what = "one output for two classes" if count == 1 else f"{count} outputs"
        raise UsageError(
            f"What does a student of {what} learn? Received: task=None\n"
            "compile the student with its loss first, or give task=secateur.nets.task.Task.of(student, loss)"
        )
    if found and found.kind == "classes":
        return replace(found.bare, sigmoid=False)  # `view` refuses a sigmoid for each class
    return found.bare if found else Task("classes", False, 0, LossSpec("categorical", CROSS_ENTROPY))


def kind_of_logits(task: Task) -> str:
    """The kind as losses and `view` see it: "labels" where each number decides by itself."""
    return "labels" if task.two or task.sigmoid else task.kind


def plain_classes(task: Task) -> bool:
    """Whether the label loss is the cross-entropy of integers, and the metric the accuracy."""
    return kind_of_logits(task) == "classes" and not (task.loss_spec.function or task.measure)


def name_of(task: Task) -> str:
    """What the loss on labels is called."""
    return "cross_entropy" if plain_classes(task) else task.loss_spec.name


def label_loss(task: Task, labels: Any, logits: Any) -> tf.Tensor:
    """The mean loss on labels, a float32 scalar."""
    if plain_classes(task):
        return tf.reduce_mean(cross_entropy(labels, logits))
    return task.loss(labels, logits)


def label_metric(task: Task, labels: Any, logits: Any) -> tf.Tensor:
    """The accuracy, or what else the task is measured by, a float32 scalar."""
    return accuracy(logits, labels) if plain_classes(task) else task.metric(labels, logits)


def check_labels(task: Task, labels: Any, logits: Any) -> None:
    """Raises `UsageError` for labels of another shape or type; those of classes are integers."""
    if task.kind != "classes":
        if task.kind != "own":
            task.check_form(labels, tuple(logits.shape))
        return
    if len(labels.shape) != 1 or not tf.as_dtype(labels.dtype).is_integer:
        raise UsageError(
            "Labels of classes are integers (b,). Received: "
            f"shape {tuple(labels.shape)}, type {tf.as_dtype(labels.dtype).name}"
        )


def check_losses(losses: Sequence[Any], kind: str) -> None:
    """Raises `UsageError` for a loss that compares logits, or reads labels, of other kinds than this."""
    for loss in losses:
        if isinstance(loss, Loss) and loss.of_outputs and kind not in loss.kinds:
            what = "a loss of your own, or of several outputs" if kind == "own" else f"a task of {kind!r}"
            raise UsageError(
                f"Loss {loss.key!r} compares outputs of {', '.join(loss.kinds)}. Received: {what}"
            )


def check_teacher(losses: Sequence[Any], kind: str, teacher: Any, student: Any, several: bool) -> None:
    """Raises `UsageError` where a loss would compare outputs of different sizes.

    Args:
        losses: ours, or Keras' own.
        kind: of the logits.
        teacher, student: symbolic outputs by name.
        several: whether the last axis of the teacher's logits is that of teachers.
    """
    compared = [loss for loss in losses if not isinstance(loss, Loss) or loss.of_outputs]
    named = [loss for loss in compared if getattr(loss, "student_layer_name", None)]
    if kind == "own" or len(named) == len(compared):
        return
    t, s = tuple(teacher["logits"].shape), tuple(student["logits"].shape)
    t = t[:-1] if several else t
    if len(t) != len(s) or any(a and b and a != b for a, b in zip(t, s, strict=True)):
        raise UsageError(
            f"Teacher and student need the same outputs. Received: {t} of the teacher, {s} of the student"
        )
