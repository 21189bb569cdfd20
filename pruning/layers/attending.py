"""Attention as layers of Keras: whole heads, the width of queries with keys, of values, and of the stream."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import tensorflow as tf

from secateur.nets.graph import Call
from secateur.nets.kernels import named_variables
from secateur.pruning.conventions import Convention
from secateur.pruning.layers.labels import Labels, channel_vector
from secateur.pruning.layers.producers import QUANTISED, quantised, spread
from secateur.pruning.layers.registry import Cut, Place, Product, layer_class
from secateur.pruning.layers.running import Weights, layer_itself
from secateur.pruning.layers.silence import NOT_ZERO, silent

HEADS, KEYS, VALUES = "heads", "keys", "values"  # parts of the layer that groups are named after


def _weights(layer: Any, part: str) -> tuple[str, str]:
    """Names of kernel and bias of a projection: "query", "key", "value", "gate" or "output"."""
    projection, names = (
        getattr(layer, f"_{part}_dense"),
        {id(v): n for n, v in named_variables(layer).items()},
    )
    return names[id(projection.kernel)], names.get(id(projection.bias), "")


def _projections(layer: Any) -> list[str]:
    gated = getattr(layer, "_use_gate", False) or getattr(layer, "use_gate", False)
    return ["query", "key", "value", *(["gate"] if gated else [])]


def _read_by(call: Call) -> dict[str, int]:
    """Argument → which of the call's inputs it is."""
    given = {name: call.argument(i, name) for i, name in enumerate(("query", "value", "key"))}
    if given["key"] is None:
        given["key"] = given["value"]
    return {name: call.keys.index(id(tensor)) for name, tensor in given.items()}


def _attend(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    layer, read = call.layer, _read_by(call)
    if any(quantised(part) for part in layer._flatten_layers(include_self=False)):
        return QUANTISED
    streams = {n: channel_vector(labels[i], call.input_shapes[i][-1]) for n, i in read.items()}
    if any(vector is None for vector in streams.values()):
        return "its inputs are not channels alone"
    if len(layer._output_dense.kernel.shape) != 3:  # heads, their width, and what it makes
        return "it makes several axes"
    grouped = call.kind == "GroupedQueryAttention"
    heads = state.fresh(layer.num_key_value_heads if grouped else layer.num_heads)
    each = layer.num_repeats if grouped else 1  # query heads of one head of keys and values go with it
    keys, values = (
        state.fresh(layer._key_dense.kernel.shape[2]),
        state.fresh(layer._value_dense.kernel.shape[2]),
    )
    if grouped:  # has one width for both
        state.unite(keys, values)
    for part in _projections(layer):
        kernel, bias = _weights(layer, part)
        own = np.repeat(heads, each if part in ("query", "gate") else 1)
        state.use(call, "consumer", {kernel: 0}, streams["query" if part == "gate" else part])
        state.use(call, "producer", {kernel: 1, bias: 0}, own, part=HEADS)
        width, name = (keys, KEYS) if part in ("query", "key") else (values, VALUES)
        state.use(call, "producer", {kernel: 2, bias: 1}, width, part=name)
    kernel, bias = _weights(layer, "output")
    made = streams["query"] if grouped else state.fresh(layer._output_dense.kernel.shape[2])
    state.use(call, "consumer", {kernel: 0}, np.repeat(heads, each), part=HEADS)
    state.use(call, "consumer", {kernel: 1}, values, part=VALUES)
    state.use(call, "producer", {kernel: 2, bias: 0}, made)
    scores = np.repeat(heads, each).reshape([-1] + [1] * (len(call.shapes[-1]) - 2))
    return [spread(call, made), scores][: len(call.outputs)]


def _resize(config: dict, call: Call, left: Cut) -> dict:
    layer = call.layer
    query, key, value, output = (
        left.weights[_weights(layer, p)[0]] for p in ("query", "key", "value", "output")
    )
    if call.kind == "GroupedQueryAttention":
        return config | {"head_dim": key[2], "num_query_heads": query[1], "num_key_value_heads": key[1]}
    made = output[2:] if config["output_shape"] or output[2] != query[0] else None
    return config | {"num_heads": query[1], "key_dim": key[2], "value_dim": value[2], "output_shape": made}


def _refit(layer: Any, arrays: dict, other: Any) -> dict:
    """Keras divides queries · keys by the root of their width, training did by that of the whole.

    The difference goes into the queries.
    """
    ratio = np.sqrt(other._query_dense.kernel.shape[2] / layer._query_dense.kernel.shape[2])
    scaled = [name for name in _weights(layer, "query") if name]
    return arrays | {name: (arrays[name] * ratio).astype(arrays[name].dtype) for name in scaled}


def _sized(call: Call) -> list[Place]:
    kernels = {part: _weights(call.layer, part)[0] for part in ("query", "key", "value", "output")}
    return [
        *((kernels["query"], axis) for axis in range(3)),
        (kernels["key"], 0), (kernels["key"], 1), (kernels["value"], 0), (kernels["value"], 2),
        (kernels["output"], 2),
    ]  # fmt: skip


def _projected(
    call: Call, read: float, heads: float, width: float, keys: float, key_heads: float, values: float,
    value_width: float, made: float,
) -> dict[str, Product]:  # fmt: skip
    """Part → the product with its kernel."""
    queries, places = (prod(call.input_shapes[_read_by(call)[n]][1:-1]) for n in ("query", "value"))
    return {
        "query": (queries, read, heads * width),
        "key": (places, keys, key_heads * width),
        "value": (places, values, key_heads * value_width),
        "gate": (queries, read, heads * value_width),
        "output": (queries, heads * value_width, made),
    }


def _compared(call: Call, heads: float, width: float, value_width: float) -> list[Product]:
    """The two products for each pair of a query and a key that meet."""
    inputs = {name: call.input_shapes[i][1:-1] for name, i in _read_by(call).items()}
    meet = getattr(call.layer, "_attention_axes", None) or (1,)
    places = prod(n for axis, n in enumerate(inputs["value"], 1) if axis in meet)
    rows = prod(inputs["query"]) * heads
    return [(rows, width, places), (rows, places, value_width)]


def _matrices(call: Call, *sizes: float) -> list[Product]:
    _, heads, width, _, _, _, value_width, _ = sizes
    projected = _projected(call, *sizes)
    own = [projected[part] for part in (*_projections(call.layer), "output")]
    return own + _compared(call, heads, width, value_width)


def _cost(rule: Convention, call: Call, *sizes: int) -> tuple[int, int]:
    params, macs = 0, rule.mac * sum(map(prod, _matrices(call, *sizes)))
    for part, (rows, read, made) in _projected(call, *sizes).items():
        if part in (*_projections(call.layer), "output"):
            bias = made * bool(_weights(call.layer, part)[1])
            params, macs = params + read * made + bias, macs + rule.bias * rows * bias
    return params, macs


def _run(call: Call, w: Weights, *xs: tf.Tensor) -> Any:
    """Attention over sequences at any width; over several axes the layer itself, which knows shapes."""
    layer, read = call.layer, {name: xs[i] for name, i in _read_by(call).items()}
    if read["query"].shape.rank != 3 or read["value"].shape.rank != 3:
        return layer_itself(call, w, *xs)
    read |= {"gate": read["query"]}
    made = {}
    for part in _projections(layer):
        kernel, bias = _weights(layer, part)
        made[part] = tf.einsum("btc,cnh->btnh", read[part], w[kernel]) + (w[bias] if bias else 0)
    given = call.argument(6, "attention_mask")
    if id(given) in call.keys:
        given = xs[call.keys.index(id(given))]
    causal = bool(call.argument(9, "use_causal_mask"))
    allowed = layer._compute_attention_mask(
        read["query"], read["value"], attention_mask=given, use_causal_mask=causal
    )
    each = getattr(layer, "num_repeats", 1)
    scale = getattr(layer, "_inverse_sqrt_key_dim", None) or layer._inverse_sqrt_head_dim
    keys, values = (tf.repeat(made[part], each, 2) for part in ("key", "value"))
    scores = tf.einsum("btnh,bsnh->bnts", made["query"] * scale, keys)
    if allowed is not None:
        allowed = tf.cast(allowed, bool)
        allowed = allowed[:, None] if allowed.shape.rank == 3 else allowed
        scores = tf.where(allowed, scores, scores.dtype.min / 2)
    scores = tf.nn.softmax(scores)
    mixed = tf.einsum("bnts,bsnh->btnh", scores, values)
    mixed = mixed * tf.sigmoid(made["gate"]) if "gate" in made else mixed
    kernel, bias = _weights(layer, "output")
    output = tf.einsum("btnh,nhc->btc", mixed, w[kernel]) + (w[bias] if bias else 0)
    return [output, scores][: len(call.outputs)]


def _products(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """Queries and keys are compared channel by channel, values go through."""
    vectors = [channel_vector(x, shape[-1]) for x, shape in zip(labels, call.input_shapes, strict=True)]
    if any(vector is None for vector in vectors):
        return "its inputs are not channels alone"
    query, value, key = (*vectors, *vectors[1:2])[:3]
    state.unite(query, key)
    zero = [silent(state, tensor) for tensor in (call.inputs[0], call.inputs[-1])]
    state.use(call, "consumer", {"axis": 0}, query)
    if getattr(call.layer, "scale", None) is not None and call.kind == "AdditiveAttention":
        state.use(call, "consumer", {"scale": 0}, query)  # a score is Σ scale · tanh(q + k)
    elif not (any(zero) if getattr(call.layer, "score_mode", "") == "dot" else all(zero)):  # Σ q · k
        for vector in (query, key):
            state.lock(vector, f"{call.name}: {NOT_ZERO}")
    return [spread(call, value), np.full([1] * (len(call.shapes[-1]) - 1), state.fresh(1))][
        : len(call.outputs)
    ]


def _cost_products(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    """Two products for each pair of a query and a value, as wide as the query and the value are."""
    params = sum(n_in if len(w.shape) else 1 for w in call.layer.weights)
    return params, rule.mac * sum(map(prod, _two(call, n_in, n_out)))


layer_class(
    "MultiHeadAttention", "GroupedQueryAttention",
    label=_attend, resize=_resize, cost=_cost, sized=_sized, products=_matrices, run=_run, refit=_refit,
)  # fmt: skip


def _two(call: Call, n_in: float, n_out: float) -> list[Product]:
    rows, values = prod(call.input_shapes[0][1:-1]), call.input_shapes[1][-2]
    return [(rows, n_in, values), (rows, values, n_out)]


layer_class(
    "Attention", "AdditiveAttention",
    label=_products, cost=_cost_products, products=_two,
    sized=lambda call: [(call.inputs[0], -1), (call.inputs[1], -1)],
)  # fmt: skip
