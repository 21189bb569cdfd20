"""Layers whose channels all stay: attention, recurrent layers, normalisations over channels, softmax."""

from __future__ import annotations

from math import prod

from secateur.nets.graph import Call
from secateur.pruning.conventions import Convention
from secateur.pruning.layers.registry import KINDS, CostRule, kind

HEADS = "its heads are left whole"
RECURRENT = "its recurrent weights are left whole"
STATISTICS = "its statistics are taken over all channels"


def _whole(reason: str):
    return lambda state, call, labels: reason


def cost_of(call: Call) -> CostRule | None:
    """Parameters and operations of a call, as a function of its channels; None where it costs nothing.

    A layer that is not understood has the weights that it has.
    """
    if known := KINDS.get(call.kind):
        return known.cost
    return _weights_as_they_are if getattr(call.layer, "weights", ()) else None


def _weights_as_they_are(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    """All weights of a layer; one multiplication with each matrix at every position that it reads."""
    weights = call.layer.weights
    matrices = sum(prod(w.shape) for w in weights if len(w.shape) > 1)
    return sum(prod(w.shape) for w in weights), rule.mac * prod(call.input_shapes[0][1:-1]) * matrices


def _cost_attention(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    """The four projections, and two products for each pair of a query and a value."""
    layer = call.layer
    queries, values = (prod(shape[1:-1]) for shape in (call.input_shapes[0], call.input_shapes[1]))
    params = sum(prod(w.shape) for w in layer.weights)
    macs = layer.num_heads * (layer.key_dim + layer.value_dim) * queries * values
    for projection, places in (
        (layer.query_dense, queries), (layer.key_dense, values), (layer.value_dense, values),
        (layer.output_dense, queries),
    ):  # fmt: skip
        macs += places * prod(projection.kernel.shape)
    return params, rule.mac * macs


def _cost_affine(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    return sum(prod(w.shape) for w in call.layer.weights), rule.norm * prod(call.shapes[0][1:])


kind("MultiHeadAttention", label=_whole(HEADS), cost=_cost_attention)
kind("GroupedQueryAttention", label=_whole(HEADS), cost=_weights_as_they_are)
kind("Attention", "AdditiveAttention", label=_whole("it mixes positions by their channels"))
kind(
    *(f"{name}{how}" for name in ("LSTM", "GRU", "SimpleRNN") for how in ("", "Cell")),
    *("RNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"),
    label=_whole(RECURRENT),
    cost=_weights_as_they_are,
)
kind(
    "LayerNormalization", "RMSNormalization", "UnitNormalization", label=_whole(STATISTICS), cost=_cost_affine
)
kind("Softmax", "ops.Softmax", "ops.LogSoftmax", label=_whole("its softmax mixes channels"))
