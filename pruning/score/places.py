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
    """Where channels are seen: one axis of a layer's weight, or the channels of a tensor (`tensor` ≥ 0)."""

    layer: str = ""
    weight: str = ""
    axis: int = -1
    tensor: int = -1


Seen = tuple[Place, np.ndarray]  # and the channel of the group that each position is; −1: not of this group


def places_of(group: ChannelGroup, criterion: Criterion, analysis: Analysis, named: Named) -> list[Seen]:
    """Everywhere a criterion sees a group, in the order of the graph."""
    if criterion.source == "activations":
        rows = [(t, row) for t in group.sites for row in analysis.parts[t]]
        return [(Place(tensor=t), index) for t, (name, index) in rows if name == group.name]
    if criterion.source == "scales":
        found = [(m, "gamma") for m in group.members if m.role == "follower" and "gamma" in m.axes]
    else:
        found = [(m, _kernel(m, named)) for m in group.members if m.role in criterion.roles]
    return [
        (Place(m.layer, name, m.axes[name]), m.index) for m, name in found if name in named.get(m.layer, {})
    ]


def _kernel(member: Member, named: Named) -> str:
    """The weight with a filter for each channel; a scale where there is no more than that."""
    own = named.get(member.layer, {})
    wide = (name for name in member.axes if name in own and len(own[name].shape) > 1)
    return next(wide, "gamma" if "gamma" in member.axes else "")
