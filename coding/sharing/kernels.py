"""Which kernels of a model share weights, and with how many bits."""

from __future__ import annotations

import fnmatch
import numbers
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from secateur.runs.errors import UsageError
from secateur.runs.suggest import nearest, require

KINDS = ("conv", "dense", "all")
MOST_BITS = 16
VECTOR_BITS = range(2, 25)
"""Of rounded numbers, see `coding.sharing.rounding`."""

Bits = int | Mapping[str, int]
"""Of all kernels; or a table from "conv", "dense", layers, patterns of them ("stage4_*") or kernels to bits.

A layer that is itself called "conv" or "dense" is meant by the name of its kernel, "conv/kernel"."""
Kernel = tuple[str, str, Any]  # kind, "layer/weight", variable


def kernels_of(model: Any, layers: str = "conv") -> list[Kernel]:
    """(kind, "layer/weight", variable) of every kernel, also in models inside of it, each once.

    `layers` is one of `KINDS`. A kernel is a weight that Keras calls so: biases and BN's are none.
    """
    require(layers, KINDS, "kernels", "layers")
    found = {id(row[-1]): row for layer in model._flatten_layers() for row in _of(layer)}
    return _numbered([row for row in found.values() if layers in (row[0], "all")])


def _numbered(kernels: Sequence[Kernel]) -> list[Kernel]:
    """With "conv#2/kernel" for the second layer of a name: two models inside may both have a "conv"."""
    uses: Counter[str] = Counter()
    named = []
    for kind, name, variable in kernels:
        uses[name] += 1
        layer, _, weight = name.partition("/")
        own = name if uses[name] == 1 else f"{layer}#{uses[name]}/{weight}"
        named.append((kind, own, variable))
    return named


def chosen(kernels: Sequence[Kernel], bits: Bits) -> Iterator[tuple[str, Any, int]]:
    """(name, variable, bits) of the kernels that a line of `bits` fits; the first line that does counts.

    Raises `UsageError` for bits outside of 1 … `MOST_BITS` and for a line that fits nothing.
    """
    lines = {"*": bits} if isinstance(bits, numbers.Integral) else bits
    if not kernels:
        raise UsageError(f"The model has no such kernels to share weights in. Received: bits={bits}")
    for pattern, own in lines.items():
        if not (isinstance(own, numbers.Integral) and 1 <= own <= MOST_BITS):
            raise UsageError(f"Bits are 1 to {MOST_BITS}. Received: bits={own} for {pattern!r}")
        if not any(_fits(pattern, kind, name) for kind, name, _ in kernels):
            names = ["conv", "dense", *(name.partition("/")[0] for _, name, _ in kernels)]
            raise UsageError(f"No such kernel. Received: bits of {pattern!r}. {nearest(pattern, names, 8)}")
    for kind, name, variable in kernels:
        own = next((n for pattern, n in lines.items() if _fits(pattern, kind, name)), None)
        if own:
            yield name, variable, own


def _of(layer: Any) -> Iterator[Kernel]:
    """A model comes before its layers, which have the last word on the names of their weights."""
    from secateur.nets.kernels import MATRIX, filter_axes  # brings TensorFlow; the options come without

    conv, axes = any("Conv" in c.__name__ for c in type(layer).__mro__), filter_axes(layer)
    for variable in layer.variables:
        known = variable.name in axes
        if known or variable.name.endswith("kernel"):
            kind = "conv" if conv or (known and len(variable.shape) > MATRIX) else "dense"
            yield kind, f"{layer.name}/{variable.name}", variable


def _fits(pattern: str, kind: str, name: str) -> bool:
    return pattern in (kind, name) or fnmatch.fnmatchcase(name.partition("/")[0], pattern)
