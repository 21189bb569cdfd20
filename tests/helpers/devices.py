"""A device whose times follow a known rule."""

from __future__ import annotations

import keras

from secateur.exports.timing import Setup
from secateur.pruning import complexity


class Device(Setup):
    """A processor that computes 16 output channels of a convolution at once, 1e5 operations in a millisecond.

    A call costs `overhead` milliseconds more, and everything takes `slower` times as long in a whole network.
    """

    overhead, slower = 0.02, 1.3

    def milliseconds(self, models, seconds=1.0):
        return {name: self.time(model) for name, model in models.items()}

    def time(self, model: keras.Model) -> float:
        total, layers = 0.0, 0
        for row in complexity(model).layers:
            kernel = getattr(model.get_layer(row.name), "kernel", None)
            if kernel is not None:
                made = kernel.shape[-1]
                total += row.macs * (-(-made // 16) * 16 / made) / 1e5
                layers += 1
        return total if layers == 1 else self.overhead + self.slower * total
