"""A functional model as a chain of segments whose weights are arguments.

What is alive between two segments can be kept, so that only what comes behind a changed channel group is
computed again. Every function takes weights of any width: it is traced once, however narrow the net becomes.
BatchNorm uses the statistics of the batch, as EKG's search does; dropout and augmentation do nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf

from secateur.nets.graph import Call, functional_of
from secateur.nets.kernels import named_variables
from secateur.pruning.groups.analysis import Analysis
from secateur.pruning.layers import running
from secateur.pruning.score.batches import arrays_of
from secateur.pruning.search.gates import gates_of, inner_gates
from secateur.pruning.search.open_shapes import open_shapes, picking, reshapes_channels, splits_channels
from secateur.pruning.search.rewards import Reward
from secateur.pruning.search.segments import Segment, cut_into_segments
from secateur.pruning.shrink.weights import Weights

Tensors = Mapping[str, Mapping[str, tf.Tensor]]  # layer → weight name → tensor
CLASSES = tf.TensorSpec([None], tf.int32)  # labels of a classifier


class Chain:
    """Runs a model, whole or from a segment on, with weights of any width.

    Args:
        model: functional model.
        analysis: its groups.
        dtype: "float32" or "bfloat16" for convolutions; outputs and statistics stay float32.
        reward: whose gradient `score` takes; None is a classifier's.
        labels: specs of one batch of labels, in the structure that `reward` reads.
    """

    def __init__(
        self, model: keras.Model, analysis: Analysis, dtype: str = "float32", reward: Reward | None = None,
        labels: Any = CLASSES,
    ) -> None:  # fmt: skip
        self.dtype, self._reward = tf.as_dtype(dtype), reward or Reward.of("classes")
        self._analysis, self._outputs = analysis, functional_of(model)._outputs_struct
        self._shapes, graph = open_shapes(analysis), analysis.graph
        self._types = {
            t: self._type(x.dtype)
            for c in graph.calls
            for t, x in zip(c.outputs, c.node.outputs, strict=True)
        }
        self.segments = cut_into_segments(graph)
        self._specs = self._weight_specs()
        self._inputs = [[self._spec(t) for t in s.sources] for s in self.segments]
        self._run = [self._compiled(i) for i in range(len(self.segments))]
        self.gates = gates_of(analysis)
        self.inner = inner_gates(analysis, self.gates)
        self._shown = list(dict.fromkeys(tensor for tensors in self.gates.values() for tensor in tensors))
        teacher = self._packed([tf.TensorSpec(self._shapes[t], tf.float32) for t in graph.outputs])
        signature = [self._inputs[0], labels, teacher, self._specs]
        self._score = tf.function(self._score_pass, input_signature=signature, autograph=False)

    def tensors(self, weights: Weights) -> dict[str, dict[str, tf.Tensor]]:
        """Weights as tensors in the dtype of the chain."""
        return {
            layer: {
                name: tf.constant(array, self._specs[layer][name].dtype)
                for name, array in arrays.items()
                if name in self._specs[layer]
            }
            for layer, arrays in weights.items()
            if layer in self._specs
        }

    def inputs(self, images: Any) -> list[tf.Tensor]:
        """Images (one array, or a list or dict with one for each input) as the first segment reads them."""
        arrays = arrays_of(self._analysis, images)
        return [tf.cast(x, spec.dtype) for x, spec in zip(arrays, self._inputs[0], strict=True)]

    def first_segment(self, layers: Iterable[str]) -> int:
        """Index of the first segment that contains one of the layers."""
        wanted = set(layers)
        return next(i for i, s in enumerate(self.segments) if not wanted.isdisjoint(s.layers))

    def forward(self, weights: Tensors, x: Sequence[tf.Tensor], start: int = 0) -> Any:
        """Outputs float32 from what segment `start` reads: for 0 from `inputs`."""
        for i in range(start, len(self.segments)):
            x = self._run[i](x, self._of_segment(weights, i))
        return self._as_outputs(x)

    def score(
        self, weights: Tensors, x: Sequence[tf.Tensor], labels: Any, teacher: Any
    ) -> tuple[dict[int | str, Any], list[list[tf.Tensor]]]:
        """One pass of the gate-Taylor score.

        Args:
            weights: of the committed network.
            x: `inputs` of a batch.
            labels: of it; teacher: outputs of the pseudo-supernet.

        Returns:
            by tensor that shows a group, Σ_{b,h,w} gradient · activation of its channels, and by group that
            none shows, the same of `inner`; and what all segments read.
        """
        scores, inputs = self._score(x, labels, teacher, weights)
        places = [*self._shown, *self.inner]
        return {place: score.numpy() for place, score in zip(places, scores, strict=True)}, inputs

    # -- below: how it is traced -----------------------------------------------------------------------------

    def _type(self, dtype: str) -> tf.DType:
        return self.dtype if tf.as_dtype(dtype).is_floating else tf.as_dtype(dtype)

    def _spec(self, tensor: int) -> tf.TensorSpec:
        return tf.TensorSpec(self._shapes[tensor], self._types[tensor])

    def _packed(self, outputs: Sequence[Any]) -> Any:
        return outputs[0] if len(outputs) == 1 else keras.tree.pack_sequence_as(self._outputs, outputs)

    def _as_outputs(self, x: Sequence[tf.Tensor]) -> Any:
        return self._packed([tf.cast(y, tf.float32) for y in x])

    def _weight_specs(self) -> dict[str, dict[str, tf.TensorSpec]]:
        """Layer → what it takes as arguments: weights, open along the axes that are cut, and sizes."""
        cut: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
        members = [member for group in self._analysis.groups for member in group.members]
        for member in members:
            for weight, axis in member.axes.items():
                cut[member.layer][weight].add(axis)
        specs = {c.name: self._own_specs(c, cut[c.name]) for c in self._analysis.calls}
        specs |= {m.layer: {"pad": tf.TensorSpec([2], tf.int32)} for m in members if m.role == "padding"}
        for call in self._analysis.calls:
            if splits_channels(self._analysis, call):
                specs[call.name] = {"parts": tf.TensorSpec([len(call.outputs)], tf.int32)}
            if reshapes_channels(self._analysis, call):
                specs[call.name] = {"shape": tf.TensorSpec([len(call.shapes[0]) - 1], tf.int32)}
        specs |= {name: {"picks": tf.TensorSpec([None], tf.int32)} for name in picking(self._analysis)}
        return {name: own for name, own in specs.items() if own}

    def _own_specs(self, call: Call, cut: Mapping[str, set[int]]) -> dict[str, tf.TensorSpec]:
        variables = named_variables(call.layer) if hasattr(call.layer, "variables") else {}
        own = {name: tuple(variable.shape) for name, variable in variables.items()}
        names = running.weights_read(call) if running.own_rule(call) else cut.keys()
        if "mask" in cut and "mask" in names:  # of a layer that may have none yet
            own["mask"] = (None,)
        return {
            name: tf.TensorSpec(
                [None if i in cut.get(name, ()) else n for i, n in enumerate(shape)], self.dtype
            )
            for name, shape in own.items()
            if name in names or name.partition("#")[0] in names  # of layers inside of it
        }

    def _of_segment(self, weights: Tensors, i: int) -> dict:
        return {name: weights[name] for name in self.segments[i].layers if name in self._specs}

    def _compiled(self, i: int) -> Callable:
        segment = self.segments[i]
        specs = {name: self._specs[name] for name in segment.layers if name in self._specs}

        def run(x, weights):
            return self._calls(segment, x, weights)

        return tf.function(run, input_signature=[self._inputs[i], specs], autograph=False)

    def _calls(
        self, segment: Segment, x: Sequence[tf.Tensor], weights: Tensors, seen: Callable | None = None
    ) -> list[tf.Tensor]:
        values = dict(zip(segment.sources, x, strict=True))
        for call in segment.calls:
            made = running.run(
                self._open(call), weights.get(call.name, {}), *(values[t] for t in call.inputs)
            )
            for tensor, value in zip(call.outputs, made, strict=True):
                values[tensor] = value = self._standard(tensor, value)
                if seen:
                    seen(tensor, value)
        return [values[t] for t in segment.targets]

    def _open(self, call: Call) -> Call:
        inputs, outputs = (tuple(self._shapes[t] for t in side) for side in (call.inputs, call.outputs))
        return replace(call, input_shapes=inputs, shapes=outputs)

    def _standard(self, tensor: int, value: tf.Tensor) -> tf.Tensor:
        """In the chain's dtype, with the shape that is known."""
        value = tf.cast(value, self._types[tensor])
        value.set_shape(self._shapes[tensor])
        return value

    def _score_pass(self, x, labels, teacher, weights):
        shown, inputs = dict.fromkeys(self._shown), []
        inner = {n: [weights[layer][w] for w in axes] for n, (layer, axes, _) in self.inner.items()}
        with tf.GradientTape() as tape:
            tape.watch(inner)

            def watch(tensor, value):
                if tensor in shown:
                    tape.watch(value)
                    shown[tensor] = value

            for segment in self.segments:
                inputs.append(x)
                x = self._calls(segment, x, weights, watch)
            loss = tf.reduce_sum(self._reward(labels, teacher, self._as_outputs(x)))
        values = list(shown.values())
        found, inside = tape.gradient(loss, (values, inner), unconnected_gradients="zero")
        axes = [self._analysis.axis(tensor) + 1 for tensor in shown]
        scores = [_taylor(*row) for row in zip(values, found, axes, strict=True)]
        for name, (_, axes, _) in self.inner.items():
            rows = zip(inner[name], inside[name], axes.values(), strict=True)
            scores.append(tf.add_n([_taylor(*row) for row in rows]))
        return scores, inputs


def _taylor(value: tf.Tensor, gradient: tf.Tensor, axis: int) -> tf.Tensor:
    # A gate m ⊙ x has the gradient Σ g·x: the straight-through estimator needs no gate in the graph.
    axes = [i for i in range(value.shape.rank) if i != axis % value.shape.rank]
    return tf.reduce_sum(tf.cast(value * gradient, tf.float32), axes)
