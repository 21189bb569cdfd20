"""Labels that flow through a graph: which positions of which tensors are the same channel.

Every position of every tensor has a label. A layer that makes channels hands out fresh ones, a layer that
passes channels on passes their labels on, and a merge makes the labels that it joins equal. What is equal in
the end is one channel, wherever it appears: residual streams, concatenations and shared layers need no
special case. An axis along which the label does not change is stored with size 1: a feature map costs no more
than its channels. Labels change along one axis at most, so that what is cut out of a tensor is a box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from secateur.nets.graph import Call
from secateur.nets.kernels import named_variables
from secateur.runs.errors import UsageError


@dataclass(frozen=True)
class Use:
    """Labels along one axis of a layer's weights: `axes` maps weight name → axis, from 0."""

    layer: str
    role: str  # producer, follower, consumer or padding
    axes: dict[str, int]
    labels: np.ndarray
    part: str = ""  # of a layer that makes several sets of channels, as heads


@dataclass
class Labels:
    """What is learnt on the way through a graph."""

    count: int = 0
    pairs: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    locked: list[tuple[np.ndarray, str]] = field(default_factory=list)
    uses: dict[tuple, Use] = field(default_factory=dict)
    shaped: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    of_tensor: dict[int, np.ndarray] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)  # tensor → rows along the batch axis for each sample
    channel_statistics: bool = False  # whether channels may go that are averaged or compared with others
    reduced: list[str] = field(default_factory=list)  # calls that do so
    batch: int | None = None  # samples that the model takes at once; None: any number
    silence: dict[int, bool] = field(default_factory=dict)  # tensor → see `layers.silence`
    calls: list[Call] = field(default_factory=list)  # whose rules have run
    whole: dict[str, tuple[int, str]] = field(default_factory=dict)  # layer → its channels, why they stay
    outer: bool = False  # of channels in two axes, as heads and their width, those of the outer one
    heads: list[np.ndarray] = field(default_factory=list)  # labels along which products of tensors go through

    def fresh(self, size: int) -> np.ndarray:
        """`size` labels that nothing has yet."""
        self.count += size
        return np.arange(self.count - size, self.count)

    def unite(self, a: np.ndarray, b: np.ndarray) -> None:
        """Makes labels equal, position by position; shapes broadcast."""
        a, b = np.broadcast_arrays(a, b)
        different = a != b
        if different.any():
            self.pairs.append((a[different], b[different]))

    def use(
        self, call: Call, role: str, axes: Mapping[str, int], labels: np.ndarray, masked: bool = False,
        part: str = "",
    ) -> None:  # fmt: skip
        """Notes which channels a layer's weights serve: a layer that is called twice serves the same ones.

        `axes` may count from the end, and name weights that the layer does not have, as a bias. With
        `masked` it counts as one that has a "mask": see `LayerClass.masked`. A `part` makes channels of its
        own. Raises `UsageError` for an axis that has another size than the labels.
        """
        weights = named_variables(call.layer) if hasattr(call.layer, "variables") else {}
        own = {name: tuple(weight.shape) for name, weight in weights.items()}
        if masked:
            own.setdefault("mask", (len(labels),))
        found = {name: axis % len(own[name]) for name, axis in axes.items() if name in own}
        for name, axis in found.items():
            if own[name][axis] != len(labels):
                raise UsageError(
                    f"Weight {name!r} of layer {call.name!r} needs {len(labels)} entries along axis {axis}, "
                    f"one for each channel. Received: shape {own[name]}"
                )
        key = (call.name, role, *axes.items())
        if key in self.uses:
            self.unite(self.uses[key].labels, labels)
        else:
            self.uses[key] = Use(call.name, role, found, labels, part)

    def same_shape(self, layer: str, made: Sequence[np.ndarray]) -> None:
        """Notes what a layer with sizes in its configuration makes: at every call it cuts the same."""
        for i, labels in enumerate(made):
            known = self.shaped.setdefault((layer, i), labels)
            if known.shape == labels.shape:
                self.unite(known, labels)
            else:
                for stays in (known, labels):
                    self.lock(stays, f"{layer}: it is called on tensors of several shapes")

    def lock(self, labels: np.ndarray, reason: str) -> None:
        """Marks channels that must stay."""
        self.locked.append((np.unique(labels), reason))


def representatives(count: int, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The smallest label that each of `count` labels is connected to by the pairs (of equal-sized arrays)."""
    parent = np.arange(count)
    a = np.concatenate([p[0].ravel() for p in pairs]) if pairs else np.arange(0)
    b = np.concatenate([p[1].ravel() for p in pairs]) if pairs else np.arange(0)
    while len(a):
        a, b = parent[a], parent[b]
        open_ = a != b
        a, b = a[open_], b[open_]
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
        while (parent[parent] != parent).any():
            parent = parent[parent]
    return parent


def compressed(labels: np.ndarray) -> np.ndarray:
    """Axes along which nothing changes get size 1."""
    for axis in range(labels.ndim):
        if labels.shape[axis] > 1 and (labels == (first := labels.take([0], axis))).all():
            labels = first
    return labels


def on_one_axis(state: Labels, labels: np.ndarray) -> np.ndarray:
    """Labels that change along one axis at most: the last one that they changed along, or with `state.outer`
    the one in front of it.

    What is cut out of a tensor has to be a box. Positions that only differ along other axes are united.
    """
    varying = [axis for axis, n in enumerate(labels.shape) if n > 1]
    stays = varying[-2:-1] if state.outer and len(varying) > 1 else varying[-1:]
    for axis in varying:
        if axis in stays:
            continue
        first = labels.take([0], axis)
        state.unite(first, labels)
        labels = first
    return labels


def expanded(labels: np.ndarray, shape: Sequence[int | None]) -> np.ndarray:
    """Inverse of `compressed` for a tensor of this shape (without batch); open sizes stay 1."""
    return np.broadcast_to(
        labels, [n if n is not None else size for n, size in zip(shape, labels.shape, strict=True)]
    )


def channel_axis(labels: np.ndarray) -> int:
    """The axis (without batch) along which labels change; the last one where they do not."""
    return int(np.argmax(labels.shape)) if labels.size > 1 else labels.ndim - 1


def channel_vector(labels: np.ndarray, size: int, axis: int = -1) -> np.ndarray | None:
    """Labels (size,) along an axis (without batch); None where they change along another one."""
    if labels.ndim < 1 or labels.shape[axis] != labels.size:
        return None
    return np.broadcast_to(labels.reshape(-1), (size,))
