"""Plans inside of an earlier one: what has been removed stays removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import keras
import numpy as np

from secateur.nets.copies import flat_names
from secateur.nets.losses import compiled_losses
from secateur.pruning.choose.ranking import Widths
from secateur.pruning.choose.rules import Rule
from secateur.pruning.choose.targets import Target
from secateur.pruning.groups.analysis import Analysis, analyse
from secateur.pruning.plan import Plan, renamed
from secateur.pruning.score.scores import Scores, Scoring, score_groups
from secateur.pruning.shrink.surgery import narrow
from secateur.runs.errors import UsageError


def refuse_measured(target: Target) -> None:
    """Raises `UsageError` for milliseconds, which are those of a network that has been made narrower."""
    if target.measured:
        raise UsageError(
            f"Measured milliseconds know no earlier plan. Received: {target.name}={target.value}, within=…\n"
            "make the plan for narrow(model, within), and put both together with within.then(plan)"
        )


def scores_within(
    model: keras.Model,
    within: Plan,
    criterion: str | Mapping[str, np.ndarray],
    analysis: Analysis,
    *,
    data: Any = None,
    **scoring: Unpack[Scoring],
) -> Scores:
    """Group → scores of all its channels: −∞ for those that an earlier plan has removed.

    Args:
        model: the whole network.
        within: the earlier plan.
        criterion: a name, of which the network that the plan leaves is scored: what is gone neither counts
            in a mean nor is a neighbour; or scores of the whole network.
        analysis: of the model.
        data, scoring: as `score_groups` takes them.

    Raises `UsageError` for a plan of another network.
    """
    if isinstance(criterion, str):
        small = narrow(model, within)
        if compiled_losses(model) is not None:
            small.compile(loss=model.loss)  # what criteria look for, see `Task.of`
        found = score_groups(
            small, criterion, analysis=analyse(small, bool(analysis.reduced)), data=data, **scoring
        )
        names = flat_names(analysis.graph)  # the narrower network has no layers within layers
        now = {name: renamed(name, names) for name in within.keep}
        left = {name: found[other] for name, other in now.items() if other in found}
    else:
        left = {n: np.asarray(s)[list(within.keep[n])] for n, s in criterion.items() if n in within.keep}
    whole = {name: np.full(within.sizes[name], -np.inf) for name in left}
    for name, scores in left.items():
        whole[name][list(within.keep[name])] = scores
    return whole


def no_wider(rule: Rule, most: Mapping[str, int]) -> Rule:
    """The same rule, with a largest width for each group."""

    def widths(dial: float) -> Widths:
        return {name: min(width, most[name]) for name, width in rule.widths(dial).items()}

    return Rule(widths, rule.worth)


def unchanged_where_as_wide(plan: Plan, within: Plan) -> Plan:
    """The same channels as before where as many stay: groups without scores have no order of their own."""
    same = {name for name, kept in within.keep.items() if len(plan.keep[name]) == len(kept)}
    keep = {name: within.keep[name] if name in same else kept for name, kept in plan.keep.items()}
    return Plan(keep, plan.sizes)
