"""What losses read off a network: logits, maps of stages and blocks, the pooled vector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from secateur.distillation.graph import Call, calls_of, producers
from secateur.distillation.logits import logits_of
from secateur.distillation.loss import READS
from secateur.runs.errors import UsageError
from secateur.runs.recursion import deep
from secateur.runs.suggest import nearest


def view(
    model: keras.Model,
    reads: Iterable[str],
    layers: Mapping[str, Sequence[str]] | None = None,
    more: Iterable[str] = (),
) -> keras.Model:
    """A model on the same weights that returns `{"logits": tensor, "stages": [tensors], …}`.

    Args:
        model: functional or Sequential, images (b, h, w, c) → logits or their softmax (b, classes).
        reads: which of `READS`, or "all"; the logits always come. What `layers` does not name is found:
            blocks are the outputs of residual additions, behind their non-linearity, or in a network without
            these all non-linear maps; stages the last such map of each resolution; pooled what the last
            dense layer reads. For our ResNets: all "*_relu2", the last of each stage, and "pool".
        layers: {"stages": [names of layers], …} instead of what would be found.
        more: names of layers whose outputs come under their own names.

    Returns only what was asked for. Raises `UsageError` with the nearest valid name, or with the remedy when
    a network has no such features.
    """
    layers, calls = layers or {}, calls_of(model)
    wanted = [read for read in READS if read in {*_checked(reads), *layers}]
    outputs: dict[str, Any] = {"logits": logits_of(model, calls)}
    for read in wanted:
        if read in layers:
            tensors = [_named(calls, name, model) for name in _list(layers[read])]
            outputs[read] = tensors if read in ("stages", "blocks") else tensors[0]
        elif read != "logits":
            outputs[read] = _FINDERS[read](calls, model)
    outputs |= {name: _named(calls, name, model) for name in more}
    with deep(max(call.depth for call in calls)):
        return keras.Model(model.inputs[0], outputs, name=f"{model.name}_view")


def _checked(reads: Iterable[str]) -> list[str]:
    reads = [one for read in reads for one in (READS if read == "all" else [read])]
    if wrong := next((read for read in reads if read not in READS), None):
        raise UsageError(f"Unknown feature. Received: reads={wrong!r}. {nearest(wrong, READS)}")
    return reads


def _list(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _named(calls: list[Call], name: str, model: keras.Model) -> Any:
    known = {call.layer.name: call.output for call in calls}
    if name not in known:
        raise UsageError(f"{model.name} has no such layer. Received: layer={name!r}. {nearest(name, known)}")
    return known[name]


# --- found in the graph -------------------------------------------------------------------------------------


def _maps(calls: list[Call]) -> list[Call]:
    """Non-linear maps, from the input on."""
    return sorted((call for call in calls if call.bends), key=_depth)


def _large(maps: list[Call]) -> list[Call]:
    """Without those of 1×1, which are heads and gates, where there are larger ones."""
    return [call for call in maps if _size(call) != (1, 1)] or maps


def _merges(calls: list[Call]) -> list[Call]:
    """Additions, each replaced by the non-linearity that reads it, if there is one."""
    readers = {id(t): call for call in calls if call.bends for t in call.inputs}
    return sorted((readers.get(id(call.output), call) for call in calls if call.adds), key=_depth)


def _size(call: Call) -> tuple:
    return tuple(call.output.shape[1:3])


def _depth(call: Call) -> int:
    return call.depth


def _blocks(calls: list[Call], model: keras.Model) -> list:
    return [call.output for call in _found(_merges(calls) or _large(_maps(calls)), calls, "blocks", model)]


def _stages(calls: list[Call], model: keras.Model) -> list:
    """Of residual networks only resolutions with a block, so no stem; blocks rather than what is inside."""
    maps, merges = _maps(calls), _merges(calls)
    sizes = {_size(call) for call in merges}
    ends = [call for call in maps if _size(call) in sizes] if merges else _large(maps)
    last = {_size(call): call for call in [*ends, *(call for call in merges if call.bends)]}
    return [call.output for call in sorted(_found(last.values(), calls, "stages", model), key=_depth)]


def _pooled(calls: list[Call], model: keras.Model) -> Any:
    made, call = producers(calls), calls[-1]
    while not _has_kernel(call.layer):
        if not call.inputs:
            _found([], calls, "pooled", model)
        call = made[id(call.inputs[0])]
    x = call.inputs[0]
    return keras.layers.GlobalAveragePooling2D(name="pooled")(x) if len(x.shape) == 4 else x


def _has_kernel(layer: Any) -> bool:
    return getattr(layer, "kernel", None) is not None


def _found(found: Iterable[Call], calls: list[Call], read: str, model: keras.Model) -> list[Call]:
    found = list(found)
    inner = next((call.layer.name for call in calls if isinstance(call.layer, keras.Model)), None)
    if inner and read != "pooled":
        raise UsageError(
            f"The {read} of {model.name} are hidden in a model inside it. Received: layer={inner!r}\n"
            "Build it of one piece: keras.Model(base.input, head(base.output))"
        )
    if not found:
        raise UsageError(
            f"No {read} were found in {model.name}. Received: reads={read!r}\n"
            f'Name its layers: layers={{"{read}": ["first layer", …]}}'
        )
    return found


_FINDERS = {"stages": _stages, "blocks": _blocks, "pooled": _pooled}
