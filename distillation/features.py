"""What losses read off a network: logits, maps of stages and blocks, the pooled vector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from secateur.distillation.loss import READS
from secateur.distillation.unfolded import Reading, Unfolded
from secateur.nets.endings import Ending, ending_of
from secateur.nets.graph import Call, Graph, functional_of, trace
from secateur.runs.errors import UsageError
from secateur.runs.recursion import deep
from secateur.runs.suggest import nearest, require

OUTPUT = "the output"  # no name of a layer
LINEAR = ("linear", "softmax")  # activations that end a network or do nothing
BENT = {
    "relu", "relu6", "leakyrelu", "prelu", "elu", "selu", "gelu", "silu", "swish", "hardswish", "hardsilu",
}  # fmt: skip


def view(
    model: keras.Model,
    reads: Iterable[str],
    layers: Mapping[str, Sequence[str]] | None = None,
    more: Iterable[str] = (),
    kind: str = "classes",
) -> keras.Model:
    """A model on the same weights that returns `{"logits": tensor, "stages": [tensors], …}`.

    Args:
        model: functional or Sequential, also with models inside: images (b, h, w, c), or what else it reads
            → logits or their softmax (b, classes), or what `kind` says.
        reads: which of `READS`, or "all"; the logits always come. Also `OUTPUT`, what the model itself gives.
            What `layers` does not name is found: blocks are the outputs of residual additions, behind their
            non-linearity, or in a network without these all non-linear maps; stages the last such map of each
            resolution; pooled what the last dense layer reads. For our ResNets: all "*_relu2", the last of
            each stage, and "pool".
        layers: {"stages": [names of layers], …} instead of what would be found; of a layer in a model inside
            "model/layer".
        more: names of layers whose outputs come under their own names.
        kind: of the `Task`. "logits" of "labels", which decide by themselves, are before a sigmoid; those of
            "numbers" and "own" are the outputs as they are, of several in the structure that the model has.

    Returns only what was asked for. Raises `UsageError` with the nearest valid name, or with the remedy when
    a network has no such features.
    """
    layers, found = layers or {}, _Features(model, kind)
    outputs: dict[str, Any] = {"logits": found.logits()}
    for read in [read for read in READS if read in {*_checked(reads), *layers}]:
        if read in layers:
            given: str | Sequence[str] = layers[read]
            readings = [found.named(name) for name in ([given] if isinstance(given, str) else given)]
            outputs[read] = readings if read in ("stages", "blocks") else readings[0]
        elif read != "logits":
            outputs[read] = getattr(found, read)()
    outputs |= {name: found.named(name) for name in more}
    outputs |= {OUTPUT: found.output()} if OUTPUT in reads else {}
    return found.model_of(outputs)


def _checked(reads: Iterable[str]) -> list[str]:
    reads = [one for read in reads for one in (READS if read == "all" else [read])]
    for read in reads:
        require(read, (*READS, OUTPUT), "feature", "reads")
    return reads


class _Features:
    """Where the features of a model are. Has a method for each of `READS`."""

    def __init__(self, model: keras.Model, kind: str) -> None:
        self.model, self.kind, self.graph = model, kind, _graph_of(model, kind)
        self.made_by = {tensor: call for call in self.graph.calls for tensor in call.outputs}
        self.depth = self.graph.depths()
        self.nested = any("/" in call.name for call in self.graph.calls)
        self.shapes = self._shapes()

    def model_of(self, outputs: dict[str, Any]) -> keras.Model:
        """The model that returns these readings."""
        name = f"{self.model.name}_view"
        if self.nested:
            return Unfolded(self.model, self.graph, outputs, name)
        calls = self.graph.calls
        symbols = {t: x for c in calls for t, x in zip(c.outputs, c.node.outputs, strict=True)}
        inputs = self.model.inputs
        inputs = inputs[0] if len(inputs) == 1 else functional_of(self.model)._inputs_struct
        made = keras.tree.map_structure(lambda reading: reading.of(symbols), outputs)
        with deep(max(self.depth.values())):
            return keras.Model(inputs, made, name=name)

    def named(self, name: str) -> Reading:
        """The output of a layer."""
        known = {call.name: call for call in self.graph.calls}
        if name not in known:
            raise UsageError(
                f"{self.model.name} has no such layer. Received: layer={name!r}. {nearest(name, known)}"
            )
        return Reading(known[name].outputs[0])

    def output(self) -> Any:
        """All outputs as they are, in the structure that the model has."""
        readings = [Reading(tensor) for tensor in self.graph.outputs]
        return keras.tree.pack_sequence_as(functional_of(self.model)._outputs_struct, readings)

    def logits(self) -> Any:
        """The output, or what its softmax is taken of, see `view`; of several outputs a structure."""
        found = [self._bare(i) for i in range(len(self.graph.outputs))]
        if len(found) == 1:
            return found[0]
        return keras.tree.pack_sequence_as(functional_of(self.model)._outputs_struct, found)

    def _bare(self, output: int) -> Reading:
        """An output without its softmax, or sigmoid of labels. Raises `UsageError` for the other of these."""
        end = None if self.kind in ("numbers", "own") else ending_of(self.graph, output)
        if end is None:
            return Reading(self.graph.outputs[output])
        if not end.along_last or end.activation != ("sigmoid" if self.kind == "labels" else "softmax"):
            self._refuse(end)
        through = [] if end.alone else [BeforeActivation(end.call.layer)]
        made, shape = end.call.shapes[0], self.graph.output_shapes[output]
        if made[1:] != shape[1:]:
            through.append(keras.layers.Reshape(shape[1:]))
        return Reading(end.call.inputs[0], tuple(through))

    def _refuse(self, end: Ending) -> None:
        raise UsageError(
            f"{self.model.name} has no logits. Received: last layer {end.call.layer.name!r}, "
            f"activation={end.activation!r}\n"
            "Build it without one (in keras.applications: classifier_activation=None), or say what it makes: "
            "Lesson(task=…)"
        )

    def blocks(self) -> list[Reading]:
        """Outputs of additions, or all large maps."""
        return self._readings(self._merges() or self._large(self._maps()), "blocks")

    def stages(self) -> list[Reading]:
        """Of residual networks only resolutions with a block, so no stem; blocks, not their insides."""
        maps, merges = self._maps(), self._merges()
        sizes = {self._size(call) for call in merges}
        ends = [call for call in maps if self._size(call) in sizes] if merges else self._large(maps)
        last = {self._size(call): call for call in [*ends, *(call for call in merges if _bends(call))]}
        return self._readings(self._in_order(last.values()), "stages")

    def pooled(self) -> Reading:
        """What the last layer with a kernel reads, averaged where it is a map."""
        call = self.made_by[self.graph.outputs[0]]
        while getattr(call.layer, "kernel", None) is None:
            if not call.inputs:
                self._refuse_none("pooled")
            call = self.made_by[call.inputs[0]]
        is_map = len(call.input_shapes[0]) == 4
        return Reading(
            call.inputs[0], (keras.layers.GlobalAveragePooling2D(name="pooled"),) if is_map else ()
        )

    def _maps(self) -> list[Call]:
        """Non-linear maps, from the input on."""
        return self._in_order(filter(_bends, self.graph.calls))

    def _merges(self) -> list[Call]:
        """Additions, each replaced by the non-linearity that reads it, if there is one."""
        readers = {tensor: call for call in self.graph.calls if _bends(call) for tensor in call.inputs}
        return self._in_order(readers.get(c.outputs[0], c) for c in self.graph.calls if _adds(c))

    def _in_order(self, calls: Iterable[Call]) -> list[Call]:
        return sorted(calls, key=lambda call: self.depth[call.outputs[0]])

    def _size(self, call: Call) -> tuple:
        return self.shapes[call.outputs[0]][1:3]

    def _large(self, maps: list[Call]) -> list[Call]:
        """Without those of 1×1, which are heads and gates, where there are larger ones."""
        return [call for call in maps if self._size(call) != (1, 1)] or maps

    def _readings(self, found: list[Call], read: str) -> list[Reading]:
        if not found:
            self._refuse_none(read)
        return [Reading(call.outputs[0]) for call in found]

    def _refuse_none(self, read: str) -> None:
        raise UsageError(
            f"No {read} were found in {self.model.name}. Received: reads={read!r}\n"
            f'Name its layers: layers={{"{read}": ["first layer", …]}}'
        )

    def _shapes(self) -> dict[int, tuple]:
        """Shapes of all tensors; a model inside may leave sizes open that the one around it says."""
        shapes = {t: s for call in self.graph.calls for t, s in zip(call.outputs, call.shapes, strict=True)}
        if self.nested and any(None in shape[1:] for shape in shapes.values()):
            every = Unfolded(self.model, self.graph, {str(t): Reading(t) for t in shapes}, "every")
            shapes = {int(name): tuple(x.shape) for name, x in every.output.items()}
        return shapes


def _graph_of(model: keras.Model, kind: str) -> Graph:
    outputs = getattr(model, "outputs", None) or []
    if len(outputs) > 1 and kind != "own":
        raise UsageError(
            f"Features are read off models with one output. Received: {model.name!r} with {len(outputs)}"
        )
    return trace(model)


class BeforeActivation(keras.layers.Layer):
    """What a layer computes before its activation, with that layer's own weights."""

    def __init__(self, layer: keras.layers.Layer) -> None:
        super().__init__(name=f"{layer.name}_logits", dtype=layer.dtype_policy)
        self.layer = layer
        self.built = True

    def call(self, x: Any) -> Any:
        """(b, …, features) → (b, …, classes)."""
        own, self.layer.activation = self.layer.activation, None
        try:
            return self.layer.call(x)
        finally:
            self.layer.activation = own


# --- of one call -------------------------------------------------------------------------------------------


def _bends(call: Call) -> bool:
    """Whether the output is a map (b, h, w, c) behind a non-linearity."""
    own = getattr(call.layer, "activation", None)
    bent = own is not None and getattr(own, "__name__", "") not in LINEAR
    return len(call.shapes[0]) == 4 and (bent or type(call.layer).__name__.lower().replace("_", "") in BENT)


def _adds(call: Call) -> bool:
    """Whether it merges maps by addition."""
    return type(call.layer).__name__ == "Add" and len(call.inputs) > 1 and len(call.shapes[0]) == 4
