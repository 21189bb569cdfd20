"""Penalties on whole channels: all weights that make a channel, scale it and read it shrink together.

The penalty is ½ Σ_groups Σ_k λ_k ‖w_k‖², w_k all weights of channel k but biases and shifts, so that λ_k·w is
added to their gradients. Group-norm sparse learning takes λ_k from the norms as they are now
(`group_sparse`), growing regularisation lets it grow from epoch to epoch (`Growing`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from secateur.nets.kernels import named_variables
from secateur.op_utils import Adjust
from secateur.pruning.groups.analysis import analyse
from secateur.runs.errors import UsageError

ALPHA = 4.0  # DepGraph's
BESIDE = ("bias", "beta")  # what no penalty presses
Strengths = Callable[[int, tf.Tensor], tf.Tensor]  # number of a group, its ‖w_k‖² (size,) → λ (size,)


@dataclass(frozen=True, eq=False)
class Part:
    """A weight that channels of a group lie in: along `axis`, and which one at each position (−1: none)."""

    variable: keras.Variable
    axis: int
    channels: np.ndarray

    def energies(self, value: tf.Tensor, size: int) -> tf.Tensor:
        """Σ w² of each of `size` channels."""
        across = [axis for axis in range(len(value.shape)) if axis != self.axis]
        rows = tf.reduce_sum(tf.square(tf.cast(value, tf.float32)), across)
        return tf.math.unsorted_segment_sum(rows, self.channels, size)  # leaves out what is below 0

    def along(self, values: tf.Tensor) -> tf.Tensor:
        """Values of channels (size,) in a shape that multiplies the weight."""
        shape = [-1 if axis == self.axis else 1 for axis in range(len(self.variable.shape))]
        none = tf.zeros([1], values.dtype)
        places = np.where(self.channels < 0, values.shape[0], self.channels)
        return tf.reshape(tf.gather(tf.concat([values, none], 0), places), shape)


@dataclass(frozen=True, eq=False)
class Whole:
    """The channels of a group, everywhere."""

    size: int
    parts: tuple[Part, ...]

    def energies(self, values: Sequence[tf.Tensor]) -> tf.Tensor:
        """‖w_k‖² of each channel, float32 (size,), from one value for each part."""
        return sum(part.energies(value, self.size) for part, value in zip(self.parts, values, strict=True))


def whole_channels(model: keras.Model) -> list[Whole]:
    """Of every group of a functional model, in the order of its groups."""
    analysis = analyse(model)
    analysis.graph.check_in_place()
    layers = analysis.graph.layers
    return [
        Whole(
            group.size,
            tuple(
                Part(variable, member.axes[name], member.index)
                for member in group.members
                for name, variable in named_variables(layers[member.layer]).items()
                if name in member.axes and name not in BESIDE and variable.trainable
            ),
        )
        for group in analysis.groups
    ]


def shrink(trained: keras.Model, groups: Sequence[Whole], strengths: Strengths) -> Adjust:
    """Adds λ_k·w to the gradients of all weights of channel k.

    `trained` is what the trainer moves. A weight of two groups, which it makes and reads, shrinks for both.
    Raises `UsageError` where no weight of any group is trained.
    """
    place = {id(variable): i for i, variable in enumerate(trained.trainable_variables)}
    moved = [
        Whole(group.size, tuple(part for part in group.parts if id(part.variable) in place))
        for group in groups
    ]
    if not any(group.parts for group in moved):
        raise UsageError(f"Model {trained.name!r} trains no channels. Received: {len(groups)} groups")

    def adjust(gradients, parameters, scale):
        gradients = list(gradients)
        for number, group in enumerate(moved):
            places = [place[id(part.variable)] for part in group.parts]
            if not places:
                continue
            found = scale * strengths(number, group.energies([parameters[i] for i in places]))
            for i, part in zip(places, group.parts, strict=True):
                gradients[i] += tf.cast(part.along(found), parameters[i].dtype) * parameters[i]
        return gradients

    return adjust


def smallness(energies: tf.Tensor) -> tf.Tensor:
    """(max − I) / (max − min): 0 for the largest channel, 1 for the smallest; zeros where all are equal."""
    largest, smallest = tf.reduce_max(energies), tf.reduce_min(energies)
    return tf.math.divide_no_nan(largest - energies, largest - smallest)


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
    return shrink(
        trained or model,
        whole_channels(model),
        lambda _, energies: strength * 2 ** (alpha * smallness(energies)),
    )


@dataclass(frozen=True, eq=False)
class Growing:
    """λ of every channel, which grows from epoch to epoch; make it inside `strategy.scope()`.

    Attributes:
        groups: channels of the network.
        strengths: λ of each group, float32 (size,). A checkpoint has to hold them beside the weights.
        chosen: which channels of each group are pressed; empty: all, each as much as it is small.
    """

    groups: tuple[Whole, ...]
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
        groups = tuple(whole_channels(model))
        chosen = () if sparsity is None else tuple(_smallest(energies_of(g), sparsity) for g in groups)
        first = chosen or [np.ones(group.size) for group in groups]
        strengths = [
            keras.Variable(np.float32(start) * pressed, trainable=False, dtype="float32") for pressed in first
        ]
        return cls(groups, tuple(strengths), chosen)

    def adjust(self, trained: keras.Model) -> Adjust:
        """Adds λ_k·w to gradients, see `shrink`."""
        return shrink(trained, self.groups, lambda number, _: self.strengths[number].value)

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
                pressed = self.chosen[i] if self.chosen else smallness(energies_of(group)).numpy()
                grown = strength.numpy() + growth * pressed
                strength.assign(np.minimum(grown, np.maximum(ceiling, strength.numpy())))

        return after_epoch


def energies_of(group: Whole) -> tf.Tensor:
    """‖w_k‖² as the weights are now."""
    return group.energies([tf.convert_to_tensor(part.variable.value) for part in group.parts])


def _smallest(energies: tf.Tensor, sparsity: float) -> np.ndarray:
    found = np.zeros(len(energies), np.float32)
    found[np.argsort(energies.numpy(), kind="stable")[: int(sparsity * len(energies))]] = 1
    return found


def _check(**numbers: float) -> None:
    """Raises `UsageError` for a number below 0."""
    for name, value in numbers.items():
        if not value >= 0:
            raise UsageError(f"A penalty is at least 0. Received: {name}={value}")
