"""Spaces of widths with costs of their own, to search in without a network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from secateur.pruning.choose.budgets import Budget, Cost
from secateur.pruning.choose.ranking import Limits, Ranking
from secateur.pruning.choose.targets import Target
from secateur.pruning.groups.analysis import Analysis
from secateur.pruning.search.space import CAPPED, Space


def space_of(sizes: Mapping[str, int], cost: Cost, keep: float, limits: Limits = CAPPED) -> Space:
    """Groups whose first channels are the best, with any cost of their widths."""
    lowest = {name: limits.lowest(size) for name, size in sizes.items()}
    orders = {name: np.arange(size) for name, size in sizes.items()}
    worth = {name: -np.arange(size, dtype=float) for name, size in sizes.items()}
    ranking = Ranking(orders, worth, lowest, dict(sizes), limits)
    whole = cost(sizes)
    weights = {name: whole - cost({**sizes, name: least}) for name, least in lowest.items()}
    return Space(ranking, Budget("keep", cost, keep * whole), weights)


def space_in(
    analysis: Analysis, scores: Mapping[str, np.ndarray], budget: str, keep: float, limits: Limits = CAPPED
) -> Space:
    """The space of a network, for a budget as `make_plan` calls it."""
    return Space.of(analysis, Ranking.of(analysis, scores, limits), Target(budget, keep))


def chain(rng: np.random.Generator) -> tuple[dict[str, int], Cost]:
    """A random chain of layers, some with a stream that is added to: Σ in · out, times its pixels."""
    count = int(rng.integers(2, 9))
    sizes = {f"g{i}": int(2 ** rng.integers(1, 8)) + int(rng.integers(0, 5)) for i in range(count)}
    rows = [("", "g0"), *((f"g{i}", f"g{i + 1}") for i in range(count - 1)), (f"g{count - 1}", "")]
    rows += [(f"g{rng.integers(count)}", f"g{rng.integers(count)}") for _ in range(3)]
    pixels = rng.integers(1, 65, len(rows)).tolist()

    def cost(widths: Mapping[str, int]) -> float:
        ends = {"": 3, **widths}
        return float(sum(n * ends[a] * ends[b] for n, (a, b) in zip(pixels, rows, strict=True)))

    return sizes, cost
