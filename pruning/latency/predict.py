"""The milliseconds of a network from those of its layers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

from secateur.pruning.count.counting import require_sizes
from secateur.pruning.count.polynomial import layers_of
from secateur.pruning.groups.analysis import Analysis, Rows
from secateur.pruning.latency.layers import Timed, timed
from secateur.pruning.latency.table import Table

Part = tuple[str, int]  # a group, and how many positions of a tensor belong to it


class Predictor:
    """Widths of groups → the sum of the times of the layers that compute most.

    These are convolutions, dense layers, attention, and norms over channels. The sum is proportional to the
    time of the network at best: BatchNorm and activations are part of the convolution before them on a
    device, sums and poolings come on top. `pruning.latency.fit` corrects it.

    Raises `UsageError` for open sizes, on which all times depend.
    """

    def __init__(self, analysis: Analysis, table: Table) -> None:
        require_sizes(analysis)
        self._sizes = {group.name: group.size for group in analysis.groups}
        self._layers: list[tuple[Timed, int]] = []  # and rows of the batch for each sample
        self._parts: list[tuple[tuple[int, list[list[Part]]], ...]] = []
        self.touching: dict[str, set[int]] = defaultdict(set)
        for call in analysis.calls:
            seen, axes = analysis.counted(call) if call.inputs else (call, [])
            if one := timed(seen, table, [size for size, _ in axes]):
                ends = tuple((size, _parts(rows)) for size, rows in axes)
                for group in {name for _, layers in ends for rows in layers for name, _ in rows}:
                    self.touching[group].add(len(self._layers))
                self._layers.append((one, analysis.rows[call.inputs[0]]))
                self._parts.append(ends)
        self._seen: dict[tuple, float] = {}

    def __call__(self, widths: Mapping[str, int]) -> float:
        """Milliseconds at these widths of groups (group → channels)."""
        return sum(self._of(i, widths) for i in range(len(self._layers)))

    def around(self, group: str, widths: Mapping[str, int]) -> float:
        """The part of the sum that changes with the width of one group."""
        return sum(self._of(i, widths) for i in self.touching[group])

    def _of(self, i: int, widths: Mapping[str, int]) -> float:
        sizes = tuple(self._kept(size, rows, widths) for size, rows in self._parts[i])
        if (i, sizes) not in self._seen:
            milliseconds, rows = self._layers[i]
            self._seen[i, sizes] = rows * milliseconds(*sizes)
        return self._seen[i, sizes]

    def _kept(self, size: int, layers: list[list[Part]], widths: Mapping[str, int]) -> float:
        lost = (
            sum(count * (1 - widths[name] / self._sizes[name]) for name, count in rows) for rows in layers
        )
        return size * math.prod(1 - each / size for each in lost)


def _parts(rows: Rows) -> list[list[Part]]:
    return [[(name, int((index >= 0).sum())) for name, index in part] for part in layers_of(rows)]
