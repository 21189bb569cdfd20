"""The convolution kernels of a network as variables, with the axes that tell its filters apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

LAST = {"kernel": (-1,)}
BEFORE = {"kernel": (-2,)}
DEPTHWISE = {"kernel": (-2, -1)}
SEPARABLE = {"depthwise_kernel": (-2, -1), "pointwise_kernel": (-1,)}
FILTERS: dict[str, dict[str, tuple[int, ...]]] = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D", "MaskedConv2D"), LAST),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), BEFORE),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D", "MaskedDepthwiseConv2D"), DEPTHWISE),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), SEPARABLE),
}
"""Class of a layer, or of one that it is derived from → weight → the axes that number its filters."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """One kernel.

    Attributes:
        name: of the layer and the weight, "conv1/kernel".
        variable: Keras' own, which training moves.
        filters: axes that number the filters; all others lie inside of one.
    """

    name: str
    variable: Any
    filters: tuple[int, ...]

    @property
    def value(self) -> np.ndarray:
        """A copy of its weights."""
        return np.array(self.variable.numpy())

    @property
    def inside(self) -> tuple[int, ...]:
        """The axes that lie inside of a filter, counted from 0."""
        return inside(len(self.variable.shape), self.filters)


def inside(rank: int, filters: tuple[int, ...] = (-1,)) -> tuple[int, ...]:
    """The axes of an array that do not number filters: (0, 1, 2) of a kernel (h, w, in, out)."""
    return tuple(axis for axis in range(rank) if axis - rank not in filters)


def convolution_kernels(model: Any) -> list[Kernel]:
    """The kernels of all convolutions, also of those in models inside of it, each once; no dense layers."""
    found = {id(kernel.variable): kernel for layer in model._flatten_layers() for kernel in _of(layer)}
    return list(found.values())


def _of(layer: Any) -> Iterator[Kernel]:
    kind = next((c.__name__ for c in type(layer).__mro__ if c.__name__ in FILTERS), None)
    for weight, filters in FILTERS.get(kind, {}).items():
        yield Kernel(f"{layer.name}/{weight}", getattr(layer, weight), filters)
