"""How many bits each kernel gets: the least loss for a number of bytes, or the fewest bytes for a loss.

Plain NumPy. The losses of kernels are taken to add up, each measured while the others are whole (as in the
Lagrangian allocation of Shoham & Gersho 1988).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.coding.sharing.kernels import kernels_of
from secateur.coding.sharing.share import join, share_array, stored_bytes
from secateur.runs.errors import UsageError

BITS = range(2, 9)


@dataclass(frozen=True)
class Choice:
    """One way to store a kernel.

    Attributes:
        bits: of its codebook.
        bytes: what it takes, estimated or coded.
        loss: what it adds to the loss of the model; noise may make it negative.
    """

    bits: int
    bytes: float
    loss: float


Curves = Mapping[str, Sequence[Choice]]
"""Kernel → its choices, in any order."""


def allocate(
    curves: Curves, max_bytes: float | None = None, max_loss: float | None = None
) -> dict[str, Choice]:
    """A choice for each kernel, within one of the two budgets for their sum.

    Steps along the lower convex hull of every curve are taken in the order of loss per byte: for bytes from
    the smallest files upwards, for a loss from the best ones downwards; a step that does not fit ends its
    kernel's. What is reached before the first that does not fit is optimal for what it takes; at the end no
    allocation is better by more than that one step.

    Raises `UsageError` unless just one budget is given, and where nothing is within it.
    """
    if (max_bytes is None) == (max_loss is None):
        raise UsageError(f"Give max_bytes or max_loss. Received: max_bytes={max_bytes}, max_loss={max_loss}")
    hulls = {name: lower_hull(choices) for name, choices in curves.items()}
    steps = [(name, *pair) for name, line in hulls.items() for pair in zip(line, line[1:], strict=False)]
    steps.sort(key=lambda step: _rate(*step[1:]))
    if max_bytes is not None:
        return _walk({name: line[0] for name, line in hulls.items()}, steps, "bytes", max_bytes)
    back = [(name, after, before) for name, before, after in reversed(steps)]
    return _walk({name: line[-1] for name, line in hulls.items()}, back, "loss", max_loss)


def lower_hull(choices: Iterable[Choice]) -> list[Choice]:
    """Those that some price of a byte makes the best, by rising bytes and falling loss."""
    line: list[Choice] = []
    for one in sorted(choices, key=lambda choice: (choice.bytes, choice.loss)):
        if line and one.loss >= line[-1].loss:
            continue
        while len(line) > 1 and _rate(line[-2], line[-1]) >= _rate(line[-1], one):
            line.pop()
        line.append(one)
    return line


def _rate(before: Choice, after: Choice) -> float:
    """Loss for each further byte, below 0."""
    return (after.loss - before.loss) / (after.bytes - before.bytes)


def _walk(
    start: dict[str, Choice], steps: Iterable[tuple[str, Choice, Choice]], what: str, limit: float
) -> dict[str, Choice]:
    chosen, total = start, total_of(start.values(), what)
    if total > limit:
        raise UsageError(f"At least {total:g} is needed. Received: max_{what}={limit:g}\nallow other bits")
    for name, before, after in steps:
        changed = {**chosen, name: after}
        if chosen[name] is before and total_of(changed.values(), what) <= limit:
            chosen = changed
    return chosen


def choose_bits(
    model: Any,
    loss: Callable[[], float],
    keep_bytes: float | None = None,
    max_loss: float | None = None,
    layers: str = "conv",
    linear: bool = False,
) -> dict[str, int]:
    """A table of bits, for `share`, within a budget.

    Args:
        model, loss, layers, linear: see `measure`.
        keep_bytes: ratio of the float32 bytes of these kernels that is to stay, estimated; in (0, 1).
        max_loss: what sharing may add to the loss, estimated.

    Raises `UsageError` unless just one of the two is given, and where nothing is within it.
    """
    if (keep_bytes is None) == (max_loss is None):
        raise UsageError(f"Give keep_bytes or max_loss. Received: {keep_bytes} and {max_loss}")
    dense = sum(4 * int(np.prod(variable.shape)) for *_, variable in kernels_of(model, layers))
    if keep_bytes is not None and (least := _least(model, layers, linear)) > keep_bytes * dense:
        raise UsageError(
            f"{BITS[0]} bits for every kernel keep {least / dense:.4f} of their bytes. "
            f"Received: keep_bytes={keep_bytes:g}"
        )
    curves = measure(model, loss, BITS, layers, linear)
    found = allocate(curves, max_bytes=keep_bytes and keep_bytes * dense, max_loss=max_loss)
    return {name: choice.bits for name, choice in found.items()}


def _least(model: Any, layers: str, linear: bool) -> float:
    """Bytes of all kernels with the fewest bits."""
    values = (np.asarray(variable.numpy()) for *_, variable in kernels_of(model, layers))
    return sum(stored_bytes(*share_array(value, 2 ** BITS[0], linear)[:2]) for value in values)


def calls_of_loss(model: Any, layers: str = "conv") -> int:
    """How often `choose_bits` asks for the loss."""
    return 1 + len(BITS) * len(kernels_of(model, layers))


def total_of(choices: Iterable[Choice], what: str) -> float:
    """The sum of their "bytes" or "loss"."""
    return math.fsum(getattr(choice, what) for choice in choices)


def measure(
    model: Any,
    loss: Callable[[], float],
    bits: Iterable[int] = BITS,
    layers: str = "conv",
    linear: bool = False,
) -> dict[str, list[Choice]]:
    """Kernel, as `share` calls it in its table of bits, → its choices: shared by itself and then restored.

    Args:
        model: Keras model; at the end its weights are as before.
        loss: of the model as it is then, on images that may decide: holdout or training, not test.
        bits: to try; one call of `loss` for each and each kernel, and one for the whole model.
        layers, linear: see `coding.sharing.share.share`.
    """
    whole, curves = loss(), {}
    for _, name, variable in kernels_of(model, layers):
        value = np.asarray(variable.numpy())
        curves[name] = []
        try:
            for own in bits:
                codebook, labels, _ = share_array(value, 2**own, linear)
                variable.assign(join(codebook, labels))
                curves[name].append(Choice(own, stored_bytes(codebook, labels), loss() - whole))
        finally:
            variable.assign(value)
    return curves
