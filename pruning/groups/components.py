"""From a graph to sets of channels: rules of layers run along it, labels with one fate are collected."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from secateur.nets.graph import Call, Graph
from secateur.pruning.groups.untouched import OUTPUT
from secateur.pruning.layers import find
from secateur.pruning.layers.labels import Labels, representatives
from secateur.pruning.layers.layout import channels_last, from_last, own_axis, to_last
from secateur.pruning.layers.registry import Label


def label_channels(graph: Graph, channel_statistics: bool = False, outer: bool = False) -> Labels:
    """Runs the label rules of all layers. What is not understood is locked, as inputs and outputs are.

    Where the channels of a layer lie along two axes, heads and their width, labels follow one of them: the
    inner one, or the `outer` one.
    """
    state = Labels(channel_statistics=channel_statistics, outer=outer)
    for call in graph.calls:
        rows = state.rows[call.inputs[0]] if call.inputs else 1
        state.rows |= dict.fromkeys(call.outputs, rows)
        if not call.inputs:
            state.batch = state.batch or call.shapes[0][0]
        labels = [state.of_tensor[t] for t in call.inputs]
        known = find(call.kind)
        made = _labelled(known.label, state, call, labels) if known else _unknown(call)
        if isinstance(made, str):
            reason = f"{call.name}: {made}"
            made = [state.fresh(1).reshape([1] * (len(shape) - 1)) for shape in call.shapes]
            for vector in [*labels, *made]:
                state.lock(vector, reason)
            if any(len(weight.shape) > 1 for weight in getattr(call.layer, "weights", ())):
                state.whole[call.name] = (call.shapes[0][-1], reason)  # it makes channels of its own
        state.of_tensor |= dict(zip(call.outputs, made, strict=True))
        state.calls.append(call)
    for tensor in graph.outputs:
        state.lock(state.of_tensor[tensor], OUTPUT)
    return state


def _unknown(call: Call) -> str:
    return f"{call.kind} is not understood" + (f": {call.whole}" if call.whole else "")


def _labelled(rule: Label, state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """Rules see channels at the end."""
    if (axis := own_axis(call)) is None:
        return rule(state, call, labels)
    made = rule(state, channels_last(call), [to_last(x, axis) for x in labels])
    return made if isinstance(made, str) else [from_last(x, axis) for x in made]


@dataclass(frozen=True, eq=False)
class Components:
    """Labels by the component that they belong to: those that one layer makes, and all that equal them.

    Attributes:
        owner: (labels,) the component of each label; its name is its smallest label.
        channel: (labels,) which channel of its component each label is, from 0.
        sizes: component → number of channels.
        locked: component → why it stays.
        names: component that may be cut → its first producer; in the order of the components.
    """

    owner: np.ndarray
    channel: np.ndarray
    sizes: Mapping[int, int]
    locked: Mapping[int, str]
    names: Mapping[int, str]

    @classmethod
    def of(cls, state: Labels) -> Components:
        """Collects what the rules have found out; of outer axes those that are heads."""
        classes = representatives(state.count, state.pairs)
        owner = _owners(state, classes)
        channel, sizes = _channels(classes, owner)
        locked: dict[int, str] = {}
        for labels, reason in state.locked:
            for c in np.unique(owner[labels]).tolist():
                locked.setdefault(c, reason)
        names: dict[int, str] = {}
        for use in state.uses.values():
            if use.role == "producer":
                name = f"{use.layer}:{use.part}" if use.part else use.layer
                names.setdefault(int(owner[use.labels[0]]), name)
        if state.outer:
            heads = {int(owner[vector[0]]) for vector in state.heads}
            names = {c: name if ":" in name else f"{name}:heads" for c, name in names.items() if c in heads}
        free = {c: names[c] for c in sizes if c in names and c not in locked}
        return cls(owner, channel, sizes, locked, free)

    def without(self, some: Collection[int]) -> Components:
        """Without the names of some components."""
        return replace(self, names={c: name for c, name in self.names.items() if c not in some})

    def split(self, labels: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Component and index of each component on an axis; index −1 where a position is another's."""
        owners, channels = self.owner[labels], self.channel[labels]
        distinct, first = np.unique(owners, return_index=True)
        return [(int(c), np.where(owners == c, channels, -1)) for c in distinct[np.argsort(first)]]

    def slots(self) -> np.ndarray:
        """(labels,) place of each label in the channels of all named components in a row; −1: it stays."""
        starts = np.full(len(self.owner), -1)
        offset = 0
        for component in self.names:
            starts[component] = offset
            offset += self.sizes[component]
        start = starts[self.owner]
        return np.where(start >= 0, start + self.channel, -1)


def _owners(state: Labels, classes: np.ndarray) -> np.ndarray:
    """Label → smallest label of its component: classes made by one layer belong together."""
    pairs = [(classes, np.arange(len(classes)))]
    for use in state.uses.values():
        if use.role in ("producer", "padding"):
            pairs.append((np.full(len(use.labels), use.labels[0]), use.labels))
    return representatives(state.count, pairs)


def _channels(classes: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, dict[int, int]]:
    """Label → channel of its component, and component → number of channels, in their order."""
    first, distinct = np.unique(owner), np.unique(classes)
    owners = owner[distinct]
    order = np.argsort(owners, kind="stable")
    counts = np.bincount(np.searchsorted(first, owners), minlength=len(first))
    starts = np.cumsum([0, *counts[:-1]])
    ranks = np.empty(len(distinct), np.int64)
    ranks[order] = np.arange(len(distinct)) - np.repeat(starts, counts)
    channel = ranks[np.searchsorted(distinct, classes)]
    return channel, dict(zip(first.tolist(), counts.tolist(), strict=True))
