"""Calls that count the images, as `reshape(x, (ops.shape(x)[0], -1))`, as calls for any number of images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import keras

from secateur.nets.nodes import in_order, node_of
from secateur.nets.weighted import WeightsRefused

PARTS = 4  # the most that are taken apart
SPREAD = {"Tile": "repeats", "BroadcastTo": "shape", "Repeat": "repeats"}


def closed(shape: tuple, batch: int | None) -> tuple:
    """The shape with this number of images where it is open."""
    return (batch, *shape[1:]) if batch and shape and shape[0] is None else shape


def stacks(node: Any) -> bool:
    """Whether it puts few parts in front of the images, as queries, keys and values in one tensor."""
    axes = getattr(node.operation, "axes", None)
    if type(node.operation).__name__ != "Transpose" or not axes or axes[0] == 0 or min(axes) < 0:
        return False
    size = node.arguments.keras_tensors[0].shape[axes[0]]
    return size is not None and size <= PARTS and axes[1] == 0


def rewritten(
    nodes: list[Any], tensors: dict[int, Any], made: list[Any], batch: int | None
) -> tuple[list[Any], dict[int, Any]]:
    """The calls once more, on tensors of an open number of images, which are along the first axis of all.

    A weight that is repeated for every image, as a class token, stays one. Parts that a transpose puts in
    front of the images are taken apart before it.

    Args:
        nodes: Keras' records of calls, producers first.
        tensors: id of an input → the new one.
        made: outputs.
        batch: a prime that divides the number of images of the old inputs; None: that was open.

    Returns the new records, and id of an old tensor → the new one. Raises `WeightsRefused` where a call needs
    the number.
    """
    try:
        return _rewritten(nodes, dict(tensors), made, batch, stacks)
    except _Together:
        return _rewritten(nodes, dict(tensors), made, batch, lambda node: False)


class _Together(Exception):
    """Parts that are not taken apart behind the transpose that has put them in front."""


def _rewritten(
    nodes: list[Any], tensors: dict[int, Any], made: list[Any], batch: int | None, apart: Callable
) -> tuple[list[Any], dict[int, Any]]:
    found, data, parts = [], {id(t) for t in tensors.values()}, {}
    for node in nodes:
        before = node.arguments.keras_tensors
        read = {id(t): tensors.get(id(t), t) for t in before}
        of_data = [isinstance(t, list) or id(t) in data for t in read.values()]
        args, kwargs = node.arguments.fill_in(read)
        operation = node.operation
        if any(id(t) in parts for t in before):
            again = _each(node, parts[id(before[0])], batch)
        elif any(of_data) and apart(node):
            again = [_apart(next(iter(read.values())), operation.axes)]
        else:
            operation = _for_any(node, batch, any(of_data))
            joins = type(operation).__name__ == "Concatenate" and any(of_data) and not all(of_data)
            again = [joined(args[0], operation.axis, data)] if joins else operation(*args, **kwargs)
            again = keras.tree.flatten(again)
        parts |= {id(old): new for old, new in zip(node.outputs, again, strict=True) if isinstance(new, list)}
        tensors |= dict(zip(map(id, node.outputs), again, strict=True))
        again, seen = keras.tree.flatten(again), {id(t) for t in keras.tree.flatten([*read.values()])}
        found += in_order(again, lambda t, seen=seen: None if id(t) in seen else node_of(t))
        data |= {id(t) for t in again if any(of_data)}
    if any(id(t) in parts for t in made):
        raise _Together
    return found, tensors


def _apart(x: Any, axes: Sequence[int]) -> list[Any]:
    """The parts of what `transpose` makes, each with the images in front."""
    rest = [axis - (axis > axes[0]) for axis in axes[1:]]
    return [keras.ops.transpose(part, rest) for part in keras.ops.unstack(x, axis=axes[0])]


def _each(node: Any, parts: list[Any], batch: int | None) -> list[Any]:
    """What a call makes of parts in a row. Raises `_Together` where it does not take them one by one."""
    kind, operation = type(node.operation).__name__, node.operation
    if kind == "Unstack" and operation.axis == 0:
        return parts
    if kind == "Reshape" and node.outputs[0].shape[0] == len(parts):
        given = operation.newshape[1:]
        shape = [-1 if batch and n and _counts(n, batch) else n for n in given]
        if shape.count(-1) <= 1 and None not in shape:
            return [[keras.ops.reshape(part, shape) for part in parts]]
    if kind == "GetItem":
        key = node.arguments.args[1] if len(node.arguments.args) > 1 else node.arguments.kwargs["key"]
        first, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(first, int):
            return [parts[first][tuple(rest)] if rest else parts[first]]
    raise _Together


def joined(parts: Sequence[Any], axis: int, data: Collection[int]) -> Any:
    """`concatenate` of data and weights: data among zeros, to which the weights are added.

    `data` are the ids of the tensors that are no weights.
    """
    axis %= len(parts[0].shape)
    if any(None in part.shape[1:] for part in parts):
        raise WeightsRefused("its call joins weights to an axis of open size")
    read, fronts, before = [], [], 0
    for part in parts:
        if id(part) in data:
            read.append(part)
            fronts.append(before)
            before = 0
        else:
            before += part.shape[axis]
    backs = [0] * (len(read) - 1) + [before]
    padded = [_padded(x, axis, *around) for x, *around in zip(read, fronts, backs, strict=True)]
    x = keras.ops.concatenate(padded, axis) if len(padded) > 1 else padded[0]
    values = [keras.ops.zeros((1, *p.shape[1:]), p.dtype) if id(p) in data else p for p in parts]
    return keras.ops.add(x, keras.ops.concatenate(values, axis))


def _padded(x: Any, axis: int, front: int, back: int) -> Any:
    width = [(front, back) if i == axis else (0, 0) for i in range(len(x.shape))]
    return keras.ops.pad(x, width) if front or back else x


def counts_images(node: Any) -> bool:
    """Whether the open number of images stands among the sizes that an operation was given."""
    given = [*vars(node.operation).values(), *node.arguments.args, *node.arguments.kwargs.values()]
    own = not isinstance(node.operation, keras.Layer) and type(node.operation).__name__ != "GetItem"
    return own and any(isinstance(x, (tuple, list)) and any(n is None for n in x) for x in given)


def _for_any(node: Any, batch: int | None, of_data: bool) -> Any:
    """The operation for any number of images. Raises `WeightsRefused` where that stands in its options."""
    operation, kind = node.operation, type(node.operation).__name__
    own = [x for name, x in vars(operation).items() if not name.startswith("_")]
    given = (own, node.arguments.args, node.arguments.kwargs)
    layer = isinstance(operation, keras.Layer)
    if layer or not batch or not any(_counts(x, batch) for x in keras.tree.flatten(given)):
        return operation
    if kind in SPREAD and not of_data:
        return _once(operation, batch)
    shape = [-1 if _counts(n, batch) else n for n in node.outputs[0].shape]
    if kind != "Reshape" or shape.count(-1) > 1 or None in shape:
        raise WeightsRefused(f"its call needs the number of images (ops.{kind})")
    return type(operation)(tuple(shape))


def _once(operation: Any, batch: int) -> Any:
    """What repeats a weight for every image, for one image."""
    option = SPREAD[type(operation).__name__]
    given = getattr(operation, option)
    sizes = [1 if _counts(n, batch) else n for n in keras.tree.flatten(given)]
    more = {"axis": operation.axis} if hasattr(operation, "axis") else {}
    return type(operation)(**{option: sizes[0] if isinstance(given, int) else tuple(sizes)}, **more)


def _counts(value: Any, batch: int) -> bool:
    """Whether a number, or the size of a constant, is a multiple of the number of images."""
    if isinstance(value, keras.KerasTensor):
        return False
    sizes = [value] if isinstance(value, int) else list(getattr(value, "shape", None) or ())
    return any(isinstance(n, int) and n > 0 and n % batch == 0 for n in sizes)
