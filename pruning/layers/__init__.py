"""Everything that pruning must know of a kind of layer, in one entry: add a kind here and nowhere else."""

from secateur.pruning.layers import merging, passing, producers, shaping  # noqa: F401  (they fill the registry)
from secateur.pruning.layers.fixed import cost_of
from secateur.pruning.layers.registry import KINDS, Cut, Kind, kind

__all__ = ["KINDS", "Cut", "Kind", "cost_of", "kind"]
