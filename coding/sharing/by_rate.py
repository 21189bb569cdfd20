"""Few values for each kernel, as many as a file has room for, where they matter: rate against distortion.

Entropy-constrained scalar quantisation (Chou, Lookabaugh & Gray 1989). A kernel's squared error counts as
much as it moves the outputs of the model, and one price of a bit rules all kernels, so that none could give
a bit to another one with gain. Plain NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from secateur.coding.sharing.kernels import kernels_of
from secateur.coding.sharing.line import Line
from secateur.coding.sharing.share import VALUE_BYTES, ZERO, Shared, SharedKernel, join
from secateur.runs.errors import UsageError

CELLS = 1024
"""Of equal width, between which a kernel's values are cut, where it has more distinct ones."""
TRIAL = 0.02
"""Price of a bit, in parts of a kernel's variance, behind the error that weighs it: about 16 values."""
STRIDE, STRIDES, HALVINGS = 8.0, 4, 8
"""The search for a price: first by a factor, so often, then by halves of the logarithm's interval."""

Each = Callable[[Iterable], Iterable]
Outputs = Callable[[], Sequence[np.ndarray]]


class Values:
    """The values of one array, in order, ready to be cut at any price."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.distinct, members, counts = np.unique(array.ravel(), return_inverse=True, return_counts=True)
        self.members = members.reshape(array.shape)
        whole = Line(self.distinct.astype(np.float64), counts.astype(np.float64))
        few = len(self.distinct) <= CELLS
        self.line, self.firsts = (whole, np.arange(len(self.distinct) + 1)) if few else whole.binned(CELLS)
        self.zeros = bool((self.distinct == 0).any())
        """Whether some values are exactly 0, and stay it."""
        self.variance = float(array.astype(np.float64).var())

    @cached_property
    def middle(self) -> int:
        """The cell of 0, or the one nearest to it."""
        if not self.zeros:
            return int(np.abs(self.line.points).argmin())
        return int(np.searchsorted(self.firsts, np.searchsorted(self.distinct, 0), side="right")) - 1

    def shared(self, price: float) -> tuple[np.ndarray, np.ndarray, float]:
        """Codebook, labels and squared error with the least error + price · bits.

        Bits are the entropy of the labels, and those of the codebook's values and their counts; 0 is a value
        that costs nothing but its labels. The minimum is exact over all cuts between cells.
        """
        edges, means = self._cut(price)
        own = np.repeat(np.arange(len(means)), np.diff(self.firsts[edges]))
        codebook = means[means != 0].astype(np.float32)
        places = np.full(len(means), ZERO, np.int32)
        places[means != 0] = np.arange(len(codebook))
        labels = places[own][self.members]
        error = float(np.sum((self.array.astype(np.float64) - join(codebook, labels)) ** 2))
        return codebook, labels, error

    def _cut(self, price: float) -> tuple[np.ndarray, np.ndarray]:
        """Edges and values of the best segments: a shortest path, whose steps are segments.

        With p = n / N the code of a segment takes n · log2(N / n), whatever the other segments are.
        """
        count, total, squares = self.line.sums
        best, begins = np.zeros(len(count)), np.zeros(len(count), np.int64)
        book = 8 * VALUE_BYTES * price
        for end in range(1, len(count)):
            n, moment, square = (sums[end] - sums[:end] for sums in (count, total, squares))
            costs = square - moment**2 / n + book
            if end > self.middle:  # those that reach over the middle may be 0
                zero = slice(self.middle + 1)
                costs[zero] = square[zero] if self.zeros else np.minimum(costs[zero], square[zero])
            costs += best[:end] + price * n * np.log2(count[-1] / n)
            begins[end] = costs.argmin()
            best[end] = costs[begins[end]]
        edges = [len(count) - 1]
        while edges[-1]:
            edges.append(int(begins[edges[-1]]))
        return self._values(np.array(edges[::-1]), book)

    def _values(self, edges: np.ndarray, book: float) -> tuple[np.ndarray, np.ndarray]:
        n, moment, _ = np.diff(self.line.sums[:, edges])
        means = moment / n
        own = int(np.searchsorted(edges, self.middle, side="right")) - 1
        if self.zeros or moment[own] ** 2 / n[own] <= book:
            means[own] = 0
        return edges, means


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel and what its error costs.

    Attributes:
        name: "layer/kernel".
        variable: Keras' own.
        values: of it, as they were.
        weight: change of the model's outputs for each unit of squared error.
    """

    name: str
    variable: Any
    values: Values
    weight: float

    def shared(self, price: float) -> SharedKernel:
        """At a price of a bit in units of the outputs' change."""
        own = price / self.weight if self.weight else math.inf
        codebook, labels, error = self.values.shared(min(own, np.finfo(np.float32).max))
        return SharedKernel(
            self.name, self.variable, codebook, labels, error, None, len(self.values.distinct)
        )


def share_by_rate(
    model: Any,
    outputs: Outputs,
    keep_bytes: float | None = None,
    max_loss: float | None = None,
    loss: Callable[[], float] | None = None,
    layers: str = "conv",
    each: Each = iter,
) -> Shared:
    """Shares the weights of a model's kernels, in place, within one of two budgets.

    Args:
        model: Keras model.
        outputs: all of the model as it is then, on images that may decide: hold-out or training, not test. No
            labels are needed.
        keep_bytes: ratio of the float32 bytes of these kernels that is to stay, estimated; in (0, 1).
        max_loss: what sharing all kernels may add to `loss`, measured.
        loss: of the model as it is then; `max_loss` needs it.
        layers: which kernels: see `coding.sharing.share.share`.
        each: wraps the kernels while they are weighed, one call of `outputs` each, to show progress.

    Raises `UsageError` unless just one budget is given, where it is out of reach, for weights that are not
    finite, and for a model without such kernels.
    """
    if (keep_bytes is None) == (max_loss is None):
        raise UsageError(f"Give keep_bytes or max_loss. Received: {keep_bytes} and {max_loss}")
    kernels = weighed(model, outputs, layers, each)
    if keep_bytes is not None:
        limit = keep_bytes * sum(4 * kernel.values.array.size for kernel in kernels)
        shared = _best(kernels, lambda shared: _bytes(shared) <= limit, wrong=1 / STRIDE)
        if shared is None:
            raise UsageError(f"These kernels do not get so small. Received: keep_bytes={keep_bytes:g}")
        return shared
    limit = loss() + max_loss

    def within(shared: Shared) -> bool:
        shared.write()
        return loss() <= limit

    shared = _best(kernels, within, wrong=STRIDE)
    if shared is None:
        raise UsageError(f"Any sharing adds more to the loss. Received: max_loss={max_loss:g}")
    return shared


def _best(kernels: list[Kernel], fits: Callable[[Shared], bool], wrong: float) -> Shared | None:
    """The sharing that fits just so, written; None, with kernels as they were, where no price leads to one.

    A price times `wrong` fits less. From a price that leaves a usual kernel about 16 values it goes up or
    down until one price fits and one does not, then halves the interval between their logarithms.
    """
    usual = [kernel.weight * kernel.values.variance for kernel in kernels]
    usual = [one for one in usual if 0 < one < math.inf]
    price = TRIAL * float(np.median(usual)) if usual else 1.0
    good = bad = found = None
    for _ in range(STRIDES + HALVINGS):
        shared = Shared(tuple(kernel.shared(price) for kernel in kernels))
        if fits(shared):
            good, found = price, shared
        else:
            bad = price
        if good and bad:
            price = math.sqrt(good * bad)
        else:
            price *= wrong if good else 1 / wrong
    for kernel in kernels:
        kernel.variable.assign(kernel.values.array)
    if found:
        found.write()
    return found


def weighed(model: Any, outputs: Outputs, layers: str = "conv", each: Each = iter) -> list[Kernel]:
    """Kernels and their weights: how far about 16 values in one move the outputs, for each unit of error."""
    whole, kernels = outputs(), []
    found = kernels_of(model, layers)
    if not found:
        raise UsageError(f"The model has no such kernels to share weights in. Received: layers={layers!r}")
    for _, name, variable in each(found):
        array = np.asarray(variable.numpy())
        if not np.isfinite(array.astype(np.float32)).all():
            raise UsageError(f"Weights that are shared must be finite. Received: others in {name}")
        values = Values(array)
        codebook, labels, error = values.shared(TRIAL * values.variance)
        try:
            variable.assign(join(codebook, labels))
            change = _distance(outputs(), whole)
        finally:
            variable.assign(array)
        kernels.append(Kernel(name, variable, values, change / error if error else math.inf))
    return kernels


def _distance(one: Sequence, other: Sequence) -> float:
    pairs = zip(one, other, strict=True)
    return math.fsum(float(np.mean((np.asarray(a, np.float64) - b) ** 2)) for a, b in pairs)


def _bytes(shared: Shared) -> float:
    return math.fsum(kernel.bytes for kernel in shared.kernels)
