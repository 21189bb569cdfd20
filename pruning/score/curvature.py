"""Second derivatives as criteria ask for them: squared gradients image by image, and the Hessian's diagonal.

A scalar is a function of two nested structures of tensors; it is compiled once for all calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

Scalar = Callable[[Any, Any], tf.Tensor]
Row = tuple[Any, Any]  # arguments of a scalar


def signs(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """1 and −1 at random, float32."""
    return rng.choice(np.array([-1, 1], np.float32), tuple(shape))


def squared_gradients(scalar: Scalar, weights: Sequence[Any], rows: Iterable[Row]) -> list[np.ndarray]:
    """Mean over rows of (∂ scalar / ∂ weight)², one array for each weight, in its shape."""

    @tf.function(autograph=False)
    def added(sums: list[tf.Tensor], *row: Any) -> list[tf.Tensor]:
        slopes = _gradients(scalar, weights, *row)
        return [total + tf.square(slope) for total, slope in zip(sums, slopes, strict=True)]

    sums, count = [tf.zeros_like(weight) for weight in weights], 0
    for row in rows:
        sums, count = added(sums, *row), count + 1
    return [total.numpy() / np.float32(count) for total in sums]


def hessian_diagonal(
    loss: Scalar,
    weights: Sequence[Any],
    blocks: Iterable[Iterable[tuple[int, Row]]],
    draw: Callable[[Sequence[int]], np.ndarray],
    probes: int,
) -> list[np.ndarray]:
    """Diagonal of the Hessian of a mean loss by Hutchinson's estimate, in the shapes of the weights.

    E[z ⊙ Hz] = diag(H) for z of ±1 at random (Bekas et al. 2007); Hz is the gradient of zᵀ∇L. It is exact
    where H is diagonal. An estimate may be negative where the diagonal is not.

    Args:
        loss: mean over the images of its arguments.
        weights: all that z has entries for.
        blocks: chunks of images that share their z: number of images, and arguments of the loss.
        draw: shape → ±1 at random.
        probes: vectors z for each block.
    """

    def product(images: Any, labels: Any, z: list[tf.Tensor]) -> list[tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            gradients = _gradients(loss, weights, images, labels)
            along = sum(tf.reduce_sum(g * v) for g, v in zip(gradients, z, strict=True))
        return _dense(tape.gradient(along, weights, unconnected_gradients="zero"))

    compiled = tf.function(product, autograph=False, reduce_retracing=True)
    sums, count = [0.0] * len(weights), 0
    for block in blocks:
        drawn = [[tf.constant(draw(w.shape), w.dtype) for w in weights] for _ in range(probes)]
        for size, row in block:
            count += size
            for z in drawn:
                for i, (v, hv) in enumerate(zip(z, compiled(*row, z), strict=True)):
                    sums[i] = sums[i] + size * (v * hv).numpy()
    return [total / np.float32(count * probes) for total in sums]


def _gradients(scalar: Scalar, weights: Sequence[Any], *row: Any) -> list[tf.Tensor]:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(weights)
        value = scalar(*row)
    return _dense(tape.gradient(value, weights, unconnected_gradients="zero"))


def _dense(gradients: Sequence[Any]) -> list[tf.Tensor]:
    """An embedding's comes as slices."""
    return [tf.convert_to_tensor(gradient) for gradient in gradients]
