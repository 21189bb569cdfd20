"""One layer by itself, at any width: what its time is a function of, and a model to measure it with."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import keras
import numpy as np

from secateur.nets.graph import Call
from secateur.pruning.latency.table import Table
from secateur.pruning.layers import find, plain
from secateur.pruning.plan import FAST_WIDTH

UNTIMED = ("name", "trainable", "dtype", "activation", "initializer", "regularizer", "constraint")  # endings
POINTS = 8  # of a grid of widths


@dataclass(frozen=True)
class TimedLayer:
    """A call whose time depends on how many channels it reads and makes.

    Attributes:
        call: of the graph.
        table: where its times are.
    """

    call: Call
    table: Table

    def milliseconds(self, n_in: float, n_out: float, *places: float) -> float:
        """Time at these widths: linear between the widths that it reads, in steps along those that it makes.

        It is proportional to `places`, the other axes of a dense layer. Convolutions compute `FAST_WIDTH`
        channels or a multiple of them at once, so 17 take as long as 24.
        """
        sizes = self.call.input_shapes[0][-1], self.call.shapes[0][-1]
        makes = grid(sizes[1])
        reads = [max(1, grid(sizes[0])[0] // 4), *grid(sizes[0])]
        up = makes[min(int(np.searchsorted(makes, n_out)), len(makes) - 1)]
        below = max(int(np.searchsorted(reads, n_in, side="right")) - 1, 0)
        left, right = reads[below], reads[min(below + 1, len(reads) - 1)]
        first = self._measured(left, up)
        if left < n_in and left < right:
            first += (self._measured(right, up) - first) * (n_in - left) / (right - left)
        return first * math.prod(n / size for n, size in zip(places, self.call.shapes[0][1:-1], strict=False))

    def _measured(self, n_in: int, n_out: int) -> float:
        make, config = plain(self.call.layer)
        options = {name: value for name, value in config.items() if not name.endswith(UNTIMED)}
        width = find(self.call.kind).size
        groups, whole = options.get("groups", 1), self.call.input_shapes[0][-1]
        if groups == whole > 1:  # a depthwise convolution in other words: its width follows what it reads
            options["groups"], n_out = n_in, n_in * (options[width] // groups)
        elif groups > 1:
            n_in, n_out = (max(1, round(n / groups)) * groups for n in (n_in, n_out))
        options |= {width: n_out} if width else {}
        options |= {"data_format": "channels_last"} if "data_format" in options else {}
        options["dtype"] = self.call.layer.dtype_policy.name
        shape = (*self.call.input_shapes[0][1:-1], n_in)
        key = f"{make.__name__} {json.dumps(options, default=repr)} {list(shape)}"
        return self.table.milliseconds(key, lambda: _model(shape, make(**options)))


def _model(shape: tuple, layer: keras.Layer) -> keras.Model:
    x = keras.Input(shape, dtype=layer.compute_dtype)
    return keras.Model(x, layer(x))


def grid(size: int) -> list[int]:
    """The widths to measure a layer at: about `POINTS` multiples of `FAST_WIDTH`, and the full width."""
    step = FAST_WIDTH * -(-size // (FAST_WIDTH * POINTS))
    return [*range(step, size, step), size]
