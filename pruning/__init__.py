"""What to remove: groups, criteria, allocation, search, and the way back to plain layers.

Names are imported when they are used: plans, criteria and settings come without TensorFlow.
"""

from typing import TYPE_CHECKING

from secateur.runs.lazy import lazy_names

if TYPE_CHECKING:
    from secateur.pruning.choose.budgets import Budget as Budget
    from secateur.pruning.choose.clustering import clustered as clustered
    from secateur.pruning.choose.coupling import coupled_plan as coupled_plan
    from secateur.pruning.choose.ladders import find_ladder as find_ladder
    from secateur.pruning.choose.published import published_widths as published_widths
    from secateur.pruning.choose.selection import backward as backward
    from secateur.pruning.choose.selection import cluster_plan as cluster_plan
    from secateur.pruning.choose.selection import fpgm_mix as fpgm_mix
    from secateur.pruning.choose.selection import fpgm_plan as fpgm_plan
    from secateur.pruning.choose.slimming import slimming_widths as slimming_widths
    from secateur.pruning.choose.widths import plan_of_widths as plan_of_widths
    from secateur.pruning.count.counting import complexity as complexity
    from secateur.pruning.count.tables import describe as describe
    from secateur.pruning.count.tables import summary as summary
    from secateur.pruning.groups.analysis import find_groups as find_groups
    from secateur.pruning.groups.group import ChannelGroup as ChannelGroup
    from secateur.pruning.layers import register_layer as register_layer
    from secateur.pruning.plan import Plan as Plan
    from secateur.pruning.planning import make_plan as make_plan
    from secateur.pruning.score.registry import criterion as criterion
    from secateur.pruning.score.registry import list_criteria as list_criteria
    from secateur.pruning.score.scores import score_groups as score_groups
    from secateur.pruning.shrink.surgery import compact as compact
    from secateur.pruning.shrink.surgery import mask as mask
    from secateur.pruning.shrink.surgery import narrow as narrow

__getattr__, __all__ = lazy_names(__name__, __file__)
