"""What a layer of layers does: its `call` is run once on symbolic tensors, and leaves its parts as a graph.

Nothing stays behind on the layer: Keras' records of these calls are taken off its inner layers again.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from secateur.nets.any_batch import closed, counts_images, rewritten, stacks
from secateur.nets.nodes import graph_of, in_order, node_of
from secateur.nets.recognised import as_dropout, as_norm
from secateur.nets.stand_ins import KERAS_OWN, with_symbolic_weights
from secateur.nets.weighted import WeightsRefused, weighted
from secateur.runs.errors import reason_of_keras

BATCHES = (7919, 7907)  # primes: a multiple of one is a multiple of the number of images
WINDOWS = (1, 576)  # that the images are times these: a call on windows divides by their number
CONSTANT = "its outputs do not come from its inputs alone"
READ = "_secateur_inside"  # on Keras' record of a call: what was read of it, for each mode of training


@dataclass(frozen=True)
class Inside:
    """The graph inside of a model or of a composite layer.

    Attributes:
        nodes: Keras' records of calls, and operations with weights; producers before consumers.
        inputs, outputs: symbolic tensors; None for an output that is a constant.
        names: id of an inner layer → the attribute that holds it; None: layers have names of their own.
    """

    nodes: list[Any]
    inputs: list[Any]
    outputs: list[Any]
    names: Mapping[int, str] | None = field(default=None)

    @functools.cached_property
    def read(self) -> set[int]:
        """Ids of the tensors that a call reads, or that are outputs."""
        calls = (n.arguments.keras_tensors if hasattr(n, "arguments") else [n.read] for n in self.nodes)
        return {id(t) for tensors in (*calls, self.outputs) for t in tensors}


def unfold(node: Any, training: bool | None) -> Inside | str:
    """What the layer of a call does, or in words why that cannot be seen.

    Args:
        node: Keras' record of the call.
        training: what the models around it were called with.
    """
    known = vars(node).setdefault(READ, {})
    if training not in known:
        with untouched(node.operation):
            known[training] = _inside(node, training)
    return known[training]


def at_sizes(node: Any, inside: Inside, given: list[Any]) -> Inside:
    """The graph of a model inside, run once more where it leaves sizes open that this call fixes.

    Args:
        node: Keras' record of the call.
        inside: the graph as the model was built.
        given: the tensors that the call reads, one for each of the model's inputs.
    """
    sizes = (zip(x.shape, t.shape, strict=False) for x, t in zip(inside.inputs, given, strict=True))
    if not any(own is None and size is not None for pairs in sizes for own, size in [*pairs][1:]):
        return inside
    known = vars(node).setdefault(READ, {})
    if "sizes" not in known:
        model, fresh = graph_of(node.operation), [keras.KerasTensor(t.shape, t.dtype) for t in given]
        with untouched(node.operation), contextlib.suppress(Exception):  # whatever its layers' code raises
            made = keras.tree.flatten(model.call(keras.tree.pack_sequence_as(model._inputs_struct, fresh)))
            known["sizes"] = Inside(in_order(made, node_of), fresh, made)
    return known.get("sizes", inside)


def unrun(error: Exception) -> str:
    """Why a call does not run on symbolic tensors, without what Keras puts around the reason."""
    return f"its call does not run on symbolic tensors ({reason_of_keras(error)})"


def _inside(node: Any, training: bool | None) -> Inside | str:
    layer = node.operation
    if layer.activity_regularizer is not None:
        return "it has an activity regulariser"
    if isinstance(layer, keras.layers.Lambda) and _has_state(layer.function):
        return "its function has weights, which no layer holds"
    if not isinstance(norm := _tried(_norm, node), str):
        return norm
    mode = mode_of(node) if training is None else training
    found = _tried(_of_any_batch, node, mode)
    if not layer._call_has_training_arg:
        return found
    other = _tried(_of_any_batch, node, not mode)  # whoever calls the model has the last word
    if not isinstance(found, str) and not isinstance(other, str) and _print_of(other) == _print_of(found):
        return found
    dropped = _tried(_dropped, node)
    if not isinstance(dropped, str):
        return dropped
    return found if isinstance(found, str) else dropped


def _has_state(function: Callable) -> bool:
    """Whether a function uses layers or variables of elsewhere, or cannot be looked into."""
    try:
        used = inspect.getclosurevars(function)
    except TypeError:
        return True
    values = keras.tree.flatten([*used.nonlocals.values(), *used.globals.values()])
    return any(isinstance(value, (keras.Layer, keras.Variable)) for value in values)


def _tried(function: Callable[..., Inside | str], *args: Any) -> Inside | str:
    try:
        return function(*args)
    except WeightsRefused as error:
        return str(error)
    except Exception as error:  # whatever the layer's own code raises
        return unrun(error)


def _norm(node: Any) -> Inside | str:
    """The graph of a layer that is a normalisation over channels."""
    read = node.arguments.keras_tensors
    if len(read) == len(node.outputs) == 1:
        x = keras.KerasTensor(read[0].shape, read[0].dtype)
        if made := as_norm(node.operation, x):
            return Inside([made], [x], made.outputs, {})
    return "it is no normalisation"


def _dropped(node: Any) -> Inside | str:
    """The graph of a layer that is a Dropout: it does nothing but in training."""
    read, dropout = node.arguments.keras_tensors, None
    if len(read) == len(node.outputs) == 1:
        with contextlib.suppress(Exception):  # whatever the layer's own code raises
            dropout = as_dropout(node.operation, read[0])
    if dropout is None:
        return "its call does something else in training"
    x = keras.KerasTensor(read[0].shape, read[0].dtype)
    made = dropout(x)
    return Inside([node_of(made)], [x], [made], {})


def _of_any_batch(node: Any, training: bool | None) -> Inside | str:
    """The graph; of a call that needs the number of images, as `reshape(x, (ops.shape(x)[0], -1))`, too."""
    try:
        return _run(node, training)
    except Exception:
        if all(t.shape and t.shape[0] is not None for t in node.arguments.keras_tensors):
            raise
    for windows in WINDOWS:
        try:
            first, second = (_run(node, training, batch, windows) for batch in BATCHES)
        except WeightsRefused:
            raise
        except Exception:
            if windows == WINDOWS[-1]:
                raise
        else:
            break
    same = isinstance(first, str) or isinstance(second, str) or _print_of(first) == _print_of(second)
    return first if same else "its call computes with the number of images"


def mode_of(node: Any) -> bool | None:
    """What a call says of training; None where it is the default, which Keras records as if it was said."""
    own = inspect.signature(node.operation.call).parameters.get("training")
    given = node.arguments.kwargs.get("training")
    return None if own is not None and given == own.default else given


def _run(node: Any, training: bool | None, batch: int | None = None, windows: int = 1) -> Inside | str:
    """The graph of a layer's `call` for the arguments of `node`; in words why there is none.

    Args:
        node: Keras' record of the call.
        training: what the layer is told.
        batch, windows: where the number of images is open the layer is shown their product; the graph is of
            any number.
    """
    layer, given = node.operation, node.arguments.keras_tensors
    fresh = {id(t): keras.KerasTensor(closed(t.shape, batch and batch * windows), t.dtype) for t in given}
    args, kwargs = node.arguments.fill_in(fresh)
    kwargs = {name: x for name, x in kwargs.items() if name != "training"}  # Keras records it for all layers
    if layer._call_has_training_arg:
        kwargs = kwargs | {"training": training}
    stand_in, weights = with_symbolic_weights(layer)
    args, kwargs = keras.tree.map_structure(lambda x: _cast(layer, x), (args, kwargs))
    with keras.StatelessScope() as scope:
        made = [x for x in keras.tree.flatten(stand_in.call(*args, **kwargs)) if x is not None]
    if scope.state_mapping:
        return "its call changes variables"
    inputs = [fresh[id(t)] for t in given]
    nodes = in_order([x for x in made if isinstance(x, keras.KerasTensor)], node_of)
    symbolic = [isinstance(x, keras.KerasTensor) for x in made]
    reached = {id(t) for n in nodes for t in n.outputs}.union(map(id, inputs))
    alone = all(id(x) in reached for x, own in zip(made, symbolic, strict=True) if own)
    if len(made) != len(node.outputs) or not alone or not any(symbolic):
        return CONSTANT
    if not batch and any(map(counts_images, nodes)):
        raise WeightsRefused("its call needs the number of images")
    if batch or any(map(stacks, nodes)):
        opened = [keras.KerasTensor(t.shape, t.dtype) for t in given]
        nodes, again = rewritten(nodes, dict(zip(map(id, inputs), opened, strict=True)), made, batch)
        made, inputs = [again.get(id(x), x) for x in made], opened
    outputs = [x if own else None for x, own in zip(made, symbolic, strict=True)]
    calls = weighted(layer, nodes, inputs, [x for x in outputs if x is not None], weights)
    return Inside(calls, inputs, outputs, _attributes(layer))


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
