"""A tensor in the fewest bytes, every bit kept: dense, without dead filters and channels, or without zeros.

Zero means the bit pattern of +0; a −0 or a NaN is a value like any other, with all its bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from secateur.coding.entropy import symbols
from secateur.coding.entropy.bits import pieces
from secateur.coding.file import flat
from secateur.coding.file.flat import Part
from secateur.coding.file.reader import Reader, field, one_of, whole
from secateur.runs.stubs import DTYPES, MAX_DIMS, MAX_SIDE, Refused

MAX_BYTES = 2**31  # of one tensor
FEW = 0.01  # of all values: with fewer zeros a bitmap of them cannot pay


def code(array: np.ndarray) -> Part:
    """The cheapest way to keep an array of numbers; its description also says dtype and shape.

    Raises `TypeError` for an array of anything but floats of 2, 4, 8 bytes, integers and truth values.
    """
    if _code(array.dtype) not in DTYPES:
        raise TypeError(f"only arrays of numbers can be coded. Received: dtype={array.dtype}")
    part = min(_parts(_patterns(array), array.dtype.kind), key=lambda part: part.cost)
    return Part({"dtype": _code(array.dtype), "shape": list(array.shape), **part.node}, part.data)


def decode(node: dict, reader: Reader) -> np.ndarray:
    """The array that `node` describes, bit for bit.

    Allocates its bytes, at most as many again for the values between zeros, and chunks of constant size.
    Raises `Refused` where description and bytes do not fit each other.
    """
    dtype, shape = stated(node)
    patterns = np.zeros(shape, _unsigned(dtype))
    if node.get("as") == "block":
        _read_block(node, reader, patterns, dtype.kind)
    else:
        _read_dense(node, reader, patterns.reshape(-1), dtype.kind)
    _turn_back(patterns.reshape(-1), dtype)
    if dtype.kind == "b" and patterns.max(initial=0) > 1:
        raise Refused("a truth value is neither 0 nor 1")
    return patterns.view(dtype)


def stated(node: dict) -> tuple[np.dtype, tuple[int, ...]]:
    """Type and shape that a description announces. Raises `Refused` for what no tensor has."""
    dtype = np.dtype(one_of(field(node, "dtype", str), DTYPES))
    sides = field(node, "shape", list)
    if len(sides) > MAX_DIMS:
        raise Refused(f"a tensor has {len(sides)} axes, more than {MAX_DIMS}")
    shape = tuple(whole(side, MAX_SIDE) for side in sides)
    whole(math.prod(shape) * dtype.itemsize, MAX_BYTES)
    return dtype, shape


def size_of(node: dict) -> int:
    """Bytes of the array that a description announces. Raises `Refused` for what no tensor has."""
    dtype, shape = stated(node)
    return math.prod(shape) * dtype.itemsize


# --- bit patterns ------------------------------------------------------------------------------------------


def _code(dtype: np.dtype) -> str:
    return f"{dtype.kind}{dtype.itemsize}"


def _unsigned(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"u{dtype.itemsize}")


def _patterns(array: np.ndarray) -> np.ndarray:
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
    patterns = native.view(_unsigned(array.dtype))
    return flat.turned(patterns) if array.dtype.kind == "f" else patterns


def _turn_back(flat_patterns: np.ndarray, dtype: np.dtype) -> None:
    """Puts the sign of floats back in front, in place."""
    if dtype.kind == "f":
        for part in pieces(len(flat_patterns)):
            flat_patterns[part] = flat.turned_back(flat_patterns[part])


# --- without dead filters and channels ---------------------------------------------------------------------


def _parts(patterns: np.ndarray, kind: str) -> Iterator[Part]:
    """Every way that may pay."""
    yield _dense(patterns.reshape(-1), kind)
    kept = _kept(patterns)
    if kept and not all(mask.all() for mask in kept):
        inner = _dense(patterns[..., kept[0], :][..., kept[1]].reshape(-1), kind)
        maps = b"".join(np.packbits(mask).tobytes() for mask in kept)
        yield Part({"as": "block", "inner": inner.node}, maps + inner.data, inner.streams)


def _kept(patterns: np.ndarray) -> list[np.ndarray]:
    """Of a kernel (…, input channels, filters): which of either are not all zero."""
    if patterns.ndim < 2 or not patterns.size:
        return []
    alive = (patterns != 0).reshape(-1, *patterns.shape[-2:]).any(axis=0)
    return [alive.any(axis=1), alive.any(axis=0)]


def _read_block(node: dict, reader: Reader, out: np.ndarray, kind: str) -> None:
    if out.ndim < 2 or not out.size:
        raise Refused("what is no kernel has no filters")
    kept = [np.unpackbits(np.frombuffer(reader.take(-(-n // 8)), np.uint8), count=n) for n in out.shape[-2:]]
    rows, columns = (np.flatnonzero(mask) for mask in kept)
    kernels = out.reshape(-1, *out.shape[-2:])
    inner = np.empty((len(kernels), len(rows), len(columns)), out.dtype)
    _read_dense(field(node, "inner", dict), reader, inner.reshape(-1), kind)
    kernels[:, rows[:, None], columns] = inner


# --- dense, or the values between zeros --------------------------------------------------------------------


def _dense(values: np.ndarray, kind: str) -> Part:
    everything, alive = flat.code(values, kind), values != 0
    if alive.sum() >= (1 - FEW) * len(values):
        return everything
    bitmap, inner = symbols.code(alive, 2), flat.code(values[alive], kind)
    node = {"as": "sparse", "bitmap": [bitmap.codec, len(bitmap.data)], "count": int(alive.sum())}
    sparse = Part(node | {"inner": inner.node}, inner.data + bitmap.data, inner.streams + 1)
    return min(everything, sparse, key=lambda part: part.cost)


def _read_dense(node: dict, reader: Reader, out: np.ndarray, kind: str) -> None:
    if field(node, "as", str) != "sparse":
        return flat.decode(node, reader, out, kind)
    count = whole(field(node, "count", int), len(out))
    at = len(out) - count  # the values wait at the end of `out`: no place is needed before it was read
    flat.decode(field(node, "inner", dict), reader, out[at:], kind)
    for part, alive in flat.read_stream(field(node, "bitmap", list), reader, len(out), 2):
        chunk = np.zeros(len(alive), out.dtype)
        taken = int(alive.sum())
        if len(out) - at - taken > len(out) - part.stop or taken > len(out) - at:
            raise Refused("its bitmap has another count of values")
        chunk[alive.astype(bool)] = out[at : at + taken]
        out[part] = chunk
        at += taken
    if at != len(out):
        raise Refused("its bitmap has another count of values")
