"""Channel groups: sets of channels that can only be removed everywhere at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import keras
import numpy as np

from pruning.graph import Call, Graph, trace
from pruning.kinds import KINDS
from pruning.labels import Labels, channel_vector, expanded, representatives
from pruning.untouched import Listing, listing

ACTIVATIONS = {"ReLU", "LeakyReLU", "ELU", "Activation", "PReLU", "ops.Relu", "ops.Silu", "ops.Gelu"}


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

    def ranked(self, order: np.ndarray) -> tuple[np.ndarray, int]:
        """`order` (best first) with each layer's best channel in front, and how many channels these are.

        Behind zero padding a group has channels that the layers in front of it lack; halves of a split are
        read one by one.
        """
        needed: list[int] = []
        for channels in sorted(self._sets(), key=len):
            if channels.isdisjoint(needed):
                needed.append(next(c for c in order.tolist() if c in channels))
        return np.array([*needed, *(c for c in order.tolist() if c not in needed)]), len(needed)

    def best(self, order: np.ndarray, width: int) -> np.ndarray:
        """The first `width` channels of `order` (best first), and of every layer at least its best one."""
        ranked, least = self.ranked(order)
        return np.sort(ranked[: max(width, least)])

    def emptied(self, mask: np.ndarray) -> str | None:
        """The first layer that a mask (channels,) would leave without channels."""
        return next((m.layer for m in self.members if not np.append(mask, False)[m.index].any()), None)

    def _sets(self) -> set[frozenset[int]]:
        """Channels that one layer makes or reads: it must keep at least one of them."""
        return {frozenset(np.unique(m.index[m.index >= 0]).tolist()) for m in self.members}

    def __str__(self) -> str:
        rows = [f"{self.name}: {self.size} channels"]
        for role in ("producer", "follower", "consumer", "padding"):
            if names := self.layers(role):
                rows.append(f"  {role + 's':10} {', '.join(names)}")
        return "\n".join(rows)


@dataclass(frozen=True, eq=False)
class Analysis:
    """A graph with its groups.

    Attributes:
        graph: calls, inputs, outputs.
        groups: in the order of their first producers.
        untouched: rows of what was left whole (layers, channels, reason); prints as a table.
        slots: label → place of its channel in the masks of all groups in a row; −1 for what stays.
        labels: tensor → labels, with size 1 along the axes where they do not change.
        parts: tensor → groups on its last axis, and which channel of the group each position is (−1: none).
    """

    graph: Graph
    groups: list[ChannelGroup]
    untouched: Listing
    slots: np.ndarray
    labels: dict[int, np.ndarray]
    parts: dict[int, list[tuple[str, np.ndarray]]] = field(repr=False)

    @property
    def calls(self) -> list[Call]:
        """Calls of the graph, in runnable order."""
        return self.graph.calls

    def positions(self, tensor: int, group: str, masks: Mapping[str, np.ndarray]) -> np.ndarray:
        """For each position that is left of a tensor under the masks: its channel of the group, or −1."""
        rows = dict(self.parts[tensor])
        alive = np.logical_and.reduce([np.append(masks[name], True)[index] for name, index in rows.items()])
        return rows[group][alive]

    def sizes(self, tensor: int, shape: tuple, masks: Mapping[str, np.ndarray]) -> tuple[int | None, ...]:
        """What is left of a tensor of this shape (with batch) along each axis; None where that is no box."""
        alive = np.append(np.concatenate([masks[g.name] for g in self.groups] or [[]]), True).astype(bool)
        kept = expanded(alive[self.slots[self.labels[tensor]]], shape[1:])
        sizes = [
            int(kept.any(tuple(i for i in range(kept.ndim) if i != axis)).sum()) for axis in range(kept.ndim)
        ]
        box = int(np.prod(sizes)) == int(kept.sum())
        return tuple(
            n if box and full is not None else None for n, full in zip(sizes, shape[1:], strict=True)
        )


def find_groups(model: keras.Model) -> list[ChannelGroup]:
    """Groups of a functional model whose channels may be removed, named after their first producer.

    Groups that contain an input, an output or a layer that is not understood are left whole and not returned;
    `analyse(model).untouched` lists them with the reason. Raises `UsageError` for a model without a graph.
    """
    return analyse(model).groups


def analyse(model: keras.Model) -> Analysis:
    """Reads calls and groups off the functional graph, groups in the order of their first producers."""
    graph = trace(model)
    state = label_channels(graph)
    classes = representatives(state.count, state.pairs)
    component = _components(state, classes)
    locked = _locked(state, classes, component)
    first, channel, sizes = _channels(classes, component)
    names = {}
    for use in state.uses.values():
        if use.role == "producer":
            names.setdefault(int(component[use.labels[0]]), use.layer)
    free = [c for c in sizes if c not in locked and c in names]
    members = {c: [] for c in free}
    for use in state.uses.values():
        for owner, index in _split(component, channel, use.labels):
            if owner in members:
                members[owner].append(Member(use.layer, use.role, use.axes, index))
    parts = _parts(graph, state, component, channel, {c: names[c] for c in free})
    sites = _sites(graph, parts)
    groups = [
        ChannelGroup(names[c], sizes[c], tuple(members[c]), tuple(sites.get(names[c], ()))) for c in free
    ]
    offsets = dict(zip(free, np.cumsum([0, *(sizes[c] for c in free)]).tolist(), strict=False))
    start = np.array([offsets.get(c, -1) for c in first.tolist()])[np.searchsorted(first, component)]
    slots = np.where(start >= 0, start + channel, -1)
    return Analysis(graph, groups, listing(state, component, locked), slots, state.of_tensor, parts)


def label_channels(graph: Graph) -> Labels:
    """Runs the rules of all kinds. Inputs, outputs and what is not understood are locked, with the reason."""
    state = Labels()
    for call in graph.calls:
        labels = [state.of_tensor[t] for t in call.inputs]
        known = KINDS.get(call.kind)
        if call.kind == "InputLayer":
            made = "it is an input of the model"
        elif known is None:
            made = f"{call.kind} is not understood"
        else:
            made = known.label(state, call, labels)
        if isinstance(made, str):
            reason = f"{call.name}: {made}"
            made = [state.fresh(1).reshape([1] * (len(shape) - 1)) for shape in call.shapes]
            for vector in [*labels, *made]:
                state.lock(vector, reason)
            if any(len(weight.shape) > 1 for weight in getattr(call.layer, "weights", ())):
                state.whole[call.name] = (call.shapes[0][-1], reason)  # it makes channels of its own
        state.of_tensor |= dict(zip(call.outputs, made, strict=True))
    for tensor in graph.outputs:
        state.lock(state.of_tensor[tensor], "it is an output of the model")
    return state


def _components(state: Labels, classes: np.ndarray) -> np.ndarray:
    """Label → smallest label of its group: classes made by one layer belong to one group."""
    pairs = [(classes, np.arange(len(classes)))]
    for use in state.uses.values():
        if use.role in ("producer", "padding"):
            pairs.append((np.full(len(use.labels), use.labels[0]), use.labels))
    return representatives(state.count, pairs)


def _locked(state: Labels, classes: np.ndarray, component: np.ndarray) -> dict[int, str]:
    locked: dict[int, str] = {}
    for labels, reason in state.locked:
        for c in np.unique(component[labels]).tolist():
            locked.setdefault(c, reason)
    return locked


def _channels(classes: np.ndarray, component: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[int, int]]:
    """The components in order, label → channel of its component, component → number of channels."""
    first = np.unique(component)
    distinct = np.unique(classes)
    owners = component[distinct]
    order = np.argsort(owners, kind="stable")
    counts = np.bincount(np.searchsorted(first, owners), minlength=len(first))
    starts = np.cumsum([0, *counts[:-1]])
    ranks = np.empty(len(distinct), np.int64)
    ranks[order] = np.arange(len(distinct)) - np.repeat(starts, counts)
    channel = ranks[np.searchsorted(distinct, classes)]
    return first, channel, dict(zip(first.tolist(), counts.tolist(), strict=True))


def _split(component: np.ndarray, channel: np.ndarray, labels: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Owner and index of each component on an axis; index −1 where a position is another's."""
    owners, channels = component[labels], channel[labels]
    distinct, first = np.unique(owners, return_index=True)
    return [(int(c), np.where(owners == c, channels, -1)) for c in distinct[np.argsort(first)]]


def _parts(graph: Graph, state: Labels, component, channel, names: dict[int, str]) -> dict:
    parts, known = {}, {}
    for call in graph.calls:
        for tensor, shape in zip(call.outputs, call.shapes, strict=True):
            labels = state.of_tensor[tensor]
            vector = None if len(shape) < 2 or shape[-1] is None else channel_vector(labels, shape[-1])
            if vector is None:
                parts[tensor] = []
                continue
            key = vector.tobytes()
            if key not in known:
                rows = _split(component, channel, vector)
                known[key] = [(names[c], index) for c, index in rows if c in names]
            parts[tensor] = known[key]
    return parts


def _sites(graph: Graph, parts: dict) -> dict[str, list[int]]:
    sites: dict[str, list[int]] = {}
    for call in graph.calls:
        for group, _ in parts[call.outputs[0]] if _shows_channels(call) else ():
            sites.setdefault(group, []).append(call.outputs[0])
    return sites


def _shows_channels(call: Call) -> bool:
    """Whether its output is what a non-linearity let through: where a gate would sit."""
    activation = getattr(call.layer, "activation", None)
    return call.kind in ACTIVATIONS or activation not in (None, keras.activations.linear)
