"""Single weights set to zero by their magnitude: thresholds over all convolutions, or layer by layer.

Zeros stay zero in training with `pruning.constrain.gradients.hold_zeros`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.runs.errors import UsageError

DEEP = (0.27, 0.46, 0.60, 0.70, 0.80)
OTHERS = (0.22, 0.39, 0.51, 0.59, 0.66)
PERCENTS: dict[str, tuple[float, ...]] = {
    "ResNet-56": OTHERS,
    "ResNet-110": DEEP,
    "PreResNet-164": DEEP,
    "WRN-16-8": (0.27, 0.46, 0.60, 0.70, 0.77),
    "VGG-16": (0.20, 0.40, 0.60, 0.80, 0.95),
}
"""Architecture → ratio of all convolution weights that is zero after each round, those before included.

KESI's weight track, after Han et al. 2015."""


@dataclass(frozen=True)
class Zeroed:
    """What `zero_weights` has done.

    Attributes:
        threshold: largest magnitude that went; of `level` the largest one of all layers.
        zeros: convolution weights that are 0 now.
        total: convolution weights.
    """

    threshold: float
    zeros: int
    total: int


def percents(arch: str) -> tuple[float, ...]:
    """The published ratios of an architecture; of one without any those of ResNet-56, the mildest."""
    return PERCENTS.get(arch, OTHERS)


def threshold(kernels: Sequence[np.ndarray], percent: float) -> float:
    """The magnitude at place ⌊percent · total⌋, from 0, of all weights in ascending order.

    Args:
        kernels: arrays of any shapes, with at least one weight.
        percent: in [0, 1).

    Strictly larger weights are kept, so that one more weight than ⌊percent · total⌋ goes. Raises `UsageError`
    for a percent out of range and where there are no weights.
    """
    _check(percent)
    if not (total := sum(kernel.size for kernel in kernels)):
        raise UsageError("A threshold needs convolution weights. Received: none")
    magnitudes = np.concatenate([np.abs(kernel).ravel() for kernel in kernels])
    place = int(percent * total)
    return float(np.partition(magnitudes, place)[place])


def lowest(kernel: np.ndarray, sparsity: float) -> float:
    """The largest magnitude among the ⌊sparsity · size⌋ smallest of one kernel; −1, nothing, where that is 0.

    NNI's `LevelPruner`. Raises `UsageError` for a sparsity out of [0, 1).
    """
    _check(sparsity)
    count = int(sparsity * kernel.size)
    return float(np.partition(np.abs(kernel).ravel(), count - 1)[count - 1]) if count else -1.0


def above(kernel: np.ndarray, limit: float) -> np.ndarray:
    """The kernel with exact zeros where |w| ≤ limit."""
    return np.where(np.abs(kernel) > limit, kernel, 0).astype(kernel.dtype)


def zero_weights(model: Any, percent: float) -> Zeroed:
    """Zeroes in place the smallest weights of all convolutions together; dense layers and BN stay whole.

    `percent` in [0, 1) counts weights that are 0 already, so that a round's ratio includes those before.
    Raises `UsageError` as `threshold` does.
    """
    kernels = _kernels(model)
    limit = threshold([kernel.value for kernel in kernels], percent)
    return _assign(kernels, [limit] * len(kernels))


def level(model: Any, sparsity: float) -> Zeroed:
    """Zeroes in place the smallest weights of every convolution by itself (NNI's level pruning).

    Args:
        model: with convolutions.
        sparsity: ratio of each kernel that goes, in [0, 1).
    """
    kernels = _kernels(model)
    return _assign(kernels, [lowest(kernel.value, sparsity) for kernel in kernels])


def _kernels(model: Any) -> list:
    from secateur.nets.kernels import convolution_kernels  # brings TensorFlow; ratios come without

    return convolution_kernels(model)


def _assign(kernels: list, limits: list[float]) -> Zeroed:
    zeros = total = 0
    for kernel, limit in zip(kernels, limits, strict=True):
        value = above(kernel.value, limit)
        kernel.variable.assign(value)
        zeros, total = zeros + int((value == 0).sum()), total + value.size
    return Zeroed(max(limits, default=-1.0), zeros, total)


def _check(ratio: float) -> None:
    if not 0 <= ratio < 1:
        raise UsageError(f"A ratio of zeros is at least 0 and below 1. Received: {ratio}")
