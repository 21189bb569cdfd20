"""Where EKG's gates stand: the tensors whose channels a gate would switch off.

These are the places where activation criteria look (`ChannelGroup.sites`), but for one case. The search takes
the statistics of the batch, and a BatchNorm that takes these undoes every factor of a channel in front of it:
where a network has the non-linearity before BN, a gate there has no gradient. Criteria see BN's averages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from secateur.nets.graph import Call
from secateur.pruning.groups.analysis import Analysis
from secateur.pruning.groups.group import ChannelGroup
from secateur.pruning.layers.running import frozen

NORMS = ("BatchNormalization", "FusedBatchNorm")
SIDE_BY_SIDE = ("Concatenate", "ops.Concatenate", "Multiply", "ops.Multiply")

Readers = Mapping[int, Sequence[Call | None]]


def gates_of(analysis: Analysis) -> dict[str, tuple[int, ...]]:
    """Group → numbers of the tensors that its gates stand on."""
    readers = analysis.graph.readers()
    return {group.name: _gates(analysis, readers, group) for group in analysis.groups}


def inner_gates(
    analysis: Analysis, gates: Mapping[str, Sequence[int]]
) -> dict[str, tuple[str, dict[str, int], np.ndarray]]:
    """Group that no tensor shows, as heads → a layer that has it, its weights with axes, their channels.

    A factor of a channel is one of the weights that read it, or else that make it: Σ weight · gradient is its
    gradient.
    """
    found = {}
    for group in analysis.groups:
        if not gates[group.name]:
            roles = ("consumer", "producer")
            member = next(m for role in roles for m in group.members if m.role == role and m.axes)
            found[group.name] = (member.layer, member.axes, member.index)
    return found


def _gates(analysis: Analysis, readers: Readers, group: ChannelGroup) -> tuple[int, ...]:
    if any(_acts(analysis, readers, group.name, tensor) for tensor in group.sites):
        return group.sites
    layers = set(group.layers("consumer"))
    read = {t for call in analysis.calls if call.name in layers for t in call.inputs}
    return tuple(sorted(t for t in read if _carries(analysis, t, group.name))) or group.sites


def _acts(analysis: Analysis, readers: Readers, group: str, tensor: int) -> bool:
    """Whether a factor of the group's channels in a tensor reaches anything else than a BatchNorm."""
    for call in readers[tensor]:
        if call is None or (len(call.inputs) > 1 and call.kind not in SIDE_BY_SIDE):
            return True
        carrying = [t for t in call.outputs if _carries(analysis, t, group)]
        if call.kind in NORMS and carrying and not frozen(call):
            continue
        if not carrying or any(_acts(analysis, readers, group, t) for t in carrying):
            return True
    return False


def _carries(analysis: Analysis, tensor: int, group: str) -> bool:
    return any(name == group for name, _ in analysis.parts[tensor])
