"""Everything that pruning must know of a kind of layer, in one entry: add a kind here and nowhere else."""

from pruning.kinds import making, merging, passing, shaping  # noqa: F401  (they fill the registry)
from pruning.kinds.registry import KINDS, Cut, Kind, kind
from pruning.kinds.whole import cost_of

__all__ = ["KINDS", "Cut", "Kind", "cost_of", "kind"]
