"""The functional graph as a list: which operation reads and writes which tensors, in runnable order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from runs.errors import UsageError


@dataclass(frozen=True)
class Call:
    """One use of a layer: ids of the symbolic tensors that it reads and makes, and their shapes."""

    layer: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_shapes: tuple[tuple, ...]
    shapes: tuple[tuple, ...]

    @property
    def kind(self) -> str:
        """Name of the layer's class."""
        return type(self.layer).__name__


def trace_calls(model: keras.Model) -> list[Call]:
    """Calls of a functional model, producers before consumers, first input of a merge first.

    Raises `UsageError` for a model without a graph (subclassed or unbuilt).
    """
    model = getattr(model, "_functional", None) or model  # a Sequential wraps the graph that it built
    if not isinstance(model, keras.Model) or not getattr(model, "_nodes_by_depth", None):
        raise UsageError(
            f"{getattr(model, 'name', model)!r} has no graph. Build it with the functional or Sequential API "
            f"and known input shapes. Received: {type(model).__name__}"
        )
    own = {id(node) for nodes in model._nodes_by_depth.values() for node in nodes}
    order, done, stack = [], set(), [_node(t) for t in reversed(model.outputs)]
    while stack:  # depth first without recursion: ResNet-1202 is deeper than Python's stack
        node = stack[-1]
        waiting = [n for t in node.arguments.keras_tensors if id(n := _node(t)) in own and id(n) not in done]
        if waiting:
            stack.extend(reversed(waiting))
            continue
        stack.pop()
        if id(node) not in done:
            done.add(id(node))
            order.append(_call(node))
    return order


def _node(tensor):
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def _call(node) -> Call:
    inputs = node.arguments.keras_tensors
    return Call(
        layer=node.operation,
        inputs=tuple(map(id, inputs)),
        outputs=tuple(map(id, node.outputs)),
        input_shapes=tuple(tuple(t.shape) for t in inputs),
        shapes=tuple(tuple(t.shape) for t in node.outputs),
    )


def tensor_ids(tensors) -> list[int]:
    """Ids by which `Call` names the given symbolic tensors."""
    return [id(t) for t in tensors]
