"""Weights by name; kernels, and the axes that number their filters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.nets.graph import kind_of

MATRIX = 2  # axes of a dense kernel
Axes = dict[str, tuple[int, ...]]
FILTERS: dict[str, Axes] = {
    **dict.fromkeys(
        ("Conv1D", "Conv2D", "Conv3D", "MaskedConv2D", "Dense", "MaskedDense"), {"kernel": (-1,)}
    ),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), {"kernel": (-2,)}),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D", "MaskedDepthwiseConv2D"), {"kernel": (-2, -1)}),
    **dict.fromkeys(
        ("SeparableConv1D", "SeparableConv2D"), {"depthwise_kernel": (-2, -1), "pointwise_kernel": (-1,)}
    ),
}
"""Class of a layer, as `kind_of` calls it → kernel → the axes that number its filters.

All else that is known of a class stands in `pruning.layers`; this is here because `coding` rounds and folds
along the same axes and imports nothing of `pruning`.
"""


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
        rank = len(self.variable.shape)
        return tuple(axis for axis in range(rank) if axis - rank not in self.filters)


def filter_axes(layer: Any) -> Axes:
    """Kernel of a layer → the axes, from the end, that number its filters. Empty where it has no kernel.

    A class that is not known is taken for the one that it is derived from.
    """
    kinds = map(kind_of, type(layer).__mro__)
    known = next((FILTERS[kind] for kind in kinds if kind in FILTERS), {})
    ranks = {name: len(v.shape) for name, v in named_variables(layer).items()} if known else {}
    return {
        name: tuple(axis % ranks[name] - ranks[name] for axis in axes)
        for name, axes in known.items()
        if name in ranks
    }


def convolution_kernels(model: Any) -> list[Kernel]:
    """The kernels of all convolutions, also of those in models inside of it, each once; no dense layers."""
    found = {id(kernel.variable): kernel for layer in model._flatten_layers() for kernel in _of(layer)}
    return list(found.values())


def _of(layer: Any) -> Iterator[Kernel]:
    own = named_variables(layer) if (axes := filter_axes(layer)) else {}
    for weight, filters in axes.items():
        if len(own[weight].shape) > MATRIX:
            yield Kernel(f"{layer.name}/{weight}", own[weight], filters)


def named_variables(layer: Any) -> dict[str, Any]:
    """Variables by name; several of one name, as in a layer of layers, are numbered from the second on.

    An operation of `keras.ops` has none.
    Keras numbers variables without a name through the whole process: here each is called "variable".
    """
    named: dict = {}
    for variable in getattr(layer, "variables", ()):
        own = re.sub(r"^variable(_\d+)?$", "variable", variable.name)
        taken = sum(name.partition("#")[0] == own for name in named)
        named[f"{own}#{taken}" if taken else own] = variable
    return named
