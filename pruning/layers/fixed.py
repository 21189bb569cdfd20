"""Layers whose channels all stay: inputs, recurrent layers, softmax."""

from __future__ import annotations

import numpy as np

from secateur.nets.graph import Call
from secateur.pruning.layers import costs
from secateur.pruning.layers.labels import Labels
from secateur.pruning.layers.registry import Label, layer_class

RECURRENT = "its recurrent weights are left whole"


def staying(reason: str) -> Label:
    """The label rule of a layer around which all channels stay."""
    return lambda state, call, labels: reason


layer_class("InputLayer", label=staying("it is an input of the model"))
layer_class(
    *(f"{name}{how}" for name in ("LSTM", "GRU", "SimpleRNN") for how in ("", "Cell")),
    *("RNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"),
    label=staying(RECURRENT),
    cost=costs.as_they_are,
)


def _softmax(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """Over axes along which channels do not change, as the keys of attention, each goes by itself."""
    rank, axis = len(call.shapes[0]), call.layer.axis
    axes = [a % rank - 1 for a in ([axis] if isinstance(axis, int) else axis or range(rank))]
    if -1 in axes or any(labels[0].shape[a] > 1 for a in axes):
        return "its softmax mixes channels"
    return labels[:1]


layer_class("Softmax", "ops.Softmax", "ops.LogSoftmax", label=_softmax)
