"""How far two lists of outputs lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TOLERANCE = 1e-3
"""Of the largest output. Float32 programs differ by 1e-6; a wrong layout or a lost weight by about 1."""


@dataclass(frozen=True)
class Parity:
    """The largest difference, and the same relative to the largest output; infinite where shapes differ."""

    absolute: float
    relative: float

    @property
    def exact(self) -> bool:
        """Whether every number is the same."""
        return self.absolute == 0

    def __str__(self) -> str:
        if self.exact:
            return "the same numbers"
        return f"within {self.absolute:.1e} ({self.relative:.1e} of the largest output)"


def compare(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> Parity:
    """Compares outputs one by one, NaN with NaN; a difference in number or shape is infinite."""
    if [np.shape(x) for x in expected] != [np.shape(x) for x in found]:
        return Parity(np.inf, np.inf)
    pairs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(expected, found, strict=True)
    ]
    if any((np.isfinite(a) != np.isfinite(b)).any() for a, b in pairs):
        return Parity(np.inf, np.inf)
    largest = max((np.abs(np.nan_to_num(a)).max(initial=0) for a, _ in pairs), default=0)
    apart = max((np.abs(np.nan_to_num(a) - np.nan_to_num(b)).max(initial=0) for a, b in pairs), default=0)
    return Parity(float(apart), float(apart / largest) if largest else float(apart))
