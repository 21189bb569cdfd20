"""How good a network is: mean loss and accuracy of its logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from secateur.dataloader import Images
from secateur.distillation import cross_entropy


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy, and accuracy in [0, 1], of `count` images."""

    loss: float
    accuracy: float
    count: int


def score(forward: Callable[[np.ndarray, int], np.ndarray], images: Images, batch_size: int) -> Score:
    """Runs a forward function from `make_forward` over a split."""
    return score_logits(forward(images.images, batch_size), images.labels)


def score_logits(logits: np.ndarray, labels: np.ndarray) -> Score:
    """Loss and accuracy of logits (n, classes) against labels (n,)."""
    loss = float(tf.reduce_mean(cross_entropy(labels, logits)))
    return Score(loss, float(np.mean(logits.argmax(1) == labels)), len(labels))


def ensemble_accuracy(members: Sequence[np.ndarray], labels: np.ndarray) -> float:
    """Accuracy in [0, 1] of the sum of probabilities; `members` are logits (n, classes) by network."""
    total = sum(_softmax(logits) for logits in members)
    return float(np.mean(total.argmax(1) == labels))


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)
