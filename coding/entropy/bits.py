"""Bit streams in NumPy: many codes of different lengths side by side, most significant bit first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

CHUNK = 1 << 16  # symbols at a time: what a decoder holds beside its result stays small


def pieces(count: int, size: int = CHUNK) -> Iterator[slice]:
    """Slices of at most `size` that cover range(count) in order."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def pack(codes: np.ndarray, lengths: np.ndarray) -> bytes:
    """Codes side by side, the last byte filled with zero bits.

    Args:
        codes: non-negative integers, each below 2**length.
        lengths: bits of each code, 1 … 31.
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    words = np.zeros(total // 32 + 2, np.uint32)
    for part in pieces(len(ends), 1 << 20):
        starts = ends[part] - lengths[part]
        room = (64 - lengths[part] - (starts & 31)).astype(np.uint64)  # free bits behind it in two words
        pairs = codes[part].astype(np.uint64) << room
        first = starts >> 5
        heads = np.flatnonzero(np.diff(first, prepend=-1))  # the first code of each word
        words[first[heads]] |= np.bitwise_or.reduceat(pairs >> np.uint64(32), heads).astype(np.uint32)
        low = np.bitwise_or.reduceat(pairs & np.uint64(0xFFFFFFFF), heads)
        words[first[heads] + 1] |= low.astype(np.uint32)
    return words.astype(">u4").tobytes()[: -(-total // 8)]


def pack_fixed(values: np.ndarray, width: int) -> bytes:
    """Non-negative integers of `width` bits each (0 … 31; 0 writes nothing)."""
    if width == 8:
        return values.astype(np.uint8).tobytes()
    shifts = np.arange(width)[::-1]
    rows = (values[part, None] >> shifts & 1 for part in pieces(len(values)))
    return b"".join(np.packbits(row.astype(np.uint8)).tobytes() for row in rows)


def unpack_fixed(data: bytes | memoryview, width: int, count: int) -> Iterator[np.ndarray]:
    """`count` integers of `width` bits as int32 arrays of at most `CHUNK`.

    `data` has exactly ⌈count·width / 8⌉ bytes; a chunk of 2**16 codes ends on a byte.
    """
    weights = (1 << np.arange(width)[::-1]).astype(np.int32)
    for part in pieces(count):
        size = part.stop - part.start
        raw = np.frombuffer(data, np.uint8)[part.start * width // 8 : -(-part.stop * width // 8)]
        if width == 8:
            yield raw.astype(np.int32)
        else:
            yield np.unpackbits(raw, count=size * width).reshape(size, width) @ weights
