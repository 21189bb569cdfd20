"""The file `.kpz`: sections of bytes, each with its size and SHA-256, checked before they are used.

8 bytes   89 4B 50 5A 0D 0A 1A 0A: one byte above ASCII and both line ends, which text transfers change
4 bytes   size of the header, little endian
32 bytes  SHA-256 of all of the above and the header
header    JSON: format, facts, and sections as [name, bytes, SHA-256]
sections  one after the other, and nothing behind the last
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from secateur.coding.file.reader import field, whole
from secateur.runs import files
from secateur.runs.errors import SnapshotError
from secateur.runs.stubs import Refused

FORMAT = "kpz/2"
MAGIC = b"\x89KPZ\r\n\x1a\n"
OTHERS = {b"PK\x03\x04": "a .keras file or another archive", b"\x80": "a pickle, as snapshots are"}
START = len(MAGIC) + 4 + 32
MAX_HEADER = 2**20


@dataclass(frozen=True)
class Section:
    """Where a section lies: name, first byte in the file, size in bytes, SHA-256 in hex."""

    name: str
    start: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Container:
    """An open file whose header has been checked.

    Attributes:
        file: open for reading.
        facts: what the writer said of the content, a JSON object.
        sections: in the order of the file.
    """

    file: BinaryIO
    facts: dict
    sections: tuple[Section, ...]

    def read(self, section: Section) -> bytes:
        """The bytes of a section. Raises `Refused` where they are not those that were written."""
        self.file.seek(section.start)
        data = self.file.read(section.size)
        if hashlib.sha256(data).hexdigest() != section.sha256:
            raise Refused(f"the digest of its section {section.name!a} does not match, so it was changed")
        return data


def write(file: BinaryIO, facts: dict, sections: Sequence[tuple[str, bytes]]) -> None:
    """Write a whole file: what `facts` say, JSON, and the sections by name."""
    listed = [[name, len(data), hashlib.sha256(data).hexdigest()] for name, data in sections]
    header = files.to_json({"format": FORMAT, "facts": facts, "sections": listed}).encode()
    start = MAGIC + struct.pack("<I", len(header))
    file.write(start + hashlib.sha256(start + header).digest() + header)
    for _, data in sections:
        file.write(data)


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[Container]:
    """Open a file; what is `Refused` inside the block, too, becomes a `SnapshotError` that names the file.

    Raises `SnapshotError` for what is missing, no such file, cut short, changed, or too large for memory.
    """
    name = os.fspath(path)
    try:
        with files.opened(path) as (file, size):
            yield _checked(file, size)
    except Refused as error:
        raise SnapshotError(
            f"{name} is not a usable .kpz file: {error}\ncopy it or encode the model again"
        ) from None
    except OSError as error:
        raise SnapshotError(f"{name} cannot be read ({error.strerror})\ncheck the path") from None
    except MemoryError:
        raise SnapshotError(f"{name} does not fit in memory\nclose other programs") from None


def _checked(file: BinaryIO, end: int) -> Container:
    start = file.read(START)
    if len(start) < START or not start.startswith(MAGIC):
        known = next((kind for first, kind in OTHERS.items() if start.startswith(first)), None)
        raise Refused(f"it is {known}, which encode takes" if known else "it does not start like one")
    size = whole(struct.unpack_from("<I", start, len(MAGIC))[0], min(MAX_HEADER, end - START))
    header = file.read(size)
    if hashlib.sha256(start[:-32] + header).digest() != start[-32:]:
        raise Refused("the digest of its header does not match, so it was damaged or changed")
    return _container(file, header, end)


def _container(file: BinaryIO, header: bytes, end: int) -> Container:
    try:
        read = json.loads(header)
    except (ValueError, RecursionError):
        raise Refused("its header is not JSON") from None
    if field(read, "format", str) != FORMAT:
        raise Refused(f"it was written by another version. Received: format={read['format'][:40]!a}")
    sections, start = [], START + len(header)
    for entry in field(read, "sections", list):
        if not isinstance(entry, list) or list(map(type, entry)) != [str, int, str]:
            raise Refused("its list of sections cannot be read")
        sections.append(Section(entry[0], start, whole(entry[1], end - start), entry[2]))
        start += entry[1]
    if start != end:
        raise Refused(f"it has {end} bytes and announces {start}, so it was cut short or added to")
    return Container(file, field(read, "facts", dict), tuple(sections))
