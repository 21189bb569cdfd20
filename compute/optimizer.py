"""A rule on Keras' variables."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from secateur.compute.gradients import Tensors
from secateur.compute.rules import RULES


class Optimizer(keras.optimizers.Optimizer):
    """A rule of `RULES` on Keras' variables, which reduces over replicas and keeps them alike.

    Rate and momentum are variables: setting them before a step retraces nothing. So is `sound`, where steps
    may be left out: such a step leaves weights, slots and the count of steps as they are.
    """

    def __init__(self, name: str, momentum: float, skips: bool = False) -> None:
        super().__init__(learning_rate=0.0)
        self.rule = RULES.find(name)
        self.momentum = keras.Variable(momentum, trainable=False, name="momentum")
        known = {"dtype": "bool", "trainable": False, "aggregation": "only_first_replica", "name": "sound"}
        self.sound = keras.Variable(True, **known) if skips else None  # the same in all replicas
        self.slots: list[list[keras.Variable]] = []

    def build(self, variables: list[keras.Variable]) -> None:
        """Makes the slots of every weight."""
        super().build(variables)
        self.slots = [self.add_optimizer_variables(variables, slot) for slot in self.rule.slots]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Moves one weight; Keras calls it."""
        slots = [slot[self._get_variable_index(variable)] for slot in self.slots]
        step = keras.ops.cast(self.iterations + 1, "float32")
        values = tuple(slot.value for slot in slots)
        rate, momentum = (keras.ops.cast(x, variable.dtype) for x in (learning_rate, self.momentum))
        change, new = self.rule.update(values, gradient, rate, momentum, step)
        for slot, value in zip(slots, new, strict=True):
            self.assign(slot, self.if_sound(value, slot))
        self.assign_add(variable, self.if_sound(change, -0.0))  # x + −0 is x, of either zero, too

    def apply(self, grads: Tensors, trainable_variables: list[keras.Variable] | None = None) -> None:
        """A step of all weights, which is counted unless it is left out."""
        super().apply(grads, trainable_variables)
        if self.sound is not None:
            self._iterations.assign_sub(keras.ops.cast(~self.sound.value, "int"))

    def if_sound(self, value: tf.Tensor, otherwise: Any) -> tf.Tensor:
        """`value`, or what stands in its place in a step that is left out."""
        return value if self.sound is None else keras.ops.where(self.sound, value, otherwise)

    def state(self) -> list[keras.Variable]:
        """What the next step depends on. Rate and momentum are not in it: every step sets them."""
        steps = [self._iterations] if self.rule.counts else []
        return [variable for slot in self.slots for variable in slot] + steps
