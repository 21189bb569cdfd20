"""The channel groups of a network, read off its graph."""

from __future__ import annotations

import contextlib
import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np

from secateur.nets.graph import Call, Graph, trace
from secateur.nets.kernels import named_variables
from secateur.pruning.groups.components import Components, label_channels
from secateur.pruning.groups.group import ChannelGroup, Member
from secateur.pruning.groups.untouched import Listing, listing
from secateur.pruning.layers import is_activation, sized
from secateur.pruning.layers.labels import Labels, channel_axis, channel_vector, expanded
from secateur.pruning.layers.layout import channels_last, own_axis
from secateur.pruning.layers.registry import Place
from secateur.pruning.plan import Plan
from secateur.runs.errors import UsageError

PRODUCTS = ("ops.Matmul", "ops.Einsum", "ops.DotProductAttention")  # which have heads beside widths
Plane = tuple[np.ndarray, dict[int, np.ndarray]]  # slots and labels of one run of the rules
Rows = list[tuple[str, np.ndarray]]  # groups on an axis, and which channel is where
Axes = Sequence[tuple[int, Rows]]  # sizes of axes, and the groups on each
Parts = dict[int, Rows]  # tensor → those of the axis of its channels


@dataclass(frozen=True, eq=False)
class Analysis:
    """A graph with its groups.

    Attributes:
        graph: calls, inputs, outputs.
        groups: in the order of their first producers.
        untouched: rows of what was left whole (layers, channels, reason); prints as a table.
        slots: label → place of its channel in the masks of all groups in a row; −1 for what stays.
        labels: tensor → labels, with size 1 along the axes where they do not change.
        parts: tensor → groups on the axis of its channels, and which channel of the group each position is
            (−1: none).
        rows: tensor → rows along the batch axis for each sample: 1 unless a reshape has put more there.
        reduced: calls that average or compare channels that may go: they will do so over fewer ones.
        heads: slots and labels once more, of heads: they lie along another axis than their width. What is
            left of a tensor is left by both.
    """

    graph: Graph
    groups: list[ChannelGroup]
    untouched: Listing
    slots: np.ndarray
    labels: dict[int, np.ndarray]
    parts: Parts = field(repr=False)
    rows: dict[int, int] = field(repr=False)
    reduced: tuple[str, ...] = ()
    heads: Plane | None = field(repr=False, default=None)

    @property
    def planes(self) -> list[Plane]:
        """Slots and labels of tensors: a position is there as long as its channel of every plane is."""
        return [(self.slots, self.labels), *([self.heads] if self.heads else [])]

    @property
    def calls(self) -> list[Call]:
        """Calls of the graph, in runnable order."""
        return self.graph.calls

    def positions(self, tensor: int, group: str, masks: Mapping[str, np.ndarray]) -> np.ndarray:
        """For each position that is left of a tensor under the masks: its channel of the group, or −1."""
        rows = dict(self.parts[tensor])
        alive = np.logical_and.reduce([np.append(masks[name], True)[index] for name, index in rows.items()])
        return rows[group][alive]

    def axis(self, tensor: int) -> int:
        """The axis of a tensor's channels, not counting the batch; the last one where it has none."""
        return channel_axis(self.labels[tensor])

    def counted(self, call: Call) -> tuple[Call, Axes]:
        """The call as its cost sees it, and the axes that this is a function of.

        These are the ones that its entry names, or else the channels that it first reads and makes; the call
        then has its channels at the end.
        """
        if (places := sized(call)) is not None:
            return call, [self._groups_on(call, place) for place in places]
        tensors, own = (*call.inputs, *call.outputs), own_axis(call)
        weighted = bool(getattr(call.layer, "weights", ())) and call.kind != "PReLU"  # of any axis
        axes = [own if own is not None else None if weighted else self.axis(t) for t in tensors]
        seen = channels_last(call, *axes)
        ends = []
        for i, shape in ((0, seen.input_shapes[0]), (len(call.inputs), seen.shapes[0])):
            rank, axis = len(shape) - 1, axes[i]
            axis = rank - 1 if axis is None or axis >= rank else axis
            rows = self.parts[tensors[i]] if self.axis(tensors[i]) == axis else []
            ends.append(((shape[1:] or (1,))[-1] or 1, rows))  # one word has no size
        return seen, ends

    def _groups_on(self, call: Call, place: Place) -> tuple[int, Rows]:
        """Size of an axis of one of the call's weights (by name) or of a tensor, and the groups on it."""
        where, axis = place
        if isinstance(where, str):
            variable = named_variables(call.layer)[where]
            return variable.shape[axis], self.cuts.get((call.name, where, axis % len(variable.shape)), [])
        shapes = dict(zip((*call.inputs, *call.outputs), (*call.input_shapes, *call.shapes), strict=True))
        axis %= len(shapes[where])
        if axis == self.axis(where) + 1:
            return shapes[where][axis] or 1, self.parts[where]
        found: Rows = []
        starts = np.cumsum([0, *(group.size for group in self.groups)])
        for slots, labels in self.planes:
            own = slots[labels[where]]
            if axis > 0 and own.shape[axis - 1] == own.size > 1:
                owners = np.searchsorted(starts, own.reshape(-1), side="right") - 1
                for i in np.unique(owners[own.reshape(-1) >= 0]).tolist():
                    index = np.where(owners == i, own.reshape(-1) - starts[i], -1)
                    found.append((self.groups[i].name, index))
        return shapes[where][axis] or 1, found

    @functools.cached_property
    def cuts(self) -> dict[tuple[str, str, int], Rows]:
        """(layer, weight, axis) → the groups on it, each with its channel at every position (−1: none)."""
        cuts: dict = defaultdict(list)
        for group in self.groups:
            for member in group.members:
                for weight, axis in member.axes.items():
                    cuts[member.layer, weight, axis].append((group.name, member.index))
        return cuts

    def alive(self, tensor: int, masks: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Which positions of the axis of its channels are left by every plane; None where all are."""
        alive, axis = self._alive(masks), self.axis(tensor)
        planes = [slots[labels[tensor]] for slots, labels in self.planes]
        along = [own.reshape(-1) for own in planes if own.ndim and own.shape[axis] == own.size]
        kept = [alive[own] for own in along if (own >= 0).any()]
        return np.logical_and.reduce(np.broadcast_arrays(*kept)) if kept else None

    def _alive(self, masks: Mapping[str, np.ndarray]) -> np.ndarray:
        """The masks of all groups in a row, for `slots`, with True for what stays."""
        return np.concatenate([*(masks[g.name] for g in self.groups), np.array([True])]).astype(bool)

    def sizes(self, tensor: int, shape: tuple, masks: Mapping[str, np.ndarray]) -> tuple[int | None, ...]:
        """What is left of a tensor of this shape (with batch) along each axis; None where that is no box."""
        alive = self._alive(masks)
        left = [alive[slots[labels[tensor]]] for slots, labels in self.planes]
        kept = expanded(np.logical_and.reduce(np.broadcast_arrays(*left)), shape[1:])
        sizes = [
            int(kept.any(tuple(i for i in range(kept.ndim) if i != axis)).sum()) for axis in range(kept.ndim)
        ]
        box = int(np.prod(sizes)) == int(kept.sum())
        return tuple(
            n if box and full is not None else None for n, full in zip(sizes, shape[1:], strict=True)
        )


def find_groups(model: keras.Model, channel_statistics: bool = False) -> list[ChannelGroup]:
    """Groups of a functional model whose channels may be removed, named after their first producer.

    Args:
        model: functional model.
        channel_statistics: let channels go that a mean, maximum or deviation over channels reads (CBAM, GRN).
            It is taken over those that are left, in `compact` as in `mask`: it changes by more than what
            zeros in place of the others would change.

    Groups that contain an input, an output or a layer that is not understood are left whole and not returned;
    `analyse(model).untouched` lists them with the reason. Raises `UsageError` for a model without a graph.
    """
    return analyse(model, channel_statistics).groups


def analysis_for(model: keras.Model, plan: Plan | None) -> tuple[Analysis, Plan]:
    """`analyse`, with channel_statistics where the plan needs them; and the plan by the model's names.

    None is the plan that keeps everything. Raises `UsageError` for a plan of another network.
    """
    analysis = analyse(model)
    if plan is None:
        return analysis, Plan.full(analysis.groups)
    try:
        return analysis, plan.check(analysis.groups)
    except UsageError as error:
        other = analyse(model, channel_statistics=True)
        with contextlib.suppress(UsageError):
            return other, plan.check(other.groups)
        raise error


def analyse(model: keras.Model, channel_statistics: bool = False) -> Analysis:
    """Reads calls and groups off the functional graph, groups in the order of their first producers."""
    graph = trace(model)
    state = label_channels(graph, channel_statistics)
    found = Components.of(state)
    parts, members = _parts(graph, state, found), _members(state, found)
    own, heads = [(name, found.sizes[c], members[c]) for c, name in found.names.items()], None
    if state.heads or any(len(call.inputs) > 1 and call.kind in PRODUCTS for call in graph.calls):
        outer = label_channels(graph, channel_statistics, outer=True)
        others = Components.of(outer)
        known, more = {_fingerprint(rows) for _, _, rows in own}, _members(outer, others)
        others = others.without({c for c in others.names if _fingerprint(more[c]) in known})
        slots = others.slots()
        heads = (np.where(slots < 0, -1, slots + sum(size for _, size, _ in own)), outer.of_tensor)
        own += [(name, others.sizes[c], more[c]) for c, name in others.names.items()]
        for tensor, rows in _parts(graph, outer, others).items():
            if channel_axis(outer.of_tensor[tensor]) == channel_axis(state.of_tensor[tensor]):
                parts[tensor] = [*parts[tensor], *rows]
    sites = _sites(graph, parts, {name: rows for name, _, rows in own})
    left = listing(state, found.owner, found.locked)
    analysis = Analysis(
        graph, [], left, found.slots(), state.of_tensor, parts, state.rows, tuple(state.reduced), heads
    )
    for name, size, its in own:
        analysis.groups.append(ChannelGroup(name, size, tuple(its), analysis, sites[name]))
    return analysis


def _fingerprint(members: list[Member]) -> frozenset:
    """Equal for groups that are the same channels of the same weights."""
    return frozenset((m.layer, m.role, *m.axes.items(), m.index.tobytes()) for m in members)


def _members(state: Labels, found: Components) -> dict[int, list[Member]]:
    members: dict[int, list[Member]] = {c: [] for c in found.names}
    for use in state.uses.values():
        for owner, index in found.split(use.labels):
            if owner in members:
                members[owner].append(Member(use.layer, use.role, use.axes, index))
    return members


def _parts(graph: Graph, state: Labels, found: Components) -> Parts:
    parts: Parts = {}
    known: dict[bytes, list[tuple[str, np.ndarray]]] = {}
    for call in graph.calls:
        for tensor, shape in zip(call.outputs, call.shapes, strict=True):
            labels = state.of_tensor[tensor]
            axis = channel_axis(labels)
            vector = (
                None
                if len(shape) < 2 or shape[axis + 1] is None
                else channel_vector(labels, shape[axis + 1], axis)
            )
            if vector is None:
                parts[tensor] = []
                continue
            key = vector.tobytes()
            if key not in known:
                rows = found.split(vector)
                known[key] = [(found.names[c], index) for c, index in rows if c in found.names]
            parts[tensor] = known[key]
    return parts


def _sites(graph: Graph, parts: Parts, members: Mapping[str, list[Member]]) -> dict[str, tuple[int, ...]]:
    """Behind each group's non-linearities; where it has none, what its consumers read, or producers make."""
    acting: dict[str, list[int]] = {}
    read: dict[str, list[int]] = defaultdict(list)  # layer → tensors of all its calls
    made: dict[str, list[int]] = defaultdict(list)
    for call in graph.calls:
        read[call.name] += call.inputs
        made[call.name] += call.outputs
        for group, _ in parts[call.outputs[0]] if is_activation(call) else ():
            acting.setdefault(group, []).append(call.outputs[0])

    def linear(group: str, role: str, tensors: Mapping[str, list[int]]) -> list[int]:
        layers = dict.fromkeys(m.layer for m in members[group] if m.role == role)
        shown = sorted({t for layer in layers for t in tensors[layer]})
        return [t for t in shown if any(name == group for name, _ in parts[t])]

    return {
        group: tuple(acting.get(group) or linear(group, "consumer", read) or linear(group, "producer", made))
        for group in members
    }
