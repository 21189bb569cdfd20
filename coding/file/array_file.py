"""Named arrays in a `.kpz` file, with one JSON object beside them; written only after they were read back."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from secateur.coding.file import container, streams
from secateur.coding.file.array_reader import INDEX, Each, data_of, packed, read_arrays, read_index
from secateur.runs.errors import SnapshotError
from secateur.runs.files import make_atomic, to_json

SECTION = 2**20  # bytes of data, about: a large tensor has a section of its own


@dataclass(frozen=True)
class Summary:
    """What was written: bytes of the arrays, bytes of the file, SHA-256 of the file in hex."""

    arrays: int
    file: int
    sha256: str

    def __str__(self) -> str:
        times = f"{self.arrays / self.file:.2f} times smaller"
        return f"{self.file:,} bytes for weights of {self.arrays:,}, {times}"


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
    facts = {"arrays": total, "index": len(sections[0][1]), "decoded": _digest(arrays)}
    sections[0] = (INDEX, packed(sections[0][1]))

    def make(temp: Path) -> None:
        with open(temp, "xb") as file:
            container.write(file, facts, sections)
        verify(temp, arrays)
        if check:
            check(temp)

    digest = make_atomic(path, make)
    return Summary(total, os.path.getsize(path), digest)


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of all numbers, whatever coder wrote them."""
    digest = hashlib.sha256()
    for array in arrays.values():
        digest.update(data_of(np.asarray(array)).data)
    return digest.hexdigest()


def _sections(arrays: Mapping[str, np.ndarray], extra: dict, each: Each) -> list[tuple[str, bytes]]:
    """The index, not yet packed, and the data."""
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
    return alike and np.array_equal(data_of(one), data_of(other))
