"""One layer by itself, at any width: what its time is a function of, and a model to measure it with."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np

from secateur.nets.graph import Call
from secateur.pruning.latency.table import Table
from secateur.pruning.layers import find, plain
from secateur.pruning.layers.registry import Product
from secateur.pruning.plan import FAST_WIDTH

UNTIMED = ("name", "trainable", "dtype", "activation", "initializer", "regularizer", "constraint")  # endings
POINTS = 8  # of a grid of widths
Timed = Callable[..., float]


def timed(call: Call, table: Table, sizes: Sequence[int]) -> Timed | None:
    """(Sizes of the axes of a call that its cost depends on) → milliseconds; None where it is not measured.

    Attention and other products of tensors are measured as dense layers that multiply as much: on runtimes
    both are products of matrices.

    Args:
        call: of the graph.
        table: where the times are.
        sizes: of the whole network.
    """
    known = find(call.kind)
    if known and known.products:
        return _Products(call, table, known.products, tuple(known.products(call, *sizes))).milliseconds
    return TimedLayer(call, table).milliseconds if known and known.timed else None


def _between(
    measured: Callable[[int, int], float], sizes: tuple[int, int], n_in: float, n_out: float
) -> float:
    """Time at these widths: linear between the widths that it reads, in steps along those that it makes.

    Convolutions compute `FAST_WIDTH` channels or a multiple of them at once, so 17 take as long as 24.
    """
    makes = grid(sizes[1])
    reads = [max(1, grid(sizes[0])[0] // 4), *grid(sizes[0])]
    up = makes[min(int(np.searchsorted(makes, n_out)), len(makes) - 1)]
    below = max(int(np.searchsorted(reads, n_in, side="right")) - 1, 0)
    left, right = reads[below], reads[min(below + 1, len(reads) - 1)]
    first = measured(left, up)
    if n_in <= left or left == right:
        return first
    return first + (measured(right, up) - first) * (n_in - left) / (right - left)


@dataclass(frozen=True)
class _Products:
    """A call that multiplies matrices; its time is proportional to their rows."""

    call: Call
    table: Table
    of: Callable[..., list[Product]]
    whole: tuple[Product, ...]

    def milliseconds(self, *sizes: float) -> float:
        total, now = 0.0, self.of(self.call, *sizes)
        for (rows, n_in, n_out), (most, *widths) in zip(now, self.whole, strict=True):
            total += _between(partial(self._measured, most), tuple(widths), n_in, n_out) * rows / most
        return total

    def _measured(self, rows: int, n_in: int, n_out: int) -> float:
        dtype = self.call.layer.dtype_policy.name if isinstance(self.call.layer, keras.Layer) else None
        key = f"product {[rows, n_in, n_out]} {dtype or ''}".strip()
        layer = keras.layers.Dense(n_out, use_bias=False, dtype=dtype)
        return self.table.milliseconds(key, lambda: _model((rows, n_in), layer))


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
        """Time at these widths; it is proportional to `places`, the other axes of a dense layer or norm."""
        sizes = self.call.input_shapes[0][-1], self.call.shapes[0][-1]
        share = math.prod(n / size for n, size in zip(places, self.call.shapes[0][1:-1], strict=False))
        return _between(self._measured, sizes, n_in, n_out) * share

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
