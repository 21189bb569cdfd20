"""What a layer of layers does: its `call` is run once on symbolic tensors, and leaves its parts as a graph.

Nothing stays behind on the layer: Keras' records of these calls are taken off its inner layers again.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from secateur.nets.weighted import WeightsRefused, weighted
from secateur.runs.errors import first_line

BATCHES = (7919, 7907)  # primes: a multiple of one is a multiple of the number of images
KERAS_OWN = ("_layers", "_tracker", "_metrics", "_trainable_variables", "_non_trainable_variables")
READ = "_secateur_inside"  # on Keras' record of a call: what was read of it, for each mode of training


@dataclass(frozen=True)
class Inside:
    """The graph inside of a model or of a composite layer.

    Attributes:
        nodes: Keras' records of calls, and operations with weights; producers before consumers.
        inputs, outputs: symbolic tensors.
        names: id of an inner layer → the attribute that holds it; None: layers have names of their own.
    """

    nodes: list[Any]
    inputs: list[Any]
    outputs: list[Any]
    names: Mapping[int, str] | None = field(default=None)


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


def unfold(node: Any, training: bool | None) -> Inside | str:
    """What the layer of a call does, or in words why that cannot be seen.

    Args:
        node: Keras' record of the call.
        training: what the models around it were called with.
    """
    known = vars(node).setdefault(READ, {})
    if training not in known:
        try:
            with untouched(node.operation):
                known[training] = _inside(node, training)
        except WeightsRefused as error:
            known[training] = str(error)
        except Exception as error:  # whatever the layer's own code raises
            known[training] = unrun(error)
    return known[training]


def unrun(error: Exception) -> str:
    """Why a call does not run on symbolic tensors, without what Keras puts around the reason."""
    said = re.sub(r"\x1b\[\d*m|^Exception encountered[^\n]*\n", "", str(error))
    said = re.sub(r"(?s)^\s*Could not automatically infer.*?Error encountered:", "", said)
    return f"its call does not run on symbolic tensors ({first_line(said)})"


def _inside(node: Any, training: bool | None) -> Inside | str:
    layer = node.operation
    if layer.activity_regularizer is not None:
        return "it has an activity regulariser"
    mode = mode_of(node) if training is None else training
    found = _of_any_batch(node, mode)
    if isinstance(found, str) or not layer._call_has_training_arg:
        return found
    other = _of_any_batch(node, not mode)  # whoever calls the model has the last word
    if isinstance(other, str) or _print_of(other) != _print_of(found):
        return "its call does something else in training"
    return found


def _of_any_batch(node: Any, training: bool | None) -> Inside | str:
    """The graph; of a call that needs the number of images, as `reshape(x, (ops.shape(x)[0], -1))`, too."""
    try:
        return _run(node, training)
    except Exception:
        if all(t.shape and t.shape[0] is not None for t in node.arguments.keras_tensors):
            raise
        first, second = (_run(node, training, batch) for batch in BATCHES)
        same = isinstance(first, str) or isinstance(second, str) or _print_of(first) == _print_of(second)
        return first if same else "its call computes with the number of images"


def mode_of(node: Any) -> bool | None:
    """What a call says of training; None where it is the default, which Keras records as if it was said."""
    own = inspect.signature(node.operation.call).parameters.get("training")
    said = node.arguments.kwargs.get("training")
    return None if own is not None and said == own.default else said


def _run(node: Any, training: bool | None, batch: int | None = None) -> Inside | str:
    """The graph of a layer's `call` for the arguments of `node`; in words why there is none.

    Args:
        node: Keras' record of the call.
        training: what the layer is told.
        batch: number of images that the layer is shown where it is open; the graph is of any number.
    """
    layer, given = node.operation, node.arguments.keras_tensors
    fresh = {id(t): keras.KerasTensor(_closed(t.shape, batch), t.dtype) for t in given}
    args, kwargs = node.arguments.fill_in(fresh)
    if layer._call_has_training_arg:
        kwargs = kwargs | {"training": training}
    stand_in, weights = _with_symbolic_weights(layer)
    args, kwargs = keras.tree.map_structure(lambda x: _cast(layer, x), (args, kwargs))
    with keras.StatelessScope() as scope:
        made = keras.tree.flatten(stand_in.call(*args, **kwargs))
    if scope.state_mapping:
        return "its call changes variables"
    inputs = [fresh[id(t)] for t in given]
    nodes = in_order([x for x in made if isinstance(x, keras.KerasTensor)], _node)
    reached = {id(t) for n in nodes for t in n.outputs}.union(map(id, inputs))
    if len(made) != len(node.outputs) or any(id(x) not in reached for x in made):
        return "its outputs do not come from its inputs alone"
    if not batch and any(map(_counts_images, nodes)):
        raise WeightsRefused("its call needs the number of images")
    if batch:
        opened = [keras.KerasTensor(t.shape, t.dtype) for t in given]
        nodes, made = _opened(nodes, dict(zip(map(id, inputs), opened, strict=True)), made, batch)
        inputs = opened
    return Inside(weighted(layer, nodes, inputs, made, weights), inputs, made, _attributes(layer))


def _closed(shape: tuple, batch: int | None) -> tuple:
    return (batch, *shape[1:]) if batch and shape and shape[0] is None else shape


def _opened(nodes: list[Any], tensors: dict[int, Any], made: list[Any], batch: int) -> tuple[list, list]:
    """The calls once more on tensors of an open number of images; `tensors`: id of the old one → new one."""
    found = []
    for node in nodes:
        read = {id(t): tensors.get(id(t), t) for t in node.arguments.keras_tensors}
        args, kwargs = node.arguments.fill_in(read)
        again = keras.tree.flatten(_for_any(node, batch)(*args, **kwargs))
        tensors |= dict(zip(map(id, node.outputs), again, strict=True))
        found.append(_node(again[0]))
    return found, [tensors[id(t)] for t in made]


def _counts_images(node: Any) -> bool:
    """Whether the open number of images stands among the sizes that an operation was given."""
    given = [*vars(node.operation).values(), *node.arguments.args, *node.arguments.kwargs.values()]
    own = not isinstance(node.operation, keras.Layer) and type(node.operation).__name__ != "GetItem"
    return own and any(isinstance(x, (tuple, list)) and any(n is None for n in x) for x in given)


def _for_any(node: Any, batch: int) -> Any:
    """The operation for any number of images. Raises `WeightsRefused` where that stands in its options."""
    operation = node.operation
    own = [x for name, x in vars(operation).items() if not name.startswith("_")]
    given = (own, node.arguments.args, node.arguments.kwargs)
    layer = isinstance(operation, keras.Layer)
    if layer or not any(_counts(x, batch) for x in keras.tree.flatten(given)):
        return operation
    shape = [-1 if _counts(n, batch) else n for n in node.outputs[0].shape]
    if type(operation).__name__ != "Reshape" or shape.count(-1) > 1 or None in shape:
        raise WeightsRefused(f"its call needs the number of images (ops.{type(operation).__name__})")
    return type(operation)(tuple(shape))


def _counts(value: Any, batch: int) -> bool:
    """Whether a number, or the size of a constant, is a multiple of the number of images."""
    if isinstance(value, keras.KerasTensor):
        return False
    sizes = [value] if isinstance(value, int) else list(getattr(value, "shape", None) or ())
    return any(isinstance(n, int) and n > 0 and n % batch == 0 for n in sizes)


def _print_of(inside: Inside) -> list[tuple]:
    """What two runs of one call have in common."""
    return [
        (type(n.operation), *(tuple(t.shape) for t in n.outputs), *_numbers(n.operation))
        for n in inside.nodes
    ]


def _numbers(operation: Any) -> list[int]:
    own = [] if isinstance(operation, keras.Layer) else [*vars(operation).values()]
    return [x for x in keras.tree.flatten(own) if isinstance(x, int)]


def _cast(layer: Any, x: Any) -> Any:
    """As a layer does with what it is called on."""
    if (
        not isinstance(x, keras.KerasTensor)
        or not layer.autocast
        or not keras.backend.is_float_dtype(x.dtype)
    ):
        return x
    return x if x.dtype == layer.compute_dtype else keras.ops.cast(x, layer.compute_dtype)


def _with_symbolic_weights(layer: Any) -> tuple[Any, dict[int, tuple[str, Any]]]:
    """The layer with symbolic tensors for its own weights, and id of such a tensor → (attribute, variable).

    Operations of weights alone, as in a standardised kernel, leave nodes so. Models inside of it leave those
    of their layers, for the shapes that they are shown.
    """
    other, weights, known = object.__new__(type(layer)), {}, {}

    def replaced(name: str, value: Any) -> Any:
        if isinstance(value, keras.Variable):
            if id(value) not in known:
                half = layer.autocast and keras.backend.is_float_dtype(value.dtype)
                dtype = layer.compute_dtype if half else value.dtype
                known[id(value)] = keras.KerasTensor(value.shape, dtype)
            weights[id(known[id(value)])] = (name, value)
            return known[id(value)]
        if isinstance(value, keras.Model) and graph_of(value) is not None:
            return _called_as_its_layers(value)
        if isinstance(value, (list, tuple)) and any(map(_is_replaced, value)):
            return [replaced(f"{name}_{i}", x) for i, x in enumerate(value)]
        if isinstance(value, dict) and any(map(_is_replaced, value.values())):
            return {key: replaced(f"{name}_{key}", x) for key, x in value.items()}
        return value

    own = {name: value for name, value in vars(layer).items() if name not in KERAS_OWN}
    vars(other).update(vars(layer) | {name: replaced(name, value) for name, value in own.items()})
    return other, weights


def _is_replaced(value: Any) -> bool:
    return isinstance(value, (keras.Variable, keras.Model))


def _called_as_its_layers(model: keras.Model) -> keras.Model:
    """A stand-in whose call is the model's `call`, so that its layers are called one by one."""
    kind = type(model)
    made = type(
        kind.__name__, (kind,), {"__call__": lambda self, *args, **kwargs: self.call(*args, **kwargs)}
    )
    stand_in = object.__new__(made)
    vars(stand_in).update(vars(model))
    return stand_in


def given_name(operation: Any) -> str:
    """The name of a layer or operation; "" where Keras has numbered it by its class."""
    pattern = type(operation).__name__.lower() + r"\d*"
    return "" if re.fullmatch(pattern, operation.name.replace("_", "")) else operation.name


def _attributes(layer: Any) -> dict[int, str]:
    """Id of an inner layer → what it is called: its own name, or that of the attribute that holds it.

    Those in a list are numbered, "blocks_0"; those of a model inside stand behind its name, "stem/conv2d".
    """
    names: dict[int, str] = {}

    def add(around: str, name: str, value: Any) -> None:
        if isinstance(value, keras.Operation):
            own = names.setdefault(id(value), around + (given_name(value) or name.strip("_")))
            if isinstance(value, keras.Model) and graph_of(value) is not None:
                for one in graph_of(value).operations:
                    add(f"{own}/", type(one).__name__.lower(), one)
        elif isinstance(value, (list, tuple)):
            for i, one in enumerate(value):
                add(around, f"{name}_{i}", one)
        elif isinstance(value, dict):
            for key, one in value.items():
                add(around, f"{name}_{key}", one)

    for name, value in vars(layer).items():
        if name not in KERAS_OWN and not name.startswith("_self_"):
            add("", name, value)
    return names


@contextlib.contextmanager
def untouched(layer: Any) -> Iterator[None]:
    """Takes away at the end what Keras has noted on a layer and those inside of it."""
    layers = layer._flatten_layers() if isinstance(layer, keras.Layer) else [layer]
    inner = [x for one in layers for x in (one, *getattr(graph_of(one), "operations", ()))]
    before = [(one, len(one._inbound_nodes), len(one._outbound_nodes)) for one in inner]
    try:
        yield
    finally:
        for one, inbound, outbound in before:
            del one._inbound_nodes[inbound:], one._outbound_nodes[outbound:]


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


def _node(tensor: Any) -> Any:
    """Keras' record of the call that made a tensor; None for what a graph begins with."""
    history = getattr(tensor, "_keras_history", None)
    if history is None or history.operation is None:
        return None
    return history.operation._inbound_nodes[history.node_index]
