"""What a teacher and a student say, made up: inputs for every registered loss, whatever it reads."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import tensorflow as tf

from secateur.distillation import Loss

BATCH, SIDE, CHANNELS = 6, 4, 5
CLASSES = SIDE * SIDE  # so that logits can be the energy of a map


def said(seed: int, channels: int = CHANNELS, blocks: int = 4, batch: int = BATCH) -> dict:
    """{name of `READS`: float32 values} of a network on random images; maps are as after ReLU."""
    rng = np.random.default_rng(seed)

    def map_of(side: int, depth: int) -> tf.Tensor:
        return tf.constant(np.maximum(rng.normal(0.3, 1, size=(batch, side, side, depth)), 0), tf.float32)

    stages = [map_of(SIDE * 4 >> i, channels << i) for i in range(3)]
    return {
        "logits": tf.constant(rng.normal(size=(batch, CLASSES)) * 3, tf.float32),
        "stages": stages,
        "blocks": [map_of(SIDE, channels) for _ in range(blocks)],
        "pooled": tf.reduce_mean(stages[-1], [1, 2]),
    }


def one_voice(seed: int) -> dict:
    """A network whose stages, blocks and logits all say the same of an image, the energy of one map."""
    last = said(seed)["blocks"][-1]
    energy = tf.math.l2_normalize(tf.reshape(tf.reduce_mean(last**2, -1), [BATCH, -1]), -1)
    return {
        "logits": energy,
        "stages": [last] * 3,
        "blocks": [last] * 4,
        "pooled": tf.reduce_mean(last, [1, 2]),
    }


def labels(seed: int = 0, batch: int = BATCH) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).integers(0, CLASSES, batch), tf.int32)


def wants_labels(loss: Loss) -> bool:
    return "labels" in inspect.signature(loss.compare).parameters


def build_from(loss: Loss, teacher: dict, student: dict, targets: tf.Tensor | None = None) -> Loss:
    """Makes the loss' own weights, where it has any, and hands it back."""
    loss.compute_loss(teacher, student, labels() if targets is None else targets)
    return loss


def network(reads: str, seed: int) -> keras.Model:
    """A functional model of 8×8 images whose output is what a loss reads, in names if that is "all"."""
    keras.utils.set_random_seed(seed)
    x = image = keras.Input((8, 8, 3))
    maps = []
    for stage, filters in enumerate((4, 4, 8, 8)):
        x = keras.layers.Conv2D(filters, 3, 1 + (stage == 2), "same", activation="relu")(x)
        maps.append(x)
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    everything = {"logits": keras.layers.Dense(3, name="logits")(pooled), "pooled": pooled}
    everything |= {"stages": maps[1::2], "blocks": maps}
    return keras.Model(image, everything if reads == "all" else everything[reads])
