"""Any data set of tensorflow-datasets whose rows have an image and a label."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from secateur.dataloader.sources.decoding import Shape, check_memory, fitted
from secateur.dataloader.sources.folders import random_fifth
from secateur.dataloader.sources.tfds_source import (
    _damaged,
    _open,
    _with_progress,
    official_numbers,
    prepared,
)
from secateur.dataloader.splits import Images
from secateur.runs.errors import DataError, UsageError
from secateur.runs.suggest import closest

SIDE = 224
"""Side of the images where those of a data set differ in size."""

_TESTS = ("test", "validation", "valid", "val")
_CHUNK = 256


def inspect(tfds_name: str, data_path: str | None, download: bool = True) -> tuple[int, Shape]:
    """Return the classes and the shape of the builder's info; (224, 224, 3) where that leaves it open.

    Args:
        tfds_name: NAME, NAME/CONFIG, NAME:VERSION or NAME/CONFIG:VERSION.
        data_path: a tfds `data_dir`; None = the library's default.
        download: has no effect; the info comes with the library, or with the prepared files.

    Raises `UsageError` for an unknown name, `DataError` for rows without an image and one label.
    """
    _check_name(tfds_name, data_path)
    builder = _open(tfds_name, tfds_name, data_path and str(Path(data_path).expanduser()))
    image, label = features_of(builder)
    height, width = builder.info.features[image].shape[:2]
    shape = (height or SIDE, width or SIDE, 3)
    return builder.info.features[label].num_classes, shape


def features_of(builder) -> tuple[str, str]:
    """Return the names of the image (uint8) and of the label: the supervised keys, or "image" and "label"."""
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items())
    names = builder.info.supervised_keys or ("image", "label")
    kinds = tfds.features.Image, tfds.features.ClassLabel
    given = [features.get(name) for name in names] if len(names) == 2 else []
    fits = len(given) == 2 and all(map(isinstance, given, kinds)) and given[0].np_dtype == np.uint8
    if not fits:
        raise DataError(
            f"tfds:{builder.name} has no rows of one 8-bit image and one class. "
            f"Received: {', '.join(f'{k} ({type(v).__name__})' for k, v in sorted(features.items()))}"
        )
    return names


def read(
    tfds_name: str,
    part: str,
    data_path: str | None,
    download: bool = True,
    *,
    shape: Shape,
    label: str | None = None,
    tests: tuple[str, ...] = _TESTS,
) -> Images:
    """Return the "train" or "test" images, brought to `shape` (`decoding.fitted`).

    The test part is the first of the splits `tests`. Where there is none, it is a fifth of each class of
    `train`, drawn with a fixed seed. Images are in the order of the number that `id` ends in where rows have
    one, else as they lie in the prepared files.

    Args:
        label: the name in messages; None = "tfds:" and the name.
        Others: as in `inspect`; `download` prepares what is missing.

    Raises `DataError`: missing and not to be had, damaged, unlabelled, or too large for the memory.
    """
    import tensorflow as tf

    label = label or f"tfds:{tfds_name}"
    builder = prepared(label, tfds_name, data_path, download)
    own = next((name for name in tests if name in builder.info.splits), None)
    split = own if part == "test" and own else "train"
    try:
        images = _decode(label, builder, split, shape)
    except (tf.errors.OpError, OSError, ValueError, KeyError, AssertionError) as error:
        raise _damaged(label, str(builder.data_path), error) from error
    if own is None:
        images = images.take(np.flatnonzero(random_fifth(images.labels) == (part == "test")))
        return Images(images.images, images.labels, np.arange(len(images), dtype=np.int64))
    return images


def _check_name(tfds_name: str, data_path: str | None) -> None:
    import tensorflow_datasets as tfds

    name = tfds_name.split("/")[0].split(":")[0]
    if name in (known := tfds.list_builders()):
        return
    if not name or data_path is None or not (Path(data_path).expanduser() / name).is_dir():
        hint = closest(name, known)
        raise UsageError(
            f"tensorflow-datasets knows no such data set. Received: dataset='tfds:{tfds_name}'"
            + (f". Did you mean 'tfds:{hint}'?" if hint else "")
        )


def _decode(label: str, builder, split: str, shape: Shape) -> Images:
    """Return the images of a split, in official order."""
    if split not in builder.info.splits:
        raise ValueError(f"there is no split {split}")
    total = builder.info.splits[split].num_examples
    check_memory(label, total, shape)
    images, labels, ids, done = np.empty((total, *shape), np.uint8), np.empty(total, np.int32), [], 0
    for part in _with_progress(_chunks(builder, split, shape), total, f"{label} {split}"):
        stop = done + len(part[1])
        images[done:stop], labels[done:stop] = part[:2]
        ids, done = [*ids, part[2]], stop
    if done != total:
        raise ValueError(f"{done} of {total} {split} images are there")
    if labels.min() < 0:
        raise ValueError(f"the images of split {split} have no labels")
    order = _official_order(np.concatenate(ids))
    return Images(images[order], labels[order], np.arange(total, dtype=np.int64))


def _chunks(builder, split: str, shape: Shape):
    """Yield (images, labels, id strings), 256 rows at a time; the ids are empty where rows have none."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    image, label = features_of(builder)
    skip = {image: tfds.decode.SkipDecoding()}
    rows = builder.as_dataset(split=split, decoders=skip, shuffle_files=False)

    def decode(row):
        number = row["id"] if "id" in row and row["id"].dtype == tf.string else tf.constant("")
        return fitted(row[image], shape), row[label], number

    yield from rows.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(_CHUNK).as_numpy_iterator()


def _official_order(ids: np.ndarray) -> np.ndarray:
    try:
        return np.argsort(official_numbers(ids), kind="stable")
    except ValueError:
        return np.arange(len(ids))
