"""A Keras model in a `.kpz` file, and back: the same graph, every weight bit for bit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from secateur.coding.file import container
from secateur.coding.file.array_file import Summary, encode_arrays, equal
from secateur.coding.file.array_reader import Each, read_arrays, read_index
from secateur.coding.file.reader import field
from secateur.coding.sharing import share as sharing
from secateur.coding.sharing.kernels import Bits
from secateur.nets import keras_json
from secateur.runs.errors import SnapshotError

GRAPH, FACTS = "keras", "facts"
Share = Callable[[keras.Model, Any], object]  # gives the weights of a model few distinct values, in place


def encode(
    model: keras.Model,
    path: str | os.PathLike,
    bits: Bits | None = None,
    share: Share = sharing.share,
    facts: dict | None = None,
    each: Each = iter,
) -> Summary:
    """Write a model to a `.kpz` file. It takes its place only after it was decoded and every bit compared.

    Args:
        model: of Keras' own layers (`pruning.compact` makes one); it is not changed.
        path: the file; what is there is replaced.
        bits: weights are shared first, at most 2**bits values in a kernel, or as a table says (see `Bits`);
            None keeps them as they are.
        share: how.
        facts: JSON to keep with the model: its plan, accuracy …; `inspect` shows it.
        each: wraps the weights while they are coded, to show progress.

    Raises:
        UsageError: a layer is not Keras' own, runs code, or keeps more than weights.
        SnapshotError: what is read back differs; nothing is left behind.
        RunFolderError: the disk is full, or the folder is missing or cannot be written.
    """
    config = keras_json.config_of(model)
    weights = [np.asarray(v.numpy()) for v in model.weights]
    if bits is not None:
        weights = _shared(config, weights, bits, share)
    names = keras_json.weight_names(model)

    def check(temp: Path) -> None:
        found = decode(temp)
        if keras_json.config_of(found) != config:
            raise SnapshotError(f"{path}: the graph is not read back as it was written. Nothing is kept")
        for name, variable, array in zip(names, found.weights, weights, strict=True):
            if not equal(np.asarray(variable.numpy()), array):
                raise SnapshotError(f"{path}: {name} is not read back as it was written. Nothing is kept")

    arrays = dict(zip(names, weights, strict=True))
    return encode_arrays(arrays, path, {GRAPH: config, FACTS: facts or {}}, check=check, each=each)


def decode(path: str | os.PathLike, each: Each = iter) -> keras.Model:
    """The model of a `.kpz` file: plain Keras layers, weights equal bit for bit. Nothing in it is executed.

    `each` wraps the weights while they are decoded, to show progress. Raises `SnapshotError` for a file that
    is missing, cut short, changed, or holds anything but layers of Keras that run no code.
    """
    with container.opened(path) as found:
        index = read_index(found)
        config = field(index.extra, GRAPH, dict)
        keras_json.check(config)  # before the work
        return keras_json.build(config, [array for _, array in each(read_arrays(found, index))])


def _shared(config: dict, weights: list[np.ndarray], bits: Bits, share: Share) -> list[np.ndarray]:
    """Weights after sharing, which works on a model of its own."""
    model = keras_json.build(config, weights)
    share(model, bits)
    return [np.asarray(v.numpy()) for v in model.weights]
