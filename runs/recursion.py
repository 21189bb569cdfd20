"""Room on Python's stack for networks of a thousand layers."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

FRAMES = 4  # of Keras, for each node on the longest way through a graph


@contextlib.contextmanager
def deep(nodes: int) -> Iterator[None]:
    """Lets Keras, which makes a model by recursion from its outputs, go through a graph of so many nodes.

    Python allows 1000 frames, which a ResNet of 350 layers exceeds.
    """
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + FRAMES * nodes)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
