"""Between a model and the flat dict of arrays that lies on disk."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from secateur.nets import keras_json
from secateur.nets.functional import functional
from secateur.nets.graph import trace
from secateur.nets.kernels import named_variables
from secateur.nets.names import NO_WEIGHTS, published_name, variables
from secateur.nets.published import spec_from_arrays
from secateur.nets.registry import build
from secateur.nets.spec import NetSpec
from secateur.nets.torch_names import from_torch, is_torch
from secateur.runs.errors import SnapshotError, UsageError, first_line
from secateur.runs.snapshot import Snapshot, load_snapshot
from secateur.runs.stubs import Refused

GRAPH = "keras"  # in `Snapshot.spec`: the graph of a model that nobody here built


def snapshot_of(model: keras.Model, facts: Mapping | None = None, plan: dict | None = None) -> Snapshot:
    """The weights of a network with what it is built from.

    One of our nets has published names and its spec, and channels that are switched off are zero. Any other
    functional model has the paths of its weights and its graph, layers made of layers unfolded. Raises
    `UsageError` for a model without a graph, and for layers that cannot be stored (see `keras_json`).
    """
    if not hasattr(model, "spec"):
        model = functional(model)
        values = {name: np.asarray(v.numpy()) for name, v in _by_name(model).items()}
        spec = {GRAPH: keras_json.config_of(model, own=True)}
        return Snapshot(arrays=values, spec=spec, plan=plan, facts=dict(facts or {}))
    arrays: dict[str, np.ndarray] = {}
    for layer in model.layers:
        own = {v.name: v.numpy() for v in layer.variables}
        own = layer.folded(own) if hasattr(layer, "folded") else own
        arrays |= {
            published_name(layer.name, n): np.asarray(a) for n, a in own.items() if n not in NO_WEIGHTS
        }
    return Snapshot(arrays=arrays, spec=model.spec.to_json(), plan=plan, facts=dict(facts or {}))


def check_finite(arrays: Mapping[str, np.ndarray], label: str) -> None:
    """Raises `SnapshotError` for the first array with a NaN or an infinity: all that it feeds is NaN."""
    for name, array in arrays.items():
        if not array.dtype.name.startswith(("float", "bfloat")) or np.isfinite(array).all():
            continue
        count = int(np.isnan(array).sum())
        infinite = int(np.isinf(array).sum())
        raise SnapshotError(
            f"{label}: {name!r} is not finite, {count} NaN and {infinite} infinite numbers of {array.size}. "
            "Take weights from before its training diverged"
        )


def check_finite_model(model: keras.Model, label: str) -> None:
    """The same for the weights of a model; `label` is its file's name."""
    check_finite({v.path: v.numpy() for v in model.weights}, label)


def load_params(
    model: keras.Model | None, source: str | Path | Snapshot, label: str = "snapshot"
) -> keras.Model:
    """Loads a snapshot, ours, a published pickle, or weights of a CIFAR ResNet from PyTorch.

    Of a model that nobody here built it makes a model of the layers that the snapshot names: those of Keras,
    and classes that the user has registered.

    Args:
        model: one of our nets to load into, or None to build the net that the file describes; the widths of a
            file without a description are read off its arrays.
        source: path or `Snapshot`.
        label: what errors call a `Snapshot`; a path has its own name.

    Raises `SnapshotError` naming the first array that is missing, does not fit or is not finite.
    """
    snapshot = source if isinstance(source, Snapshot) else load_snapshot(source)
    label = label if isinstance(source, Snapshot) else str(source)
    check_finite(snapshot.arrays, label)
    if is_torch(snapshot.arrays):
        snapshot = from_torch(snapshot.arrays, label)
    if snapshot.spec and GRAPH in snapshot.spec:
        return _functional(model, snapshot, label)
    if model is None:
        spec = _described(snapshot.spec, label) if snapshot.spec else spec_from_arrays(snapshot.arrays, label)
        _check_sizes(spec, snapshot.arrays, label)
        model = _build_fitting(spec, label)
    elif snapshot.spec and hasattr(model, "spec"):
        _check_alike(model.spec, _described(snapshot.spec, label), label)
    _assign(model, snapshot.arrays, label)
    return model


def _functional(model: keras.Model | None, snapshot: Snapshot, label: str) -> keras.Model:
    """A model of the stored graph, or `model` with the weights of it."""
    assert snapshot.spec
    if model is None:
        try:
            return keras_json.build(snapshot.spec[GRAPH], [*snapshot.arrays.values()], own=True)
        except Refused as error:
            raise SnapshotError(f"{label}: {error}") from None
    wanted = _by_name(model)
    _check_weights(wanted, snapshot.arrays, label, model.name)
    model.set_weights([snapshot.arrays[name] for name in wanted])
    return model


def _by_name(model: keras.Model) -> dict[str, keras.Variable]:
    """Path of the layer and name of the weight → variable, in the order of `model.weights`.

    Keras' own paths change with what else the process has built.
    """
    known = {
        id(variable): f"{path}/{name}"
        for path, layer in trace(model).layers.items()
        if hasattr(layer, "variables")
        for name, variable in named_variables(layer).items()
    }
    return {known[id(variable)]: variable for variable in model.weights}


def _described(spec: Mapping, label: str) -> NetSpec:
    try:
        return NetSpec.from_json(spec)
    except (KeyError, TypeError, ValueError) as error:
        raise SnapshotError(f"{label}: its spec cannot be used ({error}). Received: spec={spec}") from error


def _check_sizes(spec: NetSpec, arrays: Mapping[str, np.ndarray], label: str) -> None:
    """Of a network that is larger than all arrays nothing is built: its weights might fill the memory."""
    most = max([len(arrays), *(side for array in arrays.values() for side in array.shape)])
    named = {"arch": re.findall(r"\d+", str(spec.arch)), "widths": spec.widths.values()}
    for key, values in (named | {"num_classes": [spec.num_classes]}).items():
        for value in values:
            if isinstance(value, bool | float) or not str(value).isdigit() or int(value) > most:
                raise SnapshotError(
                    f"{label}: its spec is not that of its arrays. Received: {key} of {str(value)[:60]!r}"
                )


def _check_alike(own: NetSpec, described: NetSpec, label: str) -> None:
    """What no weight shows: the same arrays mean another function under another shortcut or padding."""
    for name in ("shortcut", "padding"):
        if (found := getattr(described, name)) != getattr(own, name):
            raise SnapshotError(
                f"{label}: its weights were made for {name}={found!r}. "
                f"Received: a {own.arch} with {name}={getattr(own, name)!r}"
            )


def _build_fitting(spec: NetSpec, label: str) -> keras.Model:
    try:
        return build(spec)
    except UsageError as error:
        raise SnapshotError(f"{label}: {error}") from error
    except (ValueError, TypeError) as error:  # Keras found, say, an addition of 14 and 15 channels
        reason = first_line(error)
        raise SnapshotError(f"{label}: the widths in this file do not fit {spec.arch}: {reason}") from error


def _assign(model: keras.Model, arrays: Mapping[str, np.ndarray], label: str) -> None:
    wanted = variables(model)
    _check_weights(wanted, arrays, label, model.name)
    for name, variable in wanted.items():
        variable.assign(arrays[name].reshape(variable.shape))


def _check_weights(wanted: Mapping[str, Any], arrays: Mapping, label: str, network: str) -> None:
    for name, variable in wanted.items():
        if name not in arrays:
            raise SnapshotError(f"{label}: array {name!r} is missing. Is this a snapshot of {network}?")
        if _squeezed(arrays[name].shape) != _squeezed(variable.shape):
            raise SnapshotError(
                f"{label}: array {name!r} does not fit {network}. "
                f"Received: shape={arrays[name].shape}, expected {tuple(variable.shape)}"
            )
    if extra := sorted(set(arrays) - set(wanted)):
        raise SnapshotError(f"{label}: {network} has no weight {extra[0]!r}. Pass the --arch of this file.")


def _squeezed(shape: Iterable[int]) -> tuple[int, ...]:
    """Published files hold BN vectors as (1, 1, 1, channels)."""
    return tuple(n for n in shape if n != 1)
