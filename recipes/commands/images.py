"""Images for a model of one's own: bytes in memory, numbers as the model reads them where they are sliced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from secateur.dataloader import Images
from secateur.dataloader.sources import folders, tfds
from secateur.dataloader.splits import equidistant
from secateur.recipes.commands.options import RANGES_OF_PIXELS, ImageOptions
from secateur.runs.errors import DataError, UsageError

HOLDOUT = 10  # one image of so many is held out; the others are trained on
MOST = 256  # held out of a class: a hundred classes of them give an accuracy to 0.3 %
LEAST = 2  # of a class: one to train on, one to hold out


@dataclass(frozen=True)
class Scaled:
    """Images that look like an array of float32 in a range of pixels, and become one where they are sliced.

    Attributes:
        pixels: (n, h, w, c) uint8.
        range_: what 0 and 255 become: numbers, or one for each channel.
    """

    pixels: np.ndarray
    range_: tuple[float | np.ndarray, float | np.ndarray]

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
        return _chosen(images, labels, np.random.default_rng(seed).permutation(len(labels))[:most])

    def some_held(self, most: int) -> tuple[Scaled, np.ndarray]:
        """At most so many images of the holdout, at equal distances: of all classes alike."""
        images, labels = self.holdout
        return _chosen(images, labels, equidistant(len(labels), most))


def load_images(options: ImageOptions, model: keras.Model) -> ImageData:
    """Reads `--data`, in the size and the colours of the model's input.

    That is a folder with a sub-folder of images for each class, or with such a folder `train`; or the train
    split of "tfds:NAME", "tfds:NAME/CONFIG" or either with ":VERSION".

    The last tenth of each class, at least 1 image and at most 256, is the holdout. Raises `DataError` for
    images that are missing or damaged, and `UsageError` for a model that reads no images or has other
    classes.
    """
    source, pixels = options.data, RANGES_OF_PIXELS[options.pixels]
    images, names = _read(source, _input_shape(model), options.data_path)
    counts = np.bincount(images.labels, minlength=len(names))
    _check_counts(counts, names, source)
    _check_classes(model, len(counts), source)
    held = np.zeros(len(images), bool)
    for label, count in enumerate(counts):
        held[np.flatnonzero(images.labels == label)[-min(MOST, max(1, count // HOLDOUT)) :]] = True
    whole = Scaled(images.images, pixels)
    train, holdout = (_chosen(whole, images.labels, part) for part in (~held, held))
    return ImageData(train, holdout, len(counts))


def _read(source: str, shape: tuple[int, int, int], data_path: str | None) -> tuple[Images, Sequence[str]]:
    """All images of the source, in its order, and the names of the classes."""
    name = source.removeprefix("tfds:")
    if name != source:
        try:
            classes, _ = tfds.inspect(name, data_path)
        except UsageError as error:  # in `--data`, what is not there is code 3, wherever it is not
            raise DataError(str(error)) from error
        return tfds.read(name, "train", data_path, shape=shape, tests=("train",)), classes
    if not Path(source).is_dir():
        raise DataError(
            f"There is no such folder. Received: data={source}\n"
            "give a folder with a sub-folder of images for each class, or tfds:NAME"
        )
    classes, _ = folders.inspect(source, folders.whole_layout, shape, source)
    return folders.read(source, folders.whole_layout, "train", source, shape=shape), classes


def _chosen(images: Scaled, labels: np.ndarray, part: np.ndarray) -> tuple[Scaled, np.ndarray]:
    return Scaled(images.pixels[part], images.range_), labels[part]


def _check_counts(counts: np.ndarray, names: Sequence[str], source: str) -> None:
    if len(names) < 2:
        raise DataError(f"At least 2 classes are needed. Received: data={source}, classes {list(names)}")
    if len(few := np.flatnonzero(counts < LEAST)):
        more = f" and too few of {len(few) - 1} more" if len(few) > 1 else ""
        raise DataError(
            f"Every class needs at least {LEAST} images. Received: data={source}, {counts[few[0]]} of class "
            f"{names[few[0]]!r}{more}"
        )


def _input_shape(model: keras.Model) -> tuple[int, int, int]:
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][2] not in (1, 3) or None in shapes[0]:
        raise UsageError(f"--data needs a model that reads images of a fixed size. Received: inputs {shapes}")
    return shapes[0]


def _check_classes(model: keras.Model, classes: int, source: str) -> None:
    shapes = [tuple(tensor.shape[1:]) for tensor in model.outputs]
    fits = len(shapes) == 1 and (shapes[0] == (classes,) or (shapes[0] == (1,) and classes == 2))
    if not fits:
        raise UsageError(
            f"The model has outputs {shapes}, the data {classes} classes: give the data that it was trained "
            f"on. Received: data={source}"
        )
