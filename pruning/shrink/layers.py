"""Fresh layers from old ones: their classes and configurations, with other sizes or as plain Keras layers."""

from __future__ import annotations

import inspect
import tempfile
from typing import Any

import keras
import numpy as np

from secateur.nets.depthwise import MaskedDepthwiseConv2D
from secateur.nets.layers import FusedBatchNorm, MaskedConv2D, MaskedDense
from secateur.runs.errors import UsageError


def copied(layer: Any, name: str) -> Any:
    """The same layer with fresh weights. Raises `UsageError`, with its name, where that is not possible."""
    return remade(layer, type(layer), config_of(layer) | {"name": name})


def config_of(layer: Any) -> dict:
    """What a layer or an operation is made from again. What is not Keras' own goes along as it is.

    Functions cannot be found by their names, and constants of the size of a weight no longer fit one.
    """
    if not isinstance(layer, keras.Layer):
        names = inspect.signature(type(layer).__init__).parameters
        return {name: getattr(layer, name) for name in names if hasattr(layer, name)}
    try:
        config = layer.get_config()
    except NotImplementedError as error:
        raise _uncopied(layer.name, type(layer)) from error
    for key in config:
        own = getattr(layer, key, None)
        if isinstance(own, keras.initializers.Constant) and np.ndim(own.value):
            config[key] = "zeros"
        elif _foreign(own):
            config[key] = own
    return config


def _foreign(value: Any) -> bool:
    room = getattr(value, "__module__", None) or "keras"
    return callable(value) and not isinstance(value, keras.Layer) and room.partition(".")[0] != "keras"


def remade(layer: Any, make: type, config: dict) -> Any:
    """A layer of this class with what the old one keeps beside its weights, as a vocabulary.

    Raises `UsageError`, with its name, where the configuration does not fit the class.
    """
    direct = make is keras.layers.Lambda or not issubclass(make, keras.Layer)  # Lambda reads no functions
    try:
        fresh = make(**config) if direct else make.from_config(config)
    except TypeError as error:
        raise _uncopied(config["name"], make) from error
    if hasattr(layer, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            fresh.load_assets(folder)
    return fresh


def _uncopied(name: str, make: type) -> UsageError:
    return UsageError(
        f"Layer {name!r} cannot be copied: its class needs a get_config with the arguments of __init__. "
        f"Received: {make.__name__}"
    )


def _conv_config(layer) -> dict:
    own = layer.get_config()
    names = ("name", "trainable", "dtype", "filters", "kernel_size", "strides", "padding", "use_bias")
    return {name: own[name] for name in names}


def _depthwise_config(layer) -> dict:
    own = layer.get_config()
    names = ("name", "trainable", "dtype", "kernel_size", "strides", "padding")
    return {name: own[name] for name in names} | {"use_bias": False}


def _norm_config(layer) -> dict:
    return {name: layer.get_config()[name] for name in ("name", "trainable", "dtype", "momentum", "epsilon")}


def _dense_config(layer) -> dict:
    return {name: layer.get_config()[name] for name in ("name", "trainable", "dtype", "units")}


# masked layer → (plain layer, its configuration); the mask itself has been cut away
_PLAIN = {
    MaskedConv2D: (keras.layers.Conv2D, _conv_config),
    MaskedDepthwiseConv2D: (keras.layers.DepthwiseConv2D, _depthwise_config),
    FusedBatchNorm: (keras.layers.BatchNormalization, _norm_config),
    MaskedDense: (keras.layers.Dense, _dense_config),
}


def plain(layer: Any) -> tuple[type, dict]:
    """Class and configuration of the layer of Keras that does the same as this one."""
    make = type(layer)
    if make not in _PLAIN:
        return make, config_of(layer)
    make, configure = _PLAIN[make]
    return make, configure(layer)
