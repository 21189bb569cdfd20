"""Sizes as HAP's repository counts them: Huffman trees and streams of each tensor, file by file.

A published size is that of files which nobody needs to write: floats as symbols of a tree cost 33 bits each.
`array_file` is what this project writes, and its size is that of a file.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

KINDS = {4: "conv", 2: "fc"}  # axes of a tensor → its kind; all else is raw


@dataclass(frozen=True)
class Sizes:
    """Bytes before and after."""

    original: int = 0
    coded: int = 0

    def __add__(self, other: Sizes) -> Sizes:
        return Sizes(self.original + other.original, self.coded + other.coded)


def tree_bits(leaves: int) -> int:
    """A tree, pre-order: 0 for an inner node, 1 and 32 bits for a leaf; m leaves take 33·m + m − 1 bits."""
    return 33 * leaves + leaves - 1


def stream_bits(counts: np.ndarray) -> int:
    """Bits of all codes of Huffman's tree (1952), not limited in length: the sum of its inner nodes.

    A single symbol has a code of one bit. `counts` ≥ 1: how often each symbol occurs, at least one symbol.
    """
    if len(counts) == 1:
        return int(counts[0])
    waiting = [(int(weight), count) for weight, count in Counter(counts.tolist()).items()]
    heapq.heapify(waiting)
    bits = 0
    while waiting:
        weight, count = heapq.heappop(waiting)
        if count > 1:  # all pairs of equal nodes at once
            bits += 2 * weight * (count // 2)
            heapq.heappush(waiting, (2 * weight, count // 2))
        if count % 2 and waiting:
            other, left = heapq.heappop(waiting)
            bits += weight + other
            heapq.heappush(waiting, (weight + other, 1))
            if left > 1:
                heapq.heappush(waiting, (other, left - 1))
    return bits


def file_bytes(bits: int) -> int:
    """A file of so many bits: a byte that counts the padding, and whole bytes."""
    return 1 + -(-bits // 8)


def published_size(array: np.ndarray) -> Sizes:
    """Of one tensor (Keras' layout: …, input channels, filters): a tree and a stream for each part."""
    if array.ndim not in KINDS:
        return Sizes(array.nbytes, array.nbytes)
    coded = 0
    for symbols in _streams(array):
        if symbols.size:
            counts = np.unique(symbols, return_counts=True)[1]
            leaves = max(len(counts), 2)  # a single symbol has a sibling that never occurs
            coded += file_bytes(tree_bits(leaves)) + file_bytes(stream_bits(counts))
    return Sizes(4 * array.size, coded)


def _streams(array: np.ndarray) -> Iterator[np.ndarray]:
    """Of a convolution the kept block, the kept filters and the kept channels; else everything.

    Kept is what has weights other than 0; the published code takes a signed sum for that, which may be 0 too.
    """
    if array.ndim != 4:
        yield array
        return
    alive = (array != 0).any(axis=(0, 1))
    channels, filters = np.flatnonzero(alive.any(axis=1)), np.flatnonzero(alive.any(axis=0))
    yield from (array[:, :, channels][..., filters], filters, channels)


def published_sizes(arrays: Mapping[str, np.ndarray]) -> dict[str, Sizes]:
    """Sums for "conv", "fc", "other" and "all"."""
    found = {name: Sizes() for name in (*KINDS.values(), "other")}
    for array in arrays.values():
        kind = KINDS.get(array.ndim, "other")
        found[kind] += published_size(array)
    return found | {"all": sum(found.values(), Sizes())}
