"""Keras' records of calls, and the graph that they are of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras


def functional_of(model: Any) -> Any:
    """What holds the graph: a Sequential wraps a functional model that it built; others are themselves."""
    return getattr(model, "_functional", None) or model


def graph_of(layer: Any) -> Any:
    """The graph behind a model, None where there is none or where `call` has been replaced."""
    functional = functional_of(layer)
    if not isinstance(functional, keras.Model) or not getattr(functional, "_nodes_by_depth", None):
        return None
    own = type(functional).call.__module__.startswith("keras.")
    return functional if own and type(layer).call.__module__.startswith("keras.") else None


def node_of(tensor: Any) -> Any:
    """Keras' record of the call that made a tensor; None for what a graph begins with."""
    history = getattr(tensor, "_keras_history", None)
    if history is None or history.operation is None:
        return None
    return history.operation._inbound_nodes[history.node_index]


def in_order(tensors: Iterable[Any], node_of: Callable[[Any], Any]) -> list[Any]:
    """The calls behind symbolic tensors, producers first; `node_of` a tensor of the outside is None."""
    order, done = [], set()
    stack = [node for tensor in tensors if (node := node_of(tensor)) is not None]
    while stack:  # depth first without recursion: ResNet-1202 is deeper than Python's stack
        node = stack[-1]
        read = (node_of(tensor) for tensor in node.arguments.keras_tensors)
        waiting = [n for n in read if n is not None and id(n) not in done]
        if waiting:
            stack.extend(reversed(waiting))
            continue
        stack.pop()
        if id(node) not in done:
            done.add(id(node))
            order.append(node)
    return order
