"""How narrow each group may become, in which steps, and which channels go first."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from secateur.pruning.groups.analysis import Analysis
from secateur.pruning.groups.group import ChannelGroup
from secateur.pruning.plan import Plan
from secateur.runs.errors import UsageError
from secateur.runs.suggest import nearest
from secateur.runs.text import few

Widths = dict[str, int]


@dataclass(frozen=True)
class Limits:
    """What the user allows.

    Attributes:
        round_to: widths are multiples of this where a group is large enough.
        min_channels: that every group keeps, if it has as many.
        max_drop: largest share of its channels that a group may lose, in (0, 1].
        ignore: layers, themselves or by name or pattern ("stage4_*"), whose channels all stay; a nested
            model's name is all layers in it.
    """

    round_to: int = 1
    min_channels: int = 1
    max_drop: float = 1.0
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("round_to", "min_channels"):
            if (value := getattr(self, name)) < 1:
                raise UsageError(f"{name} must be at least 1. Received: {name}={value}")
        if not 0 < self.max_drop <= 1:
            raise UsageError(f"max_drop must lie in (0, 1]. Received: max_drop={self.max_drop}")

    def remedy(self) -> str:
        """A line that names the limits behind which a target may lie; "" where there are none."""
        limits = [f"{f.name}={v}" for f in fields(self) if (v := getattr(self, f.name)) != f.default]
        return f"\nloosen {', '.join(limits)}, or give a larger budget" if limits else ""

    def rounded(self, width: float, size: int) -> int:
        """The nearest multiple of `round_to` in [min(round_to, size), size]."""
        steps = max(1, int(np.floor(width / self.round_to + 0.5)))
        return int(min(size, steps * self.round_to))

    def above(self, width: int, size: int) -> int:
        """The next width that is allowed above one that is not the size."""
        return min(size, (width // self.round_to + 1) * self.round_to)

    def lowest(self, size: int) -> int:
        """The smallest width of a group."""
        allowed = max(self.min_channels, size - int(np.floor(self.max_drop * size + 1e-9)), 1)
        return int(min(size, -(-allowed // self.round_to) * self.round_to))

    def ignored(self, analysis: Analysis) -> set[str]:
        """Groups that stay whole: one of the ignored layers makes or carries their channels.

        Raises `UsageError` for a name that no layer has, with the nearest one.
        """
        layers = {path for name in self.ignore for path in _matching(name, list(analysis.graph.layers))}
        return {
            group.name
            for group in analysis.groups
            if not layers.isdisjoint([*group.layers("producer"), *group.layers("follower")])
        }


def _matching(pattern: str, layers: list[str]) -> list[str]:
    """Paths of layers of that name, of those in a nested model of that name, or that fit a pattern."""
    inside = f"/{pattern}/"
    found = [
        path
        for path in layers
        if pattern in (path, path.rpartition("/")[2])
        or inside in f"/{path}"
        or fnmatch.fnmatchcase(path, pattern)
    ]
    if not found:
        raise UsageError(f"No layer to ignore. Received: ignore={pattern!r}. {nearest(pattern, layers, 8)}")
    return found


@dataclass(frozen=True)
class Ranking:
    """The channels of all groups, best first, and how few of them may stay.

    Attributes:
        orders: group → its channels in the order in which they are kept.
        worth: group → score of each place of the order, never rising along it.
        lowest: group → smallest width.
        sizes: group → number of channels.
        limits: where the smallest widths and the steps come from.
    """

    orders: Mapping[str, np.ndarray]
    worth: Mapping[str, np.ndarray]
    lowest: Widths
    sizes: Widths
    limits: Limits

    @classmethod
    def of(cls, analysis: Analysis, scores: Mapping[str, np.ndarray], limits: Limits) -> Ranking:
        """From scores; a group without any stays whole. Raises `UsageError` for those of another network."""
        sizes = {group.name: group.size for group in analysis.groups}
        if wrong := next((n for n, s in scores.items() if np.shape(s) != (sizes.get(n, 0),)), None):
            here = f"{sizes[wrong]} channels" if wrong in sizes else "no such group"
            raise UsageError(
                f"Scores are of another network: this one has {here}. "
                f"Received: {np.size(scores[wrong])} scores for {wrong!r}"
            )
        whole = limits.ignored(analysis) | {g.name for g in analysis.groups if g.name not in scores}
        orders, worth, lowest = {}, {}, {}
        for group in analysis.groups:
            score = scores.get(group.name, np.zeros(group.size))
            orders[group.name], least = group.ranked(np.argsort(-score, kind="stable"))
            worth[group.name] = np.sort(score)[::-1]
            free = max(limits.lowest(group.size), least)
            lowest[group.name] = group.size if group.name in whole else free
        return cls(orders, worth, lowest, sizes, limits)

    def width(self, name: str, wanted: float) -> int:
        """The allowed width of a group next to the wanted one."""
        return max(self.lowest[name], self.limits.rounded(wanted, self.sizes[name]))

    def narrowed(self, most: Mapping[str, int]) -> Ranking:
        """The same order of channels where groups have lost some: none may be wider than `most` again."""
        lowest = {name: min(width, most[name]) for name, width in self.lowest.items()}
        return replace(self, lowest=lowest, sizes=dict(most))

    def plan(self, widths: Mapping[str, int]) -> Plan:
        """The plan that keeps the first channels of each order."""
        keep = {name: tuple(sorted(self.orders[name][:width].tolist())) for name, width in widths.items()}
        return Plan(keep, self.sizes)

    def free(self) -> list[str]:
        """Groups that may become narrower."""
        return [name for name, size in self.sizes.items() if self.lowest[name] < size]


def check_prunable(analysis: Analysis, name: str) -> None:
    """Raises `UsageError` where nothing can be removed: why most of the channels stay."""
    if not analysis.groups:
        worst = analysis.untouched.worst()
        reason = f"{few(worst.layers)} must stay: {worst.reason}" if worst else "no layer makes channels"
        raise UsageError(f"No channel of this model can be removed. Received: model {name!r}: {reason}")


def structures(analysis: Analysis) -> list[list[str]]:
    """Groups of the same structure (Fang et al. 2024, Isomorphic Pruning), in the order of the graph."""
    kinds = {call.name: call.kind for call in analysis.calls}
    sets: dict[tuple, list[str]] = {}
    for group in analysis.groups:
        sets.setdefault(_kinds_of(group, kinds), []).append(group.name)
    return list(sets.values())


def names(values: Iterable | object) -> tuple[str, ...]:
    """The names of one or several layers, given by name or as they are."""
    several = [values] if isinstance(values, str) or hasattr(values, "name") else values
    return tuple(getattr(value, "name", value) for value in several)


def _kinds_of(group: ChannelGroup, kinds: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The structure of a group: its members' roles and kinds of layer, whatever their sizes and order."""
    return tuple(sorted((member.role, kinds[member.layer]) for member in group.members))
