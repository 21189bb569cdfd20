"""Cutting weights: pure NumPy, driven by the axes that a group names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

Weights = dict[str, dict[str, np.ndarray]]  # layer → weight name → array


def kept_positions(
    groups: Iterable, masks: Mapping[str, np.ndarray], layers: Iterable[str] | None = None
) -> dict[str, dict[str, dict[int, np.ndarray]]]:
    """Layer → weight → axis → boolean vector of the positions that stay under one mask per group."""
    kept: dict = defaultdict(lambda: defaultdict(dict))
    for group in groups:
        mask = np.append(masks[group.name], True)  # index −1: another group's channel, or nobody's
        for member in group.members:
            if layers is not None and member.layer not in layers:
                continue
            alive = mask[member.index]
            for weight, axis in member.axes.items():
                axes = kept[member.layer][weight]
                axes[axis] = axes[axis] & alive if axis in axes else alive
    return kept


def cut(array: np.ndarray, axes: Mapping[int, np.ndarray], preserve_norm: bool = False) -> np.ndarray:
    """Removes the positions that are False; with `preserve_norm` the Frobenius norm stays (EKG's rule)."""
    result = array
    for axis, alive in axes.items():
        result = np.compress(alive, result, axis=axis)
    return _rescale(array, result) if preserve_norm else result


def zero(array: np.ndarray, axes: Mapping[int, np.ndarray], preserve_norm: bool = False) -> np.ndarray:
    """Like `cut`, but the positions stay and become zero."""
    result = array
    for axis, alive in axes.items():
        shape = [1] * array.ndim
        shape[axis] = -1
        result = np.where(alive.reshape(shape), result, array.dtype.type(0))  # no product: ∞ · 0 is no number
    return _rescale(array, result) if preserve_norm else result


def _rescale(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(after)
    return after * np.asarray(np.linalg.norm(before) / norm, before.dtype) if norm > 0 else after


def apply(
    weights: Weights,
    groups: Iterable,
    masks: Mapping[str, np.ndarray],
    how: Callable[..., np.ndarray] = cut,
    preserve_norm: bool = False,
) -> Weights:
    """Cuts or zeroes all weights of a net. Only kernels carry a norm; vectors are cut as they are.

    So are the kernels of attention: longer queries would sharpen its scores.
    """
    kept = kept_positions(groups, masks, weights.keys())
    return {
        layer: {
            name: how(
                array, kept[layer][name], preserve_norm and name == "kernel" and "kernel#1" not in arrays
            )
            if layer in kept and name in kept[layer]
            else array
            for name, array in arrays.items()
        }
        for layer, arrays in weights.items()
    }


def weights_of(model: Any) -> Weights:
    """All variables of a Keras model as arrays; what a masked layer has switched off is zero.

    A layer that has a mask in a masked network alone, see `LayerClass.masked`, has one of ones.
    """
    from secateur.nets.graph import trace  # imports Keras, which nothing else here needs
    from secateur.nets.kernels import named_variables
    from secateur.pruning.layers import find
    from secateur.pruning.layers.layout import channels_last

    graph = trace(model)
    found = {
        name: _acting(layer, named_variables(layer))
        for name, layer in graph.layers.items()
        if getattr(layer, "variables", ())
    }
    for call in graph.calls:
        known, own = find(call.kind), found.get(call.name, {})
        channels = channels_last(call).shapes[0][-1] if known and known.masked else None
        if channels and "mask" not in own:
            found[call.name] = {**own, "mask": np.ones(channels, np.float32)}
    return found


def _acting(layer: Any, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = {name: np.asarray(variable.numpy()) for name, variable in variables.items()}
    return layer.folded(arrays) if hasattr(layer, "folded") else arrays
