"""How many channels a ratio removes: papers that say the same ratio round it differently."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import floor

from secateur.runs.errors import UsageError
from secateur.runs.registry import Registry

DIGITS = 10**9  # largest denominator of a ratio: 0.1 is 1/10, not the binary number beside it

ROUNDING: Registry[Callable[[int, Fraction], int]] = Registry(
    "rounding",
    "roundings",
    {
        "floor_kept": lambda n, ratio: n - floor(n * (1 - ratio)),  # KESI, PFEC as Rethinking has it
        "floor": lambda n, ratio: floor(n * ratio),  # SFP, FPGM, NNI
        "round": lambda n, ratio: round(n * ratio),  # HAP; halves go to the even number
    },
    option="rule",
)
"""(channels, ratio that goes) → channels that go."""


def removed(n: int, ratio: float, rule: str = "floor_kept") -> int:
    """Number of channels of n that a ratio in [0, 1] removes; one always stays.

    Exact: a ratio is the fraction that it is written as, so that 0.3 of 10 are 3. Of 16, 32 and 64 channels
    the ratio 0.4 removes 7, 13 and 26 by "floor_kept", 6, 12 and 25 by "floor", and 6, 13 and 26 by "round".
    Raises `UsageError` for a ratio out of range, fewer channels than 1 and an unknown rule.
    """
    rounded = ROUNDING.find(rule)
    if not 0 <= ratio <= 1:
        raise UsageError(f"The ratio of channels to remove must lie in [0, 1]. Received: ratio={ratio}")
    if n < 1:
        raise UsageError(f"There must be at least one channel. Received: n={n}")
    return min(n - 1, rounded(n, exact(ratio)))


def exact(ratio: float) -> Fraction:
    """The fraction that a ratio is written as: 3/10 for 0.3, and for 0.1 + 0.2."""
    return Fraction(float(ratio)).limit_denominator(DIGITS)
