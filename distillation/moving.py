"""Losses that change kernels: computing with what they make of the student's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from secateur.distillation.loss import Loss
from secateur.distillation.pairing import convolutions, partners
from secateur.runs.errors import UsageError

Kernels = list[tuple[keras.Variable, tf.Tensor]]  # a variable and the value that stands in for its own


def acting(layer: keras.layers.Layer) -> tf.Tensor:
    """A convolution's kernel (h, w, in, filters), float32; filters that are switched off are zero."""
    return tf.cast(layer.kernel.value, tf.float32) * _mask(layer)


def call_with(model: keras.Model, kernels: Kernels, inputs: Any, training: bool | None = None) -> Any:
    """What a model says while some of its variables have other values; they keep their own.

    Gradients flow into the values. What the model updates on the way, such as averages, it updates as ever,
    also within a `keras.StatelessScope`.
    """
    if not kernels:
        return model(inputs, training=training)
    # A scope does not see what the one around it says of a variable, so this one is told of all.
    values = [(variable, variable.value) for variable in model.variables]
    with keras.StatelessScope([*values, *kernels]) as scope:
        before = dict(scope.state_mapping)
        outputs = model(inputs, training=training)
    for variable in model.variables:
        value = scope.get_current_value(variable)
        if value is not before[id(variable)]:
            variable.assign(value)
    return outputs


class Changes:
    """What losses with `moves_kernels` make of a student's convolutions.

    Args:
        losses: (loss, weight) pairs; each changes what the one before it returns, by its weight.
        student: its convolutions that train are changed.
        teacher: convolutions to learn from, see `partners`.

    Raises `UsageError` where there is a loss and one side has no convolution.
    """

    def __init__(
        self, losses: Sequence[tuple[Loss, float]], student: keras.Model, teacher: Sequence[Any]
    ) -> None:
        self.losses = list(losses)
        if not losses:
            return
        self.student = [layer for layer in convolutions(student) if layer.kernel.trainable]
        if not (self.student and teacher):
            raise UsageError(
                f"Loss {losses[0][0].key!r} moves kernels of convolutions towards a live teacher's. "
                f"Received: {len(self.student)} that train, {len(teacher)} of the teacher"
            )
        sizes = [[layer.kernel.shape[:2] for layer in side] for side in (self.student, teacher)]
        self.teacher = [teacher[i] for i in partners(*sizes)]
        shapes = [[tuple(layer.kernel.shape) for layer in side] for side in (self.student, self.teacher)]
        for loss in [loss for loss, _ in self.losses if not loss.built]:
            loss.build(*shapes)

    def kernels(self) -> Kernels:
        """The student's kernels as they are to be now; [] without losses. Filters that are off stay zero."""
        if not self.losses:
            return []
        changed, taught = [acting(layer) for layer in self.student], [acting(layer) for layer in self.teacher]
        for loss, weight in self.losses:
            changed = loss.adapt(changed, taught, weight)
        return [(s.kernel, k * _mask(s)) for s, k in zip(self.student, changed, strict=True)]

    def settle(self) -> None:
        """Writes the changed kernels into the student, which needs no loss from then on."""
        for variable, value in self.kernels():
            variable.assign(value)
        self.losses = []


class Changed(keras.Model):
    """A student as it acts while `Changes` are under way: images (b, h, w, c) → what the student returns."""

    def __init__(self, student: keras.Model, changes: Changes) -> None:
        super().__init__(name=f"{student.name}_changed", dtype="float32")
        self.student, self.changes = student, changes
        self.built = True

    def call(self, images: tf.Tensor, training: bool | None = None) -> Any:
        """The student's output with the changed kernels."""
        return call_with(self.student, self.changes.kernels(), images, training)


def _mask(layer: keras.layers.Layer) -> tf.Tensor | float:
    mask = getattr(layer, "mask", None)
    return 1.0 if mask is None else tf.cast(mask.value, tf.float32)
