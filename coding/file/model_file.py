"""A Keras model in a `.kpz` file, and back: the same graph, every weight bit for bit."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import numpy as np

from secateur.coding.file import container
from secateur.coding.file.array_file import Summary, encode_arrays, equal
from secateur.coding.file.array_reader import Each, read_arrays, read_index
from secateur.coding.file.reader import field
from secateur.coding.sharing.kernels import Bits
from secateur.coding.sharing.rounding import round_numbers
from secateur.coding.sharing.share import share
from secateur.nets import keras_json
from secateur.runs.errors import SnapshotError

GRAPH, FACTS = "keras", "facts"


def encode(
    model: keras.Model,
    path: str | os.PathLike,
    bits: Bits | None = None,
    layers: str = "conv",
    vector_bits: int | None = None,
    facts: dict | None = None,
    each: Each = iter,
) -> Summary:
    """Write a model to a `.kpz` file. It takes its place only after it was decoded and every bit compared.

    Args:
        model: of Keras' own layers (`pruning.compact` makes one); it is not changed.
        path: the file; what is there is replaced.
        bits: weights are shared first, at most 2**bits values in a kernel, or as a table says (see `Bits`);
            None keeps them as they are.
        layers: whose weights: "conv", "dense" or "all".
        vector_bits: biases, vectors of normalisations and shared values are rounded then, see
            `coding.sharing.rounding.round_numbers`; None keeps them.
        facts: JSON to keep with the model: its plan, accuracy …; `inspect` shows it.
        each: wraps the weights while they are coded, to show progress.

    Raises:
        UsageError: a layer is not Keras' own, runs code, or keeps more than weights.
        SnapshotError: what is read back differs; nothing is left behind.
        RunFolderError: the disk is full, or the folder is missing or cannot be written.
    """
    config = keras_json.config_of(model)
    weights = [np.asarray(v.numpy()) for v in model.weights]
    if bits is not None or vector_bits is not None:
        weights = _fewer(config, weights, bits, layers, vector_bits)
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


def _fewer(
    config: dict, weights: list[np.ndarray], bits: Bits | None, layers: str, vector_bits: int | None
) -> list[np.ndarray]:
    """Weights after sharing and rounding, which work on a model of their own."""
    model = keras_json.build(config, weights)
    if bits is not None:
        share(model, bits, layers)
    if vector_bits is not None:
        round_numbers(model, vector_bits)
    return [np.asarray(v.numpy()) for v in model.weights]
