"""Plans by rules that choose a set of filters at once, where no score for each of them says who stays.

And in which order groups are visited where they are pruned one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import keras
import numpy as np

from secateur.pruning.choose.clustering import clustered
from secateur.pruning.choose.ranking import Limits, names
from secateur.pruning.choose.widths import check_widths
from secateur.pruning.groups.analysis import Analysis, analyse
from secateur.pruning.groups.group import ChannelGroup
from secateur.pruning.plan import Plan
from secateur.pruning.rounding import removed
from secateur.pruning.score.criteria.magnitude import l1, l2
from secateur.pruning.score.criteria.redundancy import fpgm
from secateur.pruning.score.evidence import Evidence
from secateur.pruning.score.registry import get_criterion
from secateur.runs.errors import UsageError

Choice = Callable[[np.ndarray], np.ndarray]  # filters (n, weights) → indexes of those that stay


def backward(model: keras.Model) -> list[ChannelGroup]:
    """Groups from the end of the network to its beginning, each where its last producer stands.

    A residual stream is visited with the last layer that adds to it, as a walk over the convolutions from
    the last to the first meets it. The groups of one layer: the later one first. For iterative pruning from
    the back.
    """
    analysis = analyse(model)
    place = {call.name: i for i, call in enumerate(analysis.calls)}
    last = {g.name: max(place[layer] for layer in g.layers("producer")) for g in analysis.groups}
    return sorted(analysis.groups, key=lambda group: last[group.name])[::-1]


def cluster_plan(
    model: keras.Model, widths: Mapping[str, int], *, seed: int = 1, normalise: bool = False
) -> Plan:
    """One channel for each of so many clusters of a group's filters (`clustered`).

    Args:
        model: functional model.
        widths: group → channels that stay; groups that are not named stay whole.
        seed, normalise: of `clustered`.

    Filters are those of all layers that make a channel, one behind the other. Raises `UsageError` for a
    group that does not exist and a width that it cannot have.
    """
    analysis = analyse(model)
    check_widths(analysis, widths)
    own = {name: partial(clustered, keep=n, seed=seed, normalise=normalise) for name, n in widths.items()}
    return _plan(analysis, own)


def fpgm_plan(
    model: keras.Model,
    keep_norm: float = 1.0,
    drop_distance: float = 0.4,
    *,
    ignore: str | Iterable[str] = (),
) -> Plan:
    """FPGM's mix of norm and distance in every group: see `fpgm_mix`, which also says what is wrong.

    Args:
        model: functional model.
        keep_norm, drop_distance: of `fpgm_mix`; (1, 0.4) is the published FPGM-only, (0.7, 0.1) FPGM-mix.
        ignore: layers, by name or pattern, whose channels all stay.
    """
    analysis = analyse(model)
    whole = Limits(ignore=names(ignore)).ignored(analysis)
    choose = partial(fpgm_mix, keep_norm=keep_norm, drop_distance=drop_distance)
    return _plan(analysis, {g.name: choose for g in analysis.groups if g.name not in whole})


def fpgm_mix(filters: np.ndarray, keep_norm: float, drop_distance: float) -> np.ndarray:
    """Filters that stay when the smallest go first, then those that the others can best stand in for.

    Args:
        filters: (n, weights).
        keep_norm: ratio in (0, 1] that stays by L2 norm (`rate_norm`).
        drop_distance: ratio of all n, in [0, keep_norm), that then goes, of what is left, by the smallest sum
            of distances to what is left (`rate_dist`).

    Both numbers that go are rounded down; one filter stays. He et al. 2019, Filter Pruning via Geometric
    Median, and its program. Returns ascending indexes. Raises `UsageError` for ratios out of range.
    """
    if not 0 <= drop_distance < keep_norm <= 1:
        raise UsageError(
            "fpgm_mix needs 0 ≤ drop_distance < keep_norm ≤ 1. "
            f"Received: keep_norm={keep_norm}, drop_distance={drop_distance}"
        )
    n = len(filters)
    small, similar = (removed(n, ratio, "floor") for ratio in (1 - keep_norm, drop_distance))
    large = np.argsort(l2(filters), kind="stable")[small:]
    similar = min(similar, len(large) - 1)
    return np.sort(large[np.argsort(fpgm(filters[large]), kind="stable")[similar:]])


def _plan(analysis: Analysis, choices: Mapping[str, Choice]) -> Plan:
    evidence = Evidence(analysis)
    plan = Plan.full(analysis.groups)
    for group in analysis.groups:
        if group.name in choices:
            filters = _filters(group, evidence)
            kept = choices[group.name](filters)
            chosen = np.isin(np.arange(group.size), kept)
            # A layer of which none was chosen keeps its largest one instead of the smallest of the others.
            plan = plan.replace(group.name, group.best(np.lexsort((-l1(filters), ~chosen)), len(kept)))
    return plan


def _filters(group: ChannelGroup, evidence: Evidence) -> np.ndarray:
    """(channels, weights): what makes each channel, layer behind layer; zeros of layers that lack it."""
    parts = []
    for place, index in evidence.places(group, get_criterion("l1")):
        weights = evidence.weights(place)
        part = np.zeros((group.size, weights.shape[1]), weights.dtype)
        np.add.at(part, index[index >= 0], weights[index >= 0])
        parts.append(part)
    return np.concatenate([*parts, np.zeros((group.size, 0), np.float32)], 1)
