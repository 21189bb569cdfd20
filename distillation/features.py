"""What losses read off a network: logits, maps of stages and blocks, the pooled vector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from secateur.distillation.loss import READS
from secateur.nets.graph import Call, Graph, trace
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
) -> keras.Model:
    """A model on the same weights that returns `{"logits": tensor, "stages": [tensors], …}`.

    Args:
        model: functional or Sequential, images (b, h, w, c), or several inputs in any structure, → logits or
            their softmax (b, classes).
        reads: which of `READS`, or "all"; the logits always come; also `OUTPUT`, the model's output as it is.
            What `layers` does not name is found: blocks are the outputs of residual additions, behind their non-linearity, or in a network without
            these all non-linear maps; stages the last such map of each resolution; pooled what the last
            dense layer reads. For our ResNets: all "*_relu2", the last of each stage, and "pool".
        layers: {"stages": [names of layers], …} instead of what would be found.
        more: names of layers whose outputs come under their own names.

    Returns only what was asked for. Raises `UsageError` with the nearest valid name, or with the remedy when
    a network has no such features.
    """
    layers, found = layers or {}, _Features(model)
    outputs: dict[str, Any] = {"logits": found.logits()}
    for read in [read for read in READS if read in {*_checked(reads), *layers}]:
        if read in layers:
            given: str | Sequence[str] = layers[read]
            tensors = [found.named(name) for name in ([given] if isinstance(given, str) else given)]
            outputs[read] = tensors if read in ("stages", "blocks") else tensors[0]
        elif read != "logits":
            outputs[read] = getattr(found, read)()
    outputs |= {name: found.named(name) for name in more}
    outputs |= {OUTPUT: found.output()} if OUTPUT in reads else {}
    with deep(max(found.depth.values())):
        return keras.Model(inputs_of(model), outputs, name=f"{model.name}_view")


def inputs_of(model: keras.Model) -> Any:
    """What a functional model reads, in the structure that it was built with; of a list of one, that one."""
    return model.inputs[0] if isinstance(model.input, list) and len(model.inputs) == 1 else model.input


def _checked(reads: Iterable[str]) -> list[str]:
    reads = [one for read in reads for one in (READS if read == "all" else [read])]
    for read in reads:
        require(read, (*READS, OUTPUT), "feature", "reads")
    return reads


class _Features:
    """The symbolic tensors of a model that are features. Has a method for each of `READS`."""

    def __init__(self, model: keras.Model) -> None:
        self.model, self.graph = model, _graph_of(model)
        self.made_by = {tensor: call for call in self.graph.calls for tensor in call.outputs}
        self.depth = self.graph.depths()

    def named(self, name: str) -> Any:
        """The output of a layer."""
        known = {call.name: call for call in self.graph.calls}
        if name not in known:
            raise UsageError(
                f"{self.model.name} has no such layer. Received: layer={name!r}. {nearest(name, known)}"
            )
        return _tensor(known[name])

    def logits(self) -> Any:
        """The output, or what its softmax is taken of. Raises `UsageError` for any other end."""
        last = self.made_by[self.graph.outputs[0]]
        activation = _activation(last)
        if activation == "softmax" and "/" not in last.name:
            if type(last.layer).__name__ in ("Softmax", "Activation"):
                return _read(last)
            if isinstance(last.layer, keras.layers.Dense):
                return BeforeActivation(last.layer)(_read(last))
        if activation in ("softmax", "sigmoid"):
            raise UsageError(
                f"{self.model.name} has no logits. Received: last layer {last.layer.name!r}, activation="
                f"{activation!r}\nBuild it without one (in keras.applications: classifier_activation=None)"
            )
        return self.model.outputs[0]

    def output(self) -> Any:
        """The output as it is."""
        return self.model.outputs[0]

    def blocks(self) -> list[Any]:
        """Outputs of additions, or all large maps."""
        return self._tensors(self._merges() or _large(self._maps()), "blocks")

    def stages(self) -> list[Any]:
        """Of residual networks only resolutions with a block, so no stem; blocks, not their insides."""
        maps, merges = self._maps(), self._merges()
        sizes = {_size(call) for call in merges}
        ends = [call for call in maps if _size(call) in sizes] if merges else _large(maps)
        last = {_size(call): call for call in [*ends, *(call for call in merges if _bends(call))]}
        return self._tensors(self._in_order(last.values()), "stages")

    def pooled(self) -> Any:
        """What the last layer with a kernel reads, averaged where it is a map."""
        call = self.made_by[self.graph.outputs[0]]
        while getattr(call.layer, "kernel", None) is None:
            if not call.inputs:
                self._refuse_none("pooled")
            call = self.made_by[call.inputs[0]]
        self._refuse_inner([call], "pooled")
        x = _read(call)
        return keras.layers.GlobalAveragePooling2D(name="pooled")(x) if len(x.shape) == 4 else x

    def _maps(self) -> list[Call]:
        """Non-linear maps, from the input on."""
        return self._in_order(filter(_bends, self.graph.calls))

    def _merges(self) -> list[Call]:
        """Additions, each replaced by the non-linearity that reads it, if there is one."""
        readers = {tensor: call for call in self.graph.calls if _bends(call) for tensor in call.inputs}
        return self._in_order(readers.get(c.outputs[0], c) for c in self.graph.calls if _adds(c))

    def _in_order(self, calls: Iterable[Call]) -> list[Call]:
        return sorted(calls, key=lambda call: self.depth[call.outputs[0]])

    def _tensors(self, found: list[Call], read: str) -> list[Any]:
        self._refuse_inner(self.graph.calls, read)
        if not found:
            self._refuse_none(read)
        return list(map(_tensor, found))

    def _refuse_none(self, read: str) -> None:
        raise UsageError(
            f"No {read} were found in {self.model.name}. Received: reads={read!r}\n"
            f'Name its layers: layers={{"{read}": ["first layer", …]}}'
        )

    def _refuse_inner(self, calls: Iterable[Call], read: str) -> None:
        if inner := next((call.name.partition("/")[0] for call in calls if "/" in call.name), None):
            raise UsageError(
                f"The {read} of {self.model.name} are hidden in a model inside it. "
                f"Received: layer={inner!r}\n"
                "Build it of one piece: keras.Model(base.input, head(base.output))"
            )


def _graph_of(model: keras.Model) -> Graph:
    inputs, outputs = getattr(model, "inputs", None) or [], getattr(model, "outputs", None) or []
    if not inputs or len(outputs) != 1:
        raise UsageError(
            f"Features are read off functional models with one output. Received: "
            f"{type(model).__name__} {model.name!r} with {len(inputs)} inputs and {len(outputs)} outputs\n"
            "Build it with keras.Model(images, logits)"
        )
    return trace(model)


class BeforeActivation(keras.layers.Layer):
    """What a dense layer computes before its activation, with that layer's own weights."""

    def __init__(self, dense: keras.layers.Dense) -> None:
        super().__init__(name=f"{dense.name}_logits", dtype=dense.dtype_policy)
        self.dense = dense

    def call(self, x: Any) -> Any:
        """(b, features) → (b, classes)."""
        x = keras.ops.matmul(x, self.dense.kernel)
        return x if self.dense.bias is None else x + self.dense.bias


# --- of one call -------------------------------------------------------------------------------------------


def _tensor(call: Call) -> Any:
    return call.node.outputs[0]


def _read(call: Call) -> Any:
    return call.node.arguments.keras_tensors[0]


def _size(call: Call) -> tuple:
    return call.shapes[0][1:3]


def _large(maps: list[Call]) -> list[Call]:
    """Without those of 1×1, which are heads and gates, where there are larger ones."""
    return [call for call in maps if _size(call) != (1, 1)] or maps


def _activation(call: Call) -> str:
    """Name of the non-linearity that makes the output, in small letters; "linear" for none."""
    own, kind = getattr(call.layer, "activation", None), type(call.layer).__name__.lower()
    name = getattr(own, "__name__", "linear") if own is not None else kind
    return "softmax" if kind == "softmax" else name


def _bends(call: Call) -> bool:
    """Whether the output is a map (b, h, w, c) behind a non-linearity."""
    own = getattr(call.layer, "activation", None)
    bent = own is not None and getattr(own, "__name__", "") not in LINEAR
    return len(call.shapes[0]) == 4 and (bent or type(call.layer).__name__.lower().replace("_", "") in BENT)


def _adds(call: Call) -> bool:
    """Whether it merges maps by addition."""
    return type(call.layer).__name__ == "Add" and len(call.inputs) > 1 and len(call.shapes[0]) == 4
