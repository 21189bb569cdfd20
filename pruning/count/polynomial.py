"""Costs as polynomials in the widths of groups: thousands of candidates are counted while one net is built.

What is left of an axis depends on the widths alone once the order in which channels go is settled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

Rows = list[tuple[str, np.ndarray]]  # groups on an axis: which channel of the group each position is, or −1
Axis = tuple[int, Rows]  # and its size
Term = tuple[float, tuple[Axis, ...]]  # factor × what is left of the axes

ONE: Axis = (1, [])
MOST_AXES = 3  # that are cut in one weight


def layers_of(rows: Rows) -> list[Rows]:
    """Rows that share no position, one layer after the other: heads lie over their widths."""
    layers: list[tuple[Rows, np.ndarray]] = []
    for name, index in rows:
        for own, taken in layers:
            if not (taken & (index >= 0)).any():
                own.append((name, index))
                taken |= index >= 0
                break
        else:
            layers.append(([(name, index)], index >= 0))
    return [own for own, _ in layers]


def _factors(term: Term) -> Term:
    """The term with a factor for each layer of an axis: of heads · width, half of both are a quarter."""
    factor, axes = term
    found: list[Axis] = []
    for size, rows in axes:
        parts = layers_of(rows) or [rows]
        found += [(size, part) for part in parts]
        factor /= size ** (len(parts) - 1)
    return factor, tuple(found)


class Polynomial:
    """Σ factor · Π (what is left of an axis), as a function of the widths.

    Args:
        terms: of the sum.
        orders: group → its channels in the order in which they are kept: width w keeps the first w.

    Called with group → width it returns the cost. Never falls as a width grows.
    """

    def __init__(self, terms: Iterable[Term], orders: Mapping[str, np.ndarray]) -> None:
        self._groups = {name: i for i, name in enumerate(orders)}
        self._orders = orders
        self._axes: dict[tuple, int] = {}
        self._lost: dict[tuple, int] = {}
        self._parts: list[tuple[int, int]] = []  # axis, row of the tables that it loses positions by
        self._sizes: list[int] = []
        self._tables: list[np.ndarray] = []
        self._owners: list[int] = []
        factors: dict[tuple[int, ...], float] = defaultdict(float)
        terms = [_factors(term) for term in terms if term[0]]
        most = max((len(axes) for _, axes in terms), default=1)
        for factor, axes in terms:
            key = [self._axis(axis) for axis in axes] + [self._axis(ONE)] * (most - len(axes))
            factors[tuple(sorted(key))] += factor
        self._products = np.array(list(factors), int).reshape(-1, most)
        self._factors = np.array(list(factors.values()))
        self._starts = np.cumsum([0, *map(len, self._tables)])[:-1].astype(int)
        self._table = np.concatenate([*self._tables, np.zeros(0)])
        self._of_axis, self._of_table = np.array(self._parts, int).reshape(-1, 2).T

    def __call__(self, widths: Mapping[str, int]) -> float:
        width = np.array([widths[name] for name in self._groups], int)
        lost = self._table[self._starts + width[self._owners]] if self._owners else np.zeros(0)
        left = self._sizes - np.bincount(self._of_axis, lost[self._of_table], len(self._sizes))
        return float(self._factors @ left[self._products].prod(1))

    def _axis(self, axis: Axis) -> int:
        size, rows = axis
        key = (size, *((name, index.tobytes()) for name, index in rows))
        if key not in self._axes:
            self._axes[key] = len(self._sizes)
            self._sizes.append(size)
            self._parts += [(self._axes[key], self._row(name, index)) for name, index in rows]
        return self._axes[key]

    def _row(self, name: str, index: np.ndarray) -> int:
        """The table of the positions that an axis loses to a group at the widths 0, 1, …"""
        key = (name, index.tobytes())
        if key not in self._lost:
            self._lost[key] = len(self._tables)
            order = self._orders[name]
            uses = np.bincount(index[index >= 0], minlength=len(order))[order]
            self._tables.append(uses.sum() - np.cumsum([0, *uses]))
            self._owners.append(self._groups[name])
        return self._lost[key]
