"""Reading the named arrays of a `.kpz` file: all is compared with what the file states before it is used.

Section `index` is JSON, packed: an object of the writer's, and for each section of data the tensors in it.
The data are decoded section by section: beside the arrays, memory holds one section.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.coding.file import container, streams
from secateur.coding.file.container import Container
from secateur.coding.file.reader import Reader, field, whole
from secateur.runs.stubs import Refused

INDEX = "index"
MAX_INDEX = 2**24  # of JSON, which grows when it is parsed
MAX_ARRAYS = 2**31
LZMA = ({"id": lzma.FILTER_LZMA1, "preset": 9, "dict_size": 2**19},)
MAX_MEMORY = 2**22  # of unpacking

Each = Callable[[Iterable], Iterable]  # passes on what it is given, and may show progress


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file: its name, its description (see `streams`), its bytes there."""

    name: str
    node: dict
    size: int


@dataclass(frozen=True)
class Index:
    """What a file holds: the JSON object beside the arrays, and the tensors of each section of data."""

    extra: dict
    tensors: tuple[tuple[Tensor, ...], ...]


def decode_arrays(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays of a `.kpz` file by name, and the JSON object beside them. Nothing in it is executed.

    Allocates at most twice the bytes that the file says its arrays have, and a few MiB.
    Raises `SnapshotError` for a file that is missing, cut short, changed or foreign.
    """
    with container.opened(path) as found:
        index = read_index(found)
        return dict(read_arrays(found, index)), index.extra


def read_index(found: Container) -> Index:
    """What an open file holds. Raises `Refused` where sizes, names or descriptions do not fit together."""
    if not found.sections or found.sections[0].name != INDEX:
        raise Refused("its index is missing")
    size = whole(found.facts.get("index"), MAX_INDEX)
    read = _json(_unpacked(found.read(found.sections[0]), size))
    lists = field(read, "tensors", list)
    if len(lists) != len(found.sections) - 1:
        raise Refused("its index lists other sections")
    tensors = tuple(tuple(_tensor(entry) for entry in _list(entries)) for entries in lists)
    every = [tensor for section in tensors for tensor in section]
    if len({tensor.name for tensor in every}) < len(every):
        raise Refused("two of its tensors have one name")
    total = sum(streams.size_of(tensor.node) for tensor in every)
    if total != whole(found.facts.get("arrays"), MAX_ARRAYS):
        raise Refused("its tensors have another size than it states")
    return Index(field(read, "extra", dict), tensors)


def packed(index: bytes) -> bytes:
    """An index as the file keeps it, a third smaller than zlib makes it."""
    return lzma.compress(index, lzma.FORMAT_ALONE, filters=LZMA)


def _unpacked(data: bytes, size: int) -> bytes:
    """Never more than `size` bytes, whatever the data would become."""
    stream = lzma.LZMADecompressor(lzma.FORMAT_ALONE, MAX_MEMORY)
    try:
        text = stream.decompress(data, size + 1)
    except lzma.LZMAError:
        raise Refused("its index cannot be unpacked") from None
    if len(text) != size or not stream.eof or stream.unused_data:
        raise Refused("its index has another size than it states")
    return text


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Refused("its index is not JSON") from None


def _list(value: Any) -> list:
    if not isinstance(value, list):
        raise Refused("its index cannot be read")
    return value


def _tensor(entry: Any) -> Tensor:
    if len(_list(entry)) != 3 or not isinstance(entry[0], str) or not isinstance(entry[1], dict):
        raise Refused("a tensor of its index cannot be read")
    if not entry[0].isprintable():  # names are shown on terminals
        raise Refused(f"a tensor has a name that cannot be printed. Received: {entry[0][:60]!a}")
    return Tensor(entry[0], entry[1], whole(entry[2], MAX_ARRAYS))


def read_arrays(found: Container, index: Index) -> Iterator[tuple[str, np.ndarray]]:
    """Name and array of each tensor, one after the other. Raises `Refused` for what does not fit."""
    digest = hashlib.sha256()
    for section, tensors in zip(found.sections[1:], index.tensors, strict=True):
        reader = Reader(found.read(section))
        for tensor in tensors:
            own = Reader(reader.take(tensor.size))
            array = streams.decode(tensor.node, own)
            own.finish()
            digest.update(data_of(array).data)
            yield tensor.name, array
        reader.finish()
    if digest.hexdigest() != found.facts.get("decoded"):
        raise Refused("its arrays are decoded to other numbers than were written")


def data_of(array: np.ndarray) -> np.ndarray:
    """The bytes of an array, little endian, as (n,) uint8."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
