"""Statistics of BatchNorm: over replicas, and estimated again."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from secateur.compute.evaluation import batch_spec, tensors
from secateur.compute.workers import Workers


@contextlib.contextmanager
def synchronising(model: keras.Model) -> Iterator[None]:
    """BatchNorm of `model`, ours and Keras', takes its statistics over all replicas within."""
    layers = [layer for layer in model._flatten_layers() if hasattr(layer, "synchronized")]
    before = [layer.synchronized for layer in layers]
    for layer in layers:
        layer.synchronized = True
    try:
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.synchronized = was


def reestimate_batch_norm(
    model: keras.Model, preprocess: Callable, images: np.ndarray, batch_size: int = 256
) -> bool:
    """Replaces the moving averages of BN by the mean over the batches of `images`, in place.

    Returns whether there were any that move. In the scope of a strategy the devices of this process take the
    batches in turn.

    Slicing channels leaves averages behind that belong to the wide net; one forward pass estimates them
    again. Layers whose averages do not move (frozen, or with momentum 1) keep them. A remainder of a batch is
    left out.

    Args:
        model: built; its own `momentum`s may be anything.
        preprocess: a batch of `images` → what the model reads.
        images: (n, …), n > 0.
        batch_size: images whose statistics are taken together.
    """
    return make_reestimator(model, preprocess)(images, batch_size)


def make_reestimator(model: keras.Model, preprocess: Callable) -> Callable[[np.ndarray, int], bool]:
    """Makes `f(images, batch size)`, which does `reestimate_batch_norm` to the weights that there are then.

    For one network with many weights after the other: it is compiled once.
    """
    layers = [layer for layer in model._flatten_layers() if hasattr(layer, "moving_mean")]
    moving = [(getattr(n, name), n.momentum) for n in layers for name in ("moving_mean", "moving_variance")]
    index = {id(v): i for i, v in enumerate(model.non_trainable_variables)}
    calls: list[int] = []  # updates of each average in a pass, whatever the weights

    @tf.function(autograph=False)
    def averages(batch, start, still):
        stats = list(model.non_trainable_variables)
        for i, (variable, _) in enumerate(moving):
            begun = tf.fill(variable.shape, start)
            stats[index[id(variable)]] = tf.where(still[i], tf.convert_to_tensor(variable), begun)
        _, new = model.stateless_call(model.trainable_variables, stats, preprocess(batch), training=True)
        return [new[index[id(variable)]] for variable, _ in moving]

    def reestimate(images: np.ndarray, batch_size: int) -> bool:
        if not moving:
            return False
        count = max(1, len(images) // batch_size)
        size = min(len(images), count * batch_size)
        edges = np.cumsum([0, *(len(part) for part in np.array_split(range(size), count))])
        parts = [slice(a, b) for a, b in itertools.pairwise(edges)]
        first = tensors(images[parts[0]])
        spec = keras.tree.map_structure(batch_spec, first)  # one trace for batches of all sizes
        numbers = tf.TensorSpec((), tf.float32), tf.TensorSpec((len(moving),), tf.bool)
        strategy = tf.distribute.get_strategy()

        def traced(*arguments):
            return averages.get_concrete_function(spec, *numbers)(*arguments)

        zero, one = tf.constant(0.0), tf.constant(1.0)
        if not calls:
            # Averages that come back as they were put in are frozen. What the others leave of their start is
            # seen only with those in place: a frozen layer at 0 or 1 changes all that is behind it.
            ends = (traced(first, start, tf.zeros(len(moving), tf.bool)) for start in (zero, one))
            stays = tf.constant([not np.any(a) and np.all(b == 1) for a, b in zip(*ends, strict=True)])
            ends = zip(traced(first, zero, stays), traced(first, one, stays), stays, moving, strict=True)
            for a, b, stay, (_, momentum) in ends:
                calls.append(0 if stay else _updates(np.median(b - a), momentum))
        still = tf.constant([n == 0 for n in calls])

        def of_part(part: slice) -> list[np.ndarray]:
            with strategy.scope():  # reads the copies of the weights that the device has
                return [found.numpy() for found in traced(tensors(images[part]), zero, still)]

        total = [np.zeros(v.shape) for v, _ in moving]
        for averaged in Workers(strategy).spread(of_part, parts):
            for i, found in enumerate(averaged):
                total[i] += found
        for value, n, (variable, momentum) in zip(total, calls, moving, strict=True):
            if n:  # n updates of averages that began at zero leave (1 − momentumⁿ) · statistic
                variable.assign((value / (1 - momentum**n) / count).astype("float32"))
        return any(calls)

    return reestimate


def _updates(left: float, momentum: float) -> int:
    """How often averages were updated, from what is left of their start: momentumⁿ."""
    if momentum <= 0:
        return 1
    return round(np.log(left) / np.log(momentum)) if momentum < 1 and left > 0 else 0
