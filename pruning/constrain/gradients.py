"""What pruning does to gradients inside a step: hold what is zero, press scales towards zero.

Each function makes an `op_utils.Adjust`, a pure function of tensors, for a model as it is now: which weights
are trainable must not change afterwards. `trained` is the model that the trainer moves, where that is more
than `model`, such as a `distillation.Lesson` around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from secateur.nets.kernels import convolution_kernels
from secateur.op_utils import Adjust
from secateur.runs.errors import UsageError

Change = Callable[[int, tf.Tensor, tf.Tensor, float], tf.Tensor]


def each(trained: keras.Model, variables: Sequence[keras.Variable], change: Change) -> Adjust:
    """Changes the gradients of some weights and leaves the others alone.

    Args:
        trained: what the trainer moves.
        variables: some of its weights; what is not trainable is passed over.
        change: (place in `variables`, gradient, weight, scale of the loss) → gradient.

    Raises `UsageError` when none of them is trained.
    """
    place = {id(variable): i for i, variable in enumerate(variables)}
    order = [place.get(id(variable)) for variable in trained.trainable_variables]
    if not any(i is not None for i in order):
        raise UsageError(f"Model {trained.name!r} trains no such weights. Received: {len(variables)} of them")

    def adjust(gradients, parameters, scale):
        rows = zip(order, gradients, parameters, strict=True)
        return [g if i is None else change(i, g, p, scale) for i, g, p in rows]

    return adjust


def in_turn(*adjusts: Adjust) -> Adjust:
    """One after the other: what holds weights comes last, behind what would move them."""

    def adjust(gradients, parameters, scale):
        for one in adjusts:
            gradients = one(gradients, parameters, scale)
        return gradients

    return adjust


def hold_zeros(model: keras.Model, trained: keras.Model | None = None) -> Adjust:
    """Convolution weights that are exactly 0 get no gradient, and so no decay (KESI's weight track).

    They stay 0 under every optimizer that has no momentum for them, such as a new one.
    """

    def change(i, gradient, weight, scale):
        return tf.where(weight == 0, tf.zeros_like(gradient), gradient)

    return each(trained or model, [k.variable for k in convolution_kernels(model)], change)


def hold_filters(model: keras.Model, trained: keras.Model | None = None) -> Adjust:
    """Filters of which all weights are exactly 0 get no gradient, and so no decay (FPGM, HAP's hard modes).

    They stay 0 as those of `hold_zeros` do; single zeros in other filters move. Biases, and scale and shift
    of the BN behind, go on learning, as in HAP, where a held channel may become a constant.
    """
    kernels = convolution_kernels(model)

    def change(i, gradient, weight, scale):
        dead = tf.reduce_all(weight == 0, kernels[i].inside, keepdims=True)
        return tf.where(dead, tf.zeros_like(gradient), gradient)

    return each(trained or model, [k.variable for k in kernels], change)


def slimming(model: keras.Model, strength: float, trained: keras.Model | None = None) -> Adjust:
    """Adds s·sign(γ) to the gradients of BN's scales: the penalty s·Σ|γ| (Liu et al. 2017, equation 1).

    `strength` ≥ 0 is 1e-4 for VGG-19, 1e-5 for ResNet-164 and DenseNet-40; NNI's Slim has 1e-4. Raises
    `UsageError` for a negative one and for a model without trainable scales.
    """
    if not strength >= 0:
        raise UsageError(f"A penalty is at least 0. Received: strength={strength}")
    layers = [layer for layer in model._flatten_layers() if hasattr(layer, "moving_mean")]
    scales = [layer.gamma for layer in layers if getattr(layer, "gamma", None) is not None]

    def change(i, gradient, weight, scale):
        return gradient + strength * scale * tf.sign(weight)

    return each(trained or model, scales, change)
