"""How weights move: the rules of the optimizers, as pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from secateur.runs.registry import Registry

# Two families of momentum live in the published systems. Keras' velocity includes the learning rate, v ← μ·v
# − η·g, w ← w + v: after a change of η the steps behind it still count with the old rate. PyTorch's buffer
# excludes it, u ← μ·u + g, w ← w − η·u: they count with the new rate at once. At a constant rate both are the
# same (v = −η·u). EKG is Keras' (its programs are TensorFlow). KESI, PFEC, HAP, SFP and the others are
# PyTorch's, and only that reproduces a one-cycle schedule, whose rate changes in every step.

BETA_2 = 0.999
"""Part of the mean of squared gradients that Adam keeps (Kingma & Ba 2015; PyTorch's default)."""
EPSILON = 1e-8
"""Added to Adam's divisor after its bias is corrected, as in the paper and PyTorch (Keras: 1e-7, before)."""
Slots = tuple[tf.Tensor, ...]
Update = Callable[[Slots, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, Slots]]


@dataclass(frozen=True)
class Rule:
    """One optimizer.

    Attributes:
        update: (slots, gradient, rate, momentum, step) → (what to add to the weight, new slots). Slots and
            gradient have the weight's shape; the others are float32 scalars; `step` counts from 1.
        slots: names of what a weight carries from step to step; all begin at zero.
        counts: whether `update` depends on `step`, so that a checkpoint has to hold it.
    """

    update: Update
    slots: tuple[str, ...] = ("momentum",)
    counts: bool = False


def keras_momentum(slots: Slots, gradient, rate, momentum, step=None) -> tuple[tf.Tensor, Slots]:
    """v ← μ·v − η·g; adds v."""
    velocity = slots[0] * momentum - gradient * rate
    return velocity, (velocity,)


def keras_nesterov(slots: Slots, gradient, rate, momentum, step=None) -> tuple[tf.Tensor, Slots]:
    """v ← μ·v − η·g; adds μ·v − η·g: the gradient's step from where the momentum leads."""
    velocity = slots[0] * momentum - gradient * rate
    return velocity * momentum - gradient * rate, (velocity,)


def torch_momentum(slots: Slots, gradient, rate, momentum, step=None) -> tuple[tf.Tensor, Slots]:
    """u ← μ·u + g; adds −η·u (`torch.optim.SGD` without dampening)."""
    total = slots[0] * momentum + gradient
    return -rate * total, (total,)


def torch_nesterov(slots: Slots, gradient, rate, momentum, step=None) -> tuple[tf.Tensor, Slots]:
    """u ← μ·u + g; adds −η·(g + μ·u) (`torch.optim.SGD` with `nesterov`)."""
    total = slots[0] * momentum + gradient
    return -rate * (gradient + momentum * total), (total,)


def adam(slots: Slots, gradient, rate, momentum, step) -> tuple[tf.Tensor, Slots]:
    """Adam with β₁ = `momentum` of this step (Kingma & Ba 2015, algorithm 1).

    m ← β₁·m + (1 − β₁)·g, v ← β₂·v + (1 − β₂)·g²; adds −η·m̂ / (√v̂ + ε). Where β₁ changes, the bias of m is
    corrected by 1 − β₁ᵗ with the β₁ of step t alone, as `torch.optim.Adam` does under a one-cycle schedule.
    """
    mean = slots[0] * momentum + gradient * (1 - momentum)
    square = slots[1] * BETA_2 + tf.square(gradient) * (1 - BETA_2)
    # expm1: 1 − 0.999 has no more than four digits left in float32.
    first = -tf.math.expm1(step * tf.math.log(momentum))
    second = -tf.math.expm1(step * math.log(BETA_2))
    return -rate / first * mean / (tf.sqrt(square / second) + EPSILON), (mean, square)


RULES: Registry[Rule] = Registry(
    "optimizer",
    "optimizers",
    {
        "nesterov": Rule(keras_nesterov),
        "momentum": Rule(keras_momentum),
        "torch_nesterov": Rule(torch_nesterov),
        "torch_momentum": Rule(torch_momentum),
        "adam": Rule(adam, ("mean", "square"), counts=True),
    },
)
