"""A stream of symbols in the fewest bytes: every codec's size is compared, their tables included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from secateur.coding.entropy import ans, huffman
from secateur.coding.entropy.bits import pack_fixed, unpack_fixed
from secateur.runs.stubs import Refused

MAX_SYMBOLS = 1 << 16  # of an alphabet
CODECS = ("fixed", "huffman", "ans")


@dataclass(frozen=True)
class Coded:
    """A stream at rest: one of `CODECS`, and its bytes."""

    codec: str
    data: bytes


def entropy(counts: np.ndarray) -> float:
    """Bits of a stream with these counts, order 0 (Shannon 1948): Σ count·log2(total / count).

    No code of single symbols goes below that.
    """
    counts = np.asarray(counts, np.float64)
    counts = counts[counts > 0]
    return float((counts * np.log2(counts.sum() / counts)).sum())


def code(symbols: np.ndarray, size: int) -> Coded:
    """The smallest of all codecs' streams.

    Args:
        symbols: integers in 0 … size − 1, 1-D, at least one, fewer than 2**31.
        size: of the alphabet, at most 2**16.
    """
    counts = np.bincount(symbols, minlength=size)
    sizes = {"fixed": -(-len(symbols) * width_of(size) // 8), "huffman": huffman.size_of(counts)}
    coded = ans.encode(symbols, size)
    codec = min(sizes, key=sizes.get)
    if len(coded) <= sizes[codec]:
        return Coded("ans", coded)
    data = huffman.encode(symbols, size) if codec == "huffman" else pack_fixed(symbols, width_of(size))
    return Coded(codec, data)


def width_of(size: int) -> int:
    """Bits of each symbol where all have the same."""
    return int(size - 1).bit_length()


def decode(codec: str, data: bytes | memoryview, count: int, size: int) -> Iterator[np.ndarray]:
    """The symbols as int32 arrays, chunk by chunk, each below `size`.

    Raises `Refused` where the stream is none of this codec, count and size.
    """
    if codec != "fixed":
        yield from {"huffman": huffman, "ans": ans}[codec].decode(data, count, size)
        return
    width = width_of(size)
    if len(data) != -(-count * width // 8):
        raise Refused("a stream of fixed width has another size than its symbols")
    for chunk in unpack_fixed(data, width, count):
        if int(chunk.max(initial=0)) >= size:
            raise Refused("a symbol is beyond its table")
        yield chunk
