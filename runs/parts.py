"""A large file that is written piece by piece and, after a kill, goes on behind the last whole piece."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from secateur.runs.errors import warn
from secateur.runs.files import to_disk

NEW = {"done": 0, "bytes": 0}
_AT_ONCE = 2**22


class PartFile:
    """A binary file that knows which bytes it has; what `note` has returned is there after a kill.

    Attributes:
        done: of the pieces that it begins with, see `note`; 0 in a new file.
        kept: bytes of these pieces.
    """

    def __init__(self, file: BinaryIO, noted: Mapping[str, Any], note: Callable[[dict], None]) -> None:
        self.done, self.kept = noted["done"], noted["bytes"]
        self._file, self._note = file, note
        self._digest = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes, as a file does."""
        self._digest.update(data)
        return self._file.write(data)

    def note(self, done: int) -> None:
        """Bring what was written onto the disk, and keep how much that is; `done` is what it stands for."""
        self._file.flush()
        to_disk(self._file.fileno())
        end = self._file.tell()
        self._note({"done": done, "bytes": end, "sha256": self._digest.hexdigest()})
        self.kept = end

    def _holds(self, noted: Mapping[str, Any]) -> bool:
        """Whether the file begins with the noted bytes; it then stands behind them."""
        left = noted["bytes"]
        while left and (data := self._file.read(min(left, _AT_ONCE))):
            self._digest.update(data)
            left -= len(data)
        return not left and self._digest.hexdigest() == noted["sha256"]


@contextlib.contextmanager
def part_file(
    path: Path, noted: Mapping[str, Any] | None, note: Callable[[dict], None]
) -> Iterator[PartFile]:
    """Open a file of pieces to go on with it; a new one where `noted` is None.

    Args:
        path: of the file.
        noted: what `note` was called with last.
        note: keeps how far it is, plain types.

    A file that does not begin with what was noted is begun anew, with a warning. Of one whose writing fails
    there stays what was noted: on a full disk the rest is in the way.
    """
    part = None
    try:
        with open(path, "r+b" if noted and path.is_file() else "w+b") as file:
            part = PartFile(file, noted or NEW, note)
            if noted and not part._holds(noted):
                warn(f"{path} is gone, damaged or changed; it is begun anew")
                file.seek(0)
                part = PartFile(file, NEW, note)
            file.truncate()
            yield part
    except BaseException:
        if part:
            _cut(path, part.kept)
        raise


def _cut(path: Path, size: int) -> None:
    """Leave the first bytes of a file, if there are any to leave."""
    with contextlib.suppress(OSError):
        if size:
            os.truncate(path, size)
        else:
            path.unlink()
