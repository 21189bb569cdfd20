"""A model with models inside it as one graph, of which any tensor can be had."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from secateur.nets.graph import Graph, functional_of


@dataclass(frozen=True)
class Reading:
    """A tensor of a graph, by its number, and what it goes through before it is handed out."""

    tensor: int
    through: tuple[Callable[[Any], Any], ...] = ()

    def of(self, values: Mapping[int, Any]) -> Any:
        """What is read, of tensors by number."""
        value = values[self.tensor]
        for function in self.through:
            value = function(value)
        return value


class Unfolded(keras.Model):
    """Runs the layers of a model and of those inside it, each as it was called, and returns readings.

    No layer is called on symbolic tensors again: `layer.output` stays what it is to its owner.

    Args:
        model: functional; its weights are shared.
        graph: of it.
        readings: what to return, in any structure.

    Attributes:
        output: symbolic tensors in the structure of `readings`.
    """

    def __init__(self, model: keras.Model, graph: Graph, readings: Any, name: str) -> None:
        super().__init__(name=name, autocast=False)
        self.model, self._graph, self._readings = model, graph, _Kept(readings)
        self.built = True
        symbols = [keras.KerasTensor(x.shape, x.dtype) for x in model.inputs]
        symbols = keras.tree.pack_sequence_as(functional_of(model)._inputs_struct, symbols)
        self._output = _Kept(self.compute_output_spec(symbols, training=False))

    @property
    def output(self) -> Any:
        """See above."""
        return self._output.value

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """What the model reads → the readings."""
        given = functional_of(self.model)._standardize_inputs(inputs)
        values = dict(zip(self._graph.inputs, given, strict=True))
        for call in self._graph.calls:
            if call.kind != "InputLayer":
                made = call.run([values[t] for t in call.inputs], training=training)
                values |= dict(zip(call.outputs, made, strict=True))
        return keras.tree.map_structure(lambda reading: reading.of(values), self._readings.value)


@dataclass(frozen=True)
class _Kept:
    """Holds what Keras must not track: it would turn dictionaries and lists into its own."""

    value: Any
