"""What EKG's search minimises: how wrong outputs are, and how far they are from the teacher's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur.nets.task import Task
from secateur.runs.errors import UsageError
from secateur.runs.suggest import require

Losses = Callable[[Any, Any], tf.Tensor]
"""(labels or the teacher's outputs, outputs) → (n,)"""


@dataclass(frozen=True)
class Reward:
    """How the outputs of a candidate are judged: `reward(labels, teacher, outputs)` → (n,), smaller = better.

    Attributes:
        losses: (labels, outputs) → (n,). Of several outputs both have the structure of the model's.
        knowledge: (outputs of the teacher, outputs) → (n,), weighted as much.
        metric: (labels, outputs) of all images, arrays → a number, larger = better; None: −mean loss.
        logits: whether the outputs must be logits.
    """

    losses: Losses
    knowledge: Losses
    metric: Callable[[Any, Any], float] | None = None
    logits: bool = False

    @classmethod
    def of(cls, kind: str, losses: Losses | None = None) -> Reward:
        """The reward of a kind of outputs, of several outputs the sum.

        Args:
            kind: "classes": one of several, logits (n, classes), labels integers (n,). The losses are
                CE(y, z) + CE(softmax(T̄), z) at temperature 1 (EKG, Lee & Song 2022).
                "maps": the same for each position, logits (n, h, w, classes).
                "labels": binary cross-entropy of each logit (n, labels), with the teacher's sigmoid.
                "numbers": mean squared distance (n, numbers).
                "own": whatever `losses` reads; the teacher counts as in "numbers".
            losses: (labels, outputs) → (n,) in place of the kind's.

        Raises `UsageError` for an unknown kind, and for "own" without losses.
        """
        require(kind, KINDS, "kind")
        if losses:
            return replace(KINDS[kind], losses=losses)
        if kind == "own":
            raise UsageError("Give losses, a function of labels and outputs → (n,). Received: kind='own'")
        return KINDS[kind]

    @classmethod
    def of_task(cls, task: Task | None) -> Reward:
        """The reward of what a model is for, with its loss; None: EKG's, of a classifier of logits."""
        if task is None:
            return KINDS["classes"]
        return replace(KINDS[task.kind], losses=task.losses, metric=task.score)

    def __call__(self, labels: Any, teacher: Any, outputs: Any) -> tf.Tensor:
        return self.losses(labels, outputs) + self.knowledge(teacher, outputs)


def _each(function: Callable) -> Callable:
    """Sums what a function of one output says of several."""

    def summed(these: Any, outputs: Any) -> Any:
        pairs = zip(keras.tree.flatten(these), keras.tree.flatten(outputs), strict=True)
        return reduce(add, (function(*pair) for pair in pairs))

    return summed


def _choice(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Of one class; a single logit tells two classes apart."""
    if logits.shape[-1] == 1:
        return _decisions(labels, logits)
    return _mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


def _soft_choice(teacher: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    if logits.shape[-1] == 1:
        return _soft_decisions(teacher, logits)
    return _mean(tf.nn.softmax_cross_entropy_with_logits(tf.nn.softmax(teacher), logits))


def _decisions(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    labels = tf.reshape(tf.cast(labels, logits.dtype), tf.shape(logits))
    return _mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits))


def _soft_decisions(teacher: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return _decisions(tf.nn.sigmoid(teacher), logits)


def _distance(numbers: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    numbers = tf.reshape(tf.cast(numbers, outputs.dtype), tf.shape(outputs))
    return _mean(tf.math.squared_difference(numbers, outputs))


def _mean(losses: tf.Tensor) -> tf.Tensor:
    """Over all axes but the batch."""
    return losses if losses.shape.rank == 1 else tf.reduce_mean(losses, list(range(1, losses.shape.rank)))


def _right_choice(labels: np.ndarray, logits: np.ndarray) -> float:
    if logits.shape[-1] == 1:
        return _right_decisions(labels, logits)
    return np.mean(logits.argmax(-1) == labels)


def _right_decisions(labels: np.ndarray, logits: np.ndarray) -> float:
    return np.mean((logits > 0) == (np.reshape(labels, logits.shape) > 0.5))


def _share(right: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[Any, Any], float]:
    """Of right decisions, in [0, 1]; the mean of several outputs."""
    return lambda labels, outputs: float(_each(right)(labels, outputs) / len(keras.tree.flatten(outputs)))


_CLASSES = Reward(_each(_choice), _each(_soft_choice), _share(_right_choice), logits=True)
KINDS = {
    "classes": _CLASSES,
    "maps": _CLASSES,
    "labels": Reward(_each(_decisions), _each(_soft_decisions), _share(_right_decisions), logits=True),
    "numbers": Reward(_each(_distance), _each(_distance)),
    "own": Reward(_each(_distance), _each(_distance)),
}
