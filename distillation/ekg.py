"""EKG's filter (Lee & Song 2022): the teachers of the bank that know more than the student."""

from __future__ import annotations

import tensorflow as tf

from secateur.distillation.basics import divergence, side_by_side


def kept_teachers(
    bank: tf.Tensor, student: tf.Tensor, temperature: float, kind: str = "classes"
) -> tf.Tensor:
    """EKG's filter, per batch: teacher k stays while it is nearer to teacher 0 than the student is.

    bank (b, classes, K), student (b, classes) → float mask (K,). Teacher 0 always stays. With several
    replicas or micro-batches each of them filters on its own. `kind`: see `basics.divergence`.
    """
    bank = side_by_side(bank)
    best = bank[:, :1]
    distance = tf.reduce_sum(divergence(best, bank, temperature, kind), 0)
    of_student = tf.reduce_sum(divergence(best, student[:, None], temperature, kind))
    kept = tf.cast(distance < of_student, tf.float32)
    return tf.stop_gradient(tf.maximum(kept, tf.one_hot(0, bank.shape[1])))
