"""A plan says which channels of each group stay: the one source for masks, slicing, counting and names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from operator import index

import numpy as np

from secateur.runs.errors import UsageError

FAST_WIDTH = 8  # convolutions compute as many channels at once; 15 take longer than 16


def renamed(group: str, names: Mapping[str, str]) -> str:
    """The name of a group where layers have other names: "mha:heads" is a part of "mha"."""
    layer, colon, part = group.partition(":")
    return names.get(group) or names.get(layer, layer) + colon + part


def _other_names(groups: Collection[str], wanted: Collection[str]) -> dict[str, str]:
    """Group → its name among the `wanted` ones, where layers are nested in one network alone."""
    free = [other for other in wanted if other not in groups]
    same = {
        name: [other for other in free if _differ_in_path(name, other)]
        for name in groups
        if name not in wanted
    }
    uses = Counter(other for others in same.values() for other in others)
    return {name: one[0] for name, one in same.items() if len(one) == 1 and uses[one[0]] == 1}


def _differ_in_path(one: str, other: str) -> bool:
    """Whether one name is what `flat_names` makes of the other."""
    long, short = (one, other) if "/" in one else (other, one)
    return short in (long.rpartition("/")[2], long.replace("/", "_"))


@dataclass(frozen=True)
class Plan:
    """Kept channels by group.

    Attributes:
        keep: group name → ascending indexes of the channels that stay, at least one.
        sizes: group name → number of channels before pruning.
    """

    keep: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, int]

    def __post_init__(self) -> None:
        if alone := sorted(self.keep.keys() ^ self.sizes.keys()):
            names = " and ".join(map(repr, alone[:3]))
            raise UsageError(f"A plan needs keep and sizes of the same groups. Received: {names} in only one")
        for name, kept in self.keep.items():
            size = self.sizes[name]
            if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= size:
                raise UsageError(
                    f"Group {name!r} needs between 1 and {size} different channels, ascending, below {size}. "
                    f"Received: keep={list(kept)[:8]}{'…' if len(kept) > 8 else ''}"
                )

    @classmethod
    def full(cls, groups: Iterable) -> Plan:
        """The plan that removes nothing."""
        sizes = {g.name: g.size for g in groups}
        return cls({name: tuple(range(size)) for name, size in sizes.items()}, sizes)

    @classmethod
    def from_masks(cls, masks: Mapping[str, np.ndarray]) -> Plan:
        """From one boolean vector (channels,) per group."""
        keep = {name: tuple(np.flatnonzero(mask).tolist()) for name, mask in masks.items()}
        return cls(keep, {name: len(mask) for name, mask in masks.items()})

    def check(self, groups: Iterable) -> Plan:
        """This plan by the names of these groups (`find_groups` of a model).

        Layers of nested models are called by their paths, and have names of their own in what `mask` and
        `compact` make: a plan fits both. Raises `UsageError` for a plan of another network.
        """
        wanted = {group.name: group.size for group in groups}
        names = _other_names(self.sizes, wanted)
        found = self.renamed(names) if names else self
        for name in [*wanted, *found.sizes]:
            here, there = wanted.get(name, "no"), found.sizes.get(name, "no")
            if here != there:
                raise UsageError(
                    f"This plan is for another network; make it from this model. Received: {there} channels "
                    f"in group {name!r}, where the model has {here}"
                )
        return found

    def __str__(self) -> str:
        """A line for each group: its width before and after."""
        return "\n".join(f"{name}: {self.sizes[name]} → {len(kept)}" for name, kept in self.keep.items())

    def masks(self) -> dict[str, np.ndarray]:
        """One boolean vector (channels,) per group."""
        return {name: np.isin(np.arange(self.sizes[name]), kept) for name, kept in self.keep.items()}

    def widths(self) -> dict[str, int]:
        """Number of kept channels by group."""
        return {name: len(kept) for name, kept in self.keep.items()}

    def replace(self, group: str, kept: Iterable[int]) -> Plan:
        """The same plan with other channels in one group."""
        return Plan({**self.keep, group: tuple(sorted(map(int, kept)))}, self.sizes)

    def renamed(self, names: Mapping[str, str]) -> Plan:
        """The same plan for a model whose layers have other names; those that are not in `names` stay."""
        keep = {renamed(name, names): kept for name, kept in self.keep.items()}
        return Plan(keep, {renamed(name, names): size for name, size in self.sizes.items()})

    def padded(self, multiple: int) -> Plan:
        """This plan with removed channels taken back until widths are multiples, where a group has as many.

        Convolutions of 15 channels are slower than those of 16: train and search in the padded network with
        the additional channels masked, and cut them off at the end (`within`).
        """
        keep = {}
        for name, kept in self.keep.items():
            missing = min(-len(kept) % multiple, self.sizes[name] - len(kept))
            removed = sorted(set(range(self.sizes[name])) - set(kept))
            keep[name] = tuple(sorted((*kept, *removed[:missing])))
        return Plan(keep, self.sizes)

    def within(self, outer: Plan) -> Plan:
        """This plan for the network that `outer`, which keeps at least as much, has left."""
        place = {name: {channel: i for i, channel in enumerate(kept)} for name, kept in outer.keep.items()}
        keep = {name: tuple(place[name][channel] for channel in kept) for name, kept in self.keep.items()}
        return Plan(keep, outer.widths())

    def then(self, inner: Plan) -> Plan:
        """This plan, followed by one for the network that it leaves: one plan for the first network.

        Pruning round by round ends in one plan, which `within` takes apart again. Groups that `inner` lacks
        stay as they are: where one of two groups of a normalisation is left, the smaller network has nothing
        to remove there. Raises `UsageError` for groups and widths that this plan does not leave.
        """
        left = self.widths()
        inner = inner.renamed(_other_names(inner.sizes, left))
        wrong = next((name for name, size in inner.sizes.items() if left.get(name) != size), None)
        if wrong is not None:
            raise UsageError(
                "The second plan is for another network than the first one leaves. Received: "
                f"{inner.sizes[wrong]} channels in group {wrong!r}, of which it leaves "
                f"{left.get(wrong, 'none')}"
            )
        kept = {name: tuple(self.keep[name][i] for i in again) for name, again in inner.keep.items()}
        return Plan({**self.keep, **kept}, self.sizes)

    def diff(self, other: Plan) -> dict[str, tuple[int, int]]:
        """Group → (width here, width there) where the kept channels differ."""
        if alone := sorted(set(self.sizes.items()) ^ set(other.sizes.items())):
            raise UsageError(f"These plans are for different networks. Received: {alone[0][0]!r} in only one")
        return {
            name: (len(kept), len(other.keep[name]))
            for name, kept in self.keep.items()
            if kept != other.keep[name]
        }

    def to_json(self) -> dict:
        """Plain types; `from_json` gives an equal plan."""
        return {"keep": {k: list(v) for k, v in self.keep.items()}, "sizes": dict(self.sizes)}

    @classmethod
    def from_json(cls, data: Mapping) -> Plan:
        """Inverse of `to_json`. Raises `UsageError` on anything else."""
        try:
            keep = {name: tuple(map(index, kept)) for name, kept in data["keep"].items()}
            sizes = {name: index(size) for name, size in data["sizes"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            wrong = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise UsageError(
                f'A plan is {{"keep": {{group: [channels]}}, "sizes": {{group: n}}}}. Received: {wrong}'
            ) from error
        return cls(keep, sizes)
