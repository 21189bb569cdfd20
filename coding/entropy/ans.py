"""Asymmetric numeral systems (Duda 2009) by the package `constriction` (Bamler 2022), one model per stream.

Stream: how often each symbol occurs, one byte each, then the coder's words (uint32, little endian). The byte
is a number of three bits behind its leading one: within 6 % of the count, which costs under 0.001 bits a
symbol. A stream of one symbol is its counts alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import constriction
import numpy as np

from secateur.coding.entropy.bits import pieces
from secateur.runs.stubs import Refused

Coder = constriction.stream.stack.AnsCoder


def rounded(counts: np.ndarray) -> np.ndarray:
    """Counts below 2**31 as bytes: below 8 as they are, else 8·(shift + 1) + the three bits behind the first.

    Rounds to the nearest; only zero becomes zero.
    """
    counts = np.asarray(counts, np.int64)
    shift = np.maximum(_bit_length(counts) - 4, 0)
    near = (counts + ((1 << shift) >> 1)) >> shift  # 8 … 16; 16 carries into the next shift
    return np.where(counts < 8, counts, 8 * shift + near).astype(np.uint8)


def _bit_length(counts: np.ndarray) -> np.ndarray:
    return np.frexp(counts.astype(np.float64))[1].astype(np.int64)  # exact below 2**53


def frequencies(codes: np.ndarray) -> np.ndarray:
    """What the bytes of `rounded` stand for, int64."""
    codes = codes.astype(np.int64)
    return np.where(codes < 8, codes, (8 + codes % 8) << np.maximum(codes // 8 - 1, 0))


def _model(codes: np.ndarray) -> constriction.stream.model.Categorical:
    return constriction.stream.model.Categorical(frequencies(codes).astype(np.float64), perfect=False)


def encode(symbols: np.ndarray, size: int) -> bytes:
    """A stream of symbols in 0 … size − 1 (1-D, integers, at least one; size ≤ 2**20)."""
    codes = rounded(np.bincount(symbols, minlength=size))
    if np.count_nonzero(codes) < 2:
        return codes.tobytes()
    coder = Coder()
    coder.encode_reverse(np.ascontiguousarray(symbols, np.int32), _model(codes))
    return codes.tobytes() + coder.get_compressed().astype("<u4").tobytes()


def decode(data: bytes | memoryview, count: int, size: int) -> Iterator[np.ndarray]:
    """The `count` symbols of a stream as int32 arrays, chunk by chunk.

    Raises `Refused` where the stream is none of this count and size, at its end at the latest.
    """
    codes, words = np.frombuffer(data[:size], np.uint8), data[size:]
    used = np.flatnonzero(codes)
    if len(codes) < size or not len(used) or len(words) % 4:
        raise Refused("a stream is cut short")
    if len(used) == 1 and not len(words):
        for part in pieces(count):
            yield np.full(part.stop - part.start, used[0], np.int32)
        return
    if len(used) == 1:
        raise Refused("a stream of one symbol has codes")
    try:
        coder = Coder(np.frombuffer(words, "<u4").astype(np.uint32))
    except ValueError:
        raise Refused("its last word is zero, which the coder never writes") from None
    model = _model(codes)
    for part in pieces(count):
        yield coder.decode(model, part.stop - part.start)
    if not coder.is_empty():
        raise Refused("a stream goes on behind its last symbol")
