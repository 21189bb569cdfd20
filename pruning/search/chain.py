"""A functional model as a chain of segments whose weights are arguments.

Between two segments only one tensor is alive, so everything before a changed channel group can be kept and
only the rest computed again. Every function takes weights of any width: it is traced once, however narrow the
net becomes. BatchNorm uses the statistics of the batch, as EKG's search does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import keras
import tensorflow as tf

from secateur.nets.graph import Call
from secateur.nets.kernels import named_variables
from secateur.pruning.groups.analysis import Analysis
from secateur.pruning.layers import find, is_activation, running
from secateur.pruning.shrink.weights import Weights
from secateur.runs.errors import UsageError

Tensors = Mapping[str, Mapping[str, tf.Tensor]]  # layer → weight name → tensor


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
        if len(alive) == 1 and (is_activation(call) or alive == {target}):
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
        members = [member for group in analysis.groups for member in group.members]
        self._padded = {member.layer for member in members if member.role == "padding"}
        self._cut: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
        for member in members:
            for weight, axis in member.axes.items():
                self._cut[member.layer][weight].add(axis)
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
        if call.name in self._padded:
            return {"pad": tf.TensorSpec([2], tf.int32)}
        own = named_variables(call.layer) if hasattr(call.layer, "variables") else {}
        known, cut = find(call.kind), self._cut[call.name]
        if known and known.run:
            ranks = {name: len(own[name].shape) for name in running.USED & own.keys()}
            cut = {name: {rank - 2, rank - 1} for name, rank in ranks.items()}
        return {
            name: tf.TensorSpec([None if i in axes else n for i, n in enumerate(own[name].shape)], self.dtype)
            for name, axes in cut.items()
        }

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
            made = running.run(call, weights.get(call.name, {}), *(values[t] for t in call.inputs))
            if seen:
                seen(call.outputs[0], made[0])
            values |= dict(zip(call.outputs, made, strict=True))
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
