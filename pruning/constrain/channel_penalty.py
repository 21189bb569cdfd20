"""Penalties on whole channels: all weights that make a channel, scale it and read it shrink together.

The penalty is ½ Σ_groups Σ_k λ_k ‖w_k‖², w_k all weights of channel k but biases and shifts, so that λ_k·w is
added to their gradients. Group-norm sparse learning takes λ_k from the norms as they are now
(`group_sparse`), growing regularisation lets it grow from epoch to epoch (`Growing`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur.nets.kernels import named_variables
from secateur.op_utils import Adjust
from secateur.pruning.groups.analysis import analyse
from secateur.runs.errors import UsageError

ALPHA = 4.0  # DepGraph's
UNPENALISED = ("bias", "beta")  # what no penalty presses
Strengths = Callable[[int, tf.Tensor], tf.Tensor]  # number of a group, its ‖w_k‖² (size,) → λ (size,)


@dataclass(frozen=True, eq=False)
class ChannelWeight:
    """A weight that channels of a group lie in: along `axis`, and which one at each position (−1: none)."""

    variable: keras.Variable
    axis: int
    channels: np.ndarray

    def squared_norms(self, value: tf.Tensor, size: int) -> tf.Tensor:
        """Σ w² of each of `size` channels."""
        across = [axis for axis in range(len(value.shape)) if axis != self.axis]
        rows = tf.reduce_sum(tf.square(tf.cast(value, tf.float32)), across)
        return tf.math.unsorted_segment_sum(rows, self.channels, size)  # leaves out what is below 0

    def along(self, values: tf.Tensor) -> tf.Tensor:
        """Values of channels (size,) in a shape that multiplies the weight."""
        shape = [-1 if axis == self.axis else 1 for axis in range(len(self.variable.shape))]
        none = tf.zeros([1], values.dtype)
        positions = np.where(self.channels < 0, values.shape[0], self.channels)
        return tf.reshape(tf.gather(tf.concat([values, none], 0), positions), shape)


@dataclass(frozen=True, eq=False)
class GroupWeights:
    """The channels of a group, everywhere."""

    size: int
    parts: tuple[ChannelWeight, ...]

    def squared_norms(self, values: Sequence[tf.Tensor]) -> tf.Tensor:
        """‖w_k‖² of each channel, float32 (size,), from one value for each part."""
        return sum(
            part.squared_norms(value, self.size) for part, value in zip(self.parts, values, strict=True)
        )


def group_weights(model: keras.Model) -> list[GroupWeights]:
    """Of every group of a functional model, in the order of its groups."""
    analysis = analyse(model)
    analysis.graph.check_in_place()
    layers = analysis.graph.layers
    return [
        GroupWeights(
            group.size,
            tuple(
                ChannelWeight(variable, member.axes[name], member.index)
                for member in group.members
                for name, variable in named_variables(layers[member.layer]).items()
                if name in member.axes and name.partition("#")[0] not in UNPENALISED and variable.trainable
            ),
        )
        for group in analysis.groups
    ]


def penalise(trained: keras.Model, groups: Sequence[GroupWeights], strengths: Strengths) -> Adjust:
    """Adds λ_k·w to the gradients of all weights of channel k.

    `trained` is what the trainer moves. A weight of two groups, which it makes and reads, shrinks for both.
    Raises `UsageError` where no weight of any group is trained.
    """
    place = {id(variable): i for i, variable in enumerate(trained.trainable_variables)}
    moved = [
        GroupWeights(group.size, tuple(part for part in group.parts if id(part.variable) in place))
        for group in groups
    ]
    if not any(group.parts for group in moved):
        raise UsageError(f"Model {trained.name!r} trains no channels. Received: {len(groups)} groups")

    def adjust(
        gradients: Sequence[tf.Tensor], parameters: Sequence[tf.Tensor], scale: Any
    ) -> list[tf.Tensor]:
        gradients = list(gradients)
        for number, group in enumerate(moved):
            indices = [place[id(part.variable)] for part in group.parts]
            if not indices:
                continue
            found = scale * strengths(number, group.squared_norms([parameters[i] for i in indices]))
            for i, part in zip(indices, group.parts, strict=True):
                gradients[i] += tf.cast(part.along(found), parameters[i].dtype) * parameters[i]
        return gradients

    return adjust


def smallness(squared_norms: tf.Tensor) -> tf.Tensor:
    """(max − I) / (max − min): 0 for the largest channel, 1 for the smallest; zeros where all are equal."""
    largest, smallest = tf.reduce_max(squared_norms), tf.reduce_min(squared_norms)
    return tf.math.divide_no_nan(largest - squared_norms, largest - smallest)


def group_sparse(
    model: keras.Model, strength: float, alpha: float = ALPHA, trained: keras.Model | None = None
) -> Adjust:
    """Group-norm sparse learning: λ_k = s · 2^(α · smallness of ‖w_k‖²) (Fang et al. 2023, DepGraph).

    The smallest channel of a group is pressed 2^α times as hard as the largest one. λ is that of the weights
    as they are and has no gradient of its own. Torch-Pruning takes ‖w_k‖ for ‖w_k‖².

    Args:
        model: functional model.
        strength: s ≥ 0; Torch-Pruning's ResNet-56 has 1e-4 and 5e-4.
        alpha: α ≥ 0.
        trained: what the trainer moves, where that is more than `model`.

    Raises `UsageError` for numbers out of range and for a model without trained channels.
    """
    _check(strength=strength, alpha=alpha)
    return penalise(
        trained or model,
        group_weights(model),
        lambda _, squared_norms: strength * 2 ** (alpha * smallness(squared_norms)),
    )


@dataclass(frozen=True, eq=False)
class Growing:
    """λ of every channel, which grows from epoch to epoch; make it inside `strategy.scope()`.

    Attributes:
        groups: channels of the network.
        strengths: λ of each group, float32 (size,). A checkpoint has to hold them beside the weights.
        chosen: which channels of each group are pressed; empty: all, each as much as it is small.
    """

    groups: tuple[GroupWeights, ...]
    strengths: tuple[keras.Variable, ...]
    chosen: tuple[np.ndarray, ...] = ()

    @classmethod
    def of(cls, model: keras.Model, start: float = 0.0, sparsity: float | None = None) -> Growing:
        """λ = `start` ≥ 0 for all channels that are pressed.

        With a `sparsity`, a ratio in (0, 1), these are the ⌊sparsity · n⌋ of the smallest ‖w_k‖² of each
        group, chosen here and now (GReg-1; there by the L1 norm of filters). Without one they are all, as in
        Torch-Pruning. Raises `UsageError` for numbers out of range.
        """
        _check(strength=start)
        if sparsity is not None and not 0 < sparsity < 1:
            raise UsageError(f"A sparsity lies between 0 and 1. Received: sparsity={sparsity}")
        groups = tuple(group_weights(model))
        chosen = () if sparsity is None else tuple(_smallest(squared_norms_of(g), sparsity) for g in groups)
        first = chosen or [np.ones(group.size) for group in groups]
        strengths = [
            keras.Variable(np.float32(start) * pressed, trainable=False, dtype="float32") for pressed in first
        ]
        return cls(groups, tuple(strengths), chosen)

    def adjust(self, trained: keras.Model) -> Adjust:
        """Adds λ_k·w to gradients, see `penalise`."""
        return penalise(trained, self.groups, lambda number, _: self.strengths[number].value)

    def grow(self, growth: float, ceiling: float = 1.0) -> Callable[[int], None]:
        """An `after_epoch`: λ_k ← min(λ_k + δ·u_k, τ) (Wang et al. 2021, Neural Pruning via Growing
        Regularization, arXiv 2012.09243).

        u_k is 1 for a channel that was chosen and 0 for any other; where all are pressed, its smallness among
        its group (Torch-Pruning). The paper adds δ = 1e-4 every few steps, and has τ = 1.

        Args:
            growth: δ ≥ 0 of an epoch.
            ceiling: τ ≥ 0.
        """
        _check(growth=growth, ceiling=ceiling)

        def after_epoch(done: int) -> None:
            for i, (group, strength) in enumerate(zip(self.groups, self.strengths, strict=True)):
                pressed = self.chosen[i] if self.chosen else smallness(squared_norms_of(group)).numpy()
                grown = strength.numpy() + growth * pressed
                strength.assign(np.minimum(grown, np.maximum(ceiling, strength.numpy())))

        return after_epoch


def squared_norms_of(group: GroupWeights) -> tf.Tensor:
    """‖w_k‖² as the weights are now."""
    return group.squared_norms([tf.convert_to_tensor(part.variable.value) for part in group.parts])


def _smallest(squared_norms: tf.Tensor, sparsity: float) -> np.ndarray:
    found = np.zeros(len(squared_norms), np.float32)
    found[np.argsort(squared_norms.numpy(), kind="stable")[: int(sparsity * len(squared_norms))]] = 1
    return found


def _check(**numbers: float) -> None:
    """Raises `UsageError` for a number below 0."""
    for name, value in numbers.items():
        if not value >= 0:
            raise UsageError(f"A penalty is at least 0. Received: {name}={value}")
