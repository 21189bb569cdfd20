"""Where in TFRecord files images lie, and their labels: found without reading the images.

A record is a length (8 bytes, little-endian), a checksum of it (4), that many bytes, and a checksum of those
(4). The bytes are a `tf.train.Example` in the wire format of protocol buffers, a map of names to lists of
byte strings or integers; what is not asked for is passed over.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

_HEAD, _CHECKSUM = 12, 4
_SIGN, _BITS = 1 << 63, 1 << 64
_BYTES, _NUMBERS = 1, 3
"""Fields of a `Feature`: a list of byte strings, a list of integers."""

Span = tuple[int, int]


def index(
    files: Sequence[Path], image: str, label: str, identity: str = "id"
) -> Iterator[tuple[np.ndarray, np.ndarray, list[bytes]]]:
    """Yield of each file what its records hold, in their order.

    Args:
        files: whole TFRecord files, none of them empty.
        image: name of the feature with the encoded image.
        label: of an integer.
        identity: of a byte string, which may be missing.

    Yields:
        places of the images, int64 (n, 2), first byte and number of bytes; labels int32 (n,); identities, b""
        where there is none.

    Raises:
        ValueError: a file that ends within a record, or holds something else.
    """
    wanted = [name.encode() for name in (image, label, identity)]
    for path in files:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                rows = (_row(data, span, wanted) for span in _records(data))
                places, labels, names = zip(*rows, strict=True)
                found = np.array(places, np.int64), np.array(labels, np.int32), list(names)
            except (IndexError, KeyError, ValueError, OverflowError, struct.error) as error:
                raise ValueError(f"{Path(path).name} does not hold records of {image} and {label}") from error
        yield found


def _records(data: mmap.mmap) -> Iterator[Span]:
    at = 0
    while at < len(data):
        start = at + _HEAD
        end = start + struct.unpack_from("<Q", data, at)[0]
        at = end + _CHECKSUM
        if at > len(data):
            raise IndexError(at)
        yield start, end


def _row(data: mmap.mmap, record: Span, wanted: Iterable[bytes]) -> tuple[Span, int, bytes]:
    """Place of the image, label, and identity of a record."""
    features = {}
    for _, features_span in _fields(data, record):
        for _, entry in _fields(data, features_span):
            (_, key), (_, value) = _fields(data, entry)
            features[data[slice(*key)]] = value
    image, label, identity = wanted
    start, end = _first(data, features[image], _BYTES)
    name = data[slice(*_first(data, features[identity], _BYTES))] if identity in features else b""
    number, _ = _varint(data, _first(data, features[label], _NUMBERS)[0])
    return (start, end - start), number - _BITS if number >= _SIGN else number, name


def _first(data: mmap.mmap, feature: Span, kind: int) -> Span:
    """The first value of a feature, which is a list of that kind."""
    ((found, values),) = _fields(data, feature)
    if found != kind:
        raise KeyError(kind)
    (_, place), *_ = _fields(data, values)
    return place


def _fields(data: mmap.mmap, span: Span) -> Iterator[tuple[int, Span]]:
    """Numbers and places of the fields of a message."""
    at, end = span
    while at < end:
        tag, at = _varint(data, at)
        if tag & 7 == 2:  # bytes, with their number before them
            length, at = _varint(data, at)
        elif tag & 7 == 0:
            length = _varint(data, at)[1] - at
        else:
            raise KeyError(tag)
        if at + length > end:
            raise IndexError(at)
        yield tag >> 3, (at, at + length)
        at += length


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return number, at
        shift += 7
