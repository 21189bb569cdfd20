"""EinsumDense: axes by the letters of its equation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

import numpy as np

from secateur.nets.graph import Call
from secateur.pruning.conventions import Convention
from secateur.pruning.layers.activations import mixes
from secateur.pruning.layers.labels import Labels
from secateur.pruning.layers.registry import Cut, layer_class


@dataclass(frozen=True)
class _Equation:
    """Letters of the axes behind the batch, of what is read and made, and those of the kernel.

    Axes that "..." leaves out at the front are called 0, 1, ….
    """

    read: str
    kernel: str
    made: str

    @classmethod
    def of(cls, call: Call) -> _Equation | None:
        """None where axes are left out at the end, or the batch is no axis that goes through."""
        found = re.fullmatch(r"(\.\.\.)?(\w+),(\w+)->(\.\.\.)?(\w+)", call.layer.equation)
        if not found or bool(found[1]) != bool(found[4]):
            return None
        left = "".join(map(str, range(len(call.input_shapes[0]) - len(found[2])))) if found[1] else ""
        read, kernel, made = left + found[2], found[3], left + found[5]
        return cls(read[1:], kernel, made[1:]) if read[0] == made[0] not in kernel else None


def _label(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """Channels that are summed over are read, others go through; where none does, new ones are made."""
    if (found := _Equation.of(call)) is None or len(labels) > 1:
        return "its equation is not understood"
    axis = next((axis for axis, n in enumerate(labels[0].shape) if n > 1), None)
    letter = "" if axis is None else found.read[axis]
    if letter and letter not in found.kernel + found.made:
        return "it sums over channels"
    vector = labels[0].reshape(-1)
    if letter and letter in found.made:
        axes = {"kernel": found.kernel.index(letter)} if letter in found.kernel else {}
        return _out(state, call, found, letter, "follower", axes, vector)
    if letter:
        state.use(call, "consumer", {"kernel": found.kernel.index(letter)}, vector)
    made = [letter for letter in found.made if letter not in found.read]
    if not made:
        whole = state.fresh(1) if letter else vector
        return [whole.reshape([1] * len(found.made))]
    size = call.shapes[0][1 + found.made.index(made[-1])]
    axes = {"kernel": found.kernel.index(made[-1])}
    return _out(state, call, found, made[-1], "producer", axes, state.fresh(size))


def _out(
    state: Labels, call: Call, found: _Equation, letter: str, role: str, axes: dict, vector: np.ndarray
) -> list[np.ndarray]:
    """Notes whose channels the weights serve, and gives the labels of the output."""
    place = found.made.index(letter)
    shape = tuple(call.layer.bias.shape) if call.layer.bias is not None else ()
    bias = place - (len(found.made) - len(shape))
    if bias >= 0 and shape[bias] == len(vector):
        axes = axes | {"bias": bias}
    if axes:
        state.use(call, role, axes, vector)
    if reason := mixes(call.layer.activation):
        state.lock(vector, f"{call.name}: {reason}")
    return [vector.reshape([-1 if axis == place else 1 for axis in range(len(found.made))])]


def _resize(config: dict, call: Call, left: Cut) -> dict:
    old = config["output_shape"]
    given = [old] if isinstance(old, int) else list(old)
    sizes = left.outputs[0][-len(given) :]
    return config | {
        "output_shape": [n if a is not None else None for a, n in zip(given, sizes, strict=True)]
    }


def _cost(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    """One multiplication for each combination of all letters; a bias for each position made."""
    bias = call.layer.bias
    n_bias = 0 if bias is None else prod(bias.shape[:-1]) * (n_out if bias.shape[-1] > 1 else 1)
    if (found := _Equation.of(call)) is None:
        return prod(call.layer.kernel.shape) + n_bias, 0
    sizes = dict(zip(found.read, call.input_shapes[0][1:], strict=True))
    sizes |= dict(zip(found.made, call.shapes[0][1:], strict=True))
    sizes[found.read[-1]] = n_in
    sizes[found.made[-1]] = n_out
    made = prod(sizes[letter] for letter in found.made)
    ops = rule.mac * prod(sizes.values()) + rule.bias * made * (bias is not None)
    return prod(sizes[letter] for letter in found.kernel) + n_bias, ops


layer_class("EinsumDense", label=_label, resize=_resize, cost=_cost)
