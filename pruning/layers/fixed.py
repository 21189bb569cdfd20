"""Layers whose channels all stay: inputs."""

from __future__ import annotations

from secateur.pruning.layers.registry import Label, layer_class


def staying(reason: str) -> Label:
    """The label rule of a layer around which all channels stay."""
    return lambda state, call, labels: reason


layer_class("InputLayer", label=staying("it is an input of the model"))
