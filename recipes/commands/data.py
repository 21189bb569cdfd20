"""Images for pruning someone's own model, from a folder or tensorflow-datasets: train and holdout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from secateur.dataloader.sources.tfds_source import prepared
from secateur.recipes.commands.images import ImageData, Scaled
from secateur.runs.errors import DataError, UsageError
from secateur.runs.suggest import closest, nearest

HOLDOUT = 10  # one image of so many is held out; the others are trained on
MOST = 256  # held out of a class: a hundred classes of them give an accuracy to 0.3 %
LEAST = 2  # of a class: one to train on, one to hold out


Read = tuple[np.ndarray, np.ndarray, Sequence[str]]  # images uint8, labels int32, names of the classes


def load_images(
    source: str, model: keras.Model, pixels: tuple[float, float], data_path: str | None = None
) -> ImageData:
    """Reads `--data`.

    Args:
        source: a folder with a sub-folder of PNG or JPEG images for each class, in alphabetical order; or
            "tfds:NAME", "tfds:NAME/CONFIG" or either with ":VERSION", of which the train split is read.
        model: images are resized to its input.
        pixels: what 0 and 255 become.
        data_path: data_dir of tfds.

    The last tenth of each class, at least 1 image and at most 256, is the holdout. Raises `DataError` for
    images that are missing or damaged, and `UsageError` for a model that reads no images or has other
    classes.
    """
    shape = _input_shape(model)
    name = source.removeprefix("tfds:")
    read = _from_tfds(name, shape, data_path) if name != source else _from_folder(source, shape)
    images, labels, names = read
    counts = np.bincount(labels, minlength=len(names))
    _check_counts(counts, names, source)
    _check_classes(model, len(counts), source)
    held = np.zeros(len(labels), bool)
    for label, count in enumerate(counts):
        held[np.flatnonzero(labels == label)[-min(MOST, max(1, count // HOLDOUT)) :]] = True
    train, holdout = ((Scaled(images[part], pixels), labels[part]) for part in (~held, held))
    return ImageData(train, holdout, len(counts))


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


def _from_folder(folder: str, shape: tuple[int, int, int]) -> Read:
    if not Path(folder).is_dir():
        raise DataError(
            f"There is no such folder. Received: data={folder}\n"
            "give a folder with a sub-folder of images for each class, or tfds:NAME"
        )
    try:
        batches = keras.utils.image_dataset_from_directory(
            folder,
            image_size=shape[:2],
            color_mode="rgb" if shape[2] == 3 else "grayscale",
            shuffle=False,
            verbose=False,
        )
        return *_collected(batches.as_numpy_iterator()), batches.class_names
    except (ValueError, OSError, tf.errors.OpError) as error:
        raise DataError(
            f"The images cannot be read ({_first_line(error)}). Received: data={folder}\n"
            "give a folder with a sub-folder of images for each class"
        ) from error


def _from_tfds(name: str, shape: tuple[int, int, int], data_path: str | None) -> Read:
    _check_name(name)
    builder = prepared(name, name, data_path)
    to_colour = tf.image.grayscale_to_rgb if shape[2] == 3 else tf.image.rgb_to_grayscale

    def fitted(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = image if image.shape[-1] == shape[2] else to_colour(image)
        return tf.image.resize(image, shape[:2]), label

    try:
        rows = builder.as_dataset(split="train", as_supervised=True, shuffle_files=False)
        names = builder.info.features[builder.info.supervised_keys[1]].names
        return *_collected(rows.map(fitted).batch(64).as_numpy_iterator()), names
    except (ValueError, OSError, KeyError, TypeError, AttributeError, tf.errors.OpError) as error:
        raise DataError(
            f"{name} cannot be read ({_first_line(error)}). Received: data=tfds:{name}"
        ) from error


def _check_name(name: str) -> None:
    """Raises `DataError` for a NAME/CONFIG:VERSION whose name or configuration does not exist."""
    import tensorflow_datasets as tfds

    data, _, config = name.partition(":")[0].partition("/")
    if data not in (known := tfds.list_builders()):
        hint = closest(data, known)
        raise DataError(
            f"tensorflow-datasets knows no such data. Received: data=tfds:{name}"
            + (f". Did you mean {hint!r}?" if hint else "")
        )
    configs = list(tfds.builder_cls(data).builder_configs)
    if config and config not in configs:
        hint = nearest(config, configs) if configs else "It has none"
        raise DataError(f"This data has no such configuration. Received: data=tfds:{name}. {hint}")


def _collected(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(np.round(images).astype(np.uint8), labels.astype(np.int32)) for images, labels in batches]
    images, labels = zip(*pairs, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
