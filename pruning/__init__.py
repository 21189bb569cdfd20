"""What to remove: groups, criteria, allocation, search, and the way back to plain layers.

Names are looked up when they are used: plans, criteria and settings come without TensorFlow.
"""

from importlib import import_module

_HOME = {
    "Budget": "pruning.budgets",
    "ChannelGroup": "pruning.group",
    "Plan": "pruning.plan",
    "backward": "pruning.order",
    "cluster_plan": "pruning.selection",
    "clustered": "pruning.clustering",
    "compact": "pruning.surgery",
    "coupled_plan": "pruning.coupling",
    "criterion": "pruning.criteria",
    "complexity": "pruning.counting",
    "describe": "pruning.tables",
    "find_groups": "pruning.groups",
    "find_ladder": "pruning.ladders",
    "fpgm_mix": "pruning.selection",
    "fpgm_plan": "pruning.selection",
    "list_criteria": "pruning.criteria",
    "make_plan": "pruning.allocation",
    "mask": "pruning.surgery",
    "narrow": "pruning.surgery",
    "plan_of_widths": "pruning.widths",
    "published_widths": "pruning.published",
    "score_groups": "pruning.scores",
    "slimming_widths": "pruning.slimming",
    "summary": "pruning.tables",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'pruning' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
