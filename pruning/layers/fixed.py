"""Layers whose channels all stay: attention, normalisations over channels."""

from __future__ import annotations

from math import prod

from secateur.nets.graph import Call
from secateur.pruning.conventions import Convention
from secateur.pruning.layers import costs
from secateur.pruning.layers.registry import Label, layer_class

HEADS = "its heads are left whole"
STATISTICS = "its statistics are taken over all channels"


def staying(reason: str) -> Label:
    """The label rule of a layer around which all channels stay."""
    return lambda state, call, labels: reason


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


def _cost_products(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    """Two products for each pair of a query and a value."""
    queries, values = call.input_shapes[0], call.input_shapes[1]
    pairs = prod(queries[1:-1]) * prod(values[1:-1])
    params = sum(prod(w.shape) for w in call.layer.weights)
    return params, rule.mac * pairs * (queries[-1] + values[-1])


def _cost_affine(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    return sum(prod(w.shape) for w in call.layer.weights), rule.norm * prod(call.shapes[0][1:])


layer_class("InputLayer", label=staying("it is an input of the model"))
layer_class("MultiHeadAttention", label=staying(HEADS), cost=_cost_attention)
layer_class("GroupedQueryAttention", label=staying(HEADS), cost=costs.as_they_are)
layer_class(
    "Attention",
    "AdditiveAttention",
    label=staying("it mixes positions by their channels"),
    cost=_cost_products,
)
layer_class(
    "LayerNormalization",
    "RMSNormalization",
    "UnitNormalization",
    label=staying(STATISTICS),
    cost=_cost_affine,
)
