"""Training images in the memory of the accelerator: each step sends it their positions alone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur.dataloader import Images, parts_of
from secateur.op_utils import Batch, Preprocess, accelerated, use_xla

MOST_BYTES = 2**31
"""Of images that are kept there: CIFAR has 154 MB, Tiny-ImageNet 1.2 GB, small GPUs 8 GB."""


def fits_device(images: Images, compile_: bool | None) -> bool:
    """Whether they are to be kept on the device: on an accelerator, whose XLA gathers from any type."""
    held = getattr(images.images, "nbytes", None)  # what is `Stored` is in no memory
    return accelerated() and use_xla(compile_) and held is not None and held <= MOST_BYTES


def on_device(
    images: Images, preprocess: Preprocess, strategy: tf.distribute.Strategy
) -> tuple[Images, Preprocess]:
    """Copy images onto every device of the strategy, once.

    Returns:
        the same images with positions, int32 (n,), in place of pixels; and a `Preprocess` of batches of them,
        which gathers the pixels inside of the compiled step.
    """
    with strategy.scope():
        stored = keras.tree.map_structure(
            lambda pixels: tf.Variable(pixels, trainable=False), parts_of(images.images)
        )

    def gathered(batch: Batch, seed: tf.Tensor) -> Any:
        pixels = keras.tree.map_structure(lambda held: tf.gather(held, batch["images"]), stored)
        return preprocess({**batch, "images": pixels}, seed)

    return Images(np.arange(len(images), dtype=np.int32), images.labels, images.ids), gathered
