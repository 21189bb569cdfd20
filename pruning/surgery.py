"""From a plan to a network: masked (same shapes, dead channels zero) or smaller, also of plain layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import keras
import numpy as np

from nets.layers import FusedBatchNorm, MaskedConv2D, MaskedDense
from pruning.groups import ChannelGroup, find_groups
from pruning.plan import Plan
from pruning.weights import Weights, apply, cut, named_variables, weights_of, zero
from runs.errors import UsageError


def mask(model: keras.Model, plan: Plan, preserve_norm: bool = False) -> keras.Model:
    """A copy whose dead channels are exactly zero, with the shapes of the original.

    Args:
        model: functional model.
        plan: kept channels of groups of this model.
        preserve_norm: rescale each kernel to the norm that it had (EKG).

    Training the copy keeps dead channels dead where their layers have masks, as ours do; in layers of stock
    Keras it revives them. Raises `UsageError` for a plan of another network or a model without a graph.
    """
    groups = _checked_groups(model, plan)
    copy = keras.models.clone_model(model)
    weights = apply(weights_of(model), groups, plan.masks(), zero, preserve_norm)
    return _finish(model, copy, weights)


def narrow(model: keras.Model, plan: Plan, preserve_norm: bool = False) -> keras.Model:
    """A smaller network of the same layer classes: masked layers stay masked layers and train as fast.

    Arguments and errors are those of `compact`.
    """
    return _shrink(model, plan, preserve_norm, plain=False)


def compact(model: keras.Model, plan: Plan | None = None, preserve_norm: bool = False) -> keras.Model:
    """A smaller network of plain Keras layers, that `keras.models.load_model` reads without this project.

    Args:
        model: functional model.
        plan: what stays; None keeps everything and only turns masked layers into plain ones.
        preserve_norm: rescale each kernel to the norm that it had (EKG).

    Returns a model with the same layer names whose outputs equal those of `mask(model, plan)`.
    Raises `UsageError` for a plan of another network and a model without a graph.
    """
    return _shrink(model, plan or Plan.full(find_groups(model)), preserve_norm, plain=True)


def _checked_groups(model: keras.Model, plan: Plan) -> list:
    groups = find_groups(model)
    plan.check(groups)
    masks = plan.masks()
    for group in groups:
        if layer := group.emptied(masks[group.name]):
            raise UsageError(
                f"This plan leaves {layer!r} without channels. Received: {len(plan.keep[group.name])} of the "
                f"{group.size} channels of group {group.name!r}"
            )
    return groups


def _shrink(model: keras.Model, plan: Plan, preserve_norm: bool, plain: bool) -> keras.Model:
    groups = _checked_groups(model, plan)
    weights = apply(weights_of(model), groups, plan.masks(), cut, preserve_norm)
    pads = channel_paddings(model, groups, plan.masks())
    small = keras.models.clone_model(
        model, clone_function=lambda layer: _resized(layer, weights, pads, plain)
    )
    return _finish(model, small, weights, pads)


def channel_paddings(
    model: keras.Model, groups: Iterable[ChannelGroup], masks: Mapping[str, np.ndarray]
) -> dict[str, tuple[int, int]]:
    """Layer → new (front, back) of each zero padding of channels: the padded positions that are kept."""
    pads = {}
    for group in groups:
        for member in group.members:
            if member.role == "padding":
                alive = masks[group.name][member.index]
                front, back = model.get_layer(member.layer).padding[1]
                pads[member.layer] = (int(alive[:front].sum()), int(alive[len(alive) - back :].sum()))
    return pads


def _conv_config(layer) -> dict:
    own = layer.get_config()
    names = ("name", "trainable", "dtype", "filters", "kernel_size", "strides", "padding", "use_bias")
    return {name: own[name] for name in names}


def _norm_config(layer) -> dict:
    return {name: layer.get_config()[name] for name in ("name", "trainable", "dtype", "momentum", "epsilon")}


def _dense_config(layer) -> dict:
    return {name: layer.get_config()[name] for name in ("name", "trainable", "dtype", "units")}


# masked layer → (plain layer, its configuration); the mask itself has been cut away
_PLAIN = {
    MaskedConv2D: (keras.layers.Conv2D, _conv_config),
    FusedBatchNorm: (keras.layers.BatchNormalization, _norm_config),
    MaskedDense: (keras.layers.Dense, _dense_config),
}


# Only layers that a group can narrow: a recurrent layer has `units` too, and a kernel four times as wide.
_WIDTH = {"Conv2D": "filters", "MaskedConv2D": "filters", "Dense": "units", "MaskedDense": "units"}


def _resized(layer, weights: Weights, pads: dict, plain: bool):
    """A fresh layer with the width that its cut weights have."""
    make, config = type(layer), layer.get_config()
    if plain and make in _PLAIN:
        make, configure = _PLAIN[make]
        config = configure(layer)
    if layer.name in pads:
        config["padding"] = (layer.padding[0], pads[layer.name])
    if option := _WIDTH.get(type(layer).__name__):
        config[option] = weights[layer.name]["kernel"].shape[-1]
    return make.from_config(config)


def _finish(
    original: keras.Model, model: keras.Model, weights: Weights, pads: dict | None = None
) -> keras.Model:
    for layer in model.layers:
        for name, variable in named_variables(layer).items():
            variable.assign(weights[layer.name][name])
    if hasattr(original, "spec"):
        widths = {name: w["kernel"].shape[-1] for name, w in weights.items() if np.ndim(w.get("kernel")) == 4}
        widths = {**original.spec.widths, **widths, **_pad_widths(pads or {}, model)}
        model.spec = dataclasses.replace(original.spec, widths=widths)
    return model


def _pad_widths(pads: dict, model: keras.Model) -> dict[str, int]:
    named = {}
    for name, (front, _) in pads.items():
        named |= {name: front, f"{name}_width": model.get_layer(name).output.shape[-1]}
    return named
