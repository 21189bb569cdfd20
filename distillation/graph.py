"""A Keras model as a list of calls from input to output, as far as finding features needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from secateur.runs.errors import UsageError

LINEAR = ("linear", "softmax")  # activations that end a network or do nothing
BENT = {
    "relu",
    "relu6",
    "leakyrelu",
    "prelu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "swish",
    "hardswish",
    "hardsilu",
}


@dataclass(frozen=True)
class Call:
    """One use of a layer or operation: what is called, the tensors read and made, the longest way to it."""

    layer: Any
    inputs: tuple[Any, ...]
    output: Any
    depth: int

    @property
    def activation(self) -> str:
        """Name of the non-linearity that makes the output, in small letters; "" for none."""
        own = getattr(self.layer, "activation", None)
        kind = type(self.layer).__name__.lower()
        name = getattr(own, "__name__", "linear") if own is not None else kind
        return "softmax" if kind == "softmax" else name

    @property
    def bends(self) -> bool:
        """Whether the output is a map (b, h, w, c) behind a non-linearity."""
        own = getattr(self.layer, "activation", None)
        plain = type(self.layer).__name__.lower().replace("_", "")
        bent = plain in BENT or (own is not None and getattr(own, "__name__", "") not in LINEAR)
        return bent and len(self.output.shape) == 4

    @property
    def adds(self) -> bool:
        """Whether it merges maps by addition."""
        return type(self.layer).__name__ == "Add" and len(self.inputs) > 1 and len(self.output.shape) == 4


def calls_of(model: keras.Model) -> list[Call]:
    """Calls that the output depends on, producers before consumers.

    Raises `UsageError` for a model that is no graph from one input to one output.
    """
    inputs, outputs = getattr(model, "inputs", None) or [], getattr(model, "outputs", None) or []
    if (len(inputs), len(outputs)) != (1, 1):
        raise UsageError(
            f"Features are read off functional models with one input and one output. Received: "
            f"{type(model).__name__} {model.name!r} with {len(inputs)} and {len(outputs)}\n"
            "Build it with keras.Model(images, logits)"
        )
    found: dict[int, Call] = {}  # by id of the output tensor
    waiting = [outputs[0]]
    while waiting:
        tensor = waiting[-1]
        layer, node_index, place = tensor._keras_history
        node = layer._inbound_nodes[node_index]
        missing = [t for t in node.input_tensors if id(t) not in found]
        if missing and id(tensor) not in found:
            waiting += missing
            continue
        depth = 1 + max((found[id(t)].depth for t in node.input_tensors), default=0)
        found.setdefault(id(tensor), Call(layer, tuple(node.input_tensors), node.outputs[place], depth))
        waiting.pop()
    return list(found.values())


def producers(calls: list[Call]) -> dict[int, Call]:
    """id of a tensor → the call that makes it."""
    return {id(call.output): call for call in calls}
