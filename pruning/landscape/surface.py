"""The loss on lines and planes through weights, and under noise (Li et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from secateur.pruning.landscape.loss_at import LossAt, Weights

Measured = tuple[np.ndarray, np.ndarray]  # loss and metric at each point


def directions(loss: LossAt, count: int, seed: int = 0) -> list[Weights]:
    """Random directions whose filters are as long as the model's own, section 4 of the paper.

    Filters are what makes one output channel; biases, and scales and shifts of normalisation, stay, as in the
    authors' program. A filter that is all zero, which a mask leaves, stays zero.
    """
    rng, own = np.random.default_rng(seed), loss.weights

    def filtered(weight: np.ndarray, filters: tuple[int, ...]) -> np.ndarray:
        drawn = rng.normal(size=weight.shape)
        if not filters:
            return np.zeros(weight.shape)
        rest = tuple(axis for axis in range(weight.ndim) if axis - weight.ndim not in filters)
        lengths = [np.sqrt((x.astype(np.float64) ** 2).sum(rest, keepdims=True)) for x in (weight, drawn)]
        return drawn * (lengths[0] / lengths[1])

    return [[filtered(*pair) for pair in zip(own, loss.filters, strict=True)] for _ in range(count)]


def moved(weights: Sequence[np.ndarray], *steps: tuple[float, Sequence[np.ndarray]]) -> Weights:
    """Weights and multiples of directions, added."""
    found = [w.astype(np.float64) for w in weights]
    for factor, direction in steps:
        found = [w + factor * d for w, d in zip(found, direction, strict=True)]
    return found


def line(
    loss: LossAt, start: Sequence[np.ndarray], end: Sequence[np.ndarray], at: Sequence[float]
) -> Measured:
    """Loss and metric at (1 − t) · start + t · end for each t of `at`: from a dense net to a pruned one."""
    ahead = [b.astype(np.float64) - a for a, b in zip(start, end, strict=True)]
    values, metrics = np.array([loss(moved(start, (t, ahead))) for t in at]).T
    return values, metrics


def plane(
    loss: LossAt, axes: Sequence[Weights], at: Sequence[float], known: Sequence[tuple[float, float]] = (),
    keep: Callable[[list], None] = lambda points: None,
) -> Measured:  # fmt: skip
    """Loss and metric on a plane through the model's own weights, each (len(at), len(at)).

    Args:
        axes: two directions; the first one goes down the rows.
        at: multiples of both, from negative to positive ones.
        known: points that have been measured before, row by row; goes on behind them.
        keep: is given all points so far behind each new one.
    """
    own, points, side = loss.weights, list(known), len(at)
    for i in range(len(points), side * side):
        points.append(loss(moved(own, (at[i // side], axes[0]), (at[i % side], axes[1]))))
        keep(points)
    values, metrics = np.array(points).T.reshape(2, side, side)
    return values, metrics


def noise(loss: LossAt, radius: float = 0.05, count: int = 10, seed: int = 0) -> float:
    """Mean |L(w + d) − L(w)| over random d, each filter's `radius` times as long as the filter."""
    own = loss.weights
    here, _ = loss(own)
    return float(
        np.mean([abs(loss(moved(own, (radius, d)))[0] - here) for d in directions(loss, count, seed)])
    )
