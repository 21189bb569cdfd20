"""What to remove: groups, criteria, allocation, search, and the way back to plain layers."""

from pruning.allocation import make_plan
from pruning.complexity import complexity
from pruning.groups import ChannelGroup, find_groups
from pruning.plan import Plan
from pruning.surgery import compact, mask, narrow

__all__ = ["ChannelGroup", "Plan", "compact", "complexity", "find_groups", "make_plan", "mask", "narrow"]
