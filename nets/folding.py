"""BatchNorm inside the convolution in front of it: the same outputs from fewer layers, for inference.

With s = γ / √(σ² + ε) a convolution W·x + b and its BatchNorm are (s·W)·x + β + s·(b − μ) (Jacob et al. 2018,
equation 14).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from secateur.nets.graph import Call, Graph, rebuilt, trace
from secateur.nets.kernels import filter_axes


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """A model without the BatchNorms that read a linear layer which nothing else reads.

    Of those that have to stay, images' become depthwise convolutions of one pixel, whose channels are rounded
    one by one; the others are frozen. All other layers are taken over from `model`, which is not to be
    trained or saved any more. Raises `UsageError` for a model without a graph.
    """
    graph = trace(model)
    pairs = {linear.name: norm for linear, norm in _pairs(graph)}
    gone = {norm.name for norm in pairs.values()}
    fresh = {name: _folded(graph.layers[name], norm.layer) for name, norm in pairs.items()}
    for call in graph.calls:
        if call.kind != "BatchNormalization" or call.name in gone | fresh.keys():
            continue
        if not normalises_by_batch(call):
            call.layer.trainable = False
            if len(call.shapes[0]) == 4 and _last_axis(call):
                fresh[call.name] = _depthwise(call.layer)

    def run(call: Call, values: list[Any]) -> list[Any]:
        if call.name in gone:
            return values
        if call.kind == "BatchNormalization" and call.name in fresh:  # a call may record a mask, too
            return [fresh[call.name](values[0])]
        return call.run(values, fresh.get(call.name))

    return rebuilt(model, graph, run)


def _pairs(graph: Graph) -> Iterator[tuple[Call, Call]]:
    """(linear layer, BatchNorm): each is called once, and the one is read by the other alone."""
    uses = Counter(call.name for call in graph.calls)
    readers = graph.readers()
    for call in graph.calls:
        after = readers[call.outputs[0]]
        if len(after) != 1 or uses[call.name] > 1 or not _linear(call.layer):
            continue
        norm = after[0]
        if norm and norm.kind == "BatchNormalization" and uses[norm.name] == 1 and _last_axis(norm):
            if not normalises_by_batch(norm):
                yield call, norm


def _linear(layer: Any) -> bool:
    """Whether its outputs are sums of products, each with one channel of its one kernel, channels last.

    Only of Keras' own classes: one that is derived from them may change its kernel before it is used.
    """
    if not type(layer).__module__.startswith("keras.") or list(filter_axes(layer)) != ["kernel"]:
        return False
    if layer.activation is not keras.activations.linear:
        return False
    return getattr(layer, "data_format", "channels_last") == "channels_last"


def normalises_by_batch(norm: Call) -> bool:
    """Whether it was called with `training=True`: then it has no averages of its own to fold."""
    return norm.training is True or norm.argument(1, "training") is True


def _last_axis(norm: Call) -> bool:
    return norm.layer.axis in (-1, len(norm.shapes[0]) - 1)


def _folded(linear: Any, norm: Any) -> keras.Layer:
    """A layer like `linear`, with the numbers of both."""
    kernel, (scale, shift) = np.asarray(linear.kernel, np.float64), scale_and_shift(norm)
    bias = np.asarray(linear.bias) if linear.use_bias else 0.0
    axes = filter_axes(linear)["kernel"]
    shape = [n if axis - kernel.ndim in axes else 1 for axis, n in enumerate(kernel.shape)]
    made = type(linear).from_config(linear.get_config() | {"use_bias": True})
    made.build(linear.input.shape)
    made.set_weights([kernel * scale.reshape(shape), shift + bias * scale])
    return made


def _depthwise(norm: Any) -> keras.Layer:
    """The same as one product and one sum for each channel."""
    scale, shift = scale_and_shift(norm)
    made = keras.layers.DepthwiseConv2D(1, name=norm.name, dtype=norm.dtype_policy)
    made.build((None, None, None, len(scale)))
    made.set_weights([scale.reshape(1, 1, -1, 1), shift])
    return made


def scale_and_shift(norm: Any) -> tuple[np.ndarray, np.ndarray]:
    """s and β − s·μ of a BatchNorm, float64."""
    scale = 1 / np.sqrt(np.asarray(norm.moving_variance, np.float64) + norm.epsilon)
    scale = scale * np.asarray(norm.gamma) if norm.scale else scale
    shift = np.asarray(norm.beta) if norm.center else 0.0
    return scale, shift - scale * np.asarray(norm.moving_mean, np.float64)
