"""What was left whole, and why: never a guess, always by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from secateur.pruning.layers.labels import Labels
from secateur.runs.text import few, table

OUTPUT = "it is an output of the model"


@dataclass(frozen=True)
class Untouched:
    """Channels that stay whole: the layers that make them, how many they are, and why."""

    layers: tuple[str, ...]
    channels: int
    reason: str


class Listing(list):
    """Rows of `Untouched` that print as a table."""

    def worst(self) -> Untouched | None:
        """The row of the most channels, an output only where nothing else stays whole."""
        return max(self, key=lambda row: (row.reason != OUTPUT, row.channels), default=None)

    def __str__(self) -> str:
        return table(
            ("left whole", "channels", "because"),
            [(few(row.layers), row.channels, row.reason) for row in self],
        )


def listing(state: Labels, component: np.ndarray, locked: Mapping[int, str]) -> Listing:
    """One row for each set of channels that stays, and one for each layer whose own channels are unknown."""
    makers: dict[int, dict[str, int]] = {}
    for use in state.uses.values():
        if use.role == "producer" and (c := int(component[use.labels[0]])) in locked:
            makers.setdefault(c, {})[use.layer] = len(np.unique(use.labels))
    rows = [Untouched(tuple(layers), max(layers.values()), locked[c]) for c, layers in makers.items()]
    return Listing([*rows, *(Untouched((name,), *why) for name, why in state.whole.items())])
