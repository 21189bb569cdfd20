"""Channel groups: sets of channels that can only be removed everywhere at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np

from pruning.channels import ACTIVATIONS, Labels, label_channels
from pruning.graph import Call, tensor_ids, trace_calls


@dataclass(frozen=True, eq=False)
class Member:
    """Where a group appears: `index[p]` is its channel at position p of the axes, −1 if it is not ours."""

    layer: str
    role: str  # producer, follower (BN), consumer or padding
    axes: dict[str, int]
    index: np.ndarray


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """`size` channels that share their fate. `sites` are the activations (tensor ids) that show them."""

    name: str
    size: int
    members: tuple[Member, ...]
    sites: tuple[int, ...] = ()

    def layers(self, role: str) -> list[str]:
        """Names of the layers with that role, in the order of the graph."""
        return list(dict.fromkeys(m.layer for m in self.members if m.role == role))

    def best(self, order: np.ndarray, width: int) -> np.ndarray:
        """The first `width` channels of `order` (best first), but of every layer at least its best channel.

        Behind zero padding a group has channels that the layers in front of the padding lack.
        """
        needed: list[int] = []
        for channels in sorted(self._produced(), key=len):
            if channels.isdisjoint(needed):
                needed.append(next(c for c in order.tolist() if c in channels))
        others = [c for c in order.tolist() if c not in needed]
        return np.sort(np.array([*needed, *others][: max(width, len(needed))]))

    def emptied(self, mask: np.ndarray) -> str | None:
        """The first layer that a mask (channels,) would leave without channels."""
        made = (m for m in self.members if m.role == "producer")
        return next((m.layer for m in made if not np.append(mask, False)[m.index].any()), None)

    def _produced(self) -> set[frozenset[int]]:
        return {frozenset(m.index[m.index >= 0].tolist()) for m in self.members if m.role == "producer"}

    def __str__(self) -> str:
        rows = [f"{self.name}: {self.size} channels"]
        for role in ("producer", "follower", "consumer", "padding"):
            if names := self.layers(role):
                rows.append(f"  {role + 's':10} {', '.join(names)}")
        return "\n".join(rows)


@dataclass(frozen=True, eq=False)
class Analysis:
    """A graph with its groups. `parts` tells for each tensor which groups its last axis holds, and where."""

    calls: list[Call]
    groups: list[ChannelGroup]
    parts: dict[int, list[tuple[str, np.ndarray]]]

    def positions(self, tensor: int, group: str, masks: Mapping[str, np.ndarray]) -> np.ndarray:
        """For each position that is left of a tensor under the masks: its channel of the group, or −1."""
        rows = dict(self.parts[tensor])
        alive = np.logical_and.reduce([np.append(masks[name], True)[index] for name, index in rows.items()])
        return rows[group][alive]


def find_groups(model: keras.Model) -> list[ChannelGroup]:
    """Groups of a functional model whose channels may be removed, named after their first producer.

    Groups that contain an input, an output or a layer without a rule are left whole and not returned.
    Raises `UsageError` for a model without a graph.
    """
    return analyse(model).groups


def analyse(model: keras.Model) -> Analysis:
    """Reads calls and groups off the functional graph, groups in the order of their first producers."""
    calls = trace_calls(model)
    labels = label_channels(calls, tensor_ids(model.outputs))
    component, channel = _components(labels)
    locked = {component[labels.find(label)] for label in labels.locked}

    def split(vector: np.ndarray) -> list[tuple[int, np.ndarray]]:
        classes = [labels.find(x) for x in vector.tolist()]
        owners = np.array([component[c] for c in classes])
        channels = np.array([channel[c] for c in classes])
        return [(g, np.where(owners == g, channels, -1)) for g in dict.fromkeys(owners.tolist())]

    members, sites = defaultdict(list), defaultdict(list)
    for use in labels.uses:
        for group, index in split(use.labels):
            members[group].append(Member(use.layer, use.role, use.axes, index))
    parts = {tensor: split(vector) for tensor, vector in labels.of_tensor.items()}
    for call in calls:
        for group, _ in parts[call.outputs[0]] if _shows_channels(call) else ():
            sites[group].append(call.outputs[0])

    names = {g: _name(members[g]) for g in _sizes(component) if g not in locked and _name(members[g])}
    groups = [
        ChannelGroup(names[g], size, tuple(members[g]), tuple(sites[g]))
        for g, size in _sizes(component).items()
        if g in names
    ]
    named = {t: [(names[g], index) for g, index in rows if g in names] for t, rows in parts.items()}
    return Analysis(calls, groups, named)


def _shows_channels(call: Call) -> bool:
    """Whether its output is what a non-linearity let through: where a gate would sit."""
    activation = getattr(call.layer, "activation", None)
    return call.kind in ACTIVATIONS or activation not in (None, keras.activations.linear)


def _components(labels: Labels) -> tuple[dict[int, int], dict[int, int]]:
    """Class → group and class → channel of that group. Classes made by one layer belong to one group."""
    classes = np.array([labels.find(x) for x in range(len(labels.parent))], dtype=np.int64)
    joined = Labels(parent=list(range(len(classes))))
    for use in labels.uses:
        if use.role in ("producer", "padding"):
            roots = np.unique(classes[use.labels])
            joined.unite(np.full(len(roots), roots[0]), roots)
    component = {c: joined.find(c) for c in np.unique(classes).tolist()}
    taken, channel = defaultdict(int), {}
    for c, group in component.items():
        channel[c] = taken[group]
        taken[group] += 1
    return component, channel


def _sizes(component: dict[int, int]) -> dict[int, int]:
    sizes = defaultdict(int)
    for group in component.values():
        sizes[group] += 1
    return sizes


def _name(members: list[Member]) -> str | None:
    return next((m.layer for m in members if m.role == "producer"), None)
