"""What EKG's search minimises: how wrong outputs are, and how far they are from the teacher's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur.nets.losses import CROSS_ENTROPY, LossSpec
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
        require(kind, LOSSES, "kind")
        if kind == "own" and losses is None:
            raise UsageError("Give losses, a function of labels and outputs → (n,). Received: kind='own'")
        shares = kind in SHARES_OF_KIND
        metric = partial(_right, kind) if shares else None
        return cls(losses or partial(_losses, kind), partial(_knowledge, kind), metric, shares)

    @classmethod
    def of_task(cls, task: Task | None) -> Reward:
        """The reward of what a model is for, with its loss; None: EKG's, of a classifier of logits."""
        if task is None:
            return cls.of("classes")
        return replace(cls.of(task.kind, task.losses), metric=task.score)

    def __call__(self, labels: Any, teacher: Any, outputs: Any) -> tf.Tensor:
        return self.losses(labels, outputs) + self.knowledge(teacher, outputs)


LOSSES = {
    "classes": LossSpec("categorical", CROSS_ENTROPY),
    "maps": LossSpec("categorical", CROSS_ENTROPY),
    "labels": LossSpec.of("binary_crossentropy"),
    "numbers": LossSpec.of("mse"),
    "own": LossSpec.of("mse"),
}
"""Kind of outputs → the loss of logits, or of numbers, that EKG's is for it."""
SHARES_OF_KIND = {"classes": tf.nn.softmax, "maps": tf.nn.softmax, "labels": tf.sigmoid}


def _each(kind: str, these: Any, outputs: Any) -> Iterator[tuple[Task, Any, Any]]:
    """What each output is for, what it is compared with, and it."""
    for y, z in zip(keras.tree.flatten(these), keras.tree.flatten(outputs), strict=True):
        if len(z.shape) == 1:  # a number of each image
            y, z = y[:, None], z[:, None]
        yield Task("numbers" if kind == "own" else kind, False, z.shape[-1], LOSSES[kind]), y, z


def _losses(kind: str, labels: Any, outputs: Any) -> tf.Tensor:
    return sum(task.losses(y, z) for task, y, z in _each(kind, labels, outputs))


def _knowledge(kind: str, teacher: Any, outputs: Any) -> tf.Tensor:
    """The same losses with the teacher's shares as labels."""
    return sum(
        task.losses(tf.sigmoid(y) if task.two else SHARES_OF_KIND.get(kind, tf.identity)(y), z)
        for task, y, z in _each(kind, teacher, outputs)
    )


def _right(kind: str, labels: Any, outputs: Any) -> float:
    return float(np.mean([task.score(y, z) for task, y, z in _each(kind, labels, outputs)]))
