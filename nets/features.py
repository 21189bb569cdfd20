"""Named features of a network, so that distillation needs no hooks."""

from __future__ import annotations

import re
from collections.abc import Iterable

import keras

from secateur.runs.errors import UsageError
from secateur.runs.suggest import nearest


def features(model: keras.Model, layers: Iterable[str] | None = None) -> keras.Model:
    """A view of the model that returns `{"logits": …, layer name: output, …}`; the weights are shared.

    Args:
        model: functional model.
        layers: names of layers; default: the outputs of the stem, of each block and of the pooling. Blocks
            are what has a name such as `BasicBlock0.1_…`.
    """
    known = {layer.name: layer for layer in model.layers}
    names = list(layers) if layers is not None else _landmarks(known)
    for name in names:
        if name not in known:
            raise UsageError(f"No such layer. Received: layer={name!r}. {nearest(name, known)}")
    outputs = {name: known[name].output for name in names}
    return keras.Model(model.inputs, {"logits": model.output} | outputs, name=f"{model.name}_features")


def _landmarks(names: Iterable[str]) -> list[str]:
    """Of names in the order of the graph; the last one of a block is its output."""
    last = {}
    for name in names:
        found = re.match(r"([A-Za-z]+\d+\.\d+)_", name)
        if found or name in ("relu", "pool"):
            last[found[1] if found else name] = name
    return list(last.values())
