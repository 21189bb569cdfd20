"""Training with shared weights: what happens to gradients inside of a step, so that equals stay equal."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from secateur.coding.sharing.share import ZERO, Shared, SharedKernel
from secateur.op_utils import Adjust, Tensors
from secateur.runs.errors import UsageError


def tie(trained: keras.Model, shared: Shared, weight_decay: float = 0.0) -> Adjust:
    """Every member of a cluster gets the sum of its members' gradients, a zero gets 0 (Han et al. 2016).

    That sum is the gradient by the centroid. Members are given one and the same number, so that equal weights
    with equal momenta stay equal bit for bit under any rule of `op_utils`.

    Args:
        trained: what the trainer moves: the model, or a lesson around it.
        shared: its kernels, with the shared values in place; those that are not trained are passed over.
        weight_decay: the trainer's. HAP's program adds decay behind the sums, once for a weight, and not as
            often as a cluster has members; our step has it in the gradients already, from where it is taken.

    Other weights move as ever. A sum over thousands of members is large: HAP trains at 1e-3, without a
    schedule. Raises `UsageError` when none of the kernels is trained.
    """
    own = {id(kernel.variable): kernel for kernel in shared.kernels}
    changes = [own.get(id(variable)) for variable in trained.trainable_variables]
    changes = [kernel and _Members(kernel, weight_decay) for kernel in changes]
    if not any(changes):
        raise UsageError(f"Model {trained.name!r} trains no such weights. Received: {len(own)} kernels")

    def adjust(gradients: Tensors, parameters: Tensors, scale: float) -> Tensors:
        rows = zip(changes, gradients, parameters, strict=True)
        return [change(g, p, scale) if change else g for change, g, p in rows]

    return adjust


class _Members:
    """The clusters of one kernel, as constants of a compiled step."""

    def __init__(self, kernel: SharedKernel, weight_decay: float) -> None:
        self.weight_decay = weight_decay
        self.clusters = kernel.labels - ZERO  # zeros are cluster 0
        found, firsts = np.unique(self.clusters, return_index=True)
        self.firsts = firsts[found > 0]
        self.count = 1 + len(self.firsts)

    def __call__(self, gradient: tf.Tensor, weight: tf.Tensor, scale: float) -> tf.Tensor:
        decay = self.weight_decay * scale
        sums = tf.math.unsorted_segment_sum(gradient - decay * weight, self.clusters, self.count)[1:]
        # By cluster and not by weight: rounding may differ between the lanes of a vectorised loop.
        sums += decay * tf.gather(tf.reshape(weight, [-1]), self.firsts)
        return tf.gather(tf.concat([tf.zeros(1, gradient.dtype), sums], 0), self.clusters)
