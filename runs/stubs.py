"""Stub constructors: what the globals of a pickle of arrays stand for. They check all that they are given."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_DIMS = 8
MAX_SIDE = 2**31 - 1
DTYPES = frozenset(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"])


class Refused(ValueError):
    """What is wrong with a foreign file, in a few words; who reads it makes a message of that."""


class Allowance:
    """Bytes that arrays may still hold: shared content cannot be turned into more than the file has.

    Args:
        size: bytes of the file. Counted twice, since protocol 2 spells bytes as text: encode, then build.
    """

    def __init__(self, size: int):
        self.left = 2 * size

    def spend(self, size: int) -> None:
        """Take `size` bytes; raises Refused when so many are not left."""
        self.left -= size
        if self.left < 0:
            raise Refused("its arrays are larger than the file")


@dataclass(eq=False)
class Dtype:
    """Stub of `numpy.dtype`."""

    code: str
    order: str = "<"
    built: bool = False

    def build(self, state: tuple) -> None:
        """Take the state that NumPy pickles: version, byte order, no fields, no sizes, no flags."""
        if self.built or len(state) != 8 or any(part is not None for part in state[2:5]):
            raise Refused("it has a dtype with fields or other extras")
        if type(state[1]) is not str or state[1] not in ("<", ">", "|"):
            raise Refused("it has a dtype of unknown byte order")
        self.order, self.built = state[1], True


@dataclass(eq=False)
class Array:
    """Stub of `numpy.ndarray`: empty until `build`."""

    values: np.ndarray | None = None

    def build(self, allowance: Allowance, state: tuple) -> None:
        """Take the state that NumPy pickles: version, shape, dtype, Fortran order, bytes."""
        if self.values is not None or len(state) != 5:
            raise Refused("it sets the state of something that is not a new array")
        _version, shape, dtype, fortran, data = state
        self.values = _values(allowance, dtype, shape, "F" if fortran is True else "C", data)


def short(value: Any) -> str:
    """Name a value of a hostile file without printing much of it."""
    return ascii(value[:40]) if type(value) is str else type(value).__name__.lower()


def _ndarray(allowance: Allowance, *arguments: Any) -> None:
    raise Refused("it calls numpy.ndarray")


def _reconstruct(allowance: Allowance, kind: Any, shape: Any, code: Any) -> Array:
    if kind is not _ndarray:
        raise Refused("it makes an array of another class than numpy.ndarray")
    return Array()


def _dtype(allowance: Allowance, code: Any, *flags: Any) -> Dtype:
    if type(code) is not str or code not in DTYPES:
        raise Refused(f"it has dtype {short(code)}; only numbers can be read")
    return Dtype(code)


def _scalar(allowance: Allowance, dtype: Any, data: Any) -> Array:
    return Array(_values(allowance, dtype, (), "C", data))


def _frombuffer(
    allowance: Allowance, data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None
) -> Array:
    if type(order) is not str or order not in ("C", "F", "K"):
        raise Refused("it has an array of unknown memory order")
    values = _values(allowance, dtype, shape, "F" if order == "F" else "C", data)
    if order == "K":
        if type(axes) is not tuple or sorted(_integers(axes)) != list(range(values.ndim)):
            raise Refused("it has an array of unknown memory order")
        values = values.transpose(axes)
    return Array(values)


def _encode(allowance: Allowance, text: Any, encoding: Any) -> bytes:
    if type(text) is not str or type(encoding) is not str or encoding != "latin1":
        raise Refused("it has bytes in an unknown encoding")
    allowance.spend(len(text))
    return text.encode("latin1")


def _no_bytes(allowance: Allowance) -> bytes:
    return b""


# (module, name) → stub(allowance, *arguments)
STUBS: dict[tuple[str, str], Callable] = {
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
}
for _core in ("numpy.core", "numpy._core"):
    STUBS[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    STUBS[f"{_core}.multiarray", "scalar"] = _scalar
    STUBS[f"{_core}.numeric", "_frombuffer"] = _frombuffer


def _integers(items: tuple) -> tuple[int, ...]:
    if len(items) > MAX_DIMS or any(type(item) is not int or not 0 <= item <= MAX_SIDE for item in items):
        raise Refused("it has an array of an impossible shape")
    return items


def _values(allowance: Allowance, dtype: Any, shape: Any, order: str, data: Any) -> np.ndarray:
    """A read-only native array over `data`; every number of the file is checked before NumPy sees it."""
    if type(dtype) is not Dtype or type(shape) is not tuple or type(data) not in (bytes, bytearray):
        raise Refused("it has an array of unknown content")
    plain = np.dtype(dtype.code)
    if math.prod(_integers(shape)) * plain.itemsize != len(data):
        raise Refused(f"an array of shape {shape} and dtype {dtype.code} cannot have {len(data)} bytes")
    allowance.spend(len(data))
    if dtype.code == "b1" and np.frombuffer(data, np.uint8).max(initial=0) > 1:
        raise Refused("it has a truth value that is neither 0 nor 1")
    values = np.frombuffer(data, plain.newbyteorder(dtype.order)).astype(plain, copy=False)
    values = values.reshape(shape, order=order)
    values.flags.writeable = False
    return values
