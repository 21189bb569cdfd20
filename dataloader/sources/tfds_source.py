"""Images from tensorflow-datasets, in official order, whatever the sharding of the prepared files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import numpy as np

from secateur.dataloader.splits import Images
from secateur.runs.errors import DataError

_CHUNK = 2500
"""Images decoded by one call: enough to be fast (50,000 of CIFAR in 2 s), few enough to show progress."""

_PROBE_SECONDS = 10


def read(
    label: str, tfds_name: str, part: str, data_path: str | None = None, download: bool = True
) -> Images:
    """Return the "train" or "test" images of a data set, prepared by tensorflow-datasets.

    Args:
        label: the name that users know, for messages.
        tfds_name: its name in tensorflow-datasets.
        part: "train" or "test".
        data_path: a tfds `data_dir`; None = the library's default.
        download: prepare the data set when it is missing.

    Raises:
        DataError: missing and not to be had, or damaged. One line, with the remedy.
    """
    import tensorflow as tf

    builder = prepared(label, tfds_name, data_path, download)
    try:
        return _sorted_images(*_decode(label, builder, part))
    except (tf.errors.OpError, OSError, ValueError, KeyError, AssertionError) as error:
        raise _damaged(label, str(builder.data_path), error) from error


def prepared(label: str, tfds_name: str, data_path: str | None = None, download: bool = True):
    """Return the library's builder of a data set that lies on the disk; arguments and errors of `read`."""
    root = None if data_path is None else os.path.expanduser(data_path)
    builder = _open(label, tfds_name, root)
    if not builder.is_prepared():
        _prepare(label, builder, download)
    return builder


def _open(label: str, tfds_name: str, root: str | None):
    """Return the library's builder. It reads `dataset_info.json` when there is one, and no network."""
    import tensorflow_datasets as tfds

    if root is not None and os.path.exists(root) and not os.path.isdir(root):
        raise DataError(f"The data folder is not a folder. Received: data_path={root}")
    try:
        return tfds.builder(tfds_name, data_dir=root)
    except Exception as error:  # of protobuf, json, TensorFlow or the system: the library wraps none of them
        raise _damaged(label, os.path.join(root or "the default data_dir", tfds_name), error) from error


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


def _decode(label: str, builder, part: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images, labels and id strings, as they lie in the files."""
    total = builder.info.splits[part].num_examples
    chunks = list(_with_progress(_chunks(builder, part), total, f"{label} {part}"))
    images, labels, ids = (np.concatenate(column) for column in zip(*chunks, strict=True))
    if len(labels) != total:
        raise ValueError(f"{len(labels)} of {total} {part} images are there")
    return images, labels, ids


def _chunks(builder, part: str) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield 2,500 decoded images at a time: twice as fast as the library, which decodes one by one."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    pixels = tf.TensorSpec(builder.info.features["image"].shape, tf.uint8)

    def decode(record):
        images = tf.map_fn(lambda png: tf.io.decode_png(png, 3), record["image"], fn_output_signature=pixels)
        return images, record["label"], record["id"]

    raw = builder.as_dataset(split=part, decoders={"image": tfds.decode.SkipDecoding()}, shuffle_files=False)
    yield from raw.batch(_CHUNK).map(decode, num_parallel_calls=tf.data.AUTOTUNE).as_numpy_iterator()


def _with_progress(chunks: Iterator, total: int, title: str) -> Iterator:
    """Show a bar on a terminal (and nothing in a log)."""
    from tqdm import tqdm

    with tqdm(total=total, desc=title, unit=" images", disable=None, leave=False) as bar:
        for chunk in chunks:
            yield chunk
            bar.update(len(chunk[1]))


def _sorted_images(images: np.ndarray, labels: np.ndarray, ids: np.ndarray) -> Images:
    """Sort into official order, which the library notes in `id` before it shuffles images into shards."""
    order = np.argsort(official_numbers(ids), kind="stable")
    return Images(images[order], labels[order].astype(np.int32), np.arange(len(order), dtype=np.int64))


def official_numbers(ids: np.ndarray) -> np.ndarray:
    """Return the number at the end of each id, int64: b"train_16399" → 16399. `ValueError` without one."""
    numbers = [re.search(rb"\d+$", name) for name in ids]
    if None in numbers:
        raise ValueError(f"the id {ids[numbers.index(None)]!r} ends in no number")
    return np.array([int(number[0]) for number in numbers], np.int64)
