"""The functional graph as a list: which operation reads and writes which tensors, in runnable order.

Models inside the model are unfolded, and layers that are made of layers and operations: what is listed are
layers and raw operations only.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from secateur.nets.frames import over_frames
from secateur.nets.nodes import functional_of, graph_of, in_order, node_of
from secateur.nets.unfolding import (
    CONSTANT,
    Inside,
    at_sizes,
    given_name,
    mode_of,
    unfold,
    untouched,
)
from secateur.nets.weighted import Weighted
from secateur.runs.errors import UsageError
from secateur.runs.recursion import deep

OWN = ("keras", "secateur")
KNOWN: list[Callable[[str], Any]] = []
"""Functions of what `kind_of` calls a class: whether something is known of it, so that it stays a layer."""


def kind_of(make: type) -> str:
    """Name of a layer's class; "ops.Add" for a raw operation, "module.Name" for a class of others.

    keras.io's examples define layers with the names of Keras' own, which do something else.
    """
    if make.__module__.partition(".")[0] not in OWN:
        return f"{make.__module__}.{make.__name__}"
    return make.__name__ if issubclass(make, keras.Layer) else f"ops.{make.__name__}"


def _symbolic(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)


@dataclass(frozen=True)
class Call:
    """One use of a layer or of an operation of `keras.ops`.

    Attributes:
        layer: what is called; name: of the layer, behind the names of the models around it ("tower/conv1").
        inputs, outputs: numbers of the tensors that it reads and makes.
        input_shapes, shapes: of those, with the batch axis.
        node: Keras' record of the call; keys: id of its symbolic tensor for each of `inputs`.
        training: what the model around it was called with, as in `backbone(x, training=False)`; it counts
            more than what the call itself says, as in Keras.
        whole: why a layer of somebody's own could not be unfolded.
    """

    layer: Any
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_shapes: tuple[tuple, ...]
    shapes: tuple[tuple, ...]
    node: Any
    keys: tuple[int, ...]
    training: bool | None = None
    whole: str = ""

    @property
    def kind(self) -> str:
        """What `kind_of` calls the class of the layer."""
        return kind_of(type(self.layer))

    @property
    def constants(self) -> list[Any]:
        """Arguments that hold no tensor of the graph."""
        arguments = (*self.node.arguments.args, *self.node.arguments.kwargs.values())
        return [x for x in arguments if not any(map(_symbolic, keras.tree.flatten(x)))]

    def argument(self, position: int, name: str) -> Any:
        """What the call passed on at this place (−1: at none) or under this name; None where it did not."""
        args, kwargs = self.node.arguments.args, self.node.arguments.kwargs
        return args[position] if 0 <= position < len(args) else kwargs.get(name)

    def run(
        self, values: Sequence[Any], layer: Any = None, training: bool | None = None, free: bool = False
    ) -> list[Any]:
        """Repeats the call on other tensors, with this layer or another one in its place; flat outputs.

        `training`, or else that of the model around, overrules what the call recorded, as that of
        `model(x, training=…)` does: Keras records a layer's default (True for augmentation) as if the user
        had said it. `free` forgets both: the new model's own mode decides.
        """
        layer = layer or self.layer
        if self.kind == "InputLayer":
            return [layer.output]
        args, kwargs = self.node.arguments.fill_in(dict(zip(self.keys, values, strict=True)))
        mode = self.training if training is None and not free else training
        if free:
            kwargs = {name: value for name, value in kwargs.items() if name != "training"}
        if mode is not None and getattr(layer, "_call_has_training_arg", False):
            kwargs = kwargs | {"training": mode}
        return keras.tree.flatten(layer(*args, **kwargs))


@dataclass(frozen=True)
class Graph:
    """Calls, producers before consumers, and the numbers of the model's inputs and outputs.

    `unfolded` are the paths of layers that are made of layers, `copied` those of layers that stand for
    operations with weights, of which they hold copies.
    """

    calls: list[Call]
    inputs: list[int]
    outputs: list[int]
    unfolded: tuple[str, ...] = ()
    copied: tuple[str, ...] = ()

    def check_in_place(self) -> None:
        """Raises `UsageError` where a weight of the graph is not the model's own variable."""
        if self.copied:
            raise UsageError(
                "Weights that an operation reads, as in x * self.gamma, cannot be held in place. Received: "
                f"{self.copied[0]!r}\ntake the model that secateur.functional(model) makes"
            )

    def without_prefix(self, prefix: str) -> Graph:
        """The same with shorter paths."""
        calls = [replace(call, name=call.name.removeprefix(prefix)) for call in self.calls]
        return replace(self, calls=calls)

    @functools.cached_property
    def layers(self) -> Mapping[str, Any]:
        """Name → layer or operation, each once."""
        return {call.name: call.layer for call in self.calls}

    @property
    def output_shapes(self) -> list[tuple]:
        """Of the model's outputs, with the batch axis."""
        shapes = {t: s for call in self.calls for t, s in zip(call.outputs, call.shapes, strict=True)}
        return [shapes[tensor] for tensor in self.outputs]

    def depths(self) -> dict[int, int]:
        """Number of a tensor → calls on the longest way to it from an input."""
        found: dict[int, int] = {}
        for call in self.calls:
            longest = 1 + max((found[tensor] for tensor in call.inputs), default=0)
            found |= dict.fromkeys(call.outputs, longest)
        return found

    def readers(self) -> dict[int, list[Call | None]]:
        """Number of a tensor → the calls that read it, once for each time; None stands for the outside."""
        found = {tensor: [] for call in self.calls for tensor in call.outputs}
        for call in self.calls:
            for tensor in call.inputs:
                found[tensor].append(call)
        for tensor in self.outputs:
            found[tensor].append(None)
        return found


def trace(model: keras.Model) -> Graph:
    """Reads the graph of a functional or Sequential model, first input of a merge first.

    Raises `UsageError` for a model without a graph (subclassed or unbuilt).
    """
    if not isinstance(model, keras.Operation):
        raise UsageError(f"This is no Keras model. Received: {type(model).__name__} {str(model)[:60]!r}")
    if (graph := graph_of(model)) is None:
        subclassed = isinstance(model, keras.Model) and not isinstance(model, keras.Sequential)
        remedy = "\nsecateur.functional(model, input_shape) makes a model with one" if subclassed else ""
        raise UsageError(
            f"{model.name!r} has no graph. Build it with the functional or Sequential API "
            f"and known input shapes. Received: {type(model).__name__}{remedy}"
        )
    walk = _Walk()
    known = walk.read(_graph_inside(graph), "", {}, None)
    inputs, outputs = ([known[id(t)] for t in tensors] for tensors in (graph.inputs, graph.outputs))
    calls = _needed(walk.calls, outputs)
    names = {call.name for call in calls}
    copied = (name for _, name, _ in walk.layers if name in names)
    return Graph(calls, inputs, outputs, tuple(walk.unfolded), tuple(copied))


def _needed(calls: list[Call], outputs: list[int]) -> list[Call]:
    """Inputs, and the calls that the outputs come from: of what is unfolded some tensors may be unread."""
    needed, found = set(outputs), []
    for call in reversed(calls):
        if call.kind == "InputLayer" or needed.intersection(call.outputs):
            needed.update(call.inputs)
            found.append(call)
    return found[::-1]


def has_graph(model: Any) -> bool:
    """Whether `trace` reads it."""
    return graph_of(model) is not None


def rebuilt(model: keras.Model, graph: Graph, run: Callable[[Call, list[Any]], Sequence[Any]]) -> keras.Model:
    """A model of the same inputs and outputs whose graph is run once more.

    Args:
        model: what `graph` was traced from.
        graph: its calls.
        run: (call, what it reads now) → what it makes now, flat. Of an input it makes the input.
    """
    values: dict[int, Any] = {}
    for call in graph.calls:
        values |= dict(zip(call.outputs, run(call, [values[t] for t in call.inputs]), strict=True))
    functional = functional_of(model)

    def like(structure: Any, numbers: list[int]) -> Any:
        return keras.tree.pack_sequence_as(structure, [values[n] for n in numbers])

    with deep(len(graph.calls)):
        return keras.Model(
            like(functional._inputs_struct, graph.inputs),
            like(functional._outputs_struct, graph.outputs),
            name=model.name,
        )


class _Walk:
    """Lists the calls of a graph and of all graphs inside of it."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.unfolded: dict[str, None] = {}
        self._numbers, self._names = itertools.count(), {}
        self._taken: set[str] = set()
        self._framed: dict[int, keras.Layer] = {}
        self.layers: list[tuple[Weighted, str, Any]] = []

    def read(self, part: Inside, prefix: str, known: dict[int, int], training: bool | None) -> dict[int, int]:
        """Appends the calls of one graph; `known` maps ids of its symbolic tensors to our numbers."""
        for node in part.nodes:
            if isinstance(node, Weighted):
                self._read_weighted(node, prefix, known, training)
                continue
            if node.is_input and id(node.outputs[0]) in known:  # stands for a tensor outside
                continue
            self._read_call(part, node, prefix, known, training)
        return known

    def _read_call(
        self, part: Inside, node: Any, prefix: str, known: dict[int, int], training: bool | None
    ) -> None:
        if _does_nothing(node):
            known[id(node.outputs[0])] = known[id(node.arguments.keras_tensors[0])]
            return
        name = self._name(part, node.operation, prefix)
        if kind_of(type(node.operation)) == "TimeDistributed" and self._read_frames(
            node, name, known, training
        ):
            return
        inner, whole = _inside(node, training)
        if inner and any(
            m is None and id(t) in part.read for t, m in zip(node.outputs, inner.outputs, strict=True)
        ):
            inner, whole = None, CONSTANT
        if inner is None:
            known |= {id(tensor): next(self._numbers) for tensor in node.outputs}
            self.calls.append(_call(node, name, known, training, whole))
            return
        model = graph_of(node.operation)
        given = node.arguments.keras_tensors if model is None else _read_by(model, node)
        inside = {id(t): known[id(x)] for t, x in zip(inner.inputs, given, strict=True)}
        given = node.arguments.kwargs.get("training") if inner.names is None else mode_of(node)
        if inner.names is not None:
            self.unfolded[name] = None
        inside = self.read(inner, f"{name}/", inside, given if training is None else training)
        for tensor, made in zip(node.outputs, inner.outputs, strict=True):
            if made is not None:
                known[id(tensor)] = inside[id(made)]

    def _read_frames(self, node: Any, name: str, known: dict[int, int], training: bool | None) -> bool:
        """Lists what a model or composite layer does to every frame; False where it stays whole."""
        operation, read = node.operation, node.arguments.keras_tensors
        if len(read) != 1:
            return False
        frame = keras.KerasTensor((read[0].shape[0], *read[0].shape[2:]), read[0].dtype)
        with untouched(operation.layer):
            operation.layer(frame)
            call = operation.layer._inbound_nodes[-1]
        inner, _ = _inside(call, training)
        if inner is None:
            return False
        part = _Walk()
        inside = part.read(inner, f"{name}/", {id(inner.inputs[0]): -1}, training)
        numbers, calls = {-1: known[id(read[0])]}, []
        for one in part.calls:
            wrapped = over_frames(one.node, read[0].shape[1], self._framed, one.name.rpartition("/")[2])
            if wrapped is None:
                return False
            tensors = wrapped.arguments.keras_tensors
            ids = {id(t): numbers[n] for t, n in zip(tensors, one.inputs, strict=True)}
            for tensor, number in zip(wrapped.outputs, one.outputs, strict=True):
                ids[id(tensor)] = numbers[number] = next(self._numbers)
            calls.append(_call(wrapped, one.name, ids, training, one.whole))
        self.calls += calls
        self.unfolded[name] = None
        known[id(node.outputs[0])] = numbers[inside[id(inner.outputs[0])]]
        return True

    def _read_weighted(
        self, made: Weighted, prefix: str, known: dict[int, int], training: bool | None
    ) -> None:
        layer, name = next(((x, n) for other, n, x in self.layers if _same_layer(made, other)), (None, ""))
        if layer is None:
            name = self._free(f"{prefix}{made.name}")
            layer = made.layer(name.rpartition("/")[2])
            self.layers.append((made, name, layer))
        else:
            layer(keras.KerasTensor(made.read.shape, made.read.dtype))
        node = layer._inbound_nodes[-1]
        known[id(made.outputs[0])] = next(self._numbers)
        inside = {id(node.arguments.keras_tensors[0]): known[id(made.read)]}
        inside[id(node.outputs[0])] = known[id(made.outputs[0])]
        self.calls.append(_call(node, name, inside, training, ""))

    def _name(self, part: Inside, operation: Any, prefix: str) -> str:
        """Inside of a composite layer, layers that Keras has named are called as their attributes.

        Keras numbers names through the whole process; those of layers that a model holds are saved with it.
        """
        if id(operation) not in self._names:
            if part.names is None:
                name = f"{prefix}{operation.name}"
            else:
                own = (
                    part.names.get(id(operation)) or given_name(operation) or type(operation).__name__.lower()
                )
                name = self._free(f"{prefix}{own}")
            self._names[id(operation)] = name
            self._taken.add(name)
        return self._names[id(operation)]

    def _free(self, name: str) -> str:
        others = (f"{name}_{n}" for n in itertools.count(1))
        found = next(one for one in itertools.chain([name], others) if one not in self._taken)
        self._taken.add(found)
        return found


def _does_nothing(node: Any) -> bool:
    """Whether it is how a model that is called by a layer makes tensors of its inputs."""
    read, made = node.arguments.keras_tensors, node.outputs
    return kind_of(type(node.operation)) == "ops.ConvertToTensor" and read[0].dtype == made[0].dtype


def _same_layer(a: Weighted, b: Weighted) -> bool:
    """Whether two operations are one layer that is called twice."""
    sizes = {"output_shape"}
    return (
        a.make is b.make
        and [*map(id, a.variables)] == [*map(id, b.variables)]
        and {k: v for k, v in a.config.items() if k not in sizes}
        == {k: v for k, v in b.config.items() if k not in sizes}
    )


def _inside(node: Any, training: bool | None) -> tuple[Inside | None, str]:
    """The graph behind a call, or None and why a layer of somebody's own has none."""
    if node.is_input or not isinstance(node.operation, keras.Layer):
        return None, ""
    if (model := graph_of(node.operation)) is not None:
        return at_sizes(node, _graph_inside(model), _read_by(model, node)), ""
    kind = kind_of(type(node.operation))
    own = type(node.operation).__module__.partition(".")[0] in OWN or any(known(kind) for known in KNOWN)
    if own and kind != "Lambda":
        return None, ""
    found = unfold(node, training)
    return (None, found) if isinstance(found, str) else (found, "")


def _graph_inside(model: Any) -> Inside:
    own = {id(node) for nodes in model._nodes_by_depth.values() for node in nodes}

    def inner(tensor: Any) -> Any:
        return node if id(node := node_of(tensor)) in own else None

    ends = (*model.inputs, *reversed(model.outputs))  # an input may be unused
    return Inside(in_order(ends, inner), model.inputs, model.outputs)


def _read_by(inner: Any, node: Any) -> list[Any]:
    """The tensors that a model inside reads, for each of its inputs; a dictionary may hold more of them."""
    args, kwargs = node.arguments.args, node.arguments.kwargs
    given = args[0] if args else kwargs.get("inputs")
    names = [tensor.name for tensor in inner.inputs]
    if isinstance(given, dict) and not isinstance(inner._inputs_struct, dict) and given.keys() >= set(names):
        return [given[name] for name in names]
    read = node.arguments.keras_tensors
    if len(read) < len(names):
        raise UsageError(
            f"{node.operation.name!r} has {len(names)} inputs. Received: a call with {len(read)} tensors"
        )
    return read[: len(names)]  # as Keras does


def _call(node: Any, name: str, known: dict[int, int], training: bool | None, whole: str) -> Call:
    read = node.arguments.keras_tensors
    return Call(
        layer=node.operation,
        name=name,
        inputs=tuple(known[id(t)] for t in read),
        outputs=tuple(known[id(t)] for t in node.outputs),
        input_shapes=tuple(tuple(t.shape) for t in read),
        shapes=tuple(tuple(t.shape) for t in node.outputs),
        node=node,
        keys=tuple(map(id, read)),
        training=training,
        whole=whole,
    )
