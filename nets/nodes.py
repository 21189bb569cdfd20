"""Keras' records of calls, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


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
