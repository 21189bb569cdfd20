"""Damage of an HDF5 file that its own library reads for ever."""

from __future__ import annotations

import mmap
import os
import zipfile
from pathlib import Path

from secateur.runs.stubs import Refused

COLLECTION = b"GCOL\x01\0\0\0"  # signature and version
HEADER = 16  # bytes of a collection, and of each object in it


def check_heaps(path: str | os.PathLike) -> None:
    """Raises `Refused` for a .h5 file, or one inside a .keras file, with a heap that would be read for ever.

    Texts of attributes lie in global heaps: collections of objects, one behind the other (HDF5 File Format
    Specification, III.E). The library goes from one to the next by its size, and stays where that is 0.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(".h5"):
                    _check(archive.read(name))
    elif Path(path).stat().st_size:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _check(data)


def _check(data: bytes | mmap.mmap) -> None:
    at = data.find(COLLECTION)
    while at >= 0:
        end = min(at + _number(data, at + 8, 8), len(data))
        place = at + HEADER
        while place + HEADER <= end:
            size = _number(data, place + 8, 8)
            used = _number(data, place, 2) > 0  # what is free comes last, its header counted
            place += HEADER + -(-size // 8) * 8 if used else size
            if place > end or not (used or size):
                raise Refused("a heap of its attributes is damaged")
        at = data.find(COLLECTION, at + len(COLLECTION))


def _number(data: bytes | mmap.mmap, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")
