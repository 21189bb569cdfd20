"""What pruning knows of layer classes: one entry says all of one. `register_layer` adds a user's own."""

from secateur.pruning.layers.register import register_layer
from secateur.pruning.layers.registry import (
    LAYERS,
    Cut,
    LayerClass,
    cost_of,
    find,
    find_installed,
    is_activation,
    own,
    plain,
    sized,
    with_mask,
)

__all__ = [
    "LAYERS",
    "Cut",
    "LayerClass",
    "cost_of",
    "find",
    "find_installed",
    "is_activation",
    "own",
    "plain",
    "register_layer",
    "sized",
    "with_mask",
]
