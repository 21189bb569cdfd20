"""Layers whose channels all stay: inputs, recurrent layers, softmax."""

from __future__ import annotations

from secateur.pruning.layers import costs
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
layer_class("Softmax", "ops.Softmax", "ops.LogSoftmax", label=staying("its softmax mixes channels"))
