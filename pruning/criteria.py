"""Scores of channels: pure functions, larger = keep."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from runs.errors import UsageError
from runs.suggest import nearest

Criterion = Callable[[np.ndarray, np.random.Generator], np.ndarray]
_CRITERIA: dict[str, Criterion] = {}


def criterion(function: Criterion) -> Criterion:
    """Registers a criterion under its function's name: filters (n, weights) and a generator → scores (n,)."""
    _CRITERIA[function.__name__] = function
    return function


def get_criterion(name: str) -> Criterion:
    """The registered function. Raises `UsageError` with the nearest valid name."""
    if name not in _CRITERIA:
        raise UsageError(f"Unknown criterion. Received: criterion={name!r}. {nearest(name, _CRITERIA)}")
    return _CRITERIA[name]


def list_criteria() -> list[str]:
    """Names that `make_plan` accepts."""
    return sorted(_CRITERIA)


@criterion
def l1(filters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """‖w_i‖₁ (Li et al. 2017, Pruning Filters for Efficient ConvNets)."""
    return np.abs(filters).sum(1)


@criterion
def l2(filters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """‖w_i‖₂ (He et al. 2018, Soft Filter Pruning)."""
    return np.linalg.norm(filters, axis=1)


@criterion
def random(filters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """U(0, 1), the control that every other criterion has to beat."""
    return rng.random(len(filters))
