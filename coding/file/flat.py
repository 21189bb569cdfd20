"""Bit patterns of numbers, 1-D, in the fewest bytes: raw, as indexes into a table, or byte by byte.

A way to code has a name, `code` (values → description and bytes, or None where it cannot gain) and `decode`.
Descriptions are JSON; a stream in them is [codec, bytes].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from secateur.coding.entropy import symbols
from secateur.coding.file.reader import Reader, field, one_of, whole
from secateur.runs.stubs import Refused

SAMPLE = 2**18  # values that are looked at before all are sorted
PER_STREAM = 12  # bytes that the description of a stream takes, about, once deflated


@dataclass(frozen=True)
class Part:
    """Something coded.

    Attributes:
        node: its description, JSON.
        data: its bytes.
        streams: how many streams of symbols it has.
    """

    node: dict
    data: bytes
    streams: int = 0

    @property
    def cost(self) -> int:
        """Bytes in the file, the description's included, about."""
        return len(self.data) + PER_STREAM * self.streams


def code(values: np.ndarray) -> Part:
    """The cheapest of `WAYS`. `values` is 1-D, of unsigned integers: the bit patterns of numbers."""
    found = (way(values) for way, _ in WAYS.values()) if len(values) else (_raw(values),)
    return min((part for part in found if part), key=lambda part: part.cost)


def decode(node: dict, reader: Reader, out: np.ndarray) -> None:
    """Fill `out` (1-D, unsigned integers) with what `node` describes and `reader` holds.

    Raises `Refused` where the two do not fit each other.
    """
    WAYS[one_of(field(node, "as", str), WAYS)][1](node, reader, out)


def read_stream(stream: list, reader: Reader, count: int, size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Where each chunk of a stream [codec, bytes] belongs, and its symbols, each below `size`.

    Raises `Refused` where the stream is none of this count and size, after the last chunk at the latest.
    """
    if not isinstance(stream, list) or len(stream) != 2:
        raise Refused("a stream is not a codec and a size")
    codec = one_of(stream[0], symbols.CODECS)
    data = reader.take(whole(stream[1], 2**31))
    done = 0
    for chunk in symbols.decode(codec, data, count, size):
        yield slice(done, done + len(chunk)), chunk
        done += len(chunk)


def _raw(values: np.ndarray) -> Part:
    return Part({"as": "raw"}, values.astype(_little(values)).tobytes())


def _read_raw(node: dict, reader: Reader, out: np.ndarray) -> None:
    out[:] = np.frombuffer(reader.take(out.nbytes), _little(out))


def _little(values: np.ndarray) -> np.dtype:
    return values.dtype.newbyteorder("<")


def _shared(values: np.ndarray) -> Part | None:
    """A table of the distinct values, ascending, and a stream of indexes into it (Han et al. 2016, §3)."""
    few = len(_distinct(values[:SAMPLE])) <= symbols.MAX_SYMBOLS
    table = _distinct(values) if few else None
    if table is None or len(table) > symbols.MAX_SYMBOLS or 2 * table.nbytes > values.nbytes + table.itemsize:
        return None
    coded = symbols.code(np.searchsorted(table, values).astype(np.int32), len(table))
    node = {"as": "shared", "values": len(table), "stream": [coded.codec, len(coded.data)]}
    return Part(node, table.astype(_little(table)).tobytes() + coded.data, 1)


def _distinct(values: np.ndarray) -> np.ndarray:
    """Ascending. NumPy's `unique` hashes integers, which takes 20 times as long as to sort bit patterns."""
    ordered = np.sort(values)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])]


def _read_shared(node: dict, reader: Reader, out: np.ndarray) -> None:
    size = whole(field(node, "values", int), symbols.MAX_SYMBOLS, least=1)
    table = np.frombuffer(reader.take(size * out.itemsize), _little(out)).astype(out.dtype)
    for part, chunk in read_stream(field(node, "stream", list), reader, len(out), size):
        out[part] = table[chunk]


def _planes(values: np.ndarray) -> Part:
    """The first byte of all values, the second one …: that of a float's exponent says little and shrinks."""
    coded = [symbols.code(plane, 256) for plane in _bytes_of(values).T]
    node = {"as": "planes", "streams": [[one.codec, len(one.data)] for one in coded]}
    return Part(node, b"".join(one.data for one in coded), len(coded))


def _bytes_of(values: np.ndarray) -> np.ndarray:
    return values.astype(_little(values)).view(np.uint8).reshape(len(values), -1)


def _read_planes(node: dict, reader: Reader, out: np.ndarray) -> None:
    streams = field(node, "streams", list)
    if len(streams) != out.itemsize:
        raise Refused(f"its numbers of {out.itemsize} bytes have {len(streams)} planes")
    out[:] = 0
    for place, stream in enumerate(streams):
        shift = out.dtype.type(8 * place)
        for part, chunk in read_stream(stream, reader, len(out), 256):
            out[part] |= chunk.astype(out.dtype) << shift


WAYS: dict[str, tuple[Callable, Callable]] = {
    "raw": (_raw, _read_raw),
    "shared": (_shared, _read_shared),
    "planes": (_planes, _read_planes),
}
