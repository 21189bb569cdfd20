"""Data sets of tensorflow-datasets, in official order, whatever the sharding of the prepared files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from secateur.dataloader.sources import records
from secateur.dataloader.sources.decoding import Shape, fits_memory, fitted
from secateur.dataloader.sources.stored import Stored
from secateur.dataloader.splits import Images
from secateur.runs.errors import DataError, UsageError
from secateur.runs.suggest import closest, nearest

SIDE = 224
"""Side of the images where those of a data set differ in size."""

_TESTS = ("test", "validation", "valid", "val")
_CHUNK = 256
Fit = tuple[Shape, bool]  # arguments of `fitted`
_PROBE_SECONDS = 10


def inspect(name: str, data_path: str | None, download: bool = True) -> tuple[list[str], Shape]:
    """Return the classes and the shape of the builder's info; (224, 224, 3) where that leaves it open.

    Args:
        name: NAME, NAME/CONFIG, NAME:VERSION or NAME/CONFIG:VERSION.
        data_path: a tfds `data_dir`; None = the library's default.
        download: has no effect; the info comes with the library, or with the prepared files.

    Raises `UsageError` for an unknown name, `DataError` for rows without an image and one label.
    """
    _check_name(name, data_path)
    builder = _open(name, name, data_path)
    image, label = features_of(builder)
    height, width = builder.info.features[image].shape[:2]
    return builder.info.features[label].names, (height or SIDE, width or SIDE, 3)


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
    name: str,
    part: str,
    data_path: str | None,
    download: bool = True,
    *,
    shape: Shape,
    stream: bool = False,
    label: str | None = None,
    tests: tuple[str, ...] = _TESTS,
    middle: bool = False,
) -> Images:
    """Return the "train" or "test" images, brought to `shape` (`decoding.fitted`).

    The test part is the first of the splits `tests`. Images are in the order of the number that `id` ends in
    where rows have one, else as they lie in the prepared files.

    Args:
        stream: leave them in their files, as is done with what does not fit in memory.
        label: the name in messages; None = "tfds:" and the name.
        middle: see `decoding.fitted`.
        Others: as in `inspect`; `download` prepares what is missing.

    Raises `DataError`: missing and not to be had, damaged or unlabelled. One line, with the remedy.
    """
    import tensorflow as tf

    label = label or f"tfds:{name}"
    builder = _open(label, name, data_path)
    if not builder.is_prepared():
        _prepare(label, builder, download)
    split = part if part == "train" else next((one for one in tests if one in builder.info.splits), part)
    try:
        return _images(label, builder, split, stream, (shape, middle))
    except tf.errors.ResourceExhaustedError:  # no fault of the data
        raise
    except (tf.errors.OpError, OSError, ValueError, KeyError, AssertionError) as error:
        raise _damaged(label, str(builder.data_path), error) from error


def has_tests(name: str, data_path: str | None, tests: tuple[str, ...] = _TESTS) -> bool:
    """Whether one of the splits `tests` is there; the data must be prepared."""
    return any(split in _open(f"tfds:{name}", name, data_path).info.splits for split in tests)


def official_numbers(ids: np.ndarray) -> np.ndarray:
    """Return the number at the end of each id, int64: b"train_16399" → 16399. `ValueError` without one."""
    numbers = [re.search(rb"\d+$", name) for name in ids]
    if None in numbers:
        raise ValueError(f"the id {ids[numbers.index(None)]!r} ends in no number")
    return np.array([int(number[0]) for number in numbers], np.int64)


# --- images -------------------------------------------------------------------------------------------------


def _images(label: str, builder, split: str, stream: bool, fit: Fit) -> Images:
    """Return the images of a split, in official order."""
    if split not in builder.info.splits:
        raise ValueError(f"there is no split {split}")
    total = builder.info.splits[split].num_examples
    read = _stored if stream or not fits_memory(label, total, fit[0]) else _decoded
    images, labels, ids = read(label, builder, split, fit)
    if len(labels) != total:
        raise ValueError(f"{len(labels)} of {total} {split} images are there")
    if labels.min() < 0:
        raise ValueError(f"the images of split {split} have no labels")
    order = _official_order(ids)
    taken = images.take(order) if isinstance(images, Stored) else images[order]
    return Images(taken, labels[order], np.arange(total, dtype=np.int64))


def _decoded(label: str, builder, split: str, fit: Fit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images, labels and id strings as they lie in the files."""
    total = builder.info.splits[split].num_examples
    images, labels, ids, done = np.empty((total, *fit[0]), np.uint8), np.empty(total, np.int32), [], 0
    for part in _with_progress(_chunks(builder, split, fit), total, f"{label} {split}"):
        stop = done + len(part[1])
        images[done:stop], labels[done:stop] = part[:2]
        ids.append(part[2])
        done = stop
    return images[:done], labels[:done], np.concatenate(ids)


def _stored(label: str, builder, split: str, fit: Fit) -> tuple[Stored, np.ndarray, np.ndarray]:
    """Return the same with images that stay in their files."""
    kind = builder.info.file_format.value
    if kind != "tfrecord":
        raise ValueError(f"files of {kind} cannot be read image by image, those of tfrecord can")
    files = [Path(path) for path in builder.info.splits[split].filepaths if os.path.getsize(path)]
    total, pieces, parts = builder.info.splits[split].num_examples, [], []
    for number, part in enumerate(_with_progress(records.index(files, *features_of(builder)), total, label)):
        pieces.append(np.insert(part[0], 0, number, axis=1))
        parts.append(part[1:])
    labels, ids = zip(*parts, strict=True)
    return Stored(files, np.concatenate(pieces), *fit), np.concatenate(labels), np.concatenate(ids)


def _chunks(builder, split: str, fit: Fit) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (images, labels, id strings), 256 rows at a time; the ids are empty where rows have none."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    image, label = features_of(builder)
    skip = {image: tfds.decode.SkipDecoding()}
    one_by_one = tfds.ReadConfig(interleave_cycle_length=1)  # files in their order, as `_stored` reads them
    rows = builder.as_dataset(split, decoders=skip, shuffle_files=False, read_config=one_by_one)

    def decode(row):
        number = row["id"] if "id" in row and row["id"].dtype == tf.string else tf.constant("")
        return fitted(row[image], *fit), row[label], number

    yield from rows.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(_CHUNK).as_numpy_iterator()


def _with_progress(chunks: Iterator, total: int, title: str) -> Iterator:
    """Show a bar on a terminal (and nothing in a log)."""
    from tqdm import tqdm

    with tqdm(total=total, desc=title, unit=" images", disable=None, leave=False) as bar:
        for chunk in chunks:
            yield chunk
            bar.update(len(chunk[1]))


def _official_order(ids: np.ndarray) -> np.ndarray:
    """Return the order that the library notes in `id` before it shuffles images into shards."""
    try:
        return np.argsort(official_numbers(ids), kind="stable")
    except ValueError:
        return np.arange(len(ids))


# --- the library's builder ----------------------------------------------------------------------------------


def _check_name(name: str, data_path: str | None) -> None:
    """Raise `UsageError` for a name or a configuration that neither the library nor the folder has."""
    import tensorflow_datasets as tfds

    data, _, config = name.partition(":")[0].partition("/")
    received = f"Received: tfds:{name}"
    if data in (known := tfds.list_builders()):
        configs = list(tfds.builder_cls(data).builder_configs)
        if config and config not in configs:
            hint = nearest(config, configs) if configs else "It has none"
            raise UsageError(f"This data set has no such configuration. {received}. {hint}")
    elif not data or data_path is None or not (Path(data_path).expanduser() / data).is_dir():
        hint = closest(data, known)
        raise UsageError(
            f"tensorflow-datasets knows no such data set. {received}"
            + (f". Did you mean tfds:{hint}?" if hint else "")
        )


def _open(label: str, name: str, data_path: str | None):
    """Return the library's builder. It reads `dataset_info.json` when there is one, and no network."""
    import tensorflow_datasets as tfds

    root = None if data_path is None else os.path.expanduser(data_path)
    if root is not None and os.path.exists(root) and not os.path.isdir(root):
        raise DataError(f"The data folder is not a folder. Received: data_path={root}")
    try:
        return tfds.builder(name, data_dir=root)
    except Exception as error:  # of protobuf, json, TensorFlow or the system: the library wraps none of them
        raise _damaged(label, os.path.join(root or "the default data_dir", name), error) from error


def _prepare(label: str, builder, download: bool) -> None:
    """Download and prepare, with the library's progress bars."""
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not os.path.isdir(manual := _manual_folder(builder)):
        raise _by_hand(label, builder, manual)
    if not download:
        raise _missing(label, builder, "downloads are switched off")
    try:
        _probe(builder)
        builder.download_and_prepare()
    except Exception as error:  # as above; whatever it was, the images are not there
        raise _missing(label, builder, _reason(error)) from error


def _probe(builder) -> None:
    """Ask the host for one file's head first: the library itself waits and retries without a limit."""
    import requests

    for url in list(builder.url_infos or {})[:1]:
        if not url.startswith("http"):
            continue
        try:
            requests.get(url, stream=True, timeout=_PROBE_SECONDS).close()
        except requests.RequestException as error:
            host = urlsplit(url).hostname
            raise ConnectionError(f"no connection to {host}: {type(error).__name__}") from error


def _root_and_folder(builder) -> tuple[str, str]:
    """Return the library's data_dir, and the folder inside of it that holds the prepared files."""
    parts = [builder.name, builder.builder_config and builder.builder_config.name, str(builder.version)]
    folder = "/".join(part for part in parts if part)
    return str(builder.data_dir).removesuffix("/" + folder), folder


def _manual_folder(builder) -> str:
    """Return where the library looks for what its users have to fetch themselves."""
    return os.path.join(_root_and_folder(builder)[0], "downloads", "manual")


def _by_hand(label: str, builder, manual: str) -> DataError:
    folder = _root_and_folder(builder)[1]
    what = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
    what = what if len(what) <= 400 else what[:397] + "..."
    return DataError(
        f"{label} has to be downloaded by hand, into {manual} ({what}). "
        f"Put it there and run again, or pass --data_path DIR that holds {folder}"
    )


def _missing(label: str, builder, reason: str) -> DataError:
    root, folder = _root_and_folder(builder)
    return DataError(
        f"{label} is not in {root} and could not be downloaded ({reason}). "
        f"Prepare it once with network, or pass --data_path DIR that holds {folder}"
    )


def _damaged(label: str, folder: str, error: Exception) -> DataError:
    return DataError(
        f"{label} in {folder} cannot be read ({_reason(error)}). "
        "Remove that folder and load it again with network, or pass --data_path of an intact copy"
    )


def _reason(error: Exception) -> str:
    """Return the first line of an error, without TensorFlow's node names, short enough for one line."""
    text = re.sub(r"\{\{.*?\}\}\s*|\[Op:.*?\]|\s+name:\s*$", "", str(error)).strip()
    line = text.splitlines()[0].strip() if text else type(error).__name__
    return line if len(line) <= 160 else line[:157] + "..."
