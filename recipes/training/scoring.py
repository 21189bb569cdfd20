"""How good a network is: mean loss and accuracy of its logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur.dataloader import Images, parts_of
from secateur.distillation import cross_entropy
from secateur.nets.task import Task


@dataclass(frozen=True)
class Score:
    """Mean loss, accuracy in [0, 1] or what else the task counts (None without labels), number of images."""

    loss: float | None
    accuracy: float | None
    count: int


def score(
    forward: Callable[[np.ndarray, int], np.ndarray],
    images: Images,
    batch_size: int,
    task: Task | None = None,
) -> Score:
    """Runs a forward function from `make_forward` over a split."""
    return score_logits(forward(images.images, batch_size), images.labels, task)


def score_logits(logits: Any, labels: Any, task: Task | None = None) -> Score:
    """Loss and accuracy of logits (n, classes) against labels (n,), or what another task says of them."""
    labels = parts_of(labels)
    if task:
        return Score(
            float(task.loss(labels, logits)), task.score(labels, logits), len(keras.tree.flatten(labels)[0])
        )
    loss = float(tf.reduce_mean(cross_entropy(labels, logits)))
    return Score(loss, float(np.mean(logits.argmax(1) == labels)), len(labels))


def ensemble_accuracy(members: Sequence[Any], labels: Any, task: Task | None = None) -> float:
    """Accuracy in [0, 1] of the sum of probabilities; `members` are logits (n, classes) by network.

    Of another task than classes it is that of the mean output.
    """
    if task and (task.kind not in ("classes", "maps") or task.two):
        mean = keras.tree.map_structure(lambda *outputs: np.mean(outputs, 0), *members)
        return task.score(parts_of(labels), mean)
    total = sum(_softmax(logits) for logits in members)
    return float(np.mean(total.argmax(-1) == labels))


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
