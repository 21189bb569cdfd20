"""Normalisations over channels: their statistics are those of the channels that are alive.

Zeros in place of removed channels would pull the mean and the variance down, so that a masked network gets a
layer with a mask (`nets.layers.MaskedNormalization`), and a compact one Keras' own again, over what is left.
"""

from __future__ import annotations

from math import prod
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur.nets.copies import config_of
from secateur.nets.graph import Call
from secateur.nets.layers import MaskedNormalization, normalised
from secateur.pruning.conventions import Convention
from secateur.pruning.layers.labels import Labels, channel_vector
from secateur.pruning.layers.registry import last_and_others, layer_class
from secateur.pruning.layers.running import Weights
from secateur.runs.errors import UsageError

KINDS = {
    "LayerNormalization": "layer", "RMSNormalization": "rms", "UnitNormalization": "unit",
    "GroupNormalization": "group",
}  # fmt: skip
SCALES = {"gamma": -1, "beta": -1, "scale": -1, "mask": 0}
OTHERS = "it normalises channels together with axes behind them"
RESCALED = "it divides by more than the mean square of channels"
BATCH = "it normalises over the batch"
ASKEW = "Keras scales the last axes in it, whichever it normalises"


def axes_of(call: Call) -> list[int]:
    """The axes that are normalised together, from 0."""
    rank = len(call.shapes[0])
    return list(range(1, rank)) if _in_groups(call) else sorted(a % rank for a in _given(call.layer))


def _in_groups(call: Call) -> bool:
    return getattr(call.layer, "kind", "") == "group" or call.kind == "GroupNormalization"


def _given(layer: Any) -> list[int]:
    return [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)


def _axis_of_channels(call: Call) -> int:
    """From 0; of several axes the last one."""
    return call.layer.axis % len(call.shapes[0]) if _in_groups(call) else axes_of(call)[-1]


def over_channels(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """The label rule: each channel goes by itself, as the others' statistics are taken without it."""
    axes, shape = axes_of(call), call.shapes[0]
    if 0 in axes or getattr(call.layer, "rms_scaling", False):
        return BATCH if 0 in axes else RESCALED
    if call.kind == "RMSNormalization" and axes != [*range(len(shape) - len(axes), len(shape))]:
        return ASKEW
    if len(axes) == 1:  # which rules see at the end
        axes = [len(shape) - 1]
    if all(labels[0].shape[a - 1] == 1 for a in axes):  # it normalises positions, of each channel by itself
        return [labels[0]]
    vector = channel_vector(labels[0], shape[-1])
    if vector is None or axes[-1] != len(shape) - 1:
        return OTHERS
    state.use(call, "follower", SCALES, vector, masked=True)
    return [labels[0]]


def _cost(rule: Convention, call: Call, n_in: int, n_out: int, *places: int) -> tuple[int, int]:
    """Scale and shift along the axes that are normalised; statistics are not stored."""
    axes = [_axis_of_channels(call)] if _in_groups(call) else axes_of(call)
    sizes = (*places, n_out)
    weights = sum(w is not getattr(call.layer, "mask", None) for w in call.layer.weights)
    return weights * prod(sizes[axis - 1] for axis in axes), rule.norm * prod(sizes)


def run(call: Call, w: Weights, x: tf.Tensor, *mask: tf.Tensor) -> tf.Tensor:
    """Over the channels that are there and, where weights have a "mask", alive."""
    kind = getattr(call.layer, "kind", None) or KINDS[call.kind]
    channels = _axis_of_channels(call)
    alive = w.get("mask", tf.ones(tf.shape(x)[channels]))
    vectors = [w.get(name) for name in ("scale" if kind == "rms" else "gamma", "beta")]
    vectors = [v if v is None else tf.cast(v, tf.float32) for v in vectors]
    kind = "layer" if kind == "group" else kind
    made = normalised(x, alive, kind, axes_of(call), _epsilon(call.layer), *vectors, channels=channels)
    return tf.cast(made, x.dtype)


def _epsilon(layer: Any) -> float:
    own = getattr(layer, "epsilon", 1e-12)  # UnitNormalization has none to set
    return keras.config.epsilon() if own is None else own


def masked(layer: Any) -> tuple[type, dict] | None:
    """The layer with a mask that does the same; None where whole groups go, which needs none."""
    if getattr(layer, "groups", 1) > 1:
        return None
    if isinstance(layer, MaskedNormalization):
        return type(layer), config_of(layer)
    kind = KINDS[type(layer).__name__]
    config = {name: getattr(layer, name) for name in ("name", "trainable")} | {"dtype": layer.dtype_policy}
    weights = {
        "rms": {"scale": True, "center": False}, "unit": {"scale": False, "center": False},
    }.get(kind) or {"scale": layer.scale, "center": layer.center}  # fmt: skip
    return MaskedNormalization, config | weights | {
        "kind": kind, "axis": layer.axis, "epsilon": _epsilon(layer)
    }  # fmt: skip


def _plain(layer: MaskedNormalization) -> tuple[type, dict]:
    """Keras' own. It cannot leave out channels: those that are switched off must go with it."""
    make = next(getattr(keras.layers, name) for name, kind in KINDS.items() if kind == layer.kind)
    config = {name: getattr(layer, name) for name in ("name", "trainable")} | {"dtype": layer.dtype_policy}
    config["axis"] = layer.axis
    if layer.kind != "unit":
        config["epsilon"] = layer.epsilon
    if layer.kind in ("layer", "group"):
        config |= {"scale": layer.scale, "center": layer.center}
    return make, config | ({"groups": 1} if layer.kind == "group" else {})


def _all_alive(layer: MaskedNormalization, arrays: dict, other: Any) -> dict:
    if type(other) is not type(layer) and not arrays["mask"].all():
        raise UsageError(
            f"Layer {layer.name!r} has channels that are switched off: give compact the plan that mask was "
            f"given. Received: {int(arrays['mask'].sum())} of {len(arrays['mask'])} channels alive"
        )
    return arrays


cost = {"cost": _cost, "sized": last_and_others, "timed": True}
layer_class(
    "LayerNormalization", "RMSNormalization", "UnitNormalization",
    label=over_channels, **cost, run=run, masked=masked,
)  # fmt: skip
layer_class(
    "MaskedNormalization",
    label=over_channels, **cost, run=run, masked=masked, plain=_plain, refit=_all_alive,
)  # fmt: skip
