"""How many channels each group keeps, and which: from scores and a budget to a plan."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import keras
import numpy as np

from secateur.pruning.choose.budgets import Budget, Cost, paid_by_few, widest
from secateur.pruning.choose.earlier import (
    no_wider,
    refuse_measured,
    scores_within,
    unchanged_where_as_wide,
)
from secateur.pruning.choose.ranking import Limits, Ranking, Widths, check_prunable, names, structures
from secateur.pruning.choose.rules import Rule, ranked_together, uniform
from secateur.pruning.choose.sensitivity import Sensitivity, by_sensitivity, measure_sensitivity
from secateur.pruning.choose.targets import COUNTED, Target
from secateur.pruning.groups.analysis import Analysis, analyse
from secateur.pruning.plan import Plan
from secateur.pruning.score.scores import Scoring, score_groups
from secateur.runs.errors import UsageError, warn
from secateur.runs.suggest import nearest, require

if TYPE_CHECKING:  # it brings the programs that are measured
    import os

    from secateur.exports.timing import Setup
    from secateur.pruning.latency.fit import Fitted

ALLOCATIONS = ("uniform", "global", "isomorphic", "sensitivity")


def make_plan(
    model: keras.Model, criterion: str | Mapping[str, np.ndarray] = "l1", *,
    keep: float | None = None, keep_macs: float | None = None, keep_params: float | None = None,
    keep_bytes: float | None = None, keep_ms: float | None = None, max_ms: float | None = None,
    budget: Budget | None = None, allocation: str | Sensitivity | None = None, fill: bool = True,
    round_to: int = 1, min_channels: int = 1, max_drop: float = 1.0, ignore: Any = (),
    convention: str = "mac", setup: Setup | None = None, cache: str | os.PathLike | None = None,
    data: Any = None, within: Plan | None = None, channel_statistics: bool = False,
    analysis: Analysis | None = None, **scoring: Unpack[Scoring],
) -> Plan:  # fmt: skip
    """Chooses the channels that stay: those with the best scores, as many as a budget allows.

    Args:
        model: functional model.
        criterion: name of a registered criterion, or scores by group as `score_groups` gives them.
        keep: ratio of the channels, in (0, 1]; or
        keep_macs, keep_params, keep_bytes: ratio of the operations, of the parameters (as `convention` counts
            them) or of the bytes of all weights, in (0, 1); or
        keep_ms: ratio of the measured milliseconds, in (0, 1); or
        max_ms: measured milliseconds of one call on the setup's number of images; or
        budget: any other cost of group → width, and its upper bound.
        allocation: "uniform": the same ratio in every group; "global": all channels in one row by score;
            "isomorphic": a row for each structure of groups, the same ratio of each; "sensitivity": widths at
            which the accuracy on `data` falls equally in every group, or curves measured before. None is
            "uniform", and for measured milliseconds the widths that keep most of the scores.
        fill: whether single channels are added until none fits. Without it the groups of "uniform" have the
            same ratio to a channel, and the next larger ratio exceeds the budget. Measured milliseconds need
            an allocation then.
        round_to, min_channels, max_drop, ignore: see `Limits`.
        setup: what milliseconds are measured with (`exports.timing.Setup`): program, threads, images of a
            call. None is LiteRT, one thread, one image.
        cache: folder of the layers that have been measured; None is the user's cache folder.
        data: (images, labels), or images alone, for criteria that look at them and for "sensitivity".
        within: an earlier plan: what it removes stays removed. Budgets are ratios of the whole model all the
            same; a criterion given by name sees the network that this plan leaves. Not for measured
            milliseconds.
        channel_statistics: as in `find_groups`; `mask` and `compact` see it by the plan.
        analysis: of the model, where the caller has it.
        scoring: loss, reduce, normalise, batch_size and seed of `score_groups`.

    Raises `UsageError` for a value out of range, an unknown option, a layer to ignore that does not exist, a
    model of which nothing can be removed, and a budget out of reach; then it says the smallest that can be
    reached.
    """
    _check_names(allocation, scoring)
    target = Target.one_of(
        keep=keep, keep_macs=keep_macs, keep_params=keep_params, keep_bytes=keep_bytes, keep_ms=keep_ms,
        max_ms=max_ms, budget=budget,
    )  # fmt: skip
    limits = Limits(round_to, min_channels, max_drop, names(ignore))
    analysis = analysis or analyse(model, channel_statistics)
    check_prunable(analysis, model.name)
    if within is not None:
        refuse_measured(target)
        within = within.check(analysis.groups)
        criterion = scores_within(model, within, criterion, analysis, data=data, **scoring)
    if isinstance(criterion, str):
        criterion = score_groups(model, criterion, analysis=analysis, data=data, **scoring)
    ranking = Ranking.of(analysis, criterion, limits)
    if allocation == "sensitivity":
        allocation = measure_sensitivity(
            model, criterion, data=data, loss=scoring.get("loss"), analysis=analysis
        )
    if target.measured:
        return fit_plan(
            model, analysis, ranking, target, allocation=allocation, fill=fill, setup=setup, cache=cache
        ).best.plan
    rule = _rule(allocation or "uniform", ranking, analysis)
    most = within.widths() if within else ranking.sizes
    rule = no_wider(rule, most)
    if target.name == "keep" and allocation in (None, "uniform"):
        widths = rule.widths(target.value)
    else:
        bound = target.budget(analysis, ranking, convention)
        widths = widest(rule, ranking.narrowed(most), bound, fill)
        if target.name in COUNTED and (line := paid_by_few(widths, ranking, bound)):
            warn(line)
    plan = ranking.plan(widths)
    return unchanged_where_as_wide(plan, within) if within else plan


def fit_plan(
    model: keras.Model, analysis: Analysis, ranking: Ranking, target: Target, *,
    allocation: str | Sensitivity | None = None, fill: bool = True, setup: Setup | None = None,
    cache: str | os.PathLike | None = None,
) -> Fitted:  # fmt: skip
    """The plan of `make_plan` for measured milliseconds, with all that was tried on the way to it.

    Args:
        model, analysis: as `latency.fit.fit` takes them.
        ranking: the channels of its groups, best first.
        target: `keep_ms` or `max_ms`.
        allocation: a rule of `ALLOCATIONS`, or curves for that of "sensitivity".
        fill, setup, cache: as in `make_plan`.

    Raises `UsageError` for a budget out of reach, and for `fill=False` without an allocation: the rule for
    milliseconds goes from one width that is as fast as another to the next and knows no single channels.
    """
    from secateur.pruning.latency.fit import fit  # brings the programs that are measured

    if allocation is None and not fill:
        raise UsageError(
            f"fill=False needs an allocation where milliseconds are measured. Received: "
            f"{target.name}={target.value}, allocation=None\ngive allocation='uniform' or another"
        )
    choose = None
    if allocation is not None:
        choose = partial(_widest_within, _rule(allocation, ranking, analysis), ranking, target.name, fill)
    options = {target.name: target.value, "setup": setup, "cache": cache, "choose": choose}
    return fit(model, analysis, ranking, **options)


def _widest_within(rule: Rule, ranking: Ranking, name: str, fill: bool, cost: Cost, most: float) -> Widths:
    return widest(rule, ranking, Budget(name, cost, most), fill)


def _check_names(allocation: str | Sensitivity | None, scoring: Mapping[str, Any]) -> None:
    if strange := next((name for name in scoring if name not in Scoring.__annotations__), None):
        known = [*inspect.signature(make_plan).parameters, *Scoring.__annotations__]
        valid = nearest(strange, [name for name in known if name != "scoring"], 8)
        raise UsageError(f"Unknown option. Received: {strange}={scoring[strange]!r}. {valid}")
    if allocation is not None and not isinstance(allocation, Sensitivity):
        require(allocation, ALLOCATIONS, "allocation")


def _rule(allocation: str | Sensitivity, ranking: Ranking, analysis: Analysis) -> Rule:
    if isinstance(allocation, Sensitivity):
        return by_sensitivity(ranking, allocation)
    if allocation == "uniform":
        return uniform(ranking)
    return ranked_together(ranking, structures(analysis) if allocation == "isomorphic" else None)
