"""The end of a network: softmax or sigmoid behind its logits, found, left out and put back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from secateur.nets.copies import config_of, copied, flat_names, hand_on_weights, remade
from secateur.nets.graph import Call, Graph, rebuilt, trace
from secateur.runs.errors import UsageError

SHARES = {"softmax": "softmax", "softmax_v2": "softmax", "sigmoid": "sigmoid"}
"""Functions whose outputs are shares, by their names; `tf.nn.softmax` calls itself "softmax_v2"."""
PASSING = {
    "Identity", "Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise", "SpatialDropout1D",
    "SpatialDropout2D", "SpatialDropout3D", "ActivityRegularization", "Reshape", "Flatten", "ops.Reshape",
    "ops.Squeeze", "ops.ExpandDims", "ops.Cast", "ops.SaturateCast", "ops.Copy", "ops.StopGradient",
}  # fmt: skip
"""Classes that hand on at inference the numbers that they read, in their order."""


@dataclass(frozen=True)
class Ending:
    """What makes an output of shares.

    Attributes:
        activation: "softmax" or "sigmoid".
        call: what applies it: a layer with an activation, or one that is nothing else.
        behind: the calls between it and the output, which change no number; the last one first.
        along_last: whether the shares along the last axis of the output add up to 1; so of a sigmoid, too.
    """

    activation: str
    call: Call
    behind: tuple[Call, ...]
    along_last: bool

    @property
    def alone(self) -> bool:
        """Whether the layer only applies the activation, and makes no logits itself."""
        return self.call.kind in ("Softmax", "Activation") or self.call.kind.startswith("ops.")


def ending_of(graph: Graph, output: int = 0) -> Ending | None:
    """The softmax or sigmoid that makes the shares of an output; None where it has others, as logits."""
    made_by = {tensor: call for call in graph.calls for tensor in call.outputs}
    call, behind = made_by[graph.outputs[output]], []
    shape = call.shapes[0]
    while not (name := _shares(call)):
        if not _passes(call):
            return None
        behind.append(call)
        call = made_by[call.inputs[0]]
    return Ending(name, call, tuple(behind), name == "sigmoid" or _along_last(call, shape))


def logits_of(model: keras.Model) -> keras.Model:
    """The same model without the softmax or sigmoid at its outputs, so that it gives logits.

    Args:
        model: functional or Sequential, with any number of outputs; it stays as it is.

    Returns fresh layers of the same names and weights, models inside of it unfolded; the model itself where
    no output has such an end. Raises `UsageError` for an end that something else reads, too.
    """
    graph = trace(model)
    ends = [end for i in range(len(graph.outputs)) if (end := ending_of(graph, i))]
    if not ends:
        return model
    for end in ends:
        _check_unread(model, graph, end)
    paths = {end.call.name: end for end in ends}
    names = flat_names(graph)
    layers = {path: _copy(layer, names[path], paths.get(path)) for path, layer in graph.layers.items()}

    def run(call: Call, values: list[Any]) -> Sequence[Any]:
        skipped = call.name in paths and paths[call.name].alone
        return values[:1] if skipped else call.run(values, layers[call.name])

    made = rebuilt(model, graph, run)
    hand_on_weights(graph, layers)
    return made


def with_ending(model: keras.Model, original: keras.Model) -> keras.Model:
    """A model of logits with the softmax or sigmoid, by name, options and type, that another one ends in.

    Args:
        model: what `logits_of(original)` gives, or what pruning made of that; it stays as it is.
        original: what may end in softmax or sigmoid.

    Returns fresh layers with the weights of `model`; `model` itself where there is nothing to put back.
    Raises `UsageError` for a model whose last layers are not those of the original.
    """
    theirs, graph = trace(original), trace(model)
    ends = [ending_of(theirs, i) for i in range(len(theirs.outputs))]
    if not any(ends):
        return model
    if len(ends) != len(graph.outputs):
        raise _foreign(model, original, f"{len(graph.outputs)} outputs instead of {len(ends)}")
    names, own = flat_names(theirs), flat_names(graph)
    added = {_place(model, original, graph, i, end): end for i, end in enumerate(ends) if end}
    activated = {
        call.name: added[tensor]
        for call in graph.calls
        for tensor in call.outputs
        if tensor in added and not added[tensor].alone
    }
    layers = {
        path: _copy(layer, own[path], activated.get(path), bare=False) for path, layer in graph.layers.items()
    }
    ends_alone = {t: copied(e.call.layer, names[e.call.name]) for t, e in added.items() if e.alone}

    def run(call: Call, values: list[Any]) -> Sequence[Any]:
        made = call.run(values, layers[call.name])
        pairs = zip(call.outputs, made, strict=True)
        return [ends_alone[t](value) if t in ends_alone else value for t, value in pairs]

    made = rebuilt(model, graph, run)
    hand_on_weights(graph, layers)
    return made


def _shares(call: Call) -> str:
    """ "softmax" or "sigmoid" where a call ends in one, else ""."""
    if call.kind in ("Softmax", "ops.Softmax", "ops.Sigmoid"):
        return call.kind.removeprefix("ops.").lower()
    own = None if isinstance(call.layer, keras.layers.RNN) else getattr(call.layer, "activation", None)
    return SHARES.get(getattr(own, "__name__", type(own).__name__).lower(), "")


def _passes(call: Call) -> bool:
    linear = call.kind == "Activation" and call.layer.activation is keras.activations.linear
    return (linear or call.kind in PASSING) and bool(call.inputs)


def _along_last(call: Call, shape: tuple) -> bool:
    """Whether a softmax is along the last axis, and that one is the output's last axis still."""
    axis = getattr(call.layer, "axis", -1)
    rank = len(call.shapes[0])
    return axis in (-1, rank - 1) and call.shapes[0][-1] == shape[-1]


def _check_unread(model: keras.Model, graph: Graph, end: Ending) -> None:
    """Raises `UsageError` where taking the end away would change more than one output."""
    readers, tail = graph.readers(), [end.call, *end.behind]
    tensors = [call.outputs[0] for call in tail] + ([end.call.inputs[0]] if end.alone else [])
    called = sum(call.name == end.call.name for call in graph.calls)
    if called > 1 or any(len(readers[tensor]) > 1 for tensor in tensors):
        raise UsageError(
            f"The {end.activation} at the end of {model.name!r} is read elsewhere, too: build the model of "
            f"logits yourself. Received: layer {end.call.name!r}"
        )


def _copy(layer: Any, name: str, end: Ending | None, bare: bool = True) -> Any:
    """A fresh layer; one that is an end has the ending's activation, or none."""
    if end is None or end.alone:
        return copied(layer, name)
    activation = "linear" if bare else config_of(end.call.layer)["activation"]
    config = config_of(layer)
    if "activation" not in config:
        raise UsageError(
            f"Layer {name!r} cannot be had without its {end.activation}: its get_config needs 'activation'. "
            f"Received: {type(layer).__name__}"
        )
    return remade(layer, type(layer), config | {"activation": activation, "name": name})


def _place(model: keras.Model, original: keras.Model, graph: Graph, output: int, end: Ending) -> int:
    """The tensor of logits in a model whose last calls are those of the original but for its end."""
    made_by = {tensor: call for call in graph.calls for tensor in call.outputs}
    tensor = graph.outputs[output]
    for behind in end.behind:
        if (call := made_by[tensor]).kind != behind.kind:
            raise _foreign(model, original, f"{call.kind} {call.name!r} instead of {behind.kind}")
        tensor = call.inputs[0]
    if not end.alone and not hasattr(made_by[tensor].layer, "activation"):
        raise _foreign(model, original, f"{made_by[tensor].kind} instead of {end.call.kind}")
    return tensor


def _foreign(model: keras.Model, original: keras.Model, why: str) -> UsageError:
    return UsageError(
        f"{model.name!r} does not end as {original.name!r} does without its softmax or sigmoid. "
        f"Received: {why}"
    )
