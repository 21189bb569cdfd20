"""What all losses are made of: pure functions of logits that compile under XLA."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """−log softmax(z)[y] per sample. labels (b,) integers, logits (b, classes) → (b,)."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, tf.float32))


def kl_divergence(teacher: tf.Tensor, student: tf.Tensor, temperature: float) -> tf.Tensor:
    """KL(σ_T(teacher) ‖ σ_T(student)) per sample, from logits (…, classes) → (…,). No factor of T."""
    p, q = tf.nn.log_softmax(teacher / temperature), tf.nn.log_softmax(student / temperature)
    return tf.reduce_sum(tf.exp(p) * (p - q), -1)


def bernoulli_divergence(teacher: tf.Tensor, student: tf.Tensor, temperature: float) -> tf.Tensor:
    """Σ over the last axis of KL(Bernoulli(σ(teacher/T)) ‖ Bernoulli(σ(student/T))), (…, labels) → (…,)."""
    t, s = teacher / temperature, student / temperature
    p = tf.sigmoid(t)
    on = tf.math.log_sigmoid(t) - tf.math.log_sigmoid(s)
    off = tf.math.log_sigmoid(-t) - tf.math.log_sigmoid(-s)
    return tf.reduce_sum(p * on + (1 - p) * off, -1)


def teachers_first(teachers: tf.Tensor) -> tf.Tensor:
    """What several teachers say, (b, …, teachers) → (b, teachers, …)."""
    last = len(teachers.shape) - 1
    return tf.transpose(teachers, [0, last, *range(1, last)])


def divergence(
    teacher: tf.Tensor, student: tf.Tensor, temperature: float, kind: str = "classes"
) -> tf.Tensor:
    """How far the student is from the teacher on each image, (b, k, …) → (b, k); either k may be 1.

    "classes": KL at the temperature; "maps": its mean over the positions; "labels": the sum of the KL of each
    sigmoid; "numbers": the mean squared difference, without a temperature.
    """
    if kind == "numbers":
        each = tf.square(teacher - student)
    else:
        each = (bernoulli_divergence if kind == "labels" else kl_divergence)(teacher, student, temperature)
    return tf.reduce_mean(each, [*range(2, len(each.shape))]) if len(each.shape) > 2 else each


MEANS = ("logits", "softmax", "tempered")
"""What `mean_of` can average."""


def mean_of(logits: tf.Tensor, shares: tf.Tensor, how: str, temperature: float) -> tf.Tensor:
    """Weighted mean of what several teachers say, as logits (b, classes).

    Args:
        logits: (b, classes, teachers); with more axes between where the mean is of "logits".
        shares: (teachers,) or (b, teachers), not below 0, of sum 1.
        how: mean of their "logits" (EKG), of "softmax" (then softmax(result) is the mean), or of "tempered"
            ones (then softmax(result / temperature) is).
    """
    for _ in range(len(logits.shape) - 2):
        shares = shares[..., None, :]
    if how == "logits":
        return tf.reduce_sum(logits * shares, -1)
    scale = temperature if how == "tempered" else 1.0
    log_p = tf.nn.log_softmax(logits / scale, axis=1)
    return scale * tf.reduce_logsumexp(log_p + tf.math.log(shares), -1)


def temperature_for(num_classes: int) -> float:
    """EKG's temperature: 4, and 10 from a thousand classes on."""
    return 4.0 if num_classes < 1000 else 10.0


def labels_only(logits: tf.Tensor, batch: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Plain training: mean cross-entropy and accuracy of a batch with "labels"."""
    return tf.reduce_mean(cross_entropy(batch["labels"], logits)), accuracy(logits, batch["labels"])


def accuracy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Share of the rows (b, classes) whose largest logit is that of the label (b,)."""
    hits = tf.equal(tf.argmax(logits, -1, output_type=tf.int32), tf.cast(labels, tf.int32))
    return tf.reduce_mean(tf.cast(hits, tf.float32))
