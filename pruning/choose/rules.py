"""How a budget is spread over groups: rules from one dial in [0, 1] to widths that never fall as it grows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from secateur.pruning.choose.ranking import Ranking, Widths


@dataclass(frozen=True)
class Rule:
    """A way to spread a budget.

    Attributes:
        widths: dial in [0, 1] → widths of all groups; at 0 the smallest allowed, at 1 the whole network.
        worth: (group, width) → how much the group's next channel is worth, compared with other groups'.
    """

    widths: Callable[[float], Widths]
    worth: Callable[[str, int], float]


def uniform(ranking: Ranking) -> Rule:
    """The same ratio in every group."""
    return Rule(
        lambda dial: {name: ranking.width(name, dial * size) for name, size in ranking.sizes.items()},
        lambda name, width: -width / ranking.sizes[name],
    )


def ranked_together(ranking: Ranking, sets: Iterable[list[str]] | None = None) -> Rule:
    """All channels of a set of groups in one row, by their scores; the same ratio of every set.

    One set is global ranking; sets of one structure are isomorphic pruning (Fang et al. 2024).
    """
    rows, narrowable = {}, set(ranking.free())  # group → place of each channel in its row, from 0 to 1
    for names in [list(ranking.sizes)] if sets is None else sets:
        free = [name for name in names if name in narrowable]
        places = _places([_beyond(ranking, name) for name in free])
        rows |= dict(zip(free, places, strict=True))

    def widths(dial: float) -> Widths:
        found = {}
        for name, size in ranking.sizes.items():
            kept = np.searchsorted(rows[name], dial, "right") if name in rows else 0
            found[name] = ranking.width(name, ranking.lowest[name] + kept) if dial < 1 else size
        return found

    return Rule(widths, lambda name, width: -float(rows[name][width - ranking.lowest[name]]))


def _beyond(ranking: Ranking, name: str) -> np.ndarray:
    return ranking.worth[name][ranking.lowest[name] :]


def _places(scores: list[np.ndarray]) -> list[np.ndarray]:
    """Where in the row of all scores, best first, each score is: (1, …, n) / n. Equal ones in their order."""
    row = np.concatenate([*scores, np.zeros(0)])
    place = np.empty(len(row))
    place[np.argsort(-row, kind="stable")] = np.arange(1, len(row) + 1) / max(len(row), 1)
    return np.split(place, np.cumsum([len(s) for s in scores])[:-1]) if scores else []
