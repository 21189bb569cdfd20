"""Canonical Huffman codes of limited length, encoded and decoded by NumPy.

Lengths come from package-merge (Larmore & Hirschberg 1990), which is optimal under the limit and is
Huffman's own code (1952) where the limit does not bind. Codes are canonical (Schwartz & Kallick 1964):
lengths alone say them, 5 bits a symbol. Blocks of 512 symbols, each with its size in bits, are decoded side
by side.

Stream: lengths of all symbols (5 bits each), bits of each block (uint16, little endian), codes.
A stream of one symbol is its table alone, with the length 0 for all others and 1 for it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from secateur.coding.entropy.bits import pack, pack_fixed, pieces, unpack_fixed
from secateur.runs.stubs import Refused

BLOCK = 512  # symbols
GROUP = 512  # blocks that are decoded side by side
SHORT = 16  # bits; codes of more than 4096 symbols may be longer
LENGTH_BITS = 5


def limit_of(size: int) -> int:
    """Longest code, in bits, of an alphabet of `size` ≤ 2**20 symbols: 16, or 4 more than they need."""
    return max(SHORT, int(size - 1).bit_length() + 4)


def code_lengths(counts: np.ndarray, limit: int | None = None) -> np.ndarray:
    """Bits of each symbol's code, 0 where it never occurs, for the least Σ count·length with length ≤ limit.

    Args:
        counts: how often each symbol occurs, ≥ 0.
        limit: of the lengths; None for `limit_of(len(counts))`. 2**limit is at least the number of symbols.
    """
    counts = np.asarray(counts, np.int64)
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    lengths = np.zeros(len(counts), np.uint8)
    if len(order) < 2:
        lengths[order] = 1
        return lengths
    taken = 2 * len(order) - 2
    for is_coin in reversed(_package_levels(counts[order], limit or limit_of(len(counts)))):
        coins = int(is_coin[:taken].sum())
        lengths[order[:coins]] += 1
        taken = 2 * (taken - coins)
    return lengths


def _package_levels(coins: np.ndarray, limit: int) -> list[np.ndarray]:
    """For each level, in ascending weight, whether an item is a symbol (or a package of two items below)."""
    items, levels = coins, [np.ones(len(coins), bool)]
    for _ in range(limit - 1):
        packages = items[: len(items) // 2 * 2].reshape(-1, 2).sum(axis=1)
        both = np.concatenate([coins, packages])
        order = np.argsort(both, kind="stable")
        items = both[order]
        levels.append(order < len(coins))
    return levels


def canonical(lengths: np.ndarray) -> np.ndarray:
    """The codes that lengths stand for: ascending with length, then with the symbol."""
    lengths = lengths.astype(np.int64)
    steps = np.zeros(len(lengths), np.int64)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    longest = int(lengths.max(initial=1))
    widths = 1 << (longest - lengths[order])  # leaves of the full tree below each code
    steps[order] = (np.cumsum(widths) - widths) >> (longest - lengths[order])
    return steps


def size_of(counts: np.ndarray) -> int:
    """Bytes that `encode` makes of symbols with these counts."""
    total, lengths = int(np.sum(counts)), code_lengths(counts)
    table = -(-len(counts) * LENGTH_BITS // 8)
    if np.count_nonzero(lengths) < 2:
        return table
    bits = int(np.dot(np.asarray(counts, np.int64), lengths.astype(np.int64)))
    return table + 2 * -(-total // BLOCK) + -(-bits // 8)


def encode(symbols: np.ndarray, size: int) -> bytes:
    """A stream of symbols in 0 … size − 1 (1-D, integers, at least one; size ≤ 2**20)."""
    lengths = code_lengths(np.bincount(symbols, minlength=size))
    table = pack_fixed(lengths, LENGTH_BITS)
    if np.count_nonzero(lengths) < 2:
        return table
    each = lengths[symbols].astype(np.int64)
    blocks = np.add.reduceat(each, np.arange(0, len(each), BLOCK)).astype("<u2")
    return table + blocks.tobytes() + pack(canonical(lengths)[symbols], each)


def decode(data: bytes | memoryview, count: int, size: int) -> Iterator[np.ndarray]:
    """The `count` symbols of a stream as int32 arrays, chunk by chunk.

    Raises `Refused` where the stream is none of this count and size; before the first chunk wherever it can.
    """
    table = -(-size * LENGTH_BITS // 8)
    blocks = -(-count // BLOCK)
    if len(data) < table:
        raise Refused("a table of codes is cut short")
    lengths = np.concatenate([*unpack_fixed(data[:table], LENGTH_BITS, size)]).astype(np.uint8)
    used = np.flatnonzero(lengths)
    if len(used) == 1 and len(data) == table:
        for part in pieces(count):
            yield np.full(part.stop - part.start, used[0], np.int32)
        return
    _check_lengths(lengths, size)
    if len(data) < table + 2 * blocks:
        raise Refused("an index of blocks is cut short")
    index = np.frombuffer(data[table : table + 2 * blocks], "<u2").astype(np.int64)
    stream = data[table + 2 * blocks :]
    if len(stream) != -(-int(index.sum()) // 8):
        raise Refused("codes and their index differ in size")
    yield from _blocks(stream, index, lengths, count)


def _check_lengths(lengths: np.ndarray, size: int) -> None:
    """Kraft's equality: every code of a full tree has one meaning, and every bit pattern is a code."""
    longest = int(lengths.max(initial=0))
    own = lengths[lengths > 0].astype(np.int64)
    if not 0 < longest <= limit_of(size) or int((1 << (longest - own)).sum()) != 1 << longest:
        raise Refused("its lengths of codes are no code")


def _blocks(
    stream: bytes | memoryview, index: np.ndarray, lengths: np.ndarray, count: int
) -> Iterator[np.ndarray]:
    """Decode groups of blocks in lock-step: one look-up gives the next symbol of every block."""
    longest = int(lengths.max())
    order = np.argsort(np.where(lengths > 0, lengths, 255), kind="stable")[: np.count_nonzero(lengths)]
    meaning = np.repeat(order.astype(np.int32), 1 << (longest - lengths[order].astype(np.int64)))
    steps, mask = lengths[meaning].astype(np.int64), np.uint64((1 << longest) - 1)
    ends = np.cumsum(index)
    for group in pieces(len(index), GROUP):
        size = min(count - group.start * BLOCK, GROUP * BLOCK)
        base = int(ends[group.start] - index[group.start]) // 32 * 32
        at, target = (ends - index)[group] - base, ends[group] - base
        pairs = _word_pairs(stream[base // 8 : -(-int(ends[group.stop - 1]) // 8)])
        out = np.empty((BLOCK, len(at)), np.int32)
        for step in range(min(BLOCK, size)):
            shift = (64 - longest - (at & 31)).astype(np.uint64)
            window = (pairs[at >> 5] >> shift) & mask
            out[step] = meaning[window]
            at += steps[window]
            if step + 1 == size % BLOCK:
                arrived = int(at[-1])  # the last block is short; what follows in it is thrown away
        if size % BLOCK:
            at[-1] = arrived
        if (at != target).any():
            raise Refused("a block of codes does not end where the next one starts")
        yield out.T.reshape(-1)[:size]


def _word_pairs(data: bytes | memoryview) -> np.ndarray:
    """Word i and word i + 1 (32 bits each) as one number; zeros behind, as far as a damaged block can run."""
    words = np.frombuffer(bytes(data) + bytes(4 * BLOCK - len(data) % 4), ">u4").astype(np.uint64)
    return (words[:-1] << np.uint64(32)) | words[1:]
