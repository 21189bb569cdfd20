"""One threshold over all scales of a network: the cut of network slimming."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor

import numpy as np

from secateur.pruning.choose.ranking import Limits, Widths
from secateur.pruning.rounding import exact
from secateur.runs.errors import UsageError


def slimming_widths(scores: Mapping[str, np.ndarray], percent: float, max_drop: float = 0.99) -> Widths:
    """Group → how many of its scores are strictly above the one at floor(percent · all) of the sorted row.

    Args:
        scores: group → scores (channels,), those of "bn_scale" in the paper: |γ|, not divided by anything.
        percent: place of the threshold in the row of all channels, in [0, 1).
        max_drop: largest share of its channels that a group loses (NNI); at least one stays.

    With different scores floor(percent · all) + 1 channels are below the line: the threshold goes too. Unlike
    `make_plan(keep=1 − percent, allocation="global")`, what a group may not lose is not taken from others
    instead. For `plan_of_widths`. Raises `UsageError` for a value out of range and for no scores.

    Liu et al. 2017, Learning Efficient Convolutional Networks through Network Slimming.
    """
    if not 0 <= percent < 1:
        raise UsageError(f"percent must lie in [0, 1). Received: percent={percent}")
    limits = Limits(max_drop=max_drop)
    if not scores:
        raise UsageError("There is nothing to cut. Received: scores of no group")
    row = np.sort(np.concatenate(list(scores.values())))
    threshold = row[floor(exact(percent) * len(row))]
    return {name: max(limits.lowest(len(s)), int((s > threshold).sum())) for name, s in scores.items()}
