"""Fewer bits: what computes in them, and the factor on a loss whose gradients are of float16."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf


@contextlib.contextmanager
def computing_in(dtype: str, model: keras.Model) -> Iterator[None]:
    """`compute_in` for what is traced within; afterwards the layers are as they were."""
    before = [(layer, layer.dtype_policy) for layer in model._flatten_layers()]
    try:
        compute_in(dtype, model)
        yield
    finally:
        for layer, policy in before:
            layer.dtype_policy = policy


def compute_in(dtype: str, model: keras.Model) -> None:
    """Layers that compute in float32 do so in `dtype`, "mixed_bfloat16" or "mixed_float16".

    Weights stay float32. So do layers that do not cast what they read, as our batch normalisation, which
    takes maps of any type. Outputs may be of few bits: `Trainer` and `make_forward` cast them.
    """
    for layer in model._flatten_layers():
        plain = layer.autocast and layer.dtype_policy.name == "float32"
        if plain and not isinstance(layer, keras.Model):  # which would round the images
            layer.dtype_policy = dtype


def as_float32(outputs: Any) -> Any:
    """Numbers of fewer bits as float32, in their structure; integers and truth values as they are."""
    return keras.tree.map_structure(lambda y: tf.cast(y, tf.float32) if y.dtype.is_floating else y, outputs)


LARGEST_SCALE = 2.0**15
SOUND = 2000  # steps behind which the scale is doubled, as in Keras and PyTorch
OVERFLOWS = 17  # in a row that are too many: the scale has fallen from the largest to 1, and it is not enough


class LossScale:
    """The factor on a loss whose gradients are of float16 (Micikevicius et al. 2018, section 3.2).

    It is halved behind each step that is not sound, down to 1, and doubled behind `SOUND` sound ones.
    """

    def __init__(self) -> None:
        self.value = keras.Variable(LARGEST_SCALE, trainable=False, name="loss_scale")
        self.steady = keras.Variable(0, dtype="int32", trainable=False, name="sound_steps")

    def follow(self, sound: tf.Tensor) -> None:
        """Behind a step, outside of replicas."""
        steady = tf.where(sound, self.steady.value + 1, 0)
        factor = tf.where(steady == SOUND, 2.0, tf.where(sound, 1.0, 0.5))
        self.value.assign(tf.clip_by_value(self.value.value * factor, 1.0, LARGEST_SCALE))
        self.steady.assign(steady % SOUND)

    def state(self) -> list[keras.Variable]:
        return [self.value, self.steady]
