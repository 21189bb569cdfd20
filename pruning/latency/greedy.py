"""Widths that keep most of the scores for a cost: steps by which groups shrink, the cheapest loss first."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import numpy as np

from secateur.pruning.choose.ranking import Ranking, Widths
from secateur.pruning.groups.group import ChannelGroup
from secateur.pruning.latency.layers import grid

Loss = Callable[[int], float]
FINE = 64  # widths of a group that `widened` tries


class LocalCost(Protocol):
    """A cost of widths, the part of it that one group changes, and group → what it changes."""

    touching: Mapping[str, set]

    def __call__(self, widths: Mapping[str, int]) -> float: ...

    def around(self, group: str, widths: Mapping[str, int]) -> float: ...


def widths_for(groups: Iterable[ChannelGroup], ranking: Ranking, cost: LocalCost, target: float) -> Widths:
    """Widths that cost `target` or less; the smallest allowed where that cannot be.

    Every group starts whole. Again and again the step is taken that loses least (`loss_of`) for the cost that
    it saves: the greedy rule for a knapsack. Steps are widths of `grid`, where the time of a layer changes;
    one that saves nothing waits for the one below it. What the last step saved too much is given back.
    """
    ladder = {name: steps(ranking, name) for name in ranking.sizes}
    losses = {group.name: loss_of(group, ranking) for group in groups}
    widths, neighbours = dict(ranking.sizes), _neighbours(cost, ranking.sizes)
    total, versions = cost(widths), dict.fromkeys(widths, 0)

    def push(name: str) -> None:
        if entry := _down(name, widths, ladder[name], losses[name], cost):
            heapq.heappush(queue, (*entry, versions[name]))

    queue: list[tuple] = []
    for name in widths:
        push(name)
    while total > target and queue:
        _, name, width, saved, version = heapq.heappop(queue)
        if version == versions[name]:
            widths[name], total = width, total - saved
            for other in neighbours[name]:
                versions[other] += 1
                push(other)
    return widened(widths, ranking, losses, cost, target)


def widened(
    widths: Widths, ranking: Ranking, losses: Mapping[str, Loss], cost: LocalCost, target: float
) -> Widths:
    """Widens groups once each, the narrowest first, by as much as fits below `target`."""
    widths, total = dict(widths), cost(widths)
    for name in sorted(widths, key=lambda name: -losses[name](widths[name])):
        before, step = cost.around(name, widths), max(1, ranking.sizes[name] // FINE)
        wider = {ranking.width(name, w) for w in range(widths[name], ranking.sizes[name], step)}
        for width in sorted({*wider, ranking.sizes[name]}, reverse=True):
            added = cost.around(name, {**widths, name: width}) - before
            if width > widths[name] and total + added <= target:
                widths[name], total = width, total + added
                break
    return widths


def steps(ranking: Ranking, name: str) -> list[int]:
    """The widths that a group may take: those of `grid`, quarters of its first one, and the smallest."""
    size = ranking.sizes[name]
    first = grid(size)[0]
    wanted = [*(first * k // 4 for k in (1, 2, 3)), *grid(size)]
    return sorted({ranking.lowest[name], *(ranking.width(name, w) for w in wanted)})


def loss_of(group: ChannelGroup, ranking: Ranking) -> Loss:
    """Width → −n log(share of the scores that its best channels of that number have), n its producers.

    The logarithm makes the last channels dear: the sum over groups is least where all layers keep a similar
    share, and not where some of them are emptied. 0 for the whole group.
    """
    worth = np.maximum(ranking.worth[group.name], 0)
    sums = np.cumsum(worth if worth[0] > 0 else np.ones(len(worth)))
    logs = -len(group.layers("producer")) * np.log(np.maximum(sums / sums[-1], 1e-12))
    return lambda width: float(logs[width - 1])


def _down(name: str, widths: Widths, ladder: list[int], loss: Loss, cost: LocalCost) -> tuple | None:
    """(loss per cost saved, group, width, cost saved) of the best way down."""
    lost, before, found = loss(widths[name]), cost.around(name, widths), []
    for width in (w for w in ladder if w < widths[name]):
        saved = before - cost.around(name, {**widths, name: width})
        if saved > 0:
            found.append(((loss(width) - lost) / saved, name, width, saved))
    return min(found, default=None)


def _neighbours(cost: LocalCost, names: Iterable[str]) -> dict[str, list[str]]:
    """Group → groups whose savings change with its width, itself included."""
    touching = {name: cost.touching.get(name, set()) for name in names}
    return {name: [other for other in touching if touching[other] & touching[name]] for name in touching}
