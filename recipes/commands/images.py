"""Images for pruning someone's own model: bytes in memory, numbers as the model reads them batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from secateur.dataloader.augment import augment

PARTS = 8  # of an image's smaller side; it is shifted by up to one of them


def spread(count: int, most: int) -> np.ndarray:
    """At most so many of the numbers 0 … count − 1, at equal distances."""
    return np.unique(np.linspace(0, count - 1, most).astype(int))


@dataclass(frozen=True)
class Scaled:
    """Images that look like an array of float32 in a range of pixels, and become one where they are sliced.

    Attributes:
        pixels: (n, h, w, c) uint8.
        range_: what 0 and 255 become.
    """

    pixels: np.ndarray
    range_: tuple[float, float]

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, h, w, c)."""
        return self.pixels.shape

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, part: slice | np.ndarray) -> np.ndarray:
        return self.scale(self.pixels[part]).numpy()

    def scale(self, images: np.ndarray | tf.Tensor) -> tf.Tensor:
        """Numbers in 0 … 255 → float32 in the range."""
        low, high = self.range_
        return tf.cast(images, tf.float32) * ((high - low) / 255) + low


@dataclass(frozen=True)
class ImageData:
    """Images (n, h, w, c) and labels (n,) int32. No test split is read."""

    train: tuple[Scaled, np.ndarray]
    holdout: tuple[Scaled, np.ndarray]
    classes: int

    def some(self, most: int, seed: int) -> tuple[Scaled, np.ndarray]:
        """At most so many training images, drawn at random."""
        images, labels = self.train
        chosen = np.random.default_rng(seed).permutation(len(labels))[:most]
        return Scaled(images.pixels[chosen], images.range_), labels[chosen]

    def some_held(self, most: int) -> tuple[Scaled, np.ndarray]:
        """At most so many images of the holdout, at equal distances: of all classes alike."""
        images, labels = self.holdout
        chosen = spread(len(labels), most)
        return Scaled(images.pixels[chosen], images.range_), labels[chosen]


class Batches(keras.utils.PyDataset):
    """The training images of one epoch, in its order, mirrored and shifted if asked to.

    Args:
        images, labels: n of both.
        batch_size: the last batch has what is left.
        epoch: from 0; another one is another order with other mirrors and shifts.
        flip, crop: whether half of the images are mirrored left to right, and whether all are shifted by up
            to an eighth of their smaller side, reflected at the border.
        seed: of order, mirrors and shifts.
    """

    def __init__(
        self, images: Scaled, labels: np.ndarray, batch_size: int, epoch: int = 0, *,
        flip: bool = False, crop: bool = False, seed: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self._images, self._labels, self._size = images, labels, batch_size
        self._flip, self._pad = flip, min(images.shape[1:3]) // PARTS if crop else 0
        self._seed, self._first = seed, epoch * len(self)
        self._order = np.random.default_rng((seed, epoch)).permutation(len(labels))

    def __len__(self) -> int:
        return -(-len(self._labels) // self._size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        part = self._order[index * self._size : (index + 1) * self._size]
        pixels = self._images.pixels[part]
        if self._flip or self._pad:
            seed = tf.constant([self._seed, self._first + index], tf.int32)
            pixels = augment(tf.constant(pixels), seed, pad=self._pad, flip=self._flip)
        return self._images.scale(pixels).numpy(), self._labels[part]
