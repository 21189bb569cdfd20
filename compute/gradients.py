"""The half of a train step that XLA compiles: pure functions of parameters, statistics, batch and seed.

`pure_step` is the whole step, update included, without variables. Training does not use it: the benchmarks
export it to other runtimes, and the tests hold `Trainer` against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from secateur.compute.precision import as_float32
from secateur.compute.rules import keras_nesterov
from secateur.dataloader.augment import seed_of_part

Tensors = list[tf.Tensor]
Batch = Mapping[str, tf.Tensor]
Preprocess = Callable[[Batch, tf.Tensor], Any]  # batch, seed → what the model reads
Objective = Callable[[Any, Batch], tuple[tf.Tensor, ...]]  # outputs, batch → mean loss, accuracy, *terms
Gradients = Callable[..., tuple[Tensors, Tensors, tf.Tensor]]  # see `pure_gradients`
Adjust = Callable[[Tensors, Tensors, float], Tensors]  # gradients, parameters, loss scale → gradients


def pure_gradients(
    model: keras.Model,
    preprocess: Preprocess,
    objective: Objective,
    weight_decay: float = 0.0,
    accum: int = 1,
    loss_scale: float = 1.0,
    adjust: Adjust | None = None,
    terms: int = 0,
) -> Gradients:
    """Makes `f(parameters, statistics, batch, seed) -> (gradients, new statistics, metrics)`.

    Metrics are [loss, accuracy, *terms], float32 (2 + terms,). A fifth argument is a factor on the loss that
    gradients are divided by again: those of few bits would be rounded to zero without (see `LossScale`).

    Args:
        model: built; with logits as output, or whatever `objective` understands.
        preprocess: normalisation and augmentation; what else of the batch the model reads.
        objective: mean loss and accuracy of a batch; behind them other means to report, scalars. Penalties
            that layers of the model bring are added to the loss.
        weight_decay: coupled L2 on all trainable weights, as the published systems have it.
        accum: micro-batches that a batch is cut into; gradients and BN statistics are their means.
        loss_scale: factor on the loss before differentiation: 1 / replicas, since the optimizer sums.
        adjust: (gradients, parameters, `loss_scale`) → gradients, after decay and once a step, however many
            micro-batches it has. It multiplies what it adds by `loss_scale`, as decay is.
        terms: how many numbers `objective` returns behind loss and accuracy.
    """

    def once(params, stats, batch, seed, up):
        inputs = preprocess(batch, seed)
        with tf.GradientTape() as tape:
            tape.watch(params)
            outputs, new_stats, extra = model.stateless_call(
                params, stats, inputs, training=True, return_losses=True
            )
            loss, *others = objective(as_float32(outputs), batch)
            loss = tf.add_n([loss, *as_float32(extra)]) if extra else loss
            scaled = loss * loss_scale if up is None else loss * loss_scale * up
        grads = tape.gradient(scaled, params, unconnected_gradients="zero")
        grads = grads if up is None else [g / up for g in grads]
        return grads, new_stats, tf.stack([loss, *others])

    whole = once if accum == 1 else _accumulated(once, accum, 2 + terms)

    def gradients(params, stats, batch, seed, up=None):
        params, stats = list(params), list(stats)
        grads, new_stats, metrics = whole(params, stats, batch, seed, up)
        decay = weight_decay * loss_scale
        grads = [g + decay * p for g, p in zip(grads, params, strict=True)]
        return adjust(grads, params, loss_scale) if adjust else grads, new_stats, metrics

    return gradients


def _accumulated(once: Gradients, accum: int, metrics: int) -> Gradients:
    """The means over micro-batches of what `once` makes of each."""

    def accumulated(params, stats, batch, seed, up):
        def cut(v):
            return tf.reshape(v, [accum, v.shape[0] // accum, *v.shape[1:]])

        parts = keras.tree.map_structure(cut, dict(batch))
        size = keras.tree.flatten(parts)[0].shape[1]

        def body(i, grads, new_stats, total):
            # Every micro-batch starts from the same moving averages; their mean is one update by the batch.
            part = keras.tree.map_structure(lambda v: v[i], parts)
            g, s, m = once(params, stats, part, seed_of_part(seed, i * size), up)
            s = [a + b if b.dtype.is_floating else b for a, b in zip(new_stats, s, strict=True)]
            return i + 1, [a + b for a, b in zip(grads, g, strict=True)], s, total + m

        zeros = [tf.zeros_like(p) for p in params], [tf.zeros_like(s) for s in stats], tf.zeros(metrics)
        _, grads, sums, total = tf.while_loop(lambda i, *_: i < accum, body, (0, *zeros))
        mean = [s / accum if s.dtype.is_floating else s for s in sums]
        return [g / accum for g in grads], mean, total / accum

    return accumulated


def not_finite_seen(gradients: Gradients) -> Gradients:
    """The same, with metrics that are all NaN where the loss, a gradient or a statistic is not finite."""

    def checked(params, stats, batch, seed, up=None):
        grads, new_stats, metrics = gradients(params, stats, batch, seed, up)
        numbers = [metrics[0], *grads, *(s for s in new_stats if s.dtype.is_floating)]
        sound = tf.reduce_all([tf.reduce_all(tf.math.is_finite(x)) for x in numbers])
        return grads, new_stats, tf.where(sound, metrics, math.nan)

    return checked


def nesterov_update(
    params: Tensors,
    momenta: Tensors,
    grads: Tensors,
    learning_rate: float | tf.Tensor,
    momentum: float | tf.Tensor = 0.9,
) -> tuple[Tensors, Tensors]:
    """SGD with Nesterov momentum as Keras has it (velocity includes the rate), as a pure function."""
    changes = [keras_nesterov((m,), g, learning_rate, momentum) for m, g in zip(momenta, grads, strict=True)]
    moved = [p + change for p, (change, _) in zip(params, changes, strict=True)]
    return moved, [velocity for _, (velocity,) in changes]


def pure_step(gradients: Gradients, momentum: float | tf.Tensor = 0.9) -> Callable:
    """Makes `f(params, momenta, stats, batch, seed, rate) -> (params, momenta, stats, metrics)`.

    `gradients` comes from `pure_gradients`; the update is Nesterov's.
    """

    def step(params, momenta, stats, batch, seed, learning_rate):
        grads, new_stats, metrics = gradients(params, stats, batch, seed)
        params, momenta = nesterov_update(params, momenta, grads, learning_rate, momentum)
        return params, momenta, new_stats, metrics

    return step
