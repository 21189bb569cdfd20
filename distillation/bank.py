"""EKG's memory bank: logits of interim networks of the search, looked up by image id. Plain NumPy."""

from __future__ import annotations

import tokenize  # NumPy reads the header of a file with it
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runs.errors import DataError


def choose_teachers(losses: Sequence[float], count: int = 5) -> list[int]:
    """Picks interim networks whose validation losses are spread evenly, lowest first (EKG, poster and code).

    Args:
        losses: cross-entropy on the search images of every interim network, the unpruned one included and the
            final one left out.
        count: K. The targets are min + (max − min)·j/K for j = 0 … K−1; each takes the closest unused
            network.

    Returns at most `count` different indexes, the best network first.
    """
    low, high = min(losses), max(losses)
    unused, chosen = list(range(len(losses))), []
    for j in range(min(count, len(losses))):
        target = low + (high - low) * j / count
        nearest = min(unused, key=lambda i: (abs(losses[i] - target), i))
        unused.remove(nearest)
        chosen.append(nearest)
    return chosen


@dataclass(frozen=True)
class MemoryBank:
    """Teachers' logits on un-augmented training images.

    Attributes:
        logits: float32 (n, classes, teachers), memory-mapped when read from disk.
        row_of_id: int64; image id → row of `logits`, −1 where the image has none.
    """

    logits: np.ndarray
    row_of_id: np.ndarray

    @classmethod
    def open(cls, path: str | Path, ids: np.ndarray) -> MemoryBank:
        """Maps a `.npy` file whose rows belong to `ids` (n,), in that order.

        Raises `DataError` when it is missing, damaged, or of another shape or type.
        """
        try:
            logits = np.lib.format.open_memmap(path, mode="r")  # unlike np.load it reads nothing but .npy
        except (OSError, ValueError, OverflowError, SyntaxError, tokenize.TokenError) as error:
            reason = str(error).splitlines()[0][:120]
            raise DataError(
                f"{path} is not a memory bank ({reason})\nDelete it and run the same command again"
            ) from error
        if logits.ndim != 3 or len(logits) != len(ids) or logits.dtype != np.float32:
            raise DataError(
                f"{path} does not belong to this training set of {len(ids)} images. "
                f"Received: shape={logits.shape}, dtype={logits.dtype}\n"
                "Delete it and run the same command again"
            )
        row_of_id = np.full(int(ids.max()) + 1, -1, np.int64)
        row_of_id[ids] = np.arange(len(ids))
        return cls(logits, row_of_id)

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """Logits (b, classes, teachers) of the images with these ids (b,); `IndexError` if one has none."""
        rows = self.row_of_id[ids]
        if np.min(rows, initial=0) < 0:
            raise IndexError(f"The memory bank has no row for image {np.asarray(ids)[rows < 0][0]}")
        return np.asarray(self.logits[rows])
