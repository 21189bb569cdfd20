"""From a plan to a network: masked (same shapes, dead channels zero) or smaller, also of plain layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from secateur.nets.copies import copied, flat_names, give_weights, remade, with_layers, with_operations
from secateur.nets.graph import Call, kind_of, trace
from secateur.pruning.groups.analysis import Analysis, analysis_for
from secateur.pruning.layers import Cut, find, own, plain, with_mask
from secateur.pruning.layers.layout import channels_last, last, own_axis
from secateur.pruning.layers.shaping import channel_padding, named
from secateur.pruning.plan import Plan
from secateur.pruning.shrink.weights import Weights, apply, cut, weights_of, zero
from secateur.runs.errors import UsageError


def mask(model: keras.Model, plan: Plan | None = None, preserve_norm: bool = False) -> keras.Model:
    """A copy whose dead channels are exactly zero, with the shapes of the original.

    Normalisations over channels (LayerNormalization …) have masks there: they take the statistics of living
    channels.

    Args:
        model: functional model.
        plan: kept channels of groups of this model; None keeps everything.
        preserve_norm: rescale each kernel to the norm that it had (EKG).

    Training the copy keeps dead channels dead where their layers have masks, as ours do; in layers of stock
    Keras it revives them. Raises `UsageError` for a plan of another network or a model without a graph.
    """
    analysis, plan = analysis_for(model, plan)
    _check(analysis, plan)
    weights = apply(weights_of(model), analysis.groups, plan.masks(), zero, preserve_norm)
    names, masked = flat_names(analysis.graph), {m.layer for g in analysis.groups for m in g.members}
    copies = {
        path: _masked(layer, names[path]) if path in masked else copied(layer, names[path])
        for path, layer in analysis.graph.layers.items()
    }
    for call in {call.name: call for call in analysis.calls}.values():
        if call.name in analysis.reduced:
            own = copies[call.name]
            copies[call.name] = _over_living(call, own, names[call.name], analysis, plan.masks())
    return _finish(model, with_layers(model, analysis.graph, copies), weights, copies)


def _masked(layer: Any, name: str) -> Any:
    make, config = with_mask(layer)
    return remade(layer, make, config | {"name": name})


def _over_living(call: Call, reduction: Any, name: str, analysis: Analysis, masks: Mapping) -> Any:
    """A mean, or the like, over channels that is taken over those that are left."""
    alive, axis = analysis.alive(call.inputs[0], masks), analysis.axis(call.inputs[0]) + 1
    if alive is None or alive.all():
        return reduction
    picks = np.flatnonzero(alive).tolist()
    return lambda x: reduction(named(keras.ops.take(x, picks, axis=axis), f"{name}_living"))


def narrow(
    model: keras.Model, plan: Plan, preserve_norm: bool = False, alive: Plan | None = None
) -> keras.Model:
    """A smaller network of the same layer classes: masked layers stay masked layers and train as fast.

    With `alive`, which keeps some of the channels that `plan` keeps, it is what
    `narrow(mask(model, alive, preserve_norm), plan)` makes. The other arguments, and errors, are those of
    `compact`.
    """
    return _shrink(model, plan, preserve_norm, stock=False, alive=alive)


def compact(model: keras.Model, plan: Plan | None = None, preserve_norm: bool = False) -> keras.Model:
    """A smaller network of plain Keras layers, that `keras.models.load_model` reads without this project.

    Args:
        model: functional model.
        plan: what stays; None keeps everything and only turns masked layers into plain ones.
        preserve_norm: rescale each kernel to the norm that it had (EKG).

    Returns a model with the same layer names whose outputs equal those of `mask(model, plan)`.
    Raises `UsageError` for a plan of another network and a model without a graph.
    """
    return _shrink(model, plan, preserve_norm, stock=True)


def _check(analysis: Analysis, plan: Plan) -> None:
    masks = plan.masks()
    for group in analysis.groups:
        if layer := group.emptied(masks[group.name]):
            raise UsageError(
                f"This plan leaves {layer!r} without channels. Received: {len(plan.keep[group.name])} of the "
                f"{group.size} channels of group {group.name!r}"
            )


def _shrink(
    model: keras.Model, plan: Plan | None, preserve_norm: bool, stock: bool, alive: Plan | None = None
) -> keras.Model:
    analysis, plan = analysis_for(model, plan)
    _check(analysis, plan)
    masks, weights = plan.masks(), weights_of(model)
    if alive:
        alive = alive.check(analysis.groups)
        _check(analysis, alive)
        weights = apply(weights, analysis.groups, alive.masks(), zero, preserve_norm)
    weights = apply(weights, analysis.groups, masks, cut, preserve_norm and not alive)
    pads = channel_paddings(analysis, masks)
    names, layers = flat_names(analysis.graph), {}
    for call in analysis.calls:
        if call.name not in layers:
            make = plain if stock else with_mask if alive else own
            config = make(call.layer)
            layers[call.name] = _resized(call, names[call.name], weights, analysis, masks, pads, config)
    called = {path: with_operations(layer) for path, layer in layers.items()} if stock else layers
    return _finish(model, with_layers(model, analysis.graph, called), weights, layers, pads)


def channel_paddings(analysis: Analysis, masks: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
    """Layer → new (front, back) of each zero padding of channels: the padded positions that are kept."""
    pads: dict[str, tuple[int, int]] = {}
    calls = {call.name: call for call in analysis.calls}
    for group in analysis.groups:
        for member in group.members:
            if member.role == "padding":
                call = calls[member.layer]
                alive = masks[group.name][member.index]
                front, back = channel_padding(call, analysis.axis(call.outputs[0]))
                pads[member.layer] = (int(alive[:front].sum()), int(alive[len(alive) - back :].sum()))
    return pads


def _resized(
    call: Call, name: str, weights: Weights, analysis: Analysis, masks: Mapping, pads: Mapping, made: tuple
) -> Any:
    """A fresh layer, from class and configuration, with the sizes that its cut weights and tensors have."""
    layer, known, (make, config) = call.layer, find(call.kind), made
    if known:
        left = _left(call, analysis, weights, masks, pads.get(call.name))
        if known.replace and (other := known.replace(call, left, name)):
            return other
        config = known.resized(config, channels_last(call), left)
    return remade(layer, make, config | {"name": name})


def _left(
    call: Call, analysis: Analysis, weights: Weights, masks: Mapping, pad: tuple[int, int] | None
) -> Cut:
    own, shapes_of = own_axis(call), {name: x.shape for name, x in weights.get(call.name, {}).items()}
    inputs, outputs = (
        tuple(last(analysis.sizes(t, s, masks), own) for t, s in zip(tensors, shapes, strict=True))
        for tensors, shapes in ((call.inputs, call.input_shapes), (call.outputs, call.shapes))
    )
    if not inputs:
        return Cut(inputs, outputs)
    read, made = call.inputs[0], call.outputs[0]
    alive = analysis.alive(read, masks)
    return Cut(inputs, outputs, shapes_of, analysis.axis(read), analysis.axis(made), alive, pad)


def _finish(
    original: keras.Model,
    model: keras.Model,
    weights: Weights,
    layers: Mapping[str, Any],
    pads: dict | None = None,
) -> keras.Model:
    old = trace(original).layers
    for path, arrays in weights.items():
        give_weights(layers[path], fitted(old[path], arrays, layers[path]))
    if hasattr(original, "spec"):
        widths = {**original.spec.widths, **_widths(model), **_pad_widths(pads or {}, model)}
        model.spec = dataclasses.replace(original.spec, widths=widths)
    return model


def fitted(layer: Any, arrays: dict, other: Any) -> dict:
    """The weights of a layer as another one, of other widths, needs them to do the same."""
    known = find(kind_of(type(layer)))
    return known.refit(layer, arrays, other) if known and known.refit else arrays


def _widths(model: keras.Model) -> dict[str, int]:
    """Channels that convolutions and hidden dense layers make; those of the logits are the classes."""
    makers = [layer for layer in model.layers if hasattr(layer, "filters") or hasattr(layer, "units")]
    return {m.name: m.output.shape[-1] for m in makers if m.output is not model.output}


def _pad_widths(pads: dict, model: keras.Model) -> dict[str, int]:
    named: dict[str, int] = {}
    for name, (front, _) in pads.items():
        named |= {name: front, f"{name}_width": model.get_layer(name).output.shape[-1]}
    return named
