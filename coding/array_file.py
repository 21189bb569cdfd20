"""Named arrays in a `.kpz` file, with one JSON object beside them; written only after they were read back.

Section `index` is deflated JSON: that object, and for each section of data the tensors in it. The data are
decoded section by section: beside the arrays, memory holds one section.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coding import container, streams
from coding.container import Container
from coding.reader import Reader, field, whole
from runs.errors import SnapshotError
from runs.files import make_atomic, to_json
from runs.stubs import Refused

INDEX = "index"
SECTION = 2**20  # bytes of data, about: a large tensor has a section of its own
MAX_INDEX = 2**24  # of JSON, which grows when it is parsed
MAX_ARRAYS = 2**31

Each = Callable[[Iterable], Iterable]  # passes on what it is given, and may show progress


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file: its name, its description (see `streams`), its bytes there."""

    name: str
    node: dict
    size: int


@dataclass(frozen=True)
class Summary:
    """What was written: bytes of the arrays, bytes of the file, SHA-256 of the file in hex."""

    arrays: int
    file: int
    sha256: str


def encode_arrays(
    arrays: Mapping[str, np.ndarray],
    path: str | os.PathLike,
    extra: dict | None = None,
    check: Callable[[Path], None] | None = None,
    each: Each = iter,
) -> Summary:
    """Write arrays to a `.kpz` file. It takes its place only after every bit was read back from it.

    Args:
        arrays: name → floats of 2, 4 or 8 bytes, integers, truth values.
        path: the file; what is there is replaced.
        extra: JSON to keep beside them.
        check: called with the written file before it takes its place; raises where it is not as it should be.
        each: wraps the arrays while they are coded, to show progress.

    Raises:
        SnapshotError: an array cannot be coded, or what is read back differs (nothing is left behind).
        RunFolderError: the disk is full, or the folder is missing or cannot be written.
    """
    sections = _sections(arrays, extra or {}, each)
    total = sum(array.nbytes for array in arrays.values())
    facts = {"arrays": total, "index": len(sections[0][1])}
    sections[0] = (INDEX, zlib.compress(sections[0][1], 9))

    def make(temp: Path) -> None:
        with open(temp, "xb") as file:
            container.write(file, facts, sections)
        verify(temp, arrays)
        if check:
            check(temp)

    digest = make_atomic(path, make)
    return Summary(total, os.path.getsize(path), digest)


def _sections(arrays: Mapping[str, np.ndarray], extra: dict, each: Each) -> list[tuple[str, bytes]]:
    """The index, not yet deflated, and the data."""
    tensors: list[list] = []
    data: list[bytearray] = []
    for name, array in each(arrays.items()):
        try:
            part = streams.code(array)
        except TypeError as error:
            raise SnapshotError(f"{name}: {error}\ncast it to float32") from None
        if not data or len(data[-1]) + len(part.data) > SECTION:
            tensors.append([])
            data.append(bytearray())
        tensors[-1].append([name, part.node, len(part.data)])
        data[-1] += part.data
    index = to_json({"extra": extra, "tensors": tensors}).encode()
    return [(INDEX, index), *((f"data {i}", bytes(one)) for i, one in enumerate(data))]


def verify(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises `SnapshotError` unless the file holds just these arrays: names, types, shapes and every bit."""
    with container.opened(path) as found:
        index = read_index(found)
        names = [tensor.name for section in index.tensors for tensor in section]
        if names != list(arrays):
            raise SnapshotError(f"{path}: the file holds other arrays than were written. Nothing is kept")
        for name, array in read_arrays(found, index):
            if not equal(array, np.asarray(arrays[name])):
                raise SnapshotError(f"{path}: {name} is not read back as it was written. Nothing is kept")


def equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays have the same type, shape and bits: NaN is itself, −0 is not 0."""
    alike = (one.dtype, one.shape) == (other.dtype.newbyteorder("="), other.shape)
    return alike and np.array_equal(_bytes(one), _bytes(other))


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(-1).view(np.uint8)


# --- reading -----------------------------------------------------------------------------------------------


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
    read = _json(_inflated(found.read(found.sections[0]), size))
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


def _inflated(data: bytes, size: int) -> bytes:
    """Never more than `size` bytes, whatever the data would become."""
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(data, size + 1)
    except zlib.error:
        raise Refused("its index cannot be inflated") from None
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
    return Tensor(entry[0], entry[1], whole(entry[2], MAX_ARRAYS))


def read_arrays(found: Container, index: Index) -> Iterator[tuple[str, np.ndarray]]:
    """Name and array of each tensor, one after the other. Raises `Refused` for what does not fit."""
    for section, tensors in zip(found.sections[1:], index.tensors, strict=True):
        reader = Reader(found.read(section))
        for tensor in tensors:
            own = Reader(reader.take(tensor.size))
            yield tensor.name, streams.decode(tensor.node, own)
            own.finish()
        reader.finish()
