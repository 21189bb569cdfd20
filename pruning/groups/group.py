"""A channel group: channels that can only be removed everywhere at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from secateur.runs.text import table

if TYPE_CHECKING:
    from secateur.pruning.groups.analysis import Analysis

ROLES = ("producer", "follower", "consumer", "padding")


@dataclass(frozen=True, eq=False)
class Member:
    """Where a group appears: `index[p]` is its channel at position p of the axes, −1 if it is not ours."""

    layer: str
    role: str  # producer, follower (BN), consumer or padding
    axes: dict[str, int]
    index: np.ndarray

    @property
    def cut(self) -> str:
        """Its weights and the axes that they are cut along, in words."""
        return ", ".join(f"{weight} {axis}" for weight, axis in self.axes.items() if weight != "mask")


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that share their fate. Prints itself as a table.

    Attributes:
        name: of its first producer.
        size: number of channels.
        members: where they appear, in the order of the graph.
        analysis: of the network that it is a group of.
        sites: numbers of the tensors that show the channels: behind a non-linearity, where it has one; else
            those that its consumers read, as a linear bottleneck's behind BN or the sum.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    analysis: Analysis = field(repr=False)
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
        weighted_first = sorted(self.members, key=lambda m: not m.axes)
        return next((m.layer for m in weighted_first if not np.append(mask, False)[m.index].any()), None)

    def _sets(self) -> set[frozenset[int]]:
        """Channels that one layer makes or reads: it must keep at least one of them."""
        return {frozenset(np.unique(m.index[m.index >= 0]).tolist()) for m in self.members}

    def table(self) -> str:
        """A row for each layer that its channels go through.

        "channels" are those of the group that the layer has on the axis; a flattened feature map has each of
        them at every pixel.
        """
        rows = [
            (role, m.layer, m.cut, len(set(m.index.tolist()) - {-1}))
            for role in ROLES
            for m in self.members
            if m.role == role and (m.axes or role == "padding")
        ]
        return table(("role", "layer", "cut along", "channels"), rows)

    def __str__(self) -> str:
        """Who makes, follows and reads its channels."""
        return f"{self.name}: {self.size} channels\n{self.table()}"
