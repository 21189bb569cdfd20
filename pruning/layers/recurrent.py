"""Recurrent layers: a unit has a column of each gate in both kernels, a bias of each, and a row."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur.nets.graph import Call, kind_of
from secateur.pruning.conventions import Convention
from secateur.pruning.layers import running
from secateur.pruning.layers.activations import mixes
from secateur.pruning.layers.labels import Labels
from secateur.pruning.layers.producers import closed, read_channels
from secateur.pruning.layers.registry import Cut, Place, layer_class, staying

GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}
STATES = {"LSTM": 2, "GRU": 1, "SimpleRNN": 1}
INSIDE = {"forward_layer", "backward_layer", "cell"}
WHOLE = "its recurrent weights are left whole"


def _directions(layer: Any) -> list[Any]:
    """The layers that run along the sequence: one, or one for each direction."""
    return (
        [layer.forward_layer, layer.backward_layer]
        if isinstance(layer, keras.layers.Bidirectional)
        else [layer]
    )


def _gates(layer: Any) -> int:
    return GATES.get(kind_of(type(_directions(layer)[0])), 0)


def _refused(call: Call) -> str | None:
    """Why the units of a layer cannot be cut, if they cannot."""
    layers = _directions(call.layer)
    if len({kind_of(type(layer)) for layer in layers}) > 1 or not _gates(call.layer):
        return WHOLE
    if any(layer.stateful for layer in layers):
        return "it keeps its state from batch to batch"
    if len({layer.units for layer in layers}) > 1:
        return "its directions have different numbers of units"
    functions = [
        getattr(layer, name, None) for layer in layers for name in ("activation", "recurrent_activation")
    ]
    return closed(call) or next(filter(None, map(mixes, functions)), None)


def _label(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """Units of both directions go together, so that the layer stays one of Keras."""
    if reason := _refused(call):
        return reason
    layers = _directions(call.layer)
    made = state.fresh(layers[0].units)
    if any(
        x.shape != made.shape or s[1:] != made.shape
        for x, s in zip(labels[1:], call.input_shapes[1:], strict=True)
    ):
        return "its initial state is no vector of its units"
    for given in labels[1:]:
        state.unite(given, made)
    read, every = read_channels(state, call, labels), np.tile(made, _gates(call.layer))
    for i in range(len(layers)):
        end = f"#{i}" if i else ""
        state.use(call, "consumer", {f"kernel{end}": 0}, read)
        state.use(call, "producer", {f"kernel{end}": 1, f"recurrent_kernel{end}": 1, f"bias{end}": -1}, every)
        state.use(call, "follower", {f"recurrent_kernel{end}": 0}, made)
    return [
        np.tile(made, shape[-1] // len(made)).reshape([1] * (len(shape) - 2) + [-1]) for shape in call.shapes
    ]


def _resize(config: dict, call: Call, cut: Cut) -> dict:
    units = cut.outputs[0][-1] * _directions(call.layer)[0].units // call.shapes[0][-1]
    if call.kind != "Bidirectional":
        return config | {"units": units}
    inner = {name: config[name] for name in ("layer", "backward_layer") if name in config}
    return config | {
        name: given | {"config": given["config"] | {"units": units}, "build_config": None}  # of other sizes
        for name, given in inner.items()
    }


def _sized(call: Call) -> list[Place] | None:
    """What it reads, its units, and the columns of all gates; both directions have the same."""
    if not _gates(call.layer):
        return None
    return [("kernel", 0), ("recurrent_kernel", 0), ("recurrent_kernel", 1)]


def _cost(rule: Convention, call: Call, *sizes: int) -> tuple[int, int]:
    """Both kernels work once at each step; biases are added with them."""
    layers = _directions(call.layer)
    if not _gates(call.layer):
        return _cost_whole(rule, call, *sizes)
    read, units, columns = sizes
    kernel, biases = columns * (read + units), 0
    if layers[0].use_bias:
        biases = columns * len(layers[0].cell.bias.shape)  # GRU has two
    steps = call.input_shapes[0][1]
    return len(layers) * (kernel + biases), len(layers) * steps * (rule.mac * kernel + rule.bias * biases)


def _cost_whole(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    """All weights of any cell; each matrix works once at every step, at each pixel that one makes."""
    weights, (_, steps, *read) = call.layer.weights, call.input_shapes[0]
    pixels = call.shapes[0][-len(read) : -1] if len(read) > 1 else ()
    matrices = sum(prod(w.shape) for w in weights if len(w.shape) > 1)
    return sum(prod(w.shape) for w in weights), rule.mac * steps * prod(pixels) * matrices


def _run(call: Call, w: running.Weights, *xs: tf.Tensor) -> list[tf.Tensor]:
    """From states of zeros that are as wide as the recurrent kernel."""
    if "recurrent_kernel" not in w or len(xs) > 1:
        return running.layer_itself(call, w, *xs)
    units = tf.shape(w["recurrent_kernel"])[0]
    zeros = tf.zeros([tf.shape(xs[0])[0], units], xs[0].dtype)
    states = len(_directions(call.layer)) * STATES[kind_of(type(_directions(call.layer)[0]))]
    call = replace(call, layer=_of_units(call.layer, units))
    return running.layer_itself(call, w, *xs, initial_state=[zeros] * states)


def _of_units(layer: Any, units: tf.Tensor) -> Any:
    """The layer with another number of units in its cells, which part gates by it; of the same weights.

    The fused kernels of both directions ask for numbers of units that are no tensors.
    """
    other = object.__new__(type(layer))
    vars(other).update(vars(layer))
    for name in INSIDE & vars(layer).keys():
        vars(other)[name] = _of_units(getattr(layer, name), units)
    vars(other).update(
        {name: new for name, new in (("units", units), ("use_cudnn", False)) if name in vars(layer)}
    )
    return other


layer_class(*GATES, "Bidirectional", label=_label, resize=_resize, cost=_cost, sized=_sized, run=_run)
layer_class(
    *(f"{name}Cell" for name in GATES), "RNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D",
    label=staying(WHOLE), cost=_cost_whole,
)  # fmt: skip
