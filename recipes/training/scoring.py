"""How good a network is: mean loss and accuracy of its logits, of pieces of a split where it is large."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax

from secateur.dataloader import Images, parts_of
from secateur.dataloader.batches import piece_edges
from secateur.distillation import cross_entropy
from secateur.nets.task import Task

AT_ONCE = 2**14
"""Images whose logits are in memory: of 1000 classes 66 MB."""
MANY, BEST = 100, 5
"""Of so many classes a label among the best five counts, too, as ImageNet is reported."""


@dataclass(frozen=True)
class Score:
    """Mean loss, accuracy in [0, 1] or what else the task counts (None without labels), number of images.

    `top5` is the share of images whose label is among the five best classes; None of fewer than 100 classes.
    """

    loss: float | None
    accuracy: float | None
    count: int
    top5: float | None = None


def score(
    forward: Callable[[np.ndarray, int], np.ndarray],
    images: Images,
    batch_size: int,
    task: Task | None = None,
) -> Score:
    """Runs a forward function from `make_forward` over a split."""
    pieces = pieces_of(images, batch_size, task)
    return mean_of([score_logits(forward(one.images, batch_size), one.labels, task) for one in pieces])


def pieces_of(images: Images, batch_size: int, task: Task | None = None) -> Iterator[Images]:
    """Whole batches of a split whose logits fit in memory; all of it where a task is scored as a whole."""
    by_image = task is None or task.by_image
    edges = piece_edges(len(images), AT_ONCE if by_image else max(1, len(images)), batch_size)
    if len(edges) < 3:
        yield images
    else:
        yield from (images.take(np.arange(*edge)) for edge in itertools.pairwise(edges))


def mean_of(scores: Sequence[Score]) -> Score:
    """The score of all images, from those of pieces of them."""
    first, *others = scores
    if not others:
        return first
    counts = [one.count for one in scores]

    def mean(name: str) -> float | None:
        values = [getattr(one, name) for one in scores]
        return None if None in values else float(np.average(values, weights=counts))

    return Score(mean("loss"), mean("accuracy"), sum(counts), mean("top5"))


def score_logits(logits: Any, labels: Any, task: Task | None = None) -> Score:
    """Loss and accuracy of logits (n, classes) against labels (n,), or what another task says of them."""
    labels = parts_of(labels)
    if task:
        loss, count = float(task.loss(labels, logits)), len(keras.tree.flatten(labels)[0])
        found = top5(logits, labels) if task.kind == "classes" else None
        return Score(loss, task.score(labels, logits), count, found)
    loss = float(tf.reduce_mean(cross_entropy(labels, logits)))
    return Score(loss, float(np.mean(logits.argmax(1) == labels)), len(labels), top5(logits, labels))


def top5(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """Share of images whose label is among the five best; None of few classes or other labels."""
    if logits.shape[-1] < MANY or labels.ndim > 1:
        return None
    own = np.take_along_axis(logits, labels[:, None], 1)
    return float(np.mean(np.sum(logits > own, 1) < BEST))


def ensemble_accuracy(members: Sequence[Any], labels: Any, task: Task | None = None) -> float:
    """Accuracy in [0, 1] of the sum of probabilities; `members` are logits (n, classes) by network.

    Of another task than classes it is that of the mean output.
    """
    if task and (task.kind not in ("classes", "maps") or task.two):
        mean = keras.tree.map_structure(lambda *outputs: np.mean(outputs, 0), *members)
        return task.score(parts_of(labels), mean)
    total = sum(softmax(logits, -1) for logits in members)
    return float(np.mean(total.argmax(-1) == labels))
