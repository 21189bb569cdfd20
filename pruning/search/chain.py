"""A functional model as a chain of segments whose weights are arguments.

Between two segments only one tensor is alive, so everything before a changed channel group can be kept and
only the rest computed again. Every function takes weights of any width: it is traced once, however narrow the
net becomes. BatchNorm uses the statistics of the batch, as EKG's search does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import keras
import tensorflow as tf

from secateur.nets.graph import Call
from secateur.pruning.groups.analysis import ACTIVATIONS, Analysis
from secateur.pruning.shrink.weights import Weights
from secateur.runs.errors import UsageError

Tensors = Mapping[str, Mapping[str, tf.Tensor]]  # layer → weight name → tensor
_USED = ("kernel", "bias", "gamma", "beta", "pad")


def _conv(call: Call, w: Mapping, x: tf.Tensor) -> tf.Tensor:
    strides = call.layer.strides
    strides = strides if isinstance(strides, int) else list(strides)
    dilations = getattr(call.layer, "dilation_rate", 1)
    y = tf.nn.conv2d(x, w["kernel"], strides, call.layer.padding.upper(), dilations=dilations)
    return _activated(call, y + w["bias"] if "bias" in w else y)


def _depthwise(call: Call, w: Mapping, x: tf.Tensor) -> tf.Tensor:
    strides, dilations = call.layer.strides, getattr(call.layer, "dilation_rate", (1, 1))
    strides = [1, *(strides if isinstance(strides, tuple) else (strides, strides)), 1]
    y = tf.nn.depthwise_conv2d(x, w["kernel"], strides, call.layer.padding.upper(), dilations=dilations)
    return _activated(call, y + w["bias"] if "bias" in w else y)


def _dense(call: Call, w: Mapping, x: tf.Tensor) -> tf.Tensor:
    y = tf.matmul(x, w["kernel"])
    return _activated(call, y + w["bias"] if "bias" in w else y)


def _activated(call: Call, y: tf.Tensor) -> tf.Tensor:
    activation = getattr(call.layer, "activation", None)
    return y if activation is None else activation(y)


def _batch_norm(call: Call, w: Mapping, x: tf.Tensor) -> tf.Tensor:
    if getattr(call.layer, "axis", -1) not in (-1, x.shape.rank - 1):
        raise UsageError(f"The search needs BN over the last axis. Received: {call.name!r}")
    maps = x if x.shape.rank == 4 else x[:, None, None]  # the fused kernel knows images only
    channels = tf.shape(x)[-1:]
    scale = tf.cast(w["gamma"], tf.float32) if "gamma" in w else tf.ones(channels)
    offset = tf.cast(w["beta"], tf.float32) if "beta" in w else tf.zeros(channels)
    y = tf.compat.v1.nn.fused_batch_norm(maps, scale, offset, epsilon=call.layer.epsilon, is_training=True)[0]
    return y if x.shape.rank == 4 else y[:, 0, 0]


def _relu(call: Call, w: Mapping, x: tf.Tensor) -> tf.Tensor:
    options = [getattr(call.layer, name, None) for name in ("max_value", "negative_slope", "threshold")]
    return tf.nn.relu(x) if options == [None, 0, 0] else _unchanged_layer(call, w, x)


def _global_average(call: Call, w: Mapping, x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(x, [1, 2], keepdims=call.layer.keepdims)


def _zero_padding(call: Call, w: Mapping, x: tf.Tensor) -> tf.Tensor:
    if "pad" not in w:
        return _unchanged_layer(call, w, x)
    return tf.pad(x, tf.concat([tf.zeros([3, 2], tf.int32), w["pad"][None]], 0))


def _unchanged_layer(call: Call, w: Mapping, *inputs: tf.Tensor) -> tf.Tensor:
    return tf.cast(call.run(inputs)[0], inputs[0].dtype)


_RULES: dict[str, Callable] = {
    "Conv2D": _conv,
    "MaskedConv2D": _conv,
    "DepthwiseConv2D": _depthwise,
    "MaskedDepthwiseConv2D": _depthwise,
    "Dense": _dense,
    "MaskedDense": _dense,
    "BatchNormalization": _batch_norm,
    "FusedBatchNorm": _batch_norm,
    "ZeroPadding2D": _zero_padding,
    "ReLU": _relu,
    "Add": lambda call, w, *xs: tf.add_n(list(xs)),
    "GlobalAveragePooling2D": _global_average,
}


@dataclass(frozen=True)
class Segment:
    """Consecutive calls from one single alive tensor to the next."""

    calls: tuple[Call, ...]
    source: int
    target: int

    @property
    def layers(self) -> list[str]:
        """Names of its layers."""
        return [call.name for call in self.calls]


def cut_into_segments(calls: list[Call], source: int, target: int) -> list[Segment]:
    """Cuts behind each activation after which nothing else is alive, and at the end."""
    last_use = {tensor: i for i, call in enumerate(calls) for tensor in call.inputs}
    last_use[target] = len(calls)
    segments, current, alive, start = [], [], {source}, source
    for i, call in enumerate(calls):
        if call.kind == "InputLayer":
            continue
        current.append(call)
        alive = {t for t in alive | set(call.outputs) if last_use.get(t, -1) > i}
        if len(alive) == 1 and (call.kind in ACTIVATIONS or alive == {target}):
            (end,) = alive
            segments.append(Segment(tuple(current), start, end))
            current, start = [], end
    return segments


class Chain:
    """Runs a model, whole or from a segment on, with weights of any width.

    Args:
        model: functional model with one input and one output.
        analysis: its groups.
        dtype: "float32" or "bfloat16" for convolutions; logits and statistics stay float32.
    """

    def __init__(self, model: keras.Model, analysis: Analysis, dtype: str = "float32") -> None:
        self.dtype = tf.as_dtype(dtype)
        self._analysis = analysis
        if (len(model.inputs), len(model.outputs)) != (1, 1):
            raise UsageError(
                "The search needs a model with one input and one output. "
                f"Received: {len(model.inputs)} inputs and {len(model.outputs)} outputs"
            )
        (source,), (target,) = analysis.graph.inputs, analysis.graph.outputs
        self.segments = cut_into_segments(analysis.calls, source, target)
        self._specs = {c.name: specs for c in analysis.calls if (specs := self._weight_specs(c))}
        shapes = {t: s for c in analysis.calls for t, s in zip(c.outputs, c.shapes, strict=True)}
        self._inputs = [self._tensor_spec(shapes[s.source]) for s in self.segments]
        self._run = [self._compiled(i) for i in range(len(self.segments))]
        self._sites = list(dict.fromkeys(tensor for group in analysis.groups for tensor in group.sites))
        self._score = tf.function(
            self._score_pass, input_signature=self._score_signature(target, shapes), autograph=False
        )

    def tensors(self, weights: Weights) -> dict[str, dict[str, tf.Tensor]]:
        """Weights as tensors in the dtype of the chain."""
        return {
            layer: {
                name: self._tensor(name, array)
                for name, array in arrays.items()
                if name in self._specs[layer]
            }
            for layer, arrays in weights.items()
            if layer in self._specs
        }

    def first_segment(self, layers: Iterable[str]) -> int:
        """Index of the first segment that contains one of the layers."""
        wanted = set(layers)
        return next(i for i, s in enumerate(self.segments) if not wanted.isdisjoint(s.layers))

    def forward(self, weights: Tensors, x: tf.Tensor, start: int = 0) -> tf.Tensor:
        """Logits float32 from the input of segment `start`."""
        for i in range(start, len(self.segments)):
            x = self._run[i](x, self._of_segment(weights, i))
        return tf.cast(x, tf.float32)

    def score(
        self, weights: Tensors, x: tf.Tensor, labels: tf.Tensor, teacher: tf.Tensor
    ) -> tuple[dict, list]:
        """One pass of the gate-Taylor score.

        Args:
            weights: of the committed network.
            x: normalised images (b, h, w, c).
            labels: (b,) integers; teacher: logits (b, classes) of the pseudo-supernet.

        Returns:
            by tensor, for each activation that shows a group, |Σ_{b,h,w} gradient · activation| of its
            channels; and the inputs of all segments.
        """
        scores, inputs = self._score(tf.cast(x, self.dtype), labels, teacher, weights)
        return {tensor: score.numpy() for tensor, score in zip(self._sites, scores, strict=True)}, inputs

    # -- below: how it is traced -----------------------------------------------------------------------------

    def _tensor(self, name: str, array) -> tf.Tensor:
        return tf.constant(array, tf.int32 if name == "pad" else self.dtype)

    def _tensor_spec(self, shape) -> tf.TensorSpec:
        return tf.TensorSpec([None, *shape[1:-1], None], self.dtype)

    def _weight_specs(self, call: Call) -> dict[str, tf.TensorSpec]:
        specs = {
            v.name: tf.TensorSpec([*v.shape[:-2], None, None] if len(v.shape) > 1 else [None], self.dtype)
            for v in getattr(call.layer, "variables", ())
            if v.name in _USED
        }
        if call.kind == "ZeroPadding2D" and call.layer.data_format == "channels_first":
            specs["pad"] = tf.TensorSpec([2], tf.int32)
        return specs

    def _of_segment(self, weights: Tensors, i: int) -> dict:
        return {name: weights[name] for name in self.segments[i].layers if name in self._specs}

    def _compiled(self, i: int) -> Callable:
        segment = self.segments[i]
        specs = {name: self._specs[name] for name in segment.layers if name in self._specs}

        def run(x, weights):
            return self._calls(segment, x, weights)[segment.target]

        return tf.function(run, input_signature=[self._inputs[i], specs], autograph=False)

    def _calls(self, segment: Segment, x: tf.Tensor, weights: Tensors, seen: Callable | None = None) -> dict:
        values = {segment.source: x}
        for call in segment.calls:
            rule = _RULES.get(call.kind, _unchanged_layer)
            y = rule(call, weights.get(call.name, {}), *(values[t] for t in call.inputs))
            if seen:
                seen(call.outputs[0], y)
            values[call.outputs[0]] = y
        return values

    def _score_signature(self, target: int, shapes) -> list:
        classes = shapes[target][-1]
        return [
            self._inputs[0],
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, classes], tf.float32),
            self._specs,
        ]

    def _score_pass(self, x, labels, teacher, weights):
        shown, inputs = dict.fromkeys(self._sites), []
        with tf.GradientTape() as tape:

            def watch(tensor, value):
                if tensor in shown:
                    tape.watch(value)
                    shown[tensor] = value

            for segment in self.segments:
                inputs.append(x)
                x = self._calls(segment, x, weights, watch)[segment.target]
            loss = tf.reduce_sum(reward_loss(labels, teacher, tf.cast(x, tf.float32)))
        values = list(shown.values())
        return [_taylor(*pair) for pair in zip(values, tape.gradient(loss, values), strict=True)], inputs


def _taylor(value: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    # A gate m ⊙ x has the gradient Σ g·x: the straight-through estimator needs no gate in the graph.
    axes = list(range(value.shape.rank - 1))
    return tf.abs(tf.reduce_sum(tf.cast(value * gradient, tf.float32), axes))


def reward_loss(labels: tf.Tensor, teacher: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """CE(y, z) + CE(softmax(T̄), z) per sample, at temperature 1: what EKG's search minimises."""
    on_labels = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return on_labels + tf.nn.softmax_cross_entropy_with_logits(tf.nn.softmax(teacher), logits)
