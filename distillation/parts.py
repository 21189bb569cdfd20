"""Trainable parts that a loss owns."""

from __future__ import annotations

import tensorflow as tf

from secateur.nets.layers import FusedBatchNorm


class OwnBatchNorm(FusedBatchNorm):
    """Batch normalisation over the last axis, of (b, c) or (b, h, w, c), inside a loss.

    A model's call around the loss decides whether the batch's statistics are used and averaged. A loss
    outside of any is training: in `keras.distillation.Distiller`, and in `stateless_call`, which runs a
    model's `call` without what Keras knows of calls around a layer.
    """

    def call(self, inputs: tf.Tensor, training: bool = True) -> tf.Tensor:
        """Normalised inputs, of their shape. The averages move in training."""
        if len(inputs.shape) == 4:
            return super().call(inputs, training)
        outputs = super().call(inputs[:, None, None], training)  # the fused kernel takes maps
        return tf.reshape(outputs, tf.shape(inputs))
