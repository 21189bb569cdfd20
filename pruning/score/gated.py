"""The network with its masks as an input: one compiled function for all plans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from secateur.pruning.groups.analysis import Analysis
from secateur.pruning.score.batches import batches, input_types


class Gated:
    """Images and masks → outputs. A channel that is off reaches no layer that reads it.

    Args:
        analysis: of the model, whose weights are used as they are.
        batch_size: images that are run at a time.
    """

    def __init__(self, analysis: Analysis, batch_size: int = 256) -> None:
        self._analysis, self._batch_size = analysis, batch_size
        self._readers = {m.layer for g in analysis.groups for m in g.members if m.role == "consumer"}
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
            values |= dict(zip(call.outputs, call.run(read, training=False), strict=True))
        return [values[t] for t in graph.outputs]

    def _gated(self, value: tf.Tensor, tensor: int, gates: tf.Tensor) -> tf.Tensor:
        slots = self._analysis.slots[self._analysis.labels[tensor]]
        if (slots < 0).all():
            return value
        last = sum(group.size for group in self._analysis.groups)  # the gate that is always open
        return value * tf.cast(tf.gather(gates, np.where(slots < 0, last, slots)), value.dtype)
