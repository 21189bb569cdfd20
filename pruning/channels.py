"""Which channels live and die together.

Every position of every tensor's last axis gets a label. A layer that makes new channels hands out new labels,
a layer that passes channels on passes their labels on, and a merge makes the labels that it adds equal. What
is equal in the end is one channel, wherever it appears: residual streams, zero padding and shared layers need
no special case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np

from pruning.graph import Call

PASS_THROUGH = {
    "ReLU",
    "LeakyReLU",
    "Activation",
    "Dropout",
    "MaxPooling2D",
    "AveragePooling2D",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "Identity",
}
ACTIVATIONS = {"ReLU", "LeakyReLU", "Activation", "PReLU"}
_BATCH_NORM_AXES = {"gamma": 0, "beta": 0, "moving_mean": 0, "moving_variance": 0, "mask": 0}


@dataclass(frozen=True)
class Use:
    """Labels along one axis of a layer's weights: `axes` maps weight name → axis."""

    layer: str
    role: str
    axes: dict[str, int]
    labels: np.ndarray


@dataclass
class Labels:
    """Union-find over labels, and what was learnt on the way through the graph."""

    parent: list[int] = field(default_factory=list)
    locked: dict[int, str] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    of_tensor: dict[int, np.ndarray] = field(default_factory=dict)

    def fresh(self, size: int) -> np.ndarray:
        """`size` labels that nothing has yet."""
        start = len(self.parent)
        self.parent.extend(range(start, start + size))
        return np.arange(start, start + size)

    def find(self, label: int) -> int:
        """Representative of the label's class."""
        while self.parent[label] != label:
            self.parent[label] = self.parent[self.parent[label]]
            label = self.parent[label]
        return label

    def unite(self, a: np.ndarray, b: np.ndarray) -> None:
        """Makes labels equal, position by position; the older label represents the class."""
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            low, high = sorted((self.find(x), self.find(y)))
            self.parent[high] = low

    def use(self, layer: str, role: str, axes: dict[str, int], labels: np.ndarray) -> None:
        """Notes which channels a layer's weights serve: a layer that is called twice serves the same ones."""
        if earlier := next((use for use in self.uses if (use.layer, use.role) == (layer, role)), None):
            self.unite(earlier.labels, labels)
        self.uses.append(Use(layer, role, axes, labels))

    def lock(self, labels: np.ndarray, reason: str) -> None:
        """Marks channels that must stay."""
        for label in labels.tolist():
            self.locked.setdefault(label, reason)


def _mixes(call: Call) -> bool:
    """Whether its activation lets one channel depend on the others, or its channels are not the last axis."""
    softmax = getattr(call.layer, "activation", None) in (
        keras.activations.softmax,
        keras.activations.log_softmax,
    )
    return softmax or getattr(call.layer, "data_format", None) == "channels_first"


def _conv(state: Labels, call: Call, labels: list[np.ndarray]) -> np.ndarray | None:
    if getattr(call.layer, "groups", 1) != 1 or _mixes(call):
        return None
    state.use(call.layer.name, "consumer", {"kernel": 2}, labels[0])
    return _produce(state, call, {"kernel": 3, "bias": 0, "mask": 0})


def _dense(state: Labels, call: Call, labels: list[np.ndarray]) -> np.ndarray | None:
    if _mixes(call):
        return None
    state.use(call.layer.name, "consumer", {"kernel": 0}, labels[0])
    return _produce(state, call, {"kernel": 1, "bias": 0, "mask": 0})


def _produce(state: Labels, call: Call, axes: dict[str, int]) -> np.ndarray:
    made = state.fresh(call.shapes[0][-1])
    state.use(call.layer.name, "producer", axes, made)
    return made


def _batch_norm(state: Labels, call: Call, labels: list[np.ndarray]) -> np.ndarray | None:
    if getattr(call.layer, "axis", -1) not in (-1, len(call.shapes[0]) - 1):
        return None
    state.use(call.layer.name, "follower", _BATCH_NORM_AXES, labels[0])
    return labels[0]


def _add(state: Labels, call: Call, labels: list[np.ndarray]) -> np.ndarray | None:
    # A constant operand cannot be cut; a vector that is shorter is one channel that is broadcast.
    if len(labels) < 2 or len({len(vector) for vector in labels}) > 1:
        return None
    for other in labels[1:]:
        state.unite(labels[0], other)
    return labels[0]


def _zero_padding(state: Labels, call: Call, labels: list[np.ndarray]) -> np.ndarray:
    if call.layer.data_format != "channels_first":
        return labels[0]
    front, back = call.layer.padding[1]  # channels_first on our layout: the last axis is padded
    made = np.concatenate([state.fresh(front), labels[0], state.fresh(back)])
    state.use(call.layer.name, "padding", {}, made)
    return made


def _flatten(state: Labels, call: Call, labels: list[np.ndarray]) -> np.ndarray | None:
    if _mixes(call):
        return None
    return np.tile(labels[0], call.shapes[0][-1] // len(labels[0]))


def _pass(state: Labels, call: Call, labels: list[np.ndarray]) -> np.ndarray | None:
    return None if _mixes(call) else labels[0]


# A rule answers None where its layer is configured so that channels do not map one to one.
RULES: dict[str, Callable[[Labels, Call, list[np.ndarray]], np.ndarray | None]] = {
    "Conv2D": _conv,
    "MaskedConv2D": _conv,
    "Dense": _dense,
    "MaskedDense": _dense,
    "BatchNormalization": _batch_norm,
    "FusedBatchNorm": _batch_norm,
    "Add": _add,
    "ZeroPadding2D": _zero_padding,
    "Flatten": _flatten,
} | dict.fromkeys(PASS_THROUGH, _pass)


def label_channels(calls: list[Call], outputs: list[int]) -> Labels:
    """Runs the rules over a graph. Inputs, outputs and what no rule understands are locked, with reason."""
    state = Labels()
    for call in calls:
        labels = [state.of_tensor[t] for t in call.inputs]
        rule = RULES.get(call.kind)
        passed = rule(state, call, labels) if rule else None
        if passed is None:
            reason = "input of the model" if call.kind == "InputLayer" else f"{call.kind} is not understood"
            made = [state.fresh(shape[-1] or 1) for shape in call.shapes]
            for vector in [*labels, *made]:
                state.lock(vector, reason)
        else:
            made = [passed]
        state.of_tensor |= dict(zip(call.outputs, made, strict=True))
    for tensor in outputs:
        state.lock(state.of_tensor[tensor], "output of the model")
    return state
