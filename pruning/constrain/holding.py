"""Removed channels held at zero while any loop trains: for layers that have no masks of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from secateur.nets.kernels import named_variables
from secateur.pruning.constrain.soft import nonzero
from secateur.pruning.groups.analysis import Analysis, analyse
from secateur.pruning.groups.group import ChannelGroup
from secateur.pruning.plan import Plan
from secateur.pruning.shrink.weights import kept_positions, zero
from secateur.runs.errors import UsageError

Place = tuple[keras.Variable, dict[int, np.ndarray]]  # a weight: axis → which of its positions stay


class Holder:
    """Sets every weight that belongs to a removed channel to zero, as `mask` does.

    That is what makes the channel, what follows it (BN's scale, shift and averages) and what reads it: the
    network computes what `compact(model, plan)` does, whatever the optimizer has done to these weights.

    Args:
        model: functional model, of stock layers or masked ones; its weights are changed in place.
        plan: what stays; None: all channels that are not zero as the model is now, see `left_of`.

    Raises `UsageError` for a plan of another network, and for one that removes channels of Keras' own
    LayerNormalization and its like: zeros count there.
    """

    def __init__(self, model: keras.Model, plan: Plan | None = None) -> None:
        self.analysis = analyse(model)
        self._moved: list[keras.Variable] = []
        self.hold_to(left_of(self.analysis) if plan is None else plan)

    def hold_to(self, plan: Plan) -> None:
        """Takes another plan of the same network, and sets what it removes to zero."""
        self.plan = plan = plan.check(self.analysis.groups)
        places = [place for place in _places(self.analysis, plan) if place[0].trainable]
        moved = [variable for variable, _ in places]
        if list(map(id, moved)) != list(map(id, self._moved)):
            self._moved = moved
            self._run = tf.function(self._set_to_zero, autograph=False)  # one trace for all plans of these
        self._alive = [_alive(variable, axes) for variable, axes in places]
        self.settle()

    def __call__(self) -> None:
        """Behind a step: weights that an optimizer moves. One compiled function."""
        if self._moved:
            self._run(self._alive)

    def settle(self) -> None:
        """All weights; also averages, which no output depends on where BN's scale and shift are zero."""
        for variable, axes in _places(self.analysis, self.plan):
            variable.assign(zero(variable.numpy(), axes))

    def _set_to_zero(self, alive: Sequence[tf.Tensor]) -> None:
        for variable, kept in zip(self._moved, alive, strict=True):
            # Not a product: an infinite weight of a dead channel becomes zero, too.
            variable.assign(tf.where(kept, variable.value, tf.zeros([], variable.dtype)))


def left_of(analysis: Analysis) -> Plan:
    """The plan that keeps each channel that any weight which is not zero makes or reads.

    What `mask` and `Holder` have removed is found again, in restored weights too. A group of which a layer
    would lose all channels stays whole: it was not pruned, it starts with zeros.
    """
    return Plan.from_masks({group.name: _left(analysis, group) for group in analysis.groups})


def _left(analysis: Analysis, group: ChannelGroup) -> np.ndarray:
    found = nonzero(analysis, group, [m for m in group.members if m.role in ("producer", "consumer")])
    return np.ones(group.size, bool) if group.emptied(found) else found


def _places(analysis: Analysis, plan: Plan) -> Iterator[Place]:
    """Weights that lose something."""
    analysis.graph.check_in_place()
    for layer, weights in kept_positions(analysis.groups, plan.masks()).items():
        variables = named_variables(analysis.graph.layers[layer])
        for weight, axes in weights.items():
            if all(kept.all() for kept in axes.values()):
                continue
            if weight not in variables:
                raise UsageError(
                    "This layer takes statistics over channels, zeros among them: train what "
                    "pruning.mask(model) makes, whose norms count living channels alone. "
                    f"Received: {layer!r}, with {int(axes[0].sum())} of {len(axes[0])} channels"
                )
            yield variables[weight], axes


def _alive(variable: keras.Variable, axes: dict[int, np.ndarray]) -> tf.Tensor:
    """Whether each weight stays; of size 1 along all other axes."""
    shape = [size if axis in axes else 1 for axis, size in enumerate(variable.shape)]
    return tf.constant(zero(np.ones(shape, bool), axes))
