"""Weighted points on a line and their cheapest cuts into segments: what 1-D k-means is made of. Plain NumPy.

In one dimension a cluster is a run of neighbours, so that a clustering of n sorted points is given by edges
0 = e₀ ≤ e₁ ≤ … ≤ e_k = n: cluster c holds the points e_c … e_{c+1} − 1. Sums over a run come from running
sums in O(1), and so does its squared error Σw·x² − (Σw·x)² / Σw.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Line:
    """Points in ascending order.

    Attributes:
        points: float64 (n,), n ≥ 1. Their mean should be near 0: the sums of squares cancel otherwise.
        weights: float64 (n,), at least 1: how many values lie on each.
    """

    points: np.ndarray
    weights: np.ndarray

    @cached_property
    def sums(self) -> np.ndarray:
        """Running sums of w, w·x and w·x², each from 0 on, float64 (3, n + 1)."""
        moments = np.stack([self.weights, self.weights * self.points, self.weights * self.points**2])
        return np.pad(np.cumsum(moments, axis=1), ((0, 0), (1, 0)))

    def means(self, edges: np.ndarray) -> np.ndarray:
        """Weighted means of the segments (k,); NaN for an empty one."""
        count, total, _ = np.diff(self.sums[:, edges])
        return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)

    def error(self, edges: np.ndarray) -> float:
        """Σ w·(x − mean of its segment)²."""
        count, total, squares = np.diff(self.sums[:, edges])
        return float(np.sum(squares - np.divide(total**2, count, out=np.zeros_like(total), where=count > 0)))

    def nearest(self, centroids: np.ndarray) -> np.ndarray:
        """Edges (k + 1,) of the points nearest to each of k ascending centroids; the lower one wins ties."""
        middles = (centroids[1:] + centroids[:-1]) / 2
        return np.r_[0, np.searchsorted(self.points, middles, side="right"), len(self.points)]

    def binned(self, bins: int) -> tuple[Line, np.ndarray]:
        """The means of the points in cells of equal width, and the place of each cell's first point and n.

        Empty cells are left out. Cutting the coarse line costs what the same cut of this one does, but for
        the error inside of cells, which no such cut changes.
        """
        low, high = self.points[[0, -1]]
        cells = np.minimum((self.points - low) * (bins / (high - low)), bins - 1).astype(np.int64)
        starts = np.flatnonzero(np.diff(cells, prepend=-1))
        count, total = (np.add.reduceat(row, starts) for row in (self.weights, self.weights * self.points))
        return Line(total / count, count), np.r_[starts, len(self.points)]


def best_edges(line: Line, k: int) -> np.ndarray:
    """The edges, int (k + 1,), of the least squared error that k segments can have.

    Dynamic programming over the number of segments; the best last edge never falls along the line, so that
    a row is filled by halving (Grønlund et al. 2017, section 2.2): O(k·n·log n) time, 4·k·n bytes.
    """
    n = len(line.points)
    count, total, squares = line.sums
    costs = squares - total**2 / np.maximum(count, 1)  # of one segment up to each place
    last = np.zeros((k, n + 1), np.int32)
    for row in last[1:]:
        costs, row[:] = _one_more(line.sums, costs)
    edges = [n]
    for row in last[::-1]:
        edges.append(int(row[edges[-1]]))
    return np.array(edges[::-1])


def _one_more(sums: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Costs (n + 1,) with one segment more than `before` has, and where that begins."""
    size = len(before)
    costs, begins = np.zeros(size), np.zeros(size, np.int64)
    stride = 1 << (size - 1).bit_length()
    while stride > 1:
        stride //= 2
        ends = np.arange(stride, size, 2 * stride)
        after = ends + stride  # known already, where it lies on the line: a bound from above
        lowest = begins[ends - stride]
        highest = np.where(after < size, begins[np.minimum(after, size - 1)], ends)
        highest = np.minimum(highest, ends)
        costs[ends], begins[ends] = _cheapest(sums, before, ends, lowest, highest)
    return costs, begins


def _cheapest(
    sums: np.ndarray, before: np.ndarray, ends: np.ndarray, lowest: np.ndarray, highest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each end the least cost of a last segment that begins in lowest … highest, and its beginning."""
    count, total, squares = sums
    tries = highest - lowest + 1
    first = np.cumsum(tries) - tries
    begin = np.arange(tries.sum()) - np.repeat(first - lowest, tries)
    weight = np.repeat(count[ends], tries) - count[begin]
    moment = np.repeat(total[ends], tries) - total[begin]
    found = (before - squares)[begin] - moment**2 / np.maximum(weight, 1)
    least = np.minimum.reduceat(found, first)
    hits = np.flatnonzero(found == np.repeat(least, tries))
    return least + squares[ends], begin[hits[np.searchsorted(hits, first)]]
