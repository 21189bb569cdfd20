"""Numbers rounded as 8 bits round them, inside of training (Jacob et al. 2018, §3 and equation 12).

The gradient passes a rounding as if it were not there (Bengio et al. 2013, the straight-through estimator).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from secateur.nets.graph import Call, rebuilt, trace
from secateur.nets.kernels import filter_axes, named_variables

LEVELS = 127
"""Of kernels: −127 … 127 times a scale (LiteRT's specification leaves −128 out)."""
STEPS = 255
"""Between the smallest and the largest number of a tensor."""
TINY = 1e-12

MOVES = {
    "AlphaDropout", "Cropping1D", "Cropping2D", "Cropping3D", "Dropout", "Flatten", "GaussianDropout",
    "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D", "Identity",
    "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "Permute", "RepeatVector", "Reshape", "SpatialDropout1D",
    "SpatialDropout2D", "SpatialDropout3D", "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D",
}  # fmt: skip
"""Layers that make no new numbers at inference, or only 0: what they read has been rounded."""
FUSED = (keras.activations.relu, keras.activations.relu6)
FUSED_LIMITS = (None, 6)
"""What a runtime computes together with the layer in front: between the two nothing is rounded."""
PROBABILITIES = (keras.activations.softmax, keras.activations.sigmoid)


def round_kernel(kernel: Any, axes: Sequence[int]) -> Any:
    """A kernel with one scale for each index of `axes`, no offset: 255 values around 0. Any float type."""
    others = [axis for axis in range(len(kernel.shape)) if axis - len(kernel.shape) not in axes]
    scale = ops.maximum(ops.max(ops.abs(kernel), axis=others, keepdims=True) / LEVELS, TINY)
    return _straight(kernel, ops.round(kernel / scale) * scale)


def round_tensor(x: Any) -> Any:
    """A tensor at 256 equidistant numbers, 0 among them, over its own range, which 0 belongs to."""
    low, high = ops.minimum(ops.min(x), 0.0), ops.maximum(ops.max(x), 0.0)
    scale = ops.maximum((high - low) / STEPS, TINY)
    first = ops.round(low / scale)
    return _straight(x, ops.clip(ops.round(x / scale), first, first + STEPS) * scale)


def _straight(x: Any, rounded: Any) -> Any:
    return x + ops.stop_gradient(rounded - x)


class RoundedTensor(keras.layers.Layer):
    """`round_tensor` as a layer."""

    def compute_output_spec(self, x: Any) -> keras.KerasTensor:
        """As it came. Keras would infer it, but takes what was multiplied by a number for sparse."""
        return keras.KerasTensor(x.shape, x.dtype)

    def call(self, x: Any) -> Any:
        """Rounds, in training and in inference."""
        return round_tensor(x)


class RoundedKernel(keras.layers.Layer):
    """Another layer, whose kernels it rounds whenever it is called; the weights are that layer's own."""

    def __init__(self, layer: keras.Layer) -> None:
        super().__init__(name=f"{layer.name}_rounded")
        self.layer = layer
        self.built = True

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """What the layer makes with rounded kernels."""
        axes = filter_axes(self.layer)
        # In a scope of their own all variables need values: that of a training around it is not looked into.
        values = [
            (v, round_kernel(v.value, axes[name]) if name in axes else v.value)
            for name, v in named_variables(self.layer).items()
        ]
        with keras.StatelessScope(state_mapping=values):
            return self.layer(*args, **kwargs)


def fake_quantised(model: keras.Model) -> keras.Model:
    """The network as whole numbers of 8 bits would compute it, to be trained; its weights are `model`'s own.

    Kernels of convolutions and dense layers are rounded for each output channel, and every tensor between
    layers over its range in the batch. Kernels inside of wrappers and recurrent layers are left as they are.

    Args:
        model: functional, its BatchNorms folded (`nets.folding`). What it computes stays the same.

    Raises `UsageError` for a model without a graph.
    """
    graph = trace(model)
    readers = graph.readers()
    wrapped = {name: RoundedKernel(layer) for name, layer in graph.layers.items() if filter_axes(layer)}
    entries: dict[int, Any] = {}

    def run(call: Call, values: list[Any]) -> list[Any]:
        if call.kind == "InputLayer":
            entries[id(call.layer.output)] = _rounded(call.layer.output)
            return [call.layer.output]
        made = call.run([entries.get(id(value), value) for value in values], wrapped.get(call.name))
        if call.kind in MOVES or _probabilities(call):
            return made
        numbered = zip(call.outputs, made, strict=True)
        return [tensor if _fused(readers[number]) else _rounded(tensor) for number, tensor in numbered]

    return rebuilt(model, graph, run)


def _rounded(tensor: Any) -> Any:
    return RoundedTensor()(tensor) if keras.backend.is_float_dtype(tensor.dtype) else tensor


def _probabilities(call: Call) -> bool:
    """Whether it makes probabilities, whose logarithm a loss takes: 0 is none."""
    return getattr(call.layer, "activation", None) in PROBABILITIES or call.kind == "Softmax"


def _fused(readers: list[Call | None]) -> bool:
    if len(readers) != 1 or readers[0] is None:
        return False
    layer, kind = readers[0].layer, readers[0].kind
    if kind == "ReLU":
        return not (layer.negative_slope or layer.threshold) and layer.max_value in FUSED_LIMITS
    return kind in ("ops.Relu", "ops.Relu6") or (kind == "Activation" and layer.activation in FUSED)
