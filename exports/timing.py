"""Milliseconds of a call."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np


def least(calls: Mapping[str, Callable[[], object]], budget: float = 1.0) -> dict[str, float]:
    """Name → milliseconds of the fastest call; the calls take turns for about `budget` seconds, at least 5.

    What other programs of the machine add to a call is no property of it: the fastest is the least disturbed,
    and taking turns lets a slow minute hit all of them.
    """
    for call in calls.values():
        call()
    found = {name: [seconds(call)] for name, call in calls.items()}
    turns = int(np.clip(budget / max(sum(t for [t] in found.values()), 1e-9), 5, 200))
    for _ in range(turns - 1):
        for name, call in calls.items():
            found[name].append(seconds(call))
    return {name: 1e3 * min(times) for name, times in found.items()}


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def processor() -> str:
    """Name of the processor, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.processor() or platform.machine())
