"""Batches in an order that a killed run finds again: it depends on the seed and the epoch only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from secateur.dataloader.sources.stored import Stored
from secateur.dataloader.splits import Images
from secateur.runs.errors import DataError, UsageError


class Batch(NamedTuple):
    """`images` uint8 [b, h, w, 3], `labels` int32 [b], `ids` int64 [b] as in `Images`."""

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """Return a permutation of 0 … n − 1, int64, fixed by `seed` (≥ 0) and `epoch` (≥ 0)."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def balanced_order(labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Return as many positions as there are labels, int64, every class as often as any other (± 1).

    Of a small class images come several times, each as often as any other of it (± 1); of a large one some
    are left out, others in each epoch.
    """
    rng = np.random.default_rng([seed, epoch])
    members = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    shares = np.full(len(members), len(labels) // len(members))
    shares[rng.permutation(len(members))[: len(labels) % len(members)]] += 1
    chosen = [np.resize(own, share) for own, share in zip(members, shares, strict=True)]
    return rng.permutation(np.concatenate(chosen))


def batches(
    images: Images, batch_size: int, order: np.ndarray | None = None, drop_remainder: bool = False
) -> Iterator[Batch]:
    """Yield batches of `batch_size` images.

    Args:
        images: what to walk through.
        batch_size: images a batch, ≥ 1.
        order: positions in `images`, int, [k]; None = as they lie. Positions may repeat or be left out.
        drop_remainder: leave out the last batch when it is smaller (training); else yield it (evaluation).

    Raises:
        DataError: `drop_remainder` with fewer images than one batch, which would silently train on nothing.
        UsageError: a batch size below 1. Both come at the call, not at the first batch.
    """
    count = len(images) if order is None else len(order)
    if batch_size < 1:
        raise UsageError(f"A batch holds at least 1 image. Received: batch_size={batch_size}")
    if drop_remainder and count < batch_size:
        raise DataError(
            f"Too few images for one batch; make it smaller. "
            f"Received: {count} images, batch_size={batch_size}"
        )
    stop = count - count % batch_size if drop_remainder else count
    order = np.arange(stop) if order is None else order[:stop]
    return _batches(images, batch_size, order)


def _batches(images: Images, batch_size: int, order: np.ndarray) -> Iterator[Batch]:
    parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    for index, part in zip(parts, in_parts(images.images, parts), strict=True):
        yield Batch(part, images.labels[index], images.ids[index])


def piece_edges(count: int, most: int, batch_size: int) -> list[int]:
    """Where pieces of whole batches, of `most` images, begin and end; none is shorter than a batch."""
    size = max(1, most // batch_size) * batch_size
    return [0, *(start for start in range(size, count, size) if start <= count - batch_size), count]


def in_parts(rows: Any, parts: Sequence[np.ndarray]) -> Iterator[Any]:
    """Yield the rows at each of some lists of positions, all as long as the first, or the last one shorter.

    What is stored in files is decoded while the rows before are worked on.
    """
    if isinstance(rows, Stored):
        return rows.take(np.concatenate(parts)).walk(len(parts[0]))
    return (rows[index] for index in parts)
