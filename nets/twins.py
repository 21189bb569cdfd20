"""Somebody's own network as it trains here: flat, batch normalisation on the fused kernel, nothing frozen."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from typing import Any

import keras

from secateur.nets.copies import config_of, copied, flat_names, give_weights, remade
from secateur.nets.graph import Call, kind_of, rebuilt, trace
from secateur.nets.kernels import named_variables
from secateur.nets.layers import BATCH_NORM_MOMENTUM, FusedBatchNorm

FREE = (None, False)  # of `training`: what a call recorded, True (dropout that samples) stays


def training_twin(model: keras.Model, thaw: bool = True) -> keras.Model:
    """A copy of a functional model that computes the same at inference, and trains fast.

    Keras' own batch normalisation costs a third of a step; its averages of momentum 0.99 lag for hundreds of
    steps, here it is at most 0.9.

    Args:
        model: functional; models inside of it are unfolded.
        thaw: layers with `trainable = False` and calls with `training=False` train like all others.
    """
    graph = trace(model)
    names, layers = flat_names(graph), {}
    for call in graph.calls:
        if call.name not in layers:
            layers[call.name] = _twin(call, names[call.name], thaw)

    def run(call: Call, values: list[Any]) -> list[Any]:
        layer = layers[call.name]
        if type(layer) is not type(call.layer):  # the fused one takes no mask
            return [layer(*values)]
        return call.run(values, layer, free=thaw and call.argument(-1, "training") in FREE)

    twin = rebuilt(model, graph, run)
    for path, layer in graph.layers.items():
        if weights := set(map(id, getattr(layer, "weights", ()))):
            own = {name: v for name, v in named_variables(layer).items() if id(v) in weights}
            given = {**named_variables(layers[path]), **own}  # a mask and the state of a seed are the twin's
            give_weights(layers[path], {name: variable.numpy() for name, variable in given.items()})
    return twin


def hand_over(source: keras.Model, target: keras.Model, names: Collection[str] | None = None) -> None:
    """Gives weights of `source`, all or those of these names, to the layers of `target` of the same names."""
    for layer in source.layers:
        if given := {name: variable.numpy() for name, variable in named_variables(layer).items()}:
            twin = target.get_layer(layer.name)
            own = {name: variable.numpy() for name, variable in named_variables(twin).items()}
            wanted = [name for name in own.keys() & given if names is None or name.partition("#")[0] in names]
            give_weights(twin, own | {name: given[name] for name in wanted})


def flags_of(model: keras.Model) -> dict[str, dict[str, Any]]:
    """Flat name of a layer → what `training_twin` changes: whether it trains, BN's momentum, a seed."""
    graph = trace(model)
    names = flat_names(graph)
    layers = {names[path]: layer for path, layer in graph.layers.items() if isinstance(layer, keras.Layer)}
    return {
        name: {key: getattr(layer, key) for key in ("trainable", "momentum", "seed") if hasattr(layer, key)}
        for name, layer in layers.items()
    }


def frozen(model: keras.Model) -> list[str]:
    """Flat names of layers whose weights do not move: frozen ones, and BN in calls with training=False."""
    graph = trace(model)
    names = flat_names(graph)
    still = {
        names[call.name]
        for call in graph.calls
        if getattr(call.layer, "weights", ())
        and (not call.layer.trainable or (_keeps_averages(call) and hasattr(call.layer, "moving_mean")))
    }
    return [name for name in names.values() if name in still]


def _keeps_averages(call: Call) -> bool:
    return call.training is False or call.argument(-1, "training") is False


def _twin(call: Call, name: str, thaw: bool) -> Any:
    layer = call.layer
    if not isinstance(layer, keras.Layer):
        return copied(layer, name)
    if _fits_fused(call) and (thaw or (layer.trainable and not _keeps_averages(call))):
        momentum = min(layer.momentum, BATCH_NORM_MOMENTUM)
        return FusedBatchNorm(momentum=momentum, epsilon=layer.epsilon, name=name)
    twin = _seeded(layer, name)
    if hasattr(twin, "momentum") and hasattr(twin, "moving_mean"):
        twin.momentum = min(twin.momentum, BATCH_NORM_MOMENTUM)
    if thaw:
        twin.trainable = True
    return twin


def _seeded(layer: keras.Layer, name: str) -> keras.Layer:
    """A copy whose random numbers, of dropout or augmentation, are the same in every process."""
    config = config_of(layer)
    if "seed" in config and config["seed"] is None:
        config["seed"] = zlib.crc32(name.encode())
    return remade(layer, type(layer), config | {"name": name})


def _fits_fused(call: Call) -> bool:
    """Whether it is Keras' own BN, plainly over the last axis of maps or vectors."""
    layer, rank = call.layer, len(call.input_shapes[0]) if call.input_shapes else 0
    if kind_of(type(layer)) != "BatchNormalization" or rank not in (2, 4):
        return False
    extras = ("gamma_regularizer", "beta_regularizer", "gamma_constraint", "beta_constraint", "renorm")
    if any(getattr(layer, name, None) for name in (*extras, "synchronized")):
        return False
    return layer.scale and layer.center and layer.axis in (-1, rank - 1, [rank - 1])
