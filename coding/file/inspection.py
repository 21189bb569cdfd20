"""What is in a `.kpz` file, layer by layer. Plain NumPy: the graph is not built."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from secateur.coding.entropy import symbols
from secateur.coding.file import container
from secateur.coding.file.accounting import Sizes, published_sizes
from secateur.coding.file.array_reader import Each, Tensor, read_arrays, read_index
from secateur.runs.text import table


@dataclass(frozen=True)
class Layer:
    """A layer in the file.

    Attributes:
        name: of the layer.
        coded: how its tensors are kept, by size: "shared ans", "block planes", "raw" …
        numbers: weights in all its tensors.
        distinct: different values in its largest tensor in the file, 0 included.
        entropy: of its values, bits a weight: what no code of single values goes below, tables not counted.
        size: bytes in the file.
    """

    name: str
    coded: str
    numbers: int
    distinct: int
    entropy: float
    size: int

    @property
    def bits(self) -> float:
        """Bits in the file for each weight."""
        return 8 * self.size / max(self.numbers, 1)


@dataclass(frozen=True)
class Inspection:
    """A file.

    Attributes:
        layers: in the order of the file.
        arrays: bytes of its arrays, decoded.
        size: bytes of the file.
        published: the sizes that HAP would publish, by kind (see `accounting`).
        facts: what the writer knew of the model: its plan, accuracy …
    """

    layers: tuple[Layer, ...]
    arrays: int
    size: int
    published: dict[str, Sizes]
    facts: dict

    def __str__(self) -> str:
        rest = self.size - sum(layer.size for layer in self.layers)
        rows = [
            (
                layer.name,
                layer.coded,
                f"{layer.numbers:,}",
                f"{layer.distinct:,}",
                f"{layer.entropy:.3f}",
                f"{layer.bits:.3f}",
                f"{layer.size:,}",
                f"{100 * layer.size / self.size:.2f}",
            )
            for layer in self.layers
        ]
        rows.append(
            ("graph, index, digests", "", "", "", "", "", f"{rest:,}", f"{100 * rest / self.size:.2f}")
        )
        titles = ("layer", "kept as", "weights", "distinct", "entropy", "bits", "bytes", "share in %")
        return f"{table(titles, rows)}\n{self._totals()}"

    def _totals(self) -> str:
        published = self.published["all"]
        return (
            f"weights {self.arrays:,} bytes, file {self.size:,} bytes: {self.arrays / self.size:.2f} times "
            f"smaller\nas HAP counts (trees of floats, no graph): {published.original:,} → "
            f"{published.coded:,} bytes, {published.original / max(published.coded, 1):.2f} times smaller"
        )


def inspect(path: str | os.PathLike, each: Each = iter) -> Inspection:
    """Read a file and measure it. `each` wraps its tensors while they are decoded, to show progress.

    Raises `SnapshotError` for a file that is missing, cut short, changed or foreign.
    """
    with container.opened(path) as found:
        index = read_index(found)
        arrays = dict(each(read_arrays(found, index)))
    tensors = [tensor for section in index.tensors for tensor in section]
    total = sum(array.nbytes for array in arrays.values())
    layers = tuple(_layers(tensors, arrays))
    facts = index.extra.get("facts")
    facts = facts if isinstance(facts, dict) else {}
    return Inspection(layers, total, os.path.getsize(path), published_sizes(arrays), facts)


def _layers(tensors: list[Tensor], arrays: dict[str, np.ndarray]) -> Iterator[Layer]:
    groups: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.name.rpartition("/")[0] or tensor.name, []).append(tensor)
    for name, own in groups.items():
        counts = [_counts(arrays[tensor.name]) for tensor in own]
        numbers = sum(arrays[tensor.name].size for tensor in own)
        largest = max(own, key=lambda tensor: tensor.size)
        yield Layer(
            name,
            _way(largest.node),
            numbers,
            len(counts[own.index(largest)]),
            sum(symbols.entropy(one) for one in counts) / max(numbers, 1),
            sum(tensor.size for tensor in own),
        )


def _counts(array: np.ndarray) -> np.ndarray:
    """How often each bit pattern occurs."""
    return np.unique(array.reshape(-1).view(f"u{array.itemsize}"), return_counts=True)[1]


def _way(node: dict) -> str:
    """The way of a description and those inside it, and the codec of the stream."""
    words = [str(node["as"])]
    while isinstance(inner := node.get("inner"), dict):
        node = inner
        words.append(str(node.get("as")))
    stream = node.get("stream")
    return " ".join([*words, *([str(stream[0])] if isinstance(stream, list) and stream else [])])
