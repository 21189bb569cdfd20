"""EKG's arithmetic of slices: thresholds, widths and ratios, in plain NumPy."""

from __future__ import annotations

import numpy as np


def trimmed_otsu(values: np.ndarray) -> float:
    """Otsu's threshold after ⌈0.2·n⌉ values are dropped at each end: the middle of the gap that splits best.

    Fewer than three values in the middle cannot be split; then the largest value is returned.
    """
    drop = int(np.ceil(0.2 * len(values)))
    middle = np.sort(values)[drop : len(values) - drop]
    n = len(middle)
    if n < 3:
        return float(np.max(values))
    between = [t * (n - t) * (middle[:t].mean() - middle[t:].mean()) ** 2 for t in range(1, n - 1)]
    split = int(np.argmax(between)) + 1
    return float((middle[split - 1] + middle[split]) / 2)


def kept_width(size: int, rate: float, round_to: int = 1) -> int:
    """⌈size·rate⌉, at least 1, and up to the next multiple of `round_to` where the group has as many."""
    steps = np.ceil(max(np.ceil(round(size * rate, 6)), 1) / round_to)
    return int(min(size, steps * round_to))


def slice_ratio(size: int, producers: int, step: float, round_to: int = 1) -> float:
    """Ratio of a group's channels that one step removes.

    Args:
        size: channels of the group.
        producers: layers that make them; a shared group takes smaller slices.
        step: ratio that a group with one producer loses.
        round_to: slices are multiples of this, at least one.
    """
    wanted = step / producers * size
    if round_to == 1:
        return max(1 / size, wanted / size)
    return max(1, int(wanted // round_to)) * round_to / size
