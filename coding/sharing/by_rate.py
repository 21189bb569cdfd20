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
STRIDE, STRIDES, HALVINGS = 8.0, 12, 8
"""The search for a price: by a factor, so often at most; then by halves of the logarithm's interval."""

MOST = 1e30
"""The highest price of a bit, in units of squared error: a kernel that moves no outputs gets no bits."""

Each = Callable[[Iterable], Iterable]
Outputs = Callable[[], Sequence[np.ndarray]]


class Values:
    """The values of one array, in order, ready to be cut at any price."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.distinct, members, counts = np.unique(array.ravel(), return_inverse=True, return_counts=True)
        self.members = members.reshape(array.shape).astype(np.int32)
        whole = Line(self.distinct.astype(np.float64), counts.astype(np.float64))
        few = len(self.distinct) <= CELLS
        self.line, self.firsts = (whole, np.arange(len(self.distinct) + 1)) if few else whole.binned(CELLS)
        self.variance = float(array.astype(np.float64).var())

    @cached_property
    def zeros(self) -> int | None:
        """The cell of the values that are exactly 0, and stay it; None where there are none."""
        place = int(np.searchsorted(self.distinct, 0))
        if place == len(self.distinct) or self.distinct[place] != 0:
            return None
        return int(np.searchsorted(self.firsts, place, side="right")) - 1

    def shared(self, price: float) -> tuple[np.ndarray, np.ndarray, float]:
        """Codebook, labels and squared error with the least error + price · bits.

        Bits are those of `stored_bytes`: the entropy of the labels, and the codebook, in which 0 takes none.
        The minimum is exact over all cuts of the values, in order, between cells into runs of one value each;
        the values of one run may become 0.
        """
        edges, zero = self._cut(price)
        own = np.repeat(np.arange(len(edges) - 1), np.diff(self.firsts[edges]))
        codebook = np.delete(self.line.means(edges), [] if zero is None else zero).astype(np.float32)
        places = np.arange(len(edges) - 1, dtype=np.int32)
        if zero is not None:
            places[zero:] -= 1
            places[zero] = ZERO
        labels = places[own][self.members]
        error = float(np.sum((self.array.astype(np.float64) - join(codebook, labels)) ** 2))
        return codebook, labels, error

    def _cut(self, price: float) -> tuple[np.ndarray, int | None]:
        """Edges of the best runs, and which of them becomes 0: a shortest path, whose steps are runs.

        With p = n / N the code of a run takes n · log2(N / n), whatever the other runs are. There are two
        paths to each edge, without a run of zeros behind it and with one.
        """
        count, total, squares = self.line.sums
        size, book = len(count) - 1, 8 * VALUE_BYTES * price
        best = np.full((2, size + 1), np.inf)
        best[0, 0] = 0
        steps = np.zeros((2, size + 1), np.int64)  # where the last run begins, −1 − that for one of zeros
        for end in range(1, size + 1):
            n, moment, square = (sums[end] - sums[:end] for sums in (count, total, squares))
            code = price * n * np.log2(count[-1] / n)
            value, zero = square - moment**2 / n + book + code, square + code
            if self.zeros is not None and end > self.zeros:  # zeros are in the run of zeros, and it has them
                value[: self.zeros + 1], zero[self.zeros + 1 :] = np.inf, np.inf
            elif self.zeros is not None:
                zero[:] = np.inf
            paths = best[0, :end] + value, best[1, :end] + value, best[0, :end] + zero
            begins = [int(path.argmin()) for path in paths]
            costs = [path[begin] for path, begin in zip(paths, begins, strict=True)]
            best[0, end], steps[0, end] = costs[0], begins[0]
            with_zeros = int(costs[2] <= costs[1])
            best[1, end] = costs[1 + with_zeros]
            steps[1, end] = -1 - begins[2] if with_zeros else begins[1]
        return self._path(steps, int(best[1, size] <= best[0, size]))

    @staticmethod
    def _path(steps: np.ndarray, used: int) -> tuple[np.ndarray, int | None]:
        """The edges on the way back from the end, and the number of the run of zeros."""
        edges, behind = [steps.shape[1] - 1], None
        while edges[-1]:
            step = int(steps[used, edges[-1]])
            if step < 0:
                used, step, behind = 0, -1 - step, len(edges)
            edges.append(step)
        return np.array(edges[::-1]), None if behind is None else len(edges) - 1 - behind


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
        own = min(price / self.weight, MOST) if self.weight else MOST
        codebook, labels, error = self.values.shared(own)
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

    Raises `UsageError` unless just one budget is given, where it is out of reach, for weights and outputs
    that are not finite, and for a model without such kernels.
    """
    if (keep_bytes is None) == (max_loss is None):
        raise UsageError(f"Give keep_bytes or max_loss. Received: {keep_bytes} and {max_loss}")
    if max_loss is not None and loss is None:
        raise UsageError(f"A budget of loss needs loss=. Received: max_loss={max_loss:g}")
    kernels = weighed(model, outputs, layers, each)
    if keep_bytes is not None:
        return _within_bytes(kernels, keep_bytes)
    return _within_loss(kernels, max_loss, loss)


def _within_bytes(kernels: list[Kernel], keep_bytes: float) -> Shared:
    whole = sum(4 * kernel.values.array.size for kernel in kernels)
    found, last = _best(kernels, lambda shared: _bytes(shared) <= keep_bytes * whole, tighter=1 / STRIDE)
    if found is None:
        raise UsageError(
            f"These kernels keep at least {_bytes(last) / whole:.4f} of their bytes. "
            f"Received: keep_bytes={keep_bytes:g}"
        )
    return found


def _within_loss(kernels: list[Kernel], max_loss: float, loss: Callable[[], float]) -> Shared:
    before = loss()

    def added(shared: Shared) -> float:
        shared.write()
        return loss() - before

    found, last = _best(kernels, lambda shared: added(shared) <= max_loss, tighter=STRIDE)
    if found is None:
        least = added(last)
        _restore(kernels)
        raise UsageError(f"Any sharing adds {least:.4g} to the loss. Received: max_loss={max_loss:g}")
    return found


def _best(
    kernels: list[Kernel], fits: Callable[[Shared], bool], tighter: float
) -> tuple[Shared | None, Shared]:
    """The sharing that fits just so, written, and the last that was tried.

    None, and the kernels are as they were, where no price fits. A price times `tighter` fits less well. From
    a price that leaves a usual kernel about 16 values it goes up or down until one price fits and one does
    not; then the interval between their logarithms is halved.
    """
    usual = [kernel.weight * kernel.values.variance for kernel in kernels]
    usual = [one for one in usual if 0 < one < math.inf]
    price = TRIAL * float(np.median(usual)) if usual else 1.0
    good = bad = found = None
    strides, halvings = STRIDES, HALVINGS
    try:
        while strides and halvings:
            shared = Shared(tuple(kernel.shared(price) for kernel in kernels))
            if fits(shared):
                good, found = price, shared
            else:
                bad = price
            if good and bad:
                price, halvings = math.sqrt(good * bad), halvings - 1
            else:
                price, strides = price * (tighter if good else 1 / tighter), strides - 1
    finally:
        _restore(kernels)
    if found:
        found.write()
    return found, shared


def _restore(kernels: Iterable[Kernel]) -> None:
    for kernel in kernels:
        kernel.variable.assign(kernel.values.array)


def weighed(model: Any, outputs: Outputs, layers: str = "conv", each: Each = iter) -> list[Kernel]:
    """Kernels and their weights: how far about 16 values in one move the outputs, for each unit of error.

    The change of an output is in parts of its variance, so that pixels do not outweigh logits. Raises
    `UsageError` as `share_by_rate` does.
    """
    whole, kernels = outputs(), []
    found = [row for row in kernels_of(model, layers) if math.prod(row[-1].shape)]
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
        if not math.isfinite(change):
            raise UsageError(
                "The outputs of the model must be finite on its images. "
                f"Received: others, with few values in {name}"
            )
        kernels.append(Kernel(name, variable, values, change / error if error else math.inf))
    return kernels


def _distance(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """Σ over outputs of the mean squared difference, in parts of the variance of `other`."""
    pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(one, other, strict=True)]
    with np.errstate(invalid="ignore"):  # infinite minus infinite: the caller asks
        return math.fsum(float(np.mean((a - b) ** 2)) / (float(b.var()) or 1.0) for a, b in pairs)


def _bytes(shared: Shared) -> float:
    return math.fsum(kernel.bytes for kernel in shared.kernels)
