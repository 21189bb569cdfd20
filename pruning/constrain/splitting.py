"""ADMM in a training loop: the sparse copies Z and the duals U as variables, and their pull on weights.

Needs `adjust`, `after_epoch` and `kept` of the loop; the arithmetic is in `pruning.constrain.admm`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import tensorflow as tf

from secateur.nets.kernels import Kernel, convolution_kernels
from secateur.op_utils import Adjust
from secateur.pruning.constrain.admm import update
from secateur.pruning.constrain.gradients import each
from secateur.runs.errors import UsageError
from secateur.runs.suggest import require

RHO = 1e-4  # NNI's, for each layer
FORMS = ("textbook", "nni")


@dataclass(frozen=True, eq=False)
class Splitting:
    """The kernels W of a network, with Z and U of the same shapes; make it inside `strategy.scope()`."""

    kernels: tuple[Kernel, ...]
    sparse: tuple[keras.Variable, ...]
    duals: tuple[keras.Variable, ...]

    @classmethod
    def of(cls, model: keras.Model) -> Splitting:
        """Z = W and U = 0 for every convolution."""
        kernels = tuple(convolution_kernels(model))
        sparse = tuple(keras.Variable(kernel.value, trainable=False) for kernel in kernels)
        duals = tuple(keras.Variable(tf.zeros(z.shape), trainable=False) for z in sparse)
        return cls(kernels, sparse, duals)

    @property
    def kept(self) -> list[keras.Variable]:
        """What a checkpoint has to hold beside the weights."""
        return [*self.sparse, *self.duals]


def admm(trained: keras.Model, splitting: Splitting, rho: float = RHO, form: str = "textbook") -> Adjust:
    """Pulls every kernel W towards Z − U.

    Args:
        trained: what the trainer moves.
        splitting: of that model, or of one inside of it.
        rho: ρ > 0.
        form: "textbook" is the gradient ρ·(W − Z + U) of (ρ/2)·‖W − Z + U‖²_F; "nni" that of NNI 2.10's
            (ρ/2)·√‖W − Z + U‖_F, whose pull grows as the distance falls, and is 0 at 0.

    Raises `UsageError` for another form, for ρ ≤ 0, and when no kernel is trained.
    """
    require(form, FORMS, "form")
    if not rho > 0:
        raise UsageError(f"ADMM needs a pull above 0. Received: rho={rho}")

    def change(i, gradient, weight, scale):
        distance = weight - splitting.sparse[i].value + splitting.duals[i].value
        return gradient + rho * scale * (distance if form == "textbook" else _root(distance))

    return each(trained, [kernel.variable for kernel in splitting.kernels], change)


def _root(distance: tf.Tensor) -> tf.Tensor:
    """Gradient of ½·√‖D‖_F by D: ¼·D·‖D‖^(−3/2)."""
    return 0.25 * tf.math.divide_no_nan(distance, tf.norm(distance) ** 1.5)


def updating(
    splitting: Splitting, sparsity: float, unit: str = "filters", every: int = 1
) -> Callable[[int], None]:
    """An `after_epoch` that renews Z and U from the weights every so many epochs, NNI's `training_epochs`.

    `sparsity` and `unit` are those of `pruning.constrain.admm.project`.
    """

    def after_epoch(done: int) -> None:
        if done % every == 0:
            for kernel, z, u in zip(splitting.kernels, splitting.sparse, splitting.duals, strict=True):
                sparse, dual = update(kernel.value, u.numpy(), sparsity, unit, kernel.filters)
                z.assign(sparse)
                u.assign(dual)

    return after_epoch
