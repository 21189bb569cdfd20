"""The registry of kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from secateur.nets.graph import Call
from secateur.pruning.conventions import Convention
from secateur.pruning.layers.labels import Labels

Label = Callable[[Labels, Call, list[np.ndarray]], "list[np.ndarray] | str"]
CostRule = Callable[[Convention, Call, int, int], tuple[int, int]]


@dataclass(frozen=True)
class Cut:
    """What is left of a layer: its `weights` by name, and the sizes of its tensors along each axis.

    `inputs` and `outputs` have one tuple per tensor, without the batch axis; None where the size is open or
    where what is left is no box.
    """

    weights: Mapping[str, np.ndarray]
    inputs: tuple[tuple[int | None, ...], ...]
    outputs: tuple[tuple[int | None, ...], ...]


@dataclass(frozen=True)
class Kind:
    """One kind of layer.

    Attributes:
        label: (state, call, labels of its inputs) → labels of its outputs; or the reason, a string, why the
            channels around this call must stay.
        resize: (configuration, call, what is left) → configuration of the smaller layer.
        cost: (convention, call, channels in, channels out) → parameters and operations.
    """

    label: Label
    resize: Callable[[dict, Call, Cut], dict] | None = None
    cost: CostRule | None = None


KINDS: dict[str, Kind] = {}


def kind(*names: str, label: Label, resize=None, cost: CostRule | None = None) -> None:
    """Registers layers by class name; raw operations are called "ops.Add"."""
    KINDS.update(dict.fromkeys(names, Kind(label, resize, cost)))
