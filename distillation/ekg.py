"""EKG's fine-tuning (Lee & Song 2022): two views, and the teachers of the bank that know more."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from secateur.distillation.basics import accuracy, cross_entropy, kl_divergence, mean_of, temperature_for


def two_view_knowledge(logits: tf.Tensor, batch: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """EKG's fine-tuning loss (Lee & Song 2022): ½ Σ_views [CE(y, z) + T·KL(M̄ ‖ z)].

    Args:
        logits: (2b, classes), the first view of all images, then the second.
        batch: "labels" (b,) and "bank" (b, classes, teachers), teacher 0 being the one with the lowest loss.

    Returns mean loss over the batch, and accuracy over both views.
    """
    bank, temperature = batch["bank"], temperature_for(logits.shape[-1])
    views = tf.stack(tf.split(logits, 2))
    kept = kept_teachers(bank, tf.reduce_mean(views, 0), temperature)
    target = mean_of(bank, kept / tf.reduce_sum(kept), "logits", temperature)
    labels = tf.concat([batch["labels"]] * 2, 0)
    knowledge = temperature * kl_divergence(target[None], views, temperature)
    loss = tf.reduce_mean(cross_entropy(labels, logits)) + tf.reduce_mean(knowledge)
    return loss, accuracy(logits, labels)


def kept_teachers(bank: tf.Tensor, student: tf.Tensor, temperature: float) -> tf.Tensor:
    """EKG's filter, per batch: teacher k stays while it is nearer to teacher 0 than the student is.

    bank (b, classes, K), student (b, classes) → float mask (K,). Teacher 0 always stays. With several
    replicas or micro-batches each of them filters on its own.
    """
    best = bank[..., :1]
    distance = tf.reduce_sum(kl_divergence(_classes_last(best), _classes_last(bank), temperature), 0)
    of_student = tf.reduce_sum(kl_divergence(best[..., 0], student, temperature))
    kept = tf.cast(distance < of_student, tf.float32)
    return tf.stop_gradient(tf.maximum(kept, tf.one_hot(0, bank.shape[-1])))


def _classes_last(bank: tf.Tensor) -> tf.Tensor:
    return tf.transpose(bank, [0, 2, 1])
