"""Layers for which LiteRT has no operation, made of those that it has."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from secateur.nets.copies import config_of, copied, flat_names, remade, with_same_weights
from secateur.nets.graph import Call, has_graph, trace


def lowered(model: keras.Model) -> keras.Model:
    """A copy that computes the same without them; a model that has none of them itself."""
    if not has_graph(model):
        return model
    graph = trace(model)
    names = flat_names(graph)
    others = {call.name: _substitute(call, names[call.name]) for call in graph.calls}
    if not any(others.values()):
        return model
    layers = {path: others[path] or copied(layer, names[path]) for path, layer in graph.layers.items()}
    return with_same_weights(model, graph, layers)


def _substitute(call: Call, name: str) -> Callable | None:
    if call.kind == "EinsumDense" and _adds_nothing_up(call.layer.equation):
        return remade(call.layer, Product, config_of(call.layer) | {"name": name})
    if call.kind == "ops.Roll" and call.layer.axis is not None:
        shifts = np.broadcast_arrays(call.layer.shift, call.layer.axis)
        moves = [(int(shift), int(axis)) for shift, axis in zip(*map(np.ravel, shifts), strict=True)]
        if all(call.input_shapes[0][axis] is not None for _, axis in moves):
            return lambda x, *_, **__: rolled(x, moves)
    return None


def _adds_nothing_up(equation: str) -> bool:
    read, kernel, made = re.split(",|->", equation)
    return read == made and "." not in made and set(kernel) <= set(made)


class Product(keras.layers.EinsumDense):
    """EinsumDense that adds nothing up. LiteRT runs such an einsum for one number of samples alone."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """(batch, …) → the same shape: inputs · kernel + bias."""
        _, kernel, made = re.split(",|->", self.equation)
        sizes = dict(zip(kernel, self.kernel.shape, strict=True))
        turned = keras.ops.transpose(
            self.kernel, np.argsort([made.index(letter) for letter in kernel]).tolist()
        )
        x = inputs * keras.ops.reshape(turned, [sizes.get(letter, 1) for letter in made])
        x = x if self.bias is None else x + self.bias
        return x if self.activation is None else self.activation(x)


def rolled(x: Any, moves: list[tuple[int, int]]) -> Any:
    """`keras.ops.roll` by (shift, axis) one after the other."""
    for shift, axis in moves:
        axis %= len(x.shape)
        if cut := -shift % x.shape[axis]:
            front, back = ((slice(None),) * axis + (part,) for part in (slice(cut), slice(cut, None)))
            x = keras.ops.concatenate([x[back], x[front]], axis)
    return x
