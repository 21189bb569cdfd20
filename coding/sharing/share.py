"""Weight sharing: every kernel has few values (Han et al. 2016; HAP). Zeros stay zeros, beside the others.

A kernel becomes a codebook and labels. It may train on with `coding.sharing.retraining`. Plain NumPy on the
variables of a Keras model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.coding.entropy.symbols import entropy
from secateur.coding.sharing.kernels import Bits, chosen, kernels_of
from secateur.coding.sharing.kmeans import cluster
from secateur.runs.errors import UsageError
from secateur.runs.text import table

ZERO = -1
"""Label of weights that are exactly 0, which belong to no cluster."""
VALUE_BYTES = 4
"""What a value of a codebook takes in a file."""


@dataclass(frozen=True, eq=False)
class SharedKernel:
    """One kernel.

    Attributes:
        name: of the layer and the weight, "conv1/kernel".
        variable: Keras' own.
        codebook: float32 (c,), ascending, no zeros.
        labels: int32 of the kernel's shape: each weight's place in the codebook, or `ZERO`.
        error: Σ (weight − its shared value)².
        bits: asked for; None where the rate of the code decided.
        distinct: values that the kernel had before, 0 included.
    """

    name: str
    variable: Any
    codebook: np.ndarray
    labels: np.ndarray
    error: float
    bits: int | None
    distinct: int

    @property
    def skipped(self) -> bool:
        """Whether it had few enough values before and stays as it was."""
        return self.bits is not None and self.distinct <= 2**self.bits

    @property
    def values(self) -> np.ndarray:
        """The kernel that codebook and labels stand for, float32."""
        return join(self.codebook, self.labels)

    @property
    def bytes(self) -> float:
        """What it takes in a file, estimated."""
        return stored_bytes(self.codebook, self.labels)

    def facts(self) -> dict[str, Any]:
        """A row of a report."""
        return {
            "kernel": self.name,
            "bits": self.bits,
            "weights": self.labels.size,
            "zeros": int((self.labels == ZERO).sum()),
            "distinct": self.distinct,
            "values": len(self.codebook),
            "error": self.error,
            "bytes": self.bytes,
            "skipped": self.skipped,
        }


@dataclass(frozen=True, eq=False)
class Shared:
    """The shared kernels of a model, in the order of its layers."""

    kernels: tuple[SharedKernel, ...]

    def facts(self) -> list[dict[str, Any]]:
        """A row for each kernel."""
        return [kernel.facts() for kernel in self.kernels]

    def write(self) -> None:
        """Puts the shared values into the model."""
        for kernel in self.kernels:
            if not kernel.skipped:
                kernel.variable.assign(kernel.values)

    def equalise(self) -> None:
        """Gives all members of a cluster the weight that the first of them has now.

        Nothing changes after `coding.sharing.retraining.tie` on one or two devices. With more of them a
        reduction may add up the parts of a kernel in different orders, and members drift apart by a last bit.
        """
        for kernel in self.kernels:
            clusters, firsts = np.unique(kernel.labels, return_index=True)
            now = np.asarray(kernel.variable.numpy()).ravel()[firsts[clusters != ZERO]]
            kernel.variable.assign(join(now, kernel.labels))

    @property
    def emptied(self) -> list[str]:
        """Names of the kernels of which nothing but zeros is left."""
        return [one.name for one in self.kernels if one.distinct > 1 and (one.labels == ZERO).all()]

    def __str__(self) -> str:
        titles = ("kernel", "weights", "zeros", "values before", "now", "squared error", "bytes")
        keys = ("kernel", "weights", "zeros", "distinct", "values", "error", "bytes")
        facts = self.facts()
        rows = [[_cell(row[key]) for key in keys] for row in facts]
        sums = ["all", *("",) * 6]
        for column in (1, 2, 6):
            sums[column] = _cell(sum(row[keys[column]] for row in facts))
        return table(titles, [*rows, sums])


def share(model: Any, bits: Bits = 5, layers: str = "conv", linear: bool = False) -> Shared:
    """Shares the weights of a model's kernels, in place.

    Args:
        model: Keras model.
        bits: 1 … 16, for at most 2^bits values beside 0 in each kernel; or a table from "conv", "dense",
            a layer, a pattern of layers ("stage4_*") or a kernel ("conv1/kernel") to bits. The first line
            that fits counts; a kernel that none fits is left alone.
        layers: which kernels: of convolutions (as published), the other ones, or "all".
        linear: HAP's way, see `coding.sharing.kmeans.cluster`.

    Where 2^bits is at least the number of distinct values, the kernel stays as it is (HAP). Raises
    `UsageError` for bits or layers that do not exist and for weights that are not finite.
    """
    shared = _shared(model, bits, layers, linear)
    shared.write()
    return shared


def tied(model: Any, bits: Bits = 5, layers: str = "conv") -> Shared:
    """The sharing that is in a model's weights already: equal ones belong together. Changes nothing.

    `bits` and `layers` choose kernels as those of `share`, which was called with them.
    """
    return _shared(model, bits, layers, exact=True)


def share_array(value: np.ndarray, most: int, linear: bool = False) -> tuple[np.ndarray, np.ndarray, float]:
    """Codebook, labels and squared error of one array with at most `most` ≥ 1 values that are not 0."""
    alive = value != 0
    found = cluster(value[alive], most, linear)
    labels = np.full(value.shape, ZERO, np.int32)
    labels[alive] = found.labels
    tiny = np.finfo(value.dtype).tiny  # what is not pruned must not look as if it were
    return np.where(found.centroids == 0, tiny, found.centroids), labels, found.error


def join(codebook: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The array that codebook and labels stand for, of the codebook's type."""
    return np.append(codebook, codebook.dtype.type(0))[labels]  # the last one: label −1


def stored_bytes(codebook: np.ndarray, labels: np.ndarray) -> float:
    """The entropy of the labels, zeros included, and four bytes a value: what a coder comes near to."""
    counts = np.unique(labels, return_counts=True)[1]
    return entropy(counts) / 8 + VALUE_BYTES * len(codebook)


def _shared(model: Any, bits: Bits, layers: str, linear: bool = False, exact: bool = False) -> Shared:
    kernels = []
    for name, variable, own in chosen(kernels_of(model, layers), bits):
        value = np.asarray(variable.numpy())
        if not np.isfinite(value.astype(np.float32)).all():
            raise UsageError(f"Weights that are shared must be finite. Received: others in {name}")
        distinct = len(np.unique(value))
        most = distinct if exact or distinct <= 2**own else 2**own
        kernels.append(SharedKernel(name, variable, *share_array(value, most, linear), own, distinct))
    return Shared(tuple(kernels))


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.4g}" if isinstance(value, float) and value < 1000 else f"{value:,.0f}"
