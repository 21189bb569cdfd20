"""The network with its masks as an input: one compiled function for all plans."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from secateur.nets.graph import Call, kind_of
from secateur.nets.kernels import named_variables
from secateur.pruning.groups.analysis import Analysis
from secateur.pruning.layers import find, running
from secateur.pruning.score.batches import batches, input_types


class Gated:
    """Images and masks → outputs. A channel that is off reaches no layer that reads it.

    Args:
        analysis: of the model, whose weights are used as they are.
        batch_size: images that are run at a time.
    """

    def __init__(self, analysis: Analysis, batch_size: int = 256) -> None:
        self._analysis, self._batch_size = analysis, batch_size
        members = [(group, member) for group in analysis.groups for member in group.members]
        self._readers = {m.layer for _, m in members if m.role == "consumer"}
        self._starts = dict(zip((g.name for g in analysis.groups), _starts(analysis), strict=True))
        self._open = sum(group.size for group in analysis.groups)  # the gate that is always open
        self._norms, self._inside = set(), defaultdict(list)
        tensors = {c.name: {*c.inputs, *c.outputs} for c in analysis.calls}
        for group, member in members:
            known = find(kind_of(type(analysis.graph.layers[member.layer])))
            if known and known.masked and "mask" in member.axes:
                self._norms.add(member.layer)
            shown = {name for tensor in tensors[member.layer] for name, _ in analysis.parts[tensor]}
            if member.role != "padding" and group.name not in shown:  # heads: no tensor has them
                self._inside[member.layer].append((group.name, member))
        signature = [input_types(analysis), tf.TensorSpec([None], tf.float32)]
        self._forward = tf.function(self._run, input_signature=signature, autograph=False)

    def __call__(self, images: Any, masks: Mapping[str, np.ndarray]) -> Any:
        """Outputs of all images (one array, or a list of them) under one boolean mask for each group."""
        gates = [np.asarray(masks[group.name], np.float32) for group in self._analysis.groups]
        gates = tf.constant(np.concatenate([*gates, [1.0]]), tf.float32)
        parts = [
            [output.numpy() for output in self._forward(batch, gates)]
            for _, batch in batches(self._analysis, images, self._batch_size)
        ]
        outputs = [np.concatenate(rows) for rows in zip(*parts, strict=True)]
        return outputs[0] if len(outputs) == 1 else outputs

    def _run(self, images: list[tf.Tensor], gates: tf.Tensor) -> list[tf.Tensor]:
        graph = self._analysis.graph
        values = dict(zip(graph.inputs, images, strict=True))
        for call in graph.calls:
            if call.kind == "InputLayer":
                continue
            read = [values[t] for t in call.inputs]
            if call.name in self._readers:
                read = [self._gated(x, t, gates) for x, t in zip(read, call.inputs, strict=True)]
            values |= dict(zip(call.outputs, self._made(call, read, gates), strict=True))
        return [values[t] for t in graph.outputs]

    def _made(self, call: Call, read: list[tf.Tensor], gates: tf.Tensor) -> list[tf.Tensor]:
        """What a call makes: norms take statistics of open gates, channels inside of it have gates too."""
        if call.name in self._norms:
            ones = tf.ones([1] * (len(call.shapes[0]) - 1) + [call.shapes[0][-1]])
            gate = tf.reshape(self._gated(ones, call.inputs[0], gates), [-1])
            own = {name: v.value for name, v in named_variables(call.layer).items()}
            return [find(call.kind).run(call, {**own, "mask": gate * own.get("mask", 1)}, *read)]
        if not (inside := self._inside.get(call.name)):
            return call.run(read, training=False)
        own = {name: v.value for name, v in named_variables(call.layer).items()}
        for group, member in inside:
            places = np.where(member.index < 0, self._open, self._starts[group] + member.index)
            for name, axis in member.axes.items():
                shape = [-1 if i == axis else 1 for i in range(len(own[name].shape))]
                own[name] = own[name] * tf.cast(tf.reshape(tf.gather(gates, places), shape), own[name].dtype)
        return running.layer_itself(call, own, *read)

    def _gated(self, value: tf.Tensor, tensor: int, gates: tf.Tensor) -> tf.Tensor:
        for slots, labels in self._analysis.planes:
            own = slots[labels[tensor]]  # of size 1 along the axes where channels do not change
            if (own >= 0).any():
                gate = tf.gather(gates, np.where(own < 0, self._open, own))
                value = value * tf.cast(gate, value.dtype)
        return value


def _starts(analysis: Analysis) -> list[int]:
    """Where the gates of each group begin."""
    return np.cumsum([0, *(group.size for group in analysis.groups)])[:-1].tolist()
