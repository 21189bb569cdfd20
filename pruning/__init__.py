"""What to remove: groups, criteria, allocation, search, and the way back to plain layers.

Names are looked up when they are used: plans, criteria and settings come without TensorFlow.
"""

from secateur.runs.lazy import lazy_names

_HOME = {
    "Budget": "choose.budgets",
    "ChannelGroup": "groups.group",
    "Plan": "plan",
    "backward": "choose.order",
    "cluster_plan": "choose.selection",
    "clustered": "choose.clustering",
    "compact": "shrink.surgery",
    "coupled_plan": "choose.coupling",
    "criterion": "score.criteria",
    "complexity": "count.counting",
    "describe": "count.tables",
    "find_groups": "groups.analysis",
    "find_ladder": "choose.ladders",
    "fpgm_mix": "choose.selection",
    "fpgm_plan": "choose.selection",
    "list_criteria": "score.criteria",
    "make_plan": "make_plan",
    "mask": "shrink.surgery",
    "narrow": "shrink.surgery",
    "plan_of_widths": "choose.widths",
    "register_layer": "layers.register",
    "published_widths": "choose.published",
    "score_groups": "score.scores",
    "slimming_widths": "choose.slimming",
    "summary": "count.tables",
}
__all__ = list(_HOME)
__getattr__ = lazy_names(__name__, _HOME)
