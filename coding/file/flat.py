"""Bit patterns of numbers, 1-D, in the fewest bytes: raw, as indexes into a table, byte by byte, on a grid.

A way to code has a name, `code` (values → description and bytes, or None where it cannot gain) and `decode`.
Descriptions are JSON; a stream in them is [codec, bytes]. Patterns of floats are `turned`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from secateur.coding.entropy import symbols
from secateur.coding.file.reader import Reader, field, one_of, whole
from secateur.runs.stubs import Refused

SAMPLE = 2**18  # values that are looked at before all are sorted
MANTISSA, MOST_POWER = 53, 1074  # of a float64: bits, and the exponents of its powers of two
FAR = 31  # bits that the multiples on a grid have at most
PER_STREAM = 12  # bytes that the description of a stream takes, about, once packed


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


def code(values: np.ndarray, kind: str) -> Part:
    """The cheapest of `WAYS`.

    Args:
        values: 1-D, of unsigned integers: the bit patterns of numbers.
        kind: of the numbers, as NumPy has it: "f", "i", "u" or "b".
    """
    found = (way(values, kind) for way, _ in WAYS.values()) if len(values) else (_raw(values, kind),)
    return min((part for part in found if part), key=lambda part: part.cost)


def decode(node: dict, reader: Reader, out: np.ndarray, kind: str) -> None:
    """Fill `out` (1-D, unsigned integers) with what `node` describes and `reader` holds.

    Raises `Refused` where the two do not fit each other.
    """
    WAYS[one_of(field(node, "as", str), WAYS)][1](node, reader, out, kind)


def turned(patterns: np.ndarray) -> np.ndarray:
    """Floats with their sign moved behind the last bit: the first byte of a float32 is its exponent then."""
    one, rest = _shifts(patterns)
    return (patterns << one) | (patterns >> rest)


def turned_back(patterns: np.ndarray) -> np.ndarray:
    """The inverse of `turned`."""
    one, rest = _shifts(patterns)
    return (patterns >> one) | (patterns << rest)


def _shifts(patterns: np.ndarray) -> tuple[np.generic, np.generic]:
    return patterns.dtype.type(1), patterns.dtype.type(8 * patterns.itemsize - 1)


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


def _raw(values: np.ndarray, kind: str) -> Part:
    return Part({"as": "raw"}, values.astype(_little(values)).tobytes())


def _read_raw(node: dict, reader: Reader, out: np.ndarray, kind: str) -> None:
    out[:] = np.frombuffer(reader.take(out.nbytes), _little(out))


def _little(values: np.ndarray) -> np.dtype:
    return values.dtype.newbyteorder("<")


def _shared(values: np.ndarray, kind: str) -> Part | None:
    """A table of the distinct values, ascending, and a stream of indexes into it (Han et al. 2016, §3).

    The table is raw, unless it says of itself that it lies on a grid.
    """
    few = len(_distinct(values[:SAMPLE])) <= symbols.MAX_SYMBOLS
    table = _distinct(values) if few else None
    if table is None or len(table) > symbols.MAX_SYMBOLS or 2 * table.nbytes > values.nbytes + table.itemsize:
        return None
    coded = symbols.code(np.searchsorted(table, values).astype(np.int32), len(table))
    node = {"as": "shared", "values": len(table), "stream": [coded.codec, len(coded.data)]}
    raw, grid = _raw(table, kind), _grid(table, kind)
    if grid and grid.cost < raw.cost:
        return Part(node | {"table": grid.node}, grid.data + coded.data, 1 + grid.streams)
    return Part(node, raw.data + coded.data, 1)


def _distinct(values: np.ndarray) -> np.ndarray:
    """Ascending. NumPy's `unique` hashes integers, which takes 20 times as long as to sort bit patterns."""
    ordered = np.sort(values)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])]


def _read_shared(node: dict, reader: Reader, out: np.ndarray, kind: str) -> None:
    table = np.empty(whole(field(node, "values", int), symbols.MAX_SYMBOLS, least=1), out.dtype)
    size = len(table)
    read = _read_grid if "table" in node else _read_raw
    read(node.get("table", node), reader, table, kind)
    for part, chunk in read_stream(field(node, "stream", list), reader, len(out), size):
        out[part] = table[chunk]


def _planes(values: np.ndarray, kind: str) -> Part:
    """The first byte of all values, the second one …: that of a float's exponent says little and shrinks."""
    coded = [symbols.code(plane, 256) for plane in _bytes_of(values).T]
    node = {"as": "planes", "streams": [[one.codec, len(one.data)] for one in coded]}
    return Part(node, b"".join(one.data for one in coded), len(coded))


def _bytes_of(values: np.ndarray) -> np.ndarray:
    return values.astype(_little(values)).view(np.uint8).reshape(len(values), -1)


def _read_planes(node: dict, reader: Reader, out: np.ndarray, kind: str) -> None:
    streams = field(node, "streams", list)
    if len(streams) != out.itemsize:
        raise Refused(f"its numbers of {out.itemsize} bytes have {len(streams)} planes")
    out[:] = 0
    for place, stream in enumerate(streams):
        shift = out.dtype.type(8 * place)
        for part, chunk in read_stream(stream, reader, len(out), 256):
            out[part] |= chunk.astype(out.dtype) << shift


def _grid(values: np.ndarray, kind: str) -> Part | None:
    """Floats that are whole multiples of one power of two: a stream of what each is above the least."""
    found = _multiples(values[:SAMPLE], kind)
    found = found and _multiples(values, kind)
    if found is None:
        return None
    power, multiples = found
    least = int(multiples.min())
    size = int(multiples.max()) - least + 1
    if size > symbols.MAX_SYMBOLS:
        return None
    coded = symbols.code((multiples - least).astype(np.int32), size)
    node = {"as": "grid", "power": power, "least": least, "size": size}
    return Part(node | {"stream": [coded.codec, len(coded.data)]}, coded.data, 1)


def _multiples(values: np.ndarray, kind: str) -> tuple[int, np.ndarray] | None:
    """The exponent of the largest power of two that divides all, and what times; None where they are far."""
    if kind != "f":
        return None
    with np.errstate(invalid="ignore"):  # a NaN that signals
        numbers = turned_back(values).view(f"f{values.itemsize}").astype(np.float64)
    if not np.isfinite(numbers).all() or (np.signbit(numbers) & (numbers == 0)).any():
        return None
    mantissas, exponents = np.frexp(numbers[numbers != 0])
    digits = np.ldexp(mantissas, MANTISSA).astype(np.int64)
    powers = exponents - MANTISSA + np.log2(digits & -digits).astype(np.int64)
    power = int(powers.min(initial=MOST_POWER))
    if exponents.max(initial=power) - power > FAR:
        return None
    return power, np.ldexp(numbers, -power).astype(np.int64)


def _read_grid(node: dict, reader: Reader, out: np.ndarray, kind: str) -> None:
    if kind != "f":
        raise Refused("numbers that are no floats lie on no grid")
    size = whole(field(node, "size", int), symbols.MAX_SYMBOLS, least=1)
    least = whole(field(node, "least", int), 2**FAR, least=-(2**FAR))
    power = whole(field(node, "power", int), MOST_POWER, least=-MOST_POWER)
    for part, chunk in read_stream(field(node, "stream", list), reader, len(out), size):
        with np.errstate(over="ignore"):
            numbers = np.ldexp(chunk.astype(np.float64) + least, power).astype(f"f{out.itemsize}")
        if not np.isfinite(numbers).all():
            raise Refused("its grid is too large for its numbers")
        out[part] = turned(numbers.view(out.dtype))


WAYS: dict[str, tuple[Callable, Callable]] = {
    "raw": (_raw, _read_raw),
    "shared": (_shared, _read_shared),
    "planes": (_planes, _read_planes),
    "grid": (_grid, _read_grid),
}
