"""Images that are in memory already: arrays, `tf.data.Dataset`, `keras.utils.PyDataset`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from secateur.dataloader.splits import Columns, Images
from secateur.runs.errors import DataError

NAME = "memory"
"""What a data set of them is called."""


def images_of(data: Any, rank: int = 4, what: str = "train") -> Images:
    """Return the images and labels of `data`, in its order, as arrays.

    Args:
        data: (images, labels); each is an array, or a tuple, list or dictionary of arrays for several inputs
            or outputs. Or a finite `tf.data.Dataset` of such pairs, batched or not; or a
            `keras.utils.PyDataset`.
        rank: axes of a batch of the first input, which tells batches from single samples.
        what: what messages call it.

    Images of bytes stay bytes, other numbers become float32; integer labels become int32. Raises `DataError`
    for data without labels, with weights of samples, without end, or whose arrays differ in length.
    """
    if isinstance(data, tuple):
        _check_pair(data, what)
    rows = data[:2] if isinstance(data, tuple) else _collected(data, rank, what)
    images = _numbers(rows[0])
    labels = _labels(rows[1], len(_flat(images)[0]))
    lengths = [[len(array) for array in _flat(side)] for side in (images, labels)]
    if len({*lengths[0], *lengths[1]}) > 1 or not any(lengths[1]):
        raise DataError(
            f"As many images as labels are needed. Received: {what}, {' and '.join(map(str, lengths))}"
        )
    sides = (side if isinstance(side, np.ndarray) else Columns(side) for side in (images, labels))
    return Images(*sides, np.arange(lengths[1][0], dtype=np.int64))


def _collected(data: Any, rank: int, what: str) -> tuple[Any, Any]:
    batches = list(_batches(data, rank, what))
    for batch in batches:
        _check_pair(batch, what)
    if not batches:
        raise DataError(f"There is not a single image. Received: {what}")
    return tuple(_joined([batch[side] for batch in batches]) for side in (0, 1))


def _check_pair(batch: Any, what: str) -> None:
    """Raises `DataError` for anything but images and labels; Keras' weights may be None."""
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise DataError(f"Pairs of images and labels are needed. Received: {what} of {type(batch).__name__}")
    if any(more is not None for more in batch[2:]):
        raise DataError(
            "Weights of samples are not used: give (images, labels); balanced=True evens classes out. "
            f"Received: {what} of {len(batch)} parts"
        )


def _batches(data: Any, rank: int, what: str) -> Iterator[tuple]:
    """Yield (images, labels) with a first axis of samples."""
    if hasattr(data, "as_numpy_iterator"):  # a tf.data.Dataset
        if data.cardinality().numpy() == -1:
            raise DataError(f"The data set has no end: take(…) some of it. Received: {what}")
        if not isinstance(spec := data.element_spec, tuple) or len(spec) < 2:
            raise DataError(f"Pairs of images and labels are needed. Received: {what} of {spec}")
        batched = _first(spec[0]).shape.rank == rank
        yield from (data if batched else data.batch(256)).as_numpy_iterator()
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):  # a PyDataset
        yield from (data[i] for i in range(len(data)))
    else:
        raise DataError(
            "Give (images, labels), a folder, a tf.data.Dataset or a keras.utils.PyDataset. "
            f"Received: {what} of type {type(data).__name__}"
        )


def _first(spec: Any) -> Any:
    while isinstance(spec, Mapping | tuple | list):
        spec = next(iter(spec.values())) if isinstance(spec, Mapping) else spec[0]
    return spec


def _joined(parts: list) -> Any:
    first = parts[0]
    if isinstance(first, Mapping):
        return {key: np.concatenate([np.asarray(part[key]) for part in parts]) for key in first}
    if isinstance(first, tuple | list):
        return tuple(np.concatenate([np.asarray(part[i]) for part in parts]) for i in range(len(first)))
    return np.concatenate([np.asarray(part) for part in parts])


def _flat(images: Any) -> list[np.ndarray]:
    if isinstance(images, Mapping):
        return list(images.values())
    return list(images) if isinstance(images, tuple | list) else [images]


def _numbers(images: Any) -> Any:
    if isinstance(images, Mapping):
        return {key: _numbers(one) for key, one in images.items()}
    if isinstance(images, tuple | list):
        return type(images)(_numbers(one) for one in images)
    array = np.asarray(images)
    return array if array.dtype == np.uint8 else array.astype(np.float32)


def _labels(labels: Any, count: int) -> Any:
    """One column of integers is a vector of classes; other numbers are float32.

    Arrays for several outputs stay apart; a list of as many arrays as images is one for each of these.
    """
    if isinstance(labels, Mapping):
        return {key: _labels(one, count) for key, one in labels.items()}
    if isinstance(labels, tuple | list) and all(len(getattr(one, "shape", ())) for one in labels):
        if labels and len(labels) != count:
            return [_labels(one, count) for one in labels]
    array = np.asarray(labels)
    if np.issubdtype(array.dtype, np.floating):
        return array.astype(np.float32)
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    return array.astype(np.int32)
