"""Where a criterion sees the channels of a group: axes of weights, or tensors of the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np

from secateur.pruning.groups.analysis import Analysis
from secateur.pruning.groups.group import ChannelGroup, Member
from secateur.pruning.score.registry import Criterion

Named = Mapping[str, Mapping[str, keras.Variable]]  # layer → its variables by name


@dataclass(frozen=True)
class Place:
    """Where channels are seen: one axis of a layer's weight, or the last axis of a tensor (`tensor` ≥ 0)."""

    layer: str = ""
    weight: str = ""
    axis: int = -1
    tensor: int = -1


Seen = tuple[Place, np.ndarray]  # and the channel of the group that each position is; −1: not of this group


def places_of(group: ChannelGroup, criterion: Criterion, analysis: Analysis, named: Named) -> list[Seen]:
    """Everywhere a criterion sees a group, in the order of the graph."""
    if criterion.source == "activations":
        return _shown(group, analysis)
    if criterion.source == "scales":
        found = [(m, "gamma") for m in group.members if m.role == "follower" and "gamma" in m.axes]
    else:
        found = [(m, _kernel(m, named)) for m in group.members if m.role in criterion.roles]
    return [
        (Place(m.layer, name, m.axes[name]), m.index) for m, name in found if name in named.get(m.layer, {})
    ]


def _shown(group: ChannelGroup, analysis: Analysis) -> list[Seen]:
    """Behind the group's non-linearities; where it has none, what consumers read, or producers make."""
    readers, makers = (set(group.layers(role)) for role in ("consumer", "producer"))
    candidates = (
        group.sites,
        [t for c in analysis.calls if c.name in readers for t in c.inputs],
        [t for c in analysis.calls if c.name in makers for t in c.outputs],
    )
    for tensors in candidates:
        rows = [(t, row) for t in dict.fromkeys(tensors) for row in analysis.parts[t]]
        if seen := [(Place(tensor=t), index) for t, (name, index) in rows if name == group.name]:
            return seen
    return []


def _kernel(member: Member, named: Named) -> str:
    """The weight with a filter for each channel; a scale where there is no more than that."""
    own = named.get(member.layer, {})
    wide = (name for name in member.axes if name in own and len(own[name].shape) > 1)
    return next(wide, "gamma" if "gamma" in member.axes else "")
