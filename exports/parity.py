"""How far two lists of outputs lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TOLERANCE = 1e-3
"""Of an output's largest number. Float32 programs differ by 1e-6, a wrong layout or a lost weight by 1."""


@dataclass(frozen=True)
class Parity:
    """The largest difference, and the largest one relative to the largest number of its own output.

    Both are infinite where shapes differ.
    """

    absolute: float
    relative: float

    @property
    def exact(self) -> bool:
        """Whether every number is the same."""
        return self.absolute == 0

    def __str__(self) -> str:
        if self.exact:
            return "the same numbers"
        return f"within {self.absolute:.1e} ({self.relative:.1e} of an output's largest number)"


def compare(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> Parity:
    """Compares outputs one by one, NaN with NaN; a difference in number or shape is infinite.

    Each output has its own scale: beside boxes in pixels a wrong probability would not be seen. The worst
    output decides.
    """
    if [np.shape(x) for x in expected] != [np.shape(x) for x in found]:
        return Parity(np.inf, np.inf)
    pairs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(expected, found, strict=True)
    ]
    if any((np.isfinite(a) != np.isfinite(b)).any() for a, b in pairs):
        return Parity(np.inf, np.inf)
    apart = [_distance(np.nan_to_num(a), np.nan_to_num(b)) for a, b in pairs]
    return Parity(*map(max, zip(*apart, strict=True))) if apart else Parity(0.0, 0.0)


def _distance(expected: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """The largest difference of one output, and the same relative to its largest number, if that is not 0."""
    apart = float(np.abs(expected - found).max(initial=0))
    return apart, apart / (float(np.abs(expected).max(initial=0)) or 1.0)
